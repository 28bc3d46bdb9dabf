"""`python -m train quantize`: an fp32 model file made into an int8 one, which chooses by itself.

Nothing is trained. Ranges of activations, corrected biases and layers that stay in float are tried
on images that were not calibrated with, and taken where they bring the outputs nearer to
those of the float network.
"""

from __future__ import annotations

import dataclasses
import functools
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx

from rdlite.errors import ModelError, OptionError
from rdlite.evaluate import EvalResult
from rdlite.modelfile import ModelSpec
from rdlite.session import Session
from train.card import keep_existing
from train.checkpoint import source_path
from train.quantize_build import Floats, build, correct_biases
from train.quantize_calibrate import METHODS, Histograms, Images, Ranges, sample_images
from train.quantize_error import LayerError, Reference, channel_means, decibel, layer_errors
from train.quantize_graph import prepare
from train.sets import Sets, open_sets

ENOUGH = 28.0
"""Signal over error, dB, from which on all layers are quantised: see `quantize_error.SUREST`."""

CORRECTED = "biases corrected"
"""What the error with corrected biases goes by, beside those of the methods."""

_HELD = 32  # images that errors are measured on
_HELD_LAYERS = 8  # the same where each layer has a graph of its own


@dataclasses.dataclass(frozen=True, slots=True)
class Quantised:
    """An int8 graph and how it was chosen; errors are power over power of the signal.

    Attributes:
        proto: The graph.
        error: Its error.
        calibrated: How many images ranges were taken from.
        held: How many others errors were measured on.
        method: How ranges were chosen, of `quantize_calibrate.METHODS`.
        methods: Error of each output for each method, and `CORRECTED` for the best.
        biases: Whether corrected biases were taken.
        layers: Each layer quantised alone, the worst first.
        float_layers: Error of the whole before and after keeping a layer in float32, by its name.
    """

    proto: onnx.ModelProto
    error: float
    calibrated: int
    held: int
    method: str
    methods: Mapping[str, tuple[float, ...]]
    biases: bool
    layers: Sequence[LayerError]
    float_layers: Mapping[str, tuple[float, float]]


def quantize_model(
    model: str,
    output: str,
    sets: Sets,
    *,
    data: str,
    images: str,
    calibrate: int,
    most_float: int,
    note: str,
    seed: int,
    overwrite: bool,
) -> dict[str, tuple[EvalResult, EvalResult]]:
    """Write an int8 model file, and its card `<name>.md` beside it.

    Args:
        model: The fp32 .onnx file, or the name of a model that comes with rdlite.
        output: The .onnx file to write; it appears when it is whole and opens.
        sets: Annotations in any format and their images, to measure AP of both models on.
        data: Annotations of training images in any format.
        images: Folder of these images or of tar shards.
        calibrate: How many to calibrate with.
        most_float: How many layers may stay in float32.
        note: What the card begins with.
        seed: Decides which images are drawn.
        overwrite: Replace the file and the card if they exist.

    Returns:
        What was measured of the fp32 model and of the int8 one, by the name of the set.

    Raises:
        RdliteError: A file cannot be read or written, is int8 already or of another network, or a
            number is too small; before anything slow is done.
    """
    from train.quantize_report import (
        WORST,
        layer_table,
        measure,
        provenance,
        range_table,
        warn_of_shared,
        write_card,
    )

    path, target = source_path(model), Path(output)
    _check(path, target, calibrate=calibrate, most_float=most_float, overwrite=overwrite)
    original = Session(path)
    if original.spec.arithmetic != "fp32":
        raise ModelError(f"{path} is {original.spec.arithmetic} already; give the fp32 model")
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        opened = open_sets(sets, original.spec.names, Path(folder))
        proto = prepare(path)
        warn_of_shared(data, images, opened)
        drawn = sample_images(data, images, original.spec.input_size, calibrate + _HELD, seed)
        chosen = quantize(proto, drawn, most_float=most_float)
        tables = [*range_table(chosen.methods), "", *layer_table(chosen.layers[:WORST])]
        print("\n".join(tables), flush=True)
        temporary = Path(folder, target.name)
        _write(chosen.proto, original.spec, temporary)
        results = measure(path, temporary, opened)
        options = {"data": Path(data).name, "seed": seed, "most_float": most_float}
        told = provenance(original, chosen, options, results, note)
        _write(chosen.proto, dataclasses.replace(original.spec, provenance=told), temporary)
        write_card(target.with_suffix(".md"), original, Session(temporary), chosen, results)
        temporary.replace(target)
    print(
        f"{target}: {target.stat().st_size / 1e6:.1f} MB, {decibel(chosen.error):.1f} dB; "
        f"its card is {target.with_suffix('.md')}"
    )
    return results


