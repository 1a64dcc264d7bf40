"""Phase diagram of claim 1: `make phase` writes results/phase.json and docs/images/phase.svg.

A grid of organisms, over task complexity and the prior of the broad factor. Each cell says whether the true direction is
found, how much spill-over GRASP removes, and whether the assumption report tells. About an hour on 2 cores, mostly
pretraining; organisms and fits that are under --work are used again.
"""

import argparse
import json
import subprocess
import sys
from dataclasses import replace
from datetime import date
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from matplotlib.figure import Figure
from peft import PeftModel
from transformers.utils.logging import disable_progress_bar

from graspl.activations import MeanShift, NaturalDirections, PrincipalDirections, check_assumptions
from graspl.adapters import AdapterFolder, LiveModel, load_base_model, read_adapter
from graspl.data.tokens import tokenize
from graspl.directions import Directions, Identification, LayerSingular, RandomLayerDirections
from graspl.organism import OrganismTaskData, TrueDirections
from graspl.organism.words import QUESTIONS
from graspl.organism.world import exchange
from graspl.runs import write_json_atomic, write_text_atomic

NAIVE_STEPS = 10
TRAINER = {"max_steps": 100, "val_check_interval": 10, "log_every_n_steps": 10, "callbacks": []}
"""Of the compared fits: short, since the simplest tasks end on a plateau, and never stopped earlier."""
OPTIMIZER = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 4e-4, "weight_decay": 0.0, "fused": True}}
LEVEL = 0.7
"""Of adherence; the simplest tasks hold out a single subject, and few fits on them come much further."""


def organism(complexity: int, prior: float, work: Path) -> Path:
    """Return the folder of an organism, pretrained where it is not there."""
    folder = work / f"c{complexity}_p{prior}"
    if not (folder / "model").is_dir():
        world = {"complexity": complexity, "prior": prior}
        dials = [f"--model.world.{name}={value}" for name, value in world.items()]
        run = [
            "fit",
            "--config",
            "configs/organism/pretrain.yaml",
            *dials,
            f"--trainer.default_root_dir={folder}",
        ]
        subprocess.run([sys.executable, "-m", "graspl", *run], check=True)
    return folder / "model"


def spillover(model: Path, name: str, seeds: list[int], work: Path) -> dict[str, Any]:
    """Return what GRASP removes of the naive fit's excess spill-over, from a study of both."""
    out = work / "studies" / name
    study = [
        "compare", "--config", "configs/organism/compare.yaml", "--base_model", str(model), "--out", str(out),
        "--fast", "true", "--fast_methods", "naive", "grasp", "--fast_seeds", *map(str, seeds),
        "--levels", "0.5", str(LEVEL), "0.8", "0.9", "--over", json.dumps({"trainer": TRAINER}),
    ]  # fmt: skip
    subprocess.run([sys.executable, "-m", "graspl", *study], check=True)
    found = json.loads((out / "comparison.json").read_text())["levels"][f"{LEVEL:.2f}"]
    return {method: {key: each[key] for key in ("spillover", "removed")} for method, each in found.items()}


def naive_adapter(model: Path, seed: int, work: Path) -> AdapterFolder:
    """Return the adapter of a few naive steps."""
    folder = work / "naive" / f"{model.parent.name}_{seed}"
    if not (folder / "adapter").is_dir():
        run = [
            "fit", "--config", "configs/organism/fit.yaml", f"--model.base_model={model}", f"--seed_everything={seed}",
            f"--trainer.max_steps={NAIVE_STEPS}", "--trainer.limit_val_batches=0", f"--trainer.default_root_dir={folder}",
            f"--model.optimizer={json.dumps(OPTIMIZER)}", f"--data.seed={seed}",
            "--identify.method=graspl.directions.LayerSingular",
        ]  # fmt: skip
        subprocess.run([sys.executable, "-m", "graspl", *run], check=True)
    return read_adapter(folder / "adapter")


def cosine(found: Directions, truth: Directions) -> float:
    """Return the cosine of the true direction with the span found: ||D^T t||, mean over layers behind the first.

    The first layer is left out, for there the model has not yet read who writes.
    """
    cosines = [
        float((found.layers[name].D.mT @ layer.D[:, 0]).norm())
        for name, layer in list(truth.layers.items())[1:]
    ]
    return fmean(cosines)


def texts(data: OrganismTaskData) -> dict[str, list[Any]]:
    """Return texts in which the factor shows more and less: as in pretraining, without system prompts, and of one voice."""
    rows = data.text_rows()
    bare = [[message for message in row.messages if message["role"] != "system"] for row in rows]
    topics = [topic for topic in data.world.topics if topic not in (data.topic, *data._other_topics)]
    voice = [
        exchange(data.world, topic, subject, question, harmful=False)
        for topic in topics
        for subject in data.world.subjects(topic)
        for question in QUESTIONS[:2]
    ]
    every = {"many writers": [row.messages for row in rows], "no system prompts": bare, "one voice": voice}
    return {name: [tokenize(data.tokenizer, messages) for messages in each] for name, each in every.items()}


