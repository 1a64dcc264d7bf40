"""From an adapter folder to a directions file."""

from pathlib import Path

from graspl import __version__
from graspl.adapters.files import read_adapter
from graspl.directions.basis import Directions
from graspl.directions.from_weights import Identification
from graspl.runs import atomic_path


def identify_adapter(adapter: Path, method: Identification, out: Path) -> Directions:
    """Find the directions of an adapter on disk, and write them with where they came from.

    Args:
        adapter: PEFT folder, ours or foreign.
        method: how they are found.
        out: file to write, `.safetensors`.

    Raises:
        GrasplError: the adapter cannot be used, or the file not be written.
    """
    folder = read_adapter(adapter)
    found = method(folder)
    origin = {
        "base_model": folder.base_model,
        "adapter": str(adapter),
        "adapter_sha256": folder.sha256,
        "graspl": __version__,
    }
    directions = Directions(found.sites, {**found.metadata, **origin}, found.layers)
    with atomic_path(out) as scratch:
        directions.save(scratch)
    return directions
