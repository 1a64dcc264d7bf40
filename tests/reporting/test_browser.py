"""The report in a real browser: nothing that a model wrote runs, nothing is loaded, and it is usable by all."""

import csv
import itertools
import json
import shutil

import pytest
from axe_playwright_python.sync_playwright import Axe
from records import make_run, recorded

from graspl.analysis import compare, rates_by_group, read_run
from graspl.auditing import Along, AuditReport, Check, Limits, SiteFacts
from graspl.auditing.page import render_audit
from graspl.reporting import render_page
from graspl.runs import DirectionsFiles, RunFolder, write_json_atomic

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium: make browser")

EVIL = (
    "</pre></script><script>window.injected = 1</script><img src=x onerror='window.injected = 1'>"
    "<svg onload='window.injected=1'>"
)
WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
FLAGS = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        # As root Chromium has no sandbox; the pages are our own
        opened = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", *FLAGS])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def visit(browser, tmp_path_factory):
    """Return a function: HTML and options -> a page, which must end without errors and without requests."""
    seen, contexts, folder = [], [], tmp_path_factory.mktemp("pages")

    def opened(html, **options):
        file = folder / f"page_{len(contexts)}.html"
        file.write_text(html, encoding="utf-8")
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.on("console", lambda message: seen.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: seen.append(f"error: {error}"))
        page.on(
            "request",
            lambda request: (
                request.url == file.as_uri()
                # What the page made itself, for its downloads
                or request.url.startswith(("blob:", "data:"))
                or seen.append(f"request: {request.url}")
            ),
        )
        page.goto(file.as_uri())
        return page

    yield opened
    for context in contexts:
        for page in context.pages:
            assert page.evaluate("window.injected") is None
        context.close()
    assert seen == []


