"""What an int8 model file and its card say: AP and time of both models, and how it was chosen."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
from tqdm import tqdm

from rdlite import Detector
from rdlite.cpu import cpu_name, int8_instructions
from rdlite.evaluate import EvalResult, evaluate
from rdlite.modelfile import OUTPUTS
from rdlite.session import Session
from train.card import table
from train.formats import read_annotations
from train.quantize_error import LayerError, decibel
from train.sets import EvalSet

if TYPE_CHECKING:
    from train.quantize import Quantised

Results = Mapping[str, tuple[EvalResult, EvalResult]]

WORST = 25
"""Layers that the card lists."""

_ROUNDS = 50


def measure(
    original: Path, quantised: Path, sets: Sequence[EvalSet], *, conf: float = 0.01
) -> dict[str, tuple[EvalResult, EvalResult]]:
    """Measure COCO AP of two model files through the run time, with hard NMS; prints both."""
    detectors = [Detector(path, nms="hard") for path in (original, quantised)]
    results = {}
    for name, truth, images in sets:
        pair = []
        for detector in tqdm(detectors, name, disable=None):
            pair.append(evaluate(detector, truth, images, conf=conf))
        results[name] = (pair[0], pair[1])
        numbers = [f"AP {100 * r.ap:.1f}, AP50 {100 * r.ap50:.1f}" for r in pair]
        print(f"{name}: fp32 {numbers[0]}; int8 {numbers[1]}", flush=True)
        for line in pair[1].notes():
            print(f"  {line}")
    return results


def milliseconds(sessions: Sequence[Session], rounds: int = _ROUNDS) -> list[float]:
    """Median time of the networks alone, one thread, one after the other in each round."""
    height, width = sessions[0].spec.input_size
    image = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), np.uint8)
    times: list[list[float]] = [[] for _ in sessions]
    for _ in range(rounds):
        for session, found in zip(sessions, times, strict=True):
            session.run(image)  # brings its weights into the caches
            start = time.perf_counter()
            session.run(image)
            found.append(time.perf_counter() - start)
    return [float(1000 * np.median(found)) for found in times]


def warn_of_shared(data: str, images: str, sets: Sequence[EvalSet]) -> None:
    """Print how many images of each set have the name of one that may be calibrated with."""
    names = {image["file_name"] for image in read_annotations(data, images)["images"]}
    for name, truth, _ in sets:
        content = json.loads(truth.read_text(encoding="utf-8"))
        shared = sum(image["file_name"] in names for image in content["images"])
        if shared:
            print(
                f"{name}: {shared} of its images are named as images of {data}: if they are the "
                "same, the AP of int8 may look better than it is"
            )


def provenance(
    original: Session, chosen: Quantised, options: Mapping[str, Any], results: Results, note: str
) -> dict[str, Any]:
    """What the int8 file says about its making: as the fp32 file, and how it was quantised."""
    told = {k: v for k, v in original.spec.provenance.items() if k not in ("results", "note")}
    told["quantization"] = {
        "model_sha256": original.sha256,
        "ranges": chosen.method,
        "calibrated": chosen.calibrated,
        "held": chosen.held,
        **options,
        "biases_corrected": chosen.biases,
        "float_layers": list(chosen.float_layers),
        "decibel": round(decibel(chosen.error), 1),
        "onnxruntime": onnxruntime.__version__,
    }
    told["results"] = {
        name: {"ap": round(r.ap, 4), "ap50": round(r.ap50, 4)} for name, (_, r) in results.items()
    }
    return told | ({"note": note} if note else {})


def write_card(
    path: Path, original: Session, quantised: Session, chosen: Quantised, results: Results
) -> None:
    """Write the card of an int8 model file, in Markdown.

    Args:
        path: The file to write.
        original: The fp32 model.
        quantised: The int8 model.
        chosen: How it was chosen.
        results: What was measured of both, by the name of the set.
    """
    told = quantised.spec.provenance
    quantization = told["quantization"]
    lines = [
        f"# Model card: {path.stem}",
        "",
        *([told["note"], ""] if "note" in told else []),
        f"{original.path.stem} with int8 weights (a scale for each output channel) and uint8 "
        "activations, for CPUs that multiply and add int8 numbers in one instruction (`rdlite "
        "check` tells); on others it may be slower and worse. What it detects, how it was trained "
        f"and what it is not for: the card of {original.path.stem}. Nothing was trained for int8.",
        "",
        *_accuracy(results),
        *_time(original, quantised),
        *_ranges(chosen),
        *_layers(chosen),
        "## Made by",
        "",
        *table(("setting", "value"), [(k, str(v)) for k, v in quantization.items()]),
        "",
        f"`python -m train quantize {original.path.name} --data {quantization['data']} --images "
        f"FOLDER --calibrate {quantization['calibrated']} --seed {quantization['seed']} -o "
        f"{path.stem}.onnx` makes it again; training goes on from the fp32 file.",
        "",
    ]
    path.write_text("\n".join(lines), encoding="utf-8")


def _accuracy(results: Results) -> list[str]:
    if not results:
        return []
    rows = []
    for name, (before, after) in results.items():
        numbers = [100 * n for r in ("ap", "ap50") for n in (getattr(before, r), getattr(after, r))]
        ap, int8_ap, ap50, int8_ap50 = numbers
        changes = f"{int8_ap - ap:+.1f}", f"{int8_ap50 - ap50:+.1f}"
        cells = [f"{n:.1f}" for n in numbers]
        rows.append((name, str(after.images), *cells[:2], changes[0], *cells[2:], changes[1]))
    head = ("set", "images", "AP fp32", "int8", "change", "AP50 fp32", "int8", "change")
    return [
        "## Accuracy",
        "",
        "COCO protocol, score ≥ 0.01, hard NMS at 0.5, at most 100 boxes an image.",
        "",
        *table(head, rows),
        "",
    ]


def _time(original: Session, quantised: Session) -> list[str]:
    before, after = milliseconds((original, quantised))
    dot = ", ".join(int8_instructions()) or "none"
    return [
        "## Time",
        "",
        f"The network alone, one thread, both in turns: fp32 {before:.1f} ms, int8 {after:.1f} ms, "
        f"ratio {after / before:.2f} (onnxruntime {onnxruntime.__version__}, {cpu_name()}, int8 "
        f"dot products: {dot}).",
        "",
    ]


def _ranges(chosen: Quantised) -> list[str]:
    taken = ", with corrected biases" if chosen.biases else ", with the biases as they were"
    return [
        "## Ranges",
        "",
        "Signal over error in dB of the outputs for the 100 anchors of an image that the fp32 "
        f"network is surest of, on {chosen.held} images that were not among the "
        f"{chosen.calibrated} calibrated with. "
        f"Taken: {chosen.method}{taken}; the last row is with these ranges.",
        "",
        *range_table(chosen.methods),
        "",
    ]


def _layers(chosen: Quantised) -> list[str]:
    kept = [
        f"* {name} stays in float32: {decibel(before):.1f} dB became {decibel(after):.1f}."
        for name, (before, after) in chosen.float_layers.items()
    ]
    return [
        "## Layers",
        "",
        *(kept or [f"No layer stays in float32: {decibel(chosen.error):.1f} dB."]),
        "",
        f"Signal over error in dB when one of the {len(chosen.layers)} layers is quantised alone, "
        f"its weights, input and output; the {min(WORST, len(chosen.layers))} worst:",
        "",
        *layer_table(chosen.layers[:WORST]),
        "",
    ]


def range_table(methods: Mapping[str, Sequence[float]]) -> list[str]:
    """A Markdown table of ways to choose ranges with their errors."""
    rows = [
        (method, f"{decibel(float(np.mean(errors))):.1f}", *_each(errors))
        for method, errors in methods.items()
    ]
    return table(("ranges", "all", *OUTPUTS), rows)


def layer_table(layers: Sequence[LayerError]) -> list[str]:
    """A Markdown table of layers quantised alone."""
    rows = [(row.name, f"{decibel(row.error):.1f}", *_each(row.outputs)) for row in layers]
    return table(("layer", "all", *OUTPUTS), rows)


def _each(errors: Sequence[float]) -> list[str]:
    """Of each output; one that is not touched has no number."""
    return [f"{decibel(error):.1f}" if error else "-" for error in errors]
