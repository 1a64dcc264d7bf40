"""Rows of training data for the terminal: figures, lengths, and text with the trained tokens marked."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.padding import Padding
from rich.table import Column, Table
from rich.text import Text

from graspl.data.rows import printable

OPEN, CLOSE = "{+", "+}"  # Around trained text where there are no colours
TRAINED = "bold green"
BAR = 40  # Characters of the longest bar of a histogram
SHOWN = 700  # Characters of a row; the middle of a longer one is left out


@dataclass(frozen=True)
class MarkedRow:
    """Text whose trained pieces are coloured, or stand between marks on a console without colours."""

    pieces: Sequence[Mapping[str, Any]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        """Yield the text as the console can show it."""
        coloured = has_colours(console)
        text = Text()
        for each in shortened(self.pieces):
            shown = "\\n\n".join(map(printable, each["text"].split("\n")))
            marked = each["trained"] and not coloured
            text.append(OPEN + shown + CLOSE if marked else shown, TRAINED if each["trained"] else "")
        yield Padding(text, (0, 0, 1, 2), expand=False)


@dataclass(frozen=True)
class Legend:
    """Says how trained tokens look on a console."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        """Yield the line."""
        if has_colours(console):
            yield Text.assemble(
                "The loss sees the ", ("tokens in this colour", TRAINED), ", and no others.\n"
            )
        else:
            yield Text(f"The loss sees the tokens between {OPEN} and {CLOSE}, and no others.\n")


def has_colours(console: Console) -> bool:
    """Return whether a console shows colours: it is a terminal, and NO_COLOR is not set."""
    return console.color_system is not None and not console.no_color


def shortened(pieces: Sequence[Mapping[str, Any]], limit: int = SHOWN) -> list[Mapping[str, Any]]:
    """Return pieces of text with so many characters, those in the middle of the row left out."""
    over = sum(len(each["text"]) for each in pieces) - limit
    if over <= 0:
        return list(pieces)
    kept, place, first, last = [], 0, limit // 2, limit // 2 + over
    for each in pieces:
        text, start = each["text"], place
        place += len(text)
        before, behind = text[: max(0, first - start)], text[max(0, last - start) :]
        gap = f" [... {over} characters left out ...] " if start < first <= place else ""
        middle = [{"text": gap, "trained": False}] if gap else []
        both = ({"text": before, "trained": each["trained"]}, {"text": behind, "trained": each["trained"]})
        kept += [part for part in (both[0], *middle, both[1]) if part["text"]]
    return kept


def data_parts(found: Mapping[str, Any]) -> list[Any]:
    """Return the tables and texts that show what `graspl.data.look.look_at` found."""
    rows = []
    for each in found["examples"]:
        rows.append(f"{printable(each['origin'])}: {each['tokens']} tokens, {each['trained']} trained")
        rows.append(MarkedRow(each["pieces"]))
    return [_facts(found), _lengths(found["histogram"]), "", *([Legend()] if rows else []), *rows]


def _facts(found: Mapping[str, Any]) -> Table:
    table = Table(Column(no_wrap=True), Column(overflow="fold"), box=None, show_header=False)
    for name, told in _lines(found):
        table.add_row(name, Text(printable(told)))
    return table


def _lines(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    rows, tokens, end = found["rows"], found["tokens"], found["end_of_answer"]
    yield "rows", f"{rows['trained']:,} to train on; {rows['held_out']:,} held out of {rows['read']:,}"
    if rows["changed_by_operators"]:
        yield "operators", f"change the number of training rows by {rows['changed_by_operators']:+,}"
    for form, count in found["formats"].items():
        yield "format", f"{count:,} rows with {form}"
    for name, count in found["unread_fields"].items():
        yield "not read", f"the field {name} of {count:,} rows"
    for each in found["left_out"]:
        more = ", ..." if each["rows"] > len(each["first"]) else ""
        yield "left out", f"{each['rows']:,} rows ({', '.join(each['first'])}{more}): {each['why']}"
    yield "tokens", f"{tokens['all']:,}, of which {tokens['trained']:,} are trained"
    sizes = (f"{tokens[name]:g}" for name in ("shortest_row", "median_row", "longest_row"))
    yield (
        "row",
        "shortest {}, median {}, longest {} tokens".format(*sizes) + f"; max_length {found['max_length']}",
    )
    yield "answer ends", f"with {end['token']} (id {end['id']}): {end['from']}"
    yield "chat template", _template(found["chat_template"])


def _template(template: Mapping[str, Any]) -> str:
    if template["invented"]:
        return "invented by graspl, since the model has none: `User: ...`, `Assistant: ...`"
    named = f" ({', '.join(template['names'])})" if template["names"] else ""
    return f"from {template['from']}{named}"


def _lengths(bins: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(Column("tokens", justify="right"), Column("rows", justify="right"), "", box=None)
    most = max(each["rows"] for each in bins)
    for each in bins:
        table.add_row(
            _span(each["from"], each["to"]), f"{each['rows']:,}", "#" * -(-each["rows"] * BAR // most)
        )
    return table


def _span(low: int, high: int | None) -> str:
    if high is None:
        return f"over {low - 1}"
    return f"{low}-{high}" if high > low else str(low)
