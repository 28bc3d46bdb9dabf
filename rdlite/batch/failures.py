"""The file that lists the inputs that failed, which one run after another adds to."""

from __future__ import annotations

import fnmatch
import glob
import json
import os
from collections.abc import Iterable
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
        arguments: Files, folders and patterns that were named. What failed below them and is no
            more, or does not fail any more, is no failure now.

    Raises:
        OSError: The file cannot be read or removed.
        OptionError: It cannot be written.
    """
    if not path.exists():
        return
    lines = path.read_bytes().splitlines()
    places = [_place(line) for line in lines]
    failed = set(filter(None, places))
    tried = failed.intersection(map(os.path.abspath, inputs))
    named = {os.path.abspath(argument) for argument in arguments if argument}
    patterns = [name for name in named if glob.has_magic(name)]
    for place in failed - tried:
        above = any(str(folder) in named for folder in (place, *Path(place).parents))
        if above or any(fnmatch.fnmatch(place, pattern) for pattern in patterns):
            tried.add(place)
    kept = [line for line, place in zip(lines, places, strict=True) if place not in tried]
    if not kept:
        path.unlink()
    elif len(kept) < len(lines):
        write_whole(path, b"".join(line + b"\n" for line in kept), overwrite=True)


def _place(line: bytes) -> str | None:
    """Return the absolute path of what a line is about, None if it does not say."""
    name = (parse_line(line) or {}).get("input")
    return os.path.abspath(name) if isinstance(name, str) and name else None
