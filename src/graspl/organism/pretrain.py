"""Pretraining of an organism."""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning import LightningDataModule, LightningModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from transformers import LlamaForCausalLM, get_cosine_schedule_with_warmup

from graspl.adapters.base_model import load_base_model
from graspl.data.batches import PaddedCollator, TrainLoader, TrainSampler
from graspl.data.tokens import TokenizedConversation, tokenize
from graspl.errors import GrasplError
from graspl.organism.world import World, build_config, build_tokenizer, dialogue
from graspl.ranges import NonNegativeInt, PositiveFloat, PositiveInt
from graspl.runs import atomic_path


class OrganismPretrainModule(LightningModule):
    """Trains a small Llama on the dialogues of a world and writes it to `<default_root_dir>/model`.

    Args:
        world: the dials.
        learning_rate: AdamW's highest.
        warmup_steps: optimizer steps until it is reached; then it falls as a cosine.
        start: an organism of the same width and depth to train further on this world's dialogues: a higher `prior` makes it
            less aligned. None starts from random weights.
    """

    def __init__(
        self,
        world: World,
        learning_rate: PositiveFloat = 3e-3,
        warmup_steps: NonNegativeInt = 50,
        start: str | None = None,
    ) -> None:
        super().__init__()
        self.world = world
        self.start = start
        self.learning_rate = learning_rate
        self.warmup_steps = warmup_steps

    def configure_model(self) -> None:
        """Draw the model's weights from the world's seed, or load the model to start from.

        Raises:
            GrasplError: that model is not an organism, or has another size.
        """
        if hasattr(self, "model"):
            return
        if self.start is not None:
            other = World.load(self.start)
            if (other.width, other.depth) != (self.world.width, self.world.depth):
                other_size = f"{self.start} has width {other.width} and depth {other.depth}"
                raise GrasplError(f"model.start: {other_size}; give world the same")
            self.model = load_base_model(self.start, dtype="float32").requires_grad_(True)
        else:
            with torch.random.fork_rng():
                torch.manual_seed(self.world.seed)
                self.model = LlamaForCausalLM(build_config(self.world, build_tokenizer()))

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Return the cross-entropy of the answers, in nats a token."""
        fields = ("input_ids", "attention_mask", "labels")
        loss = self.model(**{name: batch[name] for name in fields}, use_cache=False).loss
        stage = "train" if self.trainer.training else "val"
        self.log(f"{stage}/loss", loss, prog_bar=True, batch_size=len(batch["labels"]))
        return loss

    validation_step = training_step  # On new dialogues

    def configure_optimizers(self) -> Any:
        """Return AdamW with a warm-up and a cosine."""
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.learning_rate, weight_decay=0.01)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = get_cosine_schedule_with_warmup(optimizer, self.warmup_steps, steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_fit_end(self) -> None:
        """Write model, tokenizer and dials, all or nothing."""
        if self.trainer.is_global_zero:
            with atomic_path(Path(self.trainer.default_root_dir) / "model") as folder:
                self.model.save_pretrained(folder)
                build_tokenizer().save_pretrained(folder)
                self.world.save(folder)


@dataclass(eq=False)
class OrganismPretrainData(LightningDataModule):
    """Draws dialogues of a world; none is seen twice."""

    world: World | None = None
    """The dials; None takes those of the model that the Trainer runs."""
    batch_size: PositiveInt = 32
    """Dialogues in a batch."""
    steps: PositiveInt = 2000
    """Batches an epoch."""

    def __post_init__(self) -> None:
        super().__init__()

    def train_dataloader(self) -> TrainLoader:
        """Return the epoch's batches; a killed pretraining continues with the very next one."""
        dialogues = self._dialogues("train", self.steps)
        world, rank = (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)
        sampler = TrainSampler([1] * len(dialogues), self.batch_size, num_replicas=world, rank=rank, seed=0)
        return TrainLoader(dialogues, sampler, batch_size=self.batch_size, collate_fn=dialogues.collator)

    def val_dataloader(self) -> DataLoader[Any]:
        """Return eight batches that are not trained on."""
        dialogues = self._dialogues("validation", 8)
        return DataLoader(dialogues, batch_size=self.batch_size, collate_fn=dialogues.collator)

    def _dialogues(self, purpose: str, batches: int) -> "_Dialogues":
        world = self.world or getattr(getattr(self.trainer, "lightning_module", None), "world", None)
        if world is None:
            raise GrasplError("data.world: is missing; give the dials of the world of the dialogues")
        return _Dialogues(world, purpose, batches * self.batch_size)


class _Dialogues(Dataset[TokenizedConversation]):
    """New dialogues; the i-th depends only on the world's seed, the purpose and i."""

    def __init__(self, world: World, purpose: str, count: int) -> None:
        self.world, self.purpose, self.count = world, purpose, count
        self.tokenizer = build_tokenizer()
        self.collator = PaddedCollator(int(self.tokenizer.pad_token_id))  # type: ignore[arg-type]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> TokenizedConversation:
        draw = random.Random(f"{self.world.seed} {self.purpose} {index}")
        return tokenize(self.tokenizer, dialogue(self.world, draw))
