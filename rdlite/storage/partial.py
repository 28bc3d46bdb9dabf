"""Files and folders that appear under their names only when they are whole."""

from __future__ import annotations

import errno
import glob
import hashlib
import itertools
import os
import shutil
import sys
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Self

from rdlite.errors import OptionError, RdliteError
from rdlite.storage.outputs import refuse_existing

_COUNTER = itertools.count()  # so that two writers of one process never share a file
_NAME_SHOWN = 50  # characters; the rest of a long name would make the hidden one too long


class PartialFile:
    """A file that is written beside its final name and gets that name only when it is whole.

    Args:
        path: The final name.
        overwrite: Replace a file that has this name already.
        error: What to raise.

    Attributes:
        path: The final name.
        partial: The name to write to, in the same directory; see `hidden`.

    Raises:
        RdliteError: The file exists and `overwrite` is False, or its directory is missing.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        overwrite: bool = False,
        error: type[RdliteError] = OptionError,
    ) -> None:
        self.path = Path(path)
        if self.path.is_dir():
            raise error(f"{path} is a directory; name a file in it")
        check_free(self.path, overwrite=overwrite, error=error)
        self._error = error
        self.partial = _partial(self.path, self.path.suffix)

    def commit(self) -> None:
        """Give the file its final name, after its bytes have reached the disk."""
        try:
            sync(self.partial)
            os.replace(self.partial, self.path)
            sync(self.path.parent)
        except OSError as problem:
            raise self._error(_unwritable(self.path, problem)) from problem

    def discard(self) -> None:
        """Remove what was written."""
        self.partial.unlink(missing_ok=True)


def write_whole(path: str | os.PathLike[str], content: bytes, *, overwrite: bool = False) -> None:
    """Write a file that appears under its name only when it is whole.

    Raises:
        OptionError: The file exists and `overwrite` is False, or it cannot be written.
    """
    file = PartialFile(path, overwrite=overwrite)
    try:
        file.partial.write_bytes(content)
        file.commit()
    except OSError as problem:
        raise OptionError(_unwritable(file.path, problem)) from problem
    finally:
        file.discard()


class PartialFolder:
    """A folder that is filled beside its final name and gets that name only when it is whole.

    Args:
        path: The final name.
        endings: How the names of the files in it end. An existing folder is only ever replaced
            when it holds no other files.
        overwrite: Replace such a folder.

    Attributes:
        path: The final name.
        partial: The empty folder to fill, in the same directory; see `hidden`.

    Raises:
        OptionError: The folder exists and `overwrite` is False or it holds other files, or it
            cannot be made.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, endings: tuple[str, ...], overwrite: bool = False
    ) -> None:
        self.path = Path(path)
        self._endings = endings
        check_free(self.path, overwrite=overwrite)
        self._check_old()
        self.partial = _partial(self.path)
        try:
            self.partial.mkdir()
        except OSError as problem:
            raise OptionError(_unwritable(self.path, problem)) from problem

    def commit(self) -> None:
        """Give the folder its final name, after its files have reached the disk.

        A folder that is replaced is removed last; for a moment there is none of this name.

        Raises:
            RdliteError: This fails.
        """
        old = _partial(self.path)
        try:
            _sync_all(self.partial)
            if self._check_old():
                self.path.rename(old)
            try:
                self.partial.rename(self.path)
            except BaseException:
                if old.exists():
                    old.rename(self.path)
                raise
            sync(self.path.parent)
            if old.exists():
                shutil.rmtree(old)
        except OSError as problem:
            raise RdliteError(_unwritable(self.path, problem)) from problem

    def discard(self) -> None:
        """Remove what was written."""
        shutil.rmtree(self.partial, ignore_errors=True)

    def _check_old(self) -> bool:
        """Return whether there is a folder to replace, which is one of such files alone."""
        if not os.path.lexists(self.path):
            return False
        if self.path.is_symlink() or not self.path.is_dir():
            raise OptionError(f"{self.path} is no folder; name another one")
        for folder, _, names in os.walk(self.path):
            for name in names:
                if not name.endswith(self._endings):
                    raise OptionError(
                        f"{self.path} is not replaced, because it holds files of another kind, "
                        f"such as {os.path.join(folder, name)}; name another folder"
                    )
        return True


def hidden(path: Path, kind: str) -> Path:
    """Return the place of what is kept beside a file while it is made: ".<name>.<kind>".

    Of a long name there is only the beginning, and a hash that stands for all of it.
    """
    name = path.name
    if len(name) > _NAME_SHOWN:
        name = f"{name[:_NAME_SHOWN]}-{hashlib.sha256(os.fsencode(name)).hexdigest()[:12]}"
    return path.with_name(f".{name}.{kind}")


def remove_leftovers(path: Path) -> None:
    """Remove what killed processes left of a file or folder that nobody writes at the moment."""
    for old in path.parent.glob(f"{glob.escape(hidden(path, 'partial').name)}-*"):
        if old.is_dir():
            shutil.rmtree(old)
        else:
            old.unlink(missing_ok=True)


class WholeOrNothing(ABC):
    """Base of writers: a `with` statement closes them, or removes their file after an error."""

    @abstractmethod
    def close(self) -> None:
        """Finish the file and give it its final name."""

    @abstractmethod
    def abort(self) -> None:
        """Remove the unfinished file."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is not None:
            self.abort()
            return
        try:
            self.close()
        except BaseException:
            self.abort()
            raise


def sync(path: Path) -> None:
    """Wait until the bytes of a file, or the names in a folder, have reached the disk."""
    windows = sys.platform == "win32"
    if windows and path.is_dir():  # it cannot be opened there, and a file only to be written
        return
    descriptor = os.open(path, os.O_RDWR if windows else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot do this to a folder; the file is complete all the same.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP) or not path.is_dir():
            raise
    finally:
        os.close(descriptor)


def _sync_all(folder: Path) -> None:
    """Wait until all files below a folder have reached the disk."""
    if sys.platform != "win32":
        os.sync()  # all at once: one call for each of a million files takes an hour
        return
    for path in folder.rglob("*"):
        sync(path)


def check_free(path: Path, *, overwrite: bool, error: type[RdliteError] = OptionError) -> None:
    """Raise if a file or folder would be replaced unasked, or has no directory to be in."""
    refuse_existing(path, overwrite=overwrite, error=error)
    if not path.parent.is_dir():
        raise error(f"the directory {path.parent} does not exist; create it first")


def _partial(path: Path, suffix: str = "") -> Path:
    return hidden(path, f"partial-{os.getpid()}-{next(_COUNTER)}{suffix}")


def _unwritable(path: Path, problem: OSError) -> str:
    return f"{path} cannot be written: {problem.strerror}"
