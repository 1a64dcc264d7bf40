"""What `graspl identify` and `graspl audit` need for the assumption report."""

from typing import Any

from graspl.activations.streams import tokenized
from graspl.adapters.base_model import load_tokenizer
from graspl.adapters.files import AdapterFolder
from graspl.adapters.residual import writers_by_layer
from graspl.data.tokens import with_chat_template


def writes_everywhere(adapter: AdapterFolder) -> bool:
    """Whether every layer has a site that writes to the residual stream; the report needs that."""
    written = writers_by_layer(adapter.sites)
    return bool(written) and all(written.values())


def conversations(base_model: str, **sources: str | None) -> dict[str, Any]:
    """Return the sources that are given, tokenized for the base model."""
    given = {name: source for name, source in sources.items() if source}
    if not given:
        return {}
    tokenizer = with_chat_template(load_tokenizer(base_model))
    return {name: tokenized(source, tokenizer, limit=256, max_length=1024) for name, source in given.items()}
