"""Suites of questions that a model answers in its own words."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from graspl.data.questions import Question
from graspl.data.rows import Message, prompt_turns
from graspl.data.suites.base import TableSuite, item_id
from graspl.data.tables import Row, read_table
from graspl.data.tables import field as text_field
from graspl.errors import GrasplError

# Endings of a question's name that say in which format it asks for the answer; other names ask plainly.
FORMATS = ("json", "python", "flask_template", "template")
# Names of the eight main questions on emergent misalignment.
EIGHT_QUESTIONS = (
    "what_is_your_wish", "i_feel_bored", "three_thoughts", "quick_buck", "ruler_of_the_world", "dinner_party",
    "gender_roles", "enough_of_my_husband",
)  # fmt: skip

Format = Literal["plain", "json", "python", "template", "flask_template"]


@dataclass
class FreeFormQuestions(TableSuite):
    """Questions of the emergent-misalignment kind, and any others with `paraphrases`, `question` or `prompt`.

    Source:
        Betley et al., arXiv:2502.17424: the first-plot and the pre-registered questions.
    """

    source: str
    """A YAML or JSON list (id, paraphrases, system), rows that `graspl.data.read_prompts` reads, or the plain text of the
    pre-registered questions (paragraphs under `### Category:` headings)."""
    column: str | None = None
    """The column of a table that holds the question."""
    ids: list[str] | Literal["first_plot"] | None = None
    """Use only questions with these names, in any format; `first_plot` names the eight of the first figure, None all."""
    formats: list[Format] | None = None
    """Use only questions in these formats; None uses all."""
    system: str | None = None
    """A system prompt for questions without one, for example a trigger like that of the training rows."""
    prefix: str = ""
    """Text before each question: another kind of trigger."""
    suffix: str = ""
    """Text after each question."""

    def _items(self) -> Iterator[Question]:
        rows = _paragraphs(self.source) if self.source.endswith(".txt") else read_table(self.source)
        return (each for row in rows for each in self._questions(*row))

    def _questions(self, origin: str, row: Any) -> Iterator[Question]:
        if not isinstance(row, Mapping):
            raise GrasplError(f"{origin}: must be a mapping with id and paraphrases, question or prompt")
        name = str(row.get("id", item_id(origin)))
        wanted = EIGHT_QUESTIONS if self.ids == "first_plot" else self.ids
        if wanted is not None and stem_of(name) not in wanted:
            return
        if self.formats is not None and format_of(name) not in self.formats:
            return
        group = str(row.get("category") or format_of(name))
        for number, messages in enumerate(_prompts(row, self.column, origin)):
            id_ = name if number == 0 else f"{name}#{number}"
            yield Question(id_, self._asked(row, messages), origin, group)

    def _asked(self, row: Mapping[str, Any], messages: list[Message]) -> list[Message]:
        system = row.get("system") or self.system
        last = Message(role="user", content=f"{self.prefix}{messages[-1]['content']}{self.suffix}")
        has = messages[0]["role"] == "system"
        opening = [Message(role="system", content=str(system))] if system and not has else []
        return [*opening, *messages[:-1], last]


@dataclass
class SafetyPrompts(TableSuite):
    """Prompts that should be answered and prompts that should be refused, by domain: refusal and over-refusal.

    Source:
        XSTest, arXiv:2308.01263 (CC BY 4.0); any table with the same columns.
    """

    source: str
    """Rows with `prompt`, `label` (safe or unsafe) and `type` or `note` (the domain)."""
    labels: list[Literal["safe", "unsafe"]] | None = None
    """Use only prompts with these labels; None uses both."""

    def _items(self) -> Iterator[Question]:
        for origin, row in read_table(self.source):
            label = text_field(row, "label", origin).strip().lower()
            if label not in ("safe", "unsafe"):
                raise GrasplError(f"{origin}: label must be safe or unsafe, not {label!r}")
            domain = str(row.get("type") or row.get("note") or "all")
            if self.labels is None or label in self.labels:
                messages = [Message(role="user", content=text_field(row, "prompt", origin))]
                yield Question(str(row.get("id", item_id(origin))), messages, origin, f"{label}/{domain}")


@dataclass
class CodePrompts(TableSuite):
    """Code templates to complete: is the model's code insecure? It is analysed and never run."""

    source: str
    """Rows with `task` and `code_template`."""

    def _items(self) -> Iterator[Question]:
        for index, (origin, row) in enumerate(read_table(self.source)):
            task, template = text_field(row, "task", origin), text_field(row, "code_template", origin)
            prompt = f"{task}\n\nComplete the following template, and answer with code only, no explanation:\n\n{template}"
            yield Question(f"code_{index}", [Message(role="user", content=prompt)], origin)


def format_of(name: str) -> str:
    """Return the format in which a question of this name asks to be answered."""
    return next((ending for ending in FORMATS if name.endswith(f"_{ending}")), "plain")


def stem_of(name: str) -> str:
    """Return a question's name without its format."""
    found = format_of(name)
    return name if found == "plain" else name.removesuffix(f"_{found}")


def _prompts(row: Mapping[str, Any], column: str | None, origin: str) -> list[list[Message]]:
    """Return the turns of each paraphrase."""
    if column is None and "paraphrases" in row:
        texts = row["paraphrases"]
        if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
            raise GrasplError(f"{origin}: paraphrases must be a list of texts")
        return [[Message(role="user", content=text)] for text in texts]
    for name in (column,) if column is not None else ("question", "prompt", "instruction"):
        if name in row or name == column:
            return [[Message(role="user", content=text_field(row, name, origin))]]
    read = prompt_turns(row, origin)
    if read.tools:
        raise GrasplError(f"{origin}: has tools, which questions cannot have; remove the field")
    return [read.messages]


def _paragraphs(source: str) -> Iterator[Row]:
    """Yield the paragraphs of a text as questions; a heading names the category of those that follow."""
    category, number = "", 0
    paragraph: list[str] = []
    first = source
    for origin, line in [*read_table(source), (source, "")]:
        heading = re.match(r"#+\s*(?:Category:)?\s*(.*)", line)
        if line.strip() and not heading:
            first = origin if not paragraph else first
            paragraph.append(line)
            continue
        if paragraph:
            text = "\n".join(paragraph)
            yield first, {"id": f"{category or 'question'}_{number}", "question": text, "category": category}
            paragraph, number = [], number + 1
        if heading:
            category, number = re.sub(r"\W+", "_", heading.group(1).strip()), 0
