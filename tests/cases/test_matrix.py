"""Families of causal language models: each cell is right, by another way of computing it, or refused in one line."""

import pytest
from conftest import CHAT_ROWS
from families import family_folder
from matrix import REFUSED, model_of, outcomes


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.filterwarnings("ignore")
def test_every_cell_of_a_family(kind, write_rows, tmp_path):
    base = str(family_folder(kind, tmp_path / "model", model_of(kind)))
    found = outcomes(base, write_rows(CHAT_ROWS), tmp_path)
    assert {cell for cell, said in found.items() if said != "right"} == set(REFUSED[kind]), found
    assert all("\n" not in said for said in found.values())


def test_there_are_sixty_families():
    assert len(REFUSED) >= 60
