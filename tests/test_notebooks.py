"""Notebooks run from top to bottom and show what they say."""

import json
import warnings
from pathlib import Path

import pytest

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


def quick_start(names):
    assert names["naive"]["val/adherence"] > 0.8
    assert max(names["rho"]) <= 1e-5


def reading_a_direction(names):
    assert names["report"].verdict == "identifiable"
    assert names["cosine"] > 0.8
    assert names["ahead"][0].deviations > 0 > names["behind"][0].deviations
    answers = [dict(each.answers) for each in names["steering"]]
    assert any(len(set(each.values())) > 1 for each in answers)


def own_task(names):
    assert names["naive"]["val/adherence"] > 0.5
    assert names["rho"] <= 1e-5


def adding_a_method(names):
    entropies = list(names["entropies"].values())
    assert entropies == sorted(entropies)
    assert entropies[-1] > 1.1 * entropies[0]


CHECKS = [quick_start, reading_a_direction, own_task, adding_a_method]


def test_every_notebook_is_run():
    assert {path.stem for path in NOTEBOOKS.glob("*.ipynb")} == {check.__name__ for check in CHECKS}


@pytest.mark.parametrize("notebook", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_keeps_what_it_shows(notebook):
    cells = [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"]
    shown = [each for cell in cells for each in cell["outputs"]]
    assert all(cell["execution_count"] == place for place, cell in enumerate(cells, 1)), "run: make notebooks"
    assert any("image/png" in each.get("data", {}) for each in shown)
    assert not [each for each in shown if each["output_type"] == "error" or each.get("name") == "stderr"]


@pytest.mark.slow
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_notebook_runs(check, tmp_path, monkeypatch):
    notebook = NOTEBOOKS / f"{check.__name__}.ipynb"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    names = {"__name__": "__main__"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for cell in json.loads(notebook.read_text())["cells"]:
            if cell["cell_type"] == "code":
                exec(compile("".join(cell["source"]), notebook.name, "exec"), names)  # noqa: S102 - our own notebook
    check(names)
