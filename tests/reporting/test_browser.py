"""The report in a real browser: nothing that a model wrote runs, nothing is loaded, and it is usable by all."""

import json
import shutil

import pytest
from records import recorded
from test_report import make_run

from graspl.analysis import compare, read_run
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


@pytest.fixture
def visit(browser, tmp_path):
    """Return a function: HTML and options -> a page, which must end without errors and without requests."""
    seen, contexts = [], []

    def opened(html, **options):
        file = tmp_path / "page.html"
        file.write_text(html, encoding="utf-8")
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.on("console", lambda message: seen.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: seen.append(f"error: {error}"))
        page.on(
            "request", lambda request: request.url == file.as_uri() or seen.append(f"request: {request.url}")
        )
        page.goto(file.as_uri())
        return page

    yield opened
    for context in contexts:
        for page in context.pages:
            assert page.evaluate("window.injected") is None
        context.close()
    assert seen == []


@pytest.fixture
def report(tmp_path):
    """Return a page of three runs in which every text that a model or a user wrote tries to inject markup."""
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
            {"suite": suite, "item": str(i), "group": "", "value": i / 9}
            for suite in suites
            for i in range(10)
        ]
        folder.items.write_text("".join(json.dumps(row) + "\n" for row in rows))
        answers = [
            {"suite": "task", "prompt": f"{EVIL} about pills", "answer": f"{EVIL} of {run.name}"},
            {"suite": "<i>unrelated", "prompt": "about bridges", "answer": "walk across"},
        ]
        folder.generations.write_text("".join(json.dumps(row) + "\n" for row in answers))
        read.append(read_run(recorded(folder.path)))
    return render_page(compare(read))


def test_markup_that_a_model_wrote_is_shown_as_text(visit, report):
    page = visit(report)
    text = page.evaluate("document.body.textContent")
    # Prompt, answers of three runs, lens, prompts moved, steering, and the reports' sentences
    assert text.count("window.injected = 1</script>") >= 8
    assert page.locator("main script, main img, main svg[onload]").count() == 0
    assert page.locator("th", has_text="<b>grasp").count() >= 2


def test_answers_are_filtered_by_suite_and_words_from_the_keyboard(visit, report):
    page = visit(report)
    shown = page.locator("article[data-suite]:visible")
    assert shown.count() == 2
    page.get_by_label("Search").focus()
    page.keyboard.type("BRIDGES walk")
    assert shown.count() == 1
    assert page.locator("output").text_content() == "1 of 2"
    page.keyboard.press("Control+A")
    page.keyboard.press("Delete")
    page.get_by_label("Suite").select_option("task")
    assert shown.count() == 1
    assert "pills" in shown.text_content()


def test_without_scripts_everything_is_shown(visit, report):
    page = visit(report, java_script_enabled=False)
    assert page.locator("article[data-suite]:visible").count() == 2
    assert page.locator("[data-tools]:visible").count() == 0


def test_all_that_scrolls_or_opens_is_reached_from_the_keyboard(visit, report):
    page = visit(report)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    regions, reached = page.locator(".scroll").count(), set()
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate(
                "document.activeElement.getAttribute('aria-label') || document.activeElement.tagName"
            )
        )
    assert regions > 3
    assert {"Runs", "Tokens by logit lens", "Assumption report", "SUMMARY", "INPUT", "SELECT", "A"} <= reached
    summary = page.locator("summary").first
    summary.focus()
    page.keyboard.press("Enter")
    assert page.locator("details[open]").count() == 1


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_the_screen_and_can_be_read_in_both_schemes(visit, report, width, scheme):
    page = visit(report, viewport={"width": width, "height": 800}, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    look = """selector => { const style = getComputedStyle(document.querySelector(selector));
        return [style.color, getComputedStyle(document.documentElement).colorScheme]; }"""
    color = page.evaluate(look, "body")[0]
    bright = sum(map(int, color.removeprefix("rgb(").removesuffix(")").split(",")[:3])) / 3
    assert bright > 180 if scheme == "dark" else bright < 80
    # The plot's axes have the page's own colour
    assert page.evaluate("getComputedStyle(document.querySelector('figure svg text')).fill") == color


def test_every_section_named_is_there(visit, report):
    page = visit(report)
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
