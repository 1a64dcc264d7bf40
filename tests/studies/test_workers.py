"""How fits share the machine."""

import pytest
import torch

from graspl.studies import workers


def test_fits_share_the_threads_that_this_process_may_use(monkeypatch):
    class Pool:
        def __init__(self, jobs, _context, _start, given):
            self.threads = jobs, given[0]
            raise Asked(self.threads)

    class Asked(Exception):
        pass

    monkeypatch.setattr(workers, "ProcessPoolExecutor", Pool)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 6)
    for jobs, threads in ((1, 6), (2, 3), (8, 1)):
        with pytest.raises(Asked) as asked:
            list(workers.run_fits([], jobs=jobs))
        assert asked.value.args[0] == (jobs, threads)
