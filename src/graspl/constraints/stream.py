"""What constraints share that change the residual stream while training and leave the weights to the optimizer."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from graspl.adapters.sites import Site
from graspl.constraints.base import Constraint
from graspl.directions.basis import Directions


class StreamConstraint(Constraint):
    """Changes the stream behind every decoder layer in training; a validation and the base model are left as they are."""

    k: int | None = None

    def __post_init__(self) -> None:
        self._hooks: list[RemovableHandle] = []
        self._active = True

    @abstractmethod
    def changed(self, stream: Tensor, D: Float[Tensor, "hidden k"]) -> Tensor:
        """Return the stream as the next layer shall see it.

        Args:
            stream: (b, L, hidden), with its graph.
            D: (hidden, k), the layer's directions.
        """

    def bind(self, sites: Sequence[Site], directions: Directions) -> None:
        """Take the layers' directions; any adapter will do."""
        self._bound = self.own(directions)

    def attach(self, layers: Mapping[str, nn.Module]) -> None:
        """Change the stream behind every layer.

        Raises:
            GrasplError: the directions are of other layers, or fewer than k.
        """
        self.detach()
        bases = self._bound.layer_bases(list(layers), k=self.k)
        self._hooks = [
            layer.register_forward_hook(self._hook(D))
            for layer, D in zip(layers.values(), bases, strict=True)
        ]

    def detach(self) -> None:
        """Take the hooks off."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Change nothing within the block."""
        self._active = False
        try:
            yield
        finally:
            self._active = True

    def project_gradients(self, sites: Sequence[Site]) -> None:
        """Nothing is left to do: the pass itself was changed."""

    def project_step(self, sites: Sequence[Site]) -> None:
        """Nothing is held in the weights."""

    def _hook(self, D: Float[Tensor, "hidden k"]) -> Any:
        def change(module: nn.Module, _inputs: Any, output: Any) -> Any:
            if not (self._active and module.training and torch.is_grad_enabled()):
                return None
            stream = output[0] if isinstance(output, tuple) else output
            after = self.changed(stream, D)
            return (after, *output[1:]) if isinstance(output, tuple) else after

        return change
