"""Files that are broken in any way get one line and exit code 2, or are used; never a traceback, never a partial file.

`make fuzz` lets these run for five minutes, on other examples each time, or on those of a seed.
"""

import json
import os
import random
import shutil
import time
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest
import torch
import whole_loop
import yaml
from conftest import CHAT_ROWS, REPOSITORY, make_model
from endpoint import Stub, completion
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from peft import get_peft_model
from records import recorded

from graspl.adapters import LoraOptions, lora_sites
from graspl.cli import main
from graspl.data.rows import read_conversations
from graspl.directions import Directions, LayerSingular, TopSingular, identify_adapter
from graspl.errors import GrasplError

# A failing example of many bytes is long to read, and still wanted
pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")

SECONDS = float(os.environ.get("GRASPL_FUZZ_SECONDS", "0"))
"""For each of the tests here; 0 runs a fixed few examples."""
SEED = os.environ.get("GRASPL_FUZZ_SEED", "")
"""Where examples are drawn from; other ones each time where it is empty."""


def explore(check, strategy, examples):
    """Give a check so many examples, or new ones until the time is over.

    Hypothesis knows no time, so it is started again and again.
    """
    end = time.monotonic() + SECONDS
    options = settings(
        max_examples=examples, derandomize=not SECONDS, suppress_health_check=list(HealthCheck), database=None
    )
    for number in count():
        test = options(given(strategy)(check))
        if SECONDS and SEED:
            test = seed(int(SEED) + number)(test)
        test()
        if time.monotonic() >= end:
            return


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8),
    st.sampled_from(["", "null", "~", "../..", "/", "\x00", "1e999", "nan", "-1", "graspl.data.ChatDataModule", "os.system"]),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


@st.composite
def changed(draw, content):
    """Return JSON-like content with a few values replaced, removed or added."""
    content = json.loads(json.dumps(content))
    for _ in range(draw(st.integers(1, 3))):
        place = content
        while isinstance(place, dict | list) and place:
            key = draw(st.sampled_from(sorted(place) if isinstance(place, dict) else list(range(len(place)))))
            if draw(st.booleans()) or not isinstance(place[key], dict | list) or not place[key]:
                kind = draw(st.sampled_from(["replace", "remove", "add"]))
                if kind == "replace":
                    place[key] = draw(VALUES)
                elif kind == "remove":
                    del place[key]
                elif isinstance(place, dict):
                    place[draw(st.text(max_size=6))] = draw(VALUES)
                break
            place = place[key]
    return content


