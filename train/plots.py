"""Pictures of a run: training curves and precision against recall."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from rdlite.evaluate import EvalResult

TERMS = ("arm_loc", "arm_cls", "odm_loc", "odm_cls")


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
    for term in ("loss", *TERMS):
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
    losses.set(ylabel="loss per positive anchor", ylim=(0, None))
    losses.legend()
    rates.plot(steps, [row["lr"] for row in history], color="black")
    rates.set(xlabel="step", ylabel="learning rate", ylim=(0, None))
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _smooth(values: Sequence[float], decay: float = 0.9) -> list[float]:
    smoothed: list[float] = []
    for value in values:
        smoothed.append(value if not smoothed else decay * smoothed[-1] + (1 - decay) * value)
    return smoothed


def plot_precision_recall(results: Mapping[str, EvalResult], path: Path) -> None:
    """Draw precision against recall at IoU 0.5, the mean over classes, one line a set.

    Args:
        results: Evaluations by the name of the set.
        path: PNG to write.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 5), layout="constrained")
    for name, result in results.items():
        mean = np.nanmean(result.precision50, axis=0)
        axes.plot(np.linspace(0, 1, len(mean)), mean, label=f"{name}: AP50 {100 * result.ap50:.1f}")
    axes.set(
        xlabel="recall",
        ylabel="precision",
        title="IoU 0.5, mean over classes",
        xlim=(0, 1),
        ylim=(0, 1),
    )
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)
