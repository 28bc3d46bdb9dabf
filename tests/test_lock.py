from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rdlite.errors import RdliteError
from rdlite.storage.lock import Lock

HOLD = """
import sys, time
from rdlite.storage.lock import Lock
with Lock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""
# Whoever holds the lock adds one to a number; two at once would lose an addition.
COUNT = """
import sys, time
from pathlib import Path
from rdlite.errors import RdliteError
from rdlite.storage.lock import Lock
lock, number, done = sys.argv[1], Path(sys.argv[2]), 0
while done < 200:
    try:
        with Lock(lock):
            before = int(number.read_text())
            time.sleep(0)
            number.write_text(str(before + 1))
            done += 1
    except RdliteError:
        pass
"""


def python(code: str, *arguments: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-P", "-c", code, *arguments], stdout=subprocess.PIPE, text=True
    )


def test_a_lock_is_held_once_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    for _ in range(2):
        with Lock(path):
            with pytest.raises(RdliteError, match=f"held by process {os.getpid()} on .*; wait"):
                Lock(path).__enter__()
            assert path.exists()
        assert not list(tmp_path.iterdir())


def test_a_lock_ends_with_its_process_even_when_that_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    holder = python(HOLD, path)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    with pytest.raises(RdliteError, match=f"held by process {holder.pid} on"):
        Lock(path).__enter__()
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    assert path.exists()
    with Lock(path):
        pass
    assert not path.exists()


def test_a_child_process_does_not_keep_the_lock(tmp_path: Path) -> None:
    with Lock(tmp_path / "lock"):
        child = python("input()")
    with Lock(tmp_path / "lock"):
        child.kill()
    child.communicate()


def test_two_never_hold_it_at_once_although_the_file_comes_and_goes(tmp_path: Path) -> None:
    number = tmp_path / "number"
    number.write_text("0")
    workers = [python(COUNT, tmp_path / "lock", number) for _ in range(3)]
    assert [worker.wait() for worker in workers] == [0, 0, 0]
    for worker in workers:
        worker.communicate()
    assert number.read_text() == "600"


def test_an_error_inside_releases_it(tmp_path: Path) -> None:
    with pytest.raises(KeyError), Lock(tmp_path / "lock"):
        raise KeyError
    with Lock(tmp_path / "lock"):
        pass


def test_a_folder_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(RdliteError, match="lock cannot be locked: No such file or directory"):
        Lock(tmp_path / "gone" / "lock").__enter__()
