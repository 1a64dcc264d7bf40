"""One process of a pair: runs graspl's commands one after the other, so that torch is imported once for all of them."""

import faulthandler
import json
import sys
from collections import Counter
from pathlib import Path

from lightning import Callback
from torch.profiler import ProfilerActivity, profile

from graspl.starts import response

COUNTED = "collectives.json"
LIMIT = 900
"""Seconds that the processes are given."""


class FindsNoDoubt(Callback):
    """Makes every null space one that is likely to hold, as none of a tiny random model is; in this fit alone."""

    def setup(self, trainer, pl_module, stage):
        self.before, response.HOLDS = response.HOLDS, 1e9

    def teardown(self, trainer, pl_module, stage):
        response.HOLDS = self.before


class CountCollectives(Callback):
    """Writes how many collectives of each kind one micro-batch and its optimizer step sent, as the profiler saw them."""

    def __init__(self, step=3):
        self.step = step
        self.profiler = None
        self.done = False

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.step and self.profiler is None:
            self.profiler = profile(activities=[ProfilerActivity.CPU])
            self.profiler.__enter__()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if self.profiler is not None and not self.done:
            self.done = True
            self.profiler.__exit__(None, None, None)
            # `events()` would first build the tree of all calls, which takes longer than the fit
            names = [event.name() for event in self.profiler.profiler.kineto_results.events()]
            seen = Counter(name for name in names if name.startswith(("gloo:", "nccl:")))
            if trainer.is_global_zero:
                (Path(trainer.default_root_dir) / COUNTED).write_text(json.dumps(seen))


def main():
    import torch

    from graspl.cli import main as graspl

    torch.set_num_threads(1)
    # Two that wait for each other say where, before the test gives them up
    faulthandler.dump_traceback_later(LIMIT - 30, exit=True)
    for arguments in json.loads(Path(sys.argv[1]).read_text()):
        code = graspl(arguments)
        if code:
            print(f"exit code {code}: {arguments}", file=sys.stderr)
            sys.exit(code)


if __name__ == "__main__":
    main()
