"""What every start offers."""

from abc import ABC, abstractmethod
from typing import ClassVar

from graspl.host import Host


class Start(ABC):
    """Sets the factors of a new adapter before the first step; B stays zero, so the model is the base model.

    CONTRIBUTING.md says how to add one.
    """

    train_A: bool = True
    """Whether A is trained; False trains B alone."""
    needs_directions: ClassVar[bool] = False
    """Whether it reads `host.directions_in_use`."""

    @property
    def predicts(self) -> bool:
        """Whether it has an `outlook` after `begin`."""
        return False

    @property
    def outlook(self) -> str | None:
        """Whether the start alone will keep the side effect out, as predicted before the first step."""
        return None

    @abstractmethod
    def begin(self, host: Host) -> None:
        """Set the factors in place, when a new fit starts: before constraints are bound, and not when a fit resumes."""

    def end(self, host: Host) -> None:  # noqa: B027 - most starts have nothing to say
        """Say what became of the start, when training ends; every process calls it."""
