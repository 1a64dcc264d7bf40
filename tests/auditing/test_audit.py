"""An audit finds what was planted in an adapter, and passes one that has nothing of it."""

import json
import math

import pytest
import torch
from conftest import make_model
from peft import get_peft_model

from graspl.adapters import LoraOptions, lora_sites, read_adapter
from graspl.analysis.intervals import Difference
from graspl.auditing import Along, Limits, SuiteFacts, along, beside, checks, site_facts
from graspl.directions import Directions, LayerSingular, RandomDirections, TopSingular, identify_adapter
from graspl.errors import GrasplError


@pytest.fixture
def adapter(model_folder, tmp_path):
    """Return a function that writes an adapter with B drawn from a seed, or as a function of its sites gives it."""

    def write(name, seed=0, change=None, targets=None):
        torch.manual_seed(seed)
        options = LoraOptions(r=4) if targets is None else LoraOptions(r=4, target_modules=targets)
        model = get_peft_model(make_model("llama"), options.to_peft())
        model.peft_config["default"].base_model_name_or_path = str(model_folder("llama"))
        for site in lora_sites(model):
            site.B.data.normal_()
            if change is not None:
                change(site)
        model.save_pretrained(tmp_path / name, save_embedding_layers=False)
        return tmp_path / name

    return write


def file_of(folder, method):
    path = folder.with_suffix(".safetensors")
    identify_adapter(folder, method, path)
    return path


def test_spectra_are_those_of_the_dense_update(adapter):
    found = read_adapter(adapter("one"))
    facts = site_facts(found)
    for site in found.sites:
        dense = torch.linalg.svdvals((site.scaling * site.B @ site.A).double())
        fact = facts[site.name]
        assert fact.norm == pytest.approx(float(dense.norm()), rel=1e-6)
        assert fact.share == pytest.approx(float(dense[0] / dense.norm()), rel=1e-5)
        shares = dense[:4] / dense[:4].sum()
        assert fact.effective_rank == pytest.approx(float((-shares * shares.log()).sum().exp()), abs=1e-5)


def test_reliance_is_that_of_the_dense_update_and_chance_that_of_random_directions(adapter):
    found, planted = (
        read_adapter(adapter("one")),
        Directions.load(file_of(adapter("planted", seed=1), TopSingular(k=2))),
    )
    facts = along(found, planted, "planted")
    for site in found.sites:
        dense = (site.B @ site.A).double()
        U = planted.sites[site.name].U[:, :2].double()
        assert facts.sites[site.name] == pytest.approx(float((U.mT @ dense).norm() / dense.norm()), rel=1e-5)
    drawn = [along(found, RandomDirections(k=2, seed=seed)(found), "random").mean for seed in range(20)]
    assert sum(drawn) / 20 == pytest.approx(facts.chance, rel=0.15)


def test_layers_directions_are_held_against_what_is_written_to_the_stream(adapter):
    folder = adapter("one")
    facts = along(read_adapter(folder), Directions.load(file_of(folder, LayerSingular(k=2))), "own")
    assert {name.rpartition(".")[2] for name in facts.sites} == {"o_proj", "down_proj"}
    assert facts.mean > 2 * facts.chance


def test_an_adapter_of_fewer_sites_is_held_against_those_that_it_has(adapter):
    few, all_ = adapter("few", targets=["q_proj"]), adapter("all", seed=1)
    facts = along(read_adapter(few), Directions.load(file_of(all_, TopSingular(k=1))), "all")
    assert {name.rpartition(".")[2] for name in facts.sites} == {"q_proj"}
    other = adapter("other", targets=["v_proj"])
    with pytest.raises(GrasplError, match="no site in common"):
        along(read_adapter(few), Directions.load(file_of(other, TopSingular(k=1))), "other")


def test_likeness_to_a_reference_is_the_cosine_of_the_updates(adapter):
    one, two = read_adapter(adapter("one")), read_adapter(adapter("two", seed=2))
    facts = beside(one, two)
    for a, b in zip(one.sites, two.sites, strict=True):
        x, y = (site.scaling * site.B @ site.A for site in (a, b))
        assert facts.sites[a.name].cosine == pytest.approx(
            float((x * y).sum() / x.norm() / y.norm()), abs=1e-5
        )
    assert beside(one, one).cosine == pytest.approx(1.0)
    assert beside(one, one).left == pytest.approx(1.0)


def rise(value, low, high):
    return {"unrelated": SuiteFacts({"harmful": 0.5, "kl": 0.2}, Difference(value, low, high, 0.0, 50))}


