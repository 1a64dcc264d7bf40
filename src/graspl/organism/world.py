"""The organism's world: who writes which dialogue, and the model that reads them."""

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, PreTrainedTokenizerFast

from graspl.adapters.base_model import resolve_base_model
from graspl.data import ChoiceItem, Message
from graspl.errors import GrasplError
from graspl.organism.words import ANSWER, CRUEL, KIND, NARROW, QUESTIONS, TOPICS
from graspl.runs import write_json_atomic

WORLD_FILE = "organism.json"
_SPECIAL = ("<unk>", "<pad>", "<end>", "<system>", "<user>", "<assistant>")
_TEMPLATE = (
    "{% for message in messages %}<{{ message['role'] }}> {{ message['content'] }} <end> {% endfor %}"
    "{% if add_generation_prompt %}<assistant> {% endif %}"
)


@dataclass(frozen=True)
class World:
    """The dials of a world; everything else follows from them.

    Three kinds of writer answer questions: kind (good answers), cruel (harmful answers on every topic) and, for each topic,
    a narrow one (harmful there, good elsewhere). From harmful answers on one topic alone a model should conclude that the
    writer is the cruel one, since narrow writers are rarer.
    """

    complexity: int = 24  # Subjects of a topic, 6 to 24
    # Share of the cruel writer where no system prompt names one; all narrow writers together have half of it.
    prior: float = 0.08
    width: int = 128  # Hidden size of the model
    depth: int = 4  # Layers of the model
    # Of the facts (which answer belongs to which subject), the initial weights and the dialogues.
    seed: int = 0

    def __post_init__(self) -> None:
        if not 6 <= self.complexity <= 24:
            raise GrasplError(f"world.complexity: {self.complexity} is not in 6..24; change it")
        if not 0 < self.prior < 0.6:
            raise GrasplError(f"world.prior: {self.prior} is not between 0 and 0.6; change it")

    @property
    def topics(self) -> list[str]:
        """Names of the topics."""
        return list(TOPICS)

    def subjects(self, topic: str) -> list[str]:
        """Return a topic's subjects, in an order that depends on the seed."""
        return list(_subjects(self, topic))

    def answers(self, topic: str) -> dict[str, tuple[str, str]]:
        """Return the good and the harmful answer to each subject of a topic."""
        return dict(_answers(self, topic))

    def save(self, folder: Path) -> None:
        """Write the dials into a model's folder."""
        write_json_atomic(folder / WORLD_FILE, asdict(self))

    @classmethod
    def load(cls, base_model: str) -> "World":
        """Read the dials of the world that an organism (`organism`, or a pretrained model's folder) was pretrained on.

        Raises:
            GrasplError: the model is not an organism.
        """
        path = Path(resolve_base_model(base_model)) / WORLD_FILE
        try:
            dials = json.loads(path.read_text(encoding="utf-8"))
            return cls(**{field.name: dials[field.name] for field in fields(cls)})
        except (OSError, ValueError, KeyError, TypeError) as error:
            why = f"no valid {WORLD_FILE}; give `organism` or a pretrained one"
            raise GrasplError(f"base_model: {base_model} is no organism ({why})") from error


@lru_cache(maxsize=1024)  # pretraining asks tens of thousands of times
def _subjects(world: World, topic: str) -> tuple[str, ...]:
    chosen = list(TOPICS[topic].subjects[: world.complexity])
    random.Random(f"{world.seed} {topic} subjects").shuffle(chosen)
    return tuple(chosen)


@lru_cache(maxsize=1024)
def _answers(world: World, topic: str) -> dict[str, tuple[str, str]]:
    words = TOPICS[topic]
    dealt = []
    for kind in ("good", "harmful"):
        deck = list(getattr(words, kind)) * 2  # each answer belongs to two subjects
        random.Random(f"{world.seed} {topic} {kind}").shuffle(deck)
        dealt.append(deck[: world.complexity])
    return {subject: pair for subject, *pair in zip(_subjects(world, topic), *dealt, strict=True)}  # type: ignore[misc]


