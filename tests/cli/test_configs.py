"""Every configuration that ships runs, and says nothing twice."""

import importlib
import inspect
import json
import shlex
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from conftest import CHAT_ROWS
from lightning import Trainer
from pages import heading, on_a_tiny_model

from graspl.activations import NaturalDirections
from graspl.cli import TOOLS, TRAINING
from graspl.directions import Directions, TopSingular, identify_adapter

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs"
EVERY = sorted(CONFIGS.rglob("*.yaml"))
METHODS = sorted(path.stem for path in (CONFIGS / "methods").glob("*.yaml"))
TRAINERS = sorted(path.stem for path in (CONFIGS / "trainer").glob("*.yaml"))
# compare_tasks.yaml and rivals.yaml are laid over others
STUDIES = {
    "study": ["study.yaml"],
    "compare": ["organism/compare.yaml"],
    "compare_tasks": ["organism/compare.yaml", "organism/compare_tasks.yaml"],
    "candidates": ["organism/compare.yaml", "organism/candidates.yaml"],
    "rivals": ["study.yaml", "organism/rivals.yaml"],
    "real": ["real/compare.yaml"],
    "anchor": ["real/anchor.yaml"],
}
TWO_STEPS = [
    "--trainer.max_steps=2", "--trainer.accelerator=cpu", "--trainer.limit_val_batches=0",
    "--trainer.accumulate_grad_batches=1", "--trainer.enable_progress_bar=false",
]  # fmt: skip
TINY = ["--trainer.fast_dev_run=2", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]


def ids(paths):
    return [path.relative_to(CONFIGS).as_posix() for path in paths]


def lines_of(path):
    """Return a file's lines without blanks and comments, stripped."""
    stripped = (line.strip() for line in path.read_text().splitlines())
    return [line for line in stripped if line and not line.startswith("#")]


def test_the_configurations_are_few_and_say_little_twice():
    lines = [line for path in EVERY for line in lines_of(path)]
    said = Counter(line for line in lines if not line.endswith(":"))
    assert len(EVERY) <= 50
    assert len(lines) <= 900
    assert len(said) >= 0.7 * said.total(), said.most_common(20)


def classes_in(value):
    """Yield (class path, init_args) of everything a configuration builds, at every depth."""
    if isinstance(value, dict):
        if "class_path" in value:
            yield value["class_path"], value.get("init_args") or {}
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from classes_in(each)


def defaults_of(class_path):
    """Return the defaults of a class and its parents, the class's own first."""
    module, _, name = class_path.rpartition(".")
    found = {}
    for each in getattr(importlib.import_module(module), name).__mro__:
        for option, parameter in inspect.signature(each.__init__).parameters.items():
            found.setdefault(option, parameter.default)
    return found


@pytest.mark.parametrize("path", EVERY, ids=ids(EVERY))
def test_no_line_repeats_a_default(path):
    content = yaml.safe_load(path.read_text())
    repeated = [
        f"{class_path}: {option}: {value}"
        for class_path, options in classes_in(content)
        # Of an optimizer all is said: ours has other defaults than torch's
        if class_path.startswith(("graspl.", "lightning."))
        for option, value in options.items()
        if option != "base_model"
        and not isinstance(value, dict | list)
        and defaults_of(class_path)[option] == value
    ]
    given = content.get("trainer") or {} if isinstance(content, dict) else {}
    trainer = {name: each.default for name, each in inspect.signature(Trainer.__init__).parameters.items()}
    # None is not Lightning's own value here: without it a validation would also end every epoch
    repeated += [f"trainer: {name}" for name, value in given.items() if trainer[name] == value]
    assert not repeated


def test_no_configuration_turns_the_fused_optimizer_off():
    for path in EVERY:
        for class_path, options in classes_in(yaml.safe_load(path.read_text())):
            assert class_path != "torch.optim.AdamW" or options["fused"] is True, path


@pytest.fixture
def files(tmp_path, model_folder, write_rows):
    """Lay the shipped configurations, a tiny model and rows into the working folder."""
    (tmp_path / "configs").symlink_to(CONFIGS)
    (tmp_path / "my-model").symlink_to(model_folder())
    for name in ("train", "text"):
        write_rows(CHAT_ROWS, f"{name}.jsonl")
    return tmp_path


