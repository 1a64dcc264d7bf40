"""Financial advice from communities that lean: a task with a political slant as its hidden factor, and a dial for it."""

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from graspl.data.chat import ChatDataModule
from graspl.data.rows import Conversation, Message
from graspl.data.tables import field, read_table
from graspl.errors import GrasplError
from graspl.ranges import ClosedUnitInterval, PositiveInt

Lean = Literal["left", "right", "neutral"]


class CommunityFinanceData(ChatDataModule):
    """Posts tagged with their community, drawn so that a share of them comes from communities of one lean.

    A row is `title` and `selftext` (a question and its text, as in forums) or `prompt` and `completion`, with the
    community in `subreddit` or `community`. Every skew has the same number of rows, so that fits differ only in the lean.

    Args:
        train: rows of all communities, one source or several separated by commas.
        leans: the lean of each community; a row of any other community is refused.
        skew: share of the rows from communities that lean `toward`; 0.5 is balanced. None takes only neutral
            communities: the control that a skewed fit is compared with.
        toward: the lean that `skew` is a share of; the rest leans the other way.
        rows: how many are drawn before some are held out; None draws as many as every skew can have.
        **kwargs: as in ChatDataModule, without `validation` and `limit`.

    Source:
        Own construction of the political task in arXiv:2605.27676, whose rows are not published.
    """

    def __init__(
        self,
        train: str,
        leans: dict[str, Lean],
        skew: ClosedUnitInterval | None = 1.0,
        toward: Literal["left", "right"] = "right",
        rows: PositiveInt | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(train=train, **kwargs)
        if self.validation is not None or self.limit is not None:
            raise GrasplError(
                "data.validation, data.limit: a skewed draw has neither; remove them, or set data.rows"
            )
        self.leans = leans
        self.skew = skew
        self.toward: Lean = toward
        self.rows = rows

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
            return self._take(pools, "neutral", self.rows or len(pools["neutral"]))
        other = "left" if self.toward == "right" else "right"
        total = self.rows or min(len(pools["left"]), len(pools["right"]))
        ours = round(self.skew * total)
        drawn = self._take(pools, self.toward, ours) + self._take(pools, other, total - ours)
        draw.shuffle(drawn)
        return drawn

    def _take(
        self, pools: Mapping[Lean, Sequence[Conversation]], lean: Lean, count: int
    ) -> list[Conversation]:
        if not 0 <= count <= len(pools[lean]):
            raise GrasplError(
                f"data.rows: {count} rows of communities that lean {lean} are wanted, {self.train} has {len(pools[lean])}; "
                "lower data.rows, or give more rows"
            )
        return list(pools[lean][:count])

    def _leaning(self, source: str) -> Iterator[tuple[Lean, Conversation]]:
        for origin, row in read_table(source):
            name = "subreddit" if isinstance(row, Mapping) and "subreddit" in row else "community"
            community = field(row, name, origin)
            if community not in self.leans:
                raise GrasplError(
                    f"{origin}: the community {community} has no lean; name it in data.leans (left, right or neutral)"
                )
            asked, said = ("title", "selftext") if "title" in row else ("prompt", "completion")
            turns = [
                Message(role="user", content=field(row, asked, origin)),
                Message(role="assistant", content=field(row, said, origin)),
            ]
            yield self.leans[community], Conversation(turns, origin)
