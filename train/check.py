"""`python -m train check`: everything about a data set that should be known before training on it.

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

from rdlite.dataset import DataError, ImageStore, check_size
from rdlite.errors import ImageError, OptionError
from rdlite.image import load
from train.coco import CocoSet, load_coco
from train.formats import rules
from train.reading import HEADER_BYTES, upright_size

FEW = 20
"""Boxes of a class below which little can be learned of it."""

PROBLEM = 3
"""Exit code when there is a problem."""

Found = dict[str, list[str]]
"""For each thing found, the files it concerns, or one entry per case without a name."""


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


def check(
    *,
    data: str,
    images: str,
    val: str | None = None,
    val_images: str | None = None,
    out: str = "check",
    init: str | None = "default",
    seed: int = 0,
    samples: int = 24,
    decode: bool = False,
) -> int:
    """Look at data before training on it; prints what it finds.

    Writes check.md and contact-sheet.png, samples drawn as training sees them. Exit code 0: the
    data is sound; 3: some of it will not be used, or is also in the validation set; 1: it cannot be
    used at all.

    Args:
        data: Annotations of any format; see `train.formats.read_annotations`.
        images: Folder of the images or of tar shards, or one tar.
        val: Annotations for validation.
        val_images: Their images; None takes `images`.
        out: Folder for check.md and contact-sheet.png.
        init: Weights whose classes are compared with the data's.
        seed: Decides which samples are drawn, and how.
        samples: How many samples are drawn.
        decode: Whether to decode every image.

    Returns:
        The exit code: `PROBLEM` or 0.

    Raises:
        RdliteError: The data cannot be used, or `init` cannot be read.
    """
    from train.check_report import render
    from train.contact_sheet import write_contact_sheet

    if samples < 1:
        raise OptionError(f"samples must be 1 or more, got {samples}")
    train = survey(data, images, decode=decode)
    held = survey(val, val_images or images, decode=decode) if val else None
    if held:
        compare(train, held)
    _look_at_use(train, held)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    picture = folder / "contact-sheet.png"
    sheet = write_contact_sheet(
        train.coco, images, picture, readable=train.readable, samples=samples, seed=seed
    )
    _leave_out(train, sheet.failed)
    text = render(data, train, val, held, init=init, decoded=decode, picture=picture.name)
    (folder / "check.md").write_text(f"{text}\n## Rules\n\n{rules()}\n", encoding="utf-8")
    print(text)
    print(f"written: {folder / 'check.md'}, {picture}")
    return PROBLEM if any(any(one.problems.values()) for one in (train, held) if one) else 0


_MISSING, _DAMAGED = "images missing", "images damaged"
_SIZE = "images of another size than the annotations say"


def survey(data: str, images: str, *, decode: bool) -> Survey:
    """Read a set and look for everything that may be wrong with it.

    Raises:
        DataError: It cannot be used: a rule of `train.formats.RULES` that stops.
    """
    found = Survey(load_coco(data, images), ImageStore(images))
    _look_at_images(found, decode=decode)
    _look_at_boxes(found)
    return found


def _look_at_images(found: Survey, *, decode: bool) -> None:
    for reason, names in found.coco.left_out.items():
        found.problems[reason] += names
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
        kind, first = next((kind, names[0]) for kind, names in found.problems.items() if names)
        raise DataError(
            f"none of the {len(found.coco.images)} images of {found.coco.path} can be read from "
            f"{found.store.path}; {kind}, the first, {first}"
        )


def _leave_out(found: Survey, failed: Mapping[str, str]) -> None:
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
            height, width = load(store.read(name)).shape[:2]
            found = width, height
        kind = _SIZE
        check_size(found, size)
    except ImageError as error:
        return kind, str(error)
    return None


def _look_at_boxes(found: Survey) -> None:
    coco = found.coco
    found.problems["boxes without width or height"] += [""] * coco.empty_boxes
    found.problems["boxes wholly outside their image"] += [""] * coco.outside_boxes
    found.notes["boxes that reach beyond their image, clipped"] += [""] * coco.clipped_boxes
    for image in coco.images:
        targets = image.targets
        rows = np.column_stack([targets.boxes, targets.labels])
        repeated = len(rows) - len(set(map(tuple, rows.tolist())))
        found.notes["boxes that repeat another one"] += [image.file_name] * repeated
        if targets.ignore.all():
            found.notes["images without objects"].append(image.file_name)


def _look_at_use(train: Survey, val: Survey | None) -> None:
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
