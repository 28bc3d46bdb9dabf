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

from rdlite.dataset import DataError, ImageStore
from rdlite.errors import ImageError
from train.reading import LeftOut, make_content, read_text, refuse, upright_size


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
    left_out: LeftOut = defaultdict(list)
    files = _split_files(folder, root, split, left_out) if split else sorted(root.rglob("*.xml"))
    find = _Finder(store)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    faults: list[str] = []
    for file in files:
        try:
            tree = _parse(file)
            image = _image(file, tree, PurePosixPath(file.relative_to(root)), find, left_out)
            objects = _objects(file, tree, left_out)
        except DataError as error:
            faults.append(str(error))
            continue
        if image is not None:
            images.append(image | {"id": len(images) + 1})
            annotations += [one | {"image_id": len(images)} for one in objects]
    refuse(faults)
    names = sorted({one["category"] for one in annotations})
    ids = {name: number for number, name in enumerate(names, start=1)}
    for one in annotations:
        one["category_id"] = ids[one.pop("category")]
    categories = [{"id": number, "name": name} for name, number in ids.items()]
    return make_content(images, annotations, categories, left_out)


def _split_files(folder: Path, root: Path, split: str, left_out: LeftOut) -> list[Path]:
    lists = folder / "ImageSets" / "Main"
    path = lists / f"{split}.txt"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in lists.glob("*.txt"))[:10]) or "none"
        raise DataError(f"there is no list {path} of the split {split!r}; lists there: {known}")
    files = [
        root / f"{line.split()[0]}.xml" for line in read_text(path).splitlines() if line.split()
    ]
    left_out["names in the split without an XML file"] += [
        file.stem for file in files if not file.is_file()
    ]
    return [file for file in files if file.is_file()]


def _parse(file: Path) -> ElementTree.Element:
    try:
        # The parser limits the growth of entities by itself (expat 2.4.1 and later).
        tree = ElementTree.parse(file).getroot()
    except (OSError, ElementTree.ParseError, ValueError, LookupError) as error:
        raise DataError(f"{file} is not readable XML ({error}); mend or remove it") from error
    if tree.tag != "annotation":
        raise DataError(f"{file} holds <{tree.tag}>, wanted the <annotation> of Pascal VOC")
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
    file: Path, tree: ElementTree.Element, inside: PurePosixPath, find: _Finder, left_out: LeftOut
) -> dict[str, Any] | None:
    # Some tools write a whole path of the machine they ran on.
    stated = _text(tree, "filename").replace("\\", "/").rpartition("/")[2]
    found = find(inside, stated)
    if len(found) > 1:
        left_out["XML files that fit several images"].append(
            f"{inside}: {', '.join(sorted(found))}"
        )
        return None
    size = _stated_size(file, tree)
    if not found and size:  # its absence is counted with that of other formats' images
        return {"file_name": stated or str(inside), "width": size[0], "height": size[1]}
    if not found:
        left_out["XML files without image and size"].append(str(inside))
        return None
    try:
        width, height = size or upright_size(find.store, found[0])
    except ImageError as error:
        left_out["images whose size cannot be read"].append(f"{found[0]}: {error}")
        return None
    return {"file_name": found[0], "width": width, "height": height}


def _stated_size(file: Path, tree: ElementTree.Element) -> tuple[int, int] | None:
    sides = [_text(tree, f"size/{name}") for name in ("width", "height")]
    if not all(sides):
        return None
    width, height = (round(_number(file, text)) for text in sides)
    return (width, height) if width > 0 and height > 0 else None


def _objects(file: Path, tree: ElementTree.Element, left_out: LeftOut) -> list[dict[str, Any]]:
    objects = []
    for one in tree.findall("object"):
        name = _text(one, "name")
        if not name:
            raise DataError(f"{file} holds an <object> without <name>; name it or remove it")
        corners = [_text(one, f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")]
        if not all(corners):
            left_out["objects without a whole <bndbox>"].append(f"{file.name}: {name}")
            continue
        x1, y1, x2, y2 = (_number(file, text) for text in corners)
        box = [x1 - 1, y1 - 1, x2 - x1 + 1, y2 - y1 + 1]
        difficult = _text(one, "difficult").lower() in ("1", "true")
        objects.append({"category": name, "bbox": box, "iscrowd": int(difficult)})
    return objects


def _text(tree: ElementTree.Element, path: str) -> str:
    return (tree.findtext(path) or "").strip()


def _number(file: Path, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{file} has {text!r} where a finite number belongs; mend it")
    return value
