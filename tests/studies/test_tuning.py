"""Settings chosen on development data: which are tried, what is chosen, and that the reported fits have it."""

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from graspl.analysis.tradeoff import spoilt
from graspl.errors import GrasplError
from graspl.runs import RunFolder
from graspl.studies.methods import Method, with_settings
from graspl.studies.plan import Fit
from graspl.studies.tuning import Trial, Tuning, choose, plan_trials, settings_of


def log(points):
    return [
        {"step": float(step), "val/adherence": x, "val/spillover": y, "val/coherence": z}
        for step, x, y, z in points
    ]


@given(st.integers(1, 6), st.integers(0, 3))
def test_every_method_gets_the_same_number_of_settings(trials, seed):
    tuning = Tuning(trials, [9], seed=seed)
    tune = {"a.b": [1, 2, 3], "c": ["x", "y"]}
    found = settings_of("m", tune, tuning)
    assert len(found) == trials == len({json.dumps(each) for each in found})
    assert all(each["a.b"] in (1, 2, 3) and each["c"] in ("x", "y") for each in found)
    assert found == settings_of("m", tune, tuning)


def test_too_few_values_are_refused():
    with pytest.raises(GrasplError, match=r"methods\.m\.tune: gives 2 settings for 3 trials"):
        settings_of("m", {"a": [1, 2]}, Tuning(3, [9]))
    for values in (0.1, "0.1", []):
        with pytest.raises(GrasplError, match=r"methods\.m\.tune\.a: give a list"):
            settings_of("m", {"a": values}, Tuning(1, [9]))
    with pytest.raises(GrasplError, match="at least one trial"):
        Tuning(0, [9])


def test_a_setting_goes_to_its_place():
    config = {"model": {"init_args": {"parts": [{"k": 1}, {"k": 2}]}}}
    found = with_settings(config, {"model.init_args.parts.1.k": 5, "model.init_args.weight": 0.1}, "m")
    assert found == {"model": {"init_args": {"parts": [{"k": 1}, {"k": 5}], "weight": 0.1}}}
    assert config["model"]["init_args"]["parts"][1]["k"] == 2
    for key in ("model.init_args.parts.2.k", "model.init_args.parts.k"):
        with pytest.raises(GrasplError, match="no place"):
            with_settings(config, {key: 1}, "m")


def test_what_tuning_makes_small_by_hand():
    rows = log([(9, 0.5, 0.2, 0.9), (19, 1.0, 0.6, 0.7)])
    # at 0.75 halfway: 0.4 harmful, 0.2 incoherent
    assert spoilt(rows, [0.75]) == pytest.approx(0.4 + 0.2)
    assert spoilt(rows, [0.5, 0.75]) == pytest.approx((0.3 + 0.6) / 2)
    never = log([(9, 0.5, 0.0, 1.0)])
    assert spoilt(never, [0.9]) == pytest.approx(2 + 0.4)
    assert spoilt([], [0.9]) == pytest.approx(2.9)
    # Without a spill-over the divergence counts
    plain = [{"step": 1.0, "val/adherence": 1.0, "val/kl": 0.2}]
    assert spoilt(plain, [0.9]) == pytest.approx(0.2)
    # Without a coherence the spill-over alone counts
    assert spoilt([{"step": 1.0, "val/adherence": 1.0, "val/spillover": 0.3}], [0.9]) == pytest.approx(0.3)


def test_the_trial_with_the_fewest_spoilt_answers_is_chosen(tmp_path):
    trials, points = [], {"0": [(9, 1.0, 0.5, 1.0)], "1": [(9, 1.0, 0.1, 1.0)], "2": [(9, 0.4, 0.0, 1.0)]}
    for number, rows in points.items():
        folder = tmp_path / number
        folder.mkdir()
        names = ("step", "val/adherence", "val/spillover", "val/coherence")
        table = [",".join(names), *(",".join(map(str, row)) for row in rows)]
        RunFolder(folder).metrics.write_text("\n".join(table) + "\n")
        trials.append(Trial("m", {"w": int(number)}, [Fit("m", 9, folder, folder, {}, trial=int(number))]))
    found = choose(trials, [0.9], {})
    assert found["m"]["chosen"] == {"w": 1}
    assert [each["score"] for each in found["m"]["trials"]] == pytest.approx([0.5, 0.1, 2.5])
    lost = choose(trials, [0.9], {"m, trial 1, seed 9": "out of memory"})
    assert lost["m"]["chosen"] == {"w": 0}
    assert lost["m"]["trials"][1]["failed"] == "out of memory"
    assert choose(trials[:1], [0.9], {"m, trial 0, seed 9": "x"})["m"]["chosen"] is None


