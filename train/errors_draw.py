"""Pictures of what a detector gets wrong: charts, and images with truth and finds side by side."""

from __future__ import annotations

import io
from itertools import pairwise
from typing import Any

import numpy as np

from rdlite.evaluate.draw import import_figure
from rdlite.image import load, resize
from train.contact_sheet import draw_label
from train.errors_measure import BANDS, FATES, SHOWN, Measured, fates, fates_by_size, gains
from train.errors_tide import ERRORS, KINDS, RIGHT

Color = tuple[int, int, int]
"""Red, green, blue."""

COLORS: dict[str, Color] = {
    "right": (46, 160, 67),
    "class": (214, 80, 200),
    "place": (232, 190, 20),
    "both": (140, 90, 235),
    "duplicate": (40, 165, 235),
    "background": (255, 125, 40),
    "missed": (225, 45, 50),
}
"""Of boxes and objects, by `KINDS`."""

FATE_COLORS: tuple[Color, ...] = (
    COLORS["right"],
    (150, 210, 120),
    COLORS["place"],
    COLORS["class"],
    COLORS["missed"],
)
_IGNORED = (190, 190, 190)
_LINE, _GAP, _SIDE = 2, 8, 320
_PAPER = (250, 250, 250)
_DPI = 100


def draw_kinds(one: Measured) -> bytes:
    """Draw what AP50 would gain if all errors of a kind were mended; PNG."""
    costs = gains(one.errors)
    figure = import_figure()(figsize=(6.5, 4), layout="constrained")
    axes = figure.subplots()
    values = [100 * cost for cost in costs.values()]
    bars = axes.barh(list(costs), values, color=[_unit(COLORS[name]) for name in costs])
    axes.bar_label(bars, fmt="%.1f", padding=3)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set(xlabel="points of AP50 gained if mended", title="What each kind of error costs")
    return _png(figure)


def draw_sizes(one: Measured) -> bytes:
    """Draw what share of the objects of each size met which fate; PNG."""
    counts = fates_by_size(one)
    totals = counts.sum(axis=1)
    shares = 100 * counts / np.maximum(totals, 1)[:, np.newaxis]
    labels = [
        f"{band}\n{total} objects" for band, total in zip(bands(), totals.tolist(), strict=True)
    ]
    figure = import_figure()(figsize=(7.5, 4.6), layout="constrained")
    axes = figure.subplots()
    base = np.zeros(len(BANDS))
    for name, color, column in zip(FATES, FATE_COLORS, shares.T, strict=True):
        bars = axes.bar(labels, column, bottom=base, color=_unit(color), label=name)
        texts = [f"{share:.0f}" if share >= 4 else "" for share in column]
        axes.bar_label(bars, labels=texts, label_type="center", fontsize=8)
        base += column
    axes.set(xlabel="side in the network's input, pixels", ylabel="% of the objects",
             title="What becomes of objects, by size")  # fmt: skip
    axes.tick_params(axis="x", labelsize=8)
    figure.legend(loc="outside right upper", fontsize=8)
    return _png(figure)


def bands() -> list[str]:
    """Names of the bands of size."""
    ends = [f"{low}-{high - 1}" for low, high in pairwise(BANDS)]
    return [*ends, f"from {BANDS[-1]}"]


def draw_scores(one: Measured) -> bytes:
    """Draw how many boxes of each kind there are by score; PNG."""
    boxes = one.errors.boxes
    kinds = [kind for kind in (RIGHT, *ERRORS) if (boxes.kind == kind).any()]
    figure = import_figure()(figsize=(7.5, 4.6), layout="constrained")
    panels = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    scores = [boxes.score[boxes.kind == kind] for kind in kinds]
    edges = np.linspace(0, 1, 41)
    colors = [_unit(COLORS[KINDS[kind]]) for kind in kinds]
    heights = [np.histogram(values, edges)[0] for values in scores]
    total = np.maximum(sum(heights), 1) if heights else np.ones(40)
    for axes, share in ((panels[0], False), (panels[1], True)):
        base = np.zeros(40)
        for kind, color, height in zip(kinds, colors, heights, strict=True):
            value = 100 * height / total if share else height
            axes.bar(edges[:-1], value, 1 / 40, base, align="edge", color=color, label=KINDS[kind])
            base += value
        axes.axvline(SHOWN, color="black", linestyle=":", linewidth=1)
    panels[0].set(
        ylabel="boxes (lowest cut off)", title="Scores of right and wrong boxes", xlim=(0, 1)
    )
    panels[0].set_ylim(0, _high(np.sum(heights, axis=0) if heights else np.zeros(40), edges))
    panels[1].set(xlabel="score", ylabel="%", ylim=(0, 100))
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    return _png(figure)


