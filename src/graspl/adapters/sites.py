"""Sites: the places where a LoRA adapter changes a model."""

from dataclasses import dataclass

from jaxtyping import Float
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.layer import ParamWrapper
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from graspl.adapters.sharding import plain_name
from graspl.errors import GrasplError

# What is adapted, four-bit layers among them: what LoRA adds to its output is s B A x. GPT-2's Conv1D holds W transposed.
LINEAR = (nn.Linear, Conv1D)


@dataclass(frozen=True, eq=False)
class Site:
    """One adapted linear map: frozen W (out, in), update ``dW = scaling * B A``."""

    name: str  # Module name in the base model, e.g. `model.layers.0.self_attn.q_proj`
    A: Float[Tensor, "r in_"]  # (r, in) down-projection; random at the start
    B: Float[Tensor, "out r"]  # (out, r) up-projection; zero at the start
    scaling: float  # s = alpha / r, or alpha / sqrt(r) for rsLoRA

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in) of the frozen weight."""
        return self.B.shape[0], self.A.shape[1]


def lora_sites(model: PeftModel, adapter: str = "default") -> list[Site]:
    """List the sites of a model's LoRA adapter; their factors are the live parameters.

    Raises:
        GrasplError: graspl cannot constrain this kind of adapter, or no module matches.
    """
    sites = []
    _check_layers(model)
    for name, module in model.get_base_model().named_modules():
        path = plain_name(name)
        if isinstance(module, LoraLayer) and (adapter in module.lora_A or adapter in module.lora_embedding_A):
            _check_kind(path, module, adapter)
            A, B = module.lora_A[adapter].weight, module.lora_B[adapter].weight
            sites.append(Site(path, A, B, float(module.scaling[adapter])))  # type: ignore[arg-type]
    if not sites:
        raise GrasplError("lora.target_modules: no module of the base model matches; name its linear layers")
    return sites


def shape_of(module: nn.Module | None) -> tuple[int, int] | None:
    """Return (out, in) of a linear map, however it holds its weight; None of any other module."""
    if isinstance(module, Conv1D):
        return module.weight.shape[1], module.weight.shape[0]
    return (module.out_features, module.in_features) if isinstance(module, nn.Linear) else None


def _check_layers(model: PeftModel) -> None:
    """Refuse adapters on weights that are no linear layers' own: PEFT stacks those of experts in one parameter."""
    layers = {
        plain_name(name): module
        for name, module in model.get_base_model().named_modules()
        if isinstance(module, LoraLayer)
    }
    named = getattr(model.peft_config.get("default"), "target_parameters", None)
    stacked = [name for name, module in layers.items() if isinstance(module, ParamWrapper)]
    if stacked or named:
        stacked = stacked or sorted(named or [])
        linear = sorted({name.rpartition(".")[2] for name in layers if name not in stacked} - {"base_layer"})
        fix = f"name others, e.g. [{', '.join(linear)}]" if linear else "graspl cannot adapt this model"
        raise GrasplError(
            f"lora.target_modules: the weights of {stacked[0]} are stacked in one parameter; {fix}"
        )


def _check_kind(path: str, module: LoraLayer, adapter: str) -> None:
    if not isinstance(module.get_base_layer(), LINEAR):
        kind = type(module.get_base_layer()).__name__
        raise GrasplError(f"{path}: LoRA on {kind} is not supported; leave it out of lora.target_modules")
    if getattr(module, "use_dora", {}).get(adapter):
        raise GrasplError(f"{path}: DoRA's change is not only B A; train with lora.use_dora: false")
    if adapter not in module.lora_A or not isinstance(module.lora_A[adapter], nn.Linear):
        kind = type(module.get_base_layer()).__name__
        raise GrasplError(f"{path}: LoRA on {kind} is not supported; leave it out of lora.target_modules")
    if getattr(module, "lora_variant", {}).get(adapter) is not None:
        kind = type(module.lora_variant[adapter]).__name__
        raise GrasplError(
            f"{path}: {kind} is not plain LoRA; train without the option of lora that asks for it"
        )
    if module.lora_bias.get(adapter):
        raise GrasplError(f"{path}: a LoRA bias is not part of B A; train with lora.lora_bias: false")
