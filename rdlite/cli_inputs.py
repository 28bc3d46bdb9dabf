"""Which files a command line means, and what their outputs are called."""

from __future__ import annotations

import glob
import itertools
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

# Each ending taken from a folder, and the ending of its annotated copy.
IMAGES: Final = {
    **dict.fromkeys((".bmp", ".gif", ".tif", ".tiff"), ".png"),
    **{suffix: suffix for suffix in (".jpg", ".jpeg", ".png", ".webp")},
}
VIDEOS: Final = dict.fromkeys(
    ".mp4 .m4v .mov .mkv .webm .avi .ts .mts .m2ts .mpg .mpeg .flv .wmv".split(), ".mp4"
)


@dataclass(frozen=True, slots=True)
class Input:
    """One file to work on.

    Attributes:
        path: The file.
        output: Path of its annotated copy, relative to the output folder: the place of the file
            below the folder that was named, or below the fixed part of the pattern.
    """

    path: Path
    output: Path


@dataclass(slots=True)
class Found:
    """What the arguments of a command line name.

    Attributes:
        files: The files, each once, in the order of the arguments.
        failed: (argument or folder, reason) of what names no file or cannot be listed.
        skipped: How many files of folders were passed over, by ending.
    """

    files: list[Input] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)

    def skipped_note(self) -> str:
        """Return a sentence on the files passed over, empty if there were none."""
        kinds = ", ".join(f"{n} {suffix or 'without one'}" for suffix, n in self.skipped.items())
        total = self.skipped.total()
        return f"{total} files passed over for their endings: {kinds}" if total else ""


def find(sources: Sequence[str], suffixes: Mapping[str, str], *, outside: Path) -> Found:
    """List the files that arguments name.

    A file is taken whatever it is called; of a folder, all files below it with one of the
    suffixes, except hidden ones; anything else is tried as a pattern (`**` for any depth) for
    files and folders.

    Args:
        sources: Arguments of the command line.
        suffixes: `IMAGES` or `VIDEOS`.
        outside: Where the output goes. What lies in it is not taken from a folder or pattern
            that reaches above it, so that a second run does not work on the output of the first.
    """
    found = Found()
    places: dict[Path, Path] = {}
    for source in sources:
        matches, reason = _matches(source, suffixes, outside, found)
        if not matches:
            found.failed.append((source, f"{source or 'an empty argument'}: {reason}"))
        for path, place in matches.items():
            places.setdefault(path, place)
    found.files = _distinct(places, suffixes)
    return found


def _matches(
    source: str, suffixes: Mapping[str, str], outside: Path, found: Found
) -> tuple[dict[Path, Path], str]:
    """Return files with their places, and the sentence for when there are none."""
    path = Path(source)
    if source and path.is_dir():
        files = _below(path, suffixes, found)
        return _places(files, path, outside), "no file in this folder has a fitting ending"
    if source and path.exists():
        return {path: Path(path.name)}, ""
    if not glob.has_magic(source):
        return {}, "no such file or folder"
    fixed = itertools.takewhile(lambda part: not glob.has_magic(part), path.parts)
    matches = map(Path, sorted(glob.glob(source, recursive=True)))
    files = itertools.chain.from_iterable(
        _below(match, suffixes, found) if match.is_dir() else [match] for match in matches
    )
    return _places(files, Path(*fixed), outside), "no file matches this pattern"


def _below(folder: Path, suffixes: Mapping[str, str], found: Found) -> Iterator[Path]:
    def unreadable(error: OSError) -> None:
        found.failed.append(
            (error.filename, f"{error.filename}: cannot be listed ({error.strerror})")
        )

    for directory, folders, names in os.walk(folder, onerror=unreadable):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            ending = Path(name).suffix.lower()
            if not name.startswith(".") and ending in suffixes:
                yield Path(directory, name)
            elif not name.startswith("."):
                found.skipped[ending] += 1


def _places(files: Iterator[Path], root: Path, outside: Path) -> dict[Path, Path]:
    """Return files with their paths from `root`, without those of an output folder below it."""
    skipped = Path(os.path.relpath(os.path.realpath(outside), os.path.realpath(root)))
    places = {path: path.relative_to(root) for path in files}
    if skipped == Path():  # the files lie in the output folder itself; they are what was named
        return places
    return {p: place for p, place in places.items() if skipped not in (place, *place.parents)}


def _distinct(places: Mapping[Path, Path], suffixes: Mapping[str, str]) -> list[Input]:
    """Number the outputs that would share a name: x.jpg, x-2.jpg."""
    other = next(iter(suffixes.values()))
    taken: set[Path] = set()
    inputs = []
    for path, place in places.items():
        wanted = place.with_suffix(suffixes.get(place.suffix.lower(), other))
        output = wanted
        for number in itertools.count(2):
            if output not in taken:
                break
            output = wanted.with_stem(f"{wanted.stem}-{number}")
        taken.add(output)
        inputs.append(Input(path, output))
    return inputs
