"""Files of detections for reports, and what a page carries."""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from rdlite.results import Detections
from rdlite.sinks import JsonlSink
from rdlite.storage.journal import jsonl_header
from tests.media import clip

NAMES = ("person", "bicycle", "car", "traffic light", "dog")


def objects(
    *rows: tuple[float, float, float, float, float, int],
    size: tuple[int, int] = (96, 64),
    names: tuple[str, ...] = NAMES,
) -> Detections:
    """Detections from rows of x1, y1, x2, y2, score and class id."""
    table = np.array(rows, np.float64).reshape(-1, 6)
    return Detections(
        table[:, :4],
        table[:, 4],
        table[:, 5],
        names,
        tuple(range(1, len(names) + 1)),
        size,
    )


def some(random: np.random.Generator, most: int = 6, **options: Any) -> Detections:
    """Up to so many objects anywhere in 96x64 pixels."""
    count = int(random.integers(0, most + 1))
    corners = np.sort(random.uniform(0, 1, (count, 2, 2)), axis=1) * (96, 64)
    scores = np.sort(random.uniform(0.25, 1, count))[::-1]
    classes = random.integers(0, 3, count)  # of the others there are none
    rows = np.column_stack([corners.reshape(count, 4), scores, classes])
    return objects(*map(tuple, rows.tolist()), **options)


def write(
    path: Path,
    records: Iterable[tuple[Mapping[str, Any], Detections]],
    *,
    source: Path | None = None,
    names: tuple[str, ...] = NAMES,
) -> Path:
    """Write a file of JSON lines; each record is where it is from, and what was found."""
    header = jsonl_header(
        "ab" * 32,
        names=names,
        category_ids=range(1, len(names) + 1),
        source=source,
        options={"conf": 0.25, "stride": 1},
    )
    with JsonlSink(path, header) as sink:
        for where, found in records:
            sink.write(found, **where)
    return path


def of_images(path: Path, count: int, **options: Any) -> Path:
    """Write results of so many images, day/00000.jpg or night/00001.jpg."""
    random = np.random.default_rng(7)
    places = ({"image": f"{('day', 'night')[n % 2]}/{n:05d}.jpg"} for n in range(count))
    return write(path, ((where, some(random, **options)) for where in places))


def of_video(folder: Path, frames: int, **options: Any) -> Path:
    """Write a clip of numbered frames at 25 a second, and results of it."""
    video = clip(folder / "clip.mp4", frames, **options)
    random = np.random.default_rng(8)
    records = (({"frame": n, "pts": n, "time": n / 25}, some(random)) for n in range(frames))
    return write(folder / "clip.jsonl", records, source=video)


def meta(page: Path) -> dict[str, Any]:
    """What the scripts of a page are told."""
    text = page.read_text()
    return json.loads(re.search(r'id="meta">(.*?)</script>', text).group(1))


def block(page: Path, name: str) -> bytes:
    """The bytes of a block of a page."""
    text = page.read_text()
    return base64.b64decode(re.search(rf'id="{name}">(.*?)</script>', text).group(1))


def pictures(page: Path) -> dict[int, npt.NDArray[np.uint8]]:
    """The pictures in a page, by frame."""
    decoded = {}
    for place, frame in enumerate(meta(page)["pictures"]):
        data = np.frombuffer(block(page, f"picture-{place}"), np.uint8)
        decoded[frame] = cv2.imdecode(data, cv2.IMREAD_COLOR)
    return decoded


def arrays(page: Path) -> dict[str, npt.NDArray[Any]]:
    """The arrays in a page, without the names."""
    return unpack(meta(page)["sections"], block(page, "data"))


def unpack(sections: list[dict[str, Any]], packed: bytes) -> dict[str, npt.NDArray[Any]]:
    """What `rdlite.report.pack.pack` packed, without the names."""
    data, at, values = zlib.decompress(packed), 0, {}
    for section in sections:
        name, kind, length = section.values()
        if kind != "text":
            dtype = np.dtype(f"<{kind}")
            planes = np.frombuffer(data, np.uint8, length * dtype.itemsize, at)
            by_number = np.ascontiguousarray(planes.reshape(dtype.itemsize, length).T)
            values[name] = by_number.view(dtype)[:, 0]
            at += length * dtype.itemsize
    return values
