"""Detections as label files, one for each image: YOLO text and Pascal VOC XML."""

from __future__ import annotations

import itertools
import json
import os
import sys
from abc import abstractmethod
from pathlib import Path, PurePath, PureWindowsPath
from typing import ClassVar, TextIO

from rdlite.errors import OptionError
from rdlite.results import Detections
from rdlite.sinks.base import STDOUT, Sink, Where
from rdlite.storage.outputs import refused_by_windows
from rdlite.storage.partial import PartialFolder
from rdlite.wording import count


class LabelSink(Sink):
    """A folder of label files that lie in it as the images lie in theirs.

    The label of `a/b.jpg` is `a/b.txt`, that of frame 123 of `clip.mp4` is `clip.mp4/000123.txt`.
    Where that is taken, say by `a/b.png`, it is `a/b.jpg.txt`, then `a/b.jpg-2.txt` and so on;
    the image that is written first has the short name, and `warnings` tells of the others. An
    image's path in the folder is its `place`, if that is None its `image`. A folder of images
    that is called like a label, `a.txt`, becomes `a.txt_`.

    Args:
        path: The folder.
        overwrite: Replace an existing folder, provided that it holds label files alone.

    Raises:
        OptionError: The folder exists already or cannot be made; on `write`: the path of an image
            is not relative, or leads out of the folder.
    """

    _ending: ClassVar[str]
    _other_endings: ClassVar[tuple[str, ...]] = ()

    def __init__(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        super().__init__(path)
        if path == STDOUT:
            raise OptionError("label files cannot go to standard output; name a folder for them")
        endings = (self._ending, *self._other_endings)
        self._folder = PartialFolder(path, endings=endings, overwrite=overwrite)
        self._renamed, self._example = 0, ""

    def _add(self, found: Detections, where: Where) -> None:
        place = self._beside_labels(check_inside(where.place or where.image), where.frame)
        if where.frame is None:
            short, name = place.with_suffix(""), PurePath(where.image or place).name
        else:
            short = place = place / f"{where.frame:06d}"
            name = "/".join(place.parts[-2:])
        text = self._text(found, name)
        usual = f"{short}{self._ending}"
        if not self._write(usual, text):
            self._write_elsewhere(place, usual, text)

    def _beside_labels(self, place: PurePath, frame: int | None) -> PurePath:
        """Rename folders that are called like a label, whose name an image may need."""
        folders = place.parts if frame is not None else place.parts[:-1]
        own = [f"{name}_" if name.endswith(self._ending) else name for name in folders]
        return PurePath(*own, *place.parts[len(own) :])

    @abstractmethod
    def _text(self, found: Detections, name: str) -> str:
        """Return the content of the label file of an image that is called `name`."""

    def _write_elsewhere(self, place: PurePath, usual: str, text: str) -> None:
        numbers = itertools.chain([""], (f"-{number}" for number in itertools.count(2)))
        names = (f"{place}{number}{self._ending}" for number in numbers)
        used = next(name for name in names if self._write(name, text))
        self._example = self._example or (
            f"{used}: trainers read {usual} for {place}, which is not about it"
        )
        self._renamed += 1

    def _write(self, name: str, text: str) -> bool:
        """Write a new file; False if the name is taken."""
        path = self._folder.partial / name
        with self._naming_errors(Path(self._path, name)):
            try:
                file = _create(path)
            except FileExistsError:
                return False
            with file:
                file.write(text)
        return True

    def warnings(self) -> list[str]:
        """Return one sentence about labels with another name than usual."""
        if not self._renamed:
            return []
        return [
            count(
                self._renamed,
                "label is not called like its image, as that name is taken",
                "labels are not called like their images, as those names are taken",
            )
            + f"; the first is {self._example}; rename such images, and detect again"
        ]

    def close(self) -> None:
        """Give the folder its final name."""
        self._folder.commit()

    def abort(self) -> None:
        """Remove the unfinished folder."""
        self._folder.discard()


class YoloSink(LabelSink):
    """YOLO labels: a line "class x y width height" for each object, and the names of the classes.

    x and y are the centre of the box; all four are fractions of the image's width or height.
    Scores are left out, since trainers and annotation tools refuse a sixth column. An image
    without objects has an empty file. The names are in `data.yaml` (as Ultralytics reads them)
    and, one in each line, in `classes.txt`.

    Args and errors are those of `LabelSink`.
    """

    _ending = ".txt"
    _other_endings = ("data.yaml",)
    _names: tuple[str, ...] | None = None

    def _add(self, found: Detections, where: Where) -> None:
        if self._names is None:
            self._names = found.names
            self._write_names(found.names)
        super()._add(found, where)

    def _write_names(self, names: tuple[str, ...]) -> None:
        entries = "".join(f"  - {json.dumps(name, ensure_ascii=False)}\n" for name in names)
        self._write("data.yaml", f"nc: {len(names)}\nnames:\n{entries}")
        self._write("classes.txt", "".join(" ".join(name.split()) + "\n" for name in names))

    def _text(self, found: Detections, name: str) -> str:
        return found.to_yolo(confidence=False)


class VocSink(LabelSink):
    """Pascal VOC annotations: an XML file for each image, also for one without objects.

    Boxes are whole pixels counted from 1, the last one included; see `Detections.to_voc`.
    `filename` is the image's name without folders, and "<video>/<frame number>" for a frame.

    Args and errors are those of `LabelSink`.
    """

    _ending = ".xml"

    def _text(self, found: Detections, name: str) -> str:
        return found.to_voc(name)


def check_inside(name: str | None) -> PurePath:
    """Return a path in a folder of results, or refuse one that could lead out of it.

    Raises:
        OptionError: There is none, or it holds ".." or a NUL, or is absolute, also as a path of
            Windows on another system.
    """
    path, windows = PurePath(name or ""), PureWindowsPath(name or "")
    if not name or not path.name:
        raise OptionError(f"{name!r} is no name of an image; give image or place to write")
    if path.anchor or windows.is_absolute() or ".." in windows.parts or "\0" in name:
        raise OptionError(
            f"{name!r} cannot be the place of a file in a folder of results; give a relative path "
            "without '..' as place"
        )
    if sys.platform == "win32" and (part := refused_by_windows(name)):
        raise OptionError(f"{name!r}: Windows has no files that are called {part!r}; give place")
    return path


def _create(path: Path) -> TextIO:
    try:
        return open(path, "x", encoding="utf-8", newline="")
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        return open(path, "x", encoding="utf-8", newline="")
