"""Any OpenAI-compatible endpoint as the judging model: a hosted one, or vLLM on your own machine."""

import math
import os
import re
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from graspl.data.rows import Message
from graspl.errors import GrasplError
from graspl.evaluation.judges.base import Backend, Reply
from graspl.evaluation.judges.cache import ReplyCache
from graspl.ranges import NonNegativeInt, PositiveFloat, PositiveInt

EMPTY = "the reply is empty"
ROUNDING = 1e-3  # What a log-probability may be above zero


@dataclass
class OpenAIBackend(Backend):
    """Asks many prompts at a time, retries passing failures, and keeps every reply on disk as it comes."""

    model: str
    """As the endpoint names it."""
    base_url: str | None = None
    """Of the endpoint; OpenAI's where None."""
    api_key_env: str = "OPENAI_API_KEY"
    """Environment variable with the key; the key itself is never written anywhere."""
    concurrency: PositiveInt = 16
    """Requests at a time."""
    max_retries: NonNegativeInt = 6
    """Of a request that was refused for load (429), failed (5xx) or timed out, with growing pauses."""
    timeout: PositiveFloat = 60.0
    """Seconds for a request."""
    top_logprobs: NonNegativeInt = 20
    """How many probabilities to ask for; 0 where the endpoint gives none and the reply alone counts."""
    max_tokens: PositiveInt = 8
    """Of a reply: enough for a number or a label. A model that reasons first needs thousands."""
    tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """How the endpoint names that limit; models that reason take `max_completion_tokens` alone."""
    temperature: float | None = 0.0
    """Of the replies; None leaves it to an endpoint that refuses it."""
    seed: int | None = 0
    """Of the endpoint's sampling; None where it refuses one."""
    cache: Path | None = Path("judge_cache.sqlite")
    """File with the replies so far; None keeps none."""
    price_in: float = 0.0
    """Price of a million prompt tokens, in any currency."""
    price_out: float = 0.0
    """Price of a million reply tokens."""

    def __post_init__(self) -> None:
        self.settings: dict[str, Any] = {"model": self.model, self.tokens_field: self.max_tokens}
        given = {"temperature": self.temperature, "seed": self.seed}
        self.settings |= {name: value for name, value in given.items() if value is not None}
        if self.top_logprobs:
            self.settings |= {"logprobs": True, "top_logprobs": self.top_logprobs}
        # As the client finds it, so that the cache knows which endpoint a reply is of
        self._url = self.base_url or os.environ.get("OPENAI_BASE_URL") or "https://api.openai.com/v1"
        self.name = hidden(self._url)
        self._counts = Counter(asked=0, from_cache=0, failed=0, prompt_tokens=0, reply_tokens=0)

    def replies(self, prompts: Sequence[list[Message]], options: Sequence[str]) -> list[Reply]:
        """Return one reply for each prompt; an error takes its place where all retries failed."""
        with closing(ReplyCache(self.cache)) as cache:
            asked = {"backend": "openai", "base_url": self._url, **self.settings}
            keys = [ReplyCache.key(messages=prompt, **asked) for prompt in prompts]
            kept = {key: cache.get(key) for key in set(keys)}
            known = {key: reply for key, reply in kept.items() if reply is not None and is_whole(reply)}
            missing = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if key not in known}
            new = self._asked(missing, cache) if missing else {}
        self._counts["from_cache"] += sum(key in known for key in keys)
        for reply in new.values():
            self._counts["failed" if "error" in reply else "asked"] += 1
            self._counts.update({name: reply.get(name, 0) for name in ("prompt_tokens", "reply_tokens")})
        if new and not known and all("error" in reply for reply in new.values()):
            reason = new[keys[0]]["error"]
            raise GrasplError(f"judges: no reply from {self.name} ({reason}); {_advice(reason)}")
        found = known | new
        return [_reply(found[key]) for key in keys]

    def usage(self) -> dict[str, Any]:
        """Return requests, tokens and cost."""
        cost = self._counts["prompt_tokens"] * self.price_in + self._counts["reply_tokens"] * self.price_out
        return {**self._counts, "cost": cost / 1e6}

    def _asked(self, missing: dict[str, list[Message]], cache: ReplyCache) -> dict[str, dict[str, Any]]:
        """Return the replies to prompts that the cache lacks, each of them kept at once."""
        try:
            import openai
        except ImportError as error:
            raise GrasplError("judges: openai is not installed; pip install 'graspl[judges]'") from error
        # Your own endpoint often needs no key, but the client does
        api_key = os.environ.get(self.api_key_env) or "none"
        client = openai.OpenAI(
            base_url=self._url, api_key=api_key, max_retries=self.max_retries, timeout=self.timeout
        )
        with client, ThreadPoolExecutor(self.concurrency) as pool:
            futures = {pool.submit(self._one, client, missing[key], key, cache): key for key in missing}
            try:
                return {futures[done]: done.result() for done in as_completed(futures)}
            except BaseException:
                # Wait for the requests under way and keep their replies; begin no others
                pool.shutdown(wait=True, cancel_futures=True)
                raise

    def _one(self, client: Any, prompt: list[Message], key: str, cache: ReplyCache) -> dict[str, Any]:
        import openai

        try:
            reply = _kept(client.chat.completions.create(messages=prompt, **self.settings))
        except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as error:
            advice = f"check {self.api_key_env}, base_url and model"
            # Without its cause, which may repeat the request's headers
            raise GrasplError(f"judges: {self.name} refuses ({self._reason(error)}); {advice}") from None
        except (openai.APIError, ValueError) as error:
            return {"error": self._reason(error)}
        cache.put(key, reply)
        return reply

    def _reason(self, error: Exception) -> str:
        """Return an error's first line without keys, which endpoints may repeat."""
        line = (str(error).splitlines() or [type(error).__name__])[0]
        return hidden(line, os.environ.get(self.api_key_env))[:200]


