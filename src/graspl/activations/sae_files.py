"""Sparse autoencoders as others publish them, read from safetensors."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor

from graspl.errors import GrasplError, foreign
from graspl.runs import read_json

WEIGHTS = ("sae_weights.safetensors", "sae.safetensors")  # File names of SAELens and of sparsify


@dataclass(frozen=True)
class SparseAutoencoder:
    """Encodes a stream r as latents: a = act(W (r - shift) + bias), and r is about decoder^T a."""

    encoder: Float[Tensor, "latents hidden"]  # W, (latents, hidden)
    bias: Float[Tensor, " latents"]  # (latents,)
    decoder: Float[Tensor, "latents hidden"]  # (latents, hidden), a row a latent
    shift: Float[Tensor, " hidden"]  # (hidden,) subtracted first; zeros where the SAE subtracts nothing
    # `topk` keeps the k largest of each token, `jumprelu` those above its latent's threshold.
    activation: Literal["relu", "topk", "jumprelu"]
    k: int = 0  # Of `topk`
    threshold: Float[Tensor, " latents"] | None = None  # Of `jumprelu`

    def encode(self, r: Float[Tensor, "tokens hidden"]) -> Float[Tensor, "tokens latents"]:
        """Return the latents of a stream, (tokens, latents)."""
        before = (r - self.shift) @ self.encoder.mT + self.bias
        if self.activation == "jumprelu":
            assert self.threshold is not None, "read with the file"
            return before * (before > self.threshold)
        kept = before.relu()
        if self.activation == "topk":
            top = kept.topk(self.k, dim=-1)
            return torch.zeros_like(kept).scatter_(-1, top.indices, top.values)
        return kept


def read_sae(path: str | Path) -> SparseAutoencoder:
    """Read an SAE of the residual stream in the format of SAELens or sparsify.

    Args:
        path: folder with `cfg.json` and weights in safetensors, or the weights' file beside `cfg.json`.

    Raises:
        GrasplError: no such file, another format, or an option that is not supported.
    """
    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    names = WEIGHTS if Path(path).is_dir() else (Path(path).name, *WEIGHTS)
    file = next((folder / name for name in names if (folder / name).is_file()), None)
    if file is None or file.suffix != ".safetensors":
        fix = f"give a folder with cfg.json and {' or '.join(WEIGHTS)} (pickles are not read)"
        raise GrasplError(f"{path}: no SAE there; {fix}")
    config = read_json(file.parent / "cfg.json", "configuration of an SAE", "download it again")
    if not isinstance(config, dict):
        raise GrasplError(f"{file.parent / 'cfg.json'}: must hold a JSON object; download it again")
    with foreign(file, "not readable as an SAE", "download it again"):
        tensors = {name: tensor.float() for name, tensor in load_file(file).items()}
    try:
        sae = _sae_lens(config, tensors) if "W_enc" in tensors else _sparsify(config, tensors)
    except KeyError as error:
        raise GrasplError(f"{file}: has no {error.args[0]}; give an SAE of SAELens or sparsify") from error
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        reason = f"an option is of the wrong kind ({error})"
        raise GrasplError(f"{file.parent / 'cfg.json'}: {reason}; download it again") from error
    is_finite = all(torch.isfinite(part).all() for part in tensors.values())
    if sae.encoder.shape != sae.decoder.shape or not is_finite:
        raise GrasplError(f"{file}: shapes do not match, or a number is not finite; download it again")
    if sae.activation == "topk" and not 1 <= sae.k <= len(sae.decoder):
        raise GrasplError(f"{file.parent / 'cfg.json'}: k is {sae.k}, the SAE has {len(sae.decoder)} latents")
    return sae


def _sae_lens(config: dict[str, Any], tensors: dict[str, Tensor]) -> SparseAutoencoder:
    """Read W_enc (hidden, latents), b_enc, W_dec (latents, hidden), b_dec and, of jumprelu, threshold."""
    if config.get("normalize_activations", "none") not in ("none", None):
        normalised = config["normalize_activations"]
        raise GrasplError(f"cfg.json: normalize_activations is {normalised}; give an SAE of the plain stream")
    if config.get("rescale_acts_by_decoder_norm"):
        raise GrasplError("cfg.json: rescale_acts_by_decoder_norm is set; fold it into the weights first")
    kind = config.get("architecture", "standard")
    known = {"standard": "relu", "topk": "topk", "jumprelu": "jumprelu"}
    if kind not in known:
        raise GrasplError(f"cfg.json: architecture is {kind}; known are {', '.join(known)}")
    activation = config.get("activation_fn", config.get("activation_fn_str", "relu"))
    if kind == "standard" and activation != "relu":
        if activation != "topk":
            raise GrasplError(f"cfg.json: activation_fn is {activation}; known are relu and topk")
        kind = activation
    k = config.get("k", (config.get("activation_fn_kwargs") or {}).get("k", 0))
    takes_off = config.get("apply_b_dec_to_input", True)
    return SparseAutoencoder(
        encoder=tensors["W_enc"].mT.contiguous(),
        bias=tensors["b_enc"],
        decoder=tensors["W_dec"],
        shift=tensors["b_dec"] if takes_off else torch.zeros_like(tensors["b_dec"]),
        activation=known[kind],  # type: ignore[arg-type]
        k=int(k),
        threshold=tensors["threshold"] if kind == "jumprelu" else None,
    )


def _sparsify(config: dict[str, Any], tensors: dict[str, Tensor]) -> SparseAutoencoder:
    """Read encoder.weight (latents, hidden), encoder.bias, W_dec (latents, hidden) and b_dec, which is subtracted first."""
    if config.get("transcode"):
        raise GrasplError("cfg.json: is a transcoder; give an SAE of the residual stream")
    if config.get("activation", "topk") != "topk":
        raise GrasplError(f"cfg.json: activation is {config['activation']}; only topk is known")
    encoder, bias, decoder, shift = (
        tensors[name] for name in ("encoder.weight", "encoder.bias", "W_dec", "b_dec")
    )
    return SparseAutoencoder(encoder, bias, decoder, shift, "topk", int(config["k"]))
