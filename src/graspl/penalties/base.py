"""What every penalty offers."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import Tensor

from graspl.errors import GrasplError
from graspl.host import Host


class Penalty(ABC):
    """Adds weight * term to the mean cross-entropy of the answers.

    CONTRIBUTING.md says how to add one.
    """

    weight: float
    """Of the term; 0 trains without it, bit for bit."""
    needs_directions: ClassVar[bool] = False
    """Whether it reads `host.directions_in_use`."""
    flat_shards: ClassVar[bool] = True
    """Whether it works under FSDP1, which frees a layer's weights after one backward pass."""

    def __post_init__(self) -> None:
        if self.weight < 0:
            raise GrasplError(f"{type(self).__name__}.weight: {self.weight} is below 0; give 0 or more")

    def begin(self, host: Host) -> None:  # noqa: B027 - most penalties need no preparation
        """Prepare, when training starts: the model is on its device and the directions are known."""

    @abstractmethod
    def term(self, host: Host, batch: dict[str, Any], logits: Tensor) -> Tensor:
        """Return the term, (), in nats an answer token or any unit that `weight` turns into that.

        `host` is the module that trains. `logits`, (n, vocabulary), predict the n answer tokens of the batch, row after row,
        with their graph.
        """

    def end(self) -> None:  # noqa: B027
        """Leave the model as it was before `begin`."""
