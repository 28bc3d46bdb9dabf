"""The measurements as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.table import rows
from benchmarks.table.accuracy import SUPPRESSION, measured_on
from rdlite.evaluate.result import CONF, MAX_DET

Record = Mapping[str, Any]
"""One row of results.json."""


def report(results: Mapping[str, Any]) -> str:
    """The whole page.

    Args:
        results: Content of results.json.
    """
    records: Sequence[Record] = results["rows"]
    return "\n".join(
        [
            "# Detectors side by side",
            "",
            f"{results['cpu']}; onnxruntime {results['onnxruntime']}, one thread on one core, the "
            "network alone, batch 1. All in one run in turn, medians of "
            f"{results['rounds']} rounds; ratios to the run of SSDLite320-MobileNetV3 just before. "
            f"{_timed_again(results['timed_again'])}"
            f"Peak of the core: {results['peak_fma']:.0f} GFLOP/s of fp32 multiply-adds, "
            f"{results['peak_int8']:.0f} GOP/s of int8 dot products; shares are of the peak "
            "measured just after the model. A multiply-add is two operations; int8 rows count "
            "those of the fp32 network they were made from, without the zeros that pad their "
            "layers, so that all rates are of useful work. Random weights do the same arithmetic "
            "as trained ones. `python -m benchmarks.table --help` says how this page is made.",
            "",
            *_accuracy(records),
            "## All, by time",
            "",
            "![Time ratios](results.png)",
            "",
            *_times(records),
            "",
            f"Not as published: {rows.DEVIATIONS}",
            "",
            *_convolutions(results["convolutions"]),
            "",
            *(f"Not timed: {name}, no file was given." for name in results["missing"]),
            "",
            "## The paper's Table 2 then and now",
            "",
            *_then_and_now(records),
            "",
            *_reasons({r["key"]: r for r in records}),
            "",
            "Not rebuilt, with the paper's figures (COCO test-dev, i7-6700):",
            "",
            *_not_built(),
        ]
    )


def _times(records: Iterable[Record]) -> list[str]:
    head = (
        "detector | backbone | input | weights | ms | ratio | G multiply-adds | GFLOP/s | of peak"
    )
    cells = [
        [
            f"{r['name']} ({r['note']})" if r["note"] else r["name"],
            r["backbone"],
            str(r["side"]),
            r["weights"],
            f"{r['ms']:.2f}",
            f"{r['ratio']:.2f}",
            f"{r['macs'] / 1e9:.2f}",
            f"{r['gflops']:.0f}",
            f"{r['peak_share']:.0%}",
        ]
        for r in sorted(records, key=lambda r: r["ratio"])
    ]
    return _table(head, cells)


def _convolutions(found: Iterable[Mapping[str, Any]]) -> list[str]:
    return [
        "Convolutions and matrix products alone (their share of a profile, applied to the time of "
        "the whole network without the profiler in the same run):",
        "",
        *(
            f"* {each['name']}: {each['ms']:.2f} of {each['network_ms']:.2f} ms, "
            f"{each['gflops']:.0f} G/s, {each['share']:.1%} of the peak, at which they would take "
            f"{each['least_ms']:.2f} ms."
            for each in found
        ),
    ]


def _then_and_now(records: Iterable[Record]) -> list[str]:
    known = sorted((r for r in records if r["paper_ms"]), key=lambda r: r["paper_ms"])
    (base,) = (r for r in known if r["key"] == rows.PAPER_REFERENCE)
    here = [r["key"] for r in sorted(known, key=lambda r: r["ms"])]
    head = (
        "place then → now | detector | backbone | paper, ms | ms | paper, SSDLite-MobileNet = 1 | "
        "now, the same | paper, GFLOP/s | GFLOP/s"
    )
    cells = [
        [
            f"{place} → {1 + here.index(r['key'])}",
            r["name"],
            r["backbone"],
            f"{r['paper_ms']:g}",
            f"{r['ms']:.2f}",
            f"{r['paper_ms'] / base['paper_ms']:.2f}",
            f"{r['ratio'] / base['ratio']:.2f}",
            f"{2e-6 * r['macs'] / r['paper_ms']:.0f}",
            f"{r['gflops']:.0f}",
        ]
        for place, r in enumerate(known, start=1)
    ]
    return _table(head, cells)


def _reasons(by_key: Mapping[str, Record]) -> list[str]:
    """How the order changed, with the numbers of this run."""
    base = by_key[rows.PAPER_REFERENCE]
    known = [r for r in by_key.values() if r["paper_ms"]]
    same = [r for r in known if not r["key"].startswith(rows.OTHERS_THEN)]

    def beside(key: str) -> str:
        other = by_key[key]
        macs, then, now = (other[f] / base[f] for f in ("macs", "paper_ms", "ratio"))
        return f"{macs:.2f} times the multiply-adds, {then:.2f} times the time then, {now:.2f} now"

    light = by_key["refinedet-shufflenet_v2_x1_0"]
    return [
        "Spearman's rank correlation of the times with the multiply-adds: "
        f"{_rank_correlation(known, 'paper_ms'):.2f} in the paper and "
        f"{_rank_correlation(known, 'ms'):.2f} now; "
        f"{_rank_correlation(same, 'paper_ms'):.2f} and {_rank_correlation(same, 'ms'):.2f} "
        "without RefineDet, whose heads were probably others (see below), and YOLOv3, which the "
        "paper timed in another code base. Without them Caffe2 on an i7-6700 (peak about 109 "
        "GFLOP/s: two 8-wide fused multiply-adds a cycle at 3.4 GHz) did "
        f"{_rates_then(same)} GFLOP/s (our count over the paper's time): narrow 1x1 and depthwise "
        "layers, normalisation and activation probably cost it far more than their arithmetic. "
        "onnxruntime folds the latter into the convolutions and comes to "
        f"{min(r['peak_share'] for r in known):.0%}-{max(r['peak_share'] for r in known):.0%} of "
        "the peak, all rows counted. Beside SSDLite on MobileNetV1:",
        "",
        f"* SSDLite on MobileNetV2: {beside('ssdlite-mobilenetv2_100')};",
        f"* SSD on MobileNetV1, with 3x3 predictors: {beside('ssd-mobilenetv1_100')};",
        f"* RefineDetLite72: {beside('refinedetlite72')}; "
        f"{_passed(by_key['refinedetlite72'], known)};",
        f"* RefineDet on ShuffleNetV2: {beside('refinedet-shufflenet_v2_x1_0')}. Most of that is "
        "its head, built as published: 256 channels of 3x3 convolutions from stride 8 on. The "
        "paper does not describe the head that it timed; with this one its "
        f"{light['paper_ms']:g} ms would be {_rate_then(light):.0f} GFLOP/s, where SSDLite got "
        f"{_rates_then([r for r in known if r['name'] == 'SSDLite'])} from the same engine. So it "
        "was probably a smaller one, and the RefineDet rows are not the same networks then and "
        "now;",
        f"* YOLOv3: {beside('yolov3')}; {_passed(by_key['yolov3'], known)}.",
    ]


def _rate_then(record: Record) -> float:
    """GFLOP/s of the paper's time."""
    return float(2e-6 * record["macs"] / record["paper_ms"])


