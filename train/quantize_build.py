"""An int8 graph made of a float graph and the ranges of its tensors."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationMethod, QuantType, quantize_static
from onnxruntime.quantization.calibrate import TensorData, TensorsData, save_tensors_data

from train.quantize_calibrate import Ranges, share_ranges
from train.quantize_graph import CENTRED, LAYERS, ZERO

Floats = npt.NDArray[np.float32]

KINDS = (
    *("Conv", "Gemm", "Relu", "Add", "Concat", "MaxPool"),
    *("Split", "Transpose", "Reshape", "Gather", "Resize"),
)
"""Operators that are quantised: all that the network has."""


class Bytes(NamedTuple):
    """What an int8 graph has in place of floats.

    Attributes:
        scales: Scale and zero byte of each tensor that becomes bytes.
        weights: The weights that each layer computes with, as floats.
        biases: Its biases, likewise.
    """

    scales: dict[str, tuple[Floats, npt.NDArray[np.uint8]]]
    weights: dict[str, Floats]
    biases: dict[str, Floats]


def build(
    proto: onnx.ModelProto, ranges: Ranges, *, float_layers: Collection[str] = ()
) -> onnx.ModelProto:
    """Quantise a graph: int8 weights with a scale per output channel, uint8 activations.

    Args:
        proto: As `train.quantize_graph.prepare` returns it.
        ranges: Of every tensor.
        float_layers: Names of layers that stay in float32.

    Returns:
        The graph with QuantizeLinear and DequantizeLinear around every operator; onnxruntime makes
        int8 operators of them while loading. The input is the image's bytes as they are.
    """
    zero = next(t for t in proto.graph.initializer if t.name == ZERO)
    byte = numpy_helper.to_array(zero).astype(np.uint8)
    with tempfile.TemporaryDirectory() as folder, _without_advice():
        cache, path = Path(folder, "ranges.json"), Path(folder, "int8.onnx")
        _write_ranges(share_ranges(proto, ranges), cache)
        quantize_static(
            proto,
            path,
            calibration_cache_path=cache,
            calibrate_method=CalibrationMethod.MinMax,
            op_types_to_quantize=list(KINDS),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=[*float_layers, *_tail(proto)],
            extra_options={
                "OpTypesToExcludeOutputQuantization": ["Gemm"],
                "TensorQuantOverrides": {
                    CENTRED: [{"scale": np.array(1, np.float32), "zero_point": byte}]
                },
            },
        )
        quantised = onnx.load(path)
    _feed_bytes(quantised)
    return quantised


def read_bytes(quantised: onnx.ModelProto) -> Bytes:
    """Look up what the int8 graph of `build` has in place of floats; float layers are left out."""
    constants = {t.name: numpy_helper.to_array(t) for t in quantised.graph.initializer}
    found = Bytes({}, {}, {})
    floats: dict[str, Floats] = {}
    for node in quantised.graph.node:
        if node.op_type == "QuantizeLinear":
            found.scales[node.input[0]] = (constants[node.input[1]], constants[node.input[2]])
        elif node.op_type == "DequantizeLinear" and node.input[0] in constants:
            content, scale = constants[node.input[0]], constants[node.input[1]]
            rows = scale.reshape(-1, *[1] * (content.ndim - 1)) if content.ndim else scale
            floats[node.output[0]] = content.astype(np.float32) * rows
    for node in quantised.graph.node:
        if node.op_type in LAYERS and node.input[1] in floats:
            found.weights[node.name] = floats[node.input[1]]
            found.biases[node.name] = floats[node.input[2]]
    return found


def correct_biases(
    proto: onnx.ModelProto, quantised: onnx.ModelProto, means: Mapping[str, Floats]
) -> onnx.ModelProto:
    """Take from each bias what rounding the weights adds to the mean of the outputs.

    Source: arXiv 1906.04721 §4.2, with measured means; borders are not looked at.

    Args:
        proto: The float graph.
        quantised: The int8 graph made of it.
        means: Mean of each channel of what each layer reads, by the name of the tensor.

    Returns:
        The float graph with other biases.
    """
    weights = read_bytes(quantised).weights
    corrected = onnx.ModelProto()
    corrected.CopyFrom(proto)
    constants = {t.name: t for t in corrected.graph.initializer}
    for node in corrected.graph.node:
        if node.name not in weights:
            continue
        kernel, bias = (constants[name] for name in node.input[1:])
        error = weights[node.name] - numpy_helper.to_array(kernel)
        error = error.reshape(*error.shape[:2], -1).sum(2)
        # Each group of a grouped convolution reads its own share of the channels.
        mean = means[node.input[0]].reshape(-1, error.shape[1])
        shift = (error.reshape(len(mean), -1, error.shape[1]) @ mean[:, :, None]).ravel()
        value = numpy_helper.to_array(bias) - shift
        bias.CopyFrom(numpy_helper.from_array(value.astype(np.float32), bias.name))
    return corrected


def _tail(proto: onnx.ModelProto) -> list[str]:
    """Names of the nodes between the last layers and the outputs, which move floats."""
    wanted = {output.name for output in proto.graph.output}
    tail = []
    for node in reversed(proto.graph.node):
        if node.op_type not in LAYERS and wanted & set(node.output):
            tail.append(node.name)
            wanted |= set(node.input)
    return tail


def _feed_bytes(proto: onnx.ModelProto) -> None:
    """Take the image's bytes for what they would be quantised to: themselves.

    Where the first layer stays in float, they become floats as before.
    """
    makers = {name: node for node in proto.graph.node for name in node.output}
    quantizers = [node for node in proto.graph.node if node.op_type == "QuantizeLinear"]
    quantize = next((node for node in quantizers if node.input[0] == CENTRED), None)
    if quantize is None:
        return
    centre = makers[CENTRED]
    cast = makers[centre.input[0]]
    for node in proto.graph.node:
        for index, name in enumerate(node.input):
            if name == quantize.output[0]:
                node.input[index] = cast.input[0]
    for node in (quantize, centre, cast):
        proto.graph.node.remove(node)
    used = {name for node in proto.graph.node for name in node.input}
    for tensor in list(proto.graph.initializer):
        if tensor.name not in used:
            proto.graph.initializer.remove(tensor)
    del proto.graph.value_info[:]


def _write_ranges(ranges: Ranges, path: Path) -> None:
    data: dict[str, Any] = {
        name: TensorData(lowest=np.float32(low), highest=np.float32(high))
        for name, (low, high) in ranges.items()
    }
    save_tensors_data(TensorsData(CalibrationMethod.MinMax, data), path)


@contextlib.contextmanager
def _without_advice() -> Iterator[None]:
    """Silence onnxruntime's advice to prepare the graph, which is done."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
