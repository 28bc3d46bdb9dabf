"""`rdlite bench`: milliseconds per picture on this machine, and which model to use on it."""

from __future__ import annotations

import json as jsonlib
import os
import sys
from collections.abc import Sequence
from importlib import metadata
from typing import Any, Final

from rdlite import registry
from rdlite.bench import STAGES, synthetic_image
from rdlite.bench import bench as measure
from rdlite.cli.batch import make_detector
from rdlite.cli.exits import OK, SOME_FAILED
from rdlite.cpu import cpu_name, int8_instructions
from rdlite.detector import Detector
from rdlite.errors import ModelError, OptionError
from rdlite.image import load

_SAME: Final = 1.1
"""Times that differ by less say nothing: neighbours and the clock move them as much."""


def bench(
    *,
    model: list[str] | None,
    all_models: bool,
    image: str | None,
    runs: int,
    json: bool,
    **detection: Any,
) -> int:
    """Time models in turns on one picture; see `rdlite bench --help`."""
    names = _names(model, all_models)
    detectors = _open(names, all_models, detection)
    picture = synthetic_image() if image is None else load(image)
    results = measure(list(detectors.values()), picture, runs=runs)
    rows = [
        _describe(name, detector) | result.to_dict()
        for (name, detector), result in zip(detectors.items(), results, strict=True)
    ]
    int8 = int8_instructions()
    content = {
        "cpu": cpu_name(),
        "int8_instructions": int8,
        "onnxruntime": metadata.version("onnxruntime"),
        "rdlite": metadata.version("rdlite"),
        **detection,
        "runs": runs,
        "width": picture.shape[1],
        "height": picture.shape[0],
        "models": rows,
        "advice": advice(rows, int8=bool(int8)),
    }
    print(jsonlib.dumps(content) if json else "\n".join(_lines(content)))
    return OK if len(detectors) == len(names) else SOME_FAILED


def advice(rows: Sequence[dict[str, Any]], *, int8: bool) -> str:
    """Return what to say on which of the models to use here; empty where there is no choice.

    Args:
        rows: `model`, `arithmetic`, `weights_sha256` and `median_ms` of each. Models of the same
            weights find much the same, so speed decides between them; between others it cannot.
        int8: Whether this CPU has int8 dot products. Where it has none, no time is an argument
            for an int8 model; see `rdlite.cpu.int8_instructions`.
    """
    usable = [row for row in rows if int8 or row["arithmetic"] != "int8"]
    twins: dict[str, list[dict[str, Any]]] = {}
    for row in usable:
        twins.setdefault(row["weights_sha256"], []).append(row)
    chosen = [_choose(group) for group in twins.values()]
    sentences = [
        _compare(best, other)
        for best, group in zip(chosen, twins.values(), strict=True)
        for other in group
        if other is not best
    ]
    if chosen and (times := _whole(chosen[0]) / min(map(_whole, chosen))) >= _SAME:
        sentences.append(
            f"{min(chosen, key=_whole)['model']} is {times:.1f} times as fast as "
            f"{chosen[0]['model']} and has other weights: compare what they find with rdlite eval"
        )
    if len(usable) < len(rows):
        sentences.append(
            "no int8 dot products are known of this CPU, and without them int8 models may give "
            "worse results: use fp32 models, whatever the times"
        )
    return "; ".join(sentences)


def _choose(twins: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the fastest of models of the same weights, of equally fast ones that in fp32."""
    fastest = min(twins, key=_whole)
    equal = (row for row in twins if _whole(row) / _whole(fastest) < _SAME)
    return next((row for row in equal if row["arithmetic"] == "fp32"), fastest)


def _compare(best: dict[str, Any], other: dict[str, Any]) -> str:
    """Return a sentence on the chosen one of models of the same weights and another of them."""
    name, times = best["model"], _whole(other) / _whole(best)
    kinds = best["arithmetic"], other["arithmetic"]
    if times < _SAME:
        return (
            f"{name} and {other['model']} have the same weights and are equally fast here: "
            f"use {name if len(set(kinds)) > 1 else 'either'}"
        )
    card = ", and see its model card for the AP of both" if kinds == ("int8", "fp32") else ""
    return (
        f"{name} is {times:.1f} times as fast here as {other['model']}, which has the same "
        f"weights: use {name}{card}"
    )


def _whole(row: dict[str, Any]) -> float:
    return float(row["median_ms"]["whole"])


def _names(model: list[str] | None, all_models: bool) -> list[str]:
    if all_models and model:
        raise OptionError(f"--all is every model of rdlite models, got --model {model[0]} too")
    if all_models:
        return [one.name for one in registry.present()]
    first: dict[str, str] = {}
    for name in model or [registry.DEFAULT]:
        path = os.path.realpath(registry.find(name))
        if path in first:
            raise OptionError(f"--model has {path} twice, as {first[path]!r} and {name!r}")
        first[path] = name
    return list(first.values())


def _open(names: list[str], all_models: bool, detection: dict[str, Any]) -> dict[str, Detector]:
    """Return the detectors by name; with --all, those that cannot be opened are only reported."""
    detectors = {}
    for name in names:
        try:
            detectors[name] = make_detector(model=name, **detection)
        except ModelError as error:
            if not all_models:
                raise
            print(f"rdlite: {error}", file=sys.stderr)
    if not detectors:
        raise ModelError("none of the models of rdlite models can be opened; name one with --model")
    return detectors


def _describe(name: str, detector: Detector) -> dict[str, Any]:
    return {
        "model": name,
        "arithmetic": detector.spec.arithmetic,
        "sha256": detector.model_sha256,
        "weights_sha256": detector.spec.weights_sha256,
    }


def _lines(content: dict[str, Any]) -> list[str]:
    int8 = ", ".join(content["int8_instructions"]) or "none known"
    width = max(len(row["model"]) for row in content["models"])
    lines = [
        f"{content['cpu']}; int8 instructions: {int8}",
        f"onnxruntime {content['onnxruntime']}, rdlite {content['rdlite']}, "
        f"{content['threads']} thread(s), {content['runs']} pictures of "
        f"{content['width']}x{content['height']}, models in turns",
        "",
        "ms per picture, median / ninth decile",
        f"{'':{width}}      " + "".join(f"{stage:>16}" for stage in STAGES) + "  images/s",
    ]
    for row in content["models"]:
        cells = (f"{row['median_ms'][s]:.2f} / {row['p90_ms'][s]:.2f}" for s in STAGES)
        lines.append(
            f"{row['model']:{width}} {row['arithmetic']}"
            + "".join(f"{cell:>16}" for cell in cells)
            + f" {row['images_per_second']:9.1f}"
        )
    return [*lines, *(["", content["advice"]] if content["advice"] else [])]
