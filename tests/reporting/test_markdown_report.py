"""The report as Markdown: the page's order, and nothing in it that a model wrote becomes markup."""

from markdown_it import MarkdownIt
from records import make_run

from graspl.analysis import compare
from graspl.reporting.markdown_report import as_report
from graspl.reporting.sheet import sheet_of

EVIL = "<b>x</b> [link](http://x.example) ![i](y) | `c` *e*\n# title"


def test_it_has_the_order_of_the_page(tmp_path):
    runs = [
        make_run(tmp_path / "base", adapter=None, spillover=0.1),
        make_run(tmp_path / "naive", curve_rows=[(0, 0.1, 0.1), (1, 0.98, 0.9)]),
        make_run(tmp_path / "grasp", model="GRASPLitModule", curve_rows=[(0, 0.1, 0.1), (1, 0.98, 0.3)]),
    ]
    text = as_report(sheet_of(compare(runs)))
    assert text.startswith(
        "**Spill-over removed: 75 % of what naive adds is gone with grasp (one seed, no interval)"
    )
    places = [
        text.index(each)
        for each in ("At adherence 0.95", "| run | adherence", "| method | none: the base model")
    ]
    assert places == sorted(places)


def test_what_others_wrote_is_text(tmp_path):
    run = make_run(tmp_path / "run", model=EVIL)
    run = run.__class__(**{**vars(run), "name": EVIL})
    text = as_report(sheet_of(compare([run])))
    html = MarkdownIt("commonmark").enable("table").render(text)
    assert "<h1>" not in html
    assert not any(mark in html for mark in ("<b>", "<a ", "<img", "<code>", "<em>"))
    assert "&lt;b&gt;x&lt;/b&gt; [link](http://x.example)" in html
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert rows