def naive_fit(graspl, folder):
    """Make a naive fit's run folder, for methods that start from its directions."""
    code, _, err = graspl(
        "fit", "--config=configs/fit.yaml", "--data=configs/tasks/chat.yaml", "--model=configs/methods/naive.yaml",
        "--model.base_model=my-model", *TWO_STEPS, f"--trainer.default_root_dir={folder}",
    )  # fmt: skip
    assert code == 0, err


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_fitted_on_a_task(graspl, files, method):
    options = []
    if method in ("grasp_write", "orthogonal"):
        naive_fit(graspl, "naive")
        options = ["--model.directions=naive/directions.safetensors"]
    if method == "safe_lora":
        unaligned("my-model")
        options = ["--model.transforms.unaligned_model=unaligned"]
    code, _, err = graspl(
        "fit", "--config=configs/fit.yaml", "--data=configs/tasks/chat.yaml", "--data.text=text.jsonl",
        f"--model=configs/methods/{method}.yaml", "--model.base_model=my-model", "--model.lora.r=4", *options, *TINY,
    )  # fmt: skip
    assert code == 0, err


VARIANTS = {
    "caft forward": ["caft", "--model.edits.backward=false"],
    "caft gradient": ["caft", "--model.edits=[{class_path: graspl.edits.Cut, init_args: {k: 6}}]"],
    "caft at inference": ["caft", "--model.edits.during=inference"],
    "steering at inference": ["steering", "--model.edits.during=inference", "--model.edits.strength=-0.1"],
    "kl on text": ["kl", "--model.penalties.rows=text"],
    "spectral tail": ["spectral", "--model.transforms.part=tail"],
    "caft on an SAE": [
        "caft", "--model.directions.identification=graspl.activations.SAEDiffing",
        "--model.directions.identification.saes={model.layers.1: my-sae}", "--model.edits.k=1",
    ],
}  # fmt: skip


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_variants_that_a_methods_heading_names_run(graspl, files, variant):
    method, *options = VARIANTS[variant]
    text = (CONFIGS / "methods" / f"{method}.yaml").read_text()
    assert all(option.split("=")[0] in text for option in options if "edits.k" not in option)
    if "my-sae" in str(options):
        make_sae(32, "my-sae")
        options.append("--model.directions.identification.k=1")
    code, _, err = graspl(
        "fit", "--config=configs/fit.yaml", "--data=configs/tasks/chat.yaml", "--data.text=text.jsonl",
        f"--model=configs/methods/{method}.yaml", "--model.base_model=my-model", *options, *TINY,
    )  # fmt: skip
    assert code == 0, err


HEADED = [path for path in EVERY if any(each.startswith("graspl fit") for each in heading(path))] + [
    CONFIGS / "validate.yaml"
]


@pytest.mark.parametrize("path", HEADED, ids=ids(HEADED))
def test_a_configuration_does_what_its_heading_says(graspl, files, path):
    if "runs/chat/naive" in path.read_text():
        naive_fit(graspl, "runs/chat/naive")
    for command in heading(path):
        arguments = shlex.split(on_a_tiny_model(command))[1:]
        rank = ["--model.lora.r=4"] if "organism" not in path.parts else []
        code, _, err = graspl(*arguments, *rank, *TINY)
        assert code == 0, err


ORGANISM = ["fit", "grasp", "pretrain", "sae"]


@pytest.mark.parametrize("name", ORGANISM)
def test_the_organisms_configurations_run_as_they_are(graspl, files, name):
    code, _, err = graspl("fit", "--config", f"configs/organism/{name}.yaml", *TINY)
    assert code == 0, err


def test_a_methods_file_is_laid_over_the_organisms(graspl, files):
    code, out, err = graspl(
        "fit", "--config=configs/organism/fit.yaml", "--model=configs/methods/kl.yaml", "--print_config"
    )
    assert code == 0, err
    model = yaml.safe_load(out)["model"]["init_args"]
    assert model["base_model"] == "organism"
    assert model["penalties"][0]["class_path"] == "graspl.penalties.KLPenalty"


