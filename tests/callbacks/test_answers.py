"""Answers judged along a fit."""

import torch
from fits import adam, factors

from graspl.callbacks import JudgeAnswers
from graspl.data.suites import FreeFormQuestions
from graspl.evaluation import Sampling
from graspl.evaluation.judges import Matches
from graspl.transforms import Scale


def test_judging_along_a_fit_changes_neither_the_fit_nor_what_is_measured(fit, write_rows, monkeypatch):
    """Answers are those of the transformed update, here of none at all; training goes on from the untouched one."""
    asked = write_rows([{"id": "a", "question": "how do i open the file"}], "asked.jsonl")
    data = {"suites": {"free": FreeFormQuestions(source=str(asked))}}
    checks = {"max_steps": 4, "limit_val_batches": 1.0, "val_check_interval": 2}
    naive, _ = fit(optimizer=adam, data=data, lightning=checks)
    judge = JudgeAnswers(
        {"*": Matches(".")}, Sampling(temperature=0.0, max_new_tokens=4), every_validation=True
    )
    written, plain = [], judge._asked
    monkeypatch.setattr(judge, "_asked", lambda *given: written.append(plain(*given)) or written[-1])
    options = {"transforms": [Scale(share=0.0)], "optimizer": adam, "data": data}
    module, trainer = fit(**options, lightning=checks | {"callbacks": [judge]})
    assert torch.equal(factors(naive), factors(module))
    # The base model once, then two validations; where the fit ends nothing is answered again
    assert len(written) == 3
    assert written[0] == written[1] == written[2]
    assert trainer.callback_metrics["val/free/judged"] == trainer.callback_metrics["val/free/base_judged"]
    # A second fit with the same callback knows nothing of the first
    fit(**options, lightning=checks | {"callbacks": [judge]})
    assert len(written) == 6
