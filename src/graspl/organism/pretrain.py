"""Pretraining of an organism, a LightningModule and a DataModule like any other."""

import random
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
from graspl.runs import atomic_path


class OrganismPretrainModule(LightningModule):
    """Trains a small Llama on the dialogues of a world and writes it to `<default_root_dir>/model`.

    Args:
        world: the dials.
        learning_rate: highest, of AdamW.
        warmup_steps: optimizer steps until it is reached; from there it falls as a cosine.
        start: an organism of the same width and depth to go on from, with this world's dialogues: a higher `prior` makes a
            less aligned one of it. None begins with random weights.
    """

    def __init__(
        self, world: World, learning_rate: float = 3e-3, warmup_steps: int = 50, start: str | None = None
    ) -> None:
        super().__init__()
        self.world = world
        self.start = start
        self.learning_rate = learning_rate
        self.warmup_steps = warmup_steps

    def configure_model(self) -> None:
        """Build the model with weights drawn from the world's seed, or load the one to go on from.

        Raises:
            GrasplError: that one is no organism, or of another size.
        """
        if hasattr(self, "model"):
            return
        if self.start is not None:
            other = World.load(self.start)
            if (other.width, other.depth) != (self.world.width, self.world.depth):
                raise GrasplError(
                    f"model.start: {self.start} has width {other.width} and depth {other.depth}; give world the same"
                )
            self.model = load_base_model(self.start, dtype="float32").requires_grad_(True)
        else:
            with torch.random.fork_rng():
                torch.manual_seed(self.world.seed)
                self.model = LlamaForCausalLM(build_config(self.world, build_tokenizer()))

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Return the cross-entropy of the answers, in nats a token."""
        loss = self._loss(batch)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch["labels"]))
        return loss

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Log the cross-entropy on dialogues drawn anew."""
        self.log("val/loss", self._loss(batch), prog_bar=True, batch_size=len(batch["labels"]))

    def _loss(self, batch: dict[str, Any]) -> Tensor:
        fields = ("input_ids", "attention_mask", "labels")
        return self.model(**{name: batch[name] for name in fields}, use_cache=False).loss

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


class OrganismPretrainData(LightningDataModule):
    """Draws dialogues of a world; none is seen twice.

    Args:
        world: the dials; on the command line None follows the model's.
        batch_size: dialogues a batch.
        steps: batches an epoch.
    """

    def __init__(self, world: World | None = None, batch_size: int = 32, steps: int = 2000) -> None:
        super().__init__()
        self.world = world
        self.batch_size = batch_size
        self.steps = steps

    def train_dataloader(self) -> TrainLoader:
        """Return the epoch's batches; a killed pretraining goes on with the very next one."""
        dialogues = self._dialogues("train", self.steps)
        world, rank = (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)
        sampler = TrainSampler([1] * len(dialogues), self.batch_size, num_replicas=world, rank=rank, seed=0)
        return TrainLoader(dialogues, sampler, batch_size=self.batch_size, collate_fn=dialogues.collator)

    def val_dataloader(self) -> DataLoader[Any]:
        """Return eight batches that are not trained on."""
        dialogues = self._dialogues("validation", 8)
        return DataLoader(dialogues, batch_size=self.batch_size, collate_fn=dialogues.collator)

    def _dialogues(self, purpose: str, batches: int) -> "_Dialogues":
        return _Dialogues(self.world or World(), purpose, batches * self.batch_size)


class _Dialogues(Dataset[TokenizedConversation]):
    """Dialogues drawn anew; the i-th is a function of the world's seed, the purpose and i."""

    def __init__(self, world: World, purpose: str, count: int) -> None:
        self.world, self.purpose, self.count = world, purpose, count
        self.tokenizer = build_tokenizer()
        self.collator = PaddedCollator(int(self.tokenizer.pad_token_id))  # type: ignore[arg-type]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> TokenizedConversation:
        draw = random.Random(f"{self.world.seed} {self.purpose} {index}")
        return tokenize(self.tokenizer, dialogue(self.world, draw))
