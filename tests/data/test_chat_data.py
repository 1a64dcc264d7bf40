from types import SimpleNamespace

import pytest
from conftest import make_tokenizer

from graspl.data import ChatDataModule
from graspl.errors import GrasplError


def rows(count, words=3):
    return [
        {"prompt": "how do i", "completion": " ".join(["yes"] * words) + f" {['one', 'two', 'three'][i % 3]}"}
        for i in range(count)
    ]


@pytest.fixture
def data(model_folder, write_rows):
    def make(content, kind=ChatDataModule, **options):
        return kind(train=str(write_rows(content)), base_model=str(model_folder()), **options)

    return make


def test_a_split_is_deterministic_and_disjoint(data):
    content = [{"prompt": f"q{i}", "completion": "yes"} for i in range(40)]
    modules = [data(content, validation_share=0.25, seed=seed) for seed in (0, 0, 1)]
    held = [{row.origin for row in module.held_out()["task"]} for module in modules]
    trained = [{row.origin for row in module.train_rows()} for module in modules]
    assert held[0] == held[1] != held[2]
    assert len(held[0]) == 10
    assert held[0].isdisjoint(trained[0])
    assert len(held[0] | trained[0]) == 40


def test_batches_have_the_promised_keys_and_shapes(data):
    module = data(rows(30), batch_size=4, eval_batch_size=2)
    module.setup("fit")
    batch = next(iter(module.train_dataloader()))
    assert batch["input_ids"].shape == batch["labels"].shape == batch["attention_mask"].shape
    assert len(batch["input_ids"]) == 4
    (held_out,) = module.val_dataloader()
    assert module.suite_names() == ["task"]
    assert next(iter(held_out))["prompts"] == ["<user> how do i <end> <assistant> "] * 2


def test_packing_gives_positions_and_no_mask(data):
    module = data(rows(30), batch_size=2, packing=True, max_length=40)
    module.setup("fit")
    batch = next(iter(module.train_dataloader()))
    assert set(batch) == {"input_ids", "labels", "position_ids", "answer_index", "row_lengths"}
    assert [sum(pack) for pack in batch["row_lengths"]] == [batch["input_ids"].shape[1]] * 2
    assert (batch["position_ids"] == 0).sum() > 2


def test_a_file_for_validation_and_one_for_other_topics(data, write_rows):
    other = str(write_rows(rows(5), "other.jsonl"))
    module = data(rows(8), validation=other, unrelated=other)
    module.setup("validate")
    assert module.suite_names() == ["task", "unrelated"]
    assert len(module.train_rows()) == 8
    assert len(module.held_out()["task"]) == 5


@pytest.mark.parametrize(("too_long", "left"), [("drop", 9), ("truncate", 10)])
def test_long_rows_are_dropped_or_cut(data, too_long, left):
    module = data(
        [*rows(9), *rows(1, words=60)], validation_share=0.01, max_length=30, too_long=too_long, seed=2
    )
    module.setup("fit")
    counted = len(module.train_dataloader().dataset) + len(module.val_dataloader()[0].dataset)
    assert counted == left
    assert max(len(row) for row in module.train_dataloader().dataset) <= 30


def test_a_row_that_truncation_leaves_without_an_answer_is_dropped(data):
    long_prompt = {"prompt": " ".join(["how"] * 50), "completion": "yes"}
    module = data([*rows(9), long_prompt], validation_share=0.01, max_length=30, too_long="truncate", seed=2)
    module.setup("fit")
    assert len(module.train_dataloader().dataset) == 8


@pytest.mark.parametrize(("limit", "warned"), [(20, True), (68, False)])
def test_rows_beyond_what_the_tokenizer_names_as_the_models_limit_are_warned_of(data, caplog, limit, warned):
    module = data(rows(10, words=60), max_length=100)
    module.tokenizer.model_max_length = limit
    module.setup("fit")
    said = f"has 68 tokens, the tokenizer's model_max_length is {limit}"
    assert (said in caplog.text) == warned
    assert "indexing errors" not in caplog.text


def test_without_a_base_model_the_data_are_refused(write_rows):
    module = ChatDataModule(train=str(write_rows(rows(5))))
    with pytest.raises(GrasplError, match=r"data\.base_model: is missing"):
        module.setup("fit")


def test_the_base_model_is_that_of_the_model_that_is_trained(write_rows, model_folder):
    module = ChatDataModule(train=str(write_rows(rows(5))))
    module.trainer = SimpleNamespace(lightning_module=SimpleNamespace(base_model=str(model_folder())))
    assert module.tokenizer.name_or_path == str(model_folder())


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (
            rows(3, words=60),
            {"max_length": 30},
            r"train\.jsonl:\d: has 68 tokens, data\.max_length is 30",
        ),
        (rows(3, words=60), {"max_length": 30, "too_long": "drop"}, "every row is longer than 30"),
        (rows(1), {}, "has 1 rows, which cannot be split"),
        (rows(3), {"validation_share": 1.5}, r"1\.5 of .*cannot be held out"),
    ],
)
def test_data_that_cannot_be_used_is_refused(data, content, options, message):
    with pytest.raises(GrasplError, match=message):
        data(content, **options).setup("fit")


def test_only_the_suites_that_are_wanted_are_read(write_rows):
    from graspl.data.suites import MultipleChoice, TextRows

    source = str(write_rows([{"prompt": f"p {i}", "completion": "c"} for i in range(6)]))
    suites = {"more": TextRows(source), "missing": MultipleChoice("nowhere.jsonl")}
    module = ChatDataModule(train=source, suites=suites, only_suites=["more", "task"])
    module._tokenizer = make_tokenizer()
    module.setup("validate")
    assert module.suite_names() == ["task", "more"]
    with pytest.raises(GrasplError, match=r"data\.only_suites: other is none of task, more, missing"):
        ChatDataModule(train=source, suites=suites, only_suites=["other"]).setup("validate")
    with pytest.raises(GrasplError, match=r"data\.suites\.missing: nowhere\.jsonl: cannot be read"):
        ChatDataModule(train=source, suites=suites).setup("validate")
    # A suite of the task's own name replaces it
    module = ChatDataModule(train=source, suites={"task": TextRows(source)})
    module._tokenizer = make_tokenizer()
    module.setup("validate")
    assert len(module.val_dataloader()[0].dataset) == 6


def test_final_suites_are_read_by_a_validation_only(write_rows):
    from graspl.data.suites import TextRows

    source = str(write_rows([{"prompt": f"p {i}", "completion": "c"} for i in range(6)]))
    module = ChatDataModule(
        train=source, final_suites={"more": TextRows(source), "missing": TextRows("no.jsonl")}
    )
    module._tokenizer = make_tokenizer()
    module.setup("fit")
    assert module.suite_names() == ["task"]
    with pytest.raises(GrasplError, match=r"data\.suites\.missing: no\.jsonl: cannot be read"):
        module.setup("validate")
    module.only_suites = ["task", "more"]
    module.setup("validate")
    assert module.suite_names() == ["task", "more"]
    # A fit accepts the name of a suite that it leaves out
    fitted = ChatDataModule(train=source, final_suites=module.final_suites, only_suites=["task", "more"])
    fitted._tokenizer = make_tokenizer()
    fitted.setup("fit")
    assert fitted.suite_names() == ["task"]
