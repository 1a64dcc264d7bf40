"""The parts of a fit: their names, and whether each has what it needs before anything is computed."""

from typing import Any

from graspl.directions.basis import Directions
from graspl.errors import GrasplError
from graspl.methods.state import refuse_flat_shards
from graspl.transforms.subtract import Subtract

KINDS = ("constraints", "penalties", "edits", "transforms")


def parts_of(module: Any) -> dict[str, list[str]]:
    """Return the class names of a module's parts by kind; a naive fit has none.

    Constraints that are held only where the start's prediction asks for them have a kind of their own; the folder says
    whether they were.
    """
    found = {kind: [type(each).__name__ for each in getattr(module, kind, [])] for kind in KINDS}
    start = type(module.start).__name__
    found["start"] = [start] if start != "PlainStart" else []
    if getattr(module, "constrain", "always") != "always":
        found["constraints_in_doubt"] = found.pop("constraints")
    return {kind: names for kind, names in found.items() if names}


def held_k(module: Any) -> list[int]:
    """Return how many directions each part holds, where it says so: constraints, edits in training, and subtractions."""
    acting = [
        *getattr(module, "constraints", []),
        *(each for each in module.edits if each.during != "inference"),
    ]
    acting += [each.constraint for each in module.transforms if isinstance(each, Subtract)]
    return [each.k for each in acting if each.k is not None]


def check_parts(module: Any, stage: str) -> None:
    """Read the directions file, and refuse a part that would have no effect or lacks the directions that it acts along.

    Raises:
        GrasplError: says which part, and what to change.
    """
    if module.is_flat_sharded:
        refuse_flat_shards(module)
    if isinstance(module.directions, str):
        module.directions_in_use = Directions.load(module.directions)
        module.directions_in_use.require_base_model(module.base_model)
        for edit in module.edits:
            edit.check(module.directions_in_use)
    if stage == "fit":
        _check_fit(module)
        return
    odd = next((each for each in module.edits if each.during != "training"), None)
    if odd is not None and module.directions_in_use is None:
        fix = "run graspl identify"
        raise GrasplError(f"model.directions: {type(odd).__name__} needs a file in validation; {fix}")


def _check_fit(module: Any) -> None:
    """Check that parts which act along directions have some, and that directions which must be found have a use."""
    others = [*module.penalties, *module.transforms, module.start]
    if getattr(module, "constrain", "always") != "always":
        _check_asked(module, [*module.edits, *(each for each in others if each.needs_directions)])
    acting = [
        *getattr(module, "constraints", []),
        *module.edits,
        *(each for each in others if each.needs_directions),
    ]
    if acting and module.directions is None:
        fix = "name a directions file, or graspl.methods.ThrowAwayFit to find them in this fit"
        raise GrasplError(f"model.directions: {type(acting[0]).__name__} needs directions; {fix}")
    if not acting and module.directions is not None and not isinstance(module.directions, str):
        fix = "leave it out, or name a part that acts along directions"
        raise GrasplError(f"model.directions: no part uses {type(module.directions).__name__}; {fix}")


def _check_asked(module: Any, acting: list[Any]) -> None:
    """Check that the start predicts, and that nothing but constraints needs directions, which may not be looked for."""
    if not module.start.predicts:
        fix = "use graspl.starts.NullSpaceStart with general text, or constrain: always"
        raise GrasplError(f"model.constrain: {type(module.start).__name__} predicts nothing; {fix}")
    if acting and not isinstance(module.directions, str):
        fix = "set constrain: always"
        raise GrasplError(
            f"model.constrain: {type(acting[0]).__name__} needs directions, and {module.constrain} may find none; {fix}"
        )
