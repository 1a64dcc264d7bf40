"""What every stream edit offers, and how edits are attached to a model."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from peft import PeftModel
from torch import Tensor, nn

from graspl.adapters.residual import decoder_layers
from graspl.adapters.streams import StreamHooks, edit_streams
from graspl.directions.basis import Directions
from graspl.errors import GrasplError

Phase = Literal["training", "inference", "both"]


class StreamEdit(ABC):
    """Changes the residual stream after every decoder layer along that layer's directions.

    The base model's own passes are never edited. CONTRIBUTING.md says how to add one.
    """

    during: Phase = "training"
    """When it acts."""
    k: int | None = None
    """Directions a layer; None takes all that every layer has."""
    needs_sign: ClassVar[bool] = False
    """Whether the directions must point towards the factor."""

    @abstractmethod
    def changed(self, stream: Tensor, D: Float[Tensor, "hidden k"]) -> Tensor:
        """Return the stream as the next layer sees it.

        Args:
            stream: (b, L, hidden), with its graph.
            D: (hidden, k) orthonormal directions of the layer, on the stream's device.
        """

    def check(self, directions: Directions) -> None:
        """Refuse directions without a sign where the edit needs one."""
        if self.needs_sign and not directions.is_signed:
            found = directions.metadata.get("identification", "this file")
            why = f"{type(self).__name__} could go the wrong way; use PersonaContrast or MeanShift"
            raise GrasplError(f"model.directions: {found} gives directions without a sign, so {why}")


class AttachedEdits:
    """A model's stream edits: attached once the directions are known, and switched off for passes of the base model.

    Args:
        edits: in the order in which they act.
    """

    def __init__(self, edits: Sequence[StreamEdit]) -> None:
        self.edits = list(edits)
        self._hooks: StreamHooks | None = None
        self._is_on = True
        self._layers: Mapping[str, nn.Module] = {}
        self._held: dict[str, list[tuple[StreamEdit, Tensor]]] = {}

    def attach(self, model: PeftModel | None, directions: Directions | None) -> None:
        """Apply the edits after every layer of a model; does nothing without directions, or where they are attached already.

        Raises:
            GrasplError: the directions are of other layers, too few, or without a sign that an edit needs.
        """
        if not self.edits or self._hooks is not None or model is None or directions is None:
            return
        self._layers = layers = decoder_layers(model)
        self._held = {name: [] for name in layers}
        for edit in self.edits:
            edit.check(directions)
            for name, D in zip(layers, directions.layer_bases(list(layers), k=edit.k), strict=True):
                if D.shape[1]:  # only some layers may have directions
                    self._held[name].append((edit, D))
        self._hooks = edit_streams(layers, self._apply)

    def detach(self) -> None:
        """Leave the model as it was."""
        if self._hooks is not None:
            self._hooks.remove()
        self._hooks = None

    @contextmanager
    def off(self) -> Iterator[None]:
        """Leave streams alone within the block."""
        before, self._is_on = self._is_on, False
        try:
            yield
        finally:
            self._is_on = before

    def _apply(self, name: str, stream: Tensor) -> Tensor | None:
        if not self._is_on:
            return None
        # The base model runs without gradients in training
        is_training = self._layers[name].training
        phases = ("both", "training" if is_training else "inference")
        acting = [] if is_training and not torch.is_grad_enabled() else self._held[name]
        changed = None
        for edit, D in acting:
            if edit.during in phases:
                changed = edit.changed(stream if changed is None else changed, D.to(stream.device))
        return changed
