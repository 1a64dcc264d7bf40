"""Models and files on this machine: looked for before any hub is asked."""

from pathlib import Path

from graspl.errors import GrasplError

# Of files with rows, as graspl.data.tables reads them
ENDINGS = (".jsonl", ".json", ".yaml", ".yml", ".csv", ".tsv", ".txt", ".parquet", ".arrow")
PACKED = (".gz", ".bz2", ".xz")


def check_local_model(base_model: str) -> None:
    """Refuse a model's name that can only be a folder, and is none."""
    is_path = (
        base_model.startswith((".", "~", "/")) or Path(base_model).is_absolute() or base_model.count("/") > 1
    )
    if is_path and not Path(base_model).expanduser().is_dir():
        raise GrasplError(f"base_model: no folder {base_model}; give a folder or a hub name")


def check_rows_file(source: str) -> None:
    """Refuse a name that can only be a file of rows, and is none."""
    path = Path(source).expanduser()
    endings = [ending.lower() for ending in path.suffixes if ending.lower() not in PACKED]
    if endings and endings[-1] in ENDINGS and not path.exists():
        raise GrasplError(f"{source}: cannot be read (No such file or directory); give an existing file")
