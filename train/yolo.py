"""YOLO annotations: one txt file an image, and the class names in data.yaml or classes.txt.

The rules are those of the Ultralytics documentation ("Object Detection Datasets Overview"), where
an image without a txt file has no objects; for the lines of the files see `train.yolo_labels`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from pathlib import Path, PurePath
from typing import Any

from rdlite.evaluate.dataset import DataError, ImageStore
from train.reading import Findings, make_content, read_text
from train.yolo_labels import Classes, Pairs, read_labels

YAML = (".yaml", ".yml")
_SPLITS = ("val", "valid", "test", "train")
_NO_LABELS = ("classes.txt", "train.txt", "val.txt", "test.txt")


def read_yolo(
    path: Path, split: str | None, store: ImageStore, *, default_split: str = "train"
) -> dict[str, Any]:
    """Read a YOLO set.

    Args:
        path: data.yaml, the folder that holds it, or a folder of label files laid out as the
            images are, with classes.txt or data.yaml in it or up to two folders above.
        split: Key of data.yaml that names the images.
        store: The images.
        default_split: The key that is taken when `split` is None.

    Returns:
        As `train.formats.read_annotations`; category ids are YOLO's class numbers, from 0.

    Raises:
        DataError: Names, images or labels are not where they should be, or a line cannot be read.
    """
    settings = path if path.suffix in YAML else find_yaml(path)
    content = _load_yaml(settings) if settings else {}
    found = Findings()
    # A data.yaml that lies among the labels may have the names alone.
    if settings and (settings == path or split or any(map(content.get, _SPLITS))):
        classes = _classes(settings, content)
        pairs, folders = _pairs_of_split(settings, content, split or default_split, store, found)
    elif split:
        raise DataError(f"{path} holds no data.yaml to name the images of the split {split!r}")
    else:
        classes = _classes_near(path)
        pairs, folders = _pairs_of_folder(path, store), [path]
    found.left_out["label files without an image"] = _stray(folders, pairs.values())
    images, annotations = read_labels(path, pairs, classes, store, found)
    categories = [{"id": number, "name": name} for number, name in classes.names.items()]
    return make_content(path, images, annotations, categories, found)


def find_yaml(folder: Path) -> Path | None:
    """Return the one YAML file of a folder, None when there is none or when data.yaml is not clear.

    Raises:
        DataError: There are several and none is called data.yaml.
    """
    found = sorted(file for file in folder.iterdir() if file.suffix in YAML)
    named = [file for file in found if file.stem == "data"]
    if len(found) > 1 and len(named) != 1:
        raise DataError(f"{folder} holds {len(found)} YAML files; give one of them by name")
    return (named or found or [None])[0]


def _load_yaml(path: Path) -> dict[str, Any]:
    try:
        import yaml
    except ImportError as error:
        raise ImportError("data.yaml needs PyYAML; run `pip install pyyaml`") from error
    try:
        content = yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        text = " ".join(str(error).split())
        raise DataError(f"{path} is not YAML ({text}); mend it") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} is not a mapping; wanted the keys names, train and val")
    return content


def _classes(path: Path, content: dict[str, Any]) -> Classes:
    names = content.get("names")
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not names:
        raise DataError(f'{path} has no "names"; give the class names in order')
    try:
        by_number = {int(key): str(name).strip() for key, name in names.items()}
    except ValueError as error:
        raise DataError(f'{path}: "names" has a key that is no number ({error})') from error
    if content.get("nc", len(names)) != len(names):
        raise DataError(f"{path} says nc: {content['nc']} but names {len(names)} classes")
    shape = content.get("kpt_shape", (0,))
    if not all(isinstance(side, int) and side >= 0 for side in shape):
        raise DataError(f"{path} has kpt_shape {shape}; wanted two whole numbers")
    return Classes(dict(sorted(by_number.items())), math.prod(shape))


def _classes_near(folder: Path) -> Classes:
    for place in (folder, *Path(os.path.abspath(folder)).parents[:2]):
        if (place / "classes.txt").is_file():
            lines = read_text(place / "classes.txt").splitlines()
            names = [line.strip() for line in lines if line.strip()]
            if not names:
                raise DataError(
                    f"{place / 'classes.txt'} is empty; give the class names, one a line"
                )
            return Classes(dict(enumerate(names)))
        settings = find_yaml(place)
        if settings:
            return _classes(settings, _load_yaml(settings))
    raise DataError(
        f"no classes.txt or data.yaml names the classes of {folder}; put one there, a name a line"
    )


def _pairs_of_split(
    path: Path, content: dict[str, Any], split: str, store: ImageStore, found: Findings
) -> tuple[Pairs, list[Path]]:
    """Return the pairs that data.yaml lists, and the folders that hold labels of no other split."""
    places = content.get(split)
    places = places if isinstance(places, list) else [places]
    if not all(isinstance(place, str) for place in places):
        others = [key for key in _SPLITS if content.get(key)]
        other = f", or pick a split it has: {path}:{others[0]}" if others else ""
        raise DataError(
            f"{path} names no images for the split {split!r}; add {split}: FOLDER{other}"
        )
    root = Path(os.path.abspath(store.path))
    pairs: Pairs = {}
    folders = []
    for text in places:
        place = _place(path, str(content.get("path") or "."), text, found)
        if place.is_dir():
            images = [place / name for name in ImageStore(place).names()]
            if not images:
                raise DataError(
                    f"{path}: the folder {place} of the split {split!r} holds no images; correct it"
                )
            folders.append(_label(place / "image").parent)
        else:
            images = [_listed(place, line) for line in read_text(place).split("\n") if line.strip()]
        for image in images:
            if not image.is_relative_to(root):
                raise DataError(
                    f"{path}: {image} of the split {split!r} is not in {root}; give the folder "
                    "that holds all images of the split as --images, or as --val-images where "
                    "the split is the one to validate on"
                )
            pairs[image.relative_to(root).as_posix()] = _label(image)
    return pairs, folders


def _place(settings: Path, base: str, place: str, found: Findings) -> Path:
    """Where a path of data.yaml leads: seen from its `path`, or from its own folder.

    Exports of Roboflow say ../train/images and mean ./train/images.
    """
    here = settings.parent
    stated = here / base / place
    if stated.exists():
        return Path(os.path.abspath(stated))
    for tried in (here / place, here / place.removeprefix("../")):
        if tried.exists():
            other = Path(os.path.abspath(tried))
            found.notes["places of images that the YAML file misnames"].append(
                f"{place} is not there, {other} is taken"
            )
            return other
    raise DataError(f"{settings} names {place}, which is not at {stated}; correct it")


def _listed(file: Path, line: str) -> Path:
    return Path(os.path.abspath(file.parent / line.strip()))


def _label(image: PurePath) -> Path:
    """Where the labels of an image lie: .../labels/a.txt for .../images/a.jpg, else beside it."""
    parts = list(image.parts)
    for position in reversed(range(len(parts) - 1)):
        if parts[position] == "images":
            parts[position] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def _pairs_of_folder(folder: Path, store: ImageStore) -> Pairs:
    """Pair images and labels of the same relative name.

    Images without labels count as empty where others of their folder have labels; in other folders
    they belong to another split.
    """
    candidates = {name: folder / Path(name).with_suffix(".txt") for name in store.names()}
    for name, label in candidates.items():
        if not label.is_file():
            candidates[name] = folder / _label(Path(name))
    labelled = {PurePath(name).parent for name, label in candidates.items() if label.is_file()}
    pairs = {name: label for name, label in candidates.items() if PurePath(name).parent in labelled}
    if not pairs:
        raise DataError(
            f"no label file in {folder} has the name of an image in {store.path}; labels must be "
            "laid out as the images are: a/b.txt for a/b.jpg"
        )
    return pairs


def _stray(folders: Iterable[Path], used: Iterable[Path]) -> list[str]:
    known = {os.path.abspath(path) for path in used}
    return [
        path.relative_to(folder).as_posix()
        for folder in folders
        for path in sorted(folder.rglob("*.txt"))
        if os.path.abspath(path) not in known
        and path.name not in _NO_LABELS
        and not path.name.lower().startswith("readme")
    ]
