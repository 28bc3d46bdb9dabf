"""A picture of training samples with their boxes, to see what training sees."""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rdlite.annotate import class_color
from train.augment import AugmentConfig, Targets
from train.cache import open_cache
from train.coco import CocoSet
from train.data import DetectionDataset

COLUMNS = 6
_GAP, _CAPTION, _HEADER, _LINE = 10, 20, 58, 2
_PAPER, _INK, _FAINT = (250, 250, 250), (20, 20, 20), (105, 105, 105)
_GREY, _PALE, _WHITE = (90, 90, 90), (215, 215, 215), (255, 255, 255)
_HATCH = 12
"""Pixels from one line of a hatched region to the next."""

Box = tuple[int, int, int, int]
"""x1 y1 x2 y2 in pixels."""

Color = tuple[int, int, int]
"""Red, green, blue."""


class Sheet(NamedTuple):
    """What was drawn.

    Attributes:
        shown: File names of the samples, in the order of the sheet.
        failed: Reason for each chosen image that turned out to be damaged, by file name.
    """

    shown: list[str]
    failed: dict[str, str]


def write_contact_sheet(
    coco: CocoSet,
    images: str | Path,
    path: Path,
    *,
    readable: Sequence[int],
    samples: int,
    seed: int,
    resolution: int = 320,
) -> Sheet:
    """Draw augmented samples, made by the code that makes them in training.

    Args:
        coco: The annotations.
        images: Folder of the images or of tar shards, or one tar.
        path: PNG to write.
        readable: Positions in `coco.images` to choose from.
        samples: How many samples to show.
        seed: Decides which images and how they are augmented; the same seed, the same picture.
        resolution: Side of a sample in pixels.

    Raises:
        DataError: None of the chosen images can be decoded.
    """
    chosen = choose_images(coco, readable, samples, np.random.default_rng(seed))
    part = replace(coco, images=tuple(coco.images[position] for position in chosen))
    entries = [(image.file_name, image.size) for image in part.images]
    with tempfile.TemporaryDirectory() as folder:
        cache = open_cache(coco.path, Path(images), entries, folder=Path(folder), progress=False)
        dataset = DetectionDataset(part, cache, seed=seed, config=AugmentConfig())
        drawn = [
            draw_sample(*dataset.sample(i, epoch=0, resolution=resolution), coco.names)
            for i in range(len(dataset))
        ]
        shown = [part.images[position].file_name for position in cache.readable]
        failed = dict(cache.failed)
    title = f"{coco.path.name}: {len(drawn)} of {len(coco.images)} images, augmented (seed {seed})"
    _save(_compose(drawn, shown, title), path)
    return Sheet(shown, failed)


def choose_images(
    coco: CocoSet, readable: Sequence[int], count: int, rng: np.random.Generator
) -> list[int]:
    """Choose positions in `coco.images` so that the classes are shown about equally often.

    One after the other, an image is drawn among those with an object of the class shown least so
    far; images without objects come last.
    """
    order = rng.permutation(np.asarray(readable, np.int64)).tolist()
    holding: list[list[int]] = [[] for _ in coco.names]
    for position in order:
        targets = coco.images[position].targets
        for label in np.unique(targets.labels[~targets.ignore]).tolist():
            holding[label - 1].append(position)
    shown = np.zeros(len(coco.names))
    tie = rng.permutation(len(coco.names))
    chosen: dict[int, None] = {}  # a set that keeps its order
    while len(chosen) < min(count, len(order)):
        rest = {k for k, positions in enumerate(holding) if not chosen.keys() >= set(positions)}
        if not rest:
            break
        label = min(rest, key=lambda k: (shown[k], tie[k]))
        position = next(p for p in holding[label] if p not in chosen)
        chosen[position] = None
        targets = coco.images[position].targets
        shown[np.unique(targets.labels[~targets.ignore]) - 1] += 1
    empty = [position for position in order if position not in chosen]
    return [*chosen, *empty[: max(count - len(chosen), 0)]]


def draw_sample(image: np.ndarray, targets: Targets, names: Sequence[str]) -> np.ndarray:
    """Draw boxes and class names on a sample; ignore regions are hatched in grey.

    Args:
        image: uint8 (R, R, 3) BGR.
        targets: Its annotations, boxes in [0, 1]. A score below 1 is written beside the name.
        names: Class names; label k is names[k - 1].

    Returns:
        uint8 (R, R, 3) RGB.
    """
    from PIL import Image, ImageDraw

    picture = Image.fromarray(np.ascontiguousarray(image[..., ::-1]))
    side = image.shape[0]
    boxes = (targets.boxes * side).round().astype(int).clip(0, side - 1)
    # Large objects first, so that small ones lie on top of them.
    order = np.argsort(-(targets.boxes[:, 2:] - targets.boxes[:, :2]).prod(axis=1), kind="stable")
    for i in (i for i in order if targets.ignore[i]):
        _hatch(picture, tuple(boxes[i].tolist()))
    draw = ImageDraw.Draw(picture)
    for i in (i for i in order if not targets.ignore[i]):
        x1, y1, x2, y2 = boxes[i].tolist()
        draw.rectangle((x1, y1, x2, y2), outline=_color(targets.labels[i]), width=_LINE)
    taken: dict[Box, Color] = {}
    # Objects before ignore regions; a small object's label has fewer places to go.
    for i in sorted(reversed(order), key=lambda i: targets.ignore[i]):
        name, box = names[targets.labels[i] - 1], tuple(boxes[i].tolist())
        if targets.ignore[i]:
            draw_label(draw, box, f"ignore {name}", _PALE, (side, side), taken)
        else:
            text = name if targets.score[i] >= 1 else f"{name} {targets.score[i]:.2f}"
            draw_label(draw, box, text, _color(targets.labels[i]), (side, side), taken)
    return np.asarray(picture)


