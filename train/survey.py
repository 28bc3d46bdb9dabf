"""What may be wrong with a data set before training on it.

The annotations are read as training reads them. Of the images only headers are read, unless
`decode` is set; one whose header disagrees with its annotations is decoded to be sure.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from rdlite.errors import ImageError
from rdlite.evaluate.dataset import DataError, ImageStore, check_size
from rdlite.image import load
from train.coco import CocoSet, load_coco
from train.reading import HEADER_BYTES, upright_size

FEW = 20
"""Boxes of a class below which little can be learned of it."""

Found = dict[str, list[str]]
"""For each thing found, the files or places it concerns."""


@dataclass(slots=True, eq=False)
class Survey:
    """What was found in one set.

    Attributes:
        coco: The annotations as training uses them.
        store: The images.
        problems: What is left out, or spoils the measurement of AP.
        notes: What is used all the same, but should be known.
        readable: Positions in `coco.images` of the images that can be used.
    """

    coco: CocoSet
    store: ImageStore
    problems: Found = field(default_factory=lambda: defaultdict(list))
    notes: Found = field(default_factory=lambda: defaultdict(list))
    readable: list[int] = field(default_factory=list)

    def objects(self) -> np.ndarray:
        """Objects of each class, int64 (C,)."""
        return self._count(ignored=False)

    def ignored(self) -> np.ndarray:
        """Ignore regions of each class, int64 (C,)."""
        return self._count(ignored=True)

    def _count(self, *, ignored: bool) -> np.ndarray:
        labels = [i.targets.labels[i.targets.ignore == ignored] for i in self.coco.images]
        return np.bincount(np.concatenate(labels) - 1, minlength=len(self.coco.names))


_MISSING, _DAMAGED = "images missing", "images damaged"
_SIZE = "images of another size than the annotations say"


def survey(data: str, images: str, *, decode: bool, default_split: str = "train") -> Survey:
    """Read a set and look for everything that may be wrong with it.

    Args:
        data: Annotations of any format.
        images: Folder of the images or of tar shards, or one tar.
        decode: Whether to decode every image.
        default_split: As for `train.formats.read_annotations`.

    Raises:
        DataError: It cannot be used: a rule of `train.formats.RULES` that stops.
    """
    found = Survey(load_coco(data, images, default_split=default_split), ImageStore(images))
    _look_at_images(found, decode=decode)
    _look_at_boxes(found)
    return found


def _look_at_images(found: Survey, *, decode: bool) -> None:
    for reason, names in found.coco.left_out.items():
        found.problems[reason] += names
    for reason, names in found.coco.notes.items():
        found.notes[reason] += names
    bar = tqdm(
        found.coco.images,
        desc=f"{'decode' if decode else 'headers of'} {found.coco.path.name}",
        unit="img",
        disable=None,
        delay=2,
    )
    for position, image in enumerate(bar):
        fault = _image_fault(found.store, image.file_name, image.size, decode=decode)
        if fault is None:
            found.readable.append(position)
        else:
            found.problems[fault[0]].append(f"{image.file_name}: {fault[1]}")
    if not found.readable:
        kinds = {kind: found.problems[kind] for kind in (_MISSING, _DAMAGED, _SIZE)}
        counts = ", ".join(f"{kind}: {len(names)}" for kind, names in kinds.items() if names)
        kind = max(kinds, key=lambda kind: len(kinds[kind]))
        raise DataError(
            f"no image of {found.coco.path} can be used from {found.store.path} ({counts}; the "
            f"first, {kinds[kind][0]}); give the folder that holds them as --images, or as "
            "--val-images for a validation set"
        )


def leave_out(found: Survey, failed: Mapping[str, str]) -> None:
    """Take out images whose damage only showed when they were drawn."""
    found.problems[_DAMAGED] += [f"{name}: {reason}" for name, reason in failed.items()]
    found.readable = [k for k in found.readable if found.coco.images[k].file_name not in failed]


def _image_fault(
    store: ImageStore, name: str, size: tuple[int, int], *, decode: bool
) -> tuple[str, str] | None:
    """Return the kind of fault of an image and its reason, None when it can be used."""
    kind = _MISSING
    try:
        store.read(name, size=1)
        kind = _DAMAGED
        found = upright_size(store, name)
        if decode or found != size:
            data = store.read(name)
            height, width = load(data).shape[:2]
            kind = _SIZE
            check_size((width, height), size, data)
    except ImageError as error:
        return kind, str(error)
    return None


def _look_at_boxes(found: Survey) -> None:
    coco = found.coco
    found.problems["boxes without width or height"] += coco.empty_boxes
    found.problems["boxes wholly outside their image"] += coco.outside_boxes
    found.notes["boxes that reach beyond their image, clipped"] += coco.clipped_boxes
    for image in coco.images:
        targets = image.targets
        rows = np.column_stack([targets.boxes, targets.labels])
        repeated = len(rows) - len(set(map(tuple, rows.tolist())))
        found.notes["boxes that repeat another one"] += [image.file_name] * repeated
        if targets.ignore.all():
            found.notes["images without objects"].append(image.file_name)


def look_at_use(train: Survey, val: Survey | None) -> None:
    """Note what training will see too little of: rare classes and images nobody lists."""
    train.notes[f"classes with fewer than {FEW} boxes"] += [
        f"{name} ({count})"
        for name, count in zip(train.coco.names, train.objects().tolist(), strict=True)
        if count < FEW
    ]
    listed = {image.file_name for one in (train, val) if one for image in one.coco.images}
    train.notes["images in the folder that no annotation file lists"] += [
        name for name in train.store.names() if name not in listed
    ]


def compare(train: Survey, val: Survey) -> None:
    """Look for what training and validation share and should not, or should and do not."""
    ours = {Path(train.coco.images[i].file_name).name: i for i in train.readable}
    theirs = [val.coco.images[i].file_name for i in val.readable]
    train.notes["file names that are also in the validation set"] += [
        name for name in theirs if Path(name).name in ours
    ]
    names = [train.coco.images[i].file_name for i in train.readable]
    train.problems["images that are also in the validation set, byte for byte"] += _same_bytes(
        train.store, names, val.store, theirs
    )
    val.notes["classes that training does not have"] += sorted(
        set(val.coco.names) - set(train.coco.names)
    )
    annotated = {
        name for name, n in zip(val.coco.names, val.objects().tolist(), strict=True) if n > 0
    }
    val.notes["classes of training without a box here"] += [
        name for name in train.coco.names if name not in annotated
    ]


def _same_bytes(
    one: ImageStore, names: Sequence[str], other: ImageStore, others: Sequence[str]
) -> list[str]:
    """List the pairs of identical files; only where the beginnings agree are whole files read."""
    heads: dict[bytes, list[str]] = defaultdict(list)
    for name in others:
        heads[_digest(other.read(name, size=HEADER_BYTES))].append(name)
    return [
        name if name == twin else f"{name} = {twin}"
        for name in tqdm(names, desc="compare", unit="img", disable=None, delay=2)
        for twin in heads.get(_digest(one.read(name, size=HEADER_BYTES)), ())
        if one.read(name) == other.read(twin)
    ]


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()
