"""The kinds of LoRA that graspl can constrain, as options with PEFT's own names."""

from dataclasses import asdict, dataclass, field

from peft import LoraConfig


@dataclass
class LoraOptions:
    """A new adapter; every field is `peft.LoraConfig`'s of that name.

    No constraint bounds DoRA, biases (more than ``s B A``) or PiSSA, OLoRA, LoftQ (no start at zero), so they are left out.
    """

    r: int = 32
    """Rank."""
    lora_alpha: int = 64
    """The update is scaled by lora_alpha / r."""
    lora_dropout: float = 0.0
    """Dropout on the adapter's input."""
    target_modules: str | list[str] = "all-linear"
    """Linear layers to adapt: names or name endings, or a regular expression; `all-linear` takes all but the head."""
    exclude_modules: str | list[str] | None = None
    """Layers to leave out, in the same way."""
    layers_to_transform: list[int] | None = None
    """Numbers of the layers to adapt; None takes all."""
    use_rslora: bool = False
    """Scale by lora_alpha / sqrt(r) (arXiv:2312.03732)."""
    rank_pattern: dict[str, int] = field(default_factory=dict)
    """Another rank for some layers, by name or regular expression."""
    alpha_pattern: dict[str, int] = field(default_factory=dict)
    """Another lora_alpha for some layers."""

    def to_peft(self) -> LoraConfig:
        """Return PEFT's configuration."""
        return LoraConfig(task_type="CAUSAL_LM", **asdict(self))
