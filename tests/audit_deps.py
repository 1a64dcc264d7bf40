"""`make audit-deps`: look up known vulnerabilities of the versions that graspl is built with, and of the oldest it allows.

The exit code is 1 where one is found. Where no index of advisories answers, one line says that nothing was checked: pip-audit
itself says "No known vulnerabilities found" where it could look nothing up.
"""

import json
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
SERVICES = ("pypi", "osv")  # The second is asked where the first knows nothing

# Known, and no way leads to them from graspl; by advisory or alias
NOT_REACHED = {
    "CVE-2025-3000": "torch.jit.script; graspl scripts no model",
    "CVE-2026-4538": "archives of torch.export; graspl loads none",
}


def oldest(requirements):
    """Return `name==version` for the lowest version that each requirement allows."""
    found = []
    for each in requirements:
        name, version = re.match(r"([\w.-]+)(?:\[[^\]]*\])?\s*>=\s*([\w.]+)", each).groups()
        found.append(f"{name}=={version}")
    return found


def allowed():
    """Return graspl's requirements, those of its extras too."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [
        *project["dependencies"],
        *(each for extra in project["optional-dependencies"].values() for each in extra),
    ]


def findings(report):
    """Return the vulnerabilities that reach graspl, one line each, and how many packages were looked up and how many not."""
    packages = report["dependencies"]
    looked_up = [each for each in packages if "skip_reason" not in each]
    lines = []
    for each in looked_up:
        for one in each["vulns"]:
            names = {one["id"], *one.get("aliases", [])}
            if not names & NOT_REACHED.keys():
                fixed = ", ".join(one["fix_versions"]) or "no version"
                lines.append(f"{each['name']} {each['version']}: {'/'.join(sorted(names))}; fixed in {fixed}")
    return lines, len(looked_up), len(packages) - len(looked_up)


def report_of(requirements, service, folder):
    """Return pip-audit's report on pinned requirements; None where it cannot make one."""
    file, out = folder / "requirements.txt", folder / "report.json"
    file.write_text("\n".join(requirements), encoding="utf-8")
    out.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pip_audit", "--requirement", file, "--no-deps", "--disable-pip"]
    command += [
        "--progress-spinner",
        "off",
        "--format",
        "json",
        "--output",
        out,
        "--vulnerability-service",
        service,
    ]
    subprocess.run(command, capture_output=True, check=False)
    return json.loads(out.read_text(encoding="utf-8")) if out.exists() and out.stat().st_size else None


def audit(requirements, what, ask=report_of):
    """Print what is known of some versions, and return whether a vulnerability was found."""
    with tempfile.TemporaryDirectory() as folder:
        for service in SERVICES:
            report = ask(requirements, service, Path(folder))
            lines, looked_up, skipped = findings(report) if report else ([], 0, 0)
            if looked_up:
                unknown = f", {skipped} could not be looked up" if skipped else ""
                print(
                    f"audit-deps: {what}: {looked_up} packages{unknown}, {len(lines)} known vulnerabilities"
                )
                print("".join(f"{line}\n" for line in lines), end="")
                return bool(lines)
    print(f"audit-deps: {what}: not checked, no index of advisories can be reached from here")
    return False


def main():
    """Audit both lists."""
    built_with = [
        each for each in (ROOT / "constraints.txt").read_text(encoding="utf-8").split() if "==" in each
    ]
    found = [audit(built_with, "constraints.txt"), audit(oldest(allowed()), "the oldest versions allowed")]
    return int(any(found))


if __name__ == "__main__":
    sys.exit(main())
