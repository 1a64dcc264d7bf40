"""Answers in a model's own words."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from graspl.errors import GrasplError
from graspl.ranges import ClosedUnitInterval, NonNegativeFloat, PositiveInt


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn."""

    n: PositiveInt = 1
    """Answers for each question."""
    temperature: NonNegativeFloat = 1.0
    """0 takes the most probable token each time; then n is 1."""
    top_p: ClosedUnitInterval = 1.0
    """Draw from the smallest set of tokens with this probability together."""
    max_new_tokens: PositiveInt = 256
    """Longest answer."""
    seed: int = 0
    """Of the draws. A question's answers depend on the seed, the other questions and the batch size only."""
    batch_size: PositiveInt = 16
    """Answers written at a time."""

    def __post_init__(self) -> None:
        if self.temperature == 0 and self.n > 1:
            raise GrasplError("generations: answers are the same at temperature 0; set n to 1, or raise it")


class TransformersGenerator:
    """Generates with a Transformers or PEFT model, in batches padded on the left."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model, tokenizer

    @torch.no_grad()
    def write(self, prompts: Sequence[str], sampling: Sampling) -> list[list[str]]:
        """Return `sampling.n` answers for each prompt, which the chat template rendered, in the prompts' order.

        The global random state stays as it was.
        """
        # Prompts of similar length come together, longest first: less padding, and what does not fit fails at once
        lengths = [len(ids) for ids in self.tokenizer(list(prompts), add_special_tokens=False)["input_ids"]]
        order = sorted(range(len(prompts)), key=lambda index: -lengths[index])
        rows = [prompts[index] for index in order for _ in range(sampling.n)]
        written: list[str] = []
        was_training = self.model.training
        self.model.eval()
        cuda = [self.model.device] if self.model.device.type == "cuda" else []
        with torch.random.fork_rng(devices=cuda):
            for start in range(0, len(rows), sampling.batch_size):
                torch.manual_seed(sampling.seed * 1_000_003 + start)
                written += self._batch(rows[start : start + sampling.batch_size], sampling)
        self.model.train(was_training)
        place = {index: start * sampling.n for start, index in enumerate(order)}
        return [written[place[index] : place[index] + sampling.n] for index in range(len(prompts))]

    def _batch(self, rows: list[str], sampling: Sampling) -> list[str]:
        encoded = self.tokenizer(
            rows, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False
        )
        inputs = {name: encoded[name].to(self.model.device) for name in ("input_ids", "attention_mask")}
        draws = sampling.temperature > 0
        ids = self.model.generate(
            **inputs,
            do_sample=draws,
            # None also overrides what the model's own generation config holds
            temperature=sampling.temperature if draws else None,
            top_p=sampling.top_p if draws else None,
            top_k=0 if draws else None,
            max_new_tokens=sampling.max_new_tokens,
            pad_token_id=self.tokenizer.pad_token_id,
        )
        return self.tokenizer.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


class VLLMGenerator:
    """Generates with vLLM where it is installed: many times faster on a GPU, with other random numbers.

    Args:
        base_model: hub name or folder.
        adapter: PEFT folder; the base model alone where None.
        max_lora_rank: at least the adapter's rank.
        **options: of `vllm.LLM`.
    """

    def __init__(
        self, base_model: str, adapter: str | None = None, max_lora_rank: int = 64, **options: Any
    ) -> None:
        self.base_model, self.adapter = base_model, adapter
        self.options = {"max_lora_rank": max_lora_rank, "enable_lora": adapter is not None, **options}
        self._engine: Any = None

    def write(self, prompts: Sequence[str], sampling: Sampling) -> list[list[str]]:
        """Return `sampling.n` answers for each prompt, in their order; vLLM must be installed."""
        try:
            import vllm  # type: ignore[import-not-found]
            from vllm.lora.request import LoRARequest  # type: ignore[import-not-found]
        except ImportError as error:
            raise GrasplError("generations.engine: vLLM is not installed; pip install vllm") from error
        if self._engine is None:
            self._engine = vllm.LLM(self.base_model, seed=sampling.seed, **self.options)
        drawn = vllm.SamplingParams(
            n=sampling.n,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=sampling.max_new_tokens,
            seed=sampling.seed,
        )
        lora = LoRARequest("adapter", 1, self.adapter) if self.adapter is not None else None
        outputs = self._engine.generate(list(prompts), drawn, lora_request=lora)
        return [[each.text for each in output.outputs] for output in outputs]
