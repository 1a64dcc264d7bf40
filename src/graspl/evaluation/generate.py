"""Answers in a model's own words."""

import inspect
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel

from graspl.adapters import load_tokenizer
from graspl.data.tokens import with_chat_template
from graspl.data.turns import end_of_answer
from graspl.errors import GrasplError
from graspl.ranges import ClosedUnitInterval, NonNegativeFloat, PositiveInt

log = logging.getLogger(__name__)
PADDED = 0.1  # How far padding may move a token's logits, over their spread: rounding moves them, another position far more


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

    def in_force(self) -> dict[str, float | int]:
        """Return what an answer was drawn with, to be written beside it; nothing of the model folder's own is used."""
        drawn = {"top_p": self.top_p, "seed": self.seed} if self.temperature else {}
        return {"temperature": self.temperature, "max_new_tokens": self.max_new_tokens, **drawn}


class TransformersGenerator:
    """Generates with a Transformers or PEFT model, in batches padded on the left."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model, tokenizer
        self._pads: bool | None = None  # Whether rows may be padded; None before it was tried out

    @torch.no_grad()
    def check(self) -> None:
        """Let the model write two tokens, to find out before anything is computed whether it can.

        Raises:
            GrasplError: it cannot, as models whose cache Transformers does not know.
        """
        first = end_of_answer(self.tokenizer).stops(self.tokenizer)[:1] or [0]
        ids = torch.tensor([first * 4], device=self.model.device)
        was_training = self.model.training
        self.model.eval()
        self._generate({"input_ids": ids, "attention_mask": torch.ones_like(ids)}, [], max_new_tokens=2)
        self.model.train(was_training)

    @torch.no_grad()
    def write(
        self, prompts: Sequence[str], sampling: Sampling, *, within_text: bool = False
    ) -> list[list[str]]:
        """Return `sampling.n` answers for each prompt, which the chat template rendered, in the prompts' order.

        The global random state stays as it was.

        Args:
            prompts: to go on from.
            sampling: how.
            within_text: whether a prompt ends within a text, so that the space before its next word matters. Many tokenizers
                leave that space out where the words that were written are decoded alone.
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
                written += self._batch(rows[start : start + sampling.batch_size], sampling, within_text)
        self.model.train(was_training)
        place = {index: start * sampling.n for start, index in enumerate(order)}
        return [written[place[index] : place[index] + sampling.n] for index in range(len(prompts))]

    def _batch(self, rows: list[str], sampling: Sampling, within_text: bool) -> list[str]:
        stops = end_of_answer(self.tokenizer).stops(self.tokenizer)
        encoded = self.tokenizer(
            rows, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False
        )
        inputs = {name: encoded[name].to(self.model.device) for name in ("input_ids", "attention_mask")}
        if not self._may_pad(inputs):
            return [each for row in rows for each in self._batch([row], sampling, within_text)]
        draws = sampling.temperature > 0
        options = {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0} if draws else {}
        options |= {"do_sample": draws, "max_new_tokens": sampling.max_new_tokens}
        ids = self._generate(inputs, stops, **options)
        written = ids[:, inputs["input_ids"].shape[1] :].tolist()
        before = [
            each[kept.bool()].tolist() if within_text else []
            for each, kept in zip(encoded["input_ids"], encoded["attention_mask"], strict=True)
        ]
        return [_answer(self.tokenizer, *row, stops) for row in zip(before, written, strict=True)]

    def _generate(self, inputs: dict[str, torch.Tensor], stops: list[int], **options: Any) -> torch.Tensor:
        """Return the prompts' ids and what the model writes behind them, (rows, tokens)."""
        ends = {"pad_token_id": self.tokenizer.pad_token_id, "eos_token_id": stops or None}
        with _without_own_settings(self.model), _head_reads_in_order(self.model):
            try:
                return self.model.generate(**inputs, **ends, **options)
            except (AttributeError, IndexError, NotImplementedError, TypeError, ValueError) as error:
                reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
                raise GrasplError(
                    f"generations: {type(self.model).__name__} cannot write in this Transformers ({reason}); set "
                    "generations.prompts to 0 and leave out suites of questions"
                ) from error

    def _may_pad(self, inputs: dict[str, torch.Tensor]) -> bool:
        """Return whether padding on the left leaves a row's next token as it is; tried out on the first padded batch."""
        mask = inputs["attention_mask"]
        row = int(mask.sum(-1).argmin())
        padding = int((mask[row] == 0).sum())
        if padding == 0 or self._pads is not None:
            return padding == 0 or bool(self._pads)
        if self._takes_positions():
            inputs = inputs | {"position_ids": (mask.cumsum(-1) - 1).clamp_min(0)}
        padded, alone = (
            self.model(
                **{name: each[row : row + 1, start:] for name, each in inputs.items()},
                use_cache=False,
            )
            .logits[0, -1]
            .float()
            for start in (0, padding)
        )
        self._pads = float((padded - alone).abs().mean() / alone.std()) <= PADDED
        if not self._pads:
            log.warning(
                "generations: padding changes what this model writes, so prompts are answered one by one"
            )
        return self._pads

    def _takes_positions(self) -> bool:
        base = self.model if isinstance(self.model, PreTrainedModel) else self.model.get_base_model()
        return "position_ids" in inspect.signature(base.forward).parameters


