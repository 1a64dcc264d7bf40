"""What is built is whole: the wheel alone has all that a run needs, and says what the package says."""

import os
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
import yaml

import graspl

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Return the folder with the sdist and the wheel that is built from it."""
    out = tmp_path_factory.mktemp("dist")
    # The environment's own build backend: no index is asked
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.mark.slow
def test_the_wheel_alone_runs(built, tmp_path):
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = [Parser().parsestr(archive.read(n).decode()) for n in names if n.endswith("/METADATA")]
        archive.extractall(tmp_path / "installed")
    assert "graspl/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert metadata["Version"] == graspl.__version__
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "installed"), "OMP_NUM_THREADS": "1"}

    def run(*arguments):
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert str(tmp_path / "installed") in run("-c", "import graspl; print(graspl.__file__)")
    run("-m", "graspl", "configs")
    shipped = {path.relative_to(ROOT / "configs") for path in (ROOT / "configs").rglob("*") if path.is_file()}
    assert {
        path.relative_to(tmp_path / "configs") for path in (tmp_path / "configs").rglob("*") if path.is_file()
    } == shipped
    # The organism, the text and the pages' templates come with it
    short = ["--trainer.max_steps=2", "--trainer.limit_val_batches=1", "--trainer.accelerator=cpu"]
    run(
        "-m",
        "graspl",
        "fit",
        "--config",
        "configs/organism/grasp.yaml",
        "--trainer.default_root_dir=runs/grasp",
        *short,
    )
    run("-m", "graspl", "validate", "--config", "runs/grasp/config.yaml", "--trainer.limit_val_batches=1")
    run("-m", "graspl", "report", "runs/grasp", "--out", "runs")
    assert (tmp_path / "runs" / "report.html").stat().st_size > 10_000


@pytest.mark.slow
def test_the_sdist_has_what_its_makefile_needs(built):
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {
        "Makefile", "constraints.txt", "mkdocs.yml", "CITATION.cff", "LICENSE", "docs/index.md", "tests/conftest.py",
        "notebooks/quick_start.ipynb", "benchmarks/run.py", "configs/organism/fit.yaml",
    }  # fmt: skip
    assert wanted <= names
    assert not [name for name in names if name.startswith(("runs/", ".venv/", "site/"))]


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == graspl.__version__
    assert citation["license"] == "MIT"
