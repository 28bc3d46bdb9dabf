"""What the tests of pools share."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from rdlite.workers.pool import Outcome, Pool, Task


def outcomes(pool: Pool, *tasks: Task) -> list[Outcome]:
    """Of these tasks, in the order in which they end."""
    for task in tasks:
        pool.submit(task)
    return list(iter(pool.wait, None))


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Wait for something that another process does."""
    for _ in range(int(seconds / 0.01)):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not happen")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
