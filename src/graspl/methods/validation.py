"""Validation: the scores of every suite, and the headline figures."""

import logging
import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from graspl.adapters import adapter_off
from graspl.adapters.reliance import update_norm
from graspl.analysis.scores import headline
from graspl.directions.reliance import reliance
from graspl.evaluation.metrics import NOTHING
from graspl.evaluation.suites import SuiteEvaluator
from graspl.methods.parts import held_k

log = logging.getLogger(__name__)


class Validation:
    """The suites of one validation, in the order of their dataloaders."""

    def __init__(self) -> None:
        self._suites: dict[str, SuiteEvaluator] = {}
        # Suites that an earlier validation measured on both sides
        self._whole: dict[str, SuiteEvaluator] = {}
        # Scores of suites that other programs measure, and of the base model, which stay
        self._others: dict[str, dict[str, float]] = {}
        self._base_of_others: dict[str, dict[str, float]] = {}

    def start(self, names: Sequence[str], *, kl: bool = True) -> None:
        """Start again, with these suites, and with the divergence from the base model or without."""
        lent = {} if kl else self._whole
        self._suites = {name: SuiteEvaluator(lent.get(name), kl=kl) for name in names}
        self._others = {}

    def keep_base(self) -> None:
        """Let later validations of the same suites take the base model's scores from this one."""
        self._whole = self._whole or self._suites

    def needs_base(self, index: int) -> bool:
        """Return whether the base model's logits are wanted for the suite with this dataloader index."""
        return list(self._suites.values())[index].lender is None

    def update(self, index: int, batch: dict[str, Any], logits: Tensor, base_logits: Tensor | None) -> None:
        """Measure one batch of the suite with this dataloader index, by logits (rows, L, vocabulary)."""
        list(self._suites.values())[index].update(batch, logits, base_logits)

    def scores(self) -> dict[str, dict[str, float]]:
        """Return the scores of every suite that was seen."""
        return {name: suite.compute() for name, suite in self._suites.items() if suite.seen} | self._others

    def measure_others(self, module: Any, data: Any) -> None:
        """Let other programs measure their suites, with the adapter and, once, without it.

        The module has its edits attached and its factors transformed. Several processes would wait for one another.
        """
        suites: dict[str, Any] = data.model_suites() if hasattr(data, "model_suites") else {}
        if suites and module.trainer.world_size > 1:
            log.warning("data.suites: %s are measured with one process; validate with one", ", ".join(suites))
            return
        for name, suite in suites.items():
            if name not in self._base_of_others:
                with adapter_off(module.model), module.unedited():
                    self._base_of_others[name] = suite.measure(module.model, data.tokenizer)
            base = {f"base_{score}": value for score, value in self._base_of_others[name].items()}
            base.pop("base_num_items")
            self._others[name] = suite.measure(module.model, data.tokenizer) | base

    def items(self, *, base: bool = False) -> dict[str, list[tuple[int, float]]]:
        """Return place and value of each question with choices, by suite; of the base model where `base` is set."""
        found = {name: suite.items(base=base) for name, suite in self._suites.items() if suite.seen}
        return {name: items for name, items in found.items() if items}


def log_validation(module: Any) -> None:
    """Log every suite's scores, the headline figures and the size of the update; every process must call it."""
    scores = module.validation.scores()
    for suite, each in scores.items():
        if each.get("coherence", 1.0) < NOTHING:
            told = "the model would give none of the answers (%.1g together), so nothing is measured by their shares"
            log.warning(f"val/%s: {told}", suite, each["coherence"])
    named = {f"{suite}/{name}": value for suite, each in scores.items() for name, value in each.items()}
    headlines = {name: value for name, value in headline(scores).items() if value is not None}
    rho = [each["rho"] for each in module_reliance(module).values() if "rho" in each]
    if rho:
        headlines |= {"rho_mean": sum(rho) / len(rho), "rho_max": max(rho)}
    # For comparison at equal size of the update; the sites' updates stand side by side
    size = math.sqrt(sum(update_norm(site.B, site.A, site.scaling) ** 2 for site in module.whole_sites()))
    for name, value in (headlines | named | {"update_norm": size}).items():
        if not name.endswith("/num_items"):
            # The metrics are reduced over processes already, but Lightning wants to be told
            module.log(f"val/{name}", value, prog_bar=name in headlines, sync_dist=True)


def module_reliance(module: Any) -> dict[str, dict[str, float]]:
    """Return each site's reliance on the directions in use, as `graspl.directions.reliance` does; {} without directions.

    It is on as many directions as the parts hold, and on all where none says how many; every process must call it.
    """
    directions, sites = module.directions_in_use, module.whole_sites()
    if directions is None:
        return {}
    k = min(held_k(module), default=max(directions.width(side) for side in ("U", "V", "D")))
    return reliance(directions, sites, k=k)
