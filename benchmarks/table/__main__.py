"""`python -m benchmarks.table`: time all detectors in one run, and measure those with weights.

    python -m benchmarks.table [--peers FOLDER] [--others FOLDER] [--dev dev.json IMAGES]

Writes results.json, results.md and results.png. Needs `pip install -e ".[bench]"` and a C compiler.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.table import rows
from benchmarks.table.build import build_models, trained
from benchmarks.table.chart import draw
from benchmarks.table.convolutions import convolution_share
from benchmarks.table.peak import Peak
from benchmarks.table.peers import RECIPES, Peer, constant_weights
from benchmarks.table.report import report
from benchmarks.table.rows import Row
from benchmarks.table.timing import ROUNDS, Timing, time_models
from rdlite import Detector
from rdlite.cpu import cpu_name
from rdlite.evaluate import EvalResult, evaluate

CONF = 0.01
"""Least score, low because AP needs the whole curve."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    options = _parser().parse_args(argv)
    build_models(options.models)
    found, missing = find_files(options.models, options.peers, options.others)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    models = {
        row.key: constant_weights(path) if row in rows.PEERS else path
        for row, path in found.items()
    }
    accuracies = measure_ap(found, *options.dev) if options.dev else {}
    timings = time_models(models, rows.REFERENCE, rounds=options.rounds)
    results = {
        **_conditions(options),
        "convolutions": [_convolutions(row, models) for row in found if row in _with_weights()],
        "missing": [row.name for row in missing],
        "rows": [_record(row, timings[row.key], accuracies.get(row)) for row in found],
    }
    results["dev"] = _dev(options.dev, accuracies)
    write(results, options.out)


def find_files(
    models: Path, peers: Path | None, others: Path | None
) -> tuple[dict[Row, Path], list[Row]]:
    """The model file of every row; and the rows that have none."""
    folders = {row: peers for row in rows.PEERS} | {row: others for row in rows.PACKAGES}
    found, missing = {}, []
    for row in rows.ALL:
        folder = folders.get(row, models)
        path = trained().get(row.key) or (folder and folder / f"{row.key}.onnx")
        if path is not None and path.is_file():
            found[row] = path
        else:
            missing.append(row)
    return found, missing


def measure_ap(found: Mapping[Row, Path], annotations: str, images: str) -> dict[Row, EvalResult]:
    """AP of every row that has weights."""
    results = {}
    for row, path in found.items():
        if row in _with_weights():
            detector: Any = Detector(path)
        elif row.key in RECIPES:
            detector = Peer(path)
        else:
            continue
        results[row] = evaluate(detector, annotations, images, conf=CONF, nms="hard")
        print(f"{row.name}: AP {100 * results[row].ap:.1f}")
    return results


def write(results: dict[str, Any], folder: Path) -> None:
    """Write results.json, results.md and results.png."""
    content = json.dumps(results, indent=1, ensure_ascii=False) + "\n"
    (folder / "results.json").write_text(content, encoding="utf-8")
    page = report(results)
    (folder / "results.md").write_text(page + "\n", encoding="utf-8")
    draw(results["rows"], folder / "results.png")
    print(page)


def _with_weights() -> list[Row]:
    """Our rows that have weights."""
    return [row for row in rows.OURS if row.key in trained()]


def _conditions(options: argparse.Namespace) -> dict[str, Any]:
    import onnxruntime

    peak = Peak()
    return {
        "cpu": cpu_name(),
        "onnxruntime": onnxruntime.__version__,
        "rounds": options.rounds,
        "peak_fma": max(peak.fma() for _ in range(5)),
        "peak_int8": max(peak.int8() for _ in range(5)),
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


def _record(row: Row, timing: Timing, accuracy: EvalResult | None) -> dict[str, Any]:
    weights = "trained" if row in (*_with_weights(), *rows.PEERS) else "random"
    return {
        **row._asdict(),
        "ours": row in rows.OURS,
        "weights": weights,
        **timing._asdict(),
        "ap": accuracy and accuracy.ap,
        "ap50": accuracy and accuracy.ap50,
    }


def _dev(dev: Sequence[str] | None, accuracies: Mapping[Row, EvalResult]) -> dict[str, Any] | None:
    if not dev or not accuracies:
        return None
    images = next(iter(accuracies.values())).images
    return {"name": Path(dev[0]).name, "images": images, "conf": CONF}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.table", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--models",
        type=Path,
        default=Path("runs/table"),
        help="folder of our models; those it lacks are exported there (default: %(default)s)",
    )
    parser.add_argument("--peers", type=Path, help="folder with PicoDet, YOLOX and FastestDet")
    parser.add_argument("--others", type=Path, help="folder that export_others.py wrote")
    parser.add_argument(
        "--dev", nargs=2, metavar=("JSON", "IMAGES"), help="COCO set to measure AP on"
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="default: %(default)s")
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        default=Path(__file__).parent,
        help="folder of the results (default: beside this program)",
    )
    return parser


if __name__ == "__main__":
    main()
