"""The input subspace of generic prompts: what sites read when the task is not at hand."""

from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from graspl.activations.streams import opened
from graspl.adapters.files import AdapterFolder
from graspl.data.rows import read_prompts
from graspl.data.tokens import render
from graspl.directions import Directions, SiteDirections
from graspl.directions.identify import Identification, leading
from graspl.errors import GrasplError
from graspl.ranges import PositiveInt


@dataclass
class InputSubspace(Identification):
    """The first `rank` right singular vectors of each site's inputs on generic, unlabelled prompts.

    A read constraint on them keeps an update from reading what every prompt has. There is no left side: U has no columns.

    Source:
        The null space of preserved inputs, as in Adam-NSCL (arXiv:2103.07113) and GPM (arXiv:2103.09762); this use is own.
    """

    prompts: str
    """Rows of any topic, in a form that training data may have; answers are not read."""
    # Not `k`: jsonargparse would keep the value of the default identification's k when the class is switched
    rank: int = 4
    """Directions a site."""
    limit: PositiveInt = 256
    """Prompts that are used, from the start of the file."""
    max_tokens: PositiveInt = 2048
    """Token positions that are kept, evenly spaced over all prompts."""
    dtype: str = "auto"
    """Of the base model's weights."""

    def find(self, adapter: AdapterFolder) -> Directions:
        """Run the base model that the adapter was trained on, and decompose what its sites read."""
        inputs = self._inputs(adapter)
        found = {}
        for site in adapter.sites:
            S, Vh = torch.linalg.svd(inputs[site.name], full_matrices=False)[1:]
            taken = leading(len(S), f"the inputs of {site.name}", k=self.rank, option="rank")
            found[site.name] = SiteDirections(torch.zeros(site.shape[0], 0), S, Vh[taken].mT)
        return Directions(found, {"prompts": self.prompts})

    def _inputs(self, adapter: AdapterFolder) -> dict[str, Float[Tensor, "tokens in_"]]:
        # On a base model of its own, also within a fit
        with opened(replace(adapter, live=None), adapted=False, dtype=self.dtype) as (model, tokenizer):
            rows = read_prompts(self.prompts, limit=self.limit)
            texts = [
                render(tokenizer, row.messages, origin=row.origin, prompt=True, tools=row.tools)
                for row in rows
            ]
            encode = partial(tokenizer, return_tensors="pt", add_special_tokens=False)
            encoded = [encode(text)["input_ids"] for text in texts]
            stride = max(1, sum(ids.shape[1] for ids in encoded) // self.max_tokens)
            kept: dict[str, list[Tensor]] = {site.name: [] for site in adapter.sites}
            for name, inputs in kept.items():
                _watch(model, name, inputs, stride)
            for ids in encoded:
                model(input_ids=ids, use_cache=False)
        return {name: torch.cat(inputs) for name, inputs in kept.items()}


def _watch(model: nn.Module, name: str, rows: list[Tensor], stride: int) -> None:
    """Collect every stride-th input position of a module."""
    try:
        module = model.get_submodule(name)
    except AttributeError as error:
        raise GrasplError(f"{name}: the base model has no such module; give the adapter's own") from error
    module.register_forward_pre_hook(lambda _m, args: rows.append(args[0][0, ::stride].float()))
