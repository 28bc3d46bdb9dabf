"""The measurements as pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from benchmarks.table.accuracy import measured_on
from benchmarks.table.rows import original

OURS, OTHERS = "#d55e00", "#0072b2"
"""Vermilion and blue of Okabe and Ito's colours, which all kinds of colour vision tell apart."""

MARK: Final = 8
"""Size of a marker, points."""

PLACES: Final = (
    ((0, 7), "center", "bottom"),
    ((0, -7), "center", "top"),
    ((7, 0), "left", "center"),
    ((-7, 0), "right", "center"),
    ((0, 18), "center", "bottom"),
    ((0, -18), "center", "top"),
)
"""Where a label can be: offset from its marker in points, and how it is aligned there."""

Records = Sequence[Mapping[str, Any]]
"""The rows of results.json."""


def draw_accuracy(records: Records, path: Path) -> None:
    """Draw AP against milliseconds, a panel for each set of images and classes.

    Args:
        records: The rows; those without AP are left out.
        path: The .png file to write; none where no row has AP.
    """
    pyplot = _pyplot()
    known, titles = [record for record in records if record["accuracy"]], measured_on(records)
    if not titles:
        return
    size = 0.5 + 3.7 * len(titles), 4.6
    figure, panels = pyplot.subplots(
        1, len(titles), figsize=size, sharey=True, squeeze=False, layout="constrained"
    )
    for axes, title in zip(panels[0], titles, strict=True):
        axes.set_title(title, loc="left", fontsize=10)
        _mark(axes, [record for record in known if title in record["accuracy"]], title)
        _log_axis(axes, (1, 2, 5, 10, 20, 50, 100, 200))
        axes.set_xlim(0.6 * min(r["ms"] for r in known), 1.7 * max(r["ms"] for r in known))
    best = max(one["ap"] for record in known for one in record["accuracy"].values())
    panels[0][0].set_ylim(0, 112 * best)
    panels[0][0].set_ylabel("AP, %")
    figure.legend(handles=_legend(pyplot), loc="outside upper left", ncols=2, frameon=False)
    figure.supxlabel("milliseconds of the network alone, one thread (log scale)", fontsize=10)
    figure.draw_without_rendering()  # labels need to know where the panels are
    for axes, title in zip(panels[0], titles, strict=True):
        _label(axes, [record for record in known if title in record["accuracy"]], title)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def draw_times(records: Records, path: Path) -> None:
    """Draw the time ratio of every row; filled markers have weights, hollow ones are random.

    Args:
        records: The rows.
        path: The .png file to write.
    """
    pyplot = _pyplot()
    figure, axes = pyplot.subplots(figsize=(9, 1.5 + 0.23 * len(records)), layout="constrained")
    records = sorted(records, key=lambda r: -r["ratio"])
    for place, record in enumerate(records):
        style = _style(record)
        if record["weights"] != "trained":
            style["markerfacecolor"] = "white"
        axes.plot(record["ratio"], place, **style)
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
    _log_axis(axes, (0.25, 0.5, 1, 2, 4, 8, 16, 32))
    axes.set_xlim(0.7 * records[-1]["ratio"], 1.7 * records[0]["ratio"])
    axes.axvline(1, color="0.6", linewidth=0.8, zorder=0)
    axes.set_xlabel("time of the network, SSDLite320-MobileNetV3 = 1 (one thread, log scale)")
    axes.set_title("Hollow: random weights; squares: this project", loc="left", fontsize=10)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _mark(axes: Any, records: Records, title: str) -> None:
    """The markers, and a line between a network in fp32 and the same in int8."""
    for record in records:
        axes.plot(record["ms"], 100 * record["accuracy"][title]["ap"], **_style(record))
    for one, other in pairwise(sorted(records, key=lambda r: r["key"])):
        if original(other["key"]) == one["key"]:
            ends = [(r["ms"], 100 * r["accuracy"][title]["ap"]) for r in (one, other)]
            axes.plot(*zip(*ends, strict=True), color=OURS, linewidth=1, alpha=0.5, zorder=1)


def _label(axes: Any, records: Records, title: str) -> None:
    """Write names and AP beside the markers, each at the first place that is free."""
    from matplotlib.transforms import Bbox

    points = [(r["ms"], 100 * r["accuracy"][title]["ap"]) for r in records]
    half = MARK / 2 * axes.figure.dpi / 72
    taken = [
        Bbox.from_bounds(x - half, y - half, 2 * half, 2 * half)
        for x, y in axes.transData.transform(points)
    ]
    for record, point in sorted(zip(records, points, strict=True), key=lambda pair: -pair[1][1]):
        name = record["name"].removeprefix("RefineDetLite")
        for offset, across, along in PLACES:
            text = axes.annotate(
                f"{name}: {point[1]:.1f}",
                point,
                xytext=offset,
                textcoords="offset points",
                horizontalalignment=across,
                verticalalignment=along,
                fontsize=8,
                color=_style(record)["color"],
            )
            box = text.get_window_extent()
            inside = axes.bbox.containsx(box.x0) and axes.bbox.containsx(box.x1)
            if inside and not box.count_overlaps(taken):
                break
            text.remove()
        else:
            axes.add_artist(text)
        taken.append(box)


def _legend(pyplot: Any) -> list[Any]:
    who = {
        True: "this project, by width: far fewer images, real labels mostly of VOC's classes",
        False: "others: 118 thousand images of COCO",
    }
    return [pyplot.Line2D([], [], label=who[ours], **_style({"ours": ours})) for ours in who]


def _style(record: Mapping[str, Any]) -> dict[str, Any]:
    colour, marker = (OURS, "s") if record["ours"] else (OTHERS, "o")
    return {"color": colour, "marker": marker, "markersize": MARK, "linestyle": ""}


def _log_axis(axes: Any, ticks: Sequence[float]) -> None:
    axes.set_xscale("log")
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot
