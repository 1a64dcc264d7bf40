"""Many rows are tokenized in several processes, and once."""

import datasets
import pytest
from conftest import CHAT_ROWS, TEMPLATE, make_tokenizer

from graspl.data import preparation
from graspl.data.preparation import tokenize_rows
from graspl.data.rows import read_conversations
from graspl.data.tokens import tokenize
from graspl.errors import GrasplError


@pytest.fixture
def rows(write_rows, monkeypatch, tmp_path):
    monkeypatch.setattr(preparation, "MANY_ROWS", 10)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return read_conversations(str(write_rows(CHAT_ROWS)))


def refuse(*_, **__):
    raise AssertionError("tokenized again")


def test_many_rows_are_what_each_is_alone_and_come_from_the_cache_the_second_time(rows, monkeypatch):
    tokenizer = make_tokenizer()
    alone = [tokenize(tokenizer, row.messages) for row in rows]
    assert tokenize_rows(tokenizer, rows, processes=2) == alone
    monkeypatch.setattr(preparation, "tokenize", refuse)
    assert tokenize_rows(make_tokenizer(), rows, processes=2) == alone


def test_another_template_other_rows_or_another_tokenizer_are_not_the_cached_ones(rows):
    first = tokenize_rows(make_tokenizer(), rows, processes=2)
    other = make_tokenizer(TEMPLATE.replace("<end>", "<end> <end>"))
    assert tokenize_rows(other, rows, processes=2) == [tokenize(other, row.messages) for row in rows] != first
    assert tokenize_rows(make_tokenizer(), rows[1:], processes=2) == first[1:]


def test_a_row_that_the_template_refuses_is_named(rows):
    tokenizer = make_tokenizer("{{ raise_exception('no such role') }}")
    with pytest.raises(GrasplError, match=r"train.jsonl.*no such role"):
        tokenize_rows(tokenizer, rows, processes=2)
