"""Rows of any file or `datasets` name, each with the place that it came from."""

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from graspl.errors import GrasplError

Row = tuple[str, Any]  # Where a row came from (`file:line` or `name[row]`), and the row
LISTS = ("rows", "data", "samples")  # Names under which a JSON or YAML mapping holds its rows


def read_table(source: str, *, split: str = "train") -> Iterator[Row]:
    """Yield the rows of a file or of a `datasets` name.

    Args:
        source: JSON lines (`.jsonl`, or a file without suffix), `.json` or `.yaml` (a list, or a mapping with one
            under rows, data or samples), `.csv` and `.tsv` with a header, `.txt` (a row a line), `.parquet`; any
            other is a name that `datasets.load_dataset` knows.
        split: of a `datasets` name.

    Yields:
        (origin, row): a mapping, except for `.txt` (text) and lists of something else in JSON or YAML.

    Raises:
        GrasplError: the file is missing or broken; names the file and the line.
    """
    path = Path(source).expanduser()
    reader = _READERS.get(path.suffix.lower())
    if path.suffix == "" and path.is_file():
        reader = _json_lines
    if reader is None:
        yield from _datasets_rows(source, path, split)
        return
    try:
        yield from reader(path)
    except UnicodeDecodeError as error:
        raise GrasplError(f"{path}: is not UTF-8 text ({error.reason}); save it as UTF-8") from error
    except OSError as error:
        raise GrasplError(f"{path}: cannot be read ({error.strerror}); give an existing file") from error


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
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise GrasplError(f"{origin}: not JSON ({error}); correct or remove the row") from error


def _json(path: Path) -> Iterator[Row]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":  # JSON lines under another name
            yield from _json_lines(path)
            return
        raise GrasplError(f"{path}:{error.lineno}: not JSON ({error.msg}); correct the file") from error
    yield from _listed(content, path)


def _yaml(path: Path) -> Iterator[Row]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        problem = getattr(error, "problem", error)
        raise GrasplError(f"{where}: not YAML ({problem}); correct the file") from error
    yield from _listed(content, path)


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
    with path.open(encoding="utf-8-sig", newline="") as file:
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
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
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


def _datasets_rows(source: str, path: Path, split: str) -> Iterator[Row]:
    import datasets
    from datasets.exceptions import DatasetsError

    is_parquet = path.suffix == ".parquet"
    if is_parquet and not path.is_file():
        raise GrasplError(f"{path}: cannot be read (No such file); give an existing file")
    # `name` or `name:configuration`, as a hub's page names them
    name, _, configuration = source.partition(":")
    try:
        if is_parquet:
            table = datasets.load_dataset("parquet", data_files=str(path), split="train")
        else:
            table = datasets.load_dataset(name, configuration or None, split=split)
    except (OSError, ValueError, ConnectionError, DatasetsError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise GrasplError(f"{source}: neither a file nor a dataset that loads ({reason})") from error
    for index, row in enumerate(table):
        # A table gives every row all columns; those that a row did not have are None
        yield f"{source}[{index}]", {key: cell for key, cell in dict(row).items() if cell is not None}
