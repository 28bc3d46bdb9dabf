"""A few images of a batch: detect the objects in them and write annotated copies."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from rdlite.annotate import draw
from rdlite.errors import ImageError
from rdlite.image import Bgr, load
from rdlite.overlap import background, prefetch
from rdlite.results import Detections
from rdlite.storage.partial import hidden

if TYPE_CHECKING:
    from rdlite.detector import Detector

_CHUNK: Final = 16  # enough that the load of the first and the copy of the last do not count

# What the name of one copy can be blamed for; any other error would meet the next copy as well.
_OF_ONE_NAME = {errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.EINVAL}


@dataclass(frozen=True, slots=True)
class Image:
    """One image to work on.

    Attributes:
        number: Its place among the inputs of the batch.
        path: The file.
        copy: Where the annotated copy goes, None for none; what is there is replaced.
    """

    number: int
    path: Path
    copy: Path | None


@dataclass(frozen=True, slots=True)
class ImageResult:
    """What became of one image.

    Attributes:
        number: Its place among the inputs of the batch.
        entry: `width`, `height` and `detections` as in `Detections.to_dict`, and
            `dropped_nonfinite`, `copy_size`, `source_size` and `mtime_ns`; None if it failed.
        error: Why it failed.
        stop: The output cannot be written, so that other images would fail alike.
    """

    number: int
    entry: dict[str, Any] | None
    error: str = ""
    stop: bool = False


@dataclass(frozen=True, slots=True)
class ImageTask:
    """A task for `rdlite.workers.pool.Pool` that returns a list of `ImageResult`, in order.

    The next image is loaded and the last one drawn, encoded and written while the network runs.
    After a result with `stop` there are no more.

    Attributes:
        folder: The output folder, which is never created here; None where no image has a copy.
        images: The images.
    """

    folder: Path | None
    images: tuple[Image, ...]

    @property
    def label(self) -> str:
        """Name of the first image, and how many others there are."""
        others = len(self.images) - 1
        return self.images[0].path.name + (f" and {others} more" if others else "")

    def alone(self) -> list[ImageTask]:
        """Return a task for each image, to find the one that fails."""
        return [ImageTask(self.folder, (image,)) for image in self.images]

    def __call__(self, detector: Detector, report: Callable[[int], object]) -> list[ImageResult]:
        """Work on the images; see `rdlite.workers.pool.Task`."""
        results: list[ImageResult] = []

        def finish(items: Iterator[_Found]) -> None:
            for loaded, found in items:
                if not (results and results[-1].stop):
                    results.append(_finish(loaded, found, self.folder))

        with (
            prefetch(map(_load, self.images), 2) as ready,
            background(finish, 2) as put,
        ):
            for loaded in ready:
                pixels = loaded.pixels
                put((loaded, None if isinstance(pixels, ImageError) else detector(pixels)))
                report(1)
        return results


@dataclass(frozen=True, slots=True)
class _Loaded:
    image: Image
    source: dict[str, int]
    pixels: Bgr | ImageError


_Found: TypeAlias = "tuple[_Loaded, Detections | None]"


def chunk_size(images: int, workers: int) -> int:
    """Return how many images a task should have so that all workers end at about the same time."""
    return max(1, min(_CHUNK, images // (4 * workers)))


def source_identity(path: str | Path) -> dict[str, int]:
    """Return `source_size` in bytes and `mtime_ns`, by which a changed file is noticed.

    Raises:
        OSError: There is no such file.
    """
    status = os.stat(path)
    return {"source_size": status.st_size, "mtime_ns": status.st_mtime_ns}


def _load(image: Image) -> _Loaded:
    try:
        source = source_identity(image.path)  # before it is read: a later change shows
        return _Loaded(image, source, load(image.path))
    except ImageError as error:
        return _Loaded(image, {}, error)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        return _Loaded(image, {}, ImageError(f"{image.path}: cannot be read ({reason})"))


def _finish(loaded: _Loaded, found: Detections | None, folder: Path | None) -> ImageResult:
    image, pixels = loaded.image, loaded.pixels
    if isinstance(pixels, ImageError) or found is None:
        return ImageResult(image.number, None, str(pixels))
    more = {"dropped_nonfinite": found.dropped_nonfinite}
    try:
        if image.copy is not None:
            more["copy_size"] = _write_copy(image.copy, draw(pixels, found), folder)
    except ImageError as error:
        return ImageResult(image.number, None, str(error))
    except OSError as error:
        text = f"{image.copy} cannot be written: {error.strerror}"
        return ImageResult(image.number, None, text, stop=not _is_of_one_name(error, folder))
    return ImageResult(image.number, loaded.source | found.to_dict() | more)


def _is_of_one_name(error: OSError, folder: Path | None) -> bool:
    # Windows says of a path with more than 260 characters that there is no such file.
    missing = error.errno == errno.ENOENT and folder is not None and folder.is_dir()
    return missing or error.errno in _OF_ONE_NAME


def _write_copy(path: Path, picture: Bgr, folder: Path | None) -> int:
    """Write an annotated copy, whole or not at all; returns its size in bytes."""
    import cv2

    # OpenCV writes WebP without loss unless told otherwise, which takes six times as long.
    quality = [cv2.IMWRITE_WEBP_QUALITY, 90] if path.suffix.lower() == ".webp" else []
    try:
        good, encoded = cv2.imencode(path.suffix, picture, quality)
    except cv2.error:
        good = False
    if not good:
        raise ImageError(f"{path} cannot be encoded, it is too large for that; use --no-images")
    if not path.parent.is_dir():
        if folder is not None:
            os.stat(folder)  # one that has vanished is an error, and is not made again
        path.parent.mkdir(parents=True, exist_ok=True)
    # Not a `PartialFile`: a killed run leaves this name, and the next one must use it again. And
    # waiting for the disk would take a tenth of the time of a detection.
    partial = hidden(path, "partial")
    try:
        partial.write_bytes(encoded.tobytes())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return encoded.nbytes
