"""A sparse autoencoder of the organism's residual stream, as others publish them for large models."""

import json
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import normalize

from graspl.adapters import decoder_layers, load_base_model
from graspl.adapters.streams import edit_streams
from graspl.errors import GrasplError
from graspl.organism.world import World
from graspl.ranges import PositiveFloat, PositiveInt
from graspl.runs import atomic_path


class OrganismSAEModule(LightningModule):
    """Trains a TopK autoencoder on the stream after one layer and writes it to `<default_root_dir>/sae` as SAELens does.

    Args:
        base_model: an organism; it stays frozen.
        layer: whose output is encoded.
        latents: how many.
        k: active ones a token.
        learning_rate: of Adam.

    Source:
        TopK autoencoders, Gao et al., arXiv:2406.04093, without their auxiliary loss: latents that never fire do no harm
        here.
    """

    def __init__(
        self,
        base_model: str,
        layer: str = "model.layers.2",
        latents: PositiveInt = 512,
        k: PositiveInt = 8,
        learning_rate: PositiveFloat = 1e-3,
    ) -> None:
        super().__init__()
        if k > latents:
            raise GrasplError(f"model.k: {k} is more than model.latents = {latents}; lower it")
        self.base_model = base_model
        self.layer = layer
        self.k = k
        self.learning_rate = learning_rate
        self.world = World.load(base_model)
        with torch.random.fork_rng():
            torch.manual_seed(self.world.seed)
            decoder = normalize(torch.randn(latents, self.world.width), dim=1)
        self.decoder, self.encoder = nn.Parameter(decoder), nn.Parameter(decoder.mT.clone())
        self.bias = nn.Parameter(torch.zeros(latents))
        self.shift = nn.Parameter(torch.zeros(self.world.width))

    def configure_model(self) -> None:
        """Load the organism.

        Raises:
            GrasplError: it has no such layer.
        """
        if hasattr(self, "model"):
            return
        self.model = load_base_model(self.base_model, dtype="float32")
        layers = decoder_layers(self.model)
        if self.layer not in layers:
            raise GrasplError(f"model.layer: {self.layer} is none of {', '.join(layers)}")
        edit_streams({self.layer: layers[self.layer]}, self._keep)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Return the unexplained share of the stream's variance."""
        with torch.no_grad():
            self.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False)
        r = self._stream[batch["attention_mask"].bool()]
        before = ((r - self.shift) @ self.encoder + self.bias).relu()
        top = before.topk(self.k, dim=-1)
        latents = torch.zeros_like(before).scatter(-1, top.indices, top.values)
        again = latents @ normalize(self.decoder, dim=1) + self.shift
        unexplained = (again - r).square().sum() / (r - r.mean(0)).square().sum()
        stage = "train" if self.trainer.training else "val"
        self.log(f"{stage}/unexplained", unexplained, prog_bar=True, batch_size=len(batch["labels"]))
        return unexplained

    validation_step = training_step  # On new dialogues

    def _keep(self, _layer: str, stream: Tensor) -> None:
        self._stream = stream

    def configure_optimizers(self) -> Any:
        """Return Adam over the autoencoder."""
        return torch.optim.Adam([self.decoder, self.encoder, self.bias, self.shift], lr=self.learning_rate)

    def on_fit_end(self) -> None:
        """Write the autoencoder, all or nothing."""
        if not self.trainer.is_global_zero:
            return
        decoder = normalize(self.decoder, dim=1)
        tensors = {"W_enc": self.encoder, "b_enc": self.bias, "W_dec": decoder, "b_dec": self.shift}
        config = {
            "architecture": "topk", "d_in": self.world.width, "d_sae": len(self.decoder), "k": self.k, "dtype": "float32",
            "apply_b_dec_to_input": True, "normalize_activations": "none",
            "metadata": {"model_name": self.base_model, "hook_name": self.layer},
        }  # fmt: skip
        with atomic_path(Path(self.trainer.default_root_dir) / "sae") as folder:
            folder.mkdir()
            weights = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
            save_file(weights, folder / "sae_weights.safetensors")
            (folder / "cfg.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
