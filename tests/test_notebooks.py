"""Notebooks run from top to bottom."""

import json
import warnings
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(notebook):
    names = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for cell in json.loads(notebook.read_text())["cells"]:
            if cell["cell_type"] == "code":
                exec(compile("".join(cell["source"]), notebook.name, "exec"), names)  # noqa: S102 - our own notebook
    assert names["naive"]["val/adherence"] > 0.8
    assert max(names["rho"]) <= 1e-5
