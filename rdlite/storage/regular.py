"""Reading a file whole: regular files only, size-limited, every failure one sentence."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from rdlite.errors import RdliteError


def read_regular(path: str | Path, *, max_bytes: int, error: type[RdliteError]) -> bytes:
    """Return the bytes of a regular file.

    Anything else (a directory, a FIFO, a device) is refused before it is opened, because
    reading it could wait for ever.

    Args:
        path: The file.
        max_bytes: Largest size accepted.
        error: The error type to raise, with the file's name in its text.
    """
    try:
        status = os.stat(path)
    except (OSError, ValueError) as problem:
        raise error(f"{path}: cannot be read ({_reason(problem)})") from problem
    if stat.S_ISDIR(status.st_mode):
        raise error(f"{path}: is a directory; give the name of a file in it")
    if not stat.S_ISREG(status.st_mode):
        raise error(f"{path}: is not a regular file; only files on disk are read")
    if status.st_size > max_bytes:
        raise error(f"{path}: has {status.st_size:,} bytes; the limit is {max_bytes:,}")
    try:
        return Path(path).read_bytes()
    except OSError as problem:
        raise error(f"{path}: cannot be read ({_reason(problem)})") from problem


def _reason(problem: Exception) -> str:
    return getattr(problem, "strerror", None) or str(problem)
