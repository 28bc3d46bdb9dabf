"""Detections in one text file: JSON Lines and CSV."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import sys
from collections.abc import Iterable, Mapping
from typing import IO, Any, Final

from rdlite.errors import OptionError
from rdlite.results import Detections
from rdlite.sinks.base import STDOUT, Sink, Where, to_line
from rdlite.storage.journal import dump_line
from rdlite.storage.partial import PartialFile

COLUMNS: Final = (
    *("x_min", "y_min", "x_max", "y_max", "class_id", "class_name", "confidence"),
    *("image", "frame", "time"),
)
"""Of CSV and Parquet; the first seven are named as in `Detections.to_pandas`."""


class TextSink(Sink):
    """A text file with a partial name, or standard output for "-": the same bytes in both."""

    def __init__(self, path: str | os.PathLike[str], head: str, *, overwrite: bool) -> None:
        super().__init__(path)
        self._target = None if path == STDOUT else PartialFile(path, overwrite=overwrite)
        # None for the standard output of a notebook, which takes text alone.
        self._file: IO[bytes] | None = getattr(sys.stdout, "buffer", None)
        if self._target is not None:
            try:
                self._file = open(self._target.partial, "wb")
            except OSError as error:
                raise OptionError(f"{path} cannot be written: {error.strerror}") from error
        try:
            if self._target is None:
                with self._naming_errors():
                    sys.stdout.flush()  # what was printed before comes before
            self._put(head)
        except BaseException:
            self.abort()
            raise

    def _put(self, text: str) -> None:
        data = text.encode("utf-8", "surrogateescape")  # names keep their bytes, UTF-8 or not
        with self._naming_errors():
            if self._file is None:
                sys.stdout.write(data.decode("utf-8", "backslashreplace"))
                sys.stdout.flush()
            else:
                self._file.write(data)
                self._file.flush()

    def _finish(self) -> None:
        """Write what comes after the last entry."""

    def close(self) -> None:
        """Finish the file and give it its final name.

        Raises:
            RdliteError: The file cannot be written.
        """
        self._finish()
        if self._target is not None and self._file is not None:
            self._file.close()
            self._target.commit()

    def abort(self) -> None:
        """Remove the unfinished file."""
        if self._target is not None and self._file is not None:
            with contextlib.suppress(OSError):  # closing writes, and fails again on a full disk
                self._file.close()
            self._target.discard()


class JsonlSink(TextSink):
    """JSON Lines: a header line, then one line for every image or frame, flushed at once.

    See `to_line` for what a line holds. Where the header names a video as its `source`, the lines
    of its frames do not name it again.

    Args:
        path: File to write, "-" for standard output.
        header: The first line; see `jsonl_header`.
        overwrite: Replace an existing file.

    Raises:
        OptionError: The file exists already, or its directory is missing.
        RdliteError: The file cannot be written.

    Example:
        >>> header = jsonl_header(
        ...     detector.model_sha256, names=detector.names, category_ids=detector.category_ids
        ... )
        >>> with JsonlSink("found.jsonl", header) as sink:
        ...     sink.write(detector("street.jpg"), image="street.jpg")
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        header: Mapping[str, Any],
        *,
        overwrite: bool = False,
    ) -> None:
        self._of_one_video = "source" in header
        super().__init__(path, dump_line(header), overwrite=overwrite)

    def _add(self, found: Detections, where: Where) -> None:
        if self._of_one_video and where.frame is not None:
            where = where._replace(image=None, place=None)
        self._put(dump_line(to_line(found, **where._asdict())))


class CsvSink(TextSink):
    """CSV with one row per object, under the column names that supervision uses.

    Columns: `x_min y_min x_max y_max` (pixels), `class_id class_name confidence`, then `image
    frame time`, empty where they do not apply. An image without objects has no row.

    Args:
        path: File to write, "-" for standard output.
        overwrite: Replace an existing file.

    Raises:
        OptionError: The file exists already, or its directory is missing.
        RdliteError: The file cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        super().__init__(path, _row(COLUMNS), overwrite=overwrite)

    def _add(self, found: Detections, where: Where) -> None:
        source = (where.image, where.frame, where.time)
        rows = (
            _row((*one["xyxy"], one["class_id"], one["class_name"], one["confidence"], *source))
            for one in found.to_dict()["detections"]
        )
        self._put("".join(rows))


def _row(values: Iterable[Any]) -> str:
    line = io.StringIO()
    # A name with a carriage return is quoted only when the line ends in one.
    csv.writer(line, lineterminator="\r\n").writerow(values)
    return line.getvalue().removesuffix("\r\n") + "\n"
