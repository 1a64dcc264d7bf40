"""What graspl makes of every family of causal language models in the installed Transformers.

    python tests/every_family.py [FAMILY ...]

Each is tried as `matrix.py` does, tiny and random, with the sizes there. Where a refusal names an option that helps, the
family is tried once more with it, as a user would. Writes results/every_family.json after each family, and goes on from it; a
family whose default sizes make a large model, or whose small model Transformers does not build, is told apart.
"""

import json
import logging
import re
import sys
import tempfile
import warnings
from pathlib import Path

import matrix
import torch
import transformers
from conftest import CHAT_ROWS, REPOSITORY
from families import family_folder
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from graspl.adapters import LoraOptions
from graspl.errors import GrasplError
from graspl.runs import write_json_atomic

sys.path.append(str(REPOSITORY / "benchmarks" / "real"))
from record import record, this_machine

OUT = REPOSITORY / "results" / "every_family.json"
LARGEST = 3e7  # Parameters of a model that is still tried
GROUPED = {"num_key_value_heads": 4}
matrix.OWN_SIZES |= {
    "mamba2": {"num_heads": 4, "head_dim": 16, "expand": 2, "n_groups": 1},
    "modernbert-decoder": {"bos_token_id": 2, "cls_token_id": 3, "sep_token_id": 2},
    "kimi_linear": {"linear_num_heads": 2, "linear_head_dim": 8},
    **dict.fromkeys(
        (
            "axk1",
            "axk2",
            "deepseek_v2",
            "deepseek_v32",
            "dots3_note",
            "dots3_note_text",
            "glm_moe_dsa",
            "youtu",
        ),
        GROUPED,
    ),
}


def small(kind: str):
    """Return a small model of a family; raise ValueError with the reason where there is none."""
    try:
        if kind not in matrix.SEEING:
            with torch.device("meta"):
                made = transformers.AutoModelForCausalLM.from_config(matrix.config_of(kind))
            size = sum(each.numel() for each in made.parameters())
            if size > LARGEST:
                raise ValueError(f"{size:,} parameters at its default sizes")
        return matrix.model_of(kind)
    except Exception as error:
        raise ValueError(" ".join(f"{type(error).__name__}: {error}".split())[:160]) from error


def helpful(line: str) -> dict[str, object]:
    """Return the option that a refusal names, {} without one."""
    if named := re.search(r"e\.g\. \[([\w, .]+)\]", line):
        return {"target_modules": named[1].split(", ")}
    if left_out := re.search(r"lora\.exclude_modules: '?([^' ]+)'?", line):
        return {"exclude_modules": left_out[1].rstrip(";,.")}
    return {}


def tried(kind: str, model, place: Path) -> dict[str, object]:
    """Return what each cell came to, and what lines refused it."""
    rows = place / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in CHAT_ROWS))
    base = str(family_folder(kind, place / "model", model))
    options: dict[str, object] = dict(matrix.LORA.get(kind, {}))
    for turn in ("first", "second"):
        matrix._lora = lambda _, options=options: LoraOptions(**options)
        found = outcomes(base, rows, place / turn)
        further = next(
            (
                more
                for each in found.values()
                if (more := helpful(each)) and not more.items() <= options.items()
            ),
            {},
        )
        if not further:
            break
        options |= further
    lines = list(dict.fromkeys(said for said in found.values() if said != "right"))
    return {
        "family": kind,
        **{cell: said if said in ("right", "wrong") else "refused" for cell, said in found.items()},
        "lora": options,
        "lines": [line.replace(str(place), "FOLDER") for line in lines],
    }


def outcomes(base: str, rows: Path, folder: Path) -> dict[str, str]:
    """Return what each cell came to; `wrong` where neither right nor refused."""
    found = {}
    for cell in matrix.CELLS:
        torch.manual_seed(0)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                getattr(matrix, f"_{cell}")(base, rows, folder / cell)
            found[cell] = "right"
        except GrasplError as error:
            found[cell] = str(error)
        except Exception as error:  # noqa: BLE001 - it is what is looked for
            print(f"{base}: {cell}: {type(error).__name__}: {error}", flush=True)
            found[cell] = "wrong"
    return found


def summary(families: dict[str, dict[str, object]]) -> dict[str, int]:
    """Return how many families came to what."""
    cells = [[each[cell] for cell in matrix.CELLS] for each in families.values() if "not built" not in each]
    return {
        "families": len(families),
        "tried": len(cells),
        "right in every cell": sum(set(each) == {"right"} for each in cells),
        "right or refused": sum(
            "right" in each and "refused" in each and "wrong" not in each for each in cells
        ),
        "refused": sum(set(each) == {"refused"} for each in cells),
        "wrong": sum("wrong" in each for each in cells),
    }


def main() -> None:
    """Try the families that are not in the file yet, or those that are named."""
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    done = json.loads(OUT.read_text())["figures"]["each"] if OUT.exists() else {}
    families = {row["family"]: row for row in done.values()} if done else {}
    asked = sys.argv[1:] or [
        kind for kind in sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES) if kind not in families
    ]
    for kind in asked:
        with tempfile.TemporaryDirectory() as folder:
            try:
                families[kind] = tried(kind, small(kind), Path(folder))
            except ValueError as error:
                families[kind] = {"family": kind, "not built": str(error)}
        figures = {"all": summary(families), "each": dict(sorted(families.items()))}
        note = f"Transformers {transformers.__version__}; every model is tiny and random"
        write_json_atomic(OUT, record("python tests/every_family.py", this_machine(), [0], figures, note))
        print({name: value for name, value in families[kind].items() if name != "lines"}, flush=True)


if __name__ == "__main__":
    main()
