"""How a command ends: its exit codes, and what Ctrl-C, SIGTERM and a closed pipe do."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from typing import Final, NoReturn, TextIO

OK: Final = 0
FAILED: Final = 1
SOME_FAILED: Final = 3
INTERRUPTED: Final = 130


def silence(stream: TextIO) -> None:
    """Let what is written to a stream that nobody reads any more go nowhere, without an error."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class Interruption:
    """Whether the user has asked a command to stop.

    The exception alone may get lost: raised inside a destructor, Python prints and drops it.
    """

    asked = False


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGTERM and SIGINT end a command alike, and be remembered: what is done is kept."""

    def interrupt(*_: object) -> NoReturn:
        Interruption.asked = True
        raise KeyboardInterrupt

    Interruption.asked = False
    try:
        before = {s: signal.signal(s, interrupt) for s in (signal.SIGTERM, signal.SIGINT)}
    except ValueError:  # only the main thread may
        yield
        return
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
