"""What every stream edit offers, and how edits are attached to a model."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from peft import PeftModel
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from graspl.adapters.residual import decoder_layers
from graspl.adapters.sharding import plain_name
from graspl.adapters.streams import StreamHooks, edit_streams
from graspl.directions.basis import Directions
from graspl.directions.file import SiteDirections
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


class SiteEdit(ABC):
    """Changes what adapted sites put out, in training and along each site's directions; otherwise as a StreamEdit."""

    during: ClassVar[Phase] = "training"
    """When it acts; the finished adapter does not have it."""
    k: int | None = None
    """Directions a site; None takes all."""

    @abstractmethod
    def added(self, x: Tensor, directions: SiteDirections) -> Tensor:
        """Return what is added to a site's output, (b, L, out); x is what the site reads, (b, L, in)."""

    def check(self, directions: Directions) -> None:
        """Refuse directions of layers alone."""
        if not directions.sites:
            fix = "find them with graspl.directions.TopSingular"
            raise GrasplError(f"model.directions: {type(self).__name__} needs directions of sites; {fix}")


class AttachedEdits:
    """A model's edits: attached once the directions are known, and switched off for passes of the base model.

    Args:
        edits: in the order in which they act.
    """

    def __init__(self, edits: Sequence[StreamEdit | SiteEdit]) -> None:
        self.edits = list(edits)
        self._hooks: StreamHooks | None = None
        self._site_hooks: list[RemovableHandle] = []
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
            if isinstance(edit, SiteEdit):
                self._attach_to_sites(edit, model, directions)
                continue
            for name, D in zip(layers, directions.layer_bases(list(layers), k=edit.k), strict=True):
                if D.shape[1]:  # only some layers may have directions
                    self._held[name].append((edit, D))
        self._hooks = edit_streams(layers, self._apply)

    def detach(self) -> None:
        """Leave the model as it was."""
        if self._hooks is not None:
            self._hooks.remove()
        for hook in self._site_hooks:
            hook.remove()
        self._hooks, self._site_hooks = None, []

    @contextmanager
    def off(self) -> Iterator[None]:
        """Leave streams alone within the block."""
        before, self._is_on = self._is_on, False
        try:
            yield
        finally:
            self._is_on = before

    def _attach_to_sites(self, edit: SiteEdit, model: PeftModel, directions: Directions) -> None:
        for name, module in model.get_base_model().named_modules():
            found = directions.sites.get(plain_name(name))
            if found is not None:
                given = SiteDirections(*(each[..., : edit.k] for each in found))
                hook = module.register_forward_hook(partial(self._add, edit, given))
                self._site_hooks.append(hook)

    def _add(
        self, edit: SiteEdit, given: SiteDirections, module: nn.Module, args: Any, out: Tensor
    ) -> Tensor | None:
        # The base model runs without gradients in training
        if not (self._is_on and module.training and torch.is_grad_enabled()):
            return None
        return out + edit.added(args[0], SiteDirections(*(each.to(args[0]) for each in given)))

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
