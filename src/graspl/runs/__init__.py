"""The run folder, and how files are written: whole or not at all.

This room may import `graspl.errors`. Start reading in `folder.py`: it is the only place that knows the file names.
"""

from graspl.runs.digests import Digester
from graspl.runs.facts import RunFacts
from graspl.runs.files import (
    atomic_path,
    claimed,
    read_json,
    remove_left_over,
    write_json_atomic,
    write_json_lines_atomic,
    write_text_atomic,
)
from graspl.runs.folder import DirectionsFiles, RunFolder, adapter_of
from graspl.runs.given import Given, given, running
from graspl.runs.lineage import Lineage
from graspl.runs.yaml_text import parse_yaml

__all__ = [
    "Digester", "DirectionsFiles", "Given", "Lineage", "RunFacts", "RunFolder", "adapter_of", "atomic_path", "claimed",
    "given", "parse_yaml", "read_json", "remove_left_over", "running", "write_json_atomic", "write_json_lines_atomic",
    "write_text_atomic",
]  # fmt: skip
