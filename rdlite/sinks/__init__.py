"""The formats that detections are written in, and a writer for each, whole or not there at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from rdlite.errors import OptionError
from rdlite.sinks.base import STDOUT, Sink, to_line
from rdlite.sinks.coco import CocoSink
from rdlite.sinks.labels import VocSink, YoloSink
from rdlite.sinks.labelstudio import LabelStudioSink
from rdlite.sinks.parquet import ParquetSink
from rdlite.sinks.text import CsvSink, JsonlSink

__all__ = [
    "FORMATS",
    "STDOUT",
    "CocoSink",
    "CsvSink",
    "Format",
    "JsonlSink",
    "LabelStudioSink",
    "ParquetSink",
    "Sink",
    "VocSink",
    "YoloSink",
    "open_sink",
    "to_line",
]


class Format(NamedTuple):
    """What a format writes.

    Attributes:
        ending: What a name ends in: "detections" + ending is the usual one.
        folder: It is a folder of files.
        stdout: It can go to standard output.
        pictures: It names a picture for each frame, by the number of the frame.
    """

    ending: str
    folder: bool = False
    stdout: bool = False
    pictures: bool = False


FORMATS: Final[Mapping[str, Format]] = MappingProxyType(
    {
        "jsonl": Format(".jsonl", stdout=True),
        "coco": Format(".json", stdout=True, pictures=True),
        "csv": Format(".csv", stdout=True),
        "yolo": Format("-yolo", folder=True, pictures=True),
        "voc": Format("-voc", folder=True, pictures=True),
        "parquet": Format(".parquet"),
        "labelstudio": Format("-labelstudio", folder=True, pictures=True),
    }
)
"""The formats by name."""
_WRITERS: Final[Mapping[str, Callable[..., Sink]]] = MappingProxyType(
    {"coco": CocoSink, "csv": CsvSink, "yolo": YoloSink, "voc": VocSink}
)
_WRITERS_WITH_HEADER: Final[Mapping[str, Callable[..., Sink]]] = MappingProxyType(
    {"jsonl": JsonlSink, "parquet": ParquetSink, "labelstudio": LabelStudioSink}
)


def open_sink(
    format: str,
    path: str | os.PathLike[str],
    *,
    header: Mapping[str, Any],
    overwrite: bool = False,
) -> Sink:
    """Return a writer of detections, to be used in a `with` statement.

    Args:
        format: One of `FORMATS`.
        path: The file or folder; "-" for standard output where the format can go there.
        header: What the detections depend on; see `jsonl_header`. JSON Lines and Parquet keep it.
        overwrite: Replace an existing file, or an existing folder of such files alone.

    Raises:
        OptionError: There is no such format, the output exists already, its directory is missing,
            or pyarrow is needed and not installed.
        RdliteError: The output cannot be written.

    Example:
        >>> with open_sink("yolo", "labels", header=header) as sink:
        ...     sink.write(detector("street.jpg"), image="street.jpg")
    """
    if format in _WRITERS_WITH_HEADER:
        return _WRITERS_WITH_HEADER[format](path, header, overwrite=overwrite)
    if format in _WRITERS:
        return _WRITERS[format](path, overwrite=overwrite)
    raise OptionError(f"format must be one of {', '.join(FORMATS)}, got {format!r}")
