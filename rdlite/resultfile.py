"""Files of detections, read line by line: what is whole, and what is not."""

from __future__ import annotations

import os
import reprlib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath, PureWindowsPath
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rdlite.errors import OptionError, ResultFileError
from rdlite.results import Detections, import_optional
from rdlite.sinks.base import Where, as_utf8
from rdlite.sinks.coco import coco_annotations, coco_categories, coco_image
from rdlite.storage.journal import dump_line
from rdlite.storage.jsonlines import read_header, scan_lines
from rdlite.wording import count

if TYPE_CHECKING:
    import pandas

__all__ = ["Record", "ResultFile", "open_results"]

_ROWS = 100_000  # of a table; ten times as many bytes
_LARGE = 1 << 63  # numbers of frames and their times are below it
_SHOWN = 200  # characters of what is wrong with a line, which may be long


class Record(NamedTuple):
    """What was found in one image or in one frame of a video.

    Attributes:
        found: The objects; there may be none.
        image: Name of the image or of the video.
        frame: Index of the frame, counted from 0 at the `start` of the detection; None for an
            image.
        pts: The frame's time stamp as the video states it.
        time: Seconds from the start of the video.
        place: Path of the image or the video inside a folder of results, which label files take
            their names from; None if it is `image`.
    """

    found: Detections
    image: str | None = None
    frame: int | None = None
    pts: int | None = None
    time: float | None = None
    place: str | None = None