def hidden(text: str, key: str | None = None) -> str:
    """Return a text without a key, bearer tokens, and names and passwords in addresses."""
    for secret in filter(None, (key,)):
        text = text.replace(secret, "***")
    text = re.sub(r"(?i)(bearer|basic)\s+[^\s'\"]+", r"\1 ***", text)
    return re.sub(r"//[^/@\s]+@", "//***@", text)


# What an error says of an option, and what to do about it
ADVICE = {
    "max_completion_tokens": "set tokens_field to max_completion_tokens",
    "max_tokens": "set tokens_field to max_completion_tokens, or another max_tokens",
    "logprobs": "lower top_logprobs, or set it to 0",
    "temperature": "set temperature to null",
    "seed": "set seed to null",
    EMPTY: "a model that reasons first needs a larger max_tokens",
}


def _advice(reason: str) -> str:
    """Return the option to change, as far as the reason tells it."""
    return next((advice for word, advice in ADVICE.items() if word in reason), "check base_url and model")


def _kept(completion: Any) -> dict[str, Any]:
    """Return what the cache keeps of a completion.

    Raises:
        ValueError: the completion is empty or malformed, which is no reply.
    """
    choices = getattr(completion, "choices", None)
    if not choices or getattr(choices[0], "message", None) is None:
        raise ValueError("the endpoint's answer has no choices")
    content = getattr(choices[0].logprobs, "content", None) or []
    top = {each.token: each.logprob for each in content[0].top_logprobs or []} if content else {}
    usage = completion.usage
    kept = {
        "text": choices[0].message.content or "",
        "first_token": content[0].token if content else None,
        "top": top,
        "prompt_tokens": usage.prompt_tokens if usage else 0,
        "reply_tokens": usage.completion_tokens if usage else 0,
    }
    if isinstance(kept["text"], str) and not kept["text"].strip():
        raise ValueError(EMPTY)
    if not is_whole(kept):
        raise ValueError("the endpoint's answer is malformed")
    return kept


def is_whole(kept: Any) -> bool:
    """Whether a reply is one that can be read: a text, and log-probabilities that are no more than zero."""
    if not isinstance(kept, dict) or not isinstance(kept.get("text"), str) or not kept["text"].strip():
        return False
    top = kept.get("top")
    return (
        isinstance(top, dict)
        and "first_token" in kept
        and isinstance(kept.get("first_token"), str | None)
        # Endpoints round: a sure token may come out a little above zero, and an impossible one at -inf or -9999
        and all(
            isinstance(p, int | float) and not isinstance(p, bool) and p <= ROUNDING for p in top.values()
        )
        and all(isinstance(kept.get(name), int) for name in ("prompt_tokens", "reply_tokens"))
    )


def _reply(kept: dict[str, Any]) -> Reply:
    if "error" in kept:
        return Reply("", error=kept["error"])
    top = {token.strip(): logprob for token, logprob in kept["top"].items() if token.strip()}
    # Where numbers are written digit by digit, the first token says too little: only the reply counts
    numbers = [token for token in top if token.isdigit()]
    whole = not numbers or max(map(len, numbers)) > 1
    text = kept["text"].strip()
    split = text.isdigit() and (kept["first_token"] or text).strip() != text
    return Reply(text, {token: math.exp(p) for token, p in top.items()} if whole and not split else {})
