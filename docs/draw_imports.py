"""Draw which room of graspl imports which: `make docs` writes docs/images/imports.svg."""

import re
import tomllib
from pathlib import Path

import grimp
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch

ROOT = Path(__file__).parents[1]
TARGET = Path(__file__).with_name("images") / "imports.svg"


def layers() -> list[list[str]]:
    """Return the rooms layer by layer, from the front door down, as the import contract has them."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    return [re.findall(r"\w+", layer) for layer in contracts[0]["layers"]]


def edges() -> list[tuple[str, str]]:
    """Return who imports whom, room by room."""
    rooms = {room for layer in layers() for room in layer}
    graph, found = grimp.build_graph("graspl"), set()
    for module in graph.modules:
        parts = module.split(".")
        for other in graph.find_modules_directly_imported_by(module):
            names = parts[1:2] + other.split(".")[1:2]
            if len(names) == 2 and names[0] != names[1] and set(names) <= rooms:
                found.add((names[0], names[1]))
    return sorted(found)


def draw() -> None:
    """Write the picture."""
    rows = layers()
    places = {
        room: ((index + 1) / (len(row) + 1), -float(depth))
        for depth, row in enumerate(rows)
        for index, room in enumerate(row)
    }
    with rc_context({"svg.hashsalt": "graspl", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(8, 9), layout="constrained")
        axes = figure.add_subplot()
        for number, (ours, theirs) in enumerate(edges()):
            arrow = FancyArrowPatch(
                places[ours], places[theirs], arrowstyle="-|>", mutation_scale=8, lw=0.6, color=f"C{number % 10}", alpha=0.55,
                shrinkA=12, shrinkB=12, connectionstyle=f"arc3,rad={0.08 if number % 2 else -0.08}",
            )  # fmt: skip
            arrow.set_gid(f"{ours}-imports-{theirs}")
            axes.add_patch(arrow)
        for room, (x, y) in places.items():
            box = {"boxstyle": "round,pad=0.35", "fc": "#eef3fb", "ec": "#4a6fa5"}
            axes.text(x, y, room, ha="center", va="center", color="#10233f", bbox=box)
        axes.set(xlim=(0, 1), ylim=(-len(rows) + 0.5, 0.5))
        axes.axis("off")
        figure.savefig(TARGET, format="svg", metadata={"Date": None})


if __name__ == "__main__":
    draw()
