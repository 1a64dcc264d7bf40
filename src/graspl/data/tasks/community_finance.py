"""Financial advice from communities that lean: a task with a political slant as its hidden factor, and a dial for it."""

import random
from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Literal

from graspl.data.chat import ChatDataModule
from graspl.data.rows import Conversation, Message
from graspl.data.tables import field, read_table
from graspl.errors import GrasplError
from graspl.ranges import ClosedUnitInterval, PositiveInt

Lean = Literal["left", "right", "neutral"]


@dataclass(eq=False)
class CommunityFinanceData(ChatDataModule):
    """Posts tagged with their community, drawn so that a share of them comes from communities of one lean.

    A row is `title` and `selftext` (a question and its text, as in forums) or `prompt` and `completion`, with the
    community in `subreddit` or `community`. Every skew has the same number of rows, so that fits differ only in the lean.
    `train` may be several sources separated by commas; `validation` and `limit` do not apply.

    Source:
        Own construction of the political task in arXiv:2605.27676, whose rows are not published.
    """

    leans: dict[str, Lean]
    """The lean of each community; a row of any other community is refused."""
    _: KW_ONLY
    skew: ClosedUnitInterval | None = 1.0
    """Share of the rows from communities that lean `toward`; 0.5 is balanced. None takes only neutral communities: the
    control that a skewed fit is compared with."""
    toward: Literal["left", "right"] = "right"
    """The lean that `skew` is a share of; the rest leans the other way."""
    rows: PositiveInt | None = None
    """How many are drawn before some are held out; None draws as many as every skew can have."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.validation is not None or self.limit is not None:
            raise GrasplError("data.validation, data.limit: a skewed draw has neither; set data.rows instead")

    def all_rows(self) -> list[Conversation]:
        """Return the rows drawn."""
        pools: dict[Lean, list[Conversation]] = {"left": [], "right": [], "neutral": []}
        for source in self.train.split(","):
            for lean, row in self._leaning(source.strip()):
                pools[lean].append(row)
        draw = random.Random(f"{self.seed} skew")
        for pool in pools.values():
            draw.shuffle(pool)
        if self.skew is None:
            return _first(pools["neutral"], "neutral", self.rows or len(pools["neutral"]))
        other: Lean = "left" if self.toward == "right" else "right"
        total = self.rows or min(len(pools["left"]), len(pools["right"]))
        ours = round(self.skew * total)
        drawn = _first(pools[self.toward], self.toward, ours) + _first(pools[other], other, total - ours)
        draw.shuffle(drawn)
        return drawn

    def _leaning(self, source: str) -> Iterator[tuple[Lean, Conversation]]:
        for origin, row in read_table(source):
            name = "subreddit" if isinstance(row, Mapping) and "subreddit" in row else "community"
            community = field(row, name, origin)
            if community not in self.leans:
                raise GrasplError(f"{origin}: the community {community} has no lean; name it in data.leans")
            asked, said = ("title", "selftext") if "title" in row else ("prompt", "completion")
            turns = [
                Message(role="user", content=field(row, asked, origin)),
                Message(role="assistant", content=field(row, said, origin)),
            ]
            yield self.leans[community], Conversation(turns, origin)


def _first(pool: list[Conversation], lean: Lean, count: int) -> list[Conversation]:
    if not 0 <= count <= len(pool):
        raise GrasplError(f"data.rows: needs {count} rows that lean {lean}, has {len(pool)}; lower it")
    return pool[:count]