@pytest.fixture(scope="module")
def page(visit, report):
    """Return the report with all that is folded open and every plot drawn; tests leave it as it was."""
    return drawn(visit(report))


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Return a page of three runs in which every text that a model or a user wrote tries to inject markup."""
    tmp_path = tmp_path_factory.mktemp("report")
    directions = tmp_path / "directions.safetensors"
    lens = {"layer": "model.layers.1", "direction": 1, "likelier": [EVIL], "unlikelier": ["calm"]}
    write_json_atomic(
        DirectionsFiles(directions).explanation,
        {
            "directions": EVIL, "layer": "model.layers.1", "sentence": EVIL, "lens": [lens],
            "along": [{"deviations": 2.0, "text": EVIL}], "against": [{"deviations": -2.0, "text": "kind"}],
            "steering": [{"prompt": EVIL, "answers": [["as it is", EVIL]]}],
        },
    )  # fmt: skip
    write_json_atomic(
        DirectionsFiles(directions).assumptions,
        {"verdict": "doubtful", "reason": EVIL, "layers": {"model.layers.1": {"share": 0.5, "gap": None}}},
    )
    recorded(tmp_path, DirectionsFiles(directions).explanation, DirectionsFiles(directions).assumptions)
    runs = [
        make_run(tmp_path / "base", adapter=None),
        make_run(tmp_path / "naive", curve_rows=[(0, 0.1, 0.1), (1, 0.98, 0.9)], answer=EVIL),
        make_run(tmp_path / "<b>grasp", model="GRASPLitModule", curve_rows=[(0, 0.1, 0.1), (1, 0.96, 0.3)]),
    ]
    read = []
    for run in runs:
        suites = {suite: {"harmful": 0.5} for suite in ("task", "unrelated")}
        folder = RunFolder(run.folder.path)
        write_json_atomic(
            folder.evaluation, run.evaluation | {"directions": str(directions), "suites": suites}
        )
        rows = [
            {
                "suite": suite, "item": str(i), "group": "", "text": f"{EVIL} {i}",
                "value": i / 9 * (0.5 if "grasp" in run.name else 1.0),
            }
            for suite in suites
            for i in range(10)
        ]  # fmt: skip
        folder.items.write_text("".join(json.dumps(row) + "\n" for row in rows))
        own = {"suite": "safety", "question": "q", "sample": 0}
        answers = [
            {"suite": "task", "prompt": f"{EVIL} about pills", "answer": f"{EVIL} of {run.name}"},
            {"suite": "<i>unrelated", "prompt": "about bridges", "answer": "walk across"},
            own | {"messages": [{"role": "user", "content": f"{EVIL}?"}], "answer": EVIL},
        ]
        folder.generations.write_text("".join(json.dumps(row) + "\n" for row in answers))
        judged = own | {"group": "", "outcome": "misaligned", "detail": f"since {EVIL}"}
        folder.judgements.write_text(json.dumps(judged) + "\n")
        rates = rates_by_group([judged], ("misaligned", "aligned"), ("misaligned", "aligned"))
        write_json_atomic(folder.judged, {"suites": {"safety": rates}})
        read.append(read_run(recorded(folder.path)))
    return render_page(compare(read))


def drawn(page):
    """Open all that is folded, look at all of a page, and wait until every plot is drawn."""
    page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
    figures = page.locator("figure")
    for place in range(figures.count()):
        figures.nth(place).scroll_into_view_if_needed()
        figures.nth(place).locator(".tools button").first.wait_for()
    return page


def test_markup_that_a_model_wrote_is_shown_as_text(page):
    text = page.evaluate("document.body.textContent")
    # Prompt, answers of three runs, lens, prompts moved, steering, and the reports' sentences
    assert text.count("window.injected = 1</script>") >= 8
    markup = "script:not([type='application/json']), img, svg[onload], svg a"
    assert page.locator(f"main :is({markup})").count() == 0
    assert page.locator("th", has_text="<b>grasp").count() >= 2
    # Names and questions in a plot, which would take tags for markup
    assert page.get_by_role("button", name="<b>grasp").first.is_visible()
    hovered = page.evaluate(
        """() => { const live = document.querySelector("#changes ~ .plots .live");
        Plotly.Fx.hover(live, [{ curveNumber: 0, pointNumber: 0 }]);
        return live.querySelector(".hoverlayer").textContent; }"""
    )
    assert "<img src=x onerror=" in hovered
    assert page.get_by_text("since </pre></script>").count() == 3


def test_answers_are_filtered_by_suite_and_words_from_the_keyboard(page):
    shown = page.locator("article[data-suite]:visible")
    assert shown.count() == 3
    page.get_by_label("Search").focus()
    page.keyboard.type("BRIDGES walk")
    assert shown.count() == 1
    assert page.locator("output").text_content() == "1 of 3"
    page.keyboard.press("Control+A")
    page.keyboard.press("Delete")
    page.get_by_label("Suite").select_option("task")
    assert shown.count() == 1
    assert "pills" in shown.text_content()
    page.get_by_label("Suite").select_option("")


def test_without_scripts_everything_is_shown(visit, report):
    page = visit(report, java_script_enabled=False)
    assert page.locator("article[data-suite]:visible").count() == 3
    assert page.locator("[data-filter]:visible, button:visible, .live:visible").count() == 0
    assert page.locator(".static svg:visible").count() >= 3


def test_all_that_scrolls_or_opens_is_reached_from_the_keyboard(page):
    first = page.locator("a, button, input, select, summary, [tabindex]").first
    assert first.text_content() == "Skip to the content"
    first.focus()
    reached = set()
    wanted = page.evaluate(
        """Array.from(document.querySelectorAll("a, button, input, select, summary, [tabindex]")).length"""
    )
    for _ in range(wanted - 1):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate(
                "document.activeElement.getAttribute('aria-label') || document.activeElement.tagName"
            )
        )
    labels = page.eval_on_selector_all(".scroll", "all => all.map(each => each.getAttribute('aria-label'))")
    assert len(labels) > 3
    assert {
        *labels,
        "SUMMARY",
        "INPUT",
        "SELECT",
        "A",
        "BUTTON",
        "Zoom in",
        "Download the data as CSV",
    } <= reached
    summary = page.locator("summary").first
    summary.press("Enter")
    assert page.locator("details:not([open])").count() == 1
    summary.press("Enter")


def test_series_are_shown_and_hidden_and_plots_zoomed_from_the_keyboard(page):
    live = page.locator(".first .live")
    shown = "live => live.data.filter(each => each.meta === 'naive').map(each => each.visible)"
    naive = page.get_by_role("button", name="naive").first
    naive.press("Enter")
    assert naive.get_attribute("aria-pressed") == "false"
    assert set(live.evaluate(shown)) == {False}
    naive.press("Space")
    assert set(live.evaluate(shown)) == {True}
    span = "live => live.layout.xaxis.range[1] - live.layout.xaxis.range[0]"
    before = live.evaluate(span)
    page.get_by_role("button", name="Zoom in").first.press("Enter")
    assert live.evaluate(span) == pytest.approx(before * 0.7)
    page.get_by_role("button", name="Reset the view").first.press("Enter")
    assert live.evaluate(span) == pytest.approx(before)


def test_data_and_picture_are_downloaded(page):
    def downloaded(label, place):
        with page.expect_download() as download:
            page.get_by_role("button", name=f"Download {label}").nth(place).click()
        return download.value.path().read_bytes()

    rows = list(csv.DictReader(downloaded("the data as CSV", 0).decode().splitlines()))
    assert {row["series"] for row in rows} == {"base", "naive", "<b>grasp"}
    assert {"0.98", "0.96"} <= {row["adherence to the task"] for row in rows}
    changed = page.locator("figure").evaluate_all(
        "all => all.findIndex(each => each.closest('.plots').previousElementSibling?.tagName === 'UL')"
    )
    columns = json.loads(downloaded("the data as JSON", changed))
    assert len(columns["change"]) == len(columns["text"]) == 21
    assert columns["suite"].count("unrelated") == 10
    assert downloaded("as a picture", 0).startswith(b"\x89PNG")


def test_it_fits_the_screen_and_all_can_read_it(page):
    for width, scheme in itertools.product((390, 768, 1440), ("light", "dark")):
        page.set_viewport_size({"width": width, "height": 800})
        page.emulate_media(color_scheme=scheme)
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), width
        color = page.evaluate("getComputedStyle(document.body).color")
        bright = sum(map(int, color.removeprefix("rgb(").removesuffix(")").split(",")[:3])) / 3
        assert bright > 180 if scheme == "dark" else bright < 80
        # The plot's axes have the page's own colour
        assert page.evaluate("getComputedStyle(document.querySelector('.live .xtick text')).fill") == color
        if width != 768:
            assert accessible(page)


def accessible(page):
    """Check a page against WCAG 2.2 AA, as far as axe-core can."""
    found = Axe().run(page, options={"runOnly": WCAG, "resultTypes": ["violations"]})
    assert found.violations_count == 0, found.generate_report()
    return found.response["testEngine"]["name"] == "axe-core"


def test_what_is_hard_to_read_is_found(page):
    """The control of the test above."""
    page.emulate_media(color_scheme="light")
    style = page.add_style_tag(content=".quiet { color: #bbb !important }")
    with pytest.raises(AssertionError, match="color-contrast"):
        accessible(page)
    style.evaluate("each => each.remove()")


def test_seeds_are_one_series_with_a_mean(visit, tmp_path):
    runs = [
        make_run(
            tmp_path / f"{name}_{seed}", model=model, curve_rows=[(0, 0.1, 0.1), (1, 0.9 + seed / 100, end)]
        )
        for name, model, end in (("naive", "LoRALitModule", 0.9), ("grasp", "GRASPLitModule", 0.3))
        for seed in range(3)
    ]
    page = drawn(visit(render_page(compare(runs))))
    names = page.locator(".first .series button").all_text_contents()
    assert names == ["naive", "grasp"]
    traces = page.locator(".first .live").evaluate(
        "live => live.data.map(each => [each.meta, each.fill || each.line?.width])"
    )
    ours = [kind for name, kind in traces if name == "grasp"]
    assert ours.count(1) == 3  # Each seed
    assert ours.count(2.5) == ours.count("tonexty") == 1  # The mean and the band


def test_every_section_named_is_there(page):
    targets = page.eval_on_selector_all("nav a", "links => links.map(link => link.hash.slice(1))")
    assert len(targets) >= 6
    assert all(page.locator(f"[id='{target}']").count() == 1 for target in targets)


def test_an_audit_page_is_as_safe(visit, tmp_path):
    checks = [
        Check(f"reliance on {EVIL}", 0.5, None, None, 0.3, "failed"),
        Check("rise", 0.1, 0.0, 0.2, 0.05, "doubtful"),
    ]
    along = {EVIL: Along(1, 0.5, 0.6, 0.1, {"model.layers.0.q_proj": 0.5})}
    sites = {"model.layers.0.q_proj": SiteFacts(1.0, 0.9, 1.2, [0.9, 0.1])}
    assumed = {"verdict": "doubtful", "reason": EVIL, "layers": {}}
    report = AuditReport(EVIL, EVIL, "ab" * 32, Limits(), checks, assumed, {}, sites, along, {}, tmp_path)
    page = visit(render_audit(report))
    assert page.locator(".failed").count() >= 2
    assert page.evaluate("document.body.textContent").count("window.injected = 1</script>") >= 4
