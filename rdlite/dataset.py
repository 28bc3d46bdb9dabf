"""COCO sets on disk: the checked annotation file, and image bytes from a folder or tar shards."""

from __future__ import annotations

import json
import math
import os
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rdlite.errors import ImageError, RdliteError


class DataError(RdliteError, ValueError):
    """An annotation file or a folder of images cannot be used as a COCO set."""


def read_coco(path: str | Path) -> dict[str, Any]:
    """Read a COCO annotation file and checks everything that would otherwise fail later.

    Args:
        path: The json file: an object with the lists "images", "annotations" and "categories".

    Returns:
        The parsed object, unchanged.

    Raises:
        DataError: The file cannot be read, or as `check_coco`.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}); give a COCO json file"
        ) from error
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({error}); give a COCO json file") from error
    check_coco(content, path)
    return content  # type: ignore[no-any-return]


def check_coco(content: Any, path: Path) -> None:
    """Check the content of a COCO annotation file.

    Args:
        content: The parsed file.
        path: Where it came from, for the messages.

    Raises:
        DataError: A list is missing, there are no images or classes, an id, file name or class name
            occurs twice, a class has no name, an annotation points at nothing, or a box is not four
            finite numbers. Of several bad annotations the first is named, the others are counted.
    """
    _check_lists(path, content)
    _check_unique(path, content)
    image_ids = {image["id"] for image in content["images"]}
    category_ids = {category["id"] for category in content["categories"]}
    checked = (_fault(one, image_ids, category_ids) for one in content["annotations"])
    faults = [fault for fault in checked if fault]
    if faults:
        more = f" ({len(faults) - 1} more annotations are wrong)" if len(faults) > 1 else ""
        raise DataError(f"{path}: annotation {faults[0]}{more}")


_FIELDS = {
    "images": ("id", "file_name", "width", "height"),
    "annotations": ("image_id", "category_id", "bbox"),
    "categories": ("id", "name"),
}


def _check_lists(path: Path, content: Any) -> None:
    for name, fields in _FIELDS.items():
        items = content.get(name) if isinstance(content, dict) else None
        if not isinstance(items, list):
            raise DataError(f'{path} has no list "{name}"; give a COCO json file')
        for position, item in enumerate(items):
            missing = [f for f in fields if not isinstance(item, dict) or f not in item]
            if missing:
                raise DataError(f'{path}: {name}[{position}] lacks "{missing[0]}"; add it')
    for name in ("images", "categories"):
        if not content[name]:
            raise DataError(f'{path}: the list "{name}" is empty; give a set with at least one')
    for image in content["images"]:
        size = (image["width"], image["height"])
        if not all(_is_number(side) and side >= 1 for side in size):
            raise DataError(
                f"{path}: image {image['file_name']} has size {size}; give its width and height"
            )


_UNIQUE = {
    ("images", "id"): (int, str),
    ("images", "file_name"): (str,),
    ("categories", "id"): (int,),
    ("categories", "name"): (str,),
    ("annotations", "id"): (int, str),
}


def _check_unique(path: Path, content: dict[str, Any]) -> None:
    for (name, field), types in _UNIQUE.items():
        seen = set()
        for item in content[name]:
            if field not in item:
                continue  # only the id of an annotation, which nothing refers to
            value = item[field]
            if not isinstance(value, types):
                wanted = " or ".join(kind.__name__ for kind in types)
                raise DataError(f"{path}: {name} has {field} {value!r}; give {wanted}")
            if isinstance(value, str) and not value.strip():
                raise DataError(f"{path}: {name} has an empty {field}; give it a {field}")
            if value in seen:
                raise DataError(f"{path}: {field} {value!r} occurs twice in {name}; make it unique")
            seen.add(value)


def _fault(annotation: dict[str, Any], image_ids: set[Any], category_ids: set[Any]) -> str | None:
    """Say what is wrong with an annotation, if anything is."""
    where = str(annotation.get("id", "(no id)"))
    for field, known in (("image_id", image_ids), ("category_id", category_ids)):
        value = annotation[field]
        if not isinstance(value, int | str) or value not in known:
            return f"{where} has {field} {value!r}, which the file does not list; add it"
    box = annotation["bbox"]
    if not (isinstance(box, list) and len(box) == 4 and all(map(_is_number, box))):
        return f"{where} has bbox {box!r}; give four finite numbers x, y, width, height"
    for field in ("score", "area"):
        if not _is_number(annotation.get(field, 0)):
            return f"{where} has {field} {annotation[field]!r}; give a finite number"
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def is_ignored(annotation: dict[str, Any]) -> bool:
    """Say whether a COCO annotation is neither a positive nor a negative ("iscrowd", "ignore")."""
    return bool(annotation.get("iscrowd", 0)) or bool(annotation.get("ignore", 0))


def check_size(size: tuple[int, int], wanted: tuple[int, int]) -> None:
    """Check that an image has the (width, height) in pixels that its annotations are for.

    Raises:
        ImageError: It has not, so that its boxes would not fit.
    """
    if size != wanted:
        raise ImageError(
            f"it has {size[0]}x{size[1]} pixels but its boxes are for {wanted[0]}x{wanted[1]}"
        )


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
            ImageError: There is no such image, two shards hold it, or it cannot be read.
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
            raise ImageError(f"{name} in {self.path} cannot be read ({error.strerror})") from error

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
            raise ImageError(f"{name} is in {shards}; keep the shards of one set in a folder")
        if self.path.is_dir() and (self.path / name).is_file():
            return self.path / name
        raise ImageError(f"{name} is not in {self.path}, neither as a file nor in a tar shard")


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
