"""Compares the ratios of a run of the benchmarks with `baseline.json`: slower is an error.

    pytest benchmarks -m gate --benchmark-json results.json
    python -m benchmarks.gate results.json               # exit code 1: something failed
    python -m benchmarks.gate results.json --update      # these are the ratios from now on

Of several results the median of each ratio counts.

README.md beside this file says what a ratio is and how far it moves by itself.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

BASELINE: Final = Path(__file__).with_name("baseline.json")
WARN: Final = 1.15
FAIL: Final = 1.40
"""Times the baseline from which a ratio is worth a look, and from which it is an error."""


class GateError(Exception):
    """The files cannot be compared; the text says why and what to do."""


class Ratio(NamedTuple):
    """One benchmark of a run: its lowest decile in milliseconds, and that over its kernel's."""

    ratio: float
    ms: float
    kernel: str


@dataclass(frozen=True, slots=True)
class Run:
    """What a run of the benchmarks gave.

    Attributes:
        cpu: Kind of processor; ratios are only comparable within one.
        machine: The processor's own name, and versions of packages that do the work.
        ratios: By the names of the benchmarks.
    """

    cpu: str
    machine: dict[str, str]
    ratios: dict[str, Ratio]


@dataclass(frozen=True, slots=True)
class Kept:
    """The ratios of one kind of processor in the baseline, and what they were measured with."""

    machine: dict[str, str]
    ratios: dict[str, float]


Baseline = dict[str, Kept]


class Row(NamedTuple):
    """A benchmark, now and in the baseline; None where it is not."""

    name: str
    now: Ratio | None
    before: float | None
    verdict: str


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns 1 when a benchmark failed or is missing."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gate", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("results", type=Path, nargs="+", help="what --benchmark-json wrote")
    parser.add_argument("--baseline", type=Path, default=BASELINE, help="default: %(default)s")
    parser.add_argument("--update", action="store_true", help="write the baseline, compare nothing")
    parser.add_argument("--ratios", type=Path, help="write them as customSmallerIsBetter JSON")
    options = parser.parse_args(argv)
    try:
        run = merge([read_run(path) for path in options.results])
        baseline = read_baseline(options.baseline)
        if options.ratios:
            options.ratios.write_text(json.dumps(smaller_is_better(run), indent=1) + "\n")
        if options.update:
            gone = write_baseline(options.baseline, baseline, run)
            print(f"{options.baseline}: {len(run.ratios)} ratios of {run.cpu}")
            if gone:
                print(f"dropped, as the run has none: {', '.join(gone)}")
            return 0
        return compare(run, baseline)[1]
    except GateError as error:
        print(f"gate: error: {error}", file=sys.stderr)
        return 1


def compare(run: Run, baseline: Baseline) -> tuple[list[Row], int]:
    """Print a run beside the baseline; returns its rows and the exit code."""
    before, sentences = reference(run, baseline)
    rows = judge(run.ratios, before, known=run.cpu in baseline)
    print("\n".join(table(rows)))
    for sentence in sentences:
        print(f"gate: {sentence}")
    counts = Counter(row.verdict for row in rows)
    print("gate: " + ", ".join(f"{counts[verdict]} {verdict}" for verdict in sorted(counts)))
    return rows, int(counts["FAIL"] + counts["MISSING"] > 0)


def reference(run: Run, baseline: Baseline) -> tuple[dict[str, float], list[str]]:
    """Return the ratios to compare with, and sentences on where they come from.

    On a kind of processor that the baseline does not have, each benchmark is compared with the
    largest ratio of all kinds.

    Raises:
        GateError: The baseline is empty.
    """
    if not baseline:
        raise GateError("the baseline is empty; make it with --update")
    if run.cpu in baseline:
        own = baseline[run.cpu]
        return own.ratios, [f"compared with {run.cpu}", *_other_packages(run.machine, own.machine)]
    largest: dict[str, float] = {}
    for other in baseline.values():
        for name, ratio in other.ratios.items():
            largest[name] = max(ratio, largest.get(name, 0))
    return largest, [
        f"UNKNOWN CPU: the baseline has no {run.cpu} ({run.machine['cpu']}); compared with the "
        f"slowest of {' and '.join(baseline)}, and as kinds differ, what is slower is a warning "
        "only; --update adds this kind, and then it fails"
    ]


def _other_packages(now: Mapping[str, str], before: Mapping[str, str]) -> list[str]:
    changed = [
        f"{name} {before.get(name, 'absent')} to {now.get(name, 'absent')}"
        for name in sorted({*now, *before})
        if now.get(name) != before.get(name)
    ]
    return [f"not the machine of the baseline: {', '.join(changed)}"] if changed else []


def judge(
    now: Mapping[str, Ratio], before: Mapping[str, float], *, known: bool = True
) -> list[Row]:
    """Return a row for every benchmark of the run and of the baseline, in the run's order.

    Args:
        now: The run.
        before: What it is compared with.
        known: False where `before` is of other kinds of processor: then slower ones warn, however
            much slower, and only missing ones are errors.
    """
    names = [*now, *(name for name in before if name not in now)]
    fail = FAIL if known else float("inf")
    return [
        Row(n, now.get(n), before.get(n), _verdict(now.get(n), before.get(n), fail)) for n in names
    ]


