"""A decoded image set in one memory-mapped file, so that training never decodes an image twice."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from rdlite.errors import ImageError
from rdlite.evaluate.dataset import DataError, ImageStore, check_size
from rdlite.image import load, resize

_VERSION = 1


Entries = Sequence[tuple[str, tuple[int, int] | None]]
"""`file_name` and (width, height) in pixels of every image of a set, in order; None: any size."""


@dataclass(slots=True, eq=False)
class ImageCache:
    """The decoded images of a set, read through one memory map.

    Workers share the pages; the file is never read wholly into memory. Pickling carries no pixels.

    Attributes:
        path: The pixel file: all images' uint8 BGR rows, one after the other.
        offsets: int64 (n,), first byte of each image.
        sizes: int64 (n, 2), stored height and width; 0 0 for an image that could not be read.
        failed: Reason for each image that could not be read, by file name.
    """

    path: Path
    offsets: np.ndarray
    sizes: np.ndarray
    failed: dict[str, str]
    _pixels: np.memmap | None = None

    def __len__(self) -> int:
        return len(self.offsets)

    def __getitem__(self, index: int) -> np.ndarray:
        """Return one image, uint8 (h, w, 3) BGR, as a read-only view of the file."""
        if self._pixels is None:
            self._pixels = np.memmap(self.path, np.uint8, mode="r")
        height, width = self.sizes[index].tolist()
        start = int(self.offsets[index])
        return self._pixels[start : start + height * width * 3].reshape(height, width, 3)

    def __getstate__(self) -> tuple[Any, ...]:
        # A pickled memmap would be a copy of all the pixels.
        return self.path, self.offsets, self.sizes, self.failed

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.path, self.offsets, self.sizes, self.failed = state
        self._pixels = None

    @property
    def readable(self) -> np.ndarray:
        """Indices of the images that could be read, int64 (m,)."""
        return np.flatnonzero(self.sizes[:, 0])


def open_cache(
    annotations: Path,
    images: Path,
    entries: Entries,
    *,
    folder: Path,
    max_side: int = 512,
    progress: bool = True,
) -> ImageCache:
    """Open the decoded images of a set, decoding them first if they are not there or have changed.

    The files are `folder/<stem of annotations>-<max_side>-<key>.{bin,npz}`; the key stands for the
    annotation file, the images or shards (size and mtime) and `max_side`. When one of them has
    changed, files under a new name are made, and the old ones may be deleted.

    Args:
        annotations: The annotation file, which names the cache and dates it.
        images: Folder of images or tar shards, or one tar; see
            `rdlite.evaluate.dataset.ImageStore`.
        entries: The images.
        folder: Where the cache lives; made if missing.
        max_side: Larger images are stored reduced to this longest side, in pixels.
        progress: Whether to show a progress bar.

    Raises:
        DataError: No image can be read, or the disk has too little space or refuses the files.
    """
    store = ImageStore(images)
    key = _key(annotations, store, entries, max_side)
    pixels = folder / f"{annotations.stem}-{max_side}-{key[:8]}.bin"
    cache = _open(pixels, key)
    if cache is None:
        _check_space(folder, entries, max_side)
        cache = _build(pixels, key, store, entries, max_side=max_side, progress=progress)
    if not len(cache.readable):
        name, reason = next(iter(cache.failed.items()))
        raise DataError(
            f"none of the {len(entries)} images can be read; the first, {name}: {reason}"
        )
    return cache


def _key(annotations: Path, store: ImageStore, entries: Entries, max_side: int) -> str:
    """Digest of everything that decides the pixels, as far as file sizes and times can tell."""
    stat = annotations.stat()
    names = [name for name, _ in entries]
    # The time of a folder says nothing about the files in it, what they say of the images does.
    dated = [stat.st_size, stat.st_mtime_ns] if annotations.is_file() else [list(entries)]
    content = [
        _VERSION,
        max_side,
        [str(annotations.resolve()), *dated],
        names,
        store.fingerprint(names),
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _open(pixels: Path, key: str) -> ImageCache | None:
    try:
        with np.load(pixels.with_suffix(".npz")) as stored:
            if str(stored["key"]) != key or int(stored["bytes"]) != pixels.stat().st_size:
                return None
            failed = json.loads(str(stored["failed"]))
            return ImageCache(pixels, stored["offsets"], stored["sizes"], failed)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None  # absent or damaged: decode again


def _check_space(folder: Path, entries: Entries, max_side: int) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"the cache folder {folder} cannot be made ({error.strerror}); give another one"
        ) from error
    needed = sum(3 * w * h for w, h in (_reduced(size, max_side) for _, size in entries if size))
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(
            f"the decoded images need {needed / 1e9:.1f} GB and {folder} has {free / 1e9:.1f} GB; "
            "give another --cache folder, or a smaller --resolution"
        )


def _reduced(size: tuple[int, int], max_side: int) -> tuple[int, int]:
    """Width and height with the longest side at most `max_side`, same shape."""
    ratio = min(1.0, max_side / max(size))
    return max(round(size[0] * ratio), 1), max(round(size[1] * ratio), 1)


def _build(
    pixels: Path, key: str, store: ImageStore, entries: Entries, *, max_side: int, progress: bool
) -> ImageCache:
    cache = ImageCache(
        pixels, np.zeros(len(entries), np.int64), np.zeros((len(entries), 2), np.int64), {}
    )
    partial = pixels.with_name(f"{pixels.name}.{os.getpid()}.part")
    bar = tqdm(
        entries, desc=f"decode {pixels.stem}", unit="img", disable=None if progress else True
    )
    try:
        with partial.open("wb") as out:
            for position, (name, size) in enumerate(bar):
                cache.offsets[position] = out.tell()
                try:
                    image = _decode(store.read(name), size, max_side)
                except ImageError as error:
                    cache.failed[name] = str(error)
                    continue
                cache.sizes[position] = image.shape[:2]
                out.write(image.data)
            total = out.tell()
        os.replace(partial, pixels)
    except OSError as error:
        raise DataError(
            f"the decoded images cannot be written to {pixels.parent} ({error.strerror}); "
            "give another cache folder"
        ) from error
    finally:
        partial.unlink(missing_ok=True)
    _write_index(cache, key, total)
    return cache


def _decode(data: bytes, wanted: tuple[int, int] | None, max_side: int) -> np.ndarray:
    image = load(data)
    size = (image.shape[1], image.shape[0])
    if wanted:
        check_size(size, wanted, data)
    wide, high = _reduced(size, max_side)
    return image if (wide, high) == size else resize(image, (high, wide))


def _write_index(cache: ImageCache, key: str, total: int) -> None:
    """Write the index after the pixels: only an index that fits them makes them valid."""
    index = cache.path.with_suffix(".npz")
    partial = index.with_name(f"{index.stem}.{os.getpid()}.npz")
    try:
        np.savez(
            partial,
            key=np.array(key),
            bytes=np.array(total),
            failed=np.array(json.dumps(cache.failed)),
            offsets=cache.offsets,
            sizes=cache.sizes,
        )
        os.replace(partial, index)
    finally:
        partial.unlink(missing_ok=True)
