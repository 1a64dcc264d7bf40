"""The documentation is built without a warning, and says what is there."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"],
        cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr, done.stderr
    reference = (tmp_path / "site" / "reference" / "constraints" / "index.html").read_text()
    assert "WriteConstraint" in reference
    assert "project_gradients" in reference


def test_the_picture_of_imports_is_that_of_the_code():
    spec = importlib.util.spec_from_file_location("draw_imports", ROOT / "docs" / "draw_imports.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    drawn = set(re.findall(r'id="(\w+-imports-\w+)"', module.TARGET.read_text()))
    assert drawn == {f"{ours}-imports-{theirs}" for ours, theirs in module.edges()}, "run: make docs"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_tests_and_files_that_a_page_names_are_there(page):
    text = page.read_text()
    functions = set(
        re.findall(r"def (test_\w+)", "".join(path.read_text() for path in (ROOT / "tests").rglob("*.py")))
    )
    for name in re.findall(r"`(?:[\w/.]+::)?(test_\w+)`", text):
        assert name in functions, name
    for name in re.findall(r"`((?:tests|configs|notebooks|benchmarks)/[\w/.]+?\.\w+)(?:::\w+)?`", text):
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_python_in_a_page_is_python(page):
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL):
        compile(block, page.name, "exec")
