"""Models and files on this machine: looked for before any hub is asked."""

from pathlib import Path

from graspl.errors import GrasplError

# Of files with rows, as graspl.data.tables reads them
ENDINGS = (".jsonl", ".json", ".yaml", ".yml", ".csv", ".tsv", ".txt", ".parquet", ".arrow")
PACKED = (".gz", ".bz2", ".xz")
GGUF = ".gguf"  # Ending of a llama.cpp model


def is_gguf(base_model: str) -> bool:
    """Whether a base model is a GGUF file on this machine."""
    return base_model.endswith(GGUF) and Path(base_model).expanduser().is_file()


def as_loaded(source: str) -> tuple[str, dict[str, str]]:
    """Return the folder or hub name, and the options, by which Transformers loads a model: of a GGUF file, its name."""
    if not is_gguf(source):
        return source, {}
    return str(Path(source).parent), {"gguf_file": Path(source).name}


def check_local_model(base_model: str) -> None:
    """Refuse a model's name that can only be a folder or a GGUF file, and is none."""
    if is_gguf(base_model):
        return
    if base_model.endswith(GGUF):
        raise GrasplError(
            f"base_model: there is no file {base_model}; give a GGUF file, a folder or a hub name"
        )
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
