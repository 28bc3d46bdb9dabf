"""Which files a command line means, and what their outputs are called."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

# Each ending taken from a folder, and the ending of its annotated copy.
IMAGES: Final = {
    **dict.fromkeys((".bmp", ".gif", ".tif", ".tiff"), ".png"),
    **{suffix: suffix for suffix in (".jpg", ".jpeg", ".png", ".webp")},
}
VIDEOS: Final = dict.fromkeys(
    (
        ".mp4",
        ".m4v",
        ".mov",
        ".mkv",
        ".webm",
        ".avi",
        ".ts",
        ".mts",
        ".mpg",
        ".mpeg",
        ".flv",
        ".wmv",
    ),
    ".mp4",
)


@dataclass(frozen=True, slots=True)
class Input:
    """One file to work on.

    Attributes:
        path: The file.
        output: Path of its annotated copy below the output folder: as the input lies below the
            folder it was found in.
    """

    path: Path
    output: Path


def find(
    sources: Sequence[str], suffixes: Mapping[str, str], *, outside: Path
) -> tuple[list[Input], list[tuple[str, str]]]:
    """List the files that arguments name.

    A file is taken whatever it is called; of a folder, all files below it with one of the
    suffixes; anything else is tried as a pattern (`**` for any depth).

    Args:
        sources: Arguments of the command line.
        suffixes: `IMAGES` or `VIDEOS`.
        outside: The output folder; what lies in it is not taken from a folder.

    Returns:
        The files, each once, in order; and (argument, reason) of those that name none.
    """
    files: dict[Path, Path] = {}
    failed: list[tuple[str, str]] = []
    for source in sources:
        found = dict(_matches(source, suffixes, outside.resolve()))
        if not found:
            failed.append((source, _nothing(source)))
        for path, name in found.items():
            files.setdefault(path, name)
    return _distinct(files.items(), suffixes), failed


def _matches(
    source: str, suffixes: Mapping[str, str], outside: Path
) -> Iterable[tuple[Path, Path]]:
    path = Path(source)
    if path.is_dir():
        for below in sorted(path.rglob("*")):
            wanted = below.suffix.lower() in suffixes and not below.is_dir()
            if wanted and not below.resolve().is_relative_to(outside):
                yield below, below.relative_to(path)
    elif path.exists() or not glob.has_magic(source):
        yield path, Path(path.name)
    else:
        for match in sorted(glob.glob(source, recursive=True)):
            if Path(match).is_file():
                yield Path(match), Path(Path(match).name)


def _nothing(source: str) -> str:
    if Path(source).is_dir():
        return f"{source}: no file in this folder has a fitting ending; name the files"
    return f"{source}: no file matches this pattern"


def _distinct(files: Iterable[tuple[Path, Path]], suffixes: Mapping[str, str]) -> list[Input]:
    """Number the outputs that would share a name: x.jpg, x-2.jpg."""
    taken: set[Path] = set()
    inputs = []
    for path, name in files:
        wanted = name.with_suffix(suffixes.get(name.suffix.lower(), suffixes[min(suffixes)]))
        number, output = 2, wanted
        while output in taken:
            output, number = wanted.with_stem(f"{wanted.stem}-{number}"), number + 1
        taken.add(output)
        inputs.append(Input(path, output))
    return inputs
