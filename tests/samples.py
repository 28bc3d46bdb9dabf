"""Detections to write to files, made by hand and at random, and a disk that is full."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator
from typing import Any

import numpy as np
from hypothesis import strategies as st

from rdlite.results import Detections
from rdlite.storage.journal import jsonl_header

NAMES = ("person", "traffic light")
CATEGORY_IDS = (1, 10)
SIZE = (100, 80)
BOXES = np.array([[10, 20, 30.5, 60], [0, 0, 5, 5]], np.float32)


def found(count: int = 2) -> Detections:
    """A traffic light and a person in a picture of 100x80, or only the first of them."""
    return Detections(
        xyxy=BOXES[:count],
        confidence=np.array([0.75, 0.5], np.float32)[:count],
        class_id=np.array([1, 0])[:count],
        names=NAMES,
        category_ids=CATEGORY_IDS,
        image_size=SIZE,
    )


def header(**changes: Any) -> dict[str, Any]:
    """The header of files of such detections."""
    values: dict[str, Any] = {"names": NAMES, "category_ids": CATEGORY_IDS}
    return jsonl_header("ab" * 32, **(values | changes))


@st.composite
def detections(draw: st.DrawFn) -> Detections:
    """Boxes anywhere in a picture of any size up to 20,000 pixels."""
    width, height = draw(st.tuples(*[st.integers(1, 20_000)] * 2))
    count = draw(st.integers(0, 5))
    share = st.lists(st.floats(0, 1, width=32), min_size=4 * count, max_size=4 * count)
    corners = np.sort(np.array(draw(share), np.float32).reshape(count, 2, 2), axis=1)
    scores = st.lists(st.floats(2**-10, 1, width=32), min_size=count, max_size=count)
    classes = st.lists(st.integers(0, 1), min_size=count, max_size=count)
    return Detections(
        xyxy=(corners * np.float32([width, height])).reshape(count, 4),
        confidence=np.array(draw(scores), np.float32),
        class_id=np.array(draw(classes), np.int64),
        names=NAMES,
        category_ids=CATEGORY_IDS,
        image_size=(width, height),
        dropped_nonfinite=draw(st.integers(0, 2)),
    )


@contextlib.contextmanager
def small_disk(size: int) -> Iterator[None]:
    """No file can grow beyond `size` bytes, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