def _rates_then(records: Iterable[Record]) -> str:
    rates = [_rate_then(record) for record in records]
    return f"{min(rates):.0f} to {max(rates):.0f}"


def _rank_correlation(records: Iterable[Record], time: str) -> float:
    """Spearman's, of a time with the multiply-adds."""
    values = np.array([(r[time], r["macs"]) for r in records]).T
    # Equal values share the mean of their places.
    above = values[:, :, None] > values[:, None, :]
    below = values[:, :, None] < values[:, None, :]
    return float(np.corrcoef((1.0 * above - below).sum(axis=2))[0, 1])


def _passed(record: Record, others: Iterable[Record]) -> str:
    """The rows that were faster in the paper and are slower now."""
    passed = [
        f"{_full_name(r)} ({r['macs'] / record['macs']:.2f} times its multiply-adds)"
        for r in others
        if r["paper_ms"] < record["paper_ms"] and r["ms"] > record["ms"]
    ]
    return f"slower than it now, and faster then: {', '.join(passed) or 'none'}"


def _full_name(record: Record) -> str:
    return f"{record['name']} on {record['backbone']}"


def _not_built() -> list[str]:
    cells = [
        [
            row.name,
            row.backbone,
            str(row.side),
            "-" if row.paper_ms is None else f"{row.paper_ms:g}",
            f"{row.paper_ap:.1f}",
            reason,
        ]
        for row, reason in rows.NOT_BUILT
    ]
    return _table("detector | backbone | input | paper, ms | paper, AP | why", cells)


def _timed_again(names: Sequence[str]) -> str:
    return f"In a later run of their own: {', '.join(names)}. " if names else ""


def _accuracy(records: Iterable[Record]) -> list[str]:
    """The models with weights; nothing where none was measured."""
    known = sorted((r for r in records if r["accuracy"]), key=lambda r: r["ms"])
    if not known:
        return []
    titles = measured_on(known)
    cells = [
        [r["name"], str(r["side"]), f"{r['ms']:.2f}", *(_aps(r["accuracy"].get(t)) for t in titles)]
        for r in known
    ]
    head = ["detector", "input", "ms", *(f"{title}: AP, AP50" for title in titles)]
    return [
        "## Models with weights",
        "",
        f"The same images and the same code for all (`rdlite.evaluate`): COCO protocol, score ≥ "
        f"{CONF}, {SUPPRESSION} NMS at 0.5, at most {MAX_DET} boxes an image. {rows.LEARNED_FROM}",
        "",
        *_table(" | ".join(head), cells),
        "",
        "![AP against time](accuracy.png)",
        "",
    ]


def _aps(one: Mapping[str, float] | None) -> str:
    return f"{100 * one['ap']:.1f}, {100 * one['ap50']:.1f}" if one else "-"


def _table(head: str, cells: Iterable[Sequence[str]]) -> list[str]:
    lines = [f"| {head} |", "|" + "---|" * (1 + head.count("|"))]
    return [*lines, *("| " + " | ".join(row) + " |" for row in cells)]