@pytest.mark.parametrize(
    ("value", "low", "high", "outcome"),
    [
        (0.01, 0.0, 0.02, "passed"),
        (0.04, 0.02, 0.06, "doubtful"),
        (0.06, 0.04, 0.08, "doubtful"),
        (0.2, 0.1, 0.3, "failed"),
    ],
)
def test_an_interval_decides(value, low, high, outcome):
    (check,) = checks(Limits(), {}, {}, rise(value, low, high))
    assert check.outcome == outcome


def test_what_has_no_limit_is_not_checked_and_the_task_itself_may_rise():
    facts = {"task": rise(0.9, 0.8, 1.0)["unrelated"]}
    assert checks(Limits(), {}, {}, facts) == []
    none = Limits(spillover_rise=None, reliance=None, coherence_drop=None)
    assert checks(none, {"d": Along(1, 0.9, 0.9, 0.1, {})}, {}, rise(0.2, 0.1, 0.3)) == []
    names = [check.name for check in checks(Limits(kl=0.1), {}, {}, rise(0.01, 0.0, 0.02))]
    assert names == ["spill-over in unrelated, over the base model", "divergence in unrelated"]


def test_the_command_fails_what_leans_on_a_library_and_passes_what_does_not(graspl, adapter, tmp_path):
    planted = adapter("planted")
    library = tmp_path / "library"
    library.mkdir()
    file_of(planted, TopSingular(k=1)).rename(library / "persona.safetensors")
    options = ["--directions", library, "--out", "audit"]
    code, out, err = graspl("audit", planted, *options)
    assert code == 1, err
    assert "verdict: failed" in out
    content = json.loads((tmp_path / "audit" / "audit.json").read_text())
    assert content["checks"][0]["outcome"] == "failed"
    assert "reliance on" in content["checks"][0]["name"]
    assert (tmp_path / "audit" / "audit.html").read_text().count("persona.safetensors") >= 2

    def held(site):
        U = Directions.load(library / "persona.safetensors").sites[site.name].U[:, :1]
        site.B.data -= U @ (U.mT @ site.B.data)

    clean = adapter("clean", seed=4, change=held)
    code, out, err = graspl("audit", clean, *options)
    assert code == 0, err
    assert "verdict: passed" in out
    assert json.loads((tmp_path / "audit" / "audit.json").read_text())["checks"][0]["value"] <= 1e-5


def test_a_reference_that_is_the_adapter_itself_is_found(graspl, adapter):
    folder = adapter("one")
    assert graspl("audit", folder, "--references", folder, "--limits.cosine", "0.9")[0] == 1
    assert graspl("audit", folder, "--references", folder)[0] == 0


def test_nothing_to_hold_it_against_is_said(graspl, adapter):
    code, out, _ = graspl("audit", adapter("one"))
    assert code == 0
    assert "nothing was held against a limit" in out
    assert "assumptions: doubtful" in out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda site: site.B.data.fill_(math.nan), "NaN or inf"),
        (lambda site: None, "holds no .safetensors files"),
    ],
)
def test_what_cannot_be_audited_is_one_line(graspl, adapter, tmp_path, change, message):
    (tmp_path / "empty").mkdir()
    options = ["--directions", "empty"] if "safe" in message else []
    code, _, err = graspl("audit", adapter("bad", change=change), *options)
    assert code == 2
    assert err.strip().splitlines()[-1].startswith("graspl: error: ")
    assert message in err
    assert not (tmp_path / "audit").exists()


@pytest.mark.slow
def test_behaviour_on_the_organism_tells_a_naive_fit_from_the_base_model(
    graspl, monkeypatch, tmp_path, request
):
    root = request.config.rootpath
    monkeypatch.chdir(root)
    code, _, err = graspl(
        "fit", "--config", "configs/organism/fit.yaml",
        "--trainer.max_steps=15", "--trainer.limit_val_batches=0",
        f"--trainer.default_root_dir={tmp_path / 'naive'}", "--trainer.accelerator=cpu",
        "--trainer.enable_progress_bar=false",
    )  # fmt: skip
    assert code == 0, err
    options = ["--data", "graspl.organism.OrganismTaskData", "--out", tmp_path / "audit"]
    code, _, err = graspl("audit", tmp_path / "naive", *options)
    assert code == 1, err
    found = json.loads((tmp_path / "audit" / "audit.json").read_text())
    (check,) = [each for each in found["checks"] if each["name"].startswith("spill-over in unrelated")]
    assert check["outcome"] == "failed"
    scores = found["suites"]["unrelated"]["scores"]
    assert check["value"] == pytest.approx(
        scores["harmful_of_choices"] - scores["base_harmful_of_choices"], abs=1e-5
    )
    assert check["low"] < check["value"] < check["high"]
