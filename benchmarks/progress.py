"""AP of the weights so far against the samples they have seen, and extrapolated.

    python -m benchmarks.progress [--hours 48]

Reads `progress.json`, a row for each run that led to the embedded weights (their model card has
the settings), prints what two curves let expect and what they said in the past, and draws
`progress.png`. After a run, add a row: samples in all, AP in percent, and its minutes where it had
a core to itself.

Both curves are straight lines by least squares over log(samples), with 95 % prediction intervals:
`line`, AP itself; `error law`, log(100 - AP), a power law of the error as arXiv 1712.00409 finds
for the size of training sets.

How to read them: these are no points of one long run. Each run ended its own schedule, and what was
learned on the way went into the next: the teacher's colours were put right for the run that ended
at 588 thousand, images of rare classes were repeated in the next. So the past holds gains that more
of the same would not bring. Nor do the curves know where a detector levels off.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

RUNS: Final = Path(__file__).with_name("progress.json")
CHART: Final = RUNS.with_suffix(".png")
NOT_AP: Final = ("samples", "core_minutes")

LEAST: Final = 4
"""Runs from which on a curve is trusted to foretell: an interval needs more points than a line."""

CURVES: Final = ("line", "error law")
CONFIDENCE: Final = 0.95
TICKS: Final = [100_000 * 2**n for n in range(20)]


class Forecast(NamedTuple):
    """AP in percent, and the ends of its prediction interval."""

    expected: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.expected:.1f} ({self.low:.1f} to {self.high:.1f})"


class Progress(NamedTuple):
    """One number of all runs.

    Attributes:
        name: What it is, such as "AP50 on dev-voc".
        samples: Seen in all before it was measured, (n,), ascending.
        measured: It, in percent, (n,).
    """

    name: str
    samples: np.ndarray
    measured: np.ndarray

    def foretell(self, curve: str, samples: float, runs: int | None = None) -> Forecast:
        """Extrapolate.

        Args:
            curve: One of `CURVES`.
            samples: Where.
            runs: From the first so many runs; None takes all.

        Returns:
            The value of the curve and its prediction interval (Draper and Smith, *Applied
            Regression Analysis*, 1998, section 1.4).
        """
        from scipy import stats

        x, y = np.log(self.samples[:runs]), self.measured[:runs]
        if curve == "error law":
            y = np.log(100 - y)
        slope, start = np.polyfit(x, y, 1)
        free = len(x) - 2
        variance = np.sum((y - start - slope * x) ** 2) / free
        away = math.log(samples) - x.mean()
        spread = np.sqrt(variance * (1 + 1 / len(x) + away**2 / np.sum((x - x.mean()) ** 2)))
        reach = stats.t.ppf((1 + CONFIDENCE) / 2, free) * spread
        found = start + slope * math.log(samples) + np.array([0, -reach, reach])
        if curve == "error law":
            found = 100 - np.exp(found[[0, 2, 1]])
        return Forecast(*found.tolist())

    def table(self) -> str:
        """What was measured, and what the curves through earlier runs said of the last."""
        lines = [
            f"| samples | {self.name} | "
            + " | ".join(f"the last run, by {curve} until here" for curve in CURVES)
            + " |",
            "|---|---|---|---|",
        ]
        last = len(self.samples) - 1
        for run, (samples, measured) in enumerate(zip(self.samples, self.measured, strict=True)):
            said = [""] * len(CURVES)
            if LEAST <= run + 1 <= last:
                said = [str(self.foretell(c, self.samples[last], run + 1)) for c in CURVES]
            lines.append(f"| {samples / 1e3:.0f} thousand | {measured:.1f} | {' | '.join(said)} |")
        return "\n".join(lines)


def read_progress(content: Mapping[str, Any]) -> list[Progress]:
    """Return each number of progress.json by samples.

    Raises:
        ValueError: The rows do not have the same numbers, or a number is no percentage.
    """
    runs = sorted(content["runs"], key=lambda run: run["samples"])
    names = [name for name in runs[0] if name not in NOT_AP]
    for run in runs:
        known = {name: run[name] for name in run if name not in NOT_AP}
        if known.keys() != set(names) or not all(0 < value < 100 for value in known.values()):
            raise ValueError(
                f"the run of {run['samples']} samples has {known}; wanted a percentage between 0 "
                f"and 100 for each of {', '.join(names)}"
            )
    samples = np.array([run["samples"] for run in runs], float)
    return [Progress(name, samples, np.array([run[name] for run in runs])) for name in names]


def per_core_hour(content: Mapping[str, Any]) -> float:
    """Samples that an hour of one core brought, over the runs that had one to themselves.

    Raises:
        ValueError: There is no such run.
    """
    runs = sorted(content["runs"], key=lambda run: run["samples"])
    alone = [
        (run["samples"] - before["samples"], run["core_minutes"])
        for before, run in itertools.pairwise(runs)
        if "core_minutes" in run
    ]
    if not alone:
        raise ValueError("no run after the first has core_minutes; the rate is taken from those")
    samples, minutes = map(sum, zip(*alone, strict=True))
    return float(60 * samples / minutes)


def draw(progress: Sequence[Progress], ahead: float, path: Path) -> None:
    """Draw a panel for each number, with the curves up to `ahead` samples."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6 * len(progress), 3.8), layout="constrained")
    for axes, one in zip(np.atleast_1d(figure.subplots(1, len(progress))), progress, strict=True):
        places = np.geomspace(one.samples[0], ahead, 50)
        for curve, style, colour in zip(CURVES, ("--", ":"), ("#0072b2", "#009e73"), strict=True):
            found = np.array([one.foretell(curve, samples) for samples in places])
            axes.plot(places, found[:, 0], style, color=colour, label=curve)
            axes.fill_between(places, found[:, 1], found[:, 2], color=colour, alpha=0.12, lw=0)
        axes.plot(one.samples, one.measured, "o", color="#d55e00", label="measured")
        axes.set_xscale("log", base=2)
        ticks = [tick for tick in TICKS if one.samples[0] <= tick <= ahead]
        axes.set_xticks(ticks, [f"{tick / 1e3:.0f}k" for tick in ticks], fontsize=8)
        axes.set_ylim(0, None)
        axes.set_title(f"{one.name}, %", loc="left", fontsize=10)
        axes.set_xlabel("samples seen (log scale)")
        axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, title="bands: 95 % prediction", title_fontsize=8)
    figure.savefig(path, dpi=110)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.progress", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--hours", type=float, default=48, help="of one core, to look ahead (default: 48)"
    )
    hours = parser.parse_args(argv).hours
    if not 0 < hours < math.inf:
        parser.error(f"--hours must be a finite number above 0, got {hours}")
    content = json.loads(RUNS.read_text(encoding="utf-8"))
    try:
        progress, rate = read_progress(content), per_core_hour(content)
    except ValueError as error:
        parser.error(f"{RUNS}: {error}")
    ahead = progress[0].samples[-1] + hours * rate
    times = ahead / progress[0].samples[-1]
    for one in progress:
        said = ", ".join(f"{curve} {one.foretell(curve, ahead)}" for curve in CURVES)
        print(
            f"{one.table()}\n\n{hours:g} core-hours more, at {rate / 1e3:.0f} thousand samples "
            f"each, are {ahead / 1e3:.0f} thousand in all, {times:.1f} times as many as now: "
            f"{said}\n"
        )
    draw(progress, ahead, CHART)
    print(CHART)


if __name__ == "__main__":
    main()
