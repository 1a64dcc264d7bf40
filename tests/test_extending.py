"""CONTRIBUTING.md: a part of your own is one file, plus one line in a contract list."""

import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PARTS = '''
from dataclasses import dataclass

import torch

from graspl.constraints import FactorConstraint, HeldFactor
from graspl.penalties import Penalty
from graspl.starts import Start


@dataclass
class EntropyPenalty(Penalty):
    """How far the answers' distributions are from even ones."""

    weight: float = 0.1

    def term(self, host, batch, logits):
        logp = logits.float().log_softmax(-1)
        return (logp.exp() * logp).sum(-1).mean() + torch.log(torch.tensor(float(logits.shape[-1])))


@dataclass
class AttentionConstraint(FactorConstraint):
    """Nothing is written along the left directions of attention outputs."""

    k: int | None = 1

    def held_factors(self, sites, directions):
        bases = directions.bases(sites, side="U", k=self.k)
        return [HeldFactor(n, "B", D) for n, D in enumerate(bases) if sites[n].name.endswith("o_proj")]


@dataclass
class ScaledStart(Start):
    """A begins at half its size."""

    train_A: bool = True

    @torch.no_grad()
    def begin(self, host):
        for site in host.sites:
            site.A.mul_(0.5)
'''
LISTS = {
    "EntropyPenalty": ("penalties/test_penalty_contract.py", "PENALTIES = ["),
    "AttentionConstraint": ("constraints/test_contract.py", "CONSTRAINTS = ["),
    "ScaledStart": ("starts/test_start_contract.py", "STARTS = ["),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LISTS)
def test_one_line_in_the_list_gives_a_part_all_tests_of_its_kind(name, tmp_path):
    test, opening = LISTS[name]
    text = (TESTS / test).read_text()
    assert opening in text
    added = text.replace(opening, f'{opening}"my_parts.{name}", ')
    tests = tmp_path / "tests"
    tests.mkdir()
    (tests / "test_mine.py").write_text(added)
    (tests / "my_parts.py").write_text(PARTS)
    for file in ("conftest.py", "fits.py"):
        (tests / file).write_text((TESTS / file).read_text())
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore", "tests", "-k", f"{name} or list"],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout


def test_parts_of_your_own_are_named_by_class_path(graspl, chat_options, random_directions, tmp_path):
    (tmp_path / "my_parts.py").write_text(PARTS)
    code, _, err = graspl(
        "fit",
        *chat_options(
            **{
                "model": "graspl.methods.GRASPLitModule",
                "model.directions": random_directions,
                "model.penalties": '[{"class_path": "my_parts.EntropyPenalty"}]',
                "model.constraints": '[{"class_path": "my_parts.AttentionConstraint"}]',
                "model.start": "my_parts.ScaledStart",
            }
        ),
    )
    assert code == 0, err
