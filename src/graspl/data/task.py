"""The LightningDataModule that every task derives from."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase

from graspl.adapters.base_model import load_tokenizer
from graspl.data.batches import PackedCollator, PaddedCollator, TrainLoader, TrainSampler, pack
from graspl.data.choices import ChoiceCollator, ChoiceItem
from graspl.data.operators import RowOperator
from graspl.data.preparation import TooLong, prepare_rows, tokenize_rows
from graspl.data.questions import Question
from graspl.data.rows import Conversation, read_conversations, with_last_answer_alone, with_shuffled_answers
from graspl.data.suites.base import EvaluationSuite, Items, ModelSuite, read_suites
from graspl.data.tables import files_read
from graspl.data.tokens import TokenizedConversation, tokenize, with_chat_template
from graspl.errors import GrasplError
from graspl.ranges import NonNegativeInt, PositiveInt


@dataclass(eq=False, kw_only=True)
class TaskDataModule(LightningDataModule, ABC):
    """Serves one task: rows to train on, and suites to evaluate on.

    A new task is a subclass with `train_rows` and `held_out`. All but `tokenizer` are methods.
    """

    base_model: str | None = None
    """Whose tokenizer and chat template are used; None takes that of the model that the Trainer runs."""
    max_length: PositiveInt = 2048
    """Tokens a row may have."""
    too_long: TooLong = "error"
    """What to do with longer rows: stop with an error, `drop` them, or `truncate` them at the end."""
    batch_size: PositiveInt = 8
    """Rows (packs, with `packing`) in a training batch."""
    eval_batch_size: PositiveInt = 32
    """Rows or questions in a validation batch."""
    packing: bool = False
    """Fill each row of a batch with several conversations, up to `max_length` tokens, that do not see each other."""
    answers: Literal["every", "last"] = "every"
    """Which answers of a row are trained on and measured; `last` for chat templates that rewrite earlier turns."""
    group_by_length: bool = True
    """Put rows of similar length into one batch, which saves padding."""
    seed: int = 0
    """Of splits and of the training order."""
    text: str | None = None
    """A file or a `datasets` name with unlabelled conversations by many writers, off the task, for identifications that run
    the base model (`NaturalDirections`)."""
    shuffle_answers: bool = False
    """Deal the training answers out at random over the rows: a noise floor, since answers do not depend on questions."""
    num_workers: NonNegativeInt = 0
    """Processes that prepare batches; 0 uses none."""
    suites: dict[str, EvaluationSuite] | None = None
    """More suites by name (`graspl.data.suites`). One with the name of the task's own suite replaces it."""
    final_suites: dict[str, EvaluationSuite] | None = None
    """The same, but a fit leaves them out: they are slow, or need files that a fit does not."""
    only_suites: list[str] | None = None
    """Names of the suites to evaluate; None evaluates all."""
    operators: list[RowOperator] | None = None
    """Applied to the training rows one after another (`graspl.data.operators`): mixing, subsampling, prompts."""
    share_prefixes: bool = True
    """Run the common beginning of a question's answers once, where that saves enough tokens. Turn it off for a model that
    keeps no keys and values."""

    def __post_init__(self) -> None:
        super().__init__()
        self._tokenizer: PreTrainedTokenizerBase | None = None
        self._train: list[TokenizedConversation] | None = None
        self._suites: dict[str, list[TokenizedConversation] | list[ChoiceItem]] | None = None
        self._questions: dict[str, list[Question]] = {}
        self._measured: dict[str, ModelSuite] = {}
        self._final = False
        self._sources_read: dict[str, None] = {}
        self._choices: ChoiceCollator | None = None

    # What a task says

    @abstractmethod
    def train_rows(self) -> Sequence[Conversation]:
        """Return the rows to train on."""

    @abstractmethod
    def held_out(self) -> Mapping[str, Items]:
        """Return the task's suites by name.

        `task` measures adherence (held-out rows of the task), `unrelated` spill-over (everything else).
        """

    def text_rows(self) -> Sequence[Conversation]:
        """Return unlabelled conversations by many writers, off the task; none unless `text` names them."""
        return [] if self.text is None else read_conversations(self.text)

    # What others ask it

    def base_model_name(self) -> str:
        """Return the base model's name: the option's, else that of the model that the Trainer runs.

        Raises:
            GrasplError: neither names one.
        """
        name = self.base_model or getattr(getattr(self.trainer, "lightning_module", None), "base_model", None)
        if name is None:
            raise GrasplError("data.base_model: is missing; name the model whose tokenizer the data need")
        return name

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The base model's tokenizer, with a chat template and a padding token."""
        if self._tokenizer is None:
            self._tokenizer = with_chat_template(load_tokenizer(self.base_model_name()))
        return self._tokenizer

    def train_conversations(self) -> list[TokenizedConversation]:
        """Return the tokenized training rows; none before `setup("fit")`."""
        return list(self._train or [])

    def text_conversations(self) -> list[TokenizedConversation]:
        """Return the unlabelled text, tokenized."""
        with files_read() as read:
            rows = self._weighed(self.text_rows())
        self._sources_read.update(read)
        return [tokenize(self.tokenizer, row.messages, origin=row.origin, tools=row.tools) for row in rows]

    def sources(self) -> list[str]:
        """Return the files and `datasets` names whose rows were read so far."""
        return list(self._sources_read)

    def suite_names(self) -> list[str]:
        """Return the names of the validation loaders, in their order; none before `setup`."""
        return list(self._suites or {})

    def questions(self) -> dict[str, list[Question]]:
        """Return the suites of questions to answer in the model's own words; no loader serves them."""
        return dict(self._questions)

    def model_suites(self) -> dict[str, ModelSuite]:
        """Return the suites that other programs measure; no loader serves them."""
        return dict(self._measured)

    def choice_items(self, suite: str) -> list[ChoiceItem]:
        """Return the items of a suite of choices, in order; a suite of text has none."""
        return [item for item in (self._suites or {}).get(suite, []) if isinstance(item, ChoiceItem)]

    # What Lightning calls

    def prepare_data(self) -> None:
        """Fill the cache of tokens in one process of a node, before the others need it."""
        if self.trainer is not None and self.trainer.world_size > 1 and self.trainer.state.fn == "fit":
            tokenize_rows(self.tokenizer, self.changed_rows())

    def setup(self, stage: str) -> None:
        """Read and tokenize what the stage needs, once.

        Raises:
            GrasplError: the data cannot be used; names the file, the row and the field.
        """
        with files_read() as read:
            if stage == "fit" and self._train is None:
                self._train = self._prepared(self.changed_rows())
            final = bool(self.final_suites) and stage != "fit"
            # A validation may follow a fit with the same object
            if self._suites is None or final > self._final:
                self._read_suites(final)
        self._sources_read.update(read)

    def train_dataloader(self) -> TrainLoader:
        """Return the training batches: `input_ids` and `labels` (b, L), with `attention_mask` or `position_ids`.

        Raises:
            GrasplError: there are fewer rows than processes.
        """
        assert self._train is not None, "setup('fit') comes first"
        return self.loader_of(self._train)

    def loader_of(self, conversations: Sequence[TokenizedConversation]) -> TrainLoader:
        """Return batches of these rows, drawn and made as those of the training rows are.

        Raises:
            GrasplError: there are fewer rows than processes.
        """
        rows: Sequence[Any] = conversations
        if self.packing:
            rows = pack(conversations, max_length=self.max_length, seed=self.seed)
        world, rank = (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)
        if len(rows) < world:
            raise GrasplError(f"data: {world} processes cannot share {len(rows)} rows; give more rows")
        # All packs are nearly full
        by_length = self.group_by_length and not self.packing
        lengths = [len(row) for row in rows] if by_length else [1] * len(rows)
        return TrainLoader(
            rows,
            TrainSampler(lengths, self.batch_size, num_replicas=world, rank=rank, seed=self.seed),
            batch_size=self.batch_size,
            collate_fn=PackedCollator(self._pad()) if self.packing else PaddedCollator(self._pad()),
            num_workers=self.num_workers,
            # Else the copy of every batch would wait for the GPU
            pin_memory=self.trainer is not None and self.trainer.strategy.root_device.type == "cuda",
        )

    def val_dataloader(self) -> list[DataLoader[Any]]:
        """Return one loader a suite, in the order of `suite_names()`; one with an empty batch where there is none."""
        assert self._suites is not None, "setup comes first"
        if (
            not self._suites
        ):  # Without a batch Lightning runs no validation, and nobody answers or measures the others
            return [DataLoader([{}], batch_size=None, generator=torch.Generator())]  # type: ignore[arg-type]
        return [self._suite_loader(name, self.share_prefixes) for name in self._suites]

    def whole_rows_loader(self, suite: str) -> DataLoader[Any]:
        """Return a suite's loader whose rows are whole even where `val_dataloader` shares prefixes."""
        return self._suite_loader(suite, share_prefixes=False)

    def changed_rows(self) -> Sequence[Conversation]:
        """Return the training rows after the operators and the shuffle."""
        rows = self.train_rows()
        for operator in self.operators or []:
            rows = operator(rows)
        rows = with_shuffled_answers(rows, self.seed) if self.shuffle_answers else rows
        return self._weighed(rows)

    def _weighed(self, rows: Sequence[Conversation]) -> Sequence[Conversation]:
        return [with_last_answer_alone(row) for row in rows] if self.answers == "last" else rows

    def _read_suites(self, final: bool) -> None:
        late = self.final_suites or {}
        given = (self.suites or {}) | (late if final else {})
        read = read_suites(self.held_out(), given, only=self.only_suites, unread=late)
        self._questions, self._measured, suites = {}, {}, {}
        for name, items in read.items():
            if isinstance(items[0], Question):
                self._questions[name] = list(items)  # type: ignore[arg-type]
            elif isinstance(items[0], ModelSuite):
                self._measured[name] = items[0]
            elif isinstance(items[0], ChoiceItem):
                suites[name] = [replace(item, place=place) for place, item in enumerate(items)]  # type: ignore[type-var]
            else:
                suites[name] = self._prepared(self._weighed(items))  # type: ignore[arg-type]
        self._suites, self._final = suites, final

    def _prepared(self, rows: Sequence[Conversation]) -> list[TokenizedConversation]:
        return prepare_rows(self.tokenizer, rows, max_length=self.max_length, too_long=self.too_long)

    def _suite_loader(self, name: str, share_prefixes: bool) -> DataLoader[Any]:
        assert self._suites is not None, "setup comes first"
        suite: Any = self._suites[name]
        collator: Any = PaddedCollator(self._pad())
        if isinstance(suite[0], ChoiceItem):
            self._choices = self._choices or ChoiceCollator(self.tokenizer)
            collator = self._choices.for_suite(suite, share_prefixes=share_prefixes)
        return DataLoader(
            suite,  # type: ignore[arg-type]
            batch_size=self.eval_batch_size,
            collate_fn=collator,
            num_workers=self.num_workers,
            # The loader would draw from the global generator, which dropout uses
            generator=torch.Generator(),
        )

    def _pad(self) -> int:
        return int(self.tokenizer.pad_token_id)  # type: ignore[arg-type]
