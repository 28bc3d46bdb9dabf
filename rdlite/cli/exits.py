"""How a command ends: its exit codes, and what Ctrl-C, SIGTERM and a closed pipe do."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import signal
import sys
from collections.abc import Iterator
from typing import Final, NoReturn, TextIO

OK: Final = 0
FAILED: Final = 1
SOME_FAILED: Final = 3
INTERRUPTED: Final = 130
MEANINGS: Final = {
    OK: "all good",
    FAILED: "wrong usage or nothing done",
    SOME_FAILED: "some of it failed",
    INTERRUPTED: "interrupted",
}


def prepare_streams() -> bool:
    """Make standard output and error fit to be written to; False if that cannot be done."""
    if sys.stderr is None:  # closed; what is printed to None would go to standard output
        sys.stderr = open(os.devnull, "w")
    if sys.stdout is None:  # the next file to be opened would get what libraries print
        print("rdlite: error: standard output is closed; send it to a file", file=sys.stderr)
        return False
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files may be any bytes
    return True


def nobody_reads(error: OSError) -> bool:
    """Whether an error says that the reader of a pipe has gone."""
    if isinstance(error, BrokenPipeError):
        return True
    # what Windows says of such a pipe
    return sys.platform == "win32" and error.errno == errno.EINVAL and error.filename is None


def drop_unwritable() -> None:
    """Forget what standard output could not take; Python would try again, and complain."""
    try:
        sys.stdout.flush()
    except OSError:
        silence(sys.stdout)


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
