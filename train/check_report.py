"""The report of `python -m train check`: Markdown that also reads well in a terminal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rdlite.evaluate.dataset import DataError
from train.anchor_search import measure_recall, true_boxes
from train.formats import format_of, source_of
from train.survey import FEW, Found, Survey
from train.weights import match_classes, read_weights

SIDE = 320
"""Side of the network's input in pixels."""

_BANDS = (0, 8, 16, 24, 32, 64, 128, 256, SIDE + 1)
_EXAMPLES, _FAULTS = 3, 5
_BAR = 30


def render(
    data: str,
    train: Survey,
    val: str | None,
    held: Survey | None,
    *,
    init: str | None,
    decoded: bool,
    picture: str,
) -> str:
    """Write the report.

    Args:
        data: The training set, as it was given.
        train: What was found in it.
        val: The validation set, as it was given.
        held: What was found in it.
        init: Weights whose classes are compared with the data's.
        decoded: Whether all images were decoded.
        picture: File name of the contact sheet.

    Raises:
        ModelError: `init` cannot be read.
    """
    parts = [f"# Check of {data}", _verdict(train, held), _facts(data, "train", train, decoded)]
    parts.append(_found(train))
    if val and held:
        parts += [f"## Validation: {val}", _facts(val, "val", held, decoded), _found(held)]
    parts += ["## Classes", _classes(train, held, init)]
    parts += [f"## Size of the objects in the {SIDE} x {SIDE} input", _sizes(train)]
    parts += [
        "## Recall of the anchors",
        "Share of the objects that have an anchor of IoU 0.5 or more; the others are matched to "
        "their best anchor and are harder to learn.",
        f"```\n{measure_recall(true_boxes(train.coco)).table()}\n```",
    ]
    parts += ["## Samples", f"![Samples as training sees them]({picture})"]
    return "\n\n".join(part for part in parts if part) + "\n"


def render_failures(failures: Sequence[tuple[str, DataError]]) -> str:
    """Write the report on sets that cannot be used.

    Args:
        failures: Each set, as it was given, and what is wrong with it.
    """
    parts = ["# Check", "**Cannot be used:** this must be mended before training."]
    for data, error in failures:
        parts.append(f"## {data}")
        if not error.faults:
            parts.append(str(error))
        for kind, cases in error.faults.items():
            more = [f"and {len(cases) - _FAULTS} more"] if len(cases) > _FAULTS else []
            lines = [f"* {case}" for case in (*cases[:_FAULTS], *more)]
            parts.append("\n".join([f"**{kind}: {len(cases)}**", "", *lines]))
    return "\n\n".join(parts) + "\n"


def _verdict(train: Survey, held: Survey | None) -> str:
    problems = [
        f"{what}{' (validation)' if one is held else ''}: {len(names)}"
        for one in (train, held)
        if one
        for what, names in one.problems.items()
        if names
    ]
    if problems:
        return f"**Not sound:** {'; '.join(problems)}."
    return "**Sound:** all of the data can be used."


def _facts(data: str, default_split: str, found: Survey, decoded: bool) -> str:
    coco = found.coco
    scores = np.concatenate([i.targets.score[~i.targets.ignore] for i in coco.images])
    split = source_of(data, default_split=default_split)[1]
    rows = [
        ("format", format_of(data) + (f", split {split}" if split else "")),
        ("images", f"{len(coco.images)} listed, {len(found.readable)} usable"),
        ("looked at", "every pixel" if decoded else "headers only (--decode looks at all pixels)"),
        ("objects", f"{found.objects().sum()}"),
        ("ignore regions", f'{found.ignored().sum()} (crowd, ignore, VOC\'s "difficult")'),
        ("classes", f"{len(coco.names)}, {np.count_nonzero(found.objects())} of them with objects"),
    ]
    if (scores < 1).any():
        rows.append(("objects with a score below 1", f"{(scores < 1).sum()}"))
    return table(("", ""), rows)


def _found(found: Survey) -> str:
    rows = _rows(found.problems, "problem") + _rows(found.notes, "note")
    return table(("", "found", "number", "first"), rows) if rows else "Nothing to remark on."


def _rows(found: Found, kind: str) -> list[tuple[str, ...]]:
    rows = []
    for what, names in found.items():
        if names:
            shown = "; ".join(dict.fromkeys(names[:_EXAMPLES]))
            more = "; ..." if len(names) > _EXAMPLES else ""
            rows.append((kind, what, str(len(names)), shown + more))
    return rows


def _classes(train: Survey, held: Survey | None, init: str | None) -> str:
    names = train.coco.names
    starts, text = _starts(names, init)
    columns = [names, train.objects(), train.ignored()]
    head = ["class", "objects", "ignored"]
    if held:
        counts = dict(zip(held.coco.names, held.objects().tolist(), strict=True))
        columns.append([counts.get(name, 0) for name in names])
        head.append("validation")
    if init:
        columns.append(starts)
        head.append(f"starts from ({init})")
    columns.append([f"fewer than {FEW}" if count < FEW else "" for count in train.objects()])
    rows = [tuple(map(str, row)) for row in zip(*columns, strict=True)]
    order = np.argsort(-train.objects(), kind="stable")
    return "\n\n".join(
        part for part in (text, table((*head, ""), [rows[k] for k in order])) if part
    )


def _starts(names: Sequence[str], init: str | None) -> tuple[list[str], str]:
    """Say for each class which class of the starting weights it begins from."""
    if not init:
        return [""] * len(names), ""
    known = read_weights(init).names
    if known is None:
        return ["?"] * len(names), f"{init} does not name its classes."
    rows = match_classes(names, known)
    starts = ["new" if row is None else known[row] for row in rows]
    count = sum(row is not None for row in rows)
    return starts, f"{count} of {len(names)} classes are known to `--init {init}` by name."


def _sizes(found: Survey) -> str:
    images = found.coco.images
    boxes = np.concatenate(
        [i.targets.boxes[~i.targets.ignore] / np.array([*i.size] * 2) for i in images]
    )
    wide, high = ((boxes[:, 2:] - boxes[:, :2]) * SIDE).T
    side = np.sqrt(wide * high)
    counts = np.histogram(side, _BANDS)[0]
    rows = [
        (f"{low}-{top - 1}", str(count), f"{share:.1%}", "█" * round(_BAR * share))
        for low, top, count, share in zip(
            _BANDS, _BANDS[1:], counts.tolist(), counts / len(side), strict=False
        )
    ]
    per_image = len(side) / len(images)
    text = (
        f"Side, the square root of the area: median {np.median(side):.0f} pixels. "
        f"Width / height: median {np.median(wide / high):.2f}. Objects an image: {per_image:.1f}."
    )
    return text + "\n\n" + table(("side, pixels", "objects", "share", ""), rows)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out a Markdown table with columns of even width."""
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in (head, *rows)]
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    cells.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in cells
    )