@st.composite
def mangled(draw, data):
    """Return bytes with some flipped, cut off, doubled or put in."""
    data = bytearray(data)
    source = random.Random(draw(st.integers(0, 2**32)))
    kind = draw(st.sampled_from(["flip", "header", "cut", "double", "insert", "empty"]))
    if kind == "flip":
        for _ in range(draw(st.integers(1, 20))):
            data[source.randrange(len(data))] ^= 1 << source.randrange(8)
    elif kind == "header":
        for _ in range(draw(st.integers(1, 4))):
            data[source.randrange(min(len(data), 400))] = source.randrange(256)
    elif kind == "cut":
        del data[source.randrange(len(data)) :]
    elif kind == "double":
        data += data[source.randrange(len(data)) :]
    elif kind == "insert":
        at = source.randrange(len(data))
        data[at:at] = bytes(source.randrange(256) for _ in range(draw(st.integers(1, 64))))
    else:
        data.clear()
    return bytes(data)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    """Return an adapter's folder; beside it directions of its sites and of its layers."""
    torch.manual_seed(0)
    model = get_peft_model(make_model("llama"), LoraOptions(r=4).to_peft())
    for site in lora_sites(model):
        site.B.data.normal_()
    folder = tmp_path_factory.mktemp("fuzz") / "adapter"
    model.save_pretrained(folder, save_embedding_layers=False)
    identify_adapter(folder, TopSingular(k=2), folder.with_name("sites.safetensors"))
    identify_adapter(folder, LayerSingular(k=2), folder.with_name("layers.safetensors"))
    return folder


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """Return a function that runs a command, which must end well or with one line."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        capsys.readouterr()
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = end.code
        err = capsys.readouterr().err
        assert code in (0, 1, 2)
        if code == 2:
            complaints = [line for line in err.splitlines() if "error" in line]
            assert complaints, err
        assert "Traceback" not in err
        return code

    return call


def nothing_half_written(folder: Path, *, code: int) -> None:
    assert not list(folder.rglob(".*")), "a temporary file was left"
    if code == 2:
        assert not (folder / "audit").exists()


@pytest.mark.parametrize("kind", ["sites", "layers"])
def test_directions_files(adapter, run, tmp_path, kind):
    whole = adapter.with_name(f"{kind}.safetensors").read_bytes()
    file = tmp_path / "broken.safetensors"

    def check(data):
        file.write_bytes(data)
        code = run("audit", adapter, "--directions", json.dumps([str(file)]))
        nothing_half_written(tmp_path, code=code)
        if code != 2:
            (tmp_path / "audit" / "audit.json").unlink()
            (tmp_path / "audit" / "audit.html").unlink()
            (tmp_path / "audit").rmdir()

    explore(check, mangled(whole), 40)


def test_adapter_weights(adapter, run, tmp_path):
    whole, config = (
        (adapter / "adapter_model.safetensors").read_bytes(),
        (adapter / "adapter_config.json").read_text(),
    )
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(config)

    def check(data):
        (folder / "adapter_model.safetensors").write_bytes(data)
        code = run("identify", folder, "--out", "found.safetensors")
        assert (tmp_path / "found.safetensors").exists() == (code == 0)
        if code == 0:
            Directions.load(tmp_path / "found.safetensors")
            (tmp_path / "found.safetensors").unlink()
        nothing_half_written(tmp_path, code=0)

    explore(check, mangled(whole), 40)


def test_adapter_configurations(adapter, run, tmp_path):
    config = json.loads((adapter / "adapter_config.json").read_text())
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes((adapter / "adapter_model.safetensors").read_bytes())

    def check(content):
        (folder / "adapter_config.json").write_text(json.dumps(content))
        run("identify", folder, "--out", "found.safetensors")
        nothing_half_written(tmp_path, code=0)

    explore(check, changed(config), 40)


@pytest.mark.parametrize(
    ("command", "name"), [("fit", "organism/fit"), ("fit", "organism/grasp"), ("validate", "organism/fit")]
)
def test_configurations(run, tmp_path, command, name):
    content = yaml.safe_load((REPOSITORY / "configs" / f"{name}.yaml").read_text())
    file = tmp_path / "broken.yaml"

    def check(content):
        file.write_text(yaml.safe_dump(content))
        run(command, "--config", file, "--print_config")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.yaml"]

    explore(check, changed(content), 12)


def test_configurations_that_are_no_yaml(run, tmp_path):
    file = tmp_path / "broken.yaml"

    def check(data):
        file.write_bytes(data)
        run("fit", "--config", file, "--print_config")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.yaml"]

    explore(
        check,
        mangled((REPOSITORY / "configs" / "organism" / "grasp.yaml").read_bytes()) | st.binary(max_size=60),
        25,
    )


@pytest.mark.parametrize("ending", ["jsonl", "json", "yaml", "tsv", "csv"])
def test_rows(tmp_path, ending):
    lines = "\n".join(json.dumps(row) for row in CHAT_ROWS[:4]).encode()
    whole = {
        "jsonl": lines, "json": json.dumps(CHAT_ROWS[:4]).encode(), "yaml": yaml.safe_dump(CHAT_ROWS[:4]).encode(),
        "tsv": b"prompt\tcompletion\nhow\tso\n", "csv": b"prompt,completion\nhow,so\n",
    }[ending]  # fmt: skip
    file = tmp_path / f"rows.{ending}"

    def check(data):
        file.write_bytes(data)
        with suppress(GrasplError):
            assert all(row.messages for row in read_conversations(str(file)))

    explore(
        check,
        mangled(whole)
        | st.binary(max_size=80)
        | changed(CHAT_ROWS[:2]).map(lambda rows: json.dumps(rows).encode()),
        100,
    )


def test_evaluations_that_a_report_reads(run, tmp_path):
    content = {
        "model": "LoRALitModule", "adapter": "a", "directions": None,
        "metrics": {"adherence": 0.9, "spillover": 0.5, "kl": 0.1},
        "suites": {"task": {"harmful": 0.5}, "unrelated": {"harmful": 0.4}},
        "sites": {"layers.0.q_proj": {"rho": 0.5, "norm": 1.0, "singular_values": [1.0, 0.5]}},
    }  # fmt: skip
    folder = tmp_path / "run"
    folder.mkdir()

    def check(content):
        (folder / "evaluation.json").write_text(json.dumps(content))
        recorded(folder)
        code = run("report", folder, "--out", "together")
        assert (tmp_path / "together" / "report.html").exists() == (code == 0)
        for file in (tmp_path / "together").glob("*"):
            file.unlink()

    explore(check, changed(content), 25)


# Files of the whole loop, each with a quick command that reads it
KINDS = {
    "naive/generations.jsonl": "judge", "judges.yaml": "judge", "cache.sqlite": "judge from a cache",
    "rubrics.yaml": "judge from a cache", "naive/items.jsonl": "report", "naive/metrics.csv": "report",
    "naive/judged.json": "report", "naive/lineage.json": "verify", "naive/judgements.jsonl": "contrast",
    "naive/checkpoints/last.ckpt": "identify a checkpoint", "study.yaml": "compare",
    "study/naive/seed_0/study.json": "compare", "study/naive/seed_0/cost.json": "compare",
    "model/config.json": "plan", "model/model.safetensors": "explain", "model/tokenizer.json": "explain",
    "model/tokenizer_config.json": "explain", "model/chat_template.jinja": "explain", "sae/cfg.json": "identify by an SAE",
    "sae/sae_weights.safetensors": "identify by an SAE", "naive/layers.explanation.json": "report",
    "naive/directions.assumptions.json": "report",
}  # fmt: skip


@pytest.fixture(scope="module")
def loop(tmp_path_factory):
    """Return the folder of a whole loop that was run once."""
    folder, server = tmp_path_factory.mktemp("loop"), Stub(lambda prompt, number: (200, completion("80")))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        whole_loop.build(folder, lambda *arguments: main(list(arguments)), server.url)
        yield folder
    server.server.shutdown()
    server.server.server_close()


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_file(loop, run, tmp_path, monkeypatch, name):
    shutil.copytree(loop, tmp_path / "loop")
    monkeypatch.chdir(tmp_path / "loop")
    monkeypatch.setattr(
        "graspl.studies.workers.run_fits", lambda fits, **_: ((each, "not run") for each in fits)
    )
    file, whole = tmp_path / "loop" / name, (loop / name).read_bytes()
    ways = mangled(whole)
    if file.suffix == ".json":
        ways |= changed(json.loads(whole)).map(lambda content: json.dumps(content).encode())

    def check(data):
        file.write_bytes(data)
        if name.startswith("naive/") and file.name not in ("lineage.json", "last.ckpt"):
            recorded(tmp_path / "loop" / "naive")
        run(*whole_loop.COMMANDS[KINDS[name]])

    explore(check, ways, 4)
