"""How many CPU cores this process may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_CGROUPS: Final = Path("/sys/fs/cgroup")
_MEMBERSHIP: Final = Path("/proc/self/cgroup")


def usable_cores() -> int:
    """Return the number of cores that the scheduler and the container allow, at least 1.

    A container that may use one and a half cores has one: a second worker would mostly wait.
    """
    return max(1, min(_schedulable(), int(quota())))


def quota() -> float:
    """Return how many cores' worth of time the container allows; a fraction is part of one."""
    return min(_quotas())


def _schedulable() -> int:
    if hasattr(os, "process_cpu_count"):  # from Python 3.13
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quotas() -> Iterator[float]:
    """Yield the cores that each control group above this process allows; one without limit."""
    yield float(os.cpu_count() or 1)
    for name in ("cpu/cpu.cfs_quota_us", "cpu,cpuacct/cpu.cfs_quota_us"):  # cgroups, version 1
        quota, period = _read(_CGROUPS / name), _read(_CGROUPS / name.replace("quota", "period"))
        if quota.isdigit() and period.isdigit():
            yield int(quota) / int(period)
    lines = _read(_MEMBERSHIP).splitlines()
    group = next((line[len("0::/") :] for line in lines if line.startswith("0::/")), "")
    for folder in (_CGROUPS / group, *(_CGROUPS / group).parents):  # version 2
        quota, _, period = _read(folder / "cpu.max").partition(" ")
        if quota.isdigit() and period.isdigit():
            yield int(quota) / int(period)


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