def _answer(tokenizer: Any, before: list[int], ids: Sequence[int], stops: list[int]) -> str:
    """Return the text behind `before`, up to the token that ends the answer; nothing in it is hidden."""
    end = next((place for place, each in enumerate(ids) if each in stops), len(ids))
    written = list(ids[:end])
    so_far, whole = (tokenizer.decode(each, skip_special_tokens=False) for each in (before, before + written))
    return (
        whole.removeprefix(so_far)
        if whole.startswith(so_far)
        else tokenizer.decode(written, skip_special_tokens=False)
    )


@contextmanager
def _without_own_settings(model: Any) -> Iterator[None]:
    """Generate within the block with nothing from the model folder's `generation_config`: penalties, other ends, a length."""
    holders = [model] if isinstance(model, PreTrainedModel) else [model, model.get_base_model()]
    kept = [each.generation_config for each in holders]
    for each in holders:
        each.generation_config = GenerationConfig()
    try:
        yield
    finally:
        for each, config in zip(holders, kept, strict=True):
            each.generation_config = config


@contextmanager
def _head_reads_in_order(model: Any) -> Iterator[None]:
    """Within the block give the output head contiguous inputs.

    Transformers passes it the last place of each prompt, a slice. With such an input a CPU copies the head once a row: in
    bfloat16, and with a large vocabulary, that takes hundreds of times as long as the product itself, and gigabytes.
    """
    head = model.get_output_embeddings()
    if head is None:
        yield
        return
    hook = head.register_forward_pre_hook(lambda _, args: (args[0].contiguous(), *args[1:]) if args else None)
    try:
        yield
    finally:
        hook.remove()


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
            # Nothing from the model folder's generation_config
            self._engine = vllm.LLM(
                self.base_model, seed=sampling.seed, generation_config="vllm", **self.options
            )
        tokenizer = with_chat_template(load_tokenizer(self.base_model))
        stops = end_of_answer(tokenizer).stops(tokenizer)
        drawn = vllm.SamplingParams(
            n=sampling.n,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=sampling.max_new_tokens,
            seed=sampling.seed,
            stop_token_ids=stops,
        )
        lora = LoRARequest("adapter", 1, self.adapter) if self.adapter is not None else None
        # As ids: vLLM would put a begin of text before a text that has one
        ids = [
            {"prompt_token_ids": each}
            for each in tokenizer(list(prompts), add_special_tokens=False)["input_ids"]
        ]
        outputs = self._engine.generate(ids, drawn, lora_request=lora)
        return [
            [_answer(tokenizer, [], each.token_ids, stops) for each in output.outputs] for output in outputs
        ]