def _high(heights: np.ndarray, edges: np.ndarray) -> float:
    """The height of the axis: the many boxes of the lowest scores may leave it."""
    kept = heights[edges[:-1] >= 0.1]
    return max(1.0, 1.15 * float(kept.max(initial=1)))


def draw_pair(one: Measured, index: int) -> bytes:
    """Draw an image twice: left what there is, right what was found with a score of `SHOWN`; JPEG.

    Args:
        one: The set.
        index: Of the image.
    """
    from PIL import Image

    entry = one.images[index]
    picture = load(one.store.read(entry["file_name"]))
    scale = _SIDE / max(picture.shape[:2])
    high, wide = (max(1, round(side * scale)) for side in picture.shape[:2])
    small = Image.fromarray(np.ascontiguousarray(resize(picture, (high, wide))[..., ::-1]))
    pair = Image.new("RGB", (2 * wide + _GAP, high), _PAPER)
    pair.paste(_draw(small, _truth(one, index, scale)), (0, 0))
    pair.paste(_draw(small, _finds(one, index, scale)), (wide + _GAP, 0))
    buffer = io.BytesIO()
    pair.save(buffer, format="JPEG", quality=88)
    return buffer.getvalue()


Marks = list[tuple[np.ndarray, str, Color]]
"""x1 y1 x2 y2 in pixels of the picture, text and colour of each box."""


def _truth(one: Measured, index: int, scale: float) -> Marks:
    objects, fate = one.errors.objects, fates(one.errors)
    regions = one.ignored[1][one.ignored[0] == index]
    marks: Marks = [(_corners(xywh) * scale, "", _IGNORED) for xywh in regions]
    for k in np.flatnonzero(objects.image == index):
        name = one.errors.names[objects.label[k]]
        marks.append((_corners(objects.xywh[k]) * scale, name, FATE_COLORS[fate[k]]))
    return marks


def _finds(one: Measured, index: int, scale: float) -> Marks:
    boxes = one.errors.boxes
    marks: Marks = []
    for k in np.flatnonzero((boxes.image == index) & (boxes.score >= SHOWN)):
        kind = KINDS[boxes.kind[k]]
        text = f"{one.errors.names[boxes.label[k]]} {boxes.score[k]:.2f}"
        text = text if kind == "right" else f"{text} {kind}"
        marks.append((_corners(boxes.xywh[k]) * scale, text, COLORS[kind]))
    return marks


def _corners(xywh: np.ndarray) -> np.ndarray:
    return np.concatenate([xywh[:2], xywh[:2] + xywh[2:]])


def _draw(picture: Any, marks: Marks) -> Any:
    from PIL import ImageDraw

    picture = picture.copy()
    draw = ImageDraw.Draw(picture)
    limit = np.array([*picture.size, *picture.size]) - 1
    placed = [
        (tuple(corners.round().astype(int).clip(0, limit).tolist()), text, color)
        for corners, text, color in marks
    ]
    placed.sort(key=lambda mark: (mark[0][0] - mark[0][2]) * (mark[0][3] - mark[0][1]))
    for box, _, color in placed:
        draw.rectangle(box, outline=color, width=_LINE)
    taken: dict[Any, Color] = {}
    for box, text, color in reversed(placed):  # a small object's label has fewer places to go
        if text:
            draw_label(draw, box, text, color, picture.size, taken)
    return picture


def _unit(color: Color) -> tuple[float, ...]:
    return tuple(part / 255 for part in color)


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI)
    return buffer.getvalue()
