"""`rdlite check`: is this installation sound, and which command mends what is not?"""

from __future__ import annotations

import json as jsonlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Final

from rdlite.cli import installed, working
from rdlite.cli.exits import FAILED, OK
from rdlite.cli.finding import Finding, Look

# What runs is tried only once what it needs is sound: its own failure would tell nothing more, and
# name a command that does not help.
_STAGES: Final[Sequence[Sequence[Look]]] = (
    (installed.machine, installed.package),
    (installed.loading,),
    (installed.libraries,),
    (working.kernels, working.models, working.resources),
    (working.detection, working.video, installed.extras),
)


def check(*, json: bool) -> int:
    """Look at everything that rdlite needs; see `rdlite check --help`."""
    findings = []
    for finding in _look():
        findings.append(finding)
        if not json:
            print("\n".join(_lines(finding)), flush=True)
    good = all(finding.status != "bad" for finding in findings)
    if json:
        print(jsonlib.dumps({"ok": good, "findings": [asdict(f) for f in findings]}))
    elif not good:
        print("Mend what is BAD and run rdlite check again: what depends on it was not tried.")
    return OK if good else FAILED


def _look() -> Iterator[Finding]:
    bad = False
    for stage in _STAGES:
        for look in stage:
            for finding in look():
                bad |= finding.status == "bad"
                yield finding
        if bad:
            return


def _lines(finding: Finding) -> list[str]:
    """Return what to print of a finding; a `bad` one stands out."""
    mark = finding.status.upper() if finding.status == "bad" else finding.status
    line = f"{mark:4} {finding.what}: {finding.detail}"
    return [line, f"     {finding.mend}"] if finding.mend and finding.status != "ok" else [line]
