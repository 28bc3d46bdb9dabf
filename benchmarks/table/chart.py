"""The measurements as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

OURS, OTHERS = "#d1495b", "#30638e"


def draw(records: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw AP against the time ratio, and below it the time ratio of every row.

    Filled markers have weights, hollow ones are random.

    Args:
        records: The rows of results.json.
        path: The .png file to write.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    known = [r for r in records if r["ap"] is not None]
    height = 1.5 + 0.23 * len(records)
    figure, (above, below) = pyplot.subplots(
        2,
        figsize=(9, 4.5 + height),
        height_ratios=(4, height),
        sharex=True,
        layout="constrained",
    )
    _accuracy(above, known)
    _times(below, sorted(records, key=lambda r: -r["ratio"]))
    below.set_xscale("log")
    ticks = (0.25, 0.5, 1, 2, 4, 8, 16, 32)
    below.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    below.minorticks_off()
    ratios = [record["ratio"] for record in records]
    below.set_xlim(0.7 * min(ratios), 1.7 * max(ratios))
    for axes in (above, below):
        axes.axvline(1, color="0.6", linewidth=0.8, zorder=0)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _accuracy(axes: Any, records: Sequence[Mapping[str, Any]]) -> None:
    for record in records:
        x, y = record["ratio"], 100 * record["ap"]
        axes.plot(x, y, "o", color=_colour(record), markersize=8)
        below = any(0 < 100 * r["ap"] - y < 4 and 0.7 < r["ratio"] / x < 1.4 for r in records)
        axes.annotate(
            record["name"],
            (x, y),
            xytext=(0, -8 if below else 8),
            textcoords="offset points",
            horizontalalignment="center",
            verticalalignment="top" if below else "bottom",
            fontsize=9,
        )
    axes.set_ylim(0, 115 * max((r["ap"] for r in records), default=1))
    axes.set_ylabel("AP on the dev set, %")
    axes.set_title("Accuracy of the models with weights", loc="left")


def _times(axes: Any, records: Sequence[Mapping[str, Any]]) -> None:
    for place, record in enumerate(records):
        colour = _colour(record)
        filled = colour if record["weights"] == "trained" else "white"
        axes.plot(record["ratio"], place, "o", color=colour, markerfacecolor=filled, markersize=7)
        axes.annotate(
            f"{record['ms']:.1f} ms",
            (record["ratio"], place),
            xytext=(8, -3),
            textcoords="offset points",
            fontsize=8,
            color="0.35",
        )
    names = [f"{r['name']} · {r['backbone']} · {r['side']}" for r in records]
    axes.set_yticks(range(len(records)), names, fontsize=8)
    axes.set_xlabel("time of the network, SSDLite320-MobileNetV3 = 1 (one thread, log scale)")
    axes.set_title("Time; hollow: random weights; red: this project", loc="left")


def _colour(record: Mapping[str, Any]) -> str:
    return OURS if record["ours"] else OTHERS
