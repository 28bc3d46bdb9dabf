"""Image sets on disk: image bytes from a folder or tar shards, and the error of a faulty set."""

from __future__ import annotations

import os
import tarfile
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from rdlite.errors import ImageError, RdliteError
from rdlite.imageheader import read_header

Faults = dict[str, list[str]]
"""What is wrong with annotations: for each kind of fault, a sentence for each case."""


class DataError(RdliteError, ValueError):
    """An annotation file or a folder of images cannot be used as a COCO set.

    Attributes:
        faults: Every fault by its kind, where annotations were checked as a whole; else empty.
    """

    def __init__(self, message: str, *, faults: Faults | None = None) -> None:
        super().__init__(message)
        self.faults = faults or {}


def refuse(path: str | Path, faults: Faults) -> None:
    """Raise one error for all faults: it names the first, counts all of them, and carries them.

    Raises:
        DataError: There is at least one.
    """
    faults = {kind: cases for kind, cases in faults.items() if cases}
    if not faults:
        return
    first = next(iter(faults.values()))[0]
    total = sum(map(len, faults.values()))
    counts = ", ".join(f"{kind}: {len(cases)}" for kind, cases in faults.items())
    more = f" ({total} faults; {counts})" if total > 1 else ""
    raise DataError(f"{path}: {first}{more}", faults=faults)


def check_size(size: tuple[int, int], wanted: tuple[int, int], data: bytes) -> None:
    """Check that an image has the (width, height) in pixels that its annotations are for.

    Args:
        size: Of the upright image.
        wanted: What the annotations state.
        data: The bytes of the image file, which tell why the two differ.

    Raises:
        ImageError: It has not, so that its boxes would not fit.
    """
    if size == wanted:
        return
    text = f"it has {size[0]}x{size[1]} pixels but its boxes are for {wanted[0]}x{wanted[1]}"
    header = read_header(data)
    if (header.width, header.height) == wanted:  # only EXIF makes the upright size another one
        text += (
            ", the stored size before the turn by its EXIF orientation; "
            "state the size and the boxes of the upright image"
        )
    raise ImageError(text)


@dataclass(frozen=True, slots=True)
class _Member:
    """Where the bytes of one image lie: a stretch of a tar shard."""

    shard: Path
    offset: int
    size: int


class ImageStore:
    """Image bytes by file name, from a folder of images, a folder of tar shards, or one tar.

    Shards are read in place, never unpacked. The object holds no open file and can be pickled.

    Args:
        path: A folder (its files and the members of every `*.tar` in it) or one tar file.

    Raises:
        DataError: The path does not exist or a shard is not a readable, uncompressed tar.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if self.path.is_dir():
            shards = sorted(self.path.glob("*.tar"))
        elif self.path.is_file():
            shards = [self.path]
        else:
            raise DataError(f"{self.path} does not exist; give a folder of images or a tar file")
        self._members: dict[str, list[_Member]] = {}
        for shard in shards:
            for name, member in _index(shard):
                self._members.setdefault(name, []).append(member)
        self._folded_members: dict[str, str] | None = None
        self._listings: dict[Path, dict[str, str]] = {}

    def names(self) -> list[str]:
        """List the images by what `read` calls them: files in the folder and below it, members.

        Only names that end like an image count; sorted.
        """
        names = {name for name in self._members if _is_image(name)}
        if self.path.is_dir():
            for folder, _, files in os.walk(self.path, followlinks=True):
                inside = Path(folder).relative_to(self.path)
                names.update((inside / file).as_posix() for file in files if _is_image(file))
        return sorted(names)

    def read(self, name: str, *, size: int = -1) -> bytes:
        """Return the bytes of one image file.

        Args:
            name: `file_name` of the annotation file: a path inside the folder or a member's name.
            size: How many bytes to read at most, from the first on; -1 reads all.

        Raises:
            ImageError: There is no such image, two shards hold it, or it cannot be read; the text
                is to follow the name.
        """
        member = self._locate(name)
        try:
            if isinstance(member, Path):
                with member.open("rb") as file:
                    return file.read(size)
            with member.shard.open("rb") as file:
                file.seek(member.offset)
                return file.read(member.size if size < 0 else min(size, member.size))
        except OSError as error:
            raise ImageError(f"it cannot be read from {self.path} ({error.strerror})") from error

    def fingerprint(self, names: Iterable[str]) -> list[tuple[str, int, int]]:
        """List name, size in bytes and mtime in ns of the files that hold these images.

        Two equal lists mean the same images, as far as file times can tell. Missing images have no
        entry.
        """
        files = set()
        for name in names:
            try:
                member = self._locate(name)
            except ImageError:
                continue
            files.add(member if isinstance(member, Path) else member.shard)
        stats = [(file, file.stat()) for file in sorted(files)]
        return [(str(file), stat.st_size, stat.st_mtime_ns) for file, stat in stats]

    def _locate(self, name: str) -> Path | _Member:
        members = self._members.get(name, [])
        if len(members) == 1:
            return members[0]
        if members:
            shards = " and ".join(member.shard.name for member in members)
            raise ImageError(f"it is in {shards}; keep the shards of one set in a folder")
        if self.path.is_dir() and (self.path / name).is_file():
            return self.path / name
        raise ImageError(
            f"it is not in {self.path}, neither as a file nor in a tar shard{self._hint(name)}"
        )

    def _hint(self, name: str) -> str:
        """Name the image that would be this one if case and Unicode form did not count."""
        other = self._alike(name)
        if other is None:
            return ""
        if _composed(other) == _composed(name):  # they look the same
            return f"; there is {other!a}, another Unicode form of {name!a}; rename one"
        return f"; there is {other}, which differs in upper and lower case; rename one"

    def _alike(self, name: str) -> str | None:
        # Only the folders on the way are listed, each once: the whole tree may be a whole disk.
        if self._folded_members is None:
            self._folded_members = {_folded(member): member for member in self._members}
        if member := self._folded_members.get(_folded(name)):
            return member
        way = PurePosixPath()
        for part in PurePosixPath(name).parts:
            if (self.path / way / part).exists():
                way /= part
            elif entry := self._listing(self.path / way).get(_folded(part)):
                way /= entry
            else:
                return None
        return None if str(way) == name else str(way)  # a folder of that name is none

    def _listing(self, folder: Path) -> dict[str, str]:
        if folder not in self._listings:
            try:
                entries = os.listdir(folder)
            except OSError:
                entries = []  # no folder, or one that may not be listed: no hint then
            self._listings[folder] = {_folded(entry): entry for entry in entries}
        return self._listings[folder]


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _folded(name: str) -> str:
    return _composed(name).casefold()


_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")


def _is_image(name: str) -> bool:
    # A leading dot marks what a system keeps for itself, such as "._photo.jpg" of macOS.
    return name.lower().endswith(_SUFFIXES) and not name.rpartition("/")[2].startswith(".")


def _index(shard: Path) -> Iterable[tuple[str, _Member]]:
    try:
        # "r:" refuses compressed tars: their members cannot be read at an offset.
        with tarfile.open(shard, "r:") as tar:
            for entry in tar:
                if entry.isfile():
                    name = entry.name.removeprefix("./")
                    yield name, _Member(shard, entry.offset_data, entry.size)
    except (OSError, tarfile.TarError) as error:
        raise DataError(f"{shard} is not an uncompressed tar file ({error}); remake it") from error
