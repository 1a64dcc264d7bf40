import re
from xml.etree import ElementTree

import pytest
from records import make_run, recorded

from graspl.analysis import compare, key_points, read_run, verdict
from graspl.errors import GrasplError
from graspl.reporting import render_page
from graspl.runs import write_json_atomic


def test_a_comparison_says_what_the_figures_say(tmp_path):
    naive = make_run(tmp_path / "naive", curve_rows=[(0, 0.1, 0.1), (1, 0.98, 0.9)])
    grasp = make_run(tmp_path / "grasp", model="GRASPLitModule", curve_rows=[(0, 0.1, 0.1), (1, 0.94, 0.3)])
    base = make_run(tmp_path / "base", adapter=None)
    found = compare([base, naive, grasp])
    assert found.matched["0.95"]["grasp"] is None
    assert found.matched["0.90"]["grasp"] == pytest.approx(0.1 + 0.2 * 0.8 / 0.84)
    assert re.match(
        r"At adherence 0\.90: spill-over of grasp 0\.290, of naive 0\.827; 0\.537 lower", verdict(found)[0]
    )
    assert "grasp did not reach it" in verdict(found)[1]
    assert set(found.summary()) == {"base", "naive", "grasp", "matched", "matched_figure", "matched_shares"}
    assert "One seed" in key_points(found)[-1]
    assert len(key_points(found)) <= 3
    assert "0.290 with grasp and 0.827 with naive" in key_points(found)[0]
    worse = make_run(tmp_path / "worse", model="GRASPLitModule", curve_rows=[(0, 0.1, 0.1), (1, 0.98, 0.99)])
    assert "higher" in verdict(compare([naive, worse]))[0]
    assert "No naive fit" in verdict(compare([base, grasp]))[0]
    assert "says little" not in key_points(found)[0]
    vague = make_run(tmp_path / "vague", curve_rows=[(0, 0.1, 0.1), (1, 0.98, 0.9)], coherence=0.02)
    assert "says little: off the task vague gives" in key_points(compare([vague, grasp]))[0]
    with pytest.raises(GrasplError, match="naive stands for two runs"):
        compare([naive, naive])


def test_a_comparison_without_a_spillover_says_so(tmp_path):
    runs = [
        make_run(tmp_path / name, model=model, spillover=None, kl=kl, adherence=0.3)
        for name, model, kl in (("naive", "LoRALitModule", 0.41), ("grasp", "GRASPLitModule", 0.2))
    ]
    (text,) = [line for line in key_points(compare(runs)) if "Spill-over was not measured" in line]
    assert "naive 0.410 at adherence 0.300; grasp 0.200 at adherence 0.300" in text


def test_fits_that_reach_no_fixed_level_are_compared_at_shares_of_the_naive_gain(tmp_path):
    """A task of text alone: token accuracy seldom reaches 0.90, and the divergence is all that is known off the task."""
    names = ["step", "val/adherence", "val/kl", "val/task/base_token_accuracy"]
    runs = []
    for name, model, kl in (("naive", "LoRALitModule", 0.8), ("grasp", "GRASPLitModule", 0.4)):
        run = make_run(tmp_path / name, model=model, spillover=None, kl=kl, adherence=0.6)
        rows = [(0, 0.2, 0.0, 0.2), (1, 0.4, kl / 4, 0.2), (2, 0.6, kl, 0.2)]
        text = [",".join(names), *(",".join(map(str, row)) for row in rows)]
        run.folder.metrics.write_text("\n".join(text) + "\n")
        runs.append(read_run(recorded(run.folder.path)))
    found = compare(runs)
    assert found.figure == "kl"
    assert found.shares == {"0.4000": 0.5, "0.5600": 0.9}
    assert found.matched["0.4000"] == {"naive": pytest.approx(0.2), "grasp": pytest.approx(0.1)}
    assert found.matched["0.5600"]["naive"] == pytest.approx(0.2 + 0.8 * 0.6)
    first = key_points(found)[0]
    assert "At adherence 0.5600 (90% of what the naive fit gains) divergence" in first
    assert "0.340 nats a token with grasp and 0.680 with naive" in first
    page = render_page(found)
    assert "kl at 0.5600 (90% of what the naive fit gains)" in page
    assert "nats a token" in page
    # Against a fixed level where the naive fit reaches one
    fixed = make_run(tmp_path / "fixed", curve_rows=[(0, 0.1, 0.1), (1, 0.98, 0.9)])
    assert compare([fixed]).shares == {}


def test_a_page_escapes_what_a_model_wrote_and_loads_nothing(tmp_path):
    evil = "</pre><script>alert(1)</script><img src=http://x.example/y>"
    runs = [
        make_run(tmp_path / "naive", curve_rows=[(0, 0.1, 0.1), (1, 0.98, 0.9)], answer=evil),
        make_run(tmp_path / "<i>odd & name", model="GRASPLitModule", rho_mean=None),
    ]
    page = render_page(compare(runs))
    scripts = re.findall(r"<script(.*?)>", page)
    # The library, as text, and the page's own script; all else is data
    assert [each for each in scripts if "json" not in each] == [' type="text/plain" id="library"', ""]
    assert "<img" not in page
    assert "&lt;script&gt;" in page
    assert "&lt;i&gt;odd &amp; name" in page
    assert not re.search(r"<[^>]*(src|href)=[\"']?http", page)
    pictures = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    assert len(pictures) == page.count('type="application/json"')
    for svg in pictures:
        ElementTree.fromstring(svg)
    assert render_page(compare(runs)) == page


def test_a_run_without_metrics_is_named(tmp_path):
    write_json_atomic(tmp_path / "evaluation.json", [])
    with pytest.raises(GrasplError, match="holds no metrics"):
        read_run(tmp_path)


def test_the_report_says_what_a_null_space_promised(tmp_path):
    run = make_run(tmp_path / "null")
    kept = {
        "kind": "contrastive",
        "text": {"typical": 0.25, "before training": {"typical": 0.375, "outlook": "in doubt"}},
        "own_text": {"typical": 0.5},
    }
    write_json_atomic(run.folder.null_space, kept)
    recorded(run.folder.path)
    page = render_page(compare([run]))
    assert "over that to the task's rows is 0.250, A's before training was 0.375: in doubt." in page
    assert "null, null space, own text" in page
    tried = {"kept": {"text": 0.75}, "reach": 1.0, "outlook": "not likely to hold"}
    write_json_atomic(run.folder.null_space, kept | {"trial": tried})
    recorded(run.folder.path)
    page = render_page(compare([run]))
    assert "was 0.375: not likely to hold. A trial before training kept 0.750 of a naive fit" in page
    assert "Null space: not likely to hold" in page
    for broken in (
        [],
        kept | {"trial": {"kept": 1}},
        {"text": 1},
        {"text": {}},
        {"text": {"typical": 0.2, "before training": []}},
    ):
        write_json_atomic(run.folder.null_space, broken)
        recorded(run.folder.path)
        with pytest.raises(GrasplError, match=r"null_space\.json: .*wrong kind; fit again"):
            render_page(compare([run]))
