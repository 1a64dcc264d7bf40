import pickle

import pytest
import torch
import torch.distributed.checkpoint as dcp

from graspl.adapters import read_adapter
from graspl.adapters.checkpoint import read_checkpoint
from graspl.errors import GrasplError

LORA = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}
NAME = "model.base_model.model.layers.0.q_proj.lora_{}.default.weight"


@pytest.fixture
def sharded(tmp_path):
    """Return a folder as Lightning's sharded strategies write it."""
    path = tmp_path / "last.ckpt"
    state = {NAME.format("A"): torch.randn(2, 5), NAME.format("B"): torch.randn(3, 2)}
    with pytest.warns(UserWarning, match="single process"):
        dcp.save({"state_dict": state}, checkpoint_id=path, no_dist=True)
    kept = {"graspl": {"base_model": "some/model", "lora": LORA}}
    torch.save(kept, path / "meta.pt")  # noqa: TID251
    return path, state


def test_a_sharded_checkpoint_is_an_adapter(sharded):
    path, state = sharded
    adapter = read_adapter(path)
    (site,) = adapter.sites
    assert (adapter.base_model, site.name, site.scaling) == ("some/model", "layers.0.q_proj", 2.0)
    assert torch.equal(site.A, state[NAME.format("A")])
    assert torch.equal(site.B, state[NAME.format("B")])


class Harmful:
    def __reduce__(self):
        return (print, ("called",))


def test_an_index_that_would_call_something_is_refused(sharded, capsys):
    path, _ = sharded
    (path / ".metadata").write_bytes(pickle.dumps(Harmful()))
    with pytest.raises(GrasplError, match=r"not readable as a checkpoint of a graspl fit.*builtins.print"):
        read_adapter(path)
    assert "called" not in capsys.readouterr().out


@pytest.mark.parametrize("file", [".metadata", "meta.pt", "__0_0.distcp"])
@pytest.mark.parametrize("content", [b"", b"nothing of the kind", None])
def test_a_broken_checkpoint_is_told(sharded, file, content):
    path, _ = sharded
    whole = (path / file).read_bytes()
    (path / file).write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(GrasplError, match="not readable as a checkpoint"):
        read_checkpoint(path)


def test_a_checkpoint_of_another_program_is_refused(tmp_path):
    path = tmp_path / "other.ckpt"
    torch.save({"state_dict": {}}, path)  # noqa: TID251
    with pytest.raises(GrasplError, match="not written by a graspl fit"):
        read_adapter(path)


def test_an_index_that_claims_more_than_the_files_have_is_refused(sharded):
    path, _ = sharded
    with (path / ".metadata").open("rb") as file:
        index = pickle.load(file)  # noqa: S301 - written by this test
    name = "state_dict." + NAME.format("A")
    index.state_dict_metadata[name].size = torch.Size([2, 10**12])
    (path / ".metadata").write_bytes(pickle.dumps(index))
    with pytest.raises(GrasplError, match=r"claims \d+ bytes, more than its files have"):
        read_checkpoint(path)
