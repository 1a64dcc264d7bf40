"""The activation constraint: no step is taken in order to push the residual stream along D."""

import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from graspl.adapters.answers import answer_places
from graspl.adapters.forward import ONE_PLACE
from graspl.adapters.streams import StreamHooks, edit_streams
from graspl.constraints.base import Forward, StreamConstraint
from graspl.directions.basis import Directions
from graspl.edits.cut import cut
from graspl.errors import GrasplError

log = logging.getLogger(__name__)


@dataclass
class ActivationConstraint(StreamConstraint):
    """Cuts dLoss/dr_l along D_l, the directions of layer l, in the backward pass; the forward pass is untouched.

    With r_l the residual stream after layer l and g = dLoss/dr_l at a token, the layers below receive

        argmin_x ||x - g||  subject to  D_l^T x = 0,   that is   x = g - D_l (D_l^T g).

    So no parameter is moved in order to move r_l along D_l, whatever route leads there, while what the base model
    computes along D_l stays in use. That bounds the reasons for a step, not its effects: h_l = D_l^T r_l drifts as a
    by-product of other moves; on one development organism most of what a cut left came from that (docs/method.md). With a
    `tolerance` h is led back to where the base model has it: the training loss L becomes

        L (1 + d / tolerance^2),   d = mean over l of  E ||D_l^T (r_l - r0_l)||^2 / E ||D_l^T r0_l||^2,

    E over the places that predict answer tokens, r0 the base model's stream on the same rows, L in front of d without
    gradient. In proportion to L it neither keeps the fit from growing sure of its answers nor needs a weight for each loss.

    There is no exact mode: h is not linear in the factors. Eq. 9 with an explicit Jacobian is a reference in the tests.

    Source:
        Own reading of Eq. 8-10 of arXiv:2605.27676, with h over activations. CAFT (arXiv:2507.16795) ablates along
        directions in the forward pass; cutting gradients alone is an ablation that its authors report.
    """

    k: int | None = 6
    """Directions a layer, None for all that there are; 6 served best on development organisms (docs/method.md)."""
    tolerance: float | None = None
    """Relative drift along D at which leading back weighs as much as the training loss; None only cuts."""
    share: float = 0.25
    """Of a batch's rows, at least one, on which the drift is measured; the base model runs on them as well."""
    every: int = 8
    """Optimizer steps from one measurement to the next; leading back weighs as many times more where it is measured."""

    def __post_init__(self) -> None:
        if self.tolerance is not None and not self.tolerance > 0:
            raise GrasplError(f"constraint.tolerance: {self.tolerance} is not above 0")
        if not 0 < self.share <= 1:
            raise GrasplError(f"constraint.share: {self.share} is not above 0 and at most 1")
        if self.every < 1:
            raise GrasplError(f"constraint.every: {self.every} is below 1")
        self._layers: dict[str, _HeldLayer] = {}
        self._hooks: StreamHooks | None = None
        self._active = True

    def attach(self, layers: Mapping[str, nn.Module], directions: Directions) -> None:
        """Cut the backward signal after every layer; warn of directions that a fit pushes along."""
        self.detach()
        if directions.are_filters:
            log.warning(
                "constraint: %s gives directions that a fit pushes along, not those that the factor takes; cut as they are "
                "they raised the spill-over on the organism (docs/method.md). Use NaturalDirections",
                directions.metadata.get("identification"),
            )
        bases = directions.layer_bases(list(layers), k=self.k)
        self._layers = {name: _HeldLayer(D) for name, D in zip(layers, bases, strict=True) if D.shape[1]}
        self._hooks = edit_streams({name: layers[name] for name in self._layers}, self._edit)

    def detach(self) -> None:
        """Take the hooks off."""
        if self._hooks is not None:
            self._hooks.remove()
        self._hooks, self._layers = None, {}

    def _edit(self, name: str, stream: Tensor) -> Tensor | None:
        return self._layers[name].edit(stream) if self._active else None

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Neither cut nor measure within the block."""
        self._active = False
        try:
            yield
        finally:
            self._active = True

    @property
    def needs_batch(self) -> bool:
        """Whether there is a tolerance to measure for."""
        return self.tolerance is not None

    def observe(self, batch: dict[str, Any], step: int, base_forward: Forward) -> None:
        """See where the base model has the stream along D, on a share of the rows of every so many steps."""
        if self.tolerance is None or step % self.every:
            return
        rows = _first_rows(batch, max(1, math.ceil(self.share * len(batch["labels"]))))
        places = answer_places(rows["labels"])
        for layer in self._layers.values():
            layer.places = places
        try:
            base_forward(rows | {"logits_to_keep": ONE_PLACE})
        finally:
            for layer in self._layers.values():
                layer.places = None

    def penalty(self) -> Tensor | None:
        """Return every d / tolerance^2 of the forward pass since `observe`, (), with its graph; None at other steps."""
        drifts = [layer.drift for layer in self._layers.values() if layer.drift is not None]
        for layer in self._layers.values():
            layer.base = layer.drift = None
        if self.tolerance is None or not drifts:
            return None
        drift = torch.stack([each.to(drifts[0].device) for each in drifts]).mean()
        return self.every * drift / self.tolerance**2


class _HeldLayer:
    """One layer: cuts what comes back along D and measures the drift along it."""

    def __init__(self, D: Float[Tensor, "hidden k"]) -> None:
        self.D = D
        self.places: Tensor | None = None
        """(rows, L) while the base model runs, the places to remember it at."""
        self.base: tuple[Tensor, Float[Tensor, "rows length k"]] | None = None
        """Those places, and D^T r0 there, zero elsewhere."""
        self.drift: Tensor | None = None
        """() E ||D^T (r - r0)||^2 / E ||D^T r0||^2 of the last forward pass, with its graph."""

    def edit(self, stream: Tensor) -> Tensor | None:
        """Return the stream with a gradient that is cut, or None to leave it."""
        if self.D.device != stream.device:
            self.D = self.D.to(stream.device)
        if self.places is not None:
            self.base = self.places, self._along(stream, self.places)
            return None
        if not stream.requires_grad:
            return None
        if self.base is not None:
            places, base = self.base
            # Before the cut below, so that what leads back along D comes through
            self.drift = (self._along(stream, places) - base).square().sum() / base.square().sum().clamp_min(
                torch.finfo(base.dtype).tiny
            )
        return cut(stream, self.D)

    def _along(self, stream: Tensor, places: Tensor) -> Float[Tensor, "rows length k"]:
        """Return D^T r at the places of the first rows, zero elsewhere, in float32 also under autocast."""
        r = stream[: len(places)].float()
        with torch.autocast(r.device.type, enabled=False):
            along = r @ self.D.float()
        # To pick the places would be to wait for the accelerator to count them
        return along.masked_fill(~places.to(stream.device)[..., None], 0.0)


def _first_rows(batch: dict[str, Any], count: int) -> dict[str, Any]:
    """Return a batch of the first rows of another, without what has no entry for each row."""
    rows = len(batch["labels"])
    return {
        name: value[:count]
        for name, value in batch.items()
        if isinstance(value, Tensor | list) and len(value) == rows
    }
