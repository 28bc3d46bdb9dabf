"""A folder of images, among which those of results are looked for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PurePath

from rdlite.errors import OptionError, ResultFileError
from rdlite.resultfile import Record, ResultFile, ends_of, start_of, stride_of
from rdlite.wording import counted_from

_FRAME_ENDINGS = (".jpg", ".png", ".jpeg")


class ImageFolder:
    """Names images by where they are in a folder.

    Args:
        folder: The folder.

    Raises:
        OptionError: It is none.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = Path(folder)
        if not self._folder.is_dir():
            raise OptionError(f"{folder} is no folder; name the one that the images are in")
        self._top = os.path.join(os.path.abspath(folder), "")
        self._taken: dict[str, str] = {}  # which name each file was found for
        self._missing, self._first = 0, ""

    def rename(self, record: Record) -> Record:
        """Return what was found as that of an image in the folder, which no other one has got."""
        if record.frame is None:
            whole, name = record.image or "", self._find(record.image or "")
            missing = record.place or PurePath(whole or "without a name").name
        else:
            whole = _frame(record.image, record.frame)
            name = self._find_frame(record.image, record.frame)
            missing = _frame(record.place or record.image, record.frame) + _FRAME_ENDINGS[0]
        if name is None or self._taken.setdefault(name, whole) != whole:
            name = PurePath(missing).as_posix()
            self._missing += 1
            self._first = self._first or name
        return record._replace(image=name, place=name, frame=None, pts=None, time=None)

    def check_end(self, results: ResultFile, last: Record) -> None:
        """Refuse images that go on after the last frame: those before the start are among them."""
        stride, end = stride_of(results.options), results.options.get("end")
        start = start_of(results.options)
        if last.frame is None or results.source is None or start <= 0:
            return
        if stride is None or end is not None:  # images after the last frame prove nothing then
            return
        if name := self._find_frame(last.image, last.frame + stride):
            raise ResultFileError(
                f"{self._folder / name} is there, but {results.path} ends at frame {last.frame}, "
                f"{counted_from(start)}"
            )

    def _find_frame(self, video: str | None, frame: int) -> str | None:
        return self._find(_frame(video, frame), _FRAME_ENDINGS, least=2)

    def _find(self, name: str, endings: Sequence[str] = ("",), least: int = 1) -> str | None:
        """Return the path of a file in the folder; it has so many parts of the name or more."""
        full = os.path.abspath(name)
        inside = [PurePath(full[len(self._top) :])] if full.startswith(self._top) else []
        for end in (*inside, *ends_of(name)):
            for path in [end.as_posix() + ending for ending in endings]:
                if len(end.parts) >= least and os.path.isfile(self._folder / path):
                    return path
        return None

    def warnings(self) -> list[str]:
        """Return a sentence on the images that are not in the folder, if there are."""
        if not self._missing:
            return []
        return [f"{self._missing} images are not in {self._folder}; the first is {self._first}"]


def _frame(video: str | None, frame: int) -> str:
    return f"{video or 'video'}/{frame:06d}"
