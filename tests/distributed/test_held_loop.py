"""An adapter that is held in somebody's own loop is the same under DDP and FSDP2 as in one process."""

from pathlib import Path

import pytest
import torch
from held_loop import KINDS, train
from pair import start_together
from safetensors.torch import load_file

pytestmark = [pytest.mark.distributed, pytest.mark.slow]

LOOP = Path(__file__).with_name("held_loop.py")


@pytest.fixture(scope="module")
def trained(model_folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    for strategy in ("ddp", "fsdp2"):
        start_together([LOOP, strategy, model_folder("llama"), out], out, tmp_path_factory.mktemp(strategy))
    alone = {f"alone-{kind}": train(kind, "alone", model_folder("llama")) for kind in KINDS}
    return alone | {path.stem: load_file(path) for path in out.glob("*.safetensors")}


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_of_a_bare_loop_give_the_adapter_of_one(trained, kind, strategy):
    one, two = trained[f"alone-{kind}"], trained[f"{strategy}-{kind}"]
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        # Adam divides the rounding of a gradient near zero by its own size, and processors round differently
        torch.testing.assert_close(two[name], tensor, rtol=0, atol=5e-5)
    naive = trained["alone-naive"]
    if kind != "naive":
        assert max(float((one[name] - naive[name]).abs().max()) for name in one) > 1e-3
