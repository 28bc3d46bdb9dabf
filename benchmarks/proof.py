"""Does the gate notice a loss, and is it quiet without one? Writes `gate-record.json`.

    python -m benchmarks.proof

Runs the gate's benchmarks ten times as they are and once with each plant of `conftest.py`, and
compares every run with `baseline.json`. The machine need not be idle: it should not be.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.conftest import PLANTS
from benchmarks.gate import BASELINE, compare, read_baseline, read_run

RECORD: Final = Path(__file__).with_name("gate-record.json")
UNCHANGED: Final = 10


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns 1 when a plant went unnoticed or an unchanged run did not pass."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.proof", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--runs", type=int, default=UNCHANGED, help="default: %(default)s")
    runs = parser.parse_args(argv).runs
    record = [one_run(plant) for plant in [*PLANTS, *[None] * runs]]
    RECORD.write_text(json.dumps(record, indent=1) + "\n")
    wrong = [one for one in record if one["failed"] == (one["plant"] is None)]
    print(f"{RECORD}: {len(record)} runs, {len(wrong)} judged wrongly")
    return int(bool(wrong))


def one_run(plant: str | None) -> dict[str, Any]:
    """Run the benchmarks and the gate once; returns what the record keeps of it."""
    print(f"\nplanted: {plant}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results.json"
        options = ["-m", "gate", "-q", f"--benchmark-json={results}"]
        options += [f"--plant={plant}"] if plant else []
        command = [sys.executable, "-P", "-m", "pytest", str(BASELINE.parent), *options]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        run, baseline = read_run(results), read_baseline(BASELINE)
    rows, code = compare(run, baseline)
    return {
        "plant": plant,
        "failed": code != 0,
        "cpu": run.cpu,
        "machine": run.machine,
        "load_average": round(os.getloadavg()[0], 2),
        "changes": {
            row.name: f"{row.now.ratio / row.before - 1:+.1%} {row.verdict}"
            for row in rows
            if row.now and row.before
        },
    }


if __name__ == "__main__":
    sys.exit(main())
