"""The page's script for Slurm is run as it stands, with stand-ins for what Slurm provides."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from pages import blocks_of

SCRIPT, SUBMISSION = blocks_of("docs/howto/cluster.md", "bash")
# Runs an array's tasks at once, as Slurm does; a job that depends on others comes when they have ended
SBATCH = f"""#!{sys.executable}
import os, subprocess, sys
options = [each for each in sys.argv[1:] if each.startswith("--") and sys.argv.index(each) < sys.argv.index("study.sbatch")]
rest = sys.argv[sys.argv.index("study.sbatch"):]
last = next((int(each.split("-")[-1]) for each in options if each.startswith("--array")), 0)
tasks = [{{"SLURM_ARRAY_TASK_ID": str(task), "SLURM_ARRAY_TASK_COUNT": str(last)}} for task in range(1, last + 1)] or [{{}}]
running = [subprocess.Popen(["bash", *rest], env=os.environ | task, stdout=sys.stderr) for task in tasks]
codes = [each.wait() for each in running]
if "--parsable" in options:
    print("17")
elif "--dependency=afterany:17" not in options:
    sys.exit("the last job waits for nothing")
sys.exit(max(codes))
"""


@pytest.fixture
def submitted(tmp_path):
    """Return a function that runs the page's submission with other programs in place of Slurm's, and of graspl."""
    if shutil.which("bash") is None:
        pytest.skip("no bash here")

    def submit(graspl):
        (tmp_path / "study.sbatch").write_text(SCRIPT)
        for name, text in (("sbatch", SBATCH), ("srun", '#!/bin/sh\nexec "$@"\n'), ("graspl", graspl)):
            program = tmp_path / "bin" / name
            program.parent.mkdir(exist_ok=True)
            program.write_text(text)
            program.chmod(0o755)
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", SUBMISSION],
            cwd=tmp_path,
            env=os.environ | {"PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            check=False,
        )

    return submit


def test_an_array_runs_every_part_and_a_last_job_makes_the_table(submitted, tmp_path):
    said = f"""#!{sys.executable}
import json, sys
open("said.jsonl", "a").write(json.dumps(sys.argv[1:]) + "\\n")
"""
    done = submitted(said)
    assert done.returncode == 0, done.stderr
    commands = [json.loads(line) for line in (tmp_path / "said.jsonl").read_text().splitlines()]
    given = ["compare", "--config", "configs/study.yaml", "--fast", "true"]
    assert sorted(commands[:-1]) == [[*given, "--part", f"{part}/8"] for part in range(1, 9)]
    assert commands[-1] == given


def test_a_part_that_fails_is_seen_by_slurm(submitted):
    assert submitted("#!/bin/sh\nexit 2\n").returncode == 2


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="no shellcheck here")
def test_the_script_has_no_mistake_that_shellcheck_knows(tmp_path):
    (tmp_path / "study.sbatch").write_text(SCRIPT)
    subprocess.run(["shellcheck", tmp_path / "study.sbatch"], check=True)
