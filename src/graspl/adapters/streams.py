"""The residual stream after each decoder layer: the one place where it is watched or changed."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

# Takes a layer's name and the stream after it, (b, L, hidden); returns what replaces it, or None to leave it.
StreamEdit = Callable[[str, Tensor], Tensor | None]


class StreamHooks:
    """Hooks behind decoder layers; use it as a context manager, or call `remove`."""

    def __init__(self, handles: list[RemovableHandle]) -> None:
        self._handles = handles

    def remove(self) -> None:
        """Leave the model as it was."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def __enter__(self) -> "StreamHooks":
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


def edit_streams(layers: Mapping[str, nn.Module], edit: StreamEdit) -> StreamHooks:
    """Call `edit` on the residual stream after each layer, with its graph, in every pass until the hooks are removed."""

    def hook(name: str) -> Any:
        def changed(_module: nn.Module, _inputs: Any, output: Any) -> Any:
            # Some families of Transformers return a tuple or a list, with the stream first
            several = isinstance(output, tuple | list)
            stream = edit(name, output[0] if several else output)
            if stream is None:
                return None
            return type(output)([stream, *output[1:]]) if several else stream

        return changed

    return StreamHooks([layer.register_forward_hook(hook(name)) for name, layer in layers.items()])
