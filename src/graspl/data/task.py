"""The LightningDataModule that every task derives from."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import Any, Literal

import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase

from graspl.adapters.answers import IGNORED
from graspl.adapters.base_model import ORGANISM, load_tokenizer
from graspl.data.batches import PackedCollator, PaddedCollator, TrainLoader, TrainSampler, pack
from graspl.data.choices import ChoiceCollator, ChoiceItem
from graspl.data.operators import RowOperator
from graspl.data.preparation import tokenize_rows
from graspl.data.questions import Question
from graspl.data.rows import Conversation, read_conversations, with_shuffled_answers
from graspl.data.suites.base import EvaluationSuite
from graspl.data.tokens import TokenizedConversation, tokenize, with_chat_template
from graspl.errors import GrasplError

log = logging.getLogger(__name__)

WORTH_SHARING = 0.3
"""Share of a suite's tokens from which sharing prefixes pays for a second pass through the model."""

MOSTLY = 0.5
"""Share of unknown tokens from which rows are hardly meant for this tokenizer."""

Suite = Sequence[Conversation] | Sequence[ChoiceItem]
"""Held-out data of one kind: conversations, or questions with answers to choose from."""


class TaskDataModule(LightningDataModule, ABC):
    """Serves one task: rows to train on, and suites to evaluate on.

    A new task is a subclass with `train_rows` and `held_out`.

    Args:
        base_model: whose tokenizer and chat template are used; on the command line None follows the model's.
        max_length: tokens a row may have.
        too_long: what to do with longer rows: stop with an error, `drop` them, or `truncate` at the end.
        batch_size: rows (packs, with `packing`) a training batch.
        eval_batch_size: rows or questions a validation batch.
        packing: fill each row of a batch with several conversations, up to `max_length` tokens, that do not
            see one another.
        group_by_length: put rows of like length into one batch, which saves padding.
        seed: of splits and of the training order.
        text: unlabelled conversations of many writers, off the task, for identifications that run the base model
            (`NaturalDirections`): a file or a `datasets` name.
        shuffle_answers: deal the training answers out anew over the rows: a noise floor, in which nothing that answers
            have to do with questions can be learnt.
        num_workers: processes that prepare batches; 0 uses none.
        prepare_processes: that tokenize where there are thousands of rows, once, for they are cached; None takes all cores,
            8 at most.
        suites: further suites by name (`graspl.data.suites`), beside those of the task; one with the name of the task's
            replaces it. Questions to be answered in own words are written to `generations.jsonl`.
        only_suites: evaluate only these, of the task's and the further ones; all where None.
        share_prefixes: run what the answers to a question begin with once, where that spares the model a good part of the
            tokens; needs a model that keeps keys and values.
        operators: applied to the training rows one after the other (`graspl.data.operators`): mixing, subsampling, prompts.

    Raises:
        GrasplError: a number is too small.
    """

    def __init__(
        self,
        base_model: str | None = None,
        max_length: int = 2048,
        too_long: Literal["error", "drop", "truncate"] = "error",
        batch_size: int = 8,
        eval_batch_size: int = 32,
        packing: bool = False,
        group_by_length: bool = True,
        seed: int = 0,
        text: str | None = None,
        shuffle_answers: bool = False,
        num_workers: int = 0,
        prepare_processes: int | None = None,
        suites: dict[str, EvaluationSuite] | None = None,
        only_suites: list[str] | None = None,
        operators: list[RowOperator] | None = None,
        share_prefixes: bool = True,
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("max_length", max_length, 2),
            ("batch_size", batch_size, 1),
            ("eval_batch_size", eval_batch_size, 1),
            ("num_workers", num_workers, 0),
        ):
            if value < least:
                raise GrasplError(f"data.{name}: {value} is below {least}")
        self.base_model = base_model
        self.max_length = max_length
        self.too_long = too_long
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.packing = packing
        self.group_by_length = group_by_length
        self.seed = seed
        self.text = text
        self.shuffle_answers = shuffle_answers
        self.num_workers = num_workers
        self.prepare_processes = prepare_processes
        self.operators = operators or []
        self.share_prefixes = share_prefixes
        self._given_suites = suites or {}
        self.only_suites = only_suites
        self._tokenizer: PreTrainedTokenizerBase | None = None
        self._train: list[TokenizedConversation] | None = None
        self._choices: ChoiceCollator | None = None
        self._suites: dict[str, list[TokenizedConversation] | list[ChoiceItem]] | None = None
        self._questions: dict[str, list[Question]] = {}

    @abstractmethod
    def train_rows(self) -> Sequence[Conversation]:
        """Return what is trained on."""

    @abstractmethod
    def held_out(self) -> Mapping[str, Suite]:
        """Return the suites by name.

        `task` measures adherence (held-out rows of the task), `unrelated` spill-over (everything else).
        """

    def text_rows(self) -> Sequence[Conversation]:
        """Return unlabelled conversations of many writers, off the task, for identifications that run the base model.

        A task may have none; then such an identification is given a file.
        """
        return [] if self.text is None else read_conversations(self.text)

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The base model's, with a chat template and a padding token."""
        if self._tokenizer is None:
            self._tokenizer = with_chat_template(load_tokenizer(self.base_model or ORGANISM))
        return self._tokenizer

    def suite_names(self) -> list[str]:
        """Return the names of the validation loaders, in their order; none before `setup`."""
        return list(self._suites or {})

    def questions(self) -> dict[str, list[Question]]:
        """Return the suites of questions to answer in the model's own words; no loader serves them."""
        return dict(self._questions)

    def choice_items(self, suite: str) -> list[ChoiceItem]:
        """Return the items of a suite of choices, in order; a suite of text has none."""
        return [item for item in (self._suites or {}).get(suite, []) if isinstance(item, ChoiceItem)]

    def train_conversations(self) -> list[TokenizedConversation]:
        """Return the tokenized training rows; none before `setup("fit")`."""
        return list(self._train or [])

    def shuffle_train_answers(self) -> None:
        """Deal the training answers out anew, where `setup("fit")` has read the rows."""
        self._train = self._tokenize(with_shuffled_answers(self._operated_rows(), self.seed))

    def text_conversations(self) -> list[TokenizedConversation]:
        """Return the unlabelled text, tokenized."""
        return [tokenize(self.tokenizer, row.messages, origin=row.origin) for row in self.text_rows()]

    def prepare_data(self) -> None:
        """Fill the cache of tokens, in one process a node, before the others want it."""
        trainer = self.trainer
        if trainer is not None and trainer.world_size > 1 and trainer.state.fn == "fit":
            tokenize_rows(self.tokenizer, self._operated_rows(), processes=self.prepare_processes)

    def setup(self, stage: str) -> None:
        """Read and tokenize what the stage needs, once.

        Raises:
            GrasplError: the data cannot be used; names the file, the row and the field.
        """
        if stage == "fit" and self._train is None:
            self._train = self._tokenize(self._operated_rows())
            self._warn_unknown(self._train)
            if self.shuffle_answers:
                self.shuffle_train_answers()
        if self._suites is None:
            every = self._every_suite()
            self._questions = {name: _questions(suite) for name, suite in every.items() if _questions(suite)}
            self._suites = {
                name: self._prepare(name, suite)  # type: ignore[arg-type]
                for name, suite in every.items()
                if name not in self._questions
            }

    def train_dataloader(self) -> TrainLoader:
        """Return the training batches: `input_ids` and `labels` (b, L), with `attention_mask` or `position_ids`."""
        assert self._train is not None, "setup('fit') comes first"
        pad = int(self.tokenizer.pad_token_id)  # type: ignore[arg-type]
        rows: Sequence[Any] = self._train
        collator: Any = PaddedCollator(pad)
        lengths = [len(row) for row in rows] if self.group_by_length else [1] * len(rows)
        if self.packing:
            rows, collator = (
                pack(self._train, max_length=self.max_length, seed=self.seed),
                PackedCollator(pad),
            )
            lengths = [1] * len(rows)  # all are nearly full
        world, rank = (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)
        if len(rows) < world:
            raise GrasplError(
                f"data: {len(rows)} rows or packs are fewer than the {world} processes; give more rows"
            )
        sampler = TrainSampler(lengths, self.batch_size, num_replicas=world, rank=rank, seed=self.seed)
        on_gpu = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        return TrainLoader(
            rows,
            sampler,
            batch_size=self.batch_size,
            collate_fn=collator,
            num_workers=self.num_workers,
            pin_memory=on_gpu,  # else every batch's copy would wait for the GPU
        )

    def val_dataloader(self) -> list[DataLoader[Any]]:
        """Return one loader a suite, in the order of `suite_names()`."""
        assert self._suites is not None, "setup comes first"
        return [self._suite_loader(suite, self.share_prefixes) for suite in self._suites.values()]

    def whole_rows_loader(self, suite: str) -> DataLoader[Any]:
        """Return a suite's loader whose rows are whole also where `val_dataloader` shares prefixes."""
        assert self._suites is not None, "setup comes first"
        return self._suite_loader(self._suites[suite], share_prefixes=False)

    def _operated_rows(self) -> Sequence[Conversation]:
        rows = self.train_rows()
        for operator in self.operators:
            rows = operator(rows)
        return rows

    def _every_suite(self) -> dict[str, Any]:
        """Return the items of the suites that are wanted; one given by name replaces the task's."""
        own = self.held_out()
        names = [*(name for name in own if name not in self._given_suites), *self._given_suites]
        wanted = names if self.only_suites is None else self.only_suites
        unknown = next((name for name in wanted if name not in names), None)
        if unknown is not None:
            raise GrasplError(f"data.only_suites: {unknown} is none of {', '.join(names)}")
        found: dict[str, Any] = {}
        for name in (name for name in names if name in wanted):
            try:
                found[name] = self._given_suites[name].read() if name in self._given_suites else own[name]
            except GrasplError as error:
                hint = "mend it, or leave the suite out with data.only_suites"
                raise GrasplError(f"data.suites.{name}: {error} ({hint})") from error
        return found

    def _suite_loader(self, suite: Sequence[Any], share_prefixes: bool) -> DataLoader[Any]:
        collator: Any = PaddedCollator(int(self.tokenizer.pad_token_id))  # type: ignore[arg-type]
        if isinstance(suite[0], ChoiceItem):
            collator = self._collator(share_prefixes)
            # The whole suite decides, so that all processes run the model as often as one another
            if share_prefixes and collator.saves(suite) < WORTH_SHARING:
                collator = self._collator(share_prefixes=False)
        return DataLoader(
            suite,  # type: ignore[arg-type]
            batch_size=self.eval_batch_size,
            collate_fn=collator,
            num_workers=self.num_workers,
            # The loader would draw from the global generator, which dropout uses
            generator=torch.Generator(),
        )

    def _collator(self, share_prefixes: bool) -> ChoiceCollator:
        self._choices = self._choices or ChoiceCollator(self.tokenizer)
        collator = copy(self._choices)  # what is encoded is the same
        collator.share_prefixes = share_prefixes
        return collator

    def _prepare(self, name: str, suite: Suite) -> list[TokenizedConversation] | list[ChoiceItem]:
        if not suite:
            raise GrasplError(f"data: the {name} suite has nothing to evaluate; give more rows")
        items = [item for item in suite if isinstance(item, ChoiceItem)]
        choices = [replace(item, place=place) for place, item in enumerate(items)]
        return choices or self._tokenize([row for row in suite if isinstance(row, Conversation)])

    def _tokenize(self, rows: Sequence[Conversation]) -> list[TokenizedConversation]:
        if not rows:
            raise GrasplError(
                "data: nothing is left to train on; give more rows or a smaller validation_share"
            )
        fitted = []
        tokenized = tokenize_rows(self.tokenizer, rows, processes=self.prepare_processes)
        for row, whole in zip(rows, tokenized, strict=True):
            conversation = self._fit(whole, row.origin)
            if conversation is not None:
                fitted.append(conversation)
        if len(fitted) < len(rows):
            log.warning("data: %d of %d rows were too long and dropped", len(rows) - len(fitted), len(rows))
        if not fitted:
            raise GrasplError(f"data.max_length: every row is longer than {self.max_length} tokens; raise it")
        self._warn_beyond(max(len(row) for row in fitted))
        return fitted

    def _warn_beyond(self, longest: int) -> None:
        """Say that rows reach beyond what the tokenizer names as the model's limit; some tokenizers name too little."""
        limit = self.tokenizer.model_max_length
        if longest > limit:
            log.warning(
                "data.max_length: the longest row kept has %d tokens, the tokenizer's model_max_length is %d; beyond its "
                "limit a model answers badly or fails: set max_length to %d, and too_long to drop or truncate",
                longest,
                limit,
                limit,
            )

    def _warn_unknown(self, rows: Sequence[TokenizedConversation]) -> None:
        """Say that most words are unknown: where no model is named it is the organism, which speaks a few hundred."""
        unknown: Any = self.tokenizer.unk_token_id
        share = sum(row.input_ids.count(unknown) for row in rows) / sum(map(len, rows))
        if share > MOSTLY:
            log.warning(
                "data: the tokenizer of %s does not know %.0f %% of the training rows' tokens; name the model that you mean "
                "(--model.base_model)",
                self.base_model or ORGANISM,
                100 * share,
            )

    def _fit(self, row: TokenizedConversation, origin: str) -> TokenizedConversation | None:
        """Return the row, cut if need be, or None where it shall be dropped."""
        if len(row) <= self.max_length:
            return row
        if self.too_long == "error":
            raise GrasplError(
                f"{origin}: has {len(row)} tokens, more than data.max_length = {self.max_length}; raise it, or set "
                "data.too_long to drop or truncate"
            )
        labels = row.labels[: self.max_length]
        if self.too_long == "drop" or all(label == IGNORED for label in labels):
            return None  # a row cut before its answer teaches nothing
        return TokenizedConversation(row.input_ids[: self.max_length], labels, row.prompt)


def _questions(suite: Sequence[Any]) -> list[Question]:
    return [item for item in suite if isinstance(item, Question)]
