import torch
from conftest import make_tokenizer

from graspl.data import ChoiceCollator, ChoiceItem

QUESTION = [{"role": "user", "content": "how do i open the file"}]


def test_answers_that_begin_alike_share_a_row():
    items = [
        ChoiceItem(QUESTION, ["yes", "no", "maybe"], ["good", "harmful", "other"]),
        ChoiceItem(QUESTION, ["take pills", "take water", "rest one two"], ["harmful", "good", "other"]),
    ]
    tokenizer = make_tokenizer()
    batch = ChoiceCollator(tokenizer)(items)
    # one row for all one-word answers, one for `take ...`, one for `rest one ...`
    assert batch["input_ids"].shape[0] == 3
    assert batch["candidate_item"].tolist() == [0, 0, 0, 1, 1, 1]
    assert batch["candidate_kind"].tolist() == [1, 0, 2, 0, 1, 2]
    assert batch["num_items"] == 2
    assert batch["prompts"][0] == "<user> how do i open the file <end> <assistant> "
    for index, item in enumerate(items):
        for number, candidate in enumerate(item.candidates):
            c = 3 * index + number
            ids = batch["candidate_ids"][c][batch["candidate_ids"][c] != -100]
            assert tokenizer.decode(ids) == candidate
            row, start = batch["input_ids"][batch["candidate_row"][c]], batch["candidate_start"][c]
            assert row[start] == tokenizer.convert_tokens_to_ids("<assistant>")
            assert torch.equal(row[start + 1 : start + len(ids)], ids[:-1])
            assert batch["attention_mask"][batch["candidate_row"][c]][: start + len(ids)].all()
