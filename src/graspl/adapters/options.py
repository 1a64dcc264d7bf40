"""The kinds of LoRA that graspl can constrain, as options with PEFT's own names."""

from dataclasses import asdict, dataclass, field

from peft import LoraConfig
from torch import nn

from graspl.adapters.sites import shape_of
from graspl.errors import GrasplError


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
    """Dropout on the adapter's input, from 0 to below 1."""
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

    def __post_init__(self) -> None:
        if not 0 <= self.lora_dropout < 1:
            raise GrasplError(f"lora.lora_dropout: {self.lora_dropout} is not from 0 to below 1; set it to 0")
        for key, value in {
            **self._ranks(),
            **_named("lora_alpha", self.lora_alpha, "alpha_pattern", self.alpha_pattern),
        }.items():
            if value < 1:
                raise GrasplError(f"lora.{key}: {value} is below 1, so nothing could be learnt; raise it")

    def _ranks(self) -> dict[str, int]:
        return _named("r", self.r, "rank_pattern", self.rank_pattern)

    def require_fit(self, base: nn.Module) -> None:
        """Refuse a rank that no weight of the model has: it would cost memory and add nothing.

        Raises:
            GrasplError: names the key and the largest rank.
        """
        # Not of the parameters' own shapes, which four bits change
        shapes = [shape for module in base.modules() if (shape := shape_of(module))]
        largest = max((min(shape) for shape in shapes), default=1)
        for key, rank in self._ranks().items():
            if rank > largest:
                fix = f"at most {largest}"
                raise GrasplError(f"lora.{key}: {rank} is more than any weight of the model has; {fix}")

    def to_peft(self) -> LoraConfig:
        """Return PEFT's configuration."""
        return LoraConfig(task_type="CAUSAL_LM", **asdict(self))


def _named(key: str, value: int, pattern: str, others: dict[str, int]) -> dict[str, int]:
    """Return an option and those of its pattern, by the keys that users write."""
    return {key: value, **{f"{pattern}.{name}": each for name, each in others.items()}}
