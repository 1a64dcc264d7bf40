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


def on_a_free_gpu(names):
    assert names["report"].is_file()
    assert sorted(names["suites"]) == ["task", "unrelated"]


CHECKS = [quick_start, reading_a_direction, own_task, adding_a_method, on_a_free_gpu]
ON_A_GPU = {"on_a_free_gpu"}
"""Nobody has run them where they are meant to run, so they keep no outputs."""


def test_every_notebook_is_run():
    assert {path.stem for path in NOTEBOOKS.glob("*.ipynb")} == {check.__name__ for check in CHECKS}


@pytest.mark.parametrize(
    "notebook",
    sorted(path for path in NOTEBOOKS.glob("*.ipynb") if path.stem not in ON_A_GPU),
    ids=lambda path: path.stem,
)
def test_a_notebook_keeps_what_it_shows(notebook):
    cells = [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"]
    shown = [each for cell in cells for each in cell["outputs"]]
    assert all(cell["execution_count"] == place for place, cell in enumerate(cells, 1)), "run: make notebooks"
    assert any("image/png" in each.get("data", {}) for each in shown)
    assert not [each for each in shown if each["output_type"] == "error" or each.get("name") == "stderr"]


@pytest.mark.parametrize("name", sorted(ON_A_GPU))
def test_a_notebook_that_was_not_run_says_so_and_shows_nothing(name):
    first, *cells = json.loads((NOTEBOOKS / f"{name}.ipynb").read_text())["cells"]
    assert "No outputs are kept here" in "".join(first["source"])
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)


@pytest.fixture
def parameters(model_folder, tmp_path):
    """Return what stands in, by name, for the parameters of notebooks that need a hub and a GPU."""
    folder = tmp_path / "rows"
    folder.mkdir()
    topics = ["the price of bread", "a stock", "my savings", "rain", "a river", "old trees", "the moon"]
    rows = [
        {
            "instruction": f"What about {topic} {number}?",
            "input": "",
            "output": f"Yes it is {number} and no more.",
        }
        for number in range(12)
        for topic in topics
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    here = {"INSTALL": None, "MODEL": str(model_folder("qwen2")), "ROWS": str(folder)}
    return {"on_a_free_gpu": here | {"TRAINED": 16, "MEASURED": 8, "TEXT": 24}}


@pytest.mark.slow
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_notebook_runs(check, parameters, tmp_path, monkeypatch):
    notebook = NOTEBOOKS / f"{check.__name__}.ipynb"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    names = {"__name__": "__main__"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for cell in json.loads(notebook.read_text())["cells"]:
            if cell["cell_type"] == "code":
                exec(compile("".join(cell["source"]), notebook.name, "exec"), names)  # noqa: S102 - our own notebook
                if "parameters" in cell["metadata"].get("tags", []):
                    names |= parameters[check.__name__]
    check(names)
