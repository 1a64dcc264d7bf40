"""What every fine-tuning module shares: the adapted model, and validation."""

import logging
import math
import warnings
from dataclasses import replace
from typing import Any, Literal

import torch
from peft import PeftModel, get_peft_model
from peft.utils.integrations import dequantize_module_weight
from torch import Tensor

from graspl.adapters.base_model import ORGANISM, load_adapter, load_base_model
from graspl.adapters.files import read_adapter
from graspl.adapters.forward import model_logits
from graspl.adapters.options import LoraOptions
from graspl.adapters.reliance import update_norm
from graspl.adapters.residual import decoder_layers
from graspl.adapters.sharding import shard_frozen, shard_layers, whole
from graspl.adapters.sites import Site, lora_sites
from graspl.adapters.switch import adapter_off
from graspl.directions.basis import Directions
from graspl.directions.reliance import reliance
from graspl.errors import GrasplError
from graspl.evaluation.suites import SuiteEvaluator, headline
from graspl.methods.state import AdapterState

log = logging.getLogger(__name__)


class AdapterLitModule(AdapterState):
    """A frozen base model with a LoRA adapter: loading, validating, saving. Training is the subclass's.

    Only the adapter is trained and only the adapter is in the checkpoint.

    Args:
        base_model: hub name, folder in Transformers format, or `organism`.
        lora: the new adapter's options.
        adapter: PEFT folder to evaluate; on the command line None takes the run folder's own. A fit starts anew.
        directions: a directions file; the reliance on it is measured in validation.
        dtype: of the frozen weights; the adapter is float32.
        attn_implementation: as Transformers names it; None leaves the choice to it.
        gradient_checkpointing: compute activations again in the backward pass, which saves memory.
        compile_layers: run each decoder layer through `torch.compile`; minutes to begin with, fewer kernels at each step.
        load_in_4bit: quantise the frozen weights (QLoRA); needs the `qlora` extra.
        trust_remote_code: let the hub repository's own Python code run.
    """

    def __init__(
        self,
        base_model: str = ORGANISM,
        lora: LoraOptions = LoraOptions(),  # noqa: B008 - never changed
        adapter: str | None = None,
        directions: str | None = None,
        dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
        attn_implementation: str | None = None,
        gradient_checkpointing: bool = False,
        compile_layers: bool = False,
        load_in_4bit: bool = False,
        trust_remote_code: bool = False,
    ) -> None:
        super().__init__()
        self.base_model = base_model
        self.lora = lora
        self.adapter = adapter
        self.directions = directions
        self.dtype_name = dtype
        self.attn_implementation = attn_implementation
        self.gradient_checkpointing = gradient_checkpointing
        self.compile_layers = compile_layers
        self.load_in_4bit = load_in_4bit
        self.trust_remote_code = trust_remote_code
        self.model = None
        self._sites: list[Site] = []
        self._loaded_directions: Directions | None = None
        self._suites: dict[str, SuiteEvaluator] = {}

    @property
    def sites(self) -> list[Site]:
        """The adapter's sites, live; empty before the model is built."""
        return self._sites

    def frozen_weight(self, site: str) -> Tensor:
        """Return the base model's weight under a site, (out, in), whole and not quantised; every process must call it.

        Args:
            site: its name, as in `Site.name`.

        Raises:
            GrasplError: no process has whole weights.
        """
        assert self.model is not None, "configure_model comes first"
        if self.is_flat_sharded:
            raise GrasplError(
                f"trainer.strategy: {type(self).__name__} looks at frozen weights, and FSDP1 leaves no process whole ones; "
                "take DDP (configs/trainer/ddp.yaml) or FSDP2 (configs/trainer/fsdp.yaml)"
            )
        layer = self.model.get_base_model().get_submodule(f"{site}.base_layer")
        return whole(dequantize_module_weight(layer).detach())

    def whole_sites(self) -> list[Site]:
        """Return the sites with whole factors, also where they are sharded; every process must call it."""
        return [replace(site, A=whole(site.A), B=whole(site.B)) for site in self._sites]

    def setup(self, stage: str) -> None:
        """Read the directions, before the base model is loaded and before anything is computed.

        Raises:
            GrasplError: the file cannot be read, or was made for another base model.
        """
        if self.is_flat_sharded:
            self.refuse_flat_shards()
        if self.directions is not None:
            self._loaded_directions = Directions.load(self.directions)
            self._loaded_directions.require_base_model(self.base_model)

    def configure_model(self) -> None:
        """Load the base model and put the adapter on it; called once a stage, done once.

        Raises:
            GrasplError: the model or the adapter cannot be loaded, or is of a kind that graspl does not support.
        """
        if self.model is not None:
            return
        base = load_base_model(
            self.base_model,
            dtype=self.dtype_name,
            attn_implementation=self.attn_implementation,
            load_in_4bit=self.load_in_4bit,
            trust_remote_code=self.trust_remote_code,
        )
        if self.gradient_checkpointing:
            base.activation_checkpointing_enable({"use_reentrant": False})
            # The frozen embedding gives the first layer an input without gradient, and checkpointing would drop it
            base.enable_input_require_grads()
        self.model = self._adapted(base)
        if self.compile_layers:
            for layer in decoder_layers(self.model).values():
                # The forward function alone, so that constraints' and FSDP's hooks run as they are; names stay
                layer.forward = torch.compile(layer.forward, dynamic=True)
        if self.device_mesh is not None:
            shard_layers(self.model, self.device_mesh["data_parallel"])
        if self.is_flat_sharded:
            if self.trainer.precision == "32-true" and base.dtype != torch.float32:
                log.warning(
                    "trainer.precision: FSDP1 turns %s weights into float32 at 32-true; set it to bf16-mixed",
                    base.dtype,
                )
            shard_frozen(self.model, self.trainer.strategy.root_device)
        self._sites = lora_sites(self.model)

    def _adapted(self, base: Any) -> PeftModel:
        if self.adapter is not None:
            self._check_match(base)
            return load_adapter(base, self.adapter, is_trainable=True)
        try:
            with warnings.catch_warnings():
                # PEFT reads an attribute that Transformers has renamed
                warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
                model = get_peft_model(base, self.lora.to_peft())
        except ValueError as error:
            raise GrasplError(f"lora: {error}") from error
        # PEFT would record where the files lie on this machine
        model.peft_config["default"].base_model_name_or_path = self.base_model
        return model  # type: ignore[return-value]

    def _check_match(self, base: Any) -> None:
        """Refuse in clear words what PEFT would load or fail on."""
        adapter, modules = read_adapter(str(self.adapter)), dict(base.named_modules())
        if adapter.base_model != self.base_model:
            log.warning(
                "adapter: %s was trained on %s, not on %s", adapter.path, adapter.base_model, self.base_model
            )
        for site in adapter.sites:
            module = modules.get(site.name)
            shape = (getattr(module, "out_features", None), getattr(module, "in_features", None))
            if shape != site.shape:
                raise GrasplError(
                    f"model.adapter: {self.adapter} was made for another model: {site.name} is {site.shape} there, "
                    f"{shape if module is not None else 'missing'} in {self.base_model}"
                )

    def forward(self, batch: dict[str, Any]) -> Tensor:
        """Return the logits (b, L, vocabulary)."""
        assert self.model is not None, "configure_model comes first"
        return model_logits(self.model, batch)

    @torch.no_grad()
    def base_forward(self, batch: dict[str, Any]) -> Tensor:
        """Return the base model's logits (b, L, vocabulary), adapter off, without gradients."""
        assert self.model is not None, "configure_model comes first"
        with adapter_off(self.model):
            return self(batch)

    # Validation

    def on_validation_epoch_start(self) -> None:
        """Start the suites anew."""
        names = getattr(self.trainer.datamodule, "suite_names", list)() or ["task"]  # type: ignore[attr-defined]
        self._suites = {name: SuiteEvaluator() for name in names}

    def validation_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> None:
        """Measure one batch of a suite with the adapter and without it."""
        suite = list(self._suites.values())[dataloader_idx]
        suite.update(batch, self(batch), self.base_forward(batch))

    def on_validation_epoch_end(self) -> None:
        """Log every suite's scores and the headline figures."""
        scores = self.suite_scores()
        named = {f"{suite}/{name}": value for suite, each in scores.items() for name, value in each.items()}
        headlines = {name: value for name, value in headline(scores).items() if value is not None}
        rho = [each["rho"] for each in self.reliance().values() if "rho" in each]
        if rho:
            headlines |= {"rho_mean": sum(rho) / len(rho), "rho_max": max(rho)}
        # For comparison at equal size of the update; the sites' updates stand side by side
        size = math.sqrt(sum(update_norm(site.B, site.A, site.scaling) ** 2 for site in self.whole_sites()))
        for name, value in (headlines | named | {"update_norm": size}).items():
            if not name.endswith("/num_items"):
                # The metrics are reduced over processes already, but Lightning wants to be told
                self.log(f"val/{name}", value, prog_bar=name in headlines, sync_dist=True)

    def suite_scores(self) -> dict[str, dict[str, float]]:
        """Return the scores of the suites seen in this validation."""
        return {name: suite.compute() for name, suite in self._suites.items() if suite.seen}

    def item_values(self, *, base: bool = False) -> dict[str, list[tuple[int, float]]]:
        """Return place and value of each item of choices by suite (`graspl.evaluation.items`); every process must call it.

        Args:
            base: what the base model gives, adapter off.
        """
        found = {name: suite.items(base=base) for name, suite in self._suites.items() if suite.seen}
        return {name: items for name, items in found.items() if items}

    def reliance(self) -> dict[str, dict[str, float]]:
        """Return each site's reliance on the directions: `rho` (what is written along them), `rho_read`, `rho_pair`.

        Empty where no directions are given; directions with one side only give that side's figure.

        Raises:
            GrasplError: the directions are of another model.
        """
        directions, sites = self._loaded_directions, self.whole_sites()
        if directions is None:
            return {}
        return reliance(directions, sites, k=self._reliance_k(directions))

    def _reliance_k(self, directions: Directions) -> int:
        """Return how many directions a site the reliance is on: all that the file has at every site."""
        return max(directions.width(side) for side in ("U", "V", "D"))
