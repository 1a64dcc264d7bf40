"""The usual start, with A trained or not."""

import torch
from fits import adam, factors, save
from peft import PeftModel
from transformers import AutoModelForCausalLM

from graspl.adapters import read_adapter
from graspl.starts import FrozenStart, PlainStart

B_ALONE = {"optimizer": adam, "start": FrozenStart()}


def As(module):
    return [site.A.detach().clone() for site in module.sites]


def test_b_alone_is_trained(fit):
    naive, _ = fit(optimizer=adam)
    plain, _ = fit(optimizer=adam, start=PlainStart())
    assert torch.equal(factors(naive), factors(plain))
    module, trainer = fit(**B_ALONE)
    begun, _ = fit(lightning={"max_steps": 0}, **B_ALONE)
    assert all(torch.equal(ours, start) for ours, start in zip(As(module), As(begun), strict=True))
    assert not all(torch.equal(ours, theirs) for ours, theirs in zip(As(naive), As(begun), strict=True))
    assert all(site.B.any() for site in module.sites)
    trained = [p for group in trainer.optimizers[0].param_groups for p in group["params"]]
    assert {id(p) for p in trained} == {id(site.B) for site in module.sites}


def test_the_first_step_of_b_is_that_of_a_naive_fit(fit):
    """While B is zero A has no gradient, so the two differ from the second step on."""
    one = {"max_steps": 1}
    naive, _ = fit(optimizer=adam, lightning=one)
    module, _ = fit(lightning=one, **B_ALONE)
    assert all(torch.equal(a.B, b.B) for a, b in zip(naive.sites, module.sites, strict=True))


def test_the_adapter_is_saved_whole_and_peft_gives_the_same_logits(fit, model_folder, tmp_path):
    module, trainer = fit(**B_ALONE)
    folder = save(module, tmp_path / "b-alone")
    saved = {site.name: site for site in read_adapter(folder).sites}
    for site in module.sites:
        assert torch.equal(saved[site.name].A, site.A)
        assert torch.equal(saved[site.name].B, site.B)
    again = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model_folder()), folder).eval()
    module.model.eval()
    batch = next(iter(trainer.datamodule.train_dataloader()))
    with torch.no_grad():
        theirs = again(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        ours, base = module(batch), module.base_forward(batch)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    assert not torch.equal(ours, base)


def test_a_fit_of_b_alone_goes_on_exactly(fit, tmp_path):
    whole, trainer = fit(lightning={"max_steps": 4}, **B_ALONE)
    _, half = fit(lightning={"max_steps": 2}, **B_ALONE)
    half.save_checkpoint(tmp_path / "half.ckpt")
    resumed, again = fit(lightning={"max_steps": 4, "ckpt_path": str(tmp_path / "half.ckpt")}, **B_ALONE)
    assert trainer.global_step == again.global_step == 4
    for ours, theirs in zip(resumed.sites, whole.sites, strict=True):
        assert torch.equal(ours.A, theirs.A)
        assert torch.equal(ours.B, theirs.B)
    assert not torch.equal(factors(whole), factors(fit(lightning={"max_steps": 2}, **B_ALONE)[0]))


def test_frozen_a_comes_from_the_checkpoint(fit, tmp_path):
    """Another seed draws another A, and the checkpoint's is the one that B was trained with."""
    from fits import train
    from lightning import seed_everything

    from graspl.methods import LoRALitModule

    half, trainer = fit(lightning={"max_steps": 2}, **B_ALONE)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    seed_everything(1, verbose=False)
    other = LoRALitModule(base_model=half.base_model, **B_ALONE)
    other.configure_model()
    assert not torch.equal(other.sites[0].A, half.sites[0].A)
    train(
        other, rows=trainer.datamodule.train, folder=tmp_path, data={"batch_size": 4, "group_by_length": False},
        lightning={"max_steps": 4, "ckpt_path": str(tmp_path / "half.ckpt")},
    )  # fmt: skip
    assert all(torch.equal(ours.A, theirs.A) for ours, theirs in zip(other.sites, half.sites, strict=True))
