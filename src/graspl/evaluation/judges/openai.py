"""Any OpenAI-compatible endpoint as the judging model: a hosted one, or vLLM on your own machine."""

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
from graspl.ranges import NonNegativeInt, PositiveFloat, PositiveInt

MAX_TOKENS = 8  # A number or a label


class OpenAIBackend(Backend):
    """Asks many prompts at a time, retries passing failures, and keeps every reply on disk as it comes.

    Args:
        model: as the endpoint names it.
        base_url: of the endpoint; OpenAI's where None.
        api_key_env: environment variable with the key; the key itself is never written anywhere.
        concurrency: requests at a time.
        max_retries: of a request that was refused for load (429), failed (5xx) or timed out, with growing pauses.
        timeout: seconds for a request.
        top_logprobs: how many probabilities to ask for; 0 where the endpoint gives none and the reply alone counts.
        seed: of the endpoint's sampling, where it has one.
        cache: file with the replies so far; None keeps none.
        price_in: price of a million prompt tokens, in any currency.
        price_out: price of a million reply tokens.
    """

    def __init__(
        self,
        model: str,
        base_url: str | None = None,
        api_key_env: str = "OPENAI_API_KEY",
        concurrency: PositiveInt = 16,
        max_retries: NonNegativeInt = 6,
        timeout: PositiveFloat = 60.0,
        top_logprobs: NonNegativeInt = 20,
        seed: int = 0,
        cache: Path | None = Path("judge_cache.sqlite"),
        price_in: float = 0.0,
        price_out: float = 0.0,
    ) -> None:
        self.model, self.base_url, self.api_key_env, self.cache = model, base_url, api_key_env, cache
        self.concurrency, self.max_retries, self.timeout = concurrency, max_retries, timeout
        self.price_in, self.price_out = price_in, price_out
        self.settings = {"model": model, "temperature": 0.0, "max_tokens": MAX_TOKENS, "seed": seed}
        if top_logprobs:
            self.settings |= {"logprobs": True, "top_logprobs": top_logprobs}
        self.name = base_url or "the endpoint"
        self._lock = threading.Lock()
        self._counts = {"asked": 0, "from_cache": 0, "failed": 0, "prompt_tokens": 0, "reply_tokens": 0}

    def replies(self, prompts: Sequence[Messages], options: Sequence[str]) -> list[Reply]:
        """Return one reply for each prompt; an error takes its place where all retries failed."""
        cache = ReplyCache(self.cache)
        try:
            asked = {"backend": "openai", "base_url": self.base_url, **self.settings}
            keys = [ReplyCache.key(messages=prompt, **asked) for prompt in prompts]
            known = {key: reply for key in set(keys) if (reply := cache.get(key)) is not None}
            self._counts["from_cache"] += sum(key in known for key in keys)
            missing = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if key not in known}
            found = known | self._asked(missing, cache)
        finally:
            cache.close()
        if missing and all("error" in found[key] for key in missing) and not known:
            reason = found[next(iter(missing))]["error"]
            raise GrasplError(f"judges: no reply from {self.name} ({reason}); check base_url and model")
        return [_reply(found[key]) for key in keys]

    def usage(self) -> dict[str, Any]:
        """Return requests, tokens and cost."""
        cost = self._counts["prompt_tokens"] * self.price_in + self._counts["reply_tokens"] * self.price_out
        return {**self._counts, "cost": cost / 1e6}

    def _asked(self, missing: dict[str, Messages], cache: ReplyCache) -> dict[str, dict[str, Any]]:
        """Return the replies to prompts that the cache lacks."""
        if not missing:
            return {}
        openai = _sdk()
        # Your own endpoint often needs no key, but the client does
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
                # Wait for the requests under way and keep their replies; begin no others
                pool.shutdown(wait=True, cancel_futures=True)
                raise

    def _one(self, client: Any, prompt: Messages, key: str, cache: ReplyCache) -> dict[str, Any]:
        openai = _sdk()
        try:
            reply = _kept(client.chat.completions.create(messages=prompt, **self.settings))
        except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as error:
            raise GrasplError(
                f"judges: {self.name} refuses ({_reason(error)}); check {self.api_key_env}, base_url and model"
            ) from error
        except (openai.APIError, ValueError) as error:
            with self._lock:
                self._counts["failed"] += 1
            return {"error": _reason(error)}
        cache.put(key, reply)
        with self._lock:
            for name in ("asked", "prompt_tokens", "reply_tokens"):
                self._counts[name] += reply.get(name, 1)
        return reply


def _sdk() -> Any:
    """Return the module `openai`, which is an extra."""
    try:
        import openai
    except ImportError as error:
        raise GrasplError("judges: openai is not installed; pip install 'graspl[judges]'") from error
    return openai


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _kept(completion: Any) -> dict[str, Any]:
    """Return what the cache keeps of a completion."""
    choices = getattr(completion, "choices", None)
    if not choices or getattr(choices[0], "message", None) is None:
        raise ValueError("the endpoint's answer has no choices")
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
    # Where numbers are written digit by digit, the first token says too little: only the reply counts
    numbers = [token for token in top if token.isdigit()]
    whole = not numbers or max(map(len, numbers)) > 1
    text = kept["text"].strip()
    split = text.isdigit() and (kept["first_token"] or text).strip() != text
    return Reply(text, {token: math.exp(p) for token, p in top.items()} if whole and not split else {})
