"""The input subspace of generic prompts: what sites read when the task is not at hand."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from graspl.adapters.base_model import load_base_model, load_tokenizer
from graspl.adapters.files import AdapterFolder
from graspl.data.rows import read_prompts
from graspl.data.tokens import render, with_chat_template
from graspl.directions.basis import Directions
from graspl.directions.file import SiteDirections
from graspl.directions.identify import Identification
from graspl.errors import GrasplError


@dataclass
class InputSubspace(Identification):
    """The first `rank` right singular vectors of each site's inputs on generic, unlabelled prompts.

    A read constraint on them keeps an update from reading what every prompt has, so that what it learns must hang on
    what the task's prompts have beyond that. There is no left side: U has no columns.

    Source:
        The null space of preserved inputs, as in Adam-NSCL (arXiv:2103.07113) and GPM (arXiv:2103.09762); that the few
        strongest inputs are enough, and that they matter to spill-over, is own.
    """

    prompts: str
    """Rows of any topic, in a form that training data may have; answers are not read."""
    # Not `k`: jsonargparse would keep the value of the default identification's k when the class is switched
    rank: int = 4
    """Directions a site."""
    limit: int = 256
    """Prompts that are used, from the start of the file."""
    max_tokens: int = 2048
    """Token positions that are kept, evenly spaced over all prompts."""
    dtype: str = "auto"
    """Of the base model's weights."""

    def find(self, adapter: AdapterFolder) -> Directions:
        """Run the base model that the adapter was trained on, and decompose what its sites read.

        Args:
            adapter: names the base model and the sites; its weights are not used.

        Raises:
            GrasplError: the base model or the prompts cannot be read, or rank exceeds what the prompts span.
        """
        if self.rank < 1:
            raise GrasplError(f"method.rank: {self.rank} is below 1; give how many directions to take a site")
        inputs = self._inputs(adapter)
        found = {}
        for site in adapter.sites:
            S, Vh = torch.linalg.svd(inputs[site.name], full_matrices=False)[1:]
            if len(S) < self.rank:
                raise GrasplError(
                    f"method.prompts: {len(S)} token positions cannot give rank = {self.rank} directions"
                )
            found[site.name] = SiteDirections(
                torch.zeros(site.shape[0], 0), S, Vh[: self.rank].mT.contiguous()
            )
        return Directions(found, {"prompts": self.prompts})

    @torch.no_grad()
    def _inputs(self, adapter: AdapterFolder) -> dict[str, Float[Tensor, "tokens in_"]]:
        """Return what each site reads at the kept positions, (tokens, in)."""
        tokenizer = with_chat_template(load_tokenizer(adapter.base_model))
        model = load_base_model(adapter.base_model, dtype=self.dtype).eval()
        rows = read_prompts(self.prompts, limit=self.limit)
        texts = [render(tokenizer, row.messages, origin=row.origin, prompt=True) for row in rows]
        encoded = [
            tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"] for text in texts
        ]
        stride = max(1, sum(ids.shape[1] for ids in encoded) // self.max_tokens)
        kept: dict[str, list[Tensor]] = {site.name: [] for site in adapter.sites}
        hooks = [_watch(model, name, rows, stride) for name, rows in kept.items()]
        try:
            for ids in encoded:
                model(input_ids=ids, use_cache=False)
        finally:
            for hook in hooks:
                hook.remove()
        return {name: torch.cat(rows) for name, rows in kept.items()}


def _watch(model: nn.Module, name: str, rows: list[Tensor], stride: int) -> Any:
    """Collect every stride-th input position of a module."""
    try:
        module = model.get_submodule(name)
    except AttributeError as error:
        raise GrasplError(
            f"{name}: the adapter's base model has no such module; give the adapter's own model"
        ) from error
    return module.register_forward_pre_hook(lambda _m, args: rows.append(args[0][0, ::stride].float()))
