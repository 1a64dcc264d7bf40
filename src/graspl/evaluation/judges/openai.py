"""Any OpenAI-compatible endpoint as the judging model: a hosted one, or vLLM on one's own machine."""

import math
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from graspl.errors import GrasplError
from graspl.evaluation.judges.base import Backend, Messages, Reply
from graspl.evaluation.judges.cache import ReplyCache

MAX_TOKENS = 8
"""A number or a label."""


class OpenAIBackend(Backend):
    """Asks many prompts at a time, retries what failed in passing, and keeps every reply on disk as it comes.

    Args:
        model: as the endpoint names it.
        base_url: of the endpoint; OpenAI's where None.
        api_key_env: environment variable that holds the key; the key itself is never written anywhere.
        concurrency: requests at a time.
        max_retries: of a request that was refused for load (429), failed (5xx) or timed out, with growing pauses.
        timeout: seconds for a request.
        top_logprobs: probabilities asked for; 0 where the endpoint gives none, then the reply alone counts.
        seed: of the endpoint's sampling, where it has one.
        cache: file with the replies so far; None keeps none.
        price_in: price of a million prompt tokens, in any currency.
        price_out: of a million reply tokens.
    """

    def __init__(
        self,
        model: str,
        base_url: str | None = None,
        api_key_env: str = "OPENAI_API_KEY",
        concurrency: int = 16,
        max_retries: int = 6,
        timeout: float = 60.0,
        top_logprobs: int = 20,
        seed: int = 0,
        cache: Path | None = Path("judge_cache.sqlite"),
        price_in: float = 0.0,
        price_out: float = 0.0,
    ) -> None:
        if concurrency < 1:
            raise GrasplError(f"judges: OpenAIBackend.concurrency: {concurrency} is below 1")
        self.model = model
        self.base_url = base_url
        self.api_key_env = api_key_env
        self.concurrency = concurrency
        self.max_retries = max_retries
        self.timeout = timeout
        self.top_logprobs = top_logprobs
        self.seed = seed
        self.cache = cache
        self.price_in = price_in
        self.price_out = price_out
        self._lock = threading.Lock()
        self._counts = {"asked": 0, "from_cache": 0, "failed": 0, "prompt_tokens": 0, "reply_tokens": 0}

    def replies(self, prompts: Sequence[Messages], options: Sequence[str]) -> list[Reply]:
        """Return one reply a prompt; what could not be had after all retries is an error in its place."""
        cache = ReplyCache(self.cache)
        try:
            keys = [self._key(prompt) for prompt in prompts]
            known = {key: reply for key in set(keys) if (reply := cache.get(key)) is not None}
            self._counts["from_cache"] += sum(key in known for key in keys)
            missing = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if key not in known}
            found = known | self._asked(missing, cache)
        finally:
            cache.close()
        if missing and all("error" in found[key] for key in missing) and not known:
            reason = found[next(iter(missing))]["error"]
            raise GrasplError(f"judges: no reply from {self._name} ({reason}); check base_url and model")
        return [_reply(found[key]) for key in keys]

    def usage(self) -> dict[str, Any]:
        """Return requests, tokens and cost."""
        cost = self._counts["prompt_tokens"] * self.price_in + self._counts["reply_tokens"] * self.price_out
        return {**self._counts, "cost": cost / 1e6}

    @property
    def _name(self) -> str:
        return self.base_url or "the endpoint"

    def _asked(self, missing: dict[str, Messages], cache: ReplyCache) -> dict[str, dict[str, Any]]:
        """Return the replies to prompts that are not in the cache yet."""
        if not missing:
            return {}
        openai = _sdk()
        # An endpoint of one's own often wants no key, but the client wants one
        client = openai.OpenAI(
            base_url=self.base_url,
            api_key=os.environ.get(self.api_key_env) or "none",
            max_retries=self.max_retries,
            timeout=self.timeout,
        )
        with client, ThreadPoolExecutor(self.concurrency) as pool:
            futures = {
                pool.submit(self._one, client, prompt, key, cache): key for key, prompt in missing.items()
            }
            try:
                return {futures[done]: done.result() for done in as_completed(futures)}
            except BaseException:
                # What is under way is waited for and kept, the rest is not begun
                pool.shutdown(wait=True, cancel_futures=True)
                raise

    def _one(self, client: Any, prompt: Messages, key: str, cache: ReplyCache) -> dict[str, Any]:
        openai = _sdk()
        try:
            reply = _kept(client.chat.completions.create(messages=prompt, **self._settings))
        except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as error:
            raise GrasplError(
                f"judges: {self._name} refuses ({_reason(error)}); check {self.api_key_env}, base_url and model"
            ) from error
        except (openai.APIError, ValueError) as error:
            with self._lock:
                self._counts["failed"] += 1
            return {"error": _reason(error)}
        cache.put(key, reply)
        with self._lock:
            for name, count in (("asked", 1), *((n, reply[n]) for n in ("prompt_tokens", "reply_tokens"))):
                self._counts[name] += count
        return reply

    @property
    def _settings(self) -> dict[str, Any]:
        settings = {"model": self.model, "temperature": 0.0, "max_tokens": MAX_TOKENS, "seed": self.seed}
        if self.top_logprobs:
            settings |= {"logprobs": True, "top_logprobs": self.top_logprobs}
        return settings

    def _key(self, prompt: Messages) -> str:
        return ReplyCache.key(backend="openai", base_url=self.base_url, messages=prompt, **self._settings)


def _sdk() -> Any:
    """Return the module `openai`.

    Raises:
        GrasplError: it is not installed.
    """
    try:
        import openai
    except ImportError as error:
        raise GrasplError(
            "judges: the package openai is not installed; pip install 'graspl[judges]'"
        ) from error
    return openai


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _kept(completion: Any) -> dict[str, Any]:
    """Return what is kept of a completion.

    Raises:
        ValueError: it is not one.
    """
    choices = getattr(completion, "choices", None)
    if not choices or getattr(choices[0], "message", None) is None:
        raise ValueError("the endpoint's answer holds no choices")
    content = getattr(choices[0].logprobs, "content", None) or []
    top = {each.token: each.logprob for each in content[0].top_logprobs or []} if content else {}
    usage = completion.usage
    return {
        "text": choices[0].message.content or "",
        "first_token": content[0].token if content else None,
        "top": top,
        "prompt_tokens": usage.prompt_tokens if usage else 0,
        "reply_tokens": usage.completion_tokens if usage else 0,
    }


def _reply(kept: dict[str, Any]) -> Reply:
    if "error" in kept:
        return Reply("", error=kept["error"])
    top = {token.strip(): logprob for token, logprob in kept["top"].items() if token.strip()}
    # Where numbers are written digit by digit, the first token says nothing yet: only the reply counts
    whole = any(token.isdigit() and len(token) > 1 for token in top) or not any(
        token.isdigit() for token in top
    )
    text = kept["text"].strip()
    split = text.isdigit() and (kept["first_token"] or text).strip() != text
    return Reply(text, {token: math.exp(p) for token, p in top.items()} if whole and not split else {})
