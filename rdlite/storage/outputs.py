"""The files of a batch: what goes in, and where what comes out may go."""

from __future__ import annotations

import functools
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rdlite.errors import OptionError, RdliteError

_NOT_IN_NAMES = re.compile(r'[\0-\x1f<>:"|?*]')
_DEVICE = re.compile(
    r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[1-9¹²³]) *(\..*)?", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Input:
    """One file to work on; strings, because there may be millions.

    Attributes:
        path: The file.
        output: Path of what is made of it, relative to the output folder: the place of the file
            below the folder that was named, or below the fixed part of the pattern.
        video: Whether it is to be read as a video, and not as an image.
    """

    path: str
    output: str
    video: bool = False


class Outputs:
    """Where outputs may go: into the output folder, and over no file of the user.

    Args:
        folder: The output folder.
        inputs: All inputs; none of them is replaced, asked or not.
    """

    def __init__(self, folder: Path, inputs: Sequence[Input]) -> None:
        self._folder = folder
        self._inputs = inputs
        self._real = functools.lru_cache(1000)(os.path.realpath)
        self._root = Path(os.path.realpath(folder))

    def path(
        self, one: Input, output: str, *, overwrite: bool, error: type[RdliteError] = OptionError
    ) -> Path:
        """Return where an output of an input goes.

        Args:
            one: The input.
            output: The place, relative to the output folder.
            overwrite: Replace what is there.
            error: What to raise if the output may not go there.
        """
        path = self._folder / output
        if sys.platform == "win32" and (part := refused_by_windows(output)):
            raise error(f"{path}: Windows has no files that are called {part!r}; rename the input")
        if not Path(self._real(path.parent)).is_relative_to(self._root):
            raise error(f"{path} leads out of {self._folder}, by a link or '..'; use another -o")
        if os.path.lexists(path):
            if self._is_input(one, path):
                raise error(f"{path} is an input, which is never replaced; use another -o")
            refuse_existing(path, overwrite=overwrite, error=error)
        return path

    def _is_input(self, one: Input, path: Path) -> bool:
        return self._place(str(path)) in self._places or (
            path.exists() and os.path.exists(one.path) and os.path.samefile(one.path, path)
        )

    @functools.cached_property
    def _places(self) -> set[str]:
        return {self._place(one.path) for one in self._inputs}

    def _place(self, path: str) -> str:
        """Return the one name of a file that may be a link, in a folder that may be one."""
        folder, name = os.path.split(path)
        return os.path.join(self._real(folder), name)


def refuse_existing(path: Path, *, overwrite: bool, error: type[RdliteError] = OptionError) -> None:
    """Raise if a file would be replaced unasked."""
    if os.path.lexists(path) and not overwrite:
        raise error(
            f"{path} exists already; choose another name, or replace it with overwrite=True "
            "(--overwrite)"
        )


def refused_by_windows(path: str) -> str:
    """Return the first part of a relative path that Windows refuses, or takes for something else.

    Devices are called CON or LPT1 with any ending, "a:b" is hidden in a file "a", and what is at
    the end of "a." is left out without a word.
    """
    for part in re.split(r"[\\/]", path):
        if part in ("", ".", ".."):
            continue
        if part[-1] in " ." or _NOT_IN_NAMES.search(part) or _DEVICE.fullmatch(part):
            return part
    return ""


def utf8_name(path: str | os.PathLike[str]) -> str:
    """Return a path as UTF-8 can hold it, other bytes in hexadecimal."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
