"""Hash the adapters of twenty steps on the organism, one a method, to show that a refactoring changes no bit.

    python benchmarks/bit_identity.py before.json                     # at the old commit
    python benchmarks/bit_identity.py after.json --compare before.json  # at the new one, on the same machine

Every setting is explicit, so that a change of a default changes nothing here. Hashes of different processors differ.
"""

import argparse
import hashlib
import json
import platform
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

import torch
import yaml

STEPS = 20


def part(name: str, **options: Any) -> dict[str, Any]:
    """Return a class path with its options, as YAML has it."""
    return {"class_path": f"graspl.{name}", **({"init_args": options} if options else {})}


NATURAL = part("activations.NaturalDirections", k=6)
TOP = part("directions.TopSingular", k=1)
LAYER = part("directions.LayerSingular", k=1)
SHIFT = part("activations.MeanShift", k=1)
WRITE, READ, PAIR = (part(f"constraints.{name}Constraint", k=1) for name in ("Write", "Read", "Pair"))
RESIDUAL = part("constraints.ResidualConstraint", k=1)
ACTIVATION = part("constraints.ActivationConstraint", k=6, tolerance=0.04)
DEFAULT = [ACTIVATION, part("constraints.ResidualConstraint", k=6)]


def found_by(identification: Any) -> dict[str, Any]:
    """Return a source of directions."""
    return part("methods.ThrowAwayFit", identification=identification, steps=20, stable=0.99)


def grasp(identification: Any, *constraints: Any, **options: Any) -> dict[str, Any]:
    """Return GRASP with directions that it finds in the fit."""
    return part(
        "methods.GRASPLitModule",
        directions=found_by(identification),
        constraints=list(constraints),
        **options,
    )


def lora(identification: Any = None, **options: Any) -> dict[str, Any]:
    """Return LoRA with parts, and directions that it finds in the fit where they need some."""
    found = {} if identification is None else {"directions": found_by(identification)}
    return part("methods.LoRALitModule", **found, **options)


def penalty(name: str, **options: Any) -> list[dict[str, Any]]:
    """Return a penalty."""
    return [part(f"penalties.{name}Penalty", **options)]


METHODS = {
    "naive": lora(),
    "write": grasp(TOP, WRITE),
    "read": grasp(TOP, READ),
    "pair": grasp(TOP, PAIR),
    "residual": grasp(LAYER, RESIDUAL),
    "residual_read": grasp(LAYER, part("constraints.ResidualConstraint", k=1, read=True)),
    "write_gradient_only": grasp(TOP, WRITE, exact=False),
    "grasp": grasp(NATURAL, *DEFAULT),
    "grasp_kl": grasp(NATURAL, *DEFAULT, penalties=penalty("KL", weight=0.3, rows="text", rows_per_step=16)),
    "kl_task": lora(penalties=penalty("KL", weight=0.1, rows="task")),
    "kl_text": lora(penalties=penalty("KL", weight=1.0, rows="text", rows_per_step=16)),
    "features": lora(penalties=penalty("Feature", weight=1.0)),
    "consistency": lora(penalties=penalty("Consistency", weight=1.0, step=0.05)),
    "l2": lora(penalties=penalty("L2", weight=1e-3)),
    "orthogonal": lora(
        penalties=penalty("Orthogonality", weight=1.0, side="write", k=1),
        directions="naive/directions.safetensors",
    ),
    "caft_both": lora(NATURAL, edits=[part("edits.Ablate", k=6)]),
    "caft_forward": lora(NATURAL, edits=[part("edits.Ablate", k=6, backward=False)]),
    "caft_gradient": lora(NATURAL, edits=[part("edits.Cut", k=6)]),
    "preventative": lora(SHIFT, edits=[part("edits.Push", strength=0.1)]),
    "wise_ft": lora(transforms=[part("transforms.Scale", share=0.7)]),
    "balanced": lora(transforms=[part("transforms.Balance", share=0.7)]),
    "truncate": lora(transforms=[part("transforms.Truncate", keep=4, part="top")]),
    "safe_lora": lora(transforms=[part("transforms.SafeLoRA", unaligned_model="unaligned", threshold=1.01)]),
    "subtract_write": lora(TOP, transforms=[part("transforms.Subtract", constraint=WRITE)]),
    "subtract_residual": lora(LAYER, transforms=[part("transforms.Subtract", constraint=RESIDUAL)]),
}
"""By name; `naive` comes first, since another takes its directions."""


def configuration(method: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the whole configuration of a fit."""
    optimizer = {
        "class_path": "torch.optim.AdamW",
        "init_args": {"lr": 5e-4, "weight_decay": 0.0, "fused": True},
    }
    shared = {
        "base_model": "organism", "lora": {"r": 8, "lora_alpha": 16}, "optimizer": optimizer,
        "schedule": "constant_with_warmup", "warmup_steps": 0,
    }  # fmt: skip
    return {
        "seed_everything": 0,
        "model": {**method, "init_args": method.get("init_args", {}) | shared},
        "data": part("organism.OrganismTaskData", topic="medicine", split="evaluation", batch_size=16, seed=0),
        "trainer": {
            "default_root_dir": str(folder), "accelerator": "cpu", "devices": 1, "max_steps": STEPS,
            "limit_val_batches": 0, "gradient_clip_val": 1.0, "enable_progress_bar": False, "enable_model_summary": False,
        },
    }  # fmt: skip


def write_unaligned(folder: Path) -> None:
    """Write a model that SafeLoRA can take for the one before alignment: the organism, a little off."""
    from graspl.adapters import load_base_model

    model = load_base_model("organism")
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.01 * p.std() * torch.randn(p.shape, generator=generator).to(p))
    model.save_pretrained(folder)


def hashes(folder: Path) -> dict[str, str]:
    """Run every method and return the SHA-256 of its adapter's weights.

    Args:
        folder: made here; holds every run.
    """
    write_unaligned(folder / "unaligned")
    found = {}
    for name, method in METHODS.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(configuration(method, folder / name)))
        command = [sys.executable, "-m", "graspl", "fit", "--config", f"{name}.yaml"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{name}: {done.stderr[-2000:]}")
        weights = (folder / name / "adapter" / "adapter_model.safetensors").read_bytes()
        found[name] = hashlib.sha256(weights).hexdigest()
        print(name, found[name], flush=True)
    return found


def machine() -> str:
    """Return the processor's name."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    named = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return f"{named or platform.processor()}, {platform.machine()}, torch {torch.__version__}"


def main() -> None:
    """Write the hashes, and compare them with others."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--compare", type=Path)
    options = parser.parse_args()
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    with tempfile.TemporaryDirectory() as folder:
        figures: dict[str, Any] = hashes(Path(folder))
    content = {
        "command": "python benchmarks/bit_identity.py", "commit": commit, "date": date.today().isoformat(),
        "machine": machine(), "seeds": [0], "figures": figures,
    }  # fmt: skip
    options.out.write_text(json.dumps(content, indent=2) + "\n")
    if options.compare:
        before = json.loads(options.compare.read_text())["figures"]
        odd = [name for name in figures if figures[name] != before.get(name)]
        print(
            f"{len(figures) - len(odd)} of {len(figures)} are the same; different: {', '.join(odd) or 'none'}"
        )
        sys.exit(bool(odd))


if __name__ == "__main__":
    main()
