"""Rows of any file or `datasets` name, each with the place that it came from."""

import csv
import json
import lzma
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from graspl.data.unpacked import UNPACKED_BY, opened
from graspl.errors import GrasplError, foreign, reason_of
from graspl.runs import parse_yaml

Row = tuple[str, Any]  # Where a row came from (`file:line` or `name[row]`), and the row
LARGEST_CELL = 2**24  # Characters of a cell in a CSV file
LONGEST_ROW = 2**26  # Characters of a line in a file of lines
LARGEST_WHOLE = 2**28  # Characters of a `.json` or `.yaml` file
LISTS = ("rows", "data", "samples")  # Names under which a JSON or YAML mapping holds its rows


_reading: ContextVar[dict[str, None] | None] = ContextVar("files that are being read", default=None)


@contextmanager
def files_read() -> Iterator[dict[str, None]]:
    """Collect the files whose rows are read within the block, in order, for the record of what a result was made from."""
    found: dict[str, None] = {}
    token = _reading.set(found)
    try:
        yield found
    finally:
        _reading.reset(token)
        outer = _reading.get()
        if outer is not None:
            outer.update(found)


def note_read(source: str) -> None:
    """Count a file or a `datasets` name that another program reads among those of `files_read`."""
    reading = _reading.get()
    if reading is not None:
        reading[source] = None


def read_table(source: str, *, split: str = "train") -> Iterator[Row]:
    """Yield the rows of a file or of a `datasets` name.

    Args:
        source: JSON lines (`.jsonl`, or a file without suffix), `.json` or `.yaml` (a list, or a mapping with one
            under rows, data or samples), `.csv` and `.tsv` with a header, `.txt` (a row a line), each also
            compressed (`.gz`, `.bz2`, `.xz`); `.parquet` and `.arrow`. Anything that is no file is a name that
            `datasets.load_dataset` knows.
        split: of a `datasets` name.

    Yields:
        (origin, row): a mapping, except for `.txt` (text) and lists of something else in JSON or YAML.

    Raises:
        GrasplError: the file is missing or broken; names the file and the line.
    """
    path = Path(source).expanduser()
    reading = _reading.get()
    if reading is not None:
        reading[source] = None
    endings = [ending.lower() for ending in path.suffixes]
    kind = "".join(endings[-2:-1] if endings and endings[-1] in UNPACKED_BY else endings[-1:])
    reader = _READERS.get(kind)
    _check_no_pipe(path)
    if kind == "" and path.is_file():
        reader = _json_lines
    if reader is None:
        if path.is_file() and kind not in TABLES:
            known = ", ".join([*_READERS, *TABLES])
            raise GrasplError(f"{path}: is of no kind that graspl reads; name it by its kind: {known}")
        yield from _datasets_rows(source, path, kind, split)
        return
    try:
        yield from reader(path)
    except UnicodeDecodeError as error:
        raise GrasplError(f"{path}: is not UTF-8 text ({error.reason}); save it as UTF-8") from error
    except (EOFError, zlib.error, lzma.LZMAError) as error:
        raise GrasplError(f"{path}: cannot be unpacked ({error}); copy it again") from error
    except OSError as error:
        raise GrasplError(
            f"{path}: cannot be read ({error.strerror or error}); give an existing file"
        ) from error


def _check_no_pipe(path: Path) -> None:
    """Refuse what would be waited for."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise GrasplError(f"{path}: is no file but a pipe or a device; give a file")


def field(row: Any, name: str, origin: str) -> str:
    """Return a text field of a row."""
    if not isinstance(row, Mapping):
        raise GrasplError(f"{origin}: must be a mapping with the field {name}")
    if not isinstance(row.get(name), str):
        problem = "must be text" if name in row else f"is missing; the row has {sorted(map(str, row))}"
        raise GrasplError(f"{origin}: {name} {problem}; correct or remove the row")
    return row[name]


def _json_lines(path: Path) -> Iterator[Row]:
    """Read lines here, not with `datasets`, which forgets a row's line."""
    for origin, line in _text(path):
        if line.strip():
            yield origin, _parse(line, origin)


def _parse(line: str, origin: str) -> Any:
    try:
        return json.loads(line, object_pairs_hook=_once_each)
    except (ValueError, RecursionError) as error:
        raise GrasplError(f"{origin}: not JSON ({reason_of(error)}); correct or remove the row") from error


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object; of a key that stands there twice, all values but one would be lost."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} stands there twice")
    return found


def _json(path: Path) -> Iterator[Row]:
    with opened(path) as file:
        text = file.read(LARGEST_WHOLE + 1)
    _check_size(text, path)
    try:
        content = json.loads(text, object_pairs_hook=_once_each)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":  # JSON lines under another name
            yield from _json_lines(path)
            return
        raise GrasplError(f"{path}:{error.lineno}: not JSON ({error.msg}); correct the file") from error
    except (ValueError, RecursionError) as error:
        raise GrasplError(f"{path}: not JSON ({reason_of(error)}); correct the file") from error
    yield from _listed(content, path)


