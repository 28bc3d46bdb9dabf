"""COCO annotation files, read and checked."""

from __future__ import annotations

import json
import reprlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from rdlite.evaluate.dataset import DataError, Faults, refuse
from rdlite.storage.regular import read_regular

_MAX_BYTES: Final = 1 << 32


def read_coco(path: str | Path) -> dict[str, Any]:
    """Read a COCO annotation file and check everything that would otherwise fail later.

    Args:
        path: The json file: an object with the lists "images", "annotations" and "categories".

    Returns:
        The parsed object, unchanged.

    Raises:
        DataError: The file cannot be read, or has a fault of `coco_faults`.
    """
    path = Path(path)
    content = read_json(path, "a COCO json file")
    refuse(path, coco_faults(content))
    return content  # type: ignore[no-any-return]


def read_json(path: Path, wanted: str) -> Any:
    """Return what a JSON file holds.

    Args:
        path: The file.
        wanted: What to give in its place, if it is something else.

    Raises:
        DataError: It cannot be read, or is not JSON.
    """
    text = read_regular(path, max_bytes=_MAX_BYTES, error=DataError)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON ({error}); give {wanted}") from error


_FIELDS = {
    "images": ("id", "file_name", "width", "height"),
    "annotations": ("image_id", "category_id", "bbox"),
    "categories": ("id", "name"),
}

EMPTY = "empty lists"
"""The fault of a set without images or classes."""


def coco_faults(content: Any) -> Faults:
    """Find all that is wrong with the content of a COCO annotation file.

    A list or field is missing, there are no images or classes, an id, file name or class name
    occurs twice, a class has no name, an annotation points at nothing, or a box, score or area is
    not made of finite numbers.

    Args:
        content: The parsed file.

    Returns:
        The faults; each sentence is to follow the name of the file.
    """
    faults: Faults = defaultdict(list)
    if not isinstance(content, dict):
        return {"no object": ["the JSON is not an object; give a COCO json file"]}
    items = {name: _items(content, name, faults) for name in _FIELDS}
    for image in items["images"]:
        _check_stated_size(image, faults)
    for name, field, types in _UNIQUE:
        _check_unique(items, name, field, types, faults)
    # Without a list there is nothing to compare with, and its absence is a fault already.
    known = _known_ids({name: items[name] for name in items if isinstance(content.get(name), list)})
    for position, annotation in enumerate(items["annotations"]):
        where = (
            f"annotation {annotation['id']}" if "id" in annotation else f"annotations[{position}]"
        )
        _check_annotation(where, annotation, known, faults)
    return faults


def result_faults(entries: Sequence[Any], content: Mapping[str, Any]) -> Faults:
    """Find all that is wrong with COCO results.

    An entry lacks a field, is of an image or a class that the annotations do not list, or its box
    or score is not made of finite numbers.

    Args:
        entries: The parsed results.
        content: The annotation file that they belong to, checked.

    Returns:
        The faults; each sentence is to follow the name of the file.
    """
    faults: Faults = defaultdict(list)
    known = _known_ids(content)
    for position, entry in enumerate(entries):
        where = f"entry {position}"
        lacking = [name for name in _RESULT if not isinstance(entry, dict) or name not in entry]
        if lacking:
            faults["entries that lack a field"].append(
                f'{where} lacks "{lacking[0]}"; give COCO results'
            )
        else:
            _check_annotation(where, entry, known, faults)
    return faults


_RESULT = ("image_id", "category_id", "bbox", "score")


def _known_ids(content: Mapping[str, Any]) -> dict[str, set[int | str]]:
    return {
        field: {item["id"] for item in content[name] if isinstance(item.get("id"), int | str)}
        for field, name in (("image_id", "images"), ("category_id", "categories"))
        if name in content
    }


def _items(content: dict[str, Any], name: str, faults: Faults) -> list[dict[str, Any]]:
    """Return the items of a list; one that is no object is an empty one from here on."""
    items = content.get(name)
    if not isinstance(items, list):
        faults["lists that are missing"].append(f'there is no list "{name}"; give a COCO json file')
        return []
    if not items and name != "annotations":
        faults[EMPTY].append(f'the list "{name}" is empty; give a set with at least one')
    for position, item in enumerate(items):
        for field in _FIELDS[name]:
            if not isinstance(item, dict) or field not in item:
                faults[f"{name} that lack a field"].append(
                    f'{name}[{position}] lacks "{field}"; add it'
                )
    return [item if isinstance(item, dict) else {} for item in items]


def _check_stated_size(image: dict[str, Any], faults: Faults) -> None:
    size = tuple(image.get(side, 1) for side in ("width", "height"))
    if not all(_is_number(side) and side >= 1 for side in size):
        faults["images without a size"].append(
            f"image {image.get('file_name')} has size {size}; give its width and height"
        )


_UNIQUE: tuple[tuple[str, str, tuple[type, ...]], ...] = (
    ("images", "id", (int, str)),
    ("images", "file_name", (str,)),
    ("categories", "id", (int,)),
    ("categories", "name", (str,)),
    ("annotations", "id", (int, str)),
)


def _check_unique(
    items: dict[str, list[dict[str, Any]]],
    name: str,
    field: str,
    types: tuple[type, ...],
    faults: Faults,
) -> None:
    seen = set()
    for position, item in enumerate(items[name]):
        if field not in item:
            continue
        value = item[field]
        if not isinstance(value, types):
            wanted = " or ".join(kind.__name__ for kind in types)
            faults[f"{name} whose {field} is not {wanted}"].append(
                f"{name}[{position}] has {field} {reprlib.repr(value)}; give {wanted}"
            )
        elif isinstance(value, str) and not value.strip():
            faults[f"{name} with an empty {field}"].append(
                f"{name}[{position}] has an empty {field}; give it a {field}"
            )
        elif value in seen:
            faults[f"{name} whose {field} occurs twice"].append(
                f"{field} {value!r} occurs twice in {name}; make it unique"
            )
        else:
            seen.add(value)


_UNKNOWN = {
    "image_id": "annotations of an unknown image",
    "category_id": "annotations of an unknown class",
}


def _check_annotation(
    where: str,
    annotation: dict[str, Any],
    known: dict[str, set[int | str]],
    faults: Faults,
) -> None:
    for field, ids in known.items():
        value = annotation.get(field)
        if field in annotation and not (isinstance(value, int | str) and value in ids):
            faults[_UNKNOWN[field]].append(
                f"{where} has {field} {reprlib.repr(value)}, which the file does not list; add it"
            )
    box = annotation.get("bbox", [0] * 4)
    if not (isinstance(box, list) and len(box) == 4 and all(map(_is_number, box))):
        faults["boxes that are not four finite numbers"].append(
            f"{where} has bbox {reprlib.repr(box)}; give four finite numbers x, y, width, height"
        )
    for field in ("score", "area"):
        if not _is_number(annotation.get(field, 0)):
            faults[f"annotations whose {field} is not a finite number"].append(
                f"{where} has {field} {reprlib.repr(annotation[field])}; give a finite number"
            )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) <= _LARGEST


_LARGEST = 3.4e38
"""What is larger is infinite as float32; NaN is not smaller either."""


def is_ignored(annotation: Mapping[str, Any]) -> bool:
    """Say whether a COCO annotation is neither a positive nor a negative ("iscrowd", "ignore")."""
    return bool(annotation.get("iscrowd", 0)) or bool(annotation.get("ignore", 0))
