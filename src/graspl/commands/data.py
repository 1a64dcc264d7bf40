"""`graspl data`: what a fit would train on, before it runs."""

import json as to_json
from typing import Any

from graspl.data import ChatDataModule
from graspl.data.look import look_at
from graspl.reporting.rows import data_parts
from graspl.reporting.tables import Shown

# Options of the data that change nothing of what is shown
WITHOUT = (
    "batch_size", "eval_batch_size", "packing", "group_by_length", "num_workers", "text", "good", "unrelated", "suites",
    "final_suites", "only_suites", "share_prefixes",
)  # fmt: skip


def data(train: str, *, base_model: str, json: bool = False, **options: Any) -> Shown:
    """Show what a fit would train on: format, lengths, what is left out, three rows with their trained tokens.

    The other options are those of `graspl fit` under --data. The exit code is 1 where a fit would stop at a row that is too
    long, or has none left. Nothing is written.

    Args:
        train: file or `datasets` name with rows, as data.train of a fit.
        base_model: hub name or folder of the model whose tokenizer and chat template are used.
        json: print JSON instead of tables, with the ids of the rows shown.
        **options: of the data.
    """
    module = ChatDataModule(train=train, base_model=base_model, **options)
    found = {"train": train, **look_at(module)}
    too_long = module.too_long == "error" and found["tokens"]["longest_row"] > module.max_length
    stops = too_long or found["rows"]["trained"] == 0
    parts = [to_json.dumps(found, indent=2)] if json else data_parts(found)
    return Shown(found, parts, exit_code=int(stops))