def quantize(proto: onnx.ModelProto, images: Images, *, most_float: int) -> Quantised:
    """Choose ranges, biases and float layers by their error, and quantise.

    Args:
        proto: As `train.quantize_graph.prepare` returns it.
        images: uint8 `(N, H, W, 3)`, BGR, N >= 2; the first `_HELD` of them, at most a quarter,
            measure errors, the others calibrate.
        most_float: How many layers may stay in float32.
    """
    held = max(1, min(_HELD, len(images) // 4))
    seen = images[held:]
    reference = Reference(proto, images[:held])
    histograms = Histograms(proto, seen)
    methods = {m: reference.errors(build(proto, histograms.ranges(m))) for m in METHODS}
    method = min(methods, key=lambda name: np.mean(methods[name]))
    ranges, means = histograms.ranges(method), channel_means(proto, seen)
    methods[CORRECTED] = reference.errors(_make(proto, ranges, means))
    biases = bool(np.mean(methods[CORRECTED]) < np.mean(methods[method]))
    make = functools.partial(_make, proto, ranges, means if biases else {})
    best = make()
    layers = layer_errors(proto, best, Reference(proto, images[: min(held, _HELD_LAYERS)]))
    best, error, kept = _keep_float(make, best, layers[:most_float], reference)
    return Quantised(best, error, len(seen), held, method, methods, biases, layers, kept)


def _make(
    proto: onnx.ModelProto,
    ranges: Ranges,
    means: Mapping[str, Floats],
    float_layers: Collection[str] = (),
) -> onnx.ModelProto:
    """An int8 graph, with corrected biases where there are means to correct them by."""
    plain = build(proto, ranges, float_layers=float_layers)
    if not means:
        return plain
    return build(correct_biases(proto, plain, means), ranges, float_layers=float_layers)


def _keep_float(
    make: Callable[..., onnx.ModelProto],
    best: onnx.ModelProto,
    layers: Sequence[LayerError],
    reference: Reference,
) -> tuple[onnx.ModelProto, float, dict[str, tuple[float, float]]]:
    """Keep the worst layers in float32 until the outputs are near enough.

    A tensor is in float only between two layers that are, so that one more layer may not help
    before the next does: of all that were tried, the nearest is taken.
    """
    tried = [(reference.error(best), best)]
    names = [layer.name for layer in layers]
    while decibel(tried[-1][0]) < ENOUGH and len(tried) <= len(names):
        graph = make(float_layers=names[: len(tried)])
        tried.append((reference.error(graph), graph))
    errors = [error for error, _ in tried]
    count = int(np.argmin(errors))
    kept = {names[k]: (errors[k], errors[k + 1]) for k in range(count)}
    return tried[count][1], errors[count], kept


def _check(path: Path, target: Path, *, calibrate: int, most_float: int, overwrite: bool) -> None:
    if target.suffix != ".onnx":
        raise OptionError(f"the output must be an .onnx file, got {target}")
    if not target.parent.is_dir():
        raise OptionError(f"there is no folder {target.parent} to write {target.name} into")
    if target.resolve() == path.resolve():
        raise OptionError(f"{target} is the fp32 model itself; give the output another name")
    if not overwrite:
        keep_existing(target)
    if calibrate < 1:
        raise OptionError(f"calibrate must be at least one image, got {calibrate}")
    if most_float < 0:
        raise OptionError(f"most-float must not be negative, got {most_float}")


def _write(proto: onnx.ModelProto, spec: ModelSpec, path: Path) -> None:
    onnx.helper.set_model_props(proto, spec.to_metadata())
    onnx.save(proto, path)
