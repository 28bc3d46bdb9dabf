"""Files of JSON lines under one header, flushed line by line, which a later run can go on with."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Self

from rdlite import registry
from rdlite.errors import OptionError, RdliteError, ResultFileError
from rdlite.storage.jsonlines import (
    JSONL_SCHEMA,
    check_header,
    parse_line,
    read_header,
    scan_lines,
)

_SHORT = 40  # characters; a longer value is not shown where two headers are compared


def versions() -> dict[str, str]:
    """Return the versions of all that boxes and copies of images may depend on.

    Images that two versions have made would not be those of one run.
    """
    import cv2
    import onnxruntime

    import rdlite

    names = {"rdlite": rdlite, "onnxruntime": onnxruntime, "opencv": cv2}
    return {name: str(module.__version__) for name, module in names.items()}


def jsonl_header(
    model_sha256: str,
    *,
    names: Sequence[str],
    category_ids: Sequence[int],
    source: str | os.PathLike[str] | None = None,
    options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the header line of a file of detections: all that its other lines depend on.

    Args:
        model_sha256: SHA-256 of the model file.
        names: The model's class names.
        category_ids: Dataset (COCO) category id of each class.
        source: The video that the lines are about, None for a set of images.
        options: Options that the detections depend on, such as `conf`.

    Returns:
        `schema`, `model_sha256`, for a video `source`, `source_size` (bytes) and `mtime_ns`, then
        `options`, `names` and `category_ids`.
    """
    header: dict[str, Any] = {"schema": JSONL_SCHEMA, "model_sha256": model_sha256}
    if source is not None:
        status = os.stat(source)
        header["source"] = os.fspath(source)
        header["source_size"] = status.st_size
        header["mtime_ns"] = status.st_mtime_ns
    header["options"] = dict(options or {})
    return header | {"names": list(names), "category_ids": list(category_ids)}


def dump_line(value: Mapping[str, Any]) -> str:
    r"""Return a JSON object as one line that ends in "\n"."""
    # ASCII: the name of a file need not be valid UTF-8, and comes back from its escapes.
    return json.dumps(value, allow_nan=False) + "\n"


class Journal:
    """A file of JSON lines that are on disk one by one, so that a killed run can be resumed.

    Every line is handed to the operating system before `append` returns; a process that dies
    loses at most the line that it was writing. Use it in a `with` statement.

    Args:
        path: The file.
        header: Its first line; `schema` must be `JSONL_SCHEMA`. See `jsonl_header`.
        resume: Go on with an existing file if its header is the same. A torn last line is cut
            off, and so is everything from a damaged line on.
        overwrite: Begin an existing file anew; with `resume` only if it cannot be resumed.

    Attributes:
        path: The file.
        entries: Lines in it, without the header.
        dropped: Lines cut off by `resume`; what they recorded has to be done again.

    Raises:
        OptionError: The file exists and neither `resume` nor `overwrite` is given, or it has
            another header.
        ResultFileError: It is no journal.
        RdliteError: It cannot be written.

    Example:
        >>> with Journal("images.jsonl", header, resume=True) as journal:
        ...     journal.append({"image": "a.jpg"} | detector("a.jpg").to_dict())
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        header: Mapping[str, Any],
        *,
        resume: bool = False,
        overwrite: bool = False,
    ) -> None:
        self.path = Path(path)
        self.entries = self.dropped = self._size = 0
        if self.path.exists():
            self._take_over(header, resume=resume, overwrite=overwrite)
        try:
            self._file = open(self.path, "ab", buffering=0)
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            self._file.truncate(self._size)
            if self._size == 0:
                self._write(header)
        except BaseException:
            self._file.close()
            raise

    def append(self, entry: Mapping[str, Any]) -> None:
        """Add one line.

        Raises:
            RdliteError: It cannot be written, for one because the disk is full. The file then
                still ends with the line before.
        """
        self._write(entry)
        self.entries += 1

    def close(self) -> None:
        """Wait until all lines have reached the disk, and close the file."""
        if self._file.closed:
            return
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._unwritable(error) from error
        finally:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _take_over(self, header: Mapping[str, Any], *, resume: bool, overwrite: bool) -> None:
        if resume:
            try:
                self._find_whole_lines(dump_line(header).encode())
            except (OptionError, ResultFileError):
                if not overwrite:
                    raise
        elif not overwrite:
            raise OptionError(
                f"{self.path} exists already; resume=True (--resume) goes on with it, "
                "overwrite=True (--overwrite) replaces it"
            )

    def _find_whole_lines(self, expected: bytes) -> None:
        with self._open() as file:
            first = file.readline()
            if expected.startswith(first) and first != expected:
                return  # killed while it wrote the header
            difference = describe_difference(check_header(self.path, first), json.loads(expected))
            if difference:
                raise OptionError(
                    f"{self.path} was written with other settings ({difference}); give the same "
                    "ones to go on with it, or overwrite=True (--overwrite) to replace it"
                )
            self._size = len(first)
            for line in file:
                if not line.endswith(b"\n") or parse_line(line) is None:
                    self.dropped = 1 + sum(1 for _ in file)
                    break
                self._size += len(line)
                self.entries += 1

    def _open(self) -> BinaryIO:
        try:
            return open(self.path, "rb")
        except OSError as error:
            raise OptionError(f"{self.path} cannot be read: {error.strerror}") from error

    def _write(self, value: Mapping[str, Any]) -> None:
        data = memoryview(dump_line(value).encode())
        end = self._size + len(data)
        try:
            while data:
                data = data[self._file.write(data) :]
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.truncate(self._size)
            raise self._unwritable(error) from error
        self._size = end

    def _unwritable(self, error: OSError) -> RdliteError:
        return RdliteError(f"{self.path} cannot be written: {error.strerror}")


def read_journal(
    path: str | os.PathLike[str],
) -> tuple[dict[str, Any], Iterator[dict[str, Any]]]:
    """Return the header of a file of JSON lines, and its other lines, all of which must be whole.

    Raises:
        ResultFileError: As `read_header`; while iterating: a line is torn or damaged.
    """
    return read_header(path), _whole_lines(path)


def describe_difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Say in which values two headers differ: "conf was 0.25, now 0.3"; "" if they are equal."""
    differences = []
    for key in {**old, **new}:
        was, now = old.get(key), new.get(key)
        if was == now:
            continue
        if isinstance(was, Mapping | None) and isinstance(now, Mapping | None):
            differences.append(describe_difference(was or {}, now or {}))
        elif key == "model_sha256":
            differences.append(f"model was {_model(was)}, now {_model(now)}")
        elif max(len(repr(was)), len(repr(now))) > _SHORT:
            differences.append(f"other {key}")
        else:
            then, at_last = (repr(h[key]) if key in h else "not recorded" for h in (old, new))
            differences.append(f"{key} was {then}, now {at_last}")
    return ", ".join(filter(None, differences))


def _model(sha256: Any) -> str:
    """The name of a model that comes with rdlite; of another one the beginning of its sum."""
    if sha256 is None:
        return "not stated"
    rows = registry.table().items()
    return next((name for name, row in rows if row.sha256 == sha256), f"{str(sha256)[:12]}...")


def _whole_lines(path: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
    for line in scan_lines(path):
        if line.value is None:
            raise ResultFileError(
                f"line {line.number} of {path} is damaged: {line.damage}; what it recorded is lost"
            )
        yield line.value
