"""The run folder, and how files are written: whole or not at all.

This room may import `graspl.errors`. Start reading in `folder.py`: it is the only place that knows the file names.
"""

from graspl.runs.files import (
    atomic_path,
    claimed,
    read_json,
    write_json_atomic,
    write_json_lines_atomic,
    write_text_atomic,
)
from graspl.runs.folder import DirectionsFiles, RunFolder, adapter_of
from graspl.runs.lineage import Lineage

__all__ = [
    "DirectionsFiles", "Lineage", "RunFolder", "adapter_of", "atomic_path", "claimed", "read_json",
    "write_json_atomic", "write_json_lines_atomic", "write_text_atomic",
]  # fmt: skip
