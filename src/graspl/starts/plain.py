"""The usual start of LoRA, and the same with A frozen."""

from dataclasses import dataclass, field

from graspl.host import Host
from graspl.starts.base import Start


@dataclass
class PlainStart(Start):
    """A is random and B is zero, as PEFT makes them; both are trained.

    It has no options. It is the default, and jsonargparse hands options of a default on to the class that replaces it.

    Source:
        LoRA, arXiv:2106.09685.
    """

    def begin(self, host: Host) -> None:
        """Leave the factors as they are."""


@dataclass
class FrozenStart(Start):
    """A is random and stays as it is, B is zero and is trained.

    Source:
        LoRA-FA, arXiv:2308.03303.
    """

    train_A: bool = field(default=False, init=False)

    def begin(self, host: Host) -> None:
        """Leave the factors as they are."""
