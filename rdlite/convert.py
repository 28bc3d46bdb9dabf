"""From JSON Lines to any other format, line by line."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rdlite.errors import OptionError, ResultFileError
from rdlite.imagefolder import ImageFolder
from rdlite.resultfile import Record, ResultFile, open_results, read_record, start_of
from rdlite.sinks import FORMATS, Sink, open_sink
from rdlite.sinks.base import STDOUT
from rdlite.storage.journal import describe_difference
from rdlite.wording import counted_from

__all__ = ["Converted", "convert"]

_OF_ONE_VIDEO = ("source", "source_size", "mtime_ns", "video")


@dataclass(slots=True)
class Converted:
    """What `convert` has written.

    Attributes:
        records: Images and frames.
        objects: Objects in them.
        faults: One sentence for each thing that was damaged or missing.
        notes: One sentence for each other thing that a reader of the output has to know.
    """

    records: int = 0
    objects: int = 0
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, other: Converted) -> None:
        """Count what another call has written as well.

        Args:
            other: What that call returned.
        """
        self.records += other.records
        self.objects += other.objects
        self.faults += other.faults
        self.notes += other.notes


def convert(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    format: str,
    path: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    images: str | os.PathLike[str] | None = None,
    progress: Callable[[int], object] | None = None,
) -> Converted:
    """Write what files of JSON lines hold in another format.

    The result is the same as if the detections had been written in that format at once. What is
    damaged is left out, and told of.

    Args:
        source: A file of JSON lines, or several, in one output. Those have to be of the same
            classes and of different images and videos, which are told apart by their folders; JSON
            lines then state the model and the options that are the same in all, and no model where
            there are several.
        format: One of `rdlite.sinks.FORMATS`.
        path: The file or folder to write, "-" for standard output.
        overwrite: Replace it if it exists.
        images: A folder that images are to be named in: by their path from there, which is the
            longest end of their name that is a file in it. Frame 123 of `clip.mp4` becomes the
            image `clip.mp4/000123` with whatever ending it has there. Those that are not there are
            counted, and named as if they were; so are those whose file another one has got.
            Frames count from the `start` of the detection, and so have their images to.
        progress: Called with the number of bytes read since the last call.

    Raises:
        ResultFileError: A source is no such file, has no whole line but damaged ones, has other
            classes than the first, or is about an image or a video that another one is about; or
            the images of its frames do not begin where the detection did.
        OptionError: As `open_sink`; or the output is a source.
        RdliteError: The output cannot be written.
    """
    if not isinstance(source, Iterable) or isinstance(source, str | bytes):
        source = [source]
    results = [open_results(one) for one in source]
    _check_output(path, results)
    done = Converted(notes=_check_alike(results))
    owners = _owners(results)
    folder = None if images is None else ImageFolder(images)
    with open_sink(format, path, header=_header(results), overwrite=overwrite) as sink:
        for record in _records(results, owners, folder, done, progress):
            _write(sink, record)
    # Joined lines state no start that not all files share, so this is where it can be told.
    if len(results) > 1 or folder is not None or FORMATS[format].pictures:
        done.notes += _late_starts(results)
    done.faults += [] if folder is None else folder.warnings()
    done.notes += sink.warnings()
    return done


def copy_lines(header: Mapping[str, Any], lines: Iterable[Mapping[str, Any]], sink: Sink) -> None:
    """Write lines of a file of JSON lines to a sink.

    Args:
        header: The header of the lines, with `names` and `category_ids`.
        lines: See `rdlite.resultfile.read_record`.
        sink: Where to write.

    Raises:
        OptionError: A line holds no detections.
        RdliteError: The sink cannot write.
    """
    for line in lines:
        _write(sink, read_record(line, header))


def _write(sink: Sink, record: Record) -> None:
    where = record._asdict()
    sink.write(where.pop("found"), **where)


def _records(
    results: list[ResultFile],
    owners: dict[str, ResultFile],
    folder: ImageFolder | None,
    done: Converted,
    progress: Callable[[int], object] | None,
) -> Iterator[Record]:
    places = _video_places(results)
    for one in results:
        before, position = done.records, 0
        last: Record | None = None
        for record in one:
            if len(results) > 1 and one.source is None and record.image is not None:
                _claim(owners, record.image, one)
            done.records += 1
            done.objects += len(record.found)
            if progress is not None:
                progress(one.position - position)
                position = one.position
            last = record._replace(place=places.get(one.path, record.place))
            yield last if folder is None else folder.rename(last)
        warnings = one.warnings()
        if warnings and done.records == before:
            raise ResultFileError(f"no line of {one.path} is whole: {warnings[0]}")
        if folder is not None and last is not None and not warnings:
            folder.check_end(one, last)
        done.faults += warnings


def _video_places(results: list[ResultFile]) -> dict[Path, str]:
    """The path of each file's video from the folder that holds all of them."""
    sources = {one.path: os.path.normpath(one.source) for one in results if one.source}
    if len(sources) < 2:
        return {}
    try:
        top = os.path.commonpath([os.path.dirname(source) for source in sources.values()])
    except ValueError:  # some are absolute, some are not
        return {}
    return {path: os.path.relpath(source, top or ".") for path, source in sources.items()}


def _header(results: list[ResultFile]) -> dict[str, Any]:
    first, *others = results
    if not others:
        return dict(first.header)
    header = {key: value for key, value in first.header.items() if key not in _OF_ONE_VIDEO}
    # What is said of all lines has to hold for all: images have no stride, and videos may have two.
    common = {
        key: value
        for key, value in first.options.items()
        if all((key, value) in one.options.items() for one in others)
    }
    models = {one.header.get("model_sha256") for one in results}
    model = models.pop() if len(models) == 1 else None
    return header | {"model_sha256": model, "options": common}


def _check_alike(results: list[ResultFile]) -> list[str]:
    if not results:
        raise OptionError("there is nothing to convert; give a file of JSON lines")
    first = results[0]
    notes = []
    for one in results[1:]:
        if (one.names, one.category_ids) != (first.names, first.category_ids):
            raise ResultFileError(
                f"{one.path} has other classes than {first.path}; give each an output of its own"
            )
        same = ("model_sha256", "options")
        old, new = ({key: r.header.get(key) for key in same} for r in (first, one))
        difference = describe_difference(old, new)
        if difference:
            notes.append(f"{one.path} was made otherwise than {first.path}: {difference}")
    return notes


def _owners(results: list[ResultFile]) -> dict[str, ResultFile]:
    """Which file each video is in, as far as headers say: what they name twice is refused."""
    owners: dict[str, ResultFile] = {}
    for one in results:
        if one.source is not None:
            _claim(owners, one.source, one)
    return owners


def _claim(owners: dict[str, ResultFile], name: str, results: ResultFile) -> None:
    """Refuse an image or a video of another file, whose boxes or frames would mix with these."""
    owner = owners.setdefault(os.path.normpath(name), results)
    if owner is not results:
        raise ResultFileError(
            f"{name} is in {owner.path} and in {results.path}; leave one of these out, or give "
            "each an output of its own"
        )


def _late_starts(results: list[ResultFile]) -> list[str]:
    starts = [(one.path, start_of(one.options)) for one in results]
    return [f"frames of {path} are {counted_from(start)}" for path, start in starts if start > 0]


def _check_output(path: str | os.PathLike[str], results: list[ResultFile]) -> None:
    if path == STDOUT or not os.path.exists(path):
        return
    for one in results:
        if os.path.samefile(path, one.path):
            raise OptionError(f"{path} is what is to be read, and is not replaced; name another -o")