def _yaml(path: Path) -> Iterator[Row]:
    with opened(path) as file:
        text = file.read(LARGEST_WHOLE + 1)
    _check_size(text, path)
    try:
        content = parse_yaml(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        problem = getattr(error, "problem", error)
        raise GrasplError(f"{where}: not YAML ({problem}); correct the file") from error
    except (
        ValueError,
        TypeError,
        OverflowError,
        RecursionError,
    ) as error:  # A date that does not exist, for one
        raise GrasplError(f"{path}: not YAML ({reason_of(error)}); correct the file") from error
    yield from _listed(content, path)


def _check_size(text: str, path: Path) -> None:
    """Refuse a file that is parsed as a whole, for which parsers take many times its size."""
    if len(text) > LARGEST_WHOLE:
        raise GrasplError(
            f"{path}: has more than {LARGEST_WHOLE} characters, which are not read as a whole; save it as JSON lines"
        )


def _listed(content: Any, path: Path) -> Iterator[Row]:
    """Yield the rows of a list; of a mapping, the rows of the list in it, each with the other fields, or the mapping."""
    rest: dict[str, Any] = {}
    if isinstance(content, Mapping):
        name = next((name for name in LISTS if isinstance(content.get(name), list)), None)
        rest = {key: value for key, value in content.items() if key != name} if name else {}
        content = content[name] if name else [content]
    if not isinstance(content, list):
        raise GrasplError(f"{path}: must hold a list of rows, alone or under {' or '.join(LISTS)}")
    for index, row in enumerate(content):
        yield f"{path}[{index}]", {**rest, **row} if isinstance(row, Mapping) else row


def _separated(path: Path, *, delimiter: str, quoting: Any) -> Iterator[Row]:
    with opened(path, newline="") as file:
        csv.field_size_limit(LARGEST_CELL)
        reader = csv.reader(file, delimiter=delimiter, quoting=quoting, strict=True)
        try:
            header = next(reader, None)
            if header is None:
                raise GrasplError(f"{path}: is empty; give a header and rows")
            for cells in filter(None, reader):
                origin = f"{path}:{reader.line_num}"
                if len(cells) != len(header):
                    raise GrasplError(f"{origin}: has {len(cells)} cells, the header {len(header)}")
                yield origin, dict(zip(header, cells, strict=True))
        except csv.Error as error:
            raise GrasplError(f"{path}:{reader.line_num}: {error}; correct the row") from error


def _text(path: Path) -> Iterator[Row]:
    with opened(path) as file:
        # Piece by piece, so that a file without line breaks does not fill the memory
        for number, line in enumerate(iter(lambda: file.readline(LONGEST_ROW + 1), ""), start=1):
            if len(line) > LONGEST_ROW:
                raise GrasplError(
                    f"{path}:{number}: has more than {LONGEST_ROW} characters; correct or remove the row"
                )
            yield f"{path}:{number}", line.rstrip("\n")


_READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".jsonl": _json_lines,
    ".json": _json,
    ".yaml": _yaml,
    ".yml": _yaml,
    ".csv": partial(_separated, delimiter=",", quoting=csv.QUOTE_MINIMAL),
    # Quotes in published tab-separated files are quotes of the text
    ".tsv": partial(_separated, delimiter="\t", quoting=csv.QUOTE_NONE),
    ".txt": _text,
}


TABLES = {".parquet": "parquet", ".arrow": "arrow"}  # By ending, the builders of `datasets` that read them


def _datasets_rows(source: str, path: Path, kind: str, split: str) -> Iterator[Row]:
    import datasets
    from datasets.exceptions import DatasetsError

    builder = TABLES.get(kind)
    if builder and not path.is_file():
        raise GrasplError(f"{path}: cannot be read (No such file); give an existing file")
    # `name` or `name:configuration`, as a hub's page names them
    name, _, configuration = source.partition(":")
    if builder:
        with foreign(path, f"not readable as {builder}", "save it again"):
            try:
                table = datasets.load_dataset(builder, data_files=str(path), split="train")
            except DatasetsError as error:  # Which does not say why
                raise error.__cause__ or error from None
    else:
        with foreign(source, "neither a file nor a dataset that loads", "give a file or a name of the hub"):
            table = datasets.load_dataset(name, configuration or None, split=split)
    for index, row in enumerate(table):
        # A table gives every row all columns; those that a row did not have are None
        yield f"{source}[{index}]", {key: cell for key, cell in dict(row).items() if cell is not None}
