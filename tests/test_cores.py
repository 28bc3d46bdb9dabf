from __future__ import annotations

import os
from pathlib import Path

import pytest

from rdlite import cores


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty tree of control groups, and eight cores."""
    monkeypatch.setattr(cores, "_CGROUPS", tmp_path)
    monkeypatch.setattr(cores, "_MEMBERSHIP", tmp_path / "membership")
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "process_cpu_count", lambda: 8, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_without_limits_all_cores_are_usable(groups: Path) -> None:
    assert cores.usable_cores() == 8
    write(groups / "cpu.max", "max 100000\n")
    assert cores.usable_cores() == 8


def test_the_cores_of_this_process_count(groups: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "process_cpu_count")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 5, 6})
    assert cores.usable_cores() == 3


@pytest.mark.parametrize(("quota", "usable"), [(400_000, 4), (150_000, 1), (50_000, 1)])
def test_a_container_of_either_version_limits_them(groups: Path, quota: int, usable: int) -> None:
    write(groups / "cpu.max", f"{quota} 100000\n")
    assert cores.usable_cores() == usable
    (groups / "cpu.max").unlink()
    write(groups / "cpu" / "cpu.cfs_quota_us", f"{quota}\n")
    write(groups / "cpu" / "cpu.cfs_period_us", "100000\n")
    assert cores.usable_cores() == usable
    write(groups / "cpu" / "cpu.cfs_quota_us", "-1\n")
    assert cores.usable_cores() == 8


def test_the_narrowest_of_nested_groups_counts(groups: Path) -> None:
    write(groups / "membership", "4:memory:/elsewhere\n0::/user.slice/job\n")
    write(groups / "user.slice" / "cpu.max", "300000 100000\n")
    write(groups / "user.slice" / "job" / "cpu.max", "500000 100000\n")
    assert cores.usable_cores() == 3