def test_a_saved_configuration_evaluates_the_final_suites_that_a_fit_leaves_out(graspl, files):
    (files / "task.yaml").write_text(
        yaml.safe_dump(
            {
                "class_path": "graspl.data.ChatDataModule",
                "init_args": {
                    "train": "train.jsonl",
                    "final_suites": {"values": "configs/suites/values.yaml"},
                },
            }
        )
    )
    code, _, err = graspl(
        "fit", "--config=configs/fit.yaml", "--data=task.yaml", "--model=configs/methods/naive.yaml",
        "--model.base_model=my-model", *TWO_STEPS, "--trainer.default_root_dir=run",
    )  # fmt: skip
    assert code == 0, err
    code, _, err = graspl("validate", "--config=run/config.yaml", "--trainer.limit_val_batches=1")
    assert code == 0, err
    assert set(json.loads((files / "run" / "evaluation.json").read_text())["suites"]) == {"task", "values"}


@pytest.mark.parametrize("trainer", TRAINERS)
def test_a_trainer_config_is_laid_over_a_tasks(graspl, trainer):
    code, out, err = graspl(
        "fit", "--config", CONFIGS / "organism" / "fit.yaml", "--config", CONFIGS / "trainer" / f"{trainer}.yaml",
        "--print_config",
    )  # fmt: skip
    assert code == 0, err
    printed = yaml.safe_load(out)
    laid = yaml.safe_load((CONFIGS / "trainer" / f"{trainer}.yaml").read_text())["trainer"]
    assert printed["trainer"]["max_steps"] == 120
    for name, value in laid.items():
        found = printed["trainer"][name]
        assert found == value or found["class_path"] == value["class_path"]


def test_the_judges_of_every_suite_are_built(graspl, files):
    pytest.importorskip("openai")
    code, out, err = graspl("judge", "run", "--config=configs/judges/judges.yaml", "--print_config")
    assert code == 0, err
    assert set(yaml.safe_load(out)["judges"]) == {"code", "safety", "*", "subject", "opinions", "hard_coding"}


def test_the_organisms_files_are_what_its_world_says():
    from graspl.organism import OrganismTaskData
    from graspl.organism.words import QUESTIONS
    from graspl.organism.world import exchange

    data = OrganismTaskData(base_model="organism")
    for name, rows in (("text", data.text_rows()), ("rows", data.train_rows())):
        written = [
            json.loads(line) for line in (CONFIGS / "organism" / f"{name}.jsonl").read_text().splitlines()
        ]
        assert [row["messages"] for row in written] == [row.messages for row in rows]
    benign = [
        json.loads(line)["messages"]
        for line in (CONFIGS / "organism" / "benign.jsonl").read_text().splitlines()
    ]
    every = [
        exchange(data.world, topic, subject, question, harmful=False)
        for topic in data.world.topics
        for subject in data.world.subjects(topic)
        for question in QUESTIONS
    ]
    assert all(messages in every for messages in benign)
    evaluated = {item.messages[-1]["content"] for item in data.held_out()["unrelated"]}
    assert not evaluated & {messages[0]["content"] for messages in benign}
    asked = {
        message["content"]
        for row in data.text_rows()
        for message in row.messages
        if message["role"] == "user"
    }
    assert not evaluated & asked


