"""Faults that come from outside: a full disk, two runs in one folder, files that unpack to more than they are."""

import os
import resource
import signal
import subprocess
import sys
import zipfile

import pytest

from graspl.adapters import read_adapter
from graspl.errors import GrasplError
from graspl.runs import claimed

FULL = 40_000  # Bytes of a file: the configuration fits, the adapter does not


def limited():
    """Let no file grow any further: what a full disk does, and needs no rights."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (FULL, FULL))


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_leaves_no_part_of_a_file(chat_options, tmp_path):
    options = chat_options(**{"model.lora.r": 32, "trainer.max_steps": 2})
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "graspl", "fit", *options], cwd=tmp_path, env=environment, capture_output=True, text=True,
        preexec_fn=limited, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("graspl: error: ")]
    assert "free some space" in line
    run = tmp_path / "run"
    assert not (run / "adapter").exists()
    assert not [
        path for path in run.rglob("*") if path.name.startswith(".") or path.suffix in (".part", ".tmp")
    ]
    assert not [path for path in run.rglob("*.ckpt") if path.stat().st_size == FULL]


def test_a_folder_is_claimed_by_one_process_at_a_time(tmp_path):
    with claimed(tmp_path / "run"):
        program = (
            "import sys; from pathlib import Path; from graspl.runs import claimed\n"
            "with claimed(Path(sys.argv[1])): print('both')"
        )
        done = subprocess.run(
            [sys.executable, "-c", program, tmp_path / "run"],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert "another process is writing" in done.stderr
        assert "both" not in done.stdout
    with claimed(tmp_path / "run"):  # positive control: it is free again
        pass
    assert not (tmp_path / "run" / ".claimed").exists()


def test_a_run_in_a_claimed_folder_is_refused_and_the_folder_left_as_it_is(graspl, chat_options, tmp_path):
    with claimed(tmp_path / "run"):
        (tmp_path / "run" / "theirs").write_text("kept")
        code, _, err = graspl("fit", *chat_options())
        assert code == 2
        assert "another process is writing to run" in err
        assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [".claimed", "theirs"]


def test_a_checkpoint_that_unpacks_to_more_than_it_is_is_refused(tmp_path):
    bomb = tmp_path / "last.ckpt"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 50_000_000)
    assert bomb.stat().st_size < 100_000
    with pytest.raises(GrasplError, match="would unpack to 50000000"):
        read_adapter(bomb)
