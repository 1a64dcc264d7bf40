"""Text that the base model writes itself: questions of the task's form on subjects of its own, and its answers."""

import logging
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch.distributed as dist

from graspl.adapters import adapter_off
from graspl.data.rows import Conversation, Message
from graspl.data.tokens import TokenizedConversation, render, tokenize
from graspl.errors import GrasplError, TooFewQuestionsError
from graspl.evaluation import Sampling, TransformersGenerator
from graspl.host import Host
from graspl.runs import RunFolder, write_json_lines_atomic
from graspl.runs.files import read_json_lines

log = logging.getLogger(__name__)
WORDS = 3  # Of a sentence of the task's, which the model goes on from
QUESTION, ANSWER = 28, 24  # Tokens at most
WARMTH = 0.8  # Temperature: at 1 a small model's questions fall apart
ROUNDS = 5  # Not every opening leads to a new sentence that ends; in the last round any line will do
FEWEST = 0.1  # Of the rows wanted: who asks the same few questions over and over cannot write questions
MARK = "=*=opening=*="  # Stands for an opening while the chat template is filled
SENTENCE = re.compile(r"(?<=[.?!])\s+|(?<=[\u3002\uff1f\uff01])|\n+")
END = re.compile(r"[.?!](?=\s|$)|[\u3002\uff1f\uff01]")


class OwnText:
    """What the base model writes for one fit: once, however many parts read it, the same in every process."""

    def __init__(self) -> None:
        self._count = 0
        self._rows: list[TokenizedConversation] = []

    def rows(self, host: Host, count: int) -> list[TokenizedConversation]:
        """Return the rows, tokenized, and keep them in the run's folder; every process must call it.

        A fit that goes on from a checkpoint reads what was written before its first step.

        Raises:
            TooFewQuestionsError: fewer than a tenth of them.
            GrasplError: another part asked for another number, or as for `own_conversations`.
        """
        if self._count not in (0, count):
            raise GrasplError(
                f"own_text: one part of the fit wants {self._count} rows, another one {count}; give both the same"
            )
        if not self._count:
            data = host.trainer.datamodule
            written = self._written(host, count) if host.global_step == 0 else _kept(host)
            self._rows = [tokenize(data.tokenizer, messages, origin="own text") for messages in written]
            self._count = count
        if len(self._rows) < FEWEST * count:
            wrote = f"only {len(self._rows)} different" if self._rows else "no"
            raise TooFewQuestionsError(
                f"own_text: the base model writes {wrote} questions like the task's; set it to 0 and give data.text"
            )
        return self._rows

    @staticmethod
    def _written(host: Host, count: int) -> list[list[Message]]:
        log.info(
            "own text: the base model writes %d questions and answers first; on a CPU that takes minutes",
            count,
        )
        rows = own_conversations(host, host.trainer.datamodule.train_rows(), count)
        if host.trainer.is_global_zero:
            write_json_lines_atomic(_file(host), ({"messages": row.messages} for row in rows))
        return [row.messages for row in rows]


def _file(host: Host) -> Path:
    return RunFolder(Path(host.trainer.default_root_dir)).own_text


def _kept(host: Host) -> list[list[Message]]:
    found: list[Any] = [read_json_lines(_file(host), "fit again") if host.trainer.is_global_zero else None]
    if dist.is_available() and dist.is_initialized():
        dist.broadcast_object_list(found)
    return [row["messages"] for row in found[0]]


def own_conversations(host: Host, rows: Sequence[Conversation], count: int) -> list[Conversation]:
    """Return up to `count` conversations that the base model writes, the same in every process; every process must call it.

    As the user, the model goes on from the first words of sentences of the task's questions; then it answers. So the
    questions have the task's form, while their subjects are the model's own (some are the task's too). No question comes
    twice, and none is the task's.

    Source:
        That a model can write the user's turn: Magpie (arXiv:2406.08464). The openings are our own.

    Args:
        host: the module that trains.
        rows: of the task.
        count: conversations wanted.

    Raises:
        GrasplError: FSDP1 shards the model, or no row has a question.
    """
    if host.is_flat_sharded:
        raise GrasplError(
            "own_text: a model that FSDP1 shards cannot write; use FSDP2 (ModelParallelStrategy), or set it to 0"
        )
    assert host.model is not None, "configure_model comes first"
    tokenizer, seed = host.trainer.datamodule.tokenizer, host.trainer.datamodule.seed
    generator, written = TransformersGenerator(host.model, tokenizer), _Distinct(rows)
    picked = random.Random(seed)
    asking = [row for row in rows if any(message["role"] == "user" for message in row.messages)]
    if not asking:
        raise GrasplError(
            "own_text: no training row has a user's turn to go on from; set it to 0 and give data.text"
        )
    with adapter_off(host.model), host.unedited():
        for turn in range(ROUNDS):
            if len(written) < count:
                openings = [opening(picked.choice(asking), picked) for _ in range(count - len(written))]
                written.add(_asked_and_answered(generator, openings, seed + turn, turn == ROUNDS - 1))
    if FEWEST * count <= len(written) < count:
        log.warning("own_text: the base model wrote %d different questions, not %d", len(written), count)
    agreed = [written.rows]
    if dist.is_available() and dist.is_initialized():
        dist.broadcast_object_list(agreed)
    return [Conversation(messages, f"own text {place}") for place, messages in enumerate(agreed[0], start=1)]


