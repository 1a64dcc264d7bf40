"""What an identification is, and the way from an adapter folder to a directions file."""

from abc import ABC, abstractmethod
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from graspl import __version__
from graspl.adapters.files import AdapterFolder, read_adapter
from graspl.directions.basis import FILTERS, SIGNED, Directions
from graspl.errors import GrasplError
from graspl.runs import atomic_path


class Identification(ABC):
    """A way to find the directions that an adapter leans on: call it with the adapter.

    A subclass is a dataclass of its options, with `find`. An option that takes an identification defaults to None and has
    the type `TopSingular | Identification | None`, so that another class does not get TopSingular's defaults.
    """

    signed: ClassVar[bool] = False
    """Whether a step forward along a direction raises the factor; without a sign, either way may."""
    filters: ClassVar[bool] = False
    """Whether a fit pushes along the directions, while the base model itself hardly varies along them."""

    def __call__(self, adapter: AdapterFolder) -> Directions:
        """Return directions; their metadata says `identification`, `k`, `signed` and `filters`.

        Raises:
            GrasplError: the adapter cannot be used, an option's file cannot be read, or there are fewer directions than k.
        """
        found = self.find(adapter)
        kind = {"identification": type(self).__name__, "k": str(max(found.width(side) for side in "UVD"))}
        kind |= {SIGNED: str(self.signed).lower(), FILTERS: str(self.filters).lower()}
        return replace(found, metadata=kind | found.metadata)

    @abstractmethod
    def find(self, adapter: AdapterFolder) -> Directions:
        """Return directions, with metadata of their own where they have some."""


def leading(most: int, where: str, *, k: int, skip: int = 0, option: str = "k") -> slice:
    """Return which of `most` directions are taken, the first k after `skip`; an error names `where` and the option."""
    if k < 1 or skip < 0 or skip + k > most:
        after = f" after the first {skip}" if skip else ""
        has = f"{where}, which has {most}; give 1 to {most - skip}"
        raise GrasplError(f"method.{option}: {k} directions{after} cannot be taken from {has}")
    return slice(skip, skip + k)


def identify_adapter(adapter: Path, method: Identification, out: Path) -> Directions:
    """Find the directions of an adapter on disk, and write them with where they came from.

    Raises:
        GrasplError: the adapter cannot be used, or the file cannot be written.
    """
    folder = read_adapter(adapter)
    found = method(folder)
    origin = {"base_model": folder.base_model, "adapter": str(adapter), "adapter_sha256": folder.sha256}
    directions = replace(found, metadata=found.metadata | origin | {"graspl": __version__})
    with atomic_path(out) as scratch:
        directions.save(scratch)
    return directions
