"""Which frames of a page have a picture, and where the pictures come from."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from rdlite.errors import ImageError, VideoError
from rdlite.image import Bgr, load
from rdlite.report.pack import Collected
from rdlite.resultfile import ends_of
from rdlite.storage.outputs import utf8_name
from rdlite.video.reader import VideoReader

MAX_BYTES: Final = 4_500_000
"""Of all pictures of a page, before base64."""

_SIDES: Final = (640, 480, 320, 224, 160, 96)  # pixels of the longer side, the first that fits
_QUALITY: Final = 78
_NEAR: Final = 1e-5  # seconds; files hold times to the microsecond
_AHEAD: Final = 8.0  # seconds; over a shorter gap reading on is as fast as seeking

_Item: TypeAlias = "tuple[int, Bgr | str]"  # a kept frame; its picture, or why there is none


@dataclass(slots=True)
class Pictures:
    """The pictures of a page.

    Attributes:
        jpegs: JPEG file of each kept frame that has one, by its number.
        warnings: One sentence for each kind of picture that is missing.
        found: The folder, as images are named in it, that has images; None if none was found.
    """

    jpegs: dict[int, bytes] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    found: Path | None = None


def choose(frames: Collected, limit: int) -> list[int]:
    """Return the kept frames that should have a picture, ascending.

    Half of them are spread evenly, each the fullest of its stretch (by the sum of its scores). The
    rest is shared among the classes, rare ones first: of as many stretches of the frames with a
    class, those with most of it. Some are best in several ways, so that there may be fewer.
    """
    if frames.kept <= limit:
        return list(range(frames.kept))
    frame_of, scores = frames.frame_of, np.asarray(frames.scores)
    classes = np.asarray(frames.classes)
    everything = _weigh(frame_of, scores, frames.kept)
    chosen = _best(np.arange(frames.kept), everything, (limit + 1) // 2)
    present, numbers = np.unique(classes, return_counts=True)
    rare_first = present[np.argsort(numbers, kind="stable")]
    for place, class_id in enumerate(rare_first):
        of_class = classes == class_id
        weights = _weigh(frame_of[of_class], scores[of_class], frames.kept)
        share = (limit - len(chosen)) // (len(rare_first) - place)
        chosen |= _best(np.flatnonzero(weights), weights, share)
    return sorted(chosen)


def _weigh(
    frame_of: npt.NDArray[np.int64], scores: npt.NDArray[Any], frames: int
) -> npt.NDArray[np.float64]:
    return np.bincount(frame_of, weights=scores, minlength=frames).astype(np.float64)


def _best(
    frames: npt.NDArray[np.int64], weights: npt.NDArray[np.float64], stretches: int
) -> set[int]:
    """Cut the frames into stretches and return the one of most weight in each."""
    if stretches == 0:
        return set()
    runs = np.array_split(frames, min(stretches, len(frames)) or 1)
    return {int(run[weights[run].argmax()]) for run in runs if len(run)}


def take_pictures(
    frames: Collected,
    wanted: Sequence[int],
    header: Mapping[str, Any],
    folders: Sequence[Path],
    progress: Callable[[int, int], object],
) -> Pictures:
    """Read the pictures of frames and make them small.

    Args:
        frames: What is in the file.
        wanted: Kept frames, ascending.
        header: Of the file: its video, and how large and old that was.
        folders: Where the video or the images may be, in the order in which they are tried; "."
            tries them as they are named in the file. A file is the video itself.
        progress: Called with the number of pictures that are done and that of all.
    """
    pictures, problems = Pictures(), Counter[str]()
    source, budget = header.get("source"), MAX_BYTES // max(1, len(wanted))
    if source is None:
        items = _images(frames, wanted, folders, pictures)
    else:
        items = _from_video(frames, wanted, header, folders, pictures)
    for done, (number, picture) in enumerate(items, start=1):
        width, height = np.reshape(frames.sizes, (-1, 2))[number].tolist()
        if isinstance(picture, str):
            problems[picture] += 1
        elif picture.shape[:2] != (height, width):
            problems["its size is not that in which objects were detected"] += 1
        else:
            pictures.jpegs[number] = _jpeg(picture, budget)
        progress(done, len(wanted))
    kind = "images" if source is None else "frames"
    pictures.warnings += [
        f"{number} of {len(wanted)} {kind} are shown without a picture: {problem}."
        for problem, number in problems.items()
    ]
    return pictures


def locate(name: str, folders: Sequence[Path]) -> Path | None:
    """Return the file that a name in a file of detections means, None if it is in no folder.

    In each folder that is the file which the name leads to from there, or `ends_of` it.
    """
    ends = [PurePath(name), *ends_of(name)]
    for folder in folders:
        if folder.is_file():
            return folder
        for end in ends:
            if os.path.isfile(folder / end):  # also False for names that no file can have
                return folder / end
    return None


def _images(
    frames: Collected, wanted: Sequence[int], folders: Sequence[Path], pictures: Pictures
) -> Iterator[_Item]:
    taken: dict[Path, str] = {}
    for number in wanted:
        name = frames.names[number] or ""
        if frames.index[number] >= 0:
            yield number, "frames of several videos in one file are not looked up"
            continue
        path = locate(name, folders)
        if path is None:
            yield number, "the image was not found; give its folder (--media)"
            continue
        if taken.setdefault(path, name) != name:
            yield number, "of several images of that name one file is there"
            continue
        _note_folder(name, path, pictures)
        try:
            yield number, load(path)
        except ImageError:
            yield number, "the image cannot be read"


def _note_folder(name: str, path: Path, pictures: Pictures) -> None:
    end = PurePath(name).parts
    relative = not PurePath(name).is_absolute()
    if pictures.found is None and relative and path.parts[-len(end) :] == end:
        pictures.found = Path(*path.parts[: -len(end)])


def _from_video(
    frames: Collected,
    wanted: Sequence[int],
    header: Mapping[str, Any],
    folders: Sequence[Path],
    pictures: Pictures,
) -> Iterator[_Item]:
    source = str(header["source"])
    path = locate(source, folders)
    places = " or ".join(dict.fromkeys(map(utf8_name, folders)))
    name = utf8_name(PurePath(source).name)
    problem = f"{name} is not in {places}; give it or its folder (--media)"
    if path is not None:
        problem = "the frame cannot be read from the video"
        status = os.stat(path)
        if status.st_size != header.get("source_size"):
            problem = "the video has changed since objects were detected in it"
            path = None
        elif status.st_mtime_ns != header.get("mtime_ns"):
            pictures.warnings.append(
                f"{path} has another time of change than when objects were detected in it; if it "
                "is not a copy, its pictures do not belong to the boxes."
            )
    left = {number: frames.seconds[number] for number in wanted}
    if path is not None:
        for number, picture in _frames_at(path, dict(left)):
            del left[number]
            yield number, picture
    for number in left:
        yield number, problem


def _frames_at(path: Path, times: dict[int, float]) -> Iterator[tuple[int, Bgr]]:
    """Yield the frames at some times, by their keys, ascending; those that are not there not."""
    queue = sorted((seconds, number) for number, seconds in times.items() if seconds >= 0)
    while queue:
        try:
            before = len(queue)
            yield from _read_on(path, queue)
            if len(queue) == before:  # the video ends before
                return
        except VideoError:
            return


def _read_on(path: Path, queue: list[tuple[float, int]]) -> Iterator[tuple[int, Bgr]]:
    """Yield frames in one go, up to the first that is far ahead; takes them off the queue."""
    with VideoReader(path, start=queue[0][0]) as reader:
        for frame in reader:
            while queue and queue[0][0] < frame.time - _NEAR:
                queue.pop(0)
            if queue and queue[0][0] <= frame.time + _NEAR:
                yield queue.pop(0)[1], frame.image
            if not queue or queue[0][0] - frame.time > _AHEAD:
                return


def _jpeg(picture: Bgr, budget: int) -> bytes:
    import cv2

    content = b""
    for side in _SIDES:
        scale = min(1.0, side / max(picture.shape[:2]))
        size = [max(1, round(length * scale)) for length in picture.shape[1::-1]]
        small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        content = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes()
        if len(content) <= budget:
            break
    return content
