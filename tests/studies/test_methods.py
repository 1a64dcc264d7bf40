"""A method's configuration: read from a file, and merged with what the study says."""

import pytest
import yaml

from graspl.errors import GrasplError
from graspl.studies.methods import Method, merged, with_settings

KL = {"class_path": "KL", "init_args": {"penalties": [{"class_path": "P", "init_args": {"weight": 0.1}}]}}
WEIGHT = "model.init_args.penalties.0.init_args.weight"


@pytest.fixture
def kl(tmp_path):
    path = tmp_path / "kl.yaml"
    path.write_text(yaml.safe_dump(KL))
    return str(path)


def test_a_model_may_be_a_method_file(kl):
    assert Method.parse("kl", {"model": kl}).config == {"model": KL}
    more = {"model": {"path": kl, "init_args": {"lora": {"r": 4}}}}
    assert Method.parse("kl", more).config["model"]["init_args"] == {**KL["init_args"], "lora": {"r": 4}}
    assert Method.parse("kl", {"model": KL}).config == {"model": KL}


def test_later_settings_win_key_by_key(kl):
    given = {"model": kl, "data": {"rows": "mine", "seed": 1}, "set": {WEIGHT: 0.3}, "needs": "text"}
    shared = {"data": {"seed": 0, "split": "a"}, "trainer": {"max_steps": 2}}
    found = Method.parse("kl", given, shared, {"data": {"rows": "all"}})
    assert found.config["data"] == {"rows": "all", "seed": 1, "split": "a"}
    assert found.config["trainer"] == {"max_steps": 2}
    assert found.config["model"]["init_args"]["penalties"][0]["init_args"] == {"weight": 0.3}
    assert found.needs == "text"


def test_a_setting_adds_what_is_missing():
    found = with_settings({}, {"model.init_args.optimizer.init_args.lr": 0.1}, "m")
    assert found == {"model": {"init_args": {"optimizer": {"init_args": {"lr": 0.1}}}}}
    assert merged({"a": {"b": 1}}, {"a": {"c": 2}}) == {"a": {"b": 1, "c": 2}}


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "cannot be read as a method file"), ("- a", "holds no mapping"), ("{", "cannot")],
)
def test_a_method_file_that_is_none(tmp_path, content, words):
    path = tmp_path / "method.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(GrasplError, match=rf"methods\.m\.model: .*{words}|method\.yaml:? .*{words}"):
        Method.parse("m", {"model": str(path)})


def test_set_does_not_drop_a_whole_section():
    shared = {"trainer": {"accumulate_grad_batches": 1, "max_steps": 12}}
    found = Method.parse("m", {"set": {"trainer.max_steps": 1}}, shared).config
    assert found == {"trainer": {"accumulate_grad_batches": 1, "max_steps": 1}}
    assert Method.parse("m", {"trainer": {"max_steps": 1}}, shared).config == found
    told = r"methods.m.set.trainer: would drop .* there; give trainer beside set, .* e.g. trainer.max_steps"
    with pytest.raises(GrasplError, match=told):
        Method.parse("m", {"set": {"trainer": {"max_steps": 1}}}, shared)
