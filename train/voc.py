"""Pascal VOC annotations: one XML file an image.

Format: The PASCAL VOC 2012 development kit, section 5 ("Annotation"). Corners are pixel numbers
counted from 1, the last pixel included: a box over the whole of a 500 x 400 image is 1 1 500 400.
"""

from __future__ import annotations

import math
from collections import defaultdict
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree import ElementTree

from rdlite.errors import ImageError
from rdlite.evaluate.dataset import DataError, ImageStore
from train.reading import Findings, make_content, read_text, shown, upright_size


def read_voc(folder: Path, split: str | None, store: ImageStore) -> dict[str, Any]:
    """Read a folder of XML files, or the root of a development kit.

    The image of an XML file has its name; where there is none, `<filename>` names it. The size is
    the XML's, or the image's where that is missing or 0. Objects marked "difficult" become ignore
    regions, as in the VOC benchmark, where they are neither right nor wrong to find. Parts of
    objects (head, hand, foot) are not objects. Classes are in alphabetical order.

    Args:
        folder: XML files, in it or below it; or a folder that holds `Annotations`.
        split: Name of a list in `ImageSets/Main`, such as "trainval"; None reads all XML files.
        store: The images.

    Returns:
        As `train.formats.read_annotations`.

    Raises:
        DataError: A file is not XML of this kind, or the list of the split is missing.
    """
    root = folder / "Annotations" if (folder / "Annotations").is_dir() else folder
    found = Findings()
    files = _split_files(folder, root, split, found) if split else sorted(root.rglob("*.xml"))
    find = _Finder(store)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for file in files:
        name = shown(file, folder)
        tree = _parse(file, name, found)
        if tree is None:
            continue
        image = _image(name, tree, PurePosixPath(file.relative_to(root)), find, found)
        objects = _objects(name, tree, found)
        if image is not None:
            images.append(image | {"id": len(images) + 1})
            annotations += [one | {"image_id": len(images)} for one in objects]
    names = sorted({one["category"] for one in annotations})
    ids = {name: number for number, name in enumerate(names, start=1)}
    for one in annotations:
        one["category_id"] = ids[one.pop("category")]
    categories = [{"id": number, "name": name} for name, number in ids.items()]
    return make_content(folder, images, annotations, categories, found)


def _split_files(folder: Path, root: Path, split: str, found: Findings) -> list[Path]:
    lists = folder / "ImageSets" / "Main"
    path = lists / f"{split}.txt"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in lists.glob("*.txt"))[:10]) or "none"
        raise DataError(f"there is no list {path} of the split {split!r}; lists there: {known}")
    files = [
        root / f"{line.split()[0]}.xml" for line in read_text(path).splitlines() if line.split()
    ]
    found.left_out["names in the split without an XML file"] += [
        file.stem for file in files if not file.is_file()
    ]
    return [file for file in files if file.is_file()]


def _parse(file: Path, name: str, found: Findings) -> ElementTree.Element | None:
    try:
        # The parser limits the growth of entities by itself (expat 2.4.1 and later).
        tree = ElementTree.parse(file).getroot()
    except (OSError, ElementTree.ParseError, ValueError, LookupError) as error:
        found.faults["files that are not readable XML"].append(
            f"{name} is not readable XML ({error}); mend or remove it"
        )
        return None
    if tree.tag != "annotation":
        found.faults["XML files of another kind"].append(
            f"{name} holds <{tree.tag}>, wanted the <annotation> of Pascal VOC; remove it"
        )
        return None
    return tree


class _Finder:
    """The image that belongs to an XML file."""

    def __init__(self, store: ImageStore) -> None:
        self.store = store
        self.names = set(store.names())
        self.by_path: dict[str, list[str]] = defaultdict(list)
        self.by_stem: dict[str, list[str]] = defaultdict(list)
        for name in self.names:
            path = PurePosixPath(name)
            self.by_path[str(path.with_suffix(""))].append(name)
            self.by_stem[path.stem].append(name)

    def __call__(self, xml: PurePosixPath, stated: str) -> list[str]:
        """List the images that fit, best way first; more than one is ambiguous."""
        stem = PurePosixPath(stated).stem
        for found in (
            self.by_path.get(str(xml.with_suffix("")), []),
            self.by_stem.get(xml.stem, []),
            [stated] if stated in self.names else [],
            self.by_stem.get(stem, []) if stem else [],
        ):
            exact = [name for name in found if PurePosixPath(name).name == stated]
            if found:
                return exact if len(exact) == 1 else found
        return []


def _image(
    name: str, tree: ElementTree.Element, inside: PurePosixPath, find: _Finder, found: Findings
) -> dict[str, Any] | None:
    # Some tools write a whole path of the machine they ran on.
    stated = _text(tree, "filename").replace("\\", "/").rpartition("/")[2]
    fitting = find(inside, stated)
    if len(fitting) > 1:
        found.left_out["XML files that fit several images"].append(
            f"{name}: {', '.join(sorted(fitting))}"
        )
        return None
    size = _stated_size(name, tree, found)
    if not fitting and size:  # its absence is counted with that of other formats' images
        return {"file_name": stated or str(inside), "width": size[0], "height": size[1]}
    if not fitting:
        found.left_out["XML files without image and size"].append(name)
        return None
    try:
        width, height = size or upright_size(find.store, fitting[0])
    except ImageError as error:
        found.left_out["images whose size cannot be read"].append(f"{fitting[0]}: {error}")
        return None
    return {"file_name": fitting[0], "width": width, "height": height}


def _stated_size(name: str, tree: ElementTree.Element, found: Findings) -> tuple[int, int] | None:
    sides = [_text(tree, f"size/{side}") for side in ("width", "height")]
    if not all(sides):
        return None
    numbers = _numbers(f"{name}: <size>", sides, found)
    if numbers is None:
        return None
    width, height = map(round, numbers)
    return (width, height) if width > 0 and height > 0 else None


def _objects(name: str, tree: ElementTree.Element, found: Findings) -> list[dict[str, Any]]:
    objects = []
    for number, one in enumerate(tree.findall("object"), start=1):
        place = f"{name}, object {number}"
        category = _text(one, "name")
        if not category:
            found.faults["objects without a name"].append(
                f"{place} has no <name>; name it or remove it"
            )
            continue
        corners = [_text(one, f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")]
        if not all(corners):
            found.left_out["objects without a whole <bndbox>"].append(f"{place}: {category}")
            continue
        values = _numbers(place, corners, found)
        if values is None:
            continue
        x1, y1, x2, y2 = values
        box = [x1 - 1, y1 - 1, x2 - x1 + 1, y2 - y1 + 1]
        difficult = _text(one, "difficult").lower() in ("1", "true")
        objects.append(
            {"category": category, "bbox": box, "iscrowd": int(difficult), "source": place}
        )
    return objects


def _text(tree: ElementTree.Element, path: str) -> str:
    return (tree.findtext(path) or "").strip()


def _numbers(place: str, texts: list[str], found: Findings) -> list[float] | None:
    """Read finite numbers; where one is none, that is a fault, and the answer None."""
    values = []
    for text in texts:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            found.faults["texts where a finite number belongs"].append(
                f"{place} has {text!r} where a finite number belongs; mend it"
            )
            return None
        values.append(value)
    return values