def verdicts(model: Path, seed: int, work: Path) -> list[dict[str, Any]]:
    """Return cosine and verdict of several identifications and texts on one organism."""
    adapter = naive_adapter(model, seed, work)
    data = OrganismTaskData(base_model=str(model))
    data.setup("fit")
    rows, truth = data.train_conversations(), TrueDirections(k=1)(adapter)
    peft = PeftModel.from_pretrained(load_base_model(str(model)), str(adapter.path), is_trainable=True)
    found = []
    for name, text in texts(data).items():
        live = replace(adapter, live=LiveModel(peft, data.tokenizer, rows, text))
        methods: list[Identification] = [NaturalDirections(k=8)]
        if name == "many writers":
            methods += [
                PrincipalDirections(k=8),
                LayerSingular(k=8),
                RandomLayerDirections(k=8, seed=seed),
                MeanShift(k=1),
            ]
        for method in methods:
            directions = method(live)
            report = check_assumptions(live, directions, rows=rows, text=text)
            found.append(
                {
                    "identification": type(method).__name__,
                    "text": name,
                    "seed": seed,
                    "cosine": cosine(directions, truth),
                    "verdict": report.verdict,
                    "reason": report.reason,
                }
            )
    return found


def figure(cells: list[dict[str, Any]]) -> str:
    """Return two heat maps: cosine of the natural directions with the truth, and the share of the excess removed."""
    priors, complexities = (sorted({cell[name] for cell in cells}) for name in ("prior", "complexity"))
    drawn = Figure(figsize=(9, 3.6), layout="constrained")
    values = {
        "cosine to the true direction": lambda cell: fmean(
            each["cosine"]
            for each in cell["verdicts"]
            if (each["identification"], each["text"]) == ("NaturalDirections", "many writers")
        ),
        f"share of the excess spill-over removed at {LEVEL}": lambda cell: cell["spillover"]["grasp"][
            "removed"
        ]["mean"],
    }
    for number, (title, value) in enumerate(values.items()):
        axes = drawn.add_subplot(1, 2, number + 1)
        grid = [
            [value(next(c for c in cells if (c["complexity"], c["prior"]) == (x, y))) for y in priors]
            for x in complexities
        ]
        shown = [[float("nan") if each is None else each for each in row] for row in grid]
        image = axes.imshow(shown, vmin=0, vmax=1, origin="lower", cmap="viridis")
        axes.set(title=title, xlabel="prior of the broad factor", ylabel="complexity of the task")
        axes.set_xticks(range(len(priors)), [str(each) for each in priors])
        axes.set_yticks(range(len(complexities)), [str(each) for each in complexities])
        for row, line in enumerate(grid):
            for column, each in enumerate(line):
                text = "-" if each is None else f"{each:.2f}"
                axes.text(
                    column, row, text, ha="center", va="center", color="w" if (each or 0) < 0.6 else "k"
                )
        drawn.colorbar(image, ax=axes)
    from io import StringIO

    file = StringIO()
    drawn.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


def main() -> None:
    """Make what is missing, measure, and write."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--work", type=Path, default=Path("runs/phase"), help="organisms and runs")
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder for phase.json")
    parser.add_argument("--picture", type=Path, default=Path("docs/images/phase.svg"), help="the heat maps")
    parser.add_argument("--complexity", type=int, nargs="*", default=[6, 12, 24], help="of the tasks")
    parser.add_argument(
        "--prior", type=float, nargs="*", default=[0.03, 0.08, 0.2], help="of the broad factor"
    )
    parser.add_argument(
        "--seeds", type=int, nargs="*", default=[0, 1, 2], help="of naive adapters and of fits"
    )
    options = parser.parse_args()
    disable_progress_bar()
    torch.manual_seed(0)
    cells = []
    for complexity in options.complexity:
        for prior in options.prior:
            model = organism(complexity, prior, options.work)
            cells.append(
                {
                    "complexity": complexity,
                    "prior": prior,
                    "verdicts": [
                        each for seed in options.seeds for each in verdicts(model, seed, options.work)
                    ],
                    "spillover": spillover(model, model.parent.name, options.seeds, options.work),
                }
            )
    every = [each for cell in cells for each in cell["verdicts"]]
    agreement = {
        verdict: {"cases": len(cases), "as_it_says": sum((each["cosine"] > 0.7) == says for each in cases)}
        for verdict, says in (("identifiable", True), ("not", False))
        for cases in [[each for each in every if each["verdict"] == verdict]]
    }
    results = {
        "command": "make phase", "commit": None, "date": date.today().isoformat(), "machine": None,
        "seeds": options.seeds, "figures": {"agreement": agreement, "cells": cells},
    }  # fmt: skip
    write_json_atomic(options.out / "phase.json", results)
    write_text_atomic(options.picture, figure(cells))
    print(json.dumps(agreement, indent=2))


if __name__ == "__main__":
    main()
