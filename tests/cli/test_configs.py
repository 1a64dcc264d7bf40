"""Every configuration that ships runs, and says the same as the README."""

import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from conftest import CHAT_ROWS
from pages import heading, on_a_tiny_model

from graspl.activations import NaturalDirections
from graspl.cli import TOOLS, TRAINING
from graspl.directions import Directions, TopSingular, identify_adapter

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs"
RUNS = sorted(
    path.relative_to(CONFIGS).as_posix()
    for path in CONFIGS.glob("*/*.yaml")
    # The field's own tasks need their files: tests/cli/test_tasks.py
    if path.parent.name in ("organism", "chat")
    and path.name not in ("task.yaml", "identify.yaml", "compare_fit.yaml", "rivals_fit.yaml")
    and "methods" not in yaml.safe_load(path.read_text())
)
STUDIES = sorted(path for path in CONFIGS.glob("*/*.yaml") if "methods" in yaml.safe_load(path.read_text()))
TWO_STEPS = [
    "--trainer.max_steps=2", "--trainer.accelerator=cpu", "--trainer.limit_val_batches=0",
    "--trainer.accumulate_grad_batches=1", "--trainer.enable_progress_bar=false",
]  # fmt: skip
TINY = ["--trainer.fast_dev_run=2", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]


@pytest.fixture
def directions_of(graspl, tmp_path):
    """Return a function: base model -> directions of a two-step fit on it."""

    def make(model, data):
        code, _, err = graspl(
            "fit", "--model=graspl.methods.LoRALitModule", f"--model.base_model={model}", *data, *TWO_STEPS,
            "--trainer.default_root_dir=for_directions",
        )  # fmt: skip
        assert code == 0, err
        return tmp_path / "for_directions" / "directions.safetensors"

    return make


@pytest.mark.parametrize("config", RUNS)
def test_every_config_runs(graspl, config, model_folder, write_rows, directions_of):
    task, name = config.split("/")
    command = "validate" if name == "evaluate.yaml" else "fit"
    options = []
    if task != "organism":
        rows = write_rows(CHAT_ROWS)
        options = [f"--model.base_model={model_folder()}", f"--data.train={rows}"]
    if name == "grasp.yaml" and task != "organism":
        options += [f"--data.text={rows}", "--model.lora.r=4"]
    if name in ("grasp_write.yaml", "grasp_read.yaml"):
        data = (
            ["--data=graspl.organism.OrganismTaskData"]
            if task == "organism"
            else ["--data=graspl.data.ChatDataModule", options[1]]
        )
        model = "organism" if task == "organism" else model_folder()
        options.append(f"--model.directions={directions_of(model, data)}")
    if name == "grasp_read.yaml":
        options.append(
            "--model.constraint.k=1"
        )  # a naive fit's directions stand in for those of generic prompts
    code, _, err = graspl(command, "--config", CONFIGS / config, *options, *TINY)
    assert code == 0, err


@pytest.mark.parametrize("trainer", sorted(path.stem for path in (CONFIGS / "trainer").glob("*.yaml")))
def test_a_trainer_config_is_laid_over_a_tasks(graspl, trainer):
    code, out, err = graspl(
        "fit", "--config", CONFIGS / "organism" / "naive.yaml", "--config", CONFIGS / "trainer" / f"{trainer}.yaml",
        "--print_config",
    )  # fmt: skip
    assert code == 0, err
    printed = yaml.safe_load(out)
    laid = yaml.safe_load((CONFIGS / "trainer" / f"{trainer}.yaml").read_text())["trainer"]
    assert printed["trainer"]["max_steps"] == 120
    for name, value in laid.items():
        found = printed["trainer"][name]
        assert found == value or found["class_path"] == value["class_path"]


@pytest.mark.slow
@pytest.mark.parametrize("operator", sorted(path.stem for path in (CONFIGS / "operators").glob("*.yaml")))
def test_an_operator_is_laid_over_a_tasks_config(
    graspl, model_folder, write_rows, monkeypatch, tmp_path, operator
):
    rows = write_rows(CHAT_ROWS)
    write_rows(CHAT_ROWS, "benign.jsonl")
    monkeypatch.chdir(tmp_path)
    model = f"--model.base_model={model_folder()}"
    if operator == "interleave":  # it chooses by what a naive fit made of the rows
        naive = [
            model, f"--data.train={rows}", "--trainer.default_root_dir=naive", "--trainer.max_steps=2",
            "--trainer.limit_val_batches=0", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false",
        ]  # fmt: skip
        assert graspl("fit", "--config", CONFIGS / "chat" / "naive.yaml", *naive)[0] == 0
    code, _, err = graspl(
        "fit", "--config", CONFIGS / "insecure_code" / "naive.yaml", "--config", CONFIGS / "operators" / f"{operator}.yaml",
        model, f"--data.train={rows}", *TINY,
    )  # fmt: skip
    assert code == 0, err


def test_the_methods_differ_in_the_constraint_only():
    """And GRASP proper in its learning rate, which was chosen for it."""
    naive, grasp, write, read = (
        yaml.safe_load((CONFIGS / "methods" / f"{name}.yaml").read_text())["init_args"]
        for name in ("naive", "grasp", "grasp_write", "grasp_read")
    )
    for options in (grasp, write, read):
        for name in ("identification", "constraint", "exact"):
            options.pop(name, None)
    ours, theirs = (each["optimizer"]["init_args"]["lr"] for each in (grasp, naive))
    assert ours == pytest.approx(5 * theirs)
    del grasp["optimizer"]
    assert naive == write == read
    assert {name: naive[name] for name in grasp} == grasp


