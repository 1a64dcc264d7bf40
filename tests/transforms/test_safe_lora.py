"""SafeLoRA against its formula on the dense updates."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from graspl.errors import GrasplError
from graspl.transforms import SafeLoRA


@pytest.mark.parametrize("threshold", [-1.1, 1.1])
def test_safe_lora_projects_below_its_threshold(finished, unaligned, model_folder, threshold):
    naive, saved = finished(SafeLoRA(unaligned, threshold=threshold))
    aligned, before = (
        dict(AutoModelForCausalLM.from_pretrained(folder).named_parameters())
        for folder in (model_folder(), unaligned)
    )
    for name, update in naive.items():
        V = (aligned[f"{name}.weight"] - before[f"{name}.weight"]).detach()
        expected = V @ V.mT @ update / V.norm() if threshold > 1 else update
        torch.testing.assert_close(saved[name], expected, atol=1e-5, rtol=1e-3)


def test_safe_lora_needs_a_second_model_that_fits(fit, model_folder):
    with pytest.raises(GrasplError, match=r"no such model\.layers\.0.*of these shapes"):
        fit(transforms=[SafeLoRA("organism")])
    with pytest.raises(GrasplError, match="is the same in both"):
        fit(transforms=[SafeLoRA(str(model_folder()))], lightning={"limit_val_batches": 1.0})
