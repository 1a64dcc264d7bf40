"""Files that would take all time or memory: refused in one line, under limits that docs/reliability.md names."""

import gzip
import json
import struct

import pytest
from conftest import CHAT_ROWS, make_model, make_tokenizer

from graspl.adapters import load_base_model, load_tokenizer
from graspl.data import limits, read_conversations
from graspl.data.tokens import with_chat_template
from graspl.errors import GrasplError
from graspl.runs import parse_yaml

pytestmark = pytest.mark.usefixtures("soon")


@pytest.fixture
def model(tmp_path):
    """Return a tiny model's folder."""
    make_model("llama").save_pretrained(tmp_path / "model")
    make_tokenizer().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


DOUBLES = "{% set ns = namespace(x='aaaaaaaa') %}{% for i in range(40) %}{% set ns.x = ns.x + ns.x %}{% endfor %}{{ ns.x }}"
LOOPS = "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "says"),
    [
        (DOUBLES, "(more than 1024 MiB|not end within)"),
        ("{{ 'a' * 10 ** 12 }}", "more than 1024 MiB of memory"),
        (LOOPS, "does not end within 1 seconds"),
        ("{{ 7 ** (7 ** 12) % 10 }}", "does not end within 1 seconds"),
    ],
    ids=["doubled string", "long string", "loops", "power"],
)
def test_without_end_templates(template, says, monkeypatch):
    monkeypatch.setattr(limits, "SECONDS", 1)
    with pytest.raises(GrasplError, match=f"the chat template of .* {says}"):
        with_chat_template(make_tokenizer(template))


@pytest.mark.parametrize(
    "template",
    [
        "{{ 1 / 0 }}",
        "{{ messages.x.y }}",
        "{% for %}",
        "{{ none + 1 }}",
        "{{ raise_exception('no') }}",
        "{{ range(10**9) }}",
    ],
)
def test_broken_files_templates(template, graspl, chat_options, model):
    """A template that fails is told as such, where it is used."""
    (model / "chat_template.jinja").write_text(template)
    code, _, err = graspl("fit", *chat_options(**{"model.base_model": model}))
    assert code == 2
    assert "chat template refuses" in err


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("num_hidden_layers", 4000, "num_hidden_layers is 4000 in config.json, above the limit of 1000"),
        ("num_hidden_layers", 10**9, "above the limit of 1000"),
        ("num_attention_heads", 10**9, "above the limit of 10000"),
        ("hidden_size", 10**9, "config.json demands"),
        ("vocab_size", 10**12, "config.json demands"),
        ("intermediate_size", 10**9, "config.json demands"),
        ("num_attention_heads", 0, "base_model"),
        ("num_key_value_heads", 0, "base_model"),
    ],
)
def test_without_end_configurations(field, value, says, model):
    file = model / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {field: value}))
    with pytest.raises(GrasplError, match=says):
        load_base_model(str(model))


@pytest.mark.parametrize("value", [4000, 10**9])
def test_without_end_layers_of_a_plan(value, model, graspl):
    file = model / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"num_hidden_layers": value}))
    code, _, err = graspl("plan", model)
    assert code == 2
    assert "above the limit of 1000" in err


def test_without_end_headers_of_weights(model):
    """A header that claims 10**15 bytes is refused before they are taken."""
    header = json.dumps({"x": {"dtype": "F32", "shape": [250, 10**12], "data_offsets": [0, 10**15]}}).encode()
    (model / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(GrasplError, match="not readable as safetensors"):
        load_base_model(str(model))
    (model / "model.safetensors").write_bytes(struct.pack("<Q", 10**15) + b"{}")
    with pytest.raises(GrasplError, match="not readable as safetensors"):
        load_base_model(str(model))


def test_without_end_the_model_itself_loads(model):
    assert load_base_model(str(model)).config.num_hidden_layers == 2
    assert with_chat_template(load_tokenizer(str(model))).chat_template


def test_without_end_packed_rows(tmp_path):
    file = tmp_path / "rows.jsonl.gz"
    file.write_bytes(gzip.compress(b"0" * 10**8))
    with pytest.raises(GrasplError, match=r"unpacks to more than|characters"):
        read_conversations(str(file))
    file.write_bytes(gzip.compress(b"".join(json.dumps(row).encode() + b"\n" for row in CHAT_ROWS)))
    assert len(read_conversations(str(file))) == len(CHAT_ROWS)


@pytest.mark.parametrize("ending", ["jsonl", "json", "yaml"])
def test_without_end_depth(ending, tmp_path):
    file = tmp_path / f"rows.{ending}"
    file.write_text("[" * 100_000)
    with pytest.raises(GrasplError, match="nested too deeply"):
        read_conversations(str(file))


def test_without_end_references(tmp_path):
    """References that refer to references: a text of 500 bytes that would become 10**9 values."""
    lines = ["a0: &a0 [1, 1]"] + [
        f"a{n}: &a{n} [" + ", ".join([f"*a{n - 1}"] * 10) + "]" for n in range(1, 10)
    ]
    with pytest.raises(ValueError, match="its references make more than"):
        parse_yaml("\n".join(lines))
    with pytest.raises(ValueError, match="refers to itself"):
        parse_yaml("&a [*a]")
    assert parse_yaml("a: &a [1, 2]\nb: *a") == {"a": [1, 2], "b": [1, 2]}
    (tmp_path / "rows.yaml").write_text("\n".join(lines))
    with pytest.raises(GrasplError, match="its references make more than"):
        read_conversations(str(tmp_path / "rows.yaml"))
