"""`python -m benchmarks.table`: time all detectors in one run, and measure those with weights.

    python -m benchmarks.table times [--peers FOLDER] [--others FOLDER] [--with-weights]
    python -m benchmarks.table accuracy [--peers FOLDER] --dev dev.json IMAGES [--dev ...]

Each keeps what the other has written to results.json, and writes results.md and the pictures anew.
When weights have changed, `accuracy` is enough; a new model needs `times --with-weights` before it.
Other detectors stay as they were where no folder is given; only `times` for all leaves them out.
Needs `pip install -e ".[bench]"`, and `times` a C compiler.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.table import rows
from benchmarks.table.accuracy import add_sets, measure
from benchmarks.table.chart import draw_accuracy, draw_times
from benchmarks.table.convolutions import convolution_share
from benchmarks.table.peak import Peak
from benchmarks.table.peers import constant_weights
from benchmarks.table.report import report
from benchmarks.table.rows import Row
from benchmarks.table.timing import ROUNDS, Timing, time_models
from rdlite.cpu import cpu_name

Results = dict[str, Any]
"""Content of results.json."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    options = _parser().parse_args(argv)
    file = options.out / "results.json"
    earlier = json.loads(file.read_text(encoding="utf-8")) if file.exists() else None
    try:
        results = options.run(options, earlier)
    except ValueError as error:  # of which those of rdlite are
        raise SystemExit(f"python -m benchmarks.table: {error}") from error
    write(results, options.out)


def times(options: argparse.Namespace, earlier: Results | None) -> Results:
    """Time all models, or those with weights.

    Raises:
        ValueError: Times that are to stay are not of this processor and onnxruntime.
    """
    conditions = _conditions(options.rounds)
    if not options.with_weights:
        return keep_accuracy({**conditions, **_timed(options, rows.ALL)}, earlier)
    if earlier is None or any(conditions[name] != earlier[name] for name in ("cpu", "onnxruntime")):
        raise ValueError(
            f"{options.out} has no times of this processor and onnxruntime to stay beside those "
            "of the models with weights; time all, without --with-weights"
        )
    wanted = [row for row in rows.ALL if rows.has_weights(row) or row.key == rows.REFERENCE]
    return replace_rows(keep_accuracy(_timed(options, wanted), earlier), earlier)


def accuracy(options: argparse.Namespace, earlier: Results | None) -> Results:
    """Measure AP of the models with weights.

    Raises:
        ValueError: A model with weights was not timed, or without them.
    """
    wanted = [row for row in rows.ALL if rows.has_weights(row)]
    found, _ = find_files(wanted, options)
    records = _by_key(earlier)
    untimed = [row.name for row in found if records.get(row.key, {}).get("weights") != "trained"]
    if earlier is None or untimed:
        raise ValueError(
            f"{options.out} has no times of {', '.join(untimed) or 'any model'} with these "
            "weights; run `times --with-weights` first"
        )
    for row, aps in measure(found, options.dev):
        records[row.key]["accuracy"] = aps
        for title, one in aps.items():
            print(f"{row.name}: {title}: AP {100 * one['ap']:.1f}, AP50 {100 * one['ap50']:.1f}")
    return earlier


def keep_accuracy(results: Results, earlier: Results | None) -> Results:
    """New times with what is known of AP."""
    known = _by_key(earlier)
    kept = [
        record | {"accuracy": known.get(record["key"], record)["accuracy"]}
        for record in results["rows"]
    ]
    return results | {"rows": kept}


def replace_rows(results: Results, earlier: Results) -> Results:
    """Earlier results with the rows that were timed again."""
    records = _by_key(earlier) | _by_key(results)
    again = [*earlier.get("timed_again", []), *(record["name"] for record in results["rows"])]
    present = {record["name"] for record in records.values()}
    return earlier | {
        "convolutions": results["convolutions"],
        "timed_again": list(dict.fromkeys(again)),
        "missing": [name for name in earlier.get("missing", []) if name not in present],
        "rows": [records[row.key] for row in rows.ALL if row.key in records],
    }


