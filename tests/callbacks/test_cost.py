"""The cost of a fit in operations."""

import json

from conftest import CHAT_ROWS

MEASURE = "--trainer.callbacks+=graspl.callbacks.MeasureCost"


def test_a_throw_away_fit_costs_before_the_first_step(graspl, chat_options, write_rows, tmp_path):
    cost = {}
    for name in ("LoRALitModule", "GRASPLitModule"):
        own = {"model": f"graspl.methods.{name}", "trainer.default_root_dir": name}
        own |= {"data.text": write_rows(CHAT_ROWS, "text.jsonl")}
        code, _, err = graspl("fit", *chat_options(**own), MEASURE)
        assert code == 0, err
        cost[name] = json.loads((tmp_path / name / "cost.json").read_text())
    naive, grasp = cost.values()
    assert naive["start_flops"] == 0
    assert grasp["start_flops"] > naive["step_flops"]
    assert grasp["step_flops"] > naive["step_flops"] > 0