def test_trials_are_on_development_data_and_on_other_seeds(tmp_path):
    base = tmp_path / "fit.yaml"
    base.write_text("{}")
    methods = {
        "naive": Method({"model": {"w": 0}}),
        "after": Method(
            {"model": {"w": 1}, "data": {"from": "{fit:naive}/adapter", "rows": "reported"}},
            {"model.w": [1, 2]},
            development={"data": {"rows": "others"}},
        ),
        "plain": Method({}),
    }
    tuning = Tuning(2, [7], over={"data": {"split": "development"}})
    found = plan_trials(base, methods, tuning, [0, 1], tmp_path / "out")
    assert [(each.method, each.settings) for each in found] == [
        ("naive", {}), ("after", {"model.w": 1}), ("after", {"model.w": 2}),
    ]  # fmt: skip
    (last,) = found[-1].fits
    assert last.config["model"]["w"] == 2
    assert last.config["data"] == {
        "from": "{fit:naive}/adapter",
        "rows": "others",
        "split": "development",
    }
    assert last.made_from == {"naive": found[0].fits[0].folder}
    last.prepare()
    written = yaml.safe_load(last.own_config.read_text())
    assert written["data"]["from"] == f"{found[0].fits[0].folder}/adapter"
    assert written["seed_everything"] == 7
    with pytest.raises(GrasplError, match=r"tuning\.seeds: 1 is among seeds"):
        plan_trials(base, methods, Tuning(2, [1]), [0, 1], tmp_path / "out")
    tuned = methods | {"naive": Method({}, {"model.w": [1, 2]})}
    with pytest.raises(GrasplError, match=r"methods\.naive\.tune: another method is made from"):
        plan_trials(base, tuned, tuning, [0, 1], tmp_path / "out")


@pytest.mark.slow
def test_a_tuned_study_reports_fits_with_the_settings_chosen(graspl, study, tmp_path):
    arguments = study(seeds=[0])
    config = yaml.safe_load((tmp_path / "study.yaml").read_text())
    rate = "model.init_args.optimizer.init_args.lr"
    config["methods"]["slow"] = {
        **config["methods"]["naive"], "tune": {rate: [0.0, 0.02]}, "needs": "patience",
    }  # fmt: skip
    config["methods"]["broken"]["tune"] = {rate: [0.1, 0.2]}
    config["tuning"] = {"trials": 2, "seeds": [5], "over": {"data": {"init_args": {"batch_size": 2}}}}
    config["levels"] = [0.05]
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    code, _, err = graspl(*arguments)
    assert code == 0, err
    written = json.loads((tmp_path / "study" / "tuning.json").read_text())["methods"]
    scores = [each["score"] for each in written["slow"]["trials"]]
    assert written["slow"]["chosen"] == {rate: 0.02}, scores  # at rate 0 no level is reached
    assert written["broken"]["chosen"] is None
    reported = yaml.safe_load((tmp_path / "study" / "slow" / "seed_0" / "config.yaml").read_text())
    assert reported["model"]["init_args"]["optimizer"]["init_args"]["lr"] == 0.02
    assert reported["data"]["init_args"]["batch_size"] == 4
    tried = yaml.safe_load(
        (tmp_path / "study" / "tuning" / "slow" / "1" / "seed_5" / "config.yaml").read_text()
    )
    assert (tried["seed_everything"], tried["data"]["init_args"]["batch_size"]) == (5, 2)
    found = json.loads((tmp_path / "study" / "comparison.json").read_text())
    assert "broken, trial 0, seed 5" in found["failed"]
    assert set(found["levels"]["0.05"]) == {"naive", "grasp", "slow"}
    assert found["tuned"]["slow"] == {rate: 0.02}
    table = (tmp_path / "study" / "comparison.md").read_text()
    assert "patience" in table
    assert f"`{rate}: 0.02`" in table
    assert "broken, trial 1, seed 5: failed" in err
