"""The versions that graspl allows have no known vulnerability that reaches it."""

import pytest
from audit_deps import NOT_REACHED, allowed, audit, findings, oldest
from packaging.requirements import Requirement

# The last vulnerable version, and what reaches graspl
VULNERABLE = {
    "filelock": ("3.20.2", "CVE-2025-68146, CVE-2026-22701: a lock file follows a link that somebody else puts there"),
    "jinja2": ("3.1.5", "CVE-2025-27516: a chat template leaves its sandbox"),
    "lightning": ("2.6.5", "CVE-2026-58659: a checkpoint runs code in spite of weights_only; 2.6.2 and 2.6.3 were malicious"),
    "torch": ("2.9.1", "CVE-2025-32434, CVE-2026-24747: a checkpoint runs code in spite of weights_only"),
    "transformers": ("5.8.0", "CVE-2026-5241, CVE-2026-9856: a model runs its code unasked, a tokenizer writes anywhere"),
}  # fmt: skip


@pytest.mark.parametrize("name", VULNERABLE)
def test_versions_with_known_vulnerabilities_are_not_allowed(name):
    (specifier,) = [found.specifier for each in allowed() if (found := Requirement(each)).name == name]
    version, why = VULNERABLE[name]
    assert not specifier.contains(version), why


def test_the_oldest_versions_are_those_of_the_requirements():
    assert oldest(["torch>=2.10", "jsonargparse[signatures]>=4.53,<5"]) == [
        "torch==2.10",
        "jsonargparse==4.53",
    ]
    assert len(oldest(allowed())) == len(allowed())


VULN = {"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": ["2"]}
KNOWN = {"name": "a", "version": "1", "vulns": [VULN]}
CLEAN = {"name": "b", "version": "1", "vulns": []}
SKIPPED = {"name": "c", "skip_reason": "not found"}


@pytest.mark.parametrize(
    ("packages", "found", "says"),
    [
        ([KNOWN, CLEAN], True, "a 1: CVE-1/PYSEC-1; fixed in 2"),
        ([CLEAN, SKIPPED], False, "1 packages, 1 could not be looked up, 0 known vulnerabilities"),
        ([SKIPPED, SKIPPED], False, "not checked"),
        (None, False, "not checked"),
    ],
)
def test_an_audit_that_looked_nothing_up_does_not_say_that_nothing_was_found(packages, found, says, capsys):
    report = None if packages is None else {"dependencies": packages}
    assert audit(["a==1"], "these", ask=lambda *_: report) is found
    assert says in capsys.readouterr().out


def test_what_does_not_reach_graspl_is_left_out():
    known = {**KNOWN, "vulns": [{**VULN, "aliases": [next(iter(NOT_REACHED))]}]}
    assert findings({"dependencies": [known]}) == ([], 1, 0)
