"""What all files of detections share: what is told to them, and the line that JSON makes of it."""

from __future__ import annotations

import contextlib
import os
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, NamedTuple

from rdlite.errors import OptionError, RdliteError
from rdlite.results import Detections
from rdlite.storage.partial import WholeOrNothing

STDOUT = "-"


class Where(NamedTuple):
    """The image or the frame that detections are from; see `Sink.write`."""

    image: str | None = None
    place: str | None = None
    frame: int | None = None
    pts: int | None = None
    time: float | None = None


class Sink(WholeOrNothing):
    """Base of all writers of detections: one `write` for each image or frame, then `close`.

    Used in a `with` statement it closes itself, or removes the unfinished file after an error.

    Args:
        path: What to write.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = path

    def write(
        self,
        detections: Detections,
        *,
        image: str | None = None,
        place: str | None = None,
        frame: int | None = None,
        pts: int | None = None,
        time: float | None = None,
    ) -> None:
        """Add what was found in one image or in one frame of a video.

        Args:
            detections: The objects; there may be none.
            image: Name of the image or of the video.
            place: Path of the image or the video inside a folder of results, which label files
                take their names from; None if it is `image`.
            frame: Index of the frame, None for an image.
            pts: The frame's time stamp as the video states it.
            time: Seconds from the start of the video.

        Raises:
            OptionError: UTF-8 cannot spell a name, or a label file cannot have it.
            RdliteError: The file cannot be written, for one because the disk is full.
        """
        for name in filter(None, (image, place)):
            _check_name(name)
        self._add(detections, Where(image, place, frame, pts, _microseconds(time)))

    @abstractmethod
    def _add(self, found: Detections, where: Where) -> None: ...

    def warnings(self) -> list[str]:
        """Return one sentence for each thing that a reader of the files has to know."""
        return []

    @contextlib.contextmanager
    def _naming_errors(self, path: str | os.PathLike[str] | None = None) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            raise
        except OSError as error:
            target = path or ("standard output" if self._path == STDOUT else self._path)
            raise RdliteError(f"{target} cannot be written: {error.strerror}") from error


def _check_name(name: str) -> None:
    try:
        str(name).encode("utf-8", "surrogateescape")  # CSV takes a path as well
    except UnicodeEncodeError as error:
        half = error.object[error.start]
        raise OptionError(
            f"{name!r} cannot be written: {half!r} is half a character; give another name as image "
            "or place"
        ) from error


def to_line(
    detections: Detections,
    *,
    image: str | None = None,
    place: str | None = None,
    frame: int | None = None,
    pts: int | None = None,
    time: float | None = None,
) -> dict[str, Any]:
    """Return what a file of JSON lines says about one image or frame; see `Sink.write`.

    It is `{"image", "place", "frame", "pts", "time", "width", "height", "detections"}`: an image
    has no frame, `pts` and `time`, a frame only has an `image` where that is given, and `place` is
    left out where it is `image`.
    """
    where: dict[str, Any] = {}
    if frame is None or image is not None:
        where["image"] = image
    if place not in (None, image):
        where["place"] = place
    if frame is not None:
        where |= {"frame": frame, "pts": pts, "time": _microseconds(time)}
    return where | detections.to_dict()


def as_utf8(name: str | None) -> str | None:
    r"""Return a name as UTF-8 can hold it, its other bytes as escapes such as `\udcff`."""
    return name and name.encode("utf-8", "backslashreplace").decode()


def _microseconds(time: float | None) -> float | None:
    return None if time is None else round(time, 6)
