"""Where an exported folder goes on to: the hub, and llama.cpp."""

import subprocess
import sys
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from graspl.errors import GrasplError, foreign, reason_of

CONVERTER = "convert_hf_to_gguf.py"  # Of llama.cpp
NO_ANSWER = "the hub cannot be reached, or refuses it"
RECORDS = ["lineage.json"]
"""Stay on this machine: they name its folders."""


def check_hub(repo: str) -> HfApi:
    """Return the hub's interface, with somebody logged in.

    Raises:
        GrasplError: the name is none that the hub allows, nobody is logged in, or the hub cannot be reached.
    """
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise GrasplError(
            f"push: {repo} is no name of a repository ({reason_of(error)}); give ORG/NAME"
        ) from error
    api = HfApi()
    with foreign("push", NO_ANSWER, "log in with: hf auth login"):
        api.whoami()
    return api


def push(api: HfApi, repo: str, folder: Path, *, private: bool) -> str:
    """Upload an exported folder, without its records, and return where it lies.

    Raises:
        GrasplError: the hub refuses it, or cannot be reached.
    """
    fix = f"the export is in {folder}; push it later with: hf upload {repo} {folder}"
    with foreign("push", NO_ANSWER, fix):
        api.create_repo(repo, private=private, exist_ok=True)
        told: Any = api.upload_folder(
            repo_id=repo, folder_path=folder, commit_message="Export by graspl", ignore_patterns=RECORDS
        )
    return str(told)


def find_converter(given: Path) -> Path:
    """Return llama.cpp's converter: the script, or that in the folder given.

    Raises:
        GrasplError: there is no such script.
    """
    script = given / CONVERTER if given.is_dir() else given
    if script.suffix != ".py" or not script.is_file():
        raise GrasplError(
            f"gguf: {given} is no {CONVERTER}; give the path of llama.cpp's script or of its folder"
        )
    return script


def write_gguf(converter: Path, folder: Path, target: Path) -> None:
    """Let llama.cpp's converter make a GGUF file of a merged model.

    Raises:
        GrasplError: it fails, or makes no GGUF file.
    """
    command = [sys.executable, str(converter.resolve()), str(folder), "--outfile", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode != 0:
        said = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()] or [
            "it said nothing"
        ]
        raise GrasplError(
            f"gguf: {converter} ended with {done.returncode} ({said[-1][:300]}); export without --gguf"
        )
    if not _is_gguf(target):
        raise GrasplError(f"gguf: {converter} wrote no GGUF file; give llama.cpp's {CONVERTER}")


def _is_gguf(file: Path) -> bool:
    if not file.is_file():
        return False
    with file.open("rb") as opened:
        return opened.read(4) == b"GGUF"