class ResultFile:
    """A file of detections in JSON Lines, plain or compressed by gzip; see `open_results`.

    Iteration yields a `Record` for each line, in the order of the file, and may be repeated. The
    file is read as it goes: memory does not grow with it.

    Attributes:
        path: The file.
        header: Its first line; see `rdlite.storage.journal.jsonl_header`.
        names: The model's class names.
        category_ids: Dataset (COCO) category id of each class, same order as `names`.
        source: The video that all lines are about, as it was named; None for images, or several.
        options: What the detections depend on, such as `conf` and `stride`.
        position: Bytes read so far by the last iteration; of a compressed file, of what is in it.

    Raises:
        ResultFileError: See `open_results`; while iterating: the file cannot be read, or is several
            joined ones.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        if not (isinstance(path, str | os.PathLike) and _is_name(os.fspath(path))):
            raise ResultFileError(f"give the path of a file of results, got {reprlib.repr(path)}")
        self.path = Path(path)
        self.header: Mapping[str, Any] = read_header(path)
        _check_header(self.path, self.header)
        self.names = tuple(self.header["names"])
        self.category_ids = tuple(self.header["category_ids"])
        self.source: str | None = self.header.get("source")
        self.options: Mapping[str, Any] = self.header.get("options") or {}
        self.position = 0
        self._faults = _Faults(self)

    def __iter__(self) -> Iterator[Record]:
        faults = self._faults = _Faults(self)
        for line in scan_lines(self.path):
            self.position = line.end
            if line.value is None:
                faults.damaged(line.number, line.damage)
                continue
            if "schema" in line.value:
                raise ResultFileError(
                    f"line {line.number} of {self.path} is a second header: several files were "
                    "joined; take those instead (rdlite convert --join makes one of them)"
                )
            try:
                record = read_record(line.value, self.header)
            except OptionError as error:
                faults.damaged(line.number, str(error))
                continue
            faults.see(record)
            yield record

    def __repr__(self) -> str:
        return f"<ResultFile {self.path}, {len(self.names)} classes>"

    def warnings(self) -> list[str]:
        """Return one sentence for each thing that was damaged or missing in the last iteration.

        A file that was cut between two lines is whole as far as anyone can tell.
        """
        return self._faults.sentences()

    def to_pandas(self) -> pandas.DataFrame:
        """Return all objects as one pandas DataFrame, one row per object.

        Columns: those of `Detections.to_pandas`, then `image`, `frame` (whole numbers, missing for
        images) and `time` (seconds, NaN for images). An image without objects has no row. A name
        that is not valid UTF-8 has its other bytes as escapes, as in `rdlite.sinks.ParquetSink`.

        Raises:
            ImportError: pandas is not installed.
            ResultFileError: As iteration.
        """
        chunks = list(self.pandas_chunks())
        return import_optional("pandas").concat(chunks, ignore_index=True)

    def pandas_chunks(self, rows: int = _ROWS) -> Iterator[pandas.DataFrame]:
        """Yield the table of `to_pandas` in pieces, for files that are larger than the memory.

        Args:
            rows: A piece ends with the image or frame that makes it this long. There is at least
                one piece, which may be empty.

        Raises:
            ImportError: pandas is not installed.
            ResultFileError: As iteration.
        """
        import_optional("pandas")  # or what is missing is told after much reading
        records: list[Record] = []
        waiting, pieces = 0, 0
        for record in self:
            records.append(record)
            waiting += max(1, len(record.found))
            if waiting >= rows:
                yield _table(records, self.names)
                records, waiting, pieces = [], 0, pieces + 1
        if records or not pieces:
            yield _table(records, self.names)

    def to_coco(self) -> dict[str, Any]:
        """Return a COCO data set as plain Python values, as `rdlite.sinks.CocoSink` writes it.

        `annotations` have a `score`, image ids count from 1. Use `rdlite.convert.convert` for a
        file that is larger than the memory.

        Raises:
            ResultFileError: As iteration.
        """
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for found, image, frame, _, time, _ in self:
            images.append(coco_image(len(images) + 1, found, Where(image, frame=frame, time=time)))
            annotations += coco_annotations(found, len(images), first=len(annotations) + 1)
        categories = coco_categories(self.names, self.category_ids)
        return {"annotations": annotations, "images": images, "categories": categories}


def open_results(path: str | os.PathLike[str]) -> ResultFile:
    """Open a file of detections that `rdlite detect` or `rdlite annotate` wrote as JSON Lines.

    Args:
        path: The file; it may be compressed by gzip.

    Raises:
        ResultFileError: It cannot be read, is no such file, or was written by a version of rdlite
            with another schema.

    Example:
        >>> results = open_results("out/clip.jsonl")
        >>> for record in results:
        ...     print(record.frame, record.time, len(record.found))
        >>> results.warnings()
    """
    return ResultFile(path)


def read_record(line: Mapping[str, Any], header: Mapping[str, Any]) -> Record:
    """Return what a line of a file of JSON lines says.

    A frame without an `image` is of the video that the header names as its `source`.

    Args:
        line: See `rdlite.sinks.to_line`; other keys are left out.
        header: The header of the file, with `names` and `category_ids`.

    Raises:
        OptionError: The line holds no detections, or those of another model.
    """
    found = Detections.from_dict(line, names=header["names"], category_ids=header["category_ids"])
    for key in ("image", "place", "frame", "pts", "time"):
        if line.get(key) is not None and not _can_be(key, line[key]):
            raise OptionError(f"{key} is {line[key]!r}")
    time = None if line.get("time") is None else float(line["time"])
    image, place, source = line.get("image"), line.get("place"), header.get("source")
    if image is None and source is not None:
        image, place = source, _base_name(source)
    return Record(found, image, line.get("frame"), line.get("pts"), time, place)


def stride_of(options: Mapping[str, Any]) -> int | None:
    """Return every how manyth frame was looked at, None where options do not say."""
    stride = options.get("stride")
    return stride if isinstance(stride, int) and stride > 0 else None


def start_of(options: Mapping[str, Any]) -> float:
    """Return the seconds from which frames were looked at and are counted, 0.0 for all."""
    start = options.get("start")
    return start if isinstance(start, int | float) else 0.0


def _can_be(key: str, value: Any) -> bool:
    """Whether a value is one that every format can hold; True and False are no numbers here."""
    if key in ("image", "place"):
        return _is_name(value)
    if key == "time":
        return type(value) in (int, float) and abs(value) < _LARGE  # False for NaN as well
    return type(value) is int and abs(value) < _LARGE and (value >= 0 or key == "pts")


def _is_name(value: Any, errors: str = "surrogateescape") -> bool:
    """Whether a value is text that can name a file: bytes that are no UTF-8 come from escapes."""
    try:
        return isinstance(value, str) and "\0" not in value and value.encode("utf-8", errors) != b""
    except UnicodeEncodeError:
        return False


def ends_of(name: str) -> Iterator[PurePath]:
    """Yield the ends of a path, the longest first: `a/b/c.jpg`, `b/c.jpg`, `c.jpg`.

    The first one that is in a folder is the file that a results file names, after a move as well.
    None leads out of the folder. A backslash is a letter first, and then what parts folders.
    """
    for one in dict.fromkeys((name, name.replace("\\", "/"))):
        path = PurePath(one)
        parts = path.parts[1:] if path.anchor else path.parts
        last = max((place for place, part in enumerate(parts, 1) if part == ".."), default=0)
        yield from (PurePath(*parts[place:]) for place in range(last, len(parts)))


def _base_name(path: str) -> str:
    windows = PureWindowsPath(path)  # the file may come from another system
    return windows.name if windows.drive else PurePath(path).name


def _check_header(path: Path, header: Mapping[str, Any]) -> None:
    if "names" not in header or "category_ids" not in header:
        raise ResultFileError(
            f"the header of {path} has no names and category_ids; detect again with this version"
        )
    types = {
        "model_sha256": str | None,
        "names": list,
        "category_ids": list,
        "source": str | None,
        "options": dict | None,
    }
    wrong = [key for key, kind in types.items() if not isinstance(header.get(key), kind)]
    if not wrong:
        ids, source = header["category_ids"], header.get("source")
        wrong += [] if all(_is_name(name, "strict") for name in header["names"]) else ["names"]
        wrong += [] if len(ids) == len(header["names"]) else ["category_ids"]
        wrong += [] if all(type(one) is int for one in ids) else ["category_ids"]
        wrong += [] if source is None or _is_name(source) else ["source"]
        wrong += [] if _is_json(header) else ["a number that is too large"]
    if wrong:
        raise ResultFileError(f"the header of {path} is damaged: {wrong[0]} cannot be read")


def _is_json(header: Mapping[str, Any]) -> bool:
    try:
        dump_line(header)
    except ValueError:  # 1e999 is read as infinity, which JSON has no word for
        return False
    return True


def _table(records: list[Record], names: tuple[str, ...]) -> pandas.DataFrame:
    pandas = import_optional("pandas")
    found = [Detections.empty(), *(record.found for record in records)]
    counts = [len(record.found) for record in records]
    boxes = np.concatenate([one.xyxy for one in found])
    classes = np.concatenate([one.class_id for one in found])
    table = pandas.DataFrame(boxes, columns=["x_min", "y_min", "x_max", "y_max"])

    def repeated(values: list[Any]) -> list[Any]:
        return [value for value, number in zip(values, counts, strict=True) for _ in range(number)]

    return table.assign(
        class_id=classes,
        class_name=[names[index] for index in classes.tolist()],
        confidence=np.concatenate([one.confidence for one in found]),
        image=repeated([as_utf8(record.image) for record in records]),
        frame=pandas.array(repeated([record.frame for record in records]), dtype="Int64"),
        time=np.array(repeated([record.time for record in records]), dtype=float),
    )


class _Faults:
    """Counts what is wrong with the lines of a file, and remembers the first of each kind."""

    def __init__(self, results: ResultFile) -> None:
        self._path = results.path
        self._stride = stride_of(results.options)
        self._counts: Counter[tuple[str, str]] = Counter()
        self._firsts: dict[tuple[str, str], str] = {}
        self._video: str | None = None
        self._next = 0

    def damaged(self, line: int, why: str) -> None:
        first = f"line {line}: {why[:_SHOWN]}"
        self._add("damaged line was left out", "damaged lines were left out", first)

    def see(self, record: Record) -> None:
        """Notice frames that are not in order, and gaps where the stride is known."""
        if record.frame is None:
            return
        if record.image != self._video:
            self._video, self._next = record.image, 0
        name = f"frame {self._next} of {self._video}"
        if self._stride is not None and record.frame > self._next:
            missing = -(-(record.frame - self._next) // self._stride)
            self._add("frame is missing", "frames are missing", name, missing)
        elif record.frame < self._next:
            first = f"frame {record.frame} where {name} should be"
            self._add("frame is not in order", "frames are not in order", first)
        self._next = record.frame + (self._stride or 1)

    def _add(self, one: str, many: str, first: str, number: int = 1) -> None:
        self._counts[one, many] += number
        self._firsts.setdefault((one, many), first)

    def sentences(self) -> list[str]:
        return [
            f"{self._path}: {count(number, *words)}; the first is {self._firsts[words]}"
            for words, number in self._counts.items()
        ]
