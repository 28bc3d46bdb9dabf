"""The page of `python -m train errors`."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

import numpy as np

from rdlite.evaluate import EvalResult
from rdlite.evaluate.draw import draw_confusion, draw_precision_recall
from rdlite.evaluate.result import percent
from rdlite.report.page import asset, make_page
from train.errors_draw import bands, draw_kinds, draw_pair, draw_scores, draw_sizes
from train.errors_measure import (
    BANDS,
    FATES,
    SHOWN,
    Measured,
    confusions,
    costs_of_images,
    fates_by_size,
    gains,
)
from train.errors_tide import BACKGROUND_IOU, ERRORS, KINDS, RIGHT, RIGHT_IOU

MEANINGS = {
    "class": f"on an object (IoU ≥ {RIGHT_IOU}), as another class",
    "place": f"of the right class, IoU {BACKGROUND_IOU} to {RIGHT_IOU}",
    "both": "near an object of another class, and too far off",
    "duplicate": "on an object that a better box has found",
    "background": f"on nothing (IoU ≤ {BACKGROUND_IOU})",
    "missed": "objects without any box that one of the above could become",
}
"""What the kinds of errors are."""

_PAIRS = 12
_SMALL = 32
_STYLE = """
.page > * + * { margin-top: 20px; }
section > * + *, .card > * + * { margin-top: 14px; }
.charts, .pairs { display: flex; flex-wrap: wrap; gap: 16px; align-items: flex-start; }
.charts img { width: calc(50% - 8px); min-width: min(100%, 480px); }
.charts img, details img { max-width: 100%; background: #fff; border-radius: 6px; }
table { width: auto; }
.wide { overflow-x: auto; }
figure { margin: 0; max-width: 100%; }
figure img { max-width: 100%; display: block; }
figcaption { overflow-wrap: anywhere; max-width: 740px; }
strong { color: var(--warn); }
"""


def errors_page(weights: str, measured: Sequence[Measured], worst: int) -> str:
    """Return the page as HTML.

    Args:
        weights: What was measured, as it was given.
        measured: On each set.
        worst: How many images of each set to show.
    """
    title = f"Errors of {weights}"
    body = [f'<main class="page"><h1>{escape(title)}</h1>']
    body += [_section(one, worst) for one in measured]
    body.append(f'<section class="card"><h2>In short</h2>{_paragraphs(conclusion(measured))}')
    body.append("</section></main>")
    return make_page(title, "\n".join(body), styles=[asset("page.css"), _STYLE])


def conclusion(measured: Sequence[Measured]) -> str:
    """Name the kinds of errors that cost most, a paragraph a set."""
    return "\n".join(_conclusion(one) for one in measured)


def _conclusion(one: Measured) -> str:
    costs = sorted(gains(one.errors).items(), key=lambda cost: -cost[1])
    largest = ", ".join(f"{name} ({100 * gain:+.1f})" for name, gain in costs[:3])
    counts = fates_by_size(one)
    low = np.array(BANDS) < _SMALL
    parts = [
        f"{one.name}: AP50 {percent(one.result.ap50)}. "
        f"The largest kinds of errors, with the points of AP50 that mending them would give: "
        f"{largest}."
    ]
    if all(row.sum() for row in (counts[low], counts)):
        share, whole = (rows[:, 0].sum() / rows.sum() for rows in (counts[low], counts))
        part = counts[low].sum() / counts.sum()
        parts.append(
            f"With a score of {SHOWN} or more, {whole:.0%} of the objects are found; of those "
            f"under {_SMALL} pixels in the network's input, {part:.0%} of all, {share:.0%} are."
        )
    lost = counts.sum(axis=0)
    names = sorted(zip(lost[1:].tolist(), FATES[1:], strict=True), reverse=True)
    parts.append(f"Of the others, {', '.join(f'{count} {name}' for count, name in names)}.")
    if pairs := confusions(one.errors)[:3]:
        worst = ", ".join(f"{pair.true} as {pair.taken_for}" for pair in pairs)
        parts.append(f"Dearest confusions: {worst}.")
    return " ".join(parts)


def _section(one: Measured, worst: int) -> str:
    result = one.result
    numbers = (
        f"AP {percent(result.ap)}, AP50 {percent(result.ap50)}, AP75 {percent(result.ap75)}; "
        f"small {percent(result.ap_small)}, medium {percent(result.ap_medium)}, "
        f"large {percent(result.ap_large)}; AR {percent(result.ar)}; {result.images} images, "
        f"{len(one.errors.objects.label)} objects"
    )
    notes = [result.protocol(), *result.warnings(), *result.notes()]
    charts = [
        _image(draw_kinds(one), "What each kind of error costs; the table below has the numbers"),
        _image(draw_sizes(one), "What becomes of objects by size; the table below has the numbers"),
        _image(draw_scores(one), "How many boxes of each kind there are by score"),
        _image(_drawn(draw_precision_recall, one), "Precision against recall at IoU 0.5"),
    ]
    parts = [
        f"<h2>{escape(one.name)}</h2><p>{escape(numbers)}</p>",
        *(f'<p class="small muted">{escape(note)}</p>' for note in notes),
        f'<div class="charts">{"".join(charts)}</div>',
        _kinds(one),
        _sizes(one),
        _confusions(one),
        _classes(one),
        _matrix(one),
        _worst(one, worst),
    ]
    return f'<section class="card">{"".join(parts)}</section>'


def _kinds(one: Measured) -> str:
    errors, rows = one.errors, []
    for kind, gain in zip(ERRORS, gains(errors).values(), strict=True):
        boxes, missed = errors.of_kind(kind)
        shown = f"{(boxes & (errors.boxes.score >= SHOWN)).sum()}" if boxes.any() else ""
        name = KINDS[kind]
        count = f"{boxes.sum() + missed.sum()}"
        rows.append((name, MEANINGS[name], count, shown, f"{100 * gain:.1f}"))
    none = np.zeros(len(errors.objects.label), bool)
    gain = errors.mean_gain(errors.boxes.kind != RIGHT, none)
    wrong = (errors.boxes.kind != RIGHT) & (errors.boxes.score >= SHOWN)
    count = f"{(errors.boxes.kind != RIGHT).sum()}"
    rows.append(
        ("all boxes", "all wrong boxes mended", count, f"{wrong.sum()}", f"{100 * gain:.1f}")
    )
    head = ("kind", "what it is", "number", f"score ≥ {SHOWN}", "AP50 would gain")
    return _table("Kinds of errors", head, rows, text=2)


def _sizes(one: Measured) -> str:
    rows = []
    for band, counts in zip(bands(), fates_by_size(one).tolist(), strict=True):
        total = sum(counts)
        shares = (f"{count} ({count / total:.0%})" if total else "0" for count in counts)
        rows.append((band, f"{total}", *shares))
    head = (f"side in {one.side[0]} x {one.side[1]}", "objects", *FATES)
    return _table("Objects by size in the network's input", head, rows, text=1)


def _confusions(one: Measured) -> str:
    rows = [
        (pair.true, pair.taken_for, f"{pair.boxes}", f"{pair.shown}", f"{100 * pair.gain:.2f}")
        for pair in confusions(one.errors)[:_PAIRS]
    ]
    head = ("annotated as", "found as", "boxes", f"score ≥ {SHOWN}", "AP50 would gain")
    return _table("Confusions that cost most", head, rows, text=2) if rows else ""


def _classes(one: Measured) -> str:
    errors, result = one.errors, one.result
    columns = [100 * errors.gain(*errors.of_kind(kind)) for kind in ERRORS]
    wrong = errors.boxes.kind != RIGHT
    shown = errors.boxes.score >= SHOWN
    rows = []
    for k, (name, own) in enumerate(result.per_class.items()):
        mine = (errors.boxes.label == k) & shown
        conf = "-" if np.isnan(own.conf) else f"{own.conf:.2f}"
        costs = [max(0.0, column[k]) for column in columns]
        marked = [f"*{cost:.1f}" if cost == max(costs) > 0 else f"{cost:.1f}" for cost in costs]
        rows.append(
            (
                *(name, f"{own.objects}", percent(own.ap), percent(own.ap50), percent(own.f1)),
                *(conf, f"{(mine & ~wrong).sum()}", f"{(mine & wrong).sum()}", *marked),
            )
        )
    order = sorted(range(len(rows)), key=lambda k: np.nan_to_num(errors.ap50[k], nan=2.0))
    head = ("class", "objects", "AP", "AP50", "best F1", "at", f"right ≥ {SHOWN}", "wrong")
    caption = "Classes, the worst first; at the right what the class's AP50 would gain"
    names = tuple(KINDS[kind] for kind in ERRORS)
    return _table(caption, head + names, [rows[k] for k in order], text=1)


def _matrix(one: Measured) -> str:
    picture = _image(_drawn(draw_confusion, one), "Confusion matrix")
    return f"<details><summary>Confusion matrix</summary>{picture}</details>"


def _worst(one: Measured, count: int) -> str:
    costs = costs_of_images(one.errors)
    figures = []
    for k in np.argsort(-costs, kind="stable")[:count].tolist():
        text = f"{one.images[k]['file_name']}: {100 * costs[k]:.2f} points of AP50"
        picture = _image(draw_pair(one, k), f"Truth and finds of {one.images[k]['file_name']}")
        figures.append(f'<figure>{picture}<figcaption class="small">{escape(text)}')
    about = (
        "The images whose errors cost most. Left what is annotated: green found, pale green found "
        f"with a score below {SHOWN}, yellow found in a wrong place, pink as a wrong class, red "
        f"missed, grey not counted. Right what is found with a score of {SHOWN} or more: green "
        "right, the others with the kind of error behind the score."
    )
    drawn = "".join(f"{one}</figcaption></figure>" for one in figures)
    return f'<h2>Worst images</h2><p>{escape(about)}</p><div class="pairs">{drawn}</div>'


def _drawn(draw: Callable[[dict[str, EvalResult], Path], None], one: Measured) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "drawn.png")
        draw({one.name: one.result}, path)
        return path.read_bytes()


def _image(content: bytes, about: str) -> str:
    kind = "png" if content.startswith(b"\x89PNG") else "jpeg"
    data = base64.b64encode(content).decode("ascii")
    return f'<img alt="{escape(about)}" src="data:image/{kind};base64,{data}">'


def _table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]], *, text: int) -> str:
    """A table whose first `text` columns are text; a cell that begins with "*" is emphasised."""
    marks = ["" if k < text else ' class="number"' for k in range(len(head))]
    names = "".join(
        f"<th{mark}>{escape(name)}</th>" for mark, name in zip(marks, head, strict=True)
    )
    lines = []
    for row in rows:
        cells = (_cell(mark, cell) for mark, cell in zip(marks, row, strict=True))
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return (
        f'<h2>{escape(caption)}</h2><div class="wide"><table><thead><tr>{names}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _cell(mark: str, text: str) -> str:
    if mark and text.startswith("*"):
        return f"<td{mark}><strong>{escape(text[1:])}</strong></td>"
    return f"<td{mark}>{escape(text)}</td>"


def _paragraphs(text: str) -> str:
    return "".join(f"<p>{escape(line)}</p>" for line in text.splitlines())
