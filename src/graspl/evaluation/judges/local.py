"""A Transformers model on this machine as the judging model."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import takewhile
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from graspl.adapters.base_model import load_base_model, load_tokenizer
from graspl.adapters.forward import CACHE
from graspl.data.rows import Message
from graspl.data.tokens import tokenize_candidates, with_chat_template
from graspl.data.turns import end_of_answer
from graspl.errors import GrasplError
from graspl.evaluation.judges.base import Backend, Reply


@dataclass
class LocalBackend(Backend):
    """Gives the exact probability of every reply that a rubric allows, however the tokenizer splits numbers.

    The model reads the prompt once; the replies, each with the end of the turn, follow it side by side.
    """

    model: str
    """Hub name or folder of a model that follows instructions."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of its weights."""
    device: str | None = None
    """Where it runs; None takes a GPU where there is one."""
    trust_remote_code: bool = False
    """Let the hub repository's own Python code run."""

    def __post_init__(self) -> None:
        self.device = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        self._asked = 0

    def replies(self, prompts: Sequence[list[Message]], options: Sequence[str]) -> list[Reply]:
        """Return each prompt's most probable option, with the probabilities of all."""
        found = []
        context = getattr(self._model.config, "max_position_embeddings", None)
        for prompt in prompts:
            self._asked += 1
            stem, rest = self._encoded(prompt, options)
            length = len(stem) + max(map(len, rest))
            if context is not None and length > context:
                found.append(Reply("", error=f"{length} tokens, but the model's context is {context}"))
                continue
            masses = dict(zip(options, map(math.exp, self._logprobs(stem, rest)), strict=True))
            found.append(Reply(max(masses, key=masses.__getitem__), masses))
        return found

    def usage(self) -> dict[str, Any]:
        """Return the number of prompts."""
        return {"asked": self._asked}

    @cached_property
    def _tokenizer(self) -> Any:
        return with_chat_template(load_tokenizer(self.model))

    @cached_property
    def _model(self) -> Any:
        model: Any = load_base_model(self.model, dtype=self.dtype, trust_remote_code=self.trust_remote_code)
        return model.to(self.device).eval()

    @torch.no_grad()
    def _logprobs(self, stem: list[int], answers: list[Tensor]) -> list[float]:
        """Return each answer's log-probability after the stem, in nats."""
        ids = pad_sequence(answers, batch_first=True, padding_value=-1).to(self.device)  # (options, m)
        first = self._model(torch.tensor([stem], device=self.device), use_cache=True)
        cache = first.past_key_values
        cache.batch_repeat_interleave(len(answers))
        rest = self._model(ids.clamp_min(0), use_cache=True, **{CACHE: cache}).logits
        # The prompt's last place predicts the first token, each token the next
        logits: Tensor = torch.cat([first.logits[:, -1:].expand(len(answers), -1, -1), rest[:, :-1]], 1)
        picked = logits.float().log_softmax(-1).gather(-1, ids.clamp_min(0)[..., None]).squeeze(-1)
        return (picked * (ids >= 0)).sum(-1).tolist()

    def _encoded(self, prompt: list[Message], options: Sequence[str]) -> tuple[list[int], list[Tensor]]:
        """Return the token ids that all options share, and those of each option, with the end of the turn."""
        pairs_of = partial(tokenize_candidates, self._tokenizer, candidates=options, origin="judge prompt")
        try:
            pairs = pairs_of(prompt)
        except GrasplError:
            # Some templates have no system role
            pairs = pairs_of([Message(role="user", content="\n\n".join(turn["content"] for turn in prompt))])
        # A token may reach from the prompt into the reply
        stems = [stem for stem, _ in pairs]
        shared = sum(1 for _ in takewhile(lambda ids: len(set(ids)) == 1, zip(*stems, strict=False)))
        end = end_of_answer(self._tokenizer).id
        return stems[0][:shared], [torch.tensor([*stem[shared:], *rest, end]) for stem, rest in pairs]