def find_files(
    wanted: Iterable[Row], options: argparse.Namespace
) -> tuple[dict[Row, Path], list[Row]]:
    """The model file of every row; and the rows that have none."""
    folders = dict.fromkeys(rows.PEERS, options.peers) | dict.fromkeys(
        rows.PACKAGES, options.others
    )
    weights = rows.trained()
    found, missing = {}, []
    for row in wanted:
        folder = folders.get(row, options.models)
        path = weights.get(row.key) or (folder and folder / f"{row.key}.onnx")
        if path is not None and path.is_file():
            found[row] = path
        else:
            missing.append(row)
    return found, missing


def write(results: Results, folder: Path) -> None:
    """Write results.json, results.md and the pictures."""
    content = json.dumps(results, indent=1, ensure_ascii=False) + "\n"
    (folder / "results.json").write_text(content, encoding="utf-8")
    (folder / "results.md").write_text(report(results) + "\n", encoding="utf-8")
    draw_times(results["rows"], folder / "results.png")
    draw_accuracy(results["rows"], folder / "accuracy.png")
    print(f"wrote {folder}: results.json, results.md and the pictures")


def _by_key(results: Results | None) -> dict[str, dict[str, Any]]:
    return {record["key"]: record for record in results["rows"]} if results else {}


def _conditions(rounds: int) -> dict[str, Any]:
    import onnxruntime

    peak = Peak()
    return {
        "cpu": cpu_name(),
        "onnxruntime": onnxruntime.__version__,
        "rounds": rounds,
        "peak_fma": max(peak.fma() for _ in range(5)),
        "peak_int8": max(peak.int8() for _ in range(5)),
    }


def _timed(options: argparse.Namespace, wanted: Sequence[Row]) -> Results:
    from benchmarks.table.build import build_models  # PyTorch, which AP needs not

    build_models(wanted, options.models)
    found, missing = find_files(wanted, options)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    models = {
        row.key: constant_weights(path) if row in rows.PEERS else path
        for row, path in found.items()
    }
    timings = time_models(models, rows.REFERENCE, rounds=options.rounds)
    ours = [row for row in found if row in rows.OURS and rows.has_weights(row)]
    return {
        "convolutions": [_convolutions(row, models) for row in ours],
        "missing": [row.name for row in missing],
        "timed_again": [],
        "rows": [_record(row, timings[row.key]) for row in found],
    }


def _convolutions(row: Row, models: Mapping[str, Any]) -> dict[str, Any]:
    name = rows.original(row.key)
    found = convolution_share(models[row.key], models[name], Peak(), int8=name != row.key)
    return {
        "name": row.name,
        "ms": 1e3 * found.seconds,
        "network_ms": 1e3 * found.network,
        "gflops": found.gflops,
        "share": found.share,
        "least_ms": 2e-6 * found.macs / found.peak,
    }


def _record(row: Row, timing: Timing) -> dict[str, Any]:
    return {
        **row._asdict(),
        "ours": row in rows.OURS,
        "weights": "trained" if rows.has_weights(row) else "random",
        **timing._asdict(),
        "accuracy": {},
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.table", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    commands = parser.add_subparsers(required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--peers", type=Path, help="folder with PicoDet, YOLOX and FastestDet")
    common.add_argument(
        "-o",
        "--out",
        type=Path,
        default=Path(__file__).parent,
        help="folder of the results (default: beside this program)",
    )
    timed = commands.add_parser("times", parents=[common], help="milliseconds of all networks")
    timed.add_argument("--others", type=Path, help="folder that export_others.py wrote")
    timed.add_argument(
        "--models",
        type=Path,
        default=Path("runs/table"),
        help="folder of models with random weights; what it lacks is made (default: %(default)s)",
    )
    timed.add_argument(
        "--with-weights", action="store_true", help="only models with weights; others stay"
    )
    timed.add_argument("--rounds", type=int, default=ROUNDS, help="default: %(default)s")
    timed.set_defaults(run=times)
    measured = commands.add_parser("accuracy", parents=[common], help="AP of models with weights")
    add_sets(measured)
    measured.set_defaults(run=accuracy, models=None, others=None)
    return parser


if __name__ == "__main__":
    main()
