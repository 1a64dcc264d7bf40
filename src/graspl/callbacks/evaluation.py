"""Files that a validation leaves: the figures, and example answers."""

import json
import logging
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from graspl import __version__
from graspl.adapters.reliance import update_norm
from graspl.adapters.spectrum import thin_svd
from graspl.evaluation.suites import headline
from graspl.methods.base import AdapterLitModule
from graspl.runs import RunFolder, write_json_atomic, write_text_atomic

log = logging.getLogger(__name__)


class SaveEvaluation(Callback):
    """Writes what `graspl validate` measured to `<default_root_dir>/evaluation.json`."""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write it; a validation inside a fit only logs."""
        if trainer.state.fn != "validate" or not isinstance(pl_module, AdapterLitModule):
            return
        suites = pl_module.suite_scores()
        reliance = pl_module.reliance()
        rho = [site["rho"] for site in reliance.values() if "rho" in site]
        content = {
            "graspl": __version__,
            "model": type(pl_module).__name__,
            "base_model": pl_module.base_model,
            "adapter": pl_module.adapter,
            "checkpoint": trainer.ckpt_path,
            "directions": pl_module.directions,
            "metrics": headline(suites)
            | {"rho_mean": sum(rho) / len(rho) if rho else None, "rho_max": max(rho, default=None)},
            "suites": suites,
            "sites": _sites(pl_module, reliance),
        }
        if trainer.is_global_zero:
            run = RunFolder(trainer.default_root_dir)
            write_json_atomic(run.evaluation, content)
            log.info("evaluation: %s", run.evaluation)


def _sites(module: AdapterLitModule, reliance: dict[str, dict[str, float]]) -> dict[str, Any]:
    """Return each site's reliance, norm and spectrum."""
    sites = {}
    for site in module.whole_sites():
        spectrum = thin_svd(site.B.detach(), site.A.detach(), site.scaling, site=site.name).S
        sites[site.name] = {
            **reliance.get(site.name, {}),
            "norm": update_norm(site.B, site.A, site.scaling),
            "singular_values": spectrum.tolist(),
        }
    return sites


class SaveGenerations(Callback):
    """Writes greedy example answers to `<default_root_dir>/generations.jsonl` in `graspl validate`.

    The prompts are evenly spaced over each suite, so that every run of a comparison answers the same ones.

    Args:
        prompts: of each suite; 0 writes none.
        max_new_tokens: of each answer.
    """

    def __init__(self, prompts: int = 8, max_new_tokens: int = 64) -> None:
        self.prompts = prompts
        self.max_new_tokens = max_new_tokens
        self._seen: dict[int, list[str]] = {}

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the prompts of the validation before."""
        self._seen = {}

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Remember the batch's prompts."""
        if trainer.state.fn == "validate":
            self._seen.setdefault(dataloader_idx, []).extend(batch.get("prompts", []))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Answer and write; a validation inside a fit writes nothing."""
        if trainer.state.fn != "validate" or not isinstance(pl_module, AdapterLitModule) or not self.prompts:
            return
        if trainer.world_size > 1:
            return  # generation under sharding would need every process to take the same number of steps
        names = trainer.datamodule.suites  # type: ignore[attr-defined]
        rows = []
        for index, prompts in self._seen.items():
            chosen = _evenly(list(dict.fromkeys(prompts)), self.prompts)
            answers = _answers(pl_module, chosen, trainer.datamodule.tokenizer, self.max_new_tokens)  # type: ignore[attr-defined]
            rows += [
                {"suite": names[index], "prompt": prompt, "answer": answer}
                for prompt, answer in zip(chosen, answers, strict=True)
            ]
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        write_text_atomic(RunFolder(trainer.default_root_dir).generations, text)


def _evenly(prompts: list[str], count: int) -> list[str]:
    """Return count of them, evenly spaced; all where there are no more."""
    if len(prompts) <= count:
        return prompts
    return [prompts[index * len(prompts) // count] for index in range(count)]


@torch.no_grad()
def _answers(module: AdapterLitModule, prompts: list[str], tokenizer: Any, max_new_tokens: int) -> list[str]:
    """Return the greedy continuation of each prompt."""
    assert module.model is not None, "a validation has run"
    encoded = tokenizer(
        prompts, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False
    )
    inputs = {name: encoded[name].to(module.device) for name in ("input_ids", "attention_mask")}
    was_training = module.model.training
    module.model.eval()
    written = module.model.generate(
        **inputs,
        do_sample=False,
        # Sampling options that a model's own generation config may hold mean nothing to greedy search
        temperature=None,
        top_p=None,
        top_k=None,
        max_new_tokens=max_new_tokens,
        pad_token_id=tokenizer.pad_token_id,
    )
    module.model.train(was_training)
    return tokenizer.batch_decode(written[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
