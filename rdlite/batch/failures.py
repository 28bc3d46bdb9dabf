"""The file that lists the inputs that failed, which one run after another adds to."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from rdlite.errors import OutputError
from rdlite.storage.jsonlines import parse_line
from rdlite.storage.partial import write_whole


def add_failure(path: Path, source: str, error: str) -> None:
    """Add a line for an input that failed.

    Raises:
        OutputError: It cannot be written.
    """
    try:
        with open(path, "a", encoding="utf-8") as file:
            # ASCII, because a file's name need not be UTF-8.
            file.write(json.dumps({"input": source, "error": error}) + "\n")
    except OSError as problem:
        raise OutputError(f"{path} cannot be written: {problem.strerror}") from problem


def forget_failures(path: Path, inputs: Iterable[str], arguments: Iterable[str]) -> None:
    """Remove the lines on what a run is about to try, and keep all others.

    Args:
        path: The file, which need not exist.
        inputs: The files that the run works on.
        arguments: What was named to find them: a line on such a thing itself is removed, and of
            folders and patterns also the lines on files that are no more.

    Raises:
        OSError: The file cannot be read or removed.
        OptionError: It cannot be written.
    """
    if not path.exists():
        return
    named = list(filter(None, arguments))
    tried = {_place(name) for name in (*inputs, *named)}
    folders = {os.path.realpath(name) for name in named if os.path.isdir(name)}
    patterns = [Path(_place(name)).parts for name in named if not os.path.lexists(name)]

    def is_tried(place: str | None) -> bool:
        if place is None or place in tried:
            return place is not None
        if os.path.lexists(place):
            return False
        path = Path(place)
        return any(str(at) in folders for at in path.parents) or any(
            _leads_to(path.parts, pattern) for pattern in patterns
        )

    lines = path.read_bytes().splitlines()
    kept = [line for line in lines if not is_tried(_subject(line))]
    if not kept:
        path.unlink()
    elif len(kept) < len(lines):
        write_whole(path, b"".join(line + b"\n" for line in kept), overwrite=True)


def _leads_to(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a pattern matches a file or a folder above it; `*` never matches across folders."""
    if not pattern:
        return True
    first, *others = pattern
    if first == "**":
        return any(_leads_to(parts[at:], others) for at in range(len(parts)))
    return bool(parts) and fnmatchcase(parts[0], first) and _leads_to(parts[1:], others)


def _subject(line: bytes) -> str | None:
    """Return the place of what a line is about, None if it does not say."""
    name = (parse_line(line) or {}).get("input")
    return _place(name) if isinstance(name, str) and name else None


def _place(name: str) -> str:
    """Return the one path of all that a file is called: a link keeps its name, not its folder's."""
    folder, last = os.path.split(os.path.abspath(name))
    return os.path.join(os.path.realpath(folder), last)
