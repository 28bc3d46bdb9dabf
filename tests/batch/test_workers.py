"""Workers on the command line, one of which dies, and those of a Ray cluster: the same outputs."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.command import cli, command
from tests.media import Sound, clip


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip of twelve parts."""
    path = tmp_path_factory.mktemp("source") / "long.mp4"
    return clip(path, 3000, sounds=[Sound(seconds=20)], options={"g": "50"})


@pytest.fixture(scope="module")
def whole(
    source: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    """What one worker makes."""
    out = tmp_path_factory.mktemp("whole") / "out"
    assert cli("annotate", source, "-o", out, "--model", tiny_model, "--quiet") == 0
    return content(out)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def children(pid: int) -> list[int]:
    """The worker processes of a command."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    found = [int(child) for task in tasks for child in task.read_text().split()]
    return [one for one in found if b"spawn_main" in Path(f"/proc/{one}/cmdline").read_bytes()]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds processes in /proc")
def test_a_worker_that_is_killed_changes_nothing(
    source: Path, whole: dict[str, bytes], tiny_model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = command("annotate", source, "-o", out, "--workers", 2, "--model", tiny_model)
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(out.glob(".*/part-*.json")) and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(children(process.pid)[0], signal.SIGKILL)
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 0, errors
    assert content(out) == whole


@pytest.mark.slow  # a cluster takes seconds to start
def test_ray_makes_the_same(
    source: Path, whole: dict[str, bytes], tiny_model: Path, tmp_path: Path
) -> None:
    pytest.importorskip("ray")
    out = tmp_path / "out"
    options = ("--model", tiny_model, "--engine", "ray", "--workers", 2)
    arguments = command("annotate", source, "-o", out, *options)
    # Ray's workers look for packages where the command was given: not in a tree without kernels.
    done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    assert content(out) == whole
