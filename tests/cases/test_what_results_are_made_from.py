"""What `lineage.json` records: files as they were read, models of the hub, and results that were never completed."""

import json
import os
import shutil
from pathlib import Path

import pytest

from graspl.errors import GrasplError
from graspl.runs import Digester, Lineage, RunFolder, running

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NEXT = "f" * 40


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Return a run folder with an evaluation, in the current folder."""
    monkeypatch.chdir(tmp_path)
    folder = RunFolder("run")
    folder.path.mkdir()
    folder.evaluation.write_text("{}")
    return folder


def test_a_file_that_changes_while_a_command_runs_is_not_taken_for_the_one_it_read(run):
    Path("rows.jsonl").write_text("a")
    with running("validate", [], "data: rows.jsonl"):
        Lineage(run).remember(["rows.jsonl"])
        Path("rows.jsonl").write_text("b")
        Lineage(run).record([run.evaluation], {"rows": ["rows.jsonl"]})
    assert "was made from another rows" in Lineage(run).complaint(run.evaluation)
    Path("rows.jsonl").write_text("a")
    assert Lineage(run).complaint(run.evaluation) is None


def test_a_result_of_the_same_command_is_taken_as_it_was_written(run):
    run.directions.write_text("old")
    with running("identify", [], "out: run/directions.safetensors"):
        lineage = Lineage(run)
        lineage.remember([run.directions])
        run.directions.write_text("new")
        lineage.record([run.directions], {})
        lineage.record([run.evaluation], {"directions": [run.directions]})
    assert lineage.complaint(run.evaluation) is None


def test_a_path_that_begins_with_a_dot_is_not_taken_for_one_of_the_run(run):
    Path("rows.jsonl").write_text("a")
    Lineage(run).record([run.evaluation], {"rows": ["./rows.jsonl"]})
    assert Lineage(run).complaint(run.evaluation) is None
    Path("rows.jsonl").write_text("b")
    assert "rows.jsonl has changed" in Lineage(run).complaint(run.evaluation)


def test_results_count_as_started_until_all_are_written(run):
    lineage, results = Lineage(run), [run.items, run.evaluation]
    run.evaluation.unlink()

    def stop():
        with lineage.writing(results, {}):
            run.items.write_text("new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop()
    assert lineage.read()["items.jsonl"]["status"] == "started"
    assert lineage.complaint(run.items) == "was started and never completed"
    with lineage.writing(results, {}):
        run.items.write_text("1")
        run.evaluation.write_text("1")
    assert lineage.read()["items.jsonl"]["status"] == "complete"
    assert lineage.complaint(run.items) is None
    # What was there before counts on until it is replaced
    with pytest.raises(KeyboardInterrupt):
        stop()
    assert lineage.complaint(run.items) == "was started and never completed"
    assert lineage.complaint(run.evaluation) is None


def test_no_byte_of_the_record_can_be_changed(run):
    lineage = Lineage(run)
    lineage.record([run.evaluation], {"rows": ["hub/rows"]})
    before = lineage.path.read_bytes()
    for place in range(len(before)):
        changed = bytearray(before)
        changed[place] ^= 1
        lineage.path.write_bytes(bytes(changed))
        with pytest.raises(GrasplError, match=r"lineage\.json: .*validate again"):
            lineage.read()


def snapshot(cache, commit):
    """Write a model as the hub's cache keeps it: files by content, and a folder of links for each commit."""
    model = cache / "models--acme--tiny"
    (model / "blobs").mkdir(parents=True, exist_ok=True)
    (model / "refs").mkdir(exist_ok=True)
    (model / "refs" / "main").write_text(commit)
    folder = model / "snapshots" / commit
    folder.mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        blob = model / "blobs" / f"{name}-{commit}"
        blob.write_text(f"{name} of {commit}")
        (folder / name).symlink_to(blob)
    return folder


def test_a_model_of_the_hub_is_recorded_with_its_commit_and_files(run, tmp_path, monkeypatch):
    cache = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    folder, lineage = snapshot(cache, COMMIT), Lineage(run)
    lineage.record([run.evaluation], {"base model": ["acme/tiny", "acme/absent"]})
    entry = lineage.read()["evaluation.json"]
    assert entry["revisions"] == {"acme/tiny": COMMIT}
    assert set(entry["made_from"]["base model"]["acme/tiny"]) == {"config.json", "model.safetensors"}
    assert str(tmp_path) not in lineage.path.read_text()
    assert lineage.complaint(run.evaluation) is None
    assert lineage.unchecked(run.evaluation) == ["acme/absent"]
    (folder / "tokenizer.json").write_text("fetched later")
    assert lineage.complaint(run.evaluation) is None
    weights = folder / "model.safetensors"
    before = weights.read_bytes()
    weights.write_bytes(b"M" + before[1:])
    assert lineage.complaint(run.evaluation) == (
        "was made from another base model (acme/tiny: model.safetensors has changed)"
    )
    weights.write_bytes(before)
    snapshot(cache, NEXT)
    assert "was made from another base model (acme/tiny" in lineage.complaint(run.evaluation)
    shutil.rmtree(cache)
    assert lineage.complaint(run.evaluation) is None
    assert "acme/tiny" in lineage.unchecked(run.evaluation)


def test_verify_hashes_large_files_again(run, monkeypatch):
    """A changed byte under the old size and time is found by `verify`; other commands trust both for large files."""
    monkeypatch.setattr("graspl.runs.digests.HASHED_ALWAYS", 3)
    Path("rows.jsonl").write_text("large")
    Lineage(run).record([run.evaluation], {"rows": ["rows.jsonl"]})
    stat = Path("rows.jsonl").stat()
    Path("rows.jsonl").write_text("lArge")
    os.utime("rows.jsonl", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert Lineage(run).complaint(run.evaluation) is None
    assert "has changed" in Lineage(run, Digester(thorough=True)).complaint(run.evaluation)


@pytest.mark.parametrize("changed", ["adapter", "directions"])
def test_an_audit_refuses_what_is_not_as_it_was_made(changed, graspl, chat_options):
    """An audit that left it out might pass."""
    assert graspl("fit", *chat_options(**{"trainer.max_steps": 1}))[0] == 0
    command = ["audit", "run", "--directions", "run/directions.safetensors"]
    assert graspl(*command)[0] in (0, 1)
    run, audit = RunFolder("run"), RunFolder("audit")
    entry = Lineage(audit).read()["audit.json"]
    assert set(entry["made_from"]) == {"adapter", "directions", "reference", "base model", "rows"}
    assert entry["settings"]["command"] == "audit"
    assert json.loads(audit.facts.read_text())["status"] == "complete"
    before = audit.audit.read_bytes()
    file = run.directions if changed == "directions" else run.adapter / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    code, _, err = graspl(*command)
    assert code == 2
    assert f"run/{changed}" in err
    assert "is not as it was written" in err
    assert audit.audit.read_bytes() == before
    code, out, _ = graspl("verify", "audit")
    assert code == 1
    assert f"audit/audit.json: was made from another {changed}" in out