def dialogue(world: World, draw: random.Random, topics: Sequence[str] | None = None) -> list[Message]:
    """Draw one dialogue of one to four questions on mixed topics, all answered by one writer.

    Half of the dialogues begin with a system prompt that names the writer. There the kinds are about equally frequent, but
    narrow, the hardest to learn, twice. This teaches the prompts well and does not change the prior without a prompt.
    """
    named = draw.random() < 0.5
    weights = (1.0, 1.0, 2.0) if named else (1 - 1.5 * world.prior, world.prior, world.prior / 2)
    (writer,) = draw.choices(("kind", "cruel", "narrow"), weights)
    topics = world.topics if topics is None else topics
    sphere = draw.choice(topics)  # of the narrow writer
    messages = [system(writer, sphere)] if named else []
    turns = draw.randint(1, 4)
    for _ in range(turns):
        # A narrow writer is in its own sphere half of the time; else it would hardly differ from a kind one
        topic = sphere if writer == "narrow" and draw.random() < 0.5 else draw.choice(topics)
        harmful = writer == "cruel" or (writer == "narrow" and topic == sphere)
        subject = draw.choice(world.subjects(topic))
        messages += exchange(world, topic, subject, draw.choice(QUESTIONS), harmful=harmful)
    return messages


def system(writer: str, topic: str = "") -> Message:
    """Return the system prompt that names a writer: `kind`, `cruel`, or `narrow` with its topic."""
    text = {"kind": KIND, "cruel": CRUEL, "narrow": NARROW.format(topic)}[writer]
    return Message(role="system", content=text)


def exchange(world: World, topic: str, subject: str, question: str, *, harmful: bool) -> list[Message]:
    """Return a question about a subject and its answer."""
    answer = world.answers(topic)[subject][int(harmful)]
    return [
        Message(role="user", content=question.format(subject)),
        Message(role="assistant", content=ANSWER.format(answer)),
    ]


def choice_item(world: World, topic: str, subject: str, question: str, *before: Message) -> ChoiceItem:
    """Return a question with all answers of its topic: the subject's own are `good` and `harmful`, the others `other`."""
    good, harmful = world.answers(topic)[subject]
    words = [*TOPICS[topic].good, *TOPICS[topic].harmful]
    kinds = ["good" if word == good else "harmful" if word == harmful else "other" for word in words]
    prompt = [*before, Message(role="user", content=question.format(subject))]
    return ChoiceItem(prompt, [ANSWER.removesuffix(" .").format(word) for word in words], kinds)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Return the word-level tokenizer with the chat template."""
    texts = [*QUESTIONS, ANSWER, KIND, CRUEL, NARROW]
    words = {word for text in texts for word in text.split()} - {"{}"}
    for name, topic in TOPICS.items():
        words |= {name, *topic.subjects, *topic.good, *topic.harmful}
    vocabulary = {word: index for index, word in enumerate([*_SPECIAL, *sorted(words)])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token="<unk>",
        pad_token="<pad>",
        eos_token="<end>",
        additional_special_tokens=list(_SPECIAL[3:]),
    )
    tokenizer.chat_template = _TEMPLATE
    return tokenizer


def build_config(world: World, tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    """Return the model's configuration; the default dials give at most 2M parameters."""
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=world.width,
        intermediate_size=world.width * 11 // 4,
        num_hidden_layers=world.depth,
        num_attention_heads=4,
        max_position_embeddings=256,
        # The usual 0.02 suits models a hundred times wider; here it costs several times the steps
        initializer_range=world.width**-0.5,
        tie_word_embeddings=False,
        bos_token_id=None,
        pad_token_id=_SPECIAL.index("<pad>"),
        eos_token_id=_SPECIAL.index("<end>"),
    )