class _Distinct:
    """Rows whose questions differ from each other and from the task's, but for case and spaces."""

    def __init__(self, task: Sequence[Conversation]) -> None:
        self.rows: list[list[Message]] = []
        self._seen = {_bare(turn) for row in task for turn in row.messages if turn["role"] == "user"}

    def add(self, rows: Sequence[list[Message]]) -> None:
        for turns in rows:
            asked = _bare(turns[-2])
            if asked not in self._seen:
                self._seen.add(asked)
                self.rows.append(turns)

    def __len__(self) -> int:
        return len(self.rows)


def _bare(turn: Message) -> str:
    return " ".join(turn["content"].split()).casefold()


def opening(row: Conversation, picked: random.Random) -> list[Message]:
    """Return the turns before a row's first question, and the first words of one of that question's sentences.

    Of a short sentence, and of one in a script without spaces, it is the first third.
    """
    first = next(place for place, message in enumerate(row.messages) if message["role"] == "user")
    sentence = picked.choice(
        [each for each in SENTENCE.split(row.messages[first]["content"]) if each.strip()] or ["I"]
    )
    words = sentence.split()
    begun = " ".join(words[:WORDS]) if len(words) >= 2 * WORDS else sentence.strip()[: len(sentence) // 3 + 1]
    return [*row.messages[:first], Message(role="user", content=begun)]


def first_sentence(text: str, *, unfinished: bool = False) -> str | None:
    """Return the first line's text up to the end of its first sentence; where none ends, None or the `unfinished` line."""
    line = text.split("\n")[0]
    end = END.search(line)
    return line[: end.end()] if end else line if unfinished else None


def _asked_and_answered(
    generator: TransformersGenerator, openings: list[list[Message]], seed: int, unfinished: bool
) -> list[list[Message]]:
    """Let the model finish the openings, and answer those that became a sentence."""
    tokenizer = generator.tokenizer
    begun = [_upto_last_turn(tokenizer, turns) for turns in openings]
    rest = generator.write(
        begun,
        Sampling(temperature=WARMTH, max_new_tokens=QUESTION, batch_size=32, seed=seed),
        within_text=True,
    )
    asked: list[list[Message]] = []
    for turns, (text,) in zip(openings, rest, strict=True):
        content = first_sentence(turns[-1]["content"] + text, unfinished=unfinished)
        if content is not None and text.strip():
            asked.append([*turns[:-1], Message(role="user", content=content)])
    if not asked:
        return []
    prompts = [render(tokenizer, turns, origin="own text", prompt=True) for turns in asked]
    answers = generator.write(
        prompts, Sampling(temperature=WARMTH, max_new_tokens=ANSWER, batch_size=32, seed=seed)
    )
    lines: list[Any] = [text.strip().split("\n")[0] for (text,) in answers]
    return [
        [*turns, Message(role="assistant", content=line)]
        for turns, line in zip(asked, lines, strict=True)
        if line
    ]


def _upto_last_turn(tokenizer: Any, turns: list[Message]) -> str:
    """Return what the model sees up to the last turn's last word, so that it goes on with that turn."""
    # A short opening may also stand in what the template writes after a turn
    marked = [*turns[:-1], Message(role="user", content=MARK)]
    before, found, _ = render(tokenizer, marked, origin="own text").partition(MARK)
    if not found:
        raise GrasplError(
            "own_text: the chat template does not show a user's turn as it is; set it to 0 and give data.text"
        )
    return before + turns[-1]["content"]
