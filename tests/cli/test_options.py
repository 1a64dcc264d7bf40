"""A command's options come from its function, and the front door prints what it returns."""

import re
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
from jsonargparse import ArgumentError, ArgumentParser
from rich.table import Table

from graspl.cli import TOOLS, _show
from graspl.commands.options import add_options, parse_arguments
from graspl.errors import GrasplError
from graspl.training_cli import GrasplCLI


def compare(
    runs: list[Path],
    other: Path,
    *,
    names: list[str] | None = None,
    at: Sequence[float] = (0.5,),
    k: int = 4,
):
    """Compare runs.

    Each with each.

    Args:
        runs: folders.
        other: another folder.
        names: of the runs.
        at: places.
        k: directions.
    """


@pytest.fixture
def parser():
    found = ArgumentParser(exit_on_error=False)
    add_options(found, compare)
    return found


def test_lists_take_several_values_and_the_rest_keeps_its_default(parser):
    found = parser.parse_args(["a", "b", "c", "--names", "x", "y", "--at", "0.1", "1"])
    assert found.runs == [Path("a"), Path("b")]
    assert (found.other, found.names, found.at, found.k) == (Path("c"), ["x", "y"], [0.1, 1.0], 4)
    assert parser.parse_args(["a", "b"]).names is None


def test_what_the_docstring_says_is_the_help(parser):
    text = " ".join(parser.format_help().split())
    for said in (
        "Compare runs. Each with each.",
        "folders. (required",
        "of the runs.",
        "directions. (type: int",
    ):
        assert said in text


def test_a_required_list_is_asked_for(parser):
    with pytest.raises(ArgumentError, match="runs"):
        parser.parse_args([])


def test_tables_and_lines_are_printed_as_they_are(capsys):
    table = Table("a title")
    table.add_row("[bold]")
    _show([table, "[red] " + "x" * 200])
    out = capsys.readouterr().out
    assert "a title" in out
    assert "[red] " + "x" * 200 in out.splitlines()


@pytest.mark.parametrize("command", TOOLS)
def test_every_command_has_help_that_fits_80_columns(command, graspl, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = graspl(command, "--help")
    assert code == 0
    assert "ENV:" not in out
    undocumented = re.findall(r"(--[\w.]+) [A-Z_]+ \(type:", " ".join(out.split()))
    assert undocumented == []


def test_a_result_without_anything_to_say_prints_nothing(capsys):
    _show(SimpleNamespace(render=list).render())
    assert capsys.readouterr().out == ""


def study(*, shared: dict, over: dict = {}):  # noqa: B006
    """Study.

    Args:
        shared: settings.
        over: more.
    """


def test_a_dotted_option_changes_one_key_of_a_mapping_at_any_depth_and_keeps_the_others(tmp_path):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    add_options(parser, study)
    file = tmp_path / "study.yaml"
    file.write_text("shared: {trainer: {a: 1, b: [{c: 2, d: 3}]}, model: {x: 1}}\n")

    def parsed(*more):
        return parse_arguments(parser, study, ["--config", str(file), *more])

    found = parsed(
        "--shared.trainer.a",
        "24",
        "--shared.trainer.b.0.c=true",
        "--shared.model.y",
        "{z: 0.001}",
        "--over.k.l",
        "m",
    )
    assert found.shared == {
        "trainer": {"a": 24, "b": [{"c": True, "d": 3}]},
        "model": {"x": 1, "y": {"z": 0.001}},
    }
    assert found.over == {"k": {"l": "m"}}
    assert parsed().shared["trainer"]["a"] == 1
    with pytest.raises(GrasplError, match=r"--shared.trainer.a.deeper: .* has no place deeper"):
        parsed("--shared.trainer.a.deeper", "1")
    with pytest.raises(GrasplError, match=r"--shared.trainer.a: has no value; give one"):
        parsed("--shared.trainer.a", "--over", "{}")
    with pytest.raises(GrasplError, match=r"--shared.trainer.a: \{: is not a value"):
        parsed("--shared.trainer.a", "{")


@pytest.mark.parametrize(
    ("given", "built"),
    [(["fit"], ["fit"]), (["validate", "--help"], ["validate"]), ([], ["fit", "validate"])],
)
def test_the_options_of_the_phase_that_is_asked_for_alone_are_built(given, built, monkeypatch):
    monkeypatch.setattr("sys.argv", ["graspl", *given])
    assert [*GrasplCLI.subcommands()] == built


@pytest.mark.parametrize(("option", "told"), [("--print_config", False), ("--help-all", True)])
def test_what_a_field_means_is_read_where_it_is_shown_alone(option, told, graspl, monkeypatch):
    read = []
    monkeypatch.setattr("graspl.training_cli.set_parsing_settings", lambda **given: read.append(given))
    assert graspl("fit", option)[0] == 0
    assert read == [{"docstring_parse_attribute_docstrings": told}]