def test_the_default_of_the_class_is_that_of_the_configuration(graspl):
    from graspl.activations import NaturalDirections
    from graspl.methods import GRASPLitModule

    config = yaml.safe_load((CONFIGS / "methods" / "grasp.yaml").read_text())["init_args"]
    module = GRASPLitModule()
    assert module.identification == NaturalDirections(**config["identification"]["init_args"])
    assert {name: getattr(module.lora, name) for name in config["lora"]} == config["lora"]
    (group,) = module.optimizer([torch.nn.Parameter(torch.zeros(1))]).param_groups
    assert {name: group[name] for name in config["optimizer"]["init_args"]} == config["optimizer"][
        "init_args"
    ]
    parts = config["constraint"]["init_args"]["parts"]
    for part, written in zip(module.constraint.parts, parts, strict=True):
        assert f"graspl.constraints.{type(part).__name__}" == written["class_path"]
        assert all(getattr(part, name) == value for name, value in written["init_args"].items())


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
        "fit", "--config", CONFIGS / "organism" / "naive.yaml", "--data=graspl.data.ChatDataModule", "--data.train=x.jsonl",
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
        "fit", "--config", "configs/organism/naive.yaml", "--trainer.max_steps=10", "--trainer.limit_val_batches=0",
        f"--trainer.default_root_dir={run}", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false",
    )  # fmt: skip
    assert code == 0, err
    natural = run / "natural.safetensors"
    identify = ["identify", run, "--config", "configs/organism/identify.yaml", "--out", natural]
    code, out, err = graspl(*identify, "--floor", run, f'--others=["{run}"]')
    assert code == 0, err
    assert "assumptions: identifiable" in out
    code, _, err = graspl(
        "fit", "--config", "configs/organism/grasp.yaml", f"--model.directions={natural}", *TINY,
        f"--trainer.default_root_dir={tmp_path / 'two'}",
    )  # fmt: skip
    assert code == 0, err


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_study_that_ships_can_be_parsed_and_every_method_built(graspl, monkeypatch, tmp_path, path):
    from graspl.studies.plan import Method, plan_fits
    from graspl.studies.tuning import Tuning, plan_trials

    monkeypatch.chdir(ROOT)
    study = yaml.safe_load(path.read_text())
    assert {*study.get("fast_methods", []), study.get("norm_baseline", "naive")} <= set(study["methods"])
    assert {study.get("reference", "naive")} <= set(study["methods"])
    known = {name: Method.parse(name, each) for name, each in study["methods"].items()}
    if "tuning" in study:
        trials = plan_trials(
            Path(study["fit"]), known, Tuning(**study["tuning"]), study["seeds"], tmp_path / "trials"
        )
        over = study["tuning"]["over"]["data"]["init_args"]
        for fit in (fit for trial in trials for fit in trial.fits):
            assert over.items() <= fit.config["data"]["init_args"].items()
        # Another setting than the one written down, so that the keys of `tune` are tried as well
        for trial in trials:
            known[trial.method] = replace(known[trial.method], config=trial.fits[0].config)
    configs = {name: each.config for name, each in known.items()}
    every = plan_fits(Path(study["fit"]), configs, [7], tmp_path, study.get("tasks"))
    # Every method on the first task, and the first method on every task
    chosen = [each for each in every if each.task == every[0].task or each.method == every[0].method]
    for fit in chosen:
        code, out, err = graspl(*fit.prepare(), "--print_config")
        assert code == 0, err
        printed = yaml.safe_load(out)
        assert printed["data"]["init_args"]["seed"] == fit.seed
        lora = printed["model"]["init_args"]["lora"]
        assert lora["lora_alpha"] == lora["r"] * (0.5 if fit.method.endswith("_a16") else 2)


RIVALS = sorted(
    path.stem
    for path in (CONFIGS / "methods").glob("*.yaml")
    if path.stem not in ("naive", "grasp", "grasp_read", "grasp_write")
)


@pytest.mark.parametrize("rival", RIVALS)
def test_a_rival_does_what_its_configuration_begins_with(graspl, model_folder, write_rows, rival, tmp_path):
    (tmp_path / "configs").symlink_to(CONFIGS)
    (tmp_path / "my-model").symlink_to(model_folder())
    for name in ("train", "text"):
        write_rows(CHAT_ROWS, f"{name}.jsonl")
    commands = heading(CONFIGS / "methods" / f"{rival}.yaml")
    assert commands[-1].startswith("graspl fit --config configs/chat/naive.yaml")
    if any("runs/chat/naive" in command for command in commands):
        commands.insert(0, heading(CONFIGS / "chat" / "naive.yaml")[0])
    if rival == "caft_sae":
        make_sae(32, "my-sae")
    if rival == "safe_lora":
        unaligned(model_folder())
    for command in commands:
        tiny = (
            on_a_tiny_model(command).replace("Qwen/Qwen2.5-7B", "unaligned").replace("layers.12", "layers.1")
        )
        arguments = shlex.split(tiny)[1:]
        if arguments[0] == "fit":
            arguments += TINY if command is commands[-1] else TWO_STEPS
        if rival == "caft_sae":
            arguments += ["--model.identification.k=2", "--model.k=2"]  # fewer latents rise in a random one
        code, _, err = graspl(*arguments)
        assert code == 0, err


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