def _color(label: int) -> Color:
    blue, green, red = class_color(int(label) - 1)
    return red, green, blue


def _hatch(picture: Any, box: Box) -> None:
    """Hatch the region so that what lies under it can still be seen."""
    from PIL import Image, ImageDraw

    x1, y1, x2, y2 = box
    if x2 <= x1 or y2 <= y1:
        return
    region = picture.crop(box)
    lines = region.copy()
    draw = ImageDraw.Draw(lines)
    wide, high = region.size
    for start in range(-high, wide, _HATCH):
        draw.line((start, high, start + high, 0), fill=_PALE, width=1)
        draw.line((start + 1, high, start + high + 1, 0), fill=_GREY, width=1)
    region = Image.blend(region, lines, 0.6)
    ImageDraw.Draw(region).rectangle((0, 0, wide - 1, high - 1), outline=_PALE, width=1)
    picture.paste(region, (x1, y1))


def draw_label(
    draw: Any, box: Box, text: str, color: Color, size: tuple[int, int], taken: dict[Box, Color]
) -> None:
    """Write a name at the first free place: above, inside or below the box.

    Where none is free, only an object whose colour no other label explains gets one, over what is
    there.

    Args:
        draw: An ImageDraw of the picture.
        box: The object's.
        text: The name.
        color: What it is written on.
        size: Width and height of the picture.
        taken: Where labels are already, and their colours; this one is added.
    """
    font, text = _font(11), drawable(text)
    wide, high = round(draw.textlength(text, font=font)) + 4, 14
    x1, y1, x2, y2 = box
    left, right = (max(0, min(x, size[0] - wide)) for x in (x1, x2 - wide + 1))
    places = [
        (left, y1 - high + 1),
        (left, y1),
        (right, y1),
        (left, y2),
        (right, y1 - high + 1),
        (left, y2 - high),
        (right, y2 - high),
    ]
    inside = [(x, y) for x, y in places if 0 <= y <= size[1] - high] or [(left, 0)]
    free = [
        (x, y) for x, y in inside if not any(_meet((x, y, x + wide, y + high), t) for t in taken)
    ]
    if not free and (color == _PALE or color in taken.values()):
        return
    x, y = (free or inside)[0]
    taken[x, y, x + wide, y + high] = color
    draw.rectangle((x, y, x + wide - 1, y + high - 1), fill=color)
    red, green, blue = color
    # Brightness as ITU-R BT.601 weighs it.
    ink = _INK if 0.299 * red + 0.587 * green + 0.114 * blue > 128 else _WHITE
    draw.text((x + 2, y + 7), text, fill=ink, font=font, anchor="lm")


def _meet(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


@functools.cache
def _font(size: int, *, bold: bool = False) -> Any:
    """The font that comes with matplotlib; OpenCV's own has ASCII letters only."""
    from PIL import ImageFont

    return ImageFont.truetype(_font_file(bold=bold), size)


def _font_file(*, bold: bool) -> str:
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return str(Path(matplotlib.get_data_path(), "fonts", "ttf", name))


@functools.cache
def _letters() -> frozenset[int]:
    """The code points that the font can draw, bold or not."""
    from matplotlib.ft2font import FT2Font

    plain, bold = (FT2Font(_font_file(bold=bold)).get_charmap() for bold in (False, True))
    return frozenset(plain) & frozenset(bold)


def drawable(text: str) -> str:
    """Escape what the font has no shape for, which it would draw as an empty box."""
    return "".join(
        letter if ord(letter) in _letters() else letter.encode("unicode_escape").decode("ascii")
        for letter in text
    )


def _compose(drawn: Sequence[np.ndarray], captions: Sequence[str], title: str) -> Any:
    from PIL import Image, ImageDraw

    side = drawn[0].shape[0]
    columns = min(COLUMNS, len(drawn))
    rows = -(-len(drawn) // columns)
    wide = columns * (side + _GAP) + _GAP
    sheet = Image.new("RGB", (wide, _HEADER + rows * (side + _CAPTION + _GAP)), _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((_GAP, 18), _fit(draw, title, _font(16, bold=True), wide - 2 * _GAP), _INK,
              font=_font(16, bold=True), anchor="lm")  # fmt: skip
    legend = (
        "coloured box: an object, with its score where that is below 1    "
        "hatched: ignore region, neither object nor background"
    )
    draw.text((_GAP, 40), _fit(draw, legend, _font(12), wide - 2 * _GAP), _FAINT,
              font=_font(12), anchor="lm")  # fmt: skip
    for number, (tile, caption) in enumerate(zip(drawn, captions, strict=True)):
        row, column = divmod(number, columns)
        x, y = _GAP + column * (side + _GAP), _HEADER + row * (side + _CAPTION + _GAP)
        sheet.paste(Image.fromarray(tile), (x, y))
        draw.text((x, y + side + _CAPTION // 2), _fit(draw, caption, _font(11), side), _FAINT,
                  font=_font(11), anchor="lm")  # fmt: skip
    return sheet


def _fit(draw: Any, text: str, font: Any, width: int) -> str:
    """Shorten a text from its beginning until it fits."""
    text = short = drawable(text)
    while draw.textlength(short, font=font) > width:
        text = text[1:]
        short = f"…{text}"
    return short


def _save(sheet: Any, path: Path) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        sheet.save(partial, format="PNG")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
