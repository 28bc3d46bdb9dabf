"""Pictures of evaluations: precision against recall, F1 by confidence, and confusion of classes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rdlite.evaluate.matches import CONFIDENCES
from rdlite.evaluate.result import BACKGROUND, CONFUSION_CONF, EvalResult, at_confidence, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DPI = 110
_COUNTED = 30
"""Most classes with the numbers written into the cells of their confusion matrix."""

_NAMED = 120
"""Most classes with their names beside the matrix; more would only be a grey stripe."""

Results = Mapping[str, EvalResult]
"""Evaluations by the name that the pictures call them."""


def import_figure() -> type[Figure]:
    """Return matplotlib's figure, which draws without a window and without global state.

    Raises:
        ImportError: It is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("pictures need matplotlib; run `pip install matplotlib`") from error
    return Figure


def draw_precision_recall(results: Results, path: Path) -> None:
    """Draw precision against recall at IoU 0.5, the mean over classes; of one result each class.

    Args:
        results: Drawn into one picture.
        path: PNG to write.
    """
    figure, axes = _axes("recall", "precision", "Precision and recall at IoU 0.5")
    recalls = np.linspace(0, 1, 101)
    for name, result in results.items():
        label = f"AP50 {percent(result.ap50)}  {name}"
        _curves(axes, recalls, result.precision50, label, each=len(results) == 1)
    _save(figure, axes, path)


def draw_f1(results: Results, path: Path) -> None:
    """Draw F1 at IoU 0.5 against the least confidence, the mean over classes, its peak marked.

    Args:
        results: Drawn into one picture; where there is one, so is each class.
        path: PNG to write.
    """
    figure, axes = _axes("confidence (--conf)", "F1", "F1 at IoU 0.5")
    for name, result in results.items():
        best, conf = result.best_f1()
        label = f"{at_confidence(best, conf)}  {name}"
        known = CONFIDENCES >= (result.options["conf"] or 0)
        curves = result.f1()[:, known]
        color = _curves(axes, CONFIDENCES[known], curves, label, each=len(results) == 1)
        axes.plot([conf], [best], marker="o", color=color)
    _save(figure, axes, path)


def draw_confusion(results: Results, path: Path) -> None:
    """Draw confusion matrices side by side, the shade the share of a row, the number the count.

    Args:
        results: One matrix each.
        path: PNG to write.
    """
    classes = max(len(result.per_class) for result in results.values())
    side = 2.5 + max(2.5, min(0.42 * classes, 14.0))
    figure = import_figure()(figsize=(side * len(results), side), layout="constrained")
    panels = figure.subplots(1, len(results), squeeze=False)[0]
    for axes, (name, result) in zip(panels, results.items(), strict=True):
        _matrix(axes, result)
        title = f"{name}: IoU ≥ 0.5, score ≥ {CONFUSION_CONF}"
        axes.set_title(title, fontsize=10, parse_math=False)
    figure.savefig(path, dpi=_DPI, bbox_inches="tight")  # images with titles are cut else


def _axes(x: str, y: str, title: str) -> tuple[Figure, Axes]:
    figure = import_figure()(figsize=(6.5, 5), layout="constrained")
    axes = figure.subplots()
    axes.set(xlabel=x, ylabel=y, title=title, xlim=(0, 1), ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    return figure, axes


def _curves(
    axes: Axes,
    x: npt.NDArray[np.float64],
    curves: npt.NDArray[np.float64],
    label: str,
    *,
    each: bool,
) -> Any:
    """Draw the mean of the measured curves, and `each` of them; return the colour."""
    measured = curves[~np.isnan(curves).any(axis=1)]
    if each:
        axes.plot(x, measured.T, color="grey", linewidth=0.7, alpha=0.5)
        label += " (grey: its classes)"
    mean = measured.mean(axis=0) if len(measured) else np.full(len(x), np.nan)
    (line,) = axes.plot(x, mean, linewidth=1.8, label=label)
    return line.get_color()


def _save(figure: Figure, axes: Axes, path: Path) -> None:
    for text in axes.legend(fontsize=9).get_texts():
        text.set_parse_math(False)  # a "$" in a name is no formula
    figure.savefig(path, dpi=_DPI)


def _matrix(axes: Axes, result: EvalResult) -> None:
    counts, names = result.confusion, [*result.per_class, BACKGROUND]
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="found as", ylabel="annotated as")
    if len(names) > _NAMED:
        return
    size = 9 if len(names) <= _COUNTED else 6
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=size)
    axes.set_yticks(range(len(names)), names, fontsize=size)
    for text in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        text.set_parse_math(False)
    if len(names) > _COUNTED:
        return
    for row, column in zip(*np.nonzero(counts), strict=True):
        color = "white" if shares[row, column] > 0.5 else "black"
        number = str(counts[row, column])
        axes.text(column, row, number, ha="center", va="center", fontsize=7, color=color)
