"""SAE model diffing: the latents of a sparse autoencoder that a fine-tune moves most."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from graspl.activations.reading import Reading
from graspl.activations.sae_files import SparseAutoencoder, read_sae
from graspl.activations.streams import Stream, gathered
from graspl.adapters.files import AdapterFolder
from graspl.directions.basis import SOME_LAYERS, Directions
from graspl.directions.file import LayerDirections
from graspl.directions.identify import Identification, leading
from graspl.errors import GrasplError


@dataclass
class SAEDiffing(Reading, Identification):
    """The decoder directions of the k latents whose mean activation rises most from the base model to the fine-tune.

    The mean is over the tokens of unlabelled text that predict answers. Layers without an SAE have no directions.

    Source:
        Wang et al., arXiv:2506.19823, who choose among the first by steering and reading; here the rank alone decides.
    """

    signed = True
    saes: dict[str, str] = field(default_factory=dict)
    """By layer, e.g. `model.layers.12`, the folder or file of an SAE of the stream after it (`read_sae`)."""
    text: str | None = None
    """Conversations, as in `NaturalDirections`; None takes the task's own text."""
    k: int = 8
    """Latents a layer, strongest rise first."""

    def find(self, adapter: AdapterFolder) -> Directions:
        """Run the text with and without the adapter, and encode both."""
        if not self.saes:
            raise GrasplError("method.saes: names no SAE; give folders, e.g. {model.layers.12: FOLDER}")
        known = {layer: read_sae(folder) for layer, folder in self.saes.items()}
        changes = self._changes(adapter, known)
        found = {layer: self._leading(layer, known[layer], change) for layer, change in changes.items()}
        # Their numbers, so that you can look them up where the SAE is explained
        latents = {
            f"latents of {layer}": " ".join(map(str, change.argsort(descending=True)[: self.k].tolist()))
            for layer, change in changes.items()
        }
        return Directions({}, {"text": self.text or "of the task", SOME_LAYERS: "true"} | latents, found)

    def _changes(self, adapter: AdapterFolder, known: Mapping[str, SparseAutoencoder]) -> dict[str, Tensor]:
        means = []
        for adapted in (True, False):
            with self.model_and_text(adapter, self.text, adapted=adapted) as (model, rows):
                means.append(_means(gathered(model, rows), known))
        after, before = means
        return {layer: after[layer] - before[layer] for layer in known}

    def _leading(
        self, layer: str, sae: SparseAutoencoder, change: Float[Tensor, " latents"]
    ) -> LayerDirections:
        order = change.argsort(descending=True)
        taken = leading(int((change > 0).sum()), f"the rising latents of {layer}", k=self.k)
        chosen = sae.decoder[order[taken]].mT
        Q, R = torch.linalg.qr(chosen)
        if R.diagonal().abs().min() <= 1e-6 * R.diagonal().abs().max():
            raise GrasplError(f"method.k: the first {self.k} latents of {layer} are not independent; lower k")
        # Signs as the decoder has them, so that a push along the first raises its latent
        return LayerDirections((Q * R.diagonal().sign()).contiguous(), change[order].clamp_min(0))


def _means(streams: Stream, known: Mapping[str, SparseAutoencoder]) -> dict[str, Float[Tensor, " latents"]]:
    means = {}
    for layer, sae in known.items():
        if layer not in streams:
            raise GrasplError(f"method.saes: there is no layer {layer}; name them as {next(iter(streams))}")
        r = streams[layer]
        if r.shape[1] != sae.decoder.shape[1]:
            wide = sae.decoder.shape[1]
            raise GrasplError(f"method.saes: {layer} is {r.shape[1]} wide, its SAE {wide}; give its own")
        total = torch.zeros(len(sae.decoder))
        for part in r.split(256):  # an SAE has many more latents than the stream is wide
            total += sae.encode(part).sum(0)
        means[layer] = total / len(r)
    return means