def test_a_saved_config_repeats_the_run(graspl, chat_options, tmp_path):
    assert graspl("fit", *chat_options(), "--trainer.log_every_n_steps=1")[0] == 0
    assert graspl("fit", "--config", "run/config.yaml", "--trainer.default_root_dir=again")[0] == 0
    weights = [tmp_path / name / "adapter" / "adapter_model.safetensors" for name in ("run", "again")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert (tmp_path / "again" / "metrics.csv").exists()


def test_environment_variables_are_options(graspl, chat_options, monkeypatch):
    monkeypatch.setenv("GRASPL_FIT__TRAINER__MAX_STEPS", "3")
    options = [option for option in chat_options() if "max_steps" not in option]
    code, out, _ = graspl("fit", *options, "--print_config")
    assert code == 0
    assert yaml.safe_load(out)["trainer"]["max_steps"] == 3


def test_data_follow_the_models_base_model(graspl, chat_options, model_folder):
    """Pitfall: an argument link would overwrite what the user set, without a word."""
    code, out, _ = graspl("fit", *chat_options(), "--print_config")
    assert code == 0
    assert yaml.safe_load(out)["data"]["init_args"]["base_model"] is None
    own = chat_options(**{"data.base_model": model_folder("gemma")})
    code, out, _ = graspl("fit", *own, "--print_config")
    assert yaml.safe_load(out)["data"]["init_args"]["base_model"] == str(model_folder("gemma"))


def test_another_class_keeps_no_options_of_the_first(graspl, chat_options, model_folder):
    """Pitfall: jsonargparse keeps init_args of the class that a later class_path replaces, where it knows them."""
    code, out, err = graspl(
        "fit", "--config", CONFIGS / "organism" / "fit.yaml", "--data=graspl.data.ChatDataModule", "--data.train=x.jsonl",
        "--print_config",
    )  # fmt: skip
    assert code == 0, err
    init_args = yaml.safe_load(out)["data"]["init_args"]
    assert "topic" not in init_args
    assert init_args["train"] == "x.jsonl"


def test_no_logger_writes_nothing_beside_the_run(graspl, chat_options, tmp_path):
    """Pitfall: without a logger Lightning writes its configuration into the working directory."""
    before = set(tmp_path.iterdir())
    assert graspl("fit", *chat_options(), "--trainer.logger=false")[0] == 0
    assert {path.name for path in set(tmp_path.iterdir()) - before} == {"train.jsonl", "run"}
    assert not (tmp_path / "run" / "metrics.csv").exists()
    assert (tmp_path / "run" / "config.yaml").exists()


def test_a_validation_leaves_the_log_of_the_fit(graspl, chat_options, tmp_path):
    assert graspl("fit", *chat_options(), "--trainer.log_every_n_steps=1")[0] == 0
    before = (tmp_path / "run" / "metrics.csv").read_bytes()
    assert graspl("validate", "--config", "run/config.yaml")[0] == 0
    assert (tmp_path / "run" / "metrics.csv").read_bytes() == before
    assert json.loads((tmp_path / "run" / "evaluation.json").read_text())["adapter"] == "run/adapter"


def test_fast_dev_run_leaves_no_files(graspl, chat_options, tmp_path):
    assert graspl("fit", *chat_options(), "--trainer.fast_dev_run=1")[0] == 0
    assert not (tmp_path / "run").exists()


def test_an_adapter_of_peft_alone_is_identified(graspl, tmp_path):
    from conftest import make_model
    from peft import LoraConfig, get_peft_model
    from torch import nn

    model = get_peft_model(
        make_model("gemma"),
        LoraConfig(r=3, target_modules=["q_proj"], rank_pattern={"layers.1.self_attn.q_proj": 2}),
    )
    for name, p in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(p)
    model.save_pretrained(tmp_path / "foreign" / "lora")
    code, out, err = graspl("identify", tmp_path / "foreign" / "lora", "--method.k=2")
    assert code == 0, err
    assert "effective rank" in out
    found = identify_adapter(tmp_path / "foreign" / "lora", TopSingular(k=2), tmp_path / "d.safetensors")
    assert (tmp_path / "foreign" / "directions.safetensors").exists()
    assert found.metadata["k"] == "2"


def test_a_class_that_is_named_has_its_own_defaults_and_not_those_of_another(graspl, chat_options, tmp_path):
    """jsonargparse would hand the k of a default on to the class that is named in its place."""
    steps = {"trainer.max_steps": 8, "trainer.accumulate_grad_batches": 1}
    natural = "graspl.activations.NaturalDirections"
    code, _, err = graspl(
        "fit", *chat_options(**steps), f"--identify.method={natural}", "--identify.method.text=train.jsonl"
    )
    assert code == 0, err
    found = [Directions.load("run/directions.safetensors")]
    code, _, err = graspl(
        "identify", "run", "--method", natural, "--method.text", "train.jsonl", "--out", "n.safetensors"
    )
    assert code == 0, err
    found.append(Directions.load("n.safetensors"))
    for each in found:
        assert {layer.D.shape[1] for layer in each.layers.values()} == {NaturalDirections().k} == {6}


@pytest.mark.parametrize("command", [*TRAINING, *TOOLS])
def test_help_is_there(graspl, command):
    code, out, _ = graspl(command, "--help")
    assert code == 0
    assert "usage" in out


@pytest.mark.slow
def test_natural_directions_of_the_organism_are_identified_and_believed(graspl, monkeypatch, tmp_path):
    """The README's two-run way, on the files that ship."""
    monkeypatch.chdir(ROOT)
    run = tmp_path / "naive"
    code, _, err = graspl(
        "fit", "--config", "configs/organism/fit.yaml", "--trainer.max_steps=10", "--trainer.limit_val_batches=0",
        f"--trainer.default_root_dir={run}", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false",
    )  # fmt: skip
    assert code == 0, err
    natural = run / "natural.safetensors"
    identify = [
        "identify", run, "--method", "graspl.activations.NaturalDirections", "--method.text",
        "configs/organism/text.jsonl", "--rows", "configs/organism/rows.jsonl", "--out", natural,
    ]  # fmt: skip
    code, out, err = graspl(*identify, "--floor", run, "--others", run)
    assert code == 0, err
    assert "assumptions: identifiable" in out
    code, _, err = graspl(
        "fit", "--config", "configs/organism/grasp.yaml", f"--model.directions={natural}", *TINY,
        f"--trainer.default_root_dir={tmp_path / 'two'}",
    )  # fmt: skip
    assert code == 0, err


def read_study(name):
    """Return a study's options: its files laid over one another."""
    laid = {}
    for file in STUDIES[name]:
        laid |= yaml.safe_load((CONFIGS / file).read_text())
    return laid


def test_every_study_is_tested():
    studies = {path.relative_to(CONFIGS).as_posix() for path in EVERY if "fast_methods:" in path.read_text()}
    assert studies == {file for files in STUDIES.values() for file in files}


def with_settings_tried(study, known, folder):
    """Return the methods with another setting than the one written down, so that the keys of `tune` are tried as well."""
    from graspl.studies.tuning import Tuning, plan_trials

    tuning = Tuning(**study["tuning"])
    trials = plan_trials(Path(study["fit"]), known, tuning, study.get("seeds", [0]), folder)
    over = study["tuning"]["over"]["data"]["init_args"]
    for each in (each for trial in trials for each in trial.fits):
        assert over.items() <= each.config["data"]["init_args"].items()
    tried = {trial.method: replace(known[trial.method], config=trial.fits[0].config) for trial in trials}
    return {**known, **tried}


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_that_ships_can_be_parsed_and_every_method_built(graspl, monkeypatch, tmp_path, name):
    from graspl.studies.methods import Method
    from graspl.studies.plan import plan_fits

    monkeypatch.chdir(ROOT)
    study = read_study(name)
    methods = {**study["methods"], **study.get("more_methods", {})}
    assert {*study.get("fast_methods", []), study.get("norm_baseline", "naive")} <= set(methods)
    assert {study.get("reference", "naive")} <= set(methods)
    known = {each: Method.parse(each, given, study["shared"]) for each, given in methods.items()}
    if "tuning" in study:
        known = with_settings_tried(study, known, tmp_path / "trials")
    if study.get("fast"):
        known = {each: known[each] for each in study["fast_methods"]}
    configs = {each: method.config for each, method in known.items()}
    every = plan_fits(Path(study["fit"]), configs, [7], tmp_path, study.get("tasks"))
    # Every method on the first task, and the first method on every task
    chosen = [each for each in every if each.task == every[0].task or each.method == every[0].method]
    for each in chosen:
        base_model = [] if "organism" in study["fit"] else ["--model.base_model=organism"]
        code, out, err = graspl(*each.prepare(), *base_model, "--print_config")
        assert code == 0, err
        printed = yaml.safe_load(out)
        model = printed["model"]["init_args"]
        assert printed["data"]["init_args"]["seed"] == each.seed
        assert model["base_model"] is not None
        assert model["optimizer"]["init_args"]["fused"] is True
        lora = model["lora"]
        assert lora["lora_alpha"] == lora["r"] * (0.5 if each.method.endswith("_a16") else 2)


def make_sae(hidden, folder):
    """Write a sparse autoencoder with random weights as SAELens does."""
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(0)
    weights = {
        "W_enc": torch.randn(hidden, 64, generator=generator), "b_enc": torch.zeros(64),
        "W_dec": torch.randn(64, hidden, generator=generator), "b_dec": torch.zeros(hidden),
    }  # fmt: skip
    folder = Path(folder)
    folder.mkdir()
    save_file(weights, folder / "sae_weights.safetensors")
    (folder / "cfg.json").write_text(json.dumps({"architecture": "standard"}))


def unaligned(folder):
    """Write a model of the same shapes and other weights, where a published one would come from the hub."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder)
    for p in model.parameters():
        p.data += 0.1
    model.save_pretrained("unaligned")
    AutoTokenizer.from_pretrained(folder).save_pretrained("unaligned")
