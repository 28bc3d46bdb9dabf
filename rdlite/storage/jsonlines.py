"""Reading files of JSON lines under one header: what is whole, and what is not."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import stat
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, Final, NamedTuple, cast

from rdlite.errors import ResultFileError

JSONL_SCHEMA: Final = 1
_LONGEST = 1 << 24  # bytes of a line; a file of another kind may have no line end at all


class Line(NamedTuple):
    """A line after the header.

    Attributes:
        number: The header is line 1.
        end: Bytes of the file up to here; of a compressed file, of what is in it.
        value: The JSON object, None if the line is damaged.
        damage: What is wrong with it then.
    """

    number: int
    end: int
    value: dict[str, Any] | None
    damage: str = ""


def read_header(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the header of a file of JSON lines.

    Args:
        path: The file; it may be compressed by gzip.

    Raises:
        ResultFileError: The file cannot be read, has no header or one of another schema.
    """
    with _reading(path) as file:
        text, damage = _next_line(path, file)
    if damage:
        raise ResultFileError(f"{path} has lost its header: {damage}")
    return check_header(path, text)


def scan_lines(path: str | os.PathLike[str]) -> Iterator[Line]:
    """Yield the lines after the header, whole or not, reading the file as it goes.

    Args:
        path: The file; it may be compressed by gzip.

    Raises:
        ResultFileError: The file cannot be read.
    """
    with _reading(path) as file:
        end = len(_next_line(path, file)[0])
        for number in itertools.count(2):
            text, damage = _next_line(path, file)
            if damage:
                yield Line(number, end, None, damage)
            if not text:
                return
            long = len(text) == _LONGEST and not text.endswith(b"\n")
            end += len(text) + (_skip_line(path, file) if long else 0)
            value = None if long else parse_line(text)
            yield Line(number, end, value, "" if value is not None else _damage(text))


def check_header(path: str | os.PathLike[str], text: bytes) -> dict[str, Any]:
    """Return the header that is the first line of a file.

    Raises:
        ResultFileError: It is none, or one of another schema.
    """
    header = parse_line(text)
    if header is None or "schema" not in header:
        raise ResultFileError(
            f"{path} does not begin with a header line; give a file that rdlite wrote as JSON Lines"
        )
    if header["schema"] != JSONL_SCHEMA:
        raise ResultFileError(
            f"{path} has schema {header['schema']!r}, and this version of rdlite knows only "
            f"{JSONL_SCHEMA}; use the version that wrote it"
        )
    return header


def parse_line(text: bytes) -> dict[str, Any] | None:
    """Return the JSON object that is a line, None if it is none."""
    try:
        value = _DECODER.decode(text.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")  # though Python takes NaN and Infinity


_DECODER = json.JSONDecoder(parse_constant=_refuse)


def _reading(path: str | os.PathLike[str]) -> BinaryIO:
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            raise ResultFileError(f"{path} is a directory; name a file in it")
        if not stat.S_ISREG(mode):
            raise ResultFileError(f"{path} is no file on disk, and could not be read again")
        file = open(path, "rb")
        if file.peek(2)[:2] != b"\x1f\x8b":
            return file
        file.close()
        return cast(BinaryIO, gzip.open(path))
    except OSError as error:
        raise _unreadable(path, error) from error


def _next_line(path: str | os.PathLike[str], file: BinaryIO) -> tuple[bytes, str]:
    """Read a line, empty at the end, and say whether a compressed file is damaged here."""
    try:
        return file.readline(_LONGEST), ""
    except (EOFError, gzip.BadGzipFile, zlib.error):
        return b"", "the compressed file is cut off or damaged here"
    except OSError as error:
        raise _unreadable(path, error) from error


def _skip_line(path: str | os.PathLike[str], file: BinaryIO) -> int:
    """Read on to the end of a line; returns how many bytes that were."""
    skipped, text = 0, b""
    while not text.endswith(b"\n") and (text := _next_line(path, file)[0]):
        skipped += len(text)
    return skipped


def _damage(text: bytes) -> str:
    if text.endswith(b"\n"):
        return "it is no JSON object"
    return "it is cut off" if len(text) < _LONGEST else f"it is longer than {_LONGEST:,} bytes"


def _unreadable(path: str | os.PathLike[str], error: OSError) -> ResultFileError:
    return ResultFileError(f"{path} cannot be read: {error.strerror}")