def _verdict(now: Ratio | None, before: float | None, fail: float) -> str:
    if now is None:
        return "MISSING"
    if before is None:
        return "new"
    change = now.ratio / before
    if change >= fail:
        return "FAIL"
    if change >= WARN:
        return "WARN"
    return "faster" if change <= 1 / WARN else "ok"


def table(rows: Sequence[Row]) -> list[str]:
    """Return the lines of a table of what `judge` returned."""
    width = max(len(row.name) for row in rows)
    lines = [f"{'':{width}} {'ms':>8} {'now':>8} {'baseline':>8} {'change':>7}"]
    for name, now, before, verdict in rows:
        ms, ratio = (f"{now.ms:.3f}", f"{now.ratio:.3f}") if now else ("", "")
        change = f"{now.ratio / before - 1:+.0%}" if now and before else ""
        kept = "" if before is None else f"{before:.3f}"
        to = f" to {now.kernel}" if now else ""
        lines.append(f"{name:{width}} {ms:>8} {ratio:>8} {kept:>8} {change:>7} {verdict:7}{to}")
    return lines


def smaller_is_better(run: Run) -> list[dict[str, Any]]:
    """Return the ratios as github-action-benchmark's `customSmallerIsBetter` wants them."""
    return [
        {
            "name": f"{name} on {run.cpu}",  # runs of another kind are another series
            "unit": f"x {one.kernel}",
            "value": one.ratio,
            "extra": f"{one.ms:.3f} ms",
        }
        for name, one in run.ratios.items()
    ]


def write_baseline(path: Path, baseline: Baseline, run: Run) -> list[str]:
    """Write the baseline with a run in it; a benchmark that the run has not goes from all kinds.

    Returns:
        Names of the benchmarks that went.
    """
    mine = {name: round(one.ratio, 4) for name, one in run.ratios.items()}
    gone = sorted({name for one in baseline.values() for name in one.ratios} - mine.keys())
    kinds = {
        cpu: Kept(one.machine, {n: r for n, r in one.ratios.items() if n in mine})
        for cpu, one in baseline.items()
    } | {run.cpu: Kept(run.machine, mine)}
    content = {cpu: asdict(kinds[cpu]) for cpu in sorted(kinds)}
    path.write_text(json.dumps(content, indent=1) + "\n")
    return gone


def read_baseline(path: Path) -> Baseline:
    """Return the baseline; empty where there is no file yet.

    Raises:
        GateError: The file is not a baseline.
    """
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text())
        baseline = {cpu: Kept(**one) for cpu, one in content.items()}
        for one in baseline.values():
            _check(one.ratios)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise GateError(f"{path}: is not a baseline ({error}); make it with --update") from None
    return baseline


def read_run(path: Path) -> Run:
    """Read what pytest-benchmark wrote; benchmarks that are not marked `gate` are left out.

    Raises:
        GateError: It is not such a file, or has no benchmark of the gate.
    """
    try:
        content = json.loads(path.read_text())
        marked = [one for one in content["benchmarks"] if one["extra_info"].get("gate")]
        ratios = {
            one["name"]: Ratio(*(one["extra_info"][key] for key in Ratio._fields)) for one in marked
        }
        _check({name: one.ratio for name, one in ratios.items()})
        info = content["machine_info"]
        machine = {"cpu": info["cpu"].get("brand_raw", "unnamed"), **info["packages"]}
        cpu = cpu_kind(info)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise GateError(
            f"{path}: is not a result of these benchmarks ({error!r}); "
            "make it with pytest benchmarks -m gate --benchmark-json FILE"
        ) from None
    if not ratios:
        raise GateError(f"{path}: has no benchmark of the gate; run pytest with -m gate")
    return Run(cpu, machine, ratios)


def merge(runs: Sequence[Run]) -> Run:
    """Return one run with the median of every ratio; of an even number the larger middle one.

    Raises:
        GateError: They are not of the same machine and benchmarks.
    """
    first, *others = runs
    for other in others:
        same = (other.cpu, other.machine) == (first.cpu, first.machine)
        if not same or other.ratios.keys() != first.ratios.keys():
            raise GateError("the results are of different machines, packages or benchmarks")
    middle = len(runs) // 2
    ratios = {name: sorted(run.ratios[name] for run in runs)[middle] for name in first.ratios}
    return Run(first.cpu, first.machine, ratios)


def cpu_kind(machine_info: Mapping[str, Any]) -> str:
    """Return maker, family and model of an x86 processor, whose name says too little.

    Elsewhere, where there is no family, it is the name.

    Args:
        machine_info: pytest-benchmark's; what it does not know is left out.
    """
    cpu = machine_info["cpu"]
    if {"vendor_id_raw", "family", "model"} <= cpu.keys():
        return f"{cpu['vendor_id_raw']} family {cpu['family']} model {cpu['model']}"
    return str(cpu.get("brand_raw") or machine_info["machine"])


def _check(ratios: Mapping[str, Any]) -> None:
    for name, ratio in ratios.items():
        if not (isinstance(ratio, (int, float)) and 0 < ratio < float("inf")):
            raise ValueError(f"the ratio of {name} must be a positive number, got {ratio!r}")


if __name__ == "__main__":
    sys.exit(main())
