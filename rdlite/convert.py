"""From JSON Lines to any other format, line by line."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any

from rdlite.errors import OptionError
from rdlite.results import Detections
from rdlite.sinks import Sink, open_sink
from rdlite.storage.journal import read_journal


def convert(
    source: str | os.PathLike[str],
    format: str,
    path: str | os.PathLike[str],
    *,
    overwrite: bool = False,
) -> list[str]:
    """Write what a file of JSON lines holds in another format.

    The result is the same as if the detections had been written in that format at once.

    Args:
        source: A file of JSON lines, as `JsonlSink` and `Journal` write it.
        format: One of `rdlite.sinks.FORMATS`.
        path: The file or folder to write, "-" for standard output.
        overwrite: Replace it if it exists.

    Returns:
        The sink's `warnings`.

    Raises:
        OptionError: The source is no such file or is damaged; or as `open_sink`.
        RdliteError: The output cannot be written.
    """
    header, lines = read_journal(source)
    with open_sink(format, path, header=header, overwrite=overwrite) as sink:
        copy_lines(header, lines, sink)
    return sink.warnings()


def copy_lines(header: Mapping[str, Any], lines: Iterable[Mapping[str, Any]], sink: Sink) -> None:
    """Write lines of a file of JSON lines to a sink.

    Frames without an `image` are those of the video that the header names as its `source`, and
    their label files lie in a folder with the name of that file.

    Args:
        header: The header of the lines, with `names` and `category_ids`.
        lines: See `rdlite.sinks.to_line`; other keys are left out.
        sink: Where to write.

    Raises:
        OptionError: The header has no class names, or a line holds no detections.
        RdliteError: The sink cannot write.
    """
    if "names" not in header or "category_ids" not in header:
        raise OptionError(
            "the header has no names and category_ids; detect again with this version"
        )
    video = header.get("source")
    for line in lines:
        found = Detections.from_dict(
            line, names=header["names"], category_ids=header["category_ids"]
        )
        image, place = line.get("image"), line.get("place")
        if image is None and video is not None:
            image, place = video, PurePath(video).name
        sink.write(
            found,
            image=image,
            place=place,
            frame=line.get("frame"),
            pts=line.get("pts"),
            time=line.get("time"),
        )
