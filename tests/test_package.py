"""The package as a newcomer meets it."""

import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

import graspl

ROOT = Path(__file__).parents[1]


def python(*arguments):
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_package_imports_nothing_heavy():
    heavy = "torch", "lightning", "transformers", "peft", "datasets", "matplotlib", "jsonargparse"
    out = python("-c", f"import graspl, sys; print([name for name in {heavy} if name in sys.modules])")
    assert out.strip() == "[]"


def test_a_report_needs_no_torch():
    heavy = "torch", "transformers", "peft", "plotly"
    out = python(
        "-c", f"import graspl.reporting.page, sys; print([name for name in {heavy} if name in sys.modules])"
    )
    assert out.strip() == "[]"


def test_help_needs_no_model_and_imports_nothing_heavy():
    program = "import sys; from graspl.cli import main; main(['--help']); print('torch' in sys.modules)"
    out = python("-c", program)
    assert "identify" in out
    assert out.strip().endswith("False")


@pytest.mark.parametrize("name", graspl.__all__)
def test_every_public_name_is_there_and_documented(name):
    value = getattr(graspl, name)
    assert name == "__version__" or value.__doc__


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        graspl.nothing  # noqa: B018


def test_the_version_is_told_once():
    assert version("graspl") == graspl.__version__
    assert f"graspl {graspl.__version__}" in python("-m", "graspl", "--version")


def test_tested_versions_satisfy_the_declared_ranges():
    from packaging.requirements import Requirement

    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    for requirement in map(Requirement, declared):
        assert requirement.specifier.contains(version(requirement.name).split("+")[0]), requirement
