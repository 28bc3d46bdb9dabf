"""Pictures of a run: its training curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

OTHER_COLUMNS = ("step", "loss", "lr", "resolution", "img_s", "loader_wait")
"""Of a logged row; the others are loss terms."""


def plot_curves(history: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the four loss terms, their sum, and the learning rate.

    Args:
        history: One mapping per logged step: `step`, `loss`, the terms, `lr` and `resolution`.
        path: PNG to write.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    steps = [row["step"] for row in history]
    figure, (losses, rates) = plt.subplots(
        2, 1, sharex=True, figsize=(9, 7), height_ratios=(3, 1), layout="constrained"
    )
    names = [name for name in history[-1] if name not in OTHER_COLUMNS]
    terms = ["loss", *(name for name in names if not name.startswith("log_var_"))]
    for term in terms:
        values = [row[term] for row in history]
        (line,) = losses.plot(steps, values, alpha=0.25, linewidth=0.8)
        losses.plot(steps, _smooth(values), color=line.get_color(), label=term)
    for before, row in pairwise(history):
        if row["resolution"] != before["resolution"]:
            losses.axvline(row["step"], color="grey", linestyle=":")
            losses.annotate(
                f" {row['resolution']} px",
                (row["step"], 1),
                xycoords=("data", "axes fraction"),
                va="top",
            )
    low = min(row[name] for row in history for name in terms)  # balanced terms may be negative
    losses.set(ylabel="loss per positive anchor", ylim=(min(0, low), None))
    losses.legend()
    rates.plot(steps, [row["lr"] for row in history], color="black")
    rates.set(xlabel="step", ylabel="learning rate", ylim=(0, None))
    figure.savefig(path, dpi=110)
    plt.close(figure)


def plot_accuracy(history: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the loss and the accuracy of a classification run.

    Args:
        history: One mapping per logged step with `step`, `loss` and `top1` of a batch, or with
            `step`, `val_top1` and `val_top5` of the validation images.
        path: PNG to write.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (losses, accuracy) = plt.subplots(
        2, 1, sharex=True, figsize=(9, 7), layout="constrained"
    )
    for axes, name in ((losses, "loss"), (accuracy, "top1")):
        rows = [row for row in history if name in row]
        steps, values = [row["step"] for row in rows], [row[name] for row in rows]
        (line,) = axes.plot(steps, values, alpha=0.25, linewidth=0.8)
        axes.plot(steps, _smooth(values), color=line.get_color(), label=f"training {name}")
    measured = [row for row in history if "val_top1" in row]
    for name in ("val_top1", "val_top5") if measured else ():
        accuracy.plot(
            [row["step"] for row in measured],
            [row[name] for row in measured],
            marker=".",
            label=f"validation {name.removeprefix('val_')}",
        )
    losses.set(ylabel="cross-entropy", ylim=(0, None))
    accuracy.set(xlabel="step", ylabel="share right", ylim=(0, 1))
    for axes in (losses, accuracy):
        axes.legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _smooth(values: Sequence[float], decay: float = 0.9) -> list[float]:
    smoothed: list[float] = []
    for value in values:
        smoothed.append(value if not smoothed else decay * smoothed[-1] + (1 - decay) * value)
    return smoothed
