"""One writer at a time: a lock that the operating system releases when its holder dies."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import Self

from rdlite.errors import RdliteError

_BYTE = 1 << 30  # what is locked on Windows, far behind the text, which others must be able to read


class Lock:
    """Holds a lock file from `__enter__` to `__exit__`; never waits.

    The lock belongs to the open file and not to its name or content, so nothing that a killed
    process leaves behind can lock anybody out. The file says who holds it and is removed at
    the end.

    Args:
        path: The lock file, in a folder that exists.

    Raises:
        RdliteError: On entering: somebody holds the lock, this process included; or the file
            cannot be made.

    Example:
        >>> with Lock("out/.rdlite/lock"):
        ...     ...
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._file = -1

    def __enter__(self) -> Self:
        try:
            while not self._acquire():
                pass
        except OSError as error:
            raise RdliteError(f"{self._path} cannot be locked: {error.strerror}") from error
        return self

    def __exit__(self, *_: object) -> None:
        if sys.platform == "win32":  # an open file cannot be removed
            os.close(self._file)
            try:
                self._path.unlink(missing_ok=True)
            except PermissionError:  # the next one holds it already
                pass
            return
        # Removed while it is held: whoever opened it before finds out in `_acquire`.
        self._path.unlink(missing_ok=True)
        os.close(self._file)

    def _acquire(self) -> bool:
        """Lock the file; False if it was removed in between, so that the lock holds nobody off."""
        file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if not _try_lock(file):
                raise RdliteError(self._refusal())
            if not self._is_at_path(file):
                os.close(file)
                return False
            os.ftruncate(file, 0)
            os.write(file, f"process {os.getpid()} on {socket.gethostname()}".encode())
        except BaseException:
            os.close(file)
            raise
        self._file = file
        return True

    def _is_at_path(self, file: int) -> bool:
        try:
            return os.path.samestat(os.fstat(file), os.stat(self._path))
        except FileNotFoundError:
            return False

    def _refusal(self) -> str:
        try:
            holder = self._path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            holder = ""
        return (
            f"{self._path} is held by {holder or 'another process'}, which writes the same output; "
            "wait until it has ended or choose another output"
        )


def _try_lock(file: int) -> bool:
    """Lock an open file without waiting; False if somebody else holds it."""
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(file, _BYTE, os.SEEK_SET)
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
            os.lseek(file, 0, os.SEEK_SET)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # PermissionError is what Windows says
        return False
    return True
