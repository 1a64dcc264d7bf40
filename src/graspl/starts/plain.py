"""The usual start of LoRA."""

from dataclasses import dataclass

from graspl.host import Host
from graspl.starts.base import Start


@dataclass
class PlainStart(Start):
    """A is random and B is zero, as PEFT makes them.

    Source:
        LoRA, arXiv:2106.09685. A random A that stays frozen is LoRA-FA, arXiv:2308.03303.
    """

    train_A: bool = True
    """Whether A is trained; False trains B alone."""

    def begin(self, host: Host) -> None:
        """Leave the factors as they are."""
