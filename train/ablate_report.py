"""What an ablation found: a record a run, a table a row, a chart."""

from __future__ import annotations

import csv
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rdlite.storage.partial import write_whole

RECORD = "ablation.json"
TABLE, CHART = "table.md", "chart.png"
MEASURES = ("AP", "AP50", "AP75")
PAPER = {
    "a": (24.7, 150),
    "b": (25.7, 140),
    "c": (26.8, 130),
    "d": (27.2, 131),
    "e": (27.4, 131),
    "f": (27.5, 131),
    "g": (27.7, 131),
    "h": (28.2, 131),
    "i": (28.5, 131),
    "j": (28.6, 131),
    "k": (28.7, 131),
    "l": (29.0, 131),
    "m": (29.3, 131),
    "n": (29.2, 131),
    "o": (29.6, 131),
    "basic": (26.8, 130),
    "advanced": (29.6, 131),
}
"""AP and ms/pic in Table 3 (arXiv 1911.08855): COCO, 250 epochs, Caffe2 on a Core i7-6700."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """How one run ended; the numbers are None where there is nothing to measure.

    Attributes:
        row: Name of the recipe.
        seed: Its seed.
        settings: All fields of TrainConfig.
        failed: Why there are no numbers; None when the run finished.
        ap: COCO AP in [0, 1]; `ap50` and `ap75` at one IoU.
        parameters: Of the network.
    """

    row: str
    seed: int
    settings: dict[str, Any]
    failed: str | None = None
    ap: float | None = None
    ap50: float | None = None
    ap75: float | None = None
    parameters: int | None = None

    def summary(self) -> str:
        """The record in a line."""
        if self.failed is not None:
            return f"failed: {self.failed}"
        ap, ap50, ap75 = (
            _number(None if share is None else 100 * share)
            for share in (self.ap, self.ap50, self.ap75)
        )
        return f"AP {ap}, AP50 {ap50}, AP75 {ap75}"


def _number(value: float | None, spread: float | None = None) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" if spread is None else f"{value:.1f} ± {spread:.1f}"


def write_record(folder: Path, record: Record) -> None:
    """Write a run's record into its folder, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    content = json.dumps(asdict(record), indent=1)
    write_whole(folder / RECORD, content.encode(), overwrite=True)


def read_record(folder: Path) -> Record | None:
    """The record in a run's folder; None when there is none yet."""
    path = folder / RECORD
    return Record(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


def summarise(records: Iterable[Record], times: Mapping[str, float]) -> list[dict[str, Any]]:
    """One mapping a row, in the order in which rows first occur: what the table files hold.

    AP, AP50 and AP75 are means over the finished seeds in percent, `± ...` their sample standard
    deviations (None with one seed), `failed` the reasons.

    Args:
        records: Of all runs.
        times: Milliseconds per picture by row.
    """
    by_row: dict[str, list[Record]] = {}
    for record in records:
        by_row.setdefault(record.row, []).append(record)
    return [_summary(group, times.get(row)) for row, group in by_row.items()]


def _summary(records: Sequence[Record], ms: float | None) -> dict[str, Any]:
    finished = [record for record in records if record.failed is None]
    row = records[0].row
    summary: dict[str, Any] = {"row": row, "seeds": " ".join(str(r.seed) for r in finished)}
    for name in MEASURES:
        values = [getattr(record, name.lower()) for record in finished]
        shares = [100 * value for value in values if value is not None]
        summary[name] = statistics.mean(shares) if shares else None
        summary[f"± {name}"] = statistics.stdev(shares) if len(shares) > 1 else None
    summary["ms/pic"] = ms
    summary["parameters"] = finished[0].parameters if finished else None
    summary["paper AP"], summary["paper ms/pic"] = PAPER.get(row, (None, None))
    summary["failed"] = "; ".join(f"seed {r.seed}: {r.failed}" for r in records if r.failed)
    return summary


def write_report(
    records: Sequence[Record], times: Mapping[str, float], out: Path, *, waiting: Sequence[str]
) -> None:
    """Write `table.md`, `table.csv`, `table.json` and `chart.png`.

    Args:
        records: Of the runs so far, finished or failed.
        times: Milliseconds per picture by row.
        out: Folder to write into.
        waiting: Names of the runs still to come.
    """
    rows = summarise(records, times)
    (out / "table.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
    with open(out / "table.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    (out / TABLE).write_text(_markdown(rows, records[0].settings, waiting), encoding="utf-8")
    if any(row["AP"] is not None for row in rows):
        plot_chart(rows, out / CHART)


def _markdown(
    rows: Sequence[dict[str, Any]], settings: dict[str, Any], waiting: Sequence[str]
) -> str:
    budget = "epochs by the size of the data"
    if settings["minutes"] is not None:
        budget = f"{settings['minutes']:g} minutes"
    elif settings["epochs"]:
        budget = f"{settings['epochs']:g} epochs"
    measured = Path(settings["val"]).name if settings["val"] else "held-out images"
    lines = [
        f"Every row trained for {budget}, measured on {measured}; AP in percent, with several "
        "seeds mean ± sample standard deviation; ms/pic through onnxruntime on one thread, a whole "
        "call. The paper's numbers are for COCO, 250 epochs and another CPU.",
        "",
        "| row | seeds | AP | AP50 | AP75 | ms/pic | parameters | paper AP | paper ms/pic |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [
            row["row"],
            row["seeds"] or "-",
            *(_number(row[name], row[f"± {name}"]) for name in MEASURES),
            _number(row["ms/pic"]),
            "-" if row["parameters"] is None else f"{row['parameters'] / 1e6:.2f} M",
            _number(row["paper AP"]),
            "-" if row["paper ms/pic"] is None else str(row["paper ms/pic"]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", *(f"Failed: {row['row']}, {row['failed']}\n" for row in rows if row["failed"])]
    if waiting:
        lines.append(f"Still to run: {', '.join(waiting)}")
    return "\n".join(lines).rstrip() + "\n"


def plot_chart(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw AP against ms/pic as a PNG: the rows, and beside them what the paper has for them.

    Args:
        rows: From `summarise`; those without AP are left out.
        path: PNG to write.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    ours = [(r["row"], r["ms/pic"], r["AP"], r["± AP"]) for r in rows]
    paper = [(r["row"], r["paper ms/pic"], r["paper AP"], None) for r in rows]
    panels = [("This ablation", ours), ("Paper: COCO, 250 epochs, Core i7-6700", paper)]
    shown = [(title, known) for title, points in panels if (known := _known(points))]
    figure, axes = plt.subplots(
        1, len(shown), squeeze=False, figsize=(5.5 * len(shown), 5), layout="constrained"
    )
    for axis, (title, points) in zip(axes[0], shown, strict=True):
        _points(axis, points, title)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _known(points: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """(name, ms, AP, spread) of the rows that have an AP, by rising AP."""
    return sorted((p for p in points if p[2] is not None), key=lambda point: point[2])


def _points(axes: Any, points: Sequence[tuple[Any, ...]], title: str) -> None:
    for number, (name, ms, ap, spread) in enumerate(points):
        axes.errorbar(ms, ap, yerr=spread, fmt="o", capsize=3, color="C0")
        left = number % 2  # neighbours in AP would cover each other's names
        axes.annotate(
            name,
            (ms, ap),
            xytext=(-7 if left else 7, 0),
            textcoords="offset points",
            ha="right" if left else "left",
            va="center",
        )
    axes.set(xlabel="ms/pic, one thread", ylabel="AP, percent", title=title)
    axes.margins(0.15)
    axes.grid(alpha=0.3)
