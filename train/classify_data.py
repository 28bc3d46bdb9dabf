"""Folders of class/image files as samples for classification."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from rdlite.cli.inputs import IMAGES
from rdlite.evaluate.dataset import DataError
from rdlite.image import resize
from train.augment import AugmentConfig, Targets
from train.cache import ImageCache, open_cache
from train.photometric import apply_distortion

CROP_AREA = (0.35, 1.0)
"""Range of a crop's share of the image; 0.08 at the low end, as is usual, asks for longer training
than a detector's backbone gets here."""
CROP_ASPECT = (3 / 4, 4 / 3)
"""Range of a crop's width / height."""
CROP_TRIALS = 10


@dataclass(frozen=True, slots=True, eq=False)
class ClassDataset:
    """Images and their classes; each sample is a pure function of (seed, epoch, index, resolution).

    Attributes:
        path: The folder.
        names: The classes.
        files: File names of the images, relative to the folder.
        labels: int64 (n,), index into `names` of each image.
        positions: int64 (n,), index into `cache` of each image.
        cache: The decoded images.
        report: Lines that say what was left out.
        seed: Seed of the augmentation.
        augmented: Whether samples are augmented, or only resized.
    """

    path: Path
    names: tuple[str, ...]
    files: tuple[str, ...]
    labels: np.ndarray
    positions: np.ndarray
    cache: ImageCache
    report: tuple[str, ...]
    seed: int = 0
    augmented: bool = True

    def __len__(self) -> int:
        return len(self.labels)

    def sample(self, index: int, *, epoch: int, resolution: int) -> tuple[np.ndarray, Targets]:
        """Make one sample: uint8 (R, R, 3) BGR, and its class as a label without a box."""
        image = self.cache[int(self.positions[index])]
        label = self.labels[index : index + 1]
        targets = Targets(
            np.empty((0, 4), np.float32), label, np.zeros(1, bool), np.ones(1, np.float32)
        )
        if not self.augmented:
            return resize(image, (resolution, resolution)), targets
        rng = np.random.default_rng((self.seed, epoch, index))
        return random_view(image, resolution=resolution, rng=rng), targets

    def subset(self, indices: np.ndarray, *, augmented: bool) -> ClassDataset:
        """Return the images at `indices`, int64 (m,)."""
        return replace(
            self,
            files=tuple(self.files[i] for i in indices.tolist()),
            labels=self.labels[indices],
            positions=self.positions[indices],
            augmented=augmented,
        )

    def split(self, share: float) -> tuple[ClassDataset, ClassDataset]:
        """Hold out `share` of every class, drawn by the seed: (to train on, to measure on)."""
        rng = np.random.default_rng(self.seed)
        held_out = np.zeros(len(self), bool)
        for label in range(len(self.names)):
            members = rng.permutation(np.flatnonzero(self.labels == label))
            # At least one image of each class stays to learn from.
            held_out[members[: min(round(share * len(members)), len(members) - 1)]] = True
        return (
            self.subset(np.flatnonzero(~held_out), augmented=True),
            self.subset(np.flatnonzero(held_out), augmented=False),
        )

    def sha256(self) -> str:
        """Digest of the classes and of which file is in which."""
        content = [self.names, self.files, self.labels.tolist()]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def random_view(image: np.ndarray, *, resolution: int, rng: np.random.Generator) -> np.ndarray:
    """Crop, resize, change the colours as the detector's training does, and maybe mirror.

    Args:
        image: uint8 (h, w, 3) BGR; never written to.
        resolution: Side R of the result.
        rng: The only source of randomness.

    Returns:
        uint8 (R, R, 3) BGR.
    """
    x1, y1, x2, y2 = crop_window(image.shape[1], image.shape[0], rng)
    view = resize(np.ascontiguousarray(image[y1:y2, x1:x2]), (resolution, resolution))
    limits = AugmentConfig()
    view = apply_distortion(view, limits.distortion(rng))
    return cv2.flip(view, 1) if rng.random() < limits.flip_prob else view


def crop_window(width: int, height: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Draw a crop by its share of the area and its aspect ratio (arXiv 1409.4842 §6).

    Returns:
        x1, y1, x2, y2 in whole pixels; the whole image when no trial fits into it.
    """
    low, high = (math.log(aspect) for aspect in CROP_ASPECT)
    for _ in range(CROP_TRIALS):
        area = rng.uniform(*CROP_AREA) * width * height
        aspect = math.exp(rng.uniform(low, high))
        wide, tall = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < wide <= width and 0 < tall <= height:
            x, y = rng.integers(width - wide + 1), rng.integers(height - tall + 1)
            return int(x), int(y), int(x) + wide, int(y) + tall
    return 0, 0, width, height


def open_classes(
    folder: str | Path,
    *,
    cache: str | Path,
    max_side: int,
    seed: int = 0,
    names: tuple[str, ...] | None = None,
) -> ClassDataset:
    """Open a folder of class folders, decoding its images into `cache` the first time.

    Files that are no images, images that cannot be read, and classes without a readable image are
    left out and reported.

    Args:
        folder: One folder per class, named after it; its images may lie at any depth.
        cache: Folder for the decoded images; 3 bytes a pixel.
        max_side: Longest side kept in the cache, in pixels.
        seed: Seed of the augmentation.
        names: The classes there must be, in order; None takes those of the folder.

    Raises:
        DataError: There is no such folder, it has no class folders, no image can be read, there are
            fewer than two classes, or a class is not in `names`.
    """
    root = Path(folder).resolve()
    classes = _class_folders(root)
    files, passed_over = _image_files(root, classes)
    if not files:
        raise DataError(
            f"{folder} has {len(classes)} class folders but no images in them; give a folder of "
            "class/image files"
        )
    entries = [(name, None) for name, _ in files]
    decoded = open_cache(root, root, entries, folder=Path(cache), max_side=max_side)
    readable = decoded.readable
    found = [files[position] for position in readable.tolist()]
    known = _known_classes(root, sorted({name for _, name in found}), names)
    index = {name: label for label, name in enumerate(known)}
    return ClassDataset(
        root,
        known,
        tuple(file for file, _ in found),
        np.array([index[name] for _, name in found], np.int64),
        readable,
        decoded,
        _report(classes, {name for _, name in found}, passed_over, decoded.failed),
        seed,
    )


def _class_folders(root: Path) -> list[str]:
    if not root.is_dir():
        raise DataError(f"{root} is no folder; give a folder of class/image files")
    classes = sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not classes:
        raise DataError(f"{root} has no class folders; give a folder of class/image files")
    return classes


def _image_files(root: Path, classes: list[str]) -> tuple[list[tuple[str, str]], Counter[str]]:
    """(file name relative to the folder, class) of each image; other files by ending."""
    files, passed_over = [], Counter(p.suffix.lower() for p in root.iterdir() if p.is_file())
    for name in classes:
        for path in sorted((root / name).rglob("*")):
            if not path.is_file():
                continue
            if path.suffix.lower() in IMAGES and not path.name.startswith("."):
                files.append((path.relative_to(root).as_posix(), name))
            else:
                passed_over[path.suffix.lower()] += 1
    return files, passed_over


def _known_classes(root: Path, found: list[str], wanted: tuple[str, ...] | None) -> tuple[str, ...]:
    if wanted is None:
        if len(found) < 2:
            raise DataError(
                f"{root} has images of one class only, {found[0]}; give two classes or more"
            )
        return tuple(found)
    strange = [name for name in found if name not in wanted]
    if strange:
        raise DataError(
            f"{root} has {len(strange)} classes that the training images lack "
            f"({', '.join(strange[:3])}); give class folders of the same names"
        )
    return wanted


def _report(
    classes: list[str], found: set[str], passed_over: Counter[str], failed: dict[str, str]
) -> tuple[str, ...]:
    lines = []
    if passed_over:
        kinds = ", ".join(f"{n} {ending or 'without one'}" for ending, n in passed_over.items())
        lines.append(f"{passed_over.total()} files passed over for their place or ending: {kinds}")
    empty = [name for name in classes if name not in found]
    if empty:
        lines.append(f"{len(empty)} classes without a readable image left out: {', '.join(empty)}")
    if failed:
        lines.append(f"{len(failed)} unreadable images left out")
        lines += [f"  {name}: {reason}" for name, reason in failed.items()]
    return tuple(lines)
