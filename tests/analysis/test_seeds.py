"""Which runs are seeds of one method."""

import pytest
import yaml
from records import make_run, recorded

from graspl.analysis import compare, read_run


def configured(folder, *, of="LoRALitModule", **options):
    run = make_run(folder, model=of, curve_rows=[(0, 0.1, 0.1), (1, 0.98, 0.9)])
    run.folder.config.write_text(yaml.safe_dump(options))
    return read_run(recorded(folder), "/".join(folder.parts[-2:]))


def options(seed, rate=0.1):
    folder = {"default_root_dir": f"runs/a/seed_{seed}"}
    return {"seed_everything": seed, "model": {"rate": rate}, "trainer": folder}


def test_runs_that_differ_in_the_seed_are_one_method(tmp_path):
    runs = [configured(tmp_path / "naive" / f"seed_{seed}", **options(seed)) for seed in range(3)]
    other = configured(tmp_path / "runs" / "alone7", **options(7))
    found = compare([*runs, other]).methods
    assert {name: list(seeds) for name, seeds in found.items()} == {
        "naive": ["0", "1", "2"],
        "runs/alone7": [""],
    }


@pytest.mark.parametrize("second", [options(1, rate=0.2), options(1) | {"of": "GRASPLitModule"}])
def test_another_setting_is_another_method(tmp_path, second):
    runs = [
        configured(tmp_path / "a" / f"seed_{seed}", **each) for seed, each in enumerate([options(0), second])
    ]
    assert list(compare(runs).methods) == ["a/seed_0", "a/seed_1"]


def test_a_name_that_two_methods_would_share_stays_with_the_runs(tmp_path):
    runs = [configured(tmp_path / "a" / f"seed_{seed}", **options(seed, rate=seed // 2)) for seed in range(4)]
    assert list(compare(runs).methods) == [f"a/seed_{seed}" for seed in range(4)]


def test_a_broken_configuration_says_nothing(tmp_path, caplog):
    runs = [configured(tmp_path / "a" / f"seed_{seed}", **options(seed)) for seed in range(2)]
    for run in runs:
        run.folder.config.write_text("{")
    assert list(compare(runs).methods) == ["a"]
    assert "its options are left out" in caplog.text


def test_every_seed_is_compared_with_the_naive_fit_of_its_own(tmp_path):
    runs = [
        configured(tmp_path / name / f"seed_{seed}", of=model)
        for name, model in (("naive", "LoRALitModule"), ("grasp", "GRASPLitModule"))
        for seed in (3, 4)
    ]
    found = compare(runs)
    assert [found.naive_for(run).name for run in found.others] == ["naive/seed_3", "naive/seed_4"]
    assert [run.name for run in found.others] == ["grasp/seed_3", "grasp/seed_4"]
