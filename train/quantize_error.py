"""How far the outputs of an int8 graph are off, and which layers are to blame."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from tqdm import tqdm

from rdlite.modelfile import OUTPUTS
from train.quantize_build import Bytes, read_bytes
from train.quantize_calibrate import Images
from train.quantize_edit import constant, only_reader, put
from train.quantize_graph import LAYERS, layer_names

Floats = npt.NDArray[np.float32]

SUREST = 100
"""Anchors of an image whose outputs are compared.

Those that the float network is surest of: over all anchors, background hides what clipping does to
objects. Of RefineDetLite72, graphs of 32, 31, 29, 25, 20, 16 and 13 dB lost 0.0, 0.2, 0.5, 1.0,
1.1, 2.4 and 4.5 points of AP50 on 600 images of VOC.
"""


class LayerError(NamedTuple):
    """What one layer does to the outputs when it alone is quantised.

    Attributes:
        name: The layer.
        error: Power of the error over power of the signal.
        outputs: The same of each output, as in `rdlite.modelfile.OUTPUTS`.
    """

    name: str
    error: float
    outputs: tuple[float, ...]


class Reference:
    """What the float graph answers to some images.

    Args:
        proto: The float graph.
        images: uint8 `(N, H, W, 3)`, BGR.
    """

    def __init__(self, proto: onnx.ModelProto, images: Images) -> None:
        self._images = images
        self._sure: list[npt.NDArray[np.intp]] = []
        answers = self._run(proto)
        for logits in answers[-1]:
            odds = np.exp(logits - logits.max(axis=1, keepdims=True))
            best = odds[:, 1:].max(axis=1) / odds.sum(axis=1)
            self._sure.append(np.argsort(-best, kind="stable")[:SUREST])
        self._wanted = self._pick(answers)

    def errors(self, proto: onnx.ModelProto) -> tuple[float, ...]:
        """Power of the error over power of the signal of each output of another graph."""
        got = self._pick(self._run(proto))
        return tuple(
            float(np.square(a - b).mean(dtype=float) / (np.var(a, dtype=float) or 1))
            for a, b in zip(self._wanted, got, strict=True)
        )

    def error(self, proto: onnx.ModelProto) -> float:
        """The mean of `errors`."""
        return float(np.mean(self.errors(proto)))

    def _run(self, proto: onnx.ModelProto) -> list[list[Floats]]:
        """For each output, the array of each image."""
        session = open_graph(proto)
        answers = [session.run(OUTPUTS, {"image": image[None]}) for image in self._images]
        return [[output[0] for output in outputs] for outputs in zip(*answers, strict=True)]

    def _pick(self, answers: Sequence[Sequence[Floats]]) -> list[Floats]:
        return [
            np.concatenate([rows[sure] for rows, sure in zip(output, self._sure, strict=True)])
            for output in answers
        ]


def decibel(error: float) -> float:
    """Signal over error; infinite where there is no error."""
    return -10 * math.log10(error) if error else math.inf


def open_graph(proto: onnx.ModelProto) -> Any:
    """An onnxruntime session of one thread, with all optimisations, as the run time has it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    content = proto.SerializeToString()
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def channel_means(proto: onnx.ModelProto, images: Images) -> dict[str, Floats]:
    """Mean of each channel of what each layer reads, by the name of the tensor."""
    layers = [node for node in proto.graph.node if node.op_type in LAYERS]
    channels_last = {node.input[0]: node.op_type == "Gemm" for node in layers}
    extended = onnx.ModelProto()
    extended.CopyFrom(proto)
    for name in channels_last:
        extended.graph.output.append(onnx.ValueInfoProto(name=name))
    sums: dict[str, Any] = dict.fromkeys(channels_last, 0)
    session = open_graph(extended)
    for image in images:
        for name, array in zip(sums, session.run(list(sums), {"image": image[None]}), strict=True):
            sums[name] += array.mean(axis=0 if channels_last[name] else (0, 2, 3))
    return {name: total / len(images) for name, total in sums.items()}


def layer_errors(
    proto: onnx.ModelProto, quantised: onnx.ModelProto, reference: Reference
) -> list[LayerError]:
    """Quantise each layer alone, its weights, input and output, and measure; the worst first.

    Args:
        proto: The float graph.
        quantised: The int8 graph made of it, with all layers quantised.
        reference: What is compared with.
    """
    found, rows = read_bytes(quantised), []
    for name in tqdm(layer_names(proto), "layers", disable=None):
        errors = reference.errors(alone(proto, name, found))
        rows.append(LayerError(name, float(np.mean(errors)), errors))
    return sorted(rows, key=lambda row: -row.error)


def alone(proto: onnx.ModelProto, name: str, found: Bytes) -> onnx.ModelProto:
    """The float graph with one layer rounded as in the int8 graph."""
    model = ir.from_proto(proto)
    layer = next(node for node in model.graph if node.name == name)
    put(model.graph, layer, 1, found.weights[name])
    put(model.graph, layer, 2, found.biases[name])
    _round(model.graph, found, layer.inputs[0], [(layer, 0)])
    relu = only_reader(layer.outputs[0], "Relu")
    output = relu.outputs[0] if relu else layer.outputs[0]
    _round(model.graph, found, output, list(output.uses()))
    return ir.to_proto(model)


def _round(
    graph: ir.Graph, found: Bytes, value: ir.Value, uses: Sequence[tuple[ir.Node, int]]
) -> None:
    """Let some readers of a value read what bytes keep of it."""
    if value.name not in found.scales:
        return
    parameters = [
        constant(graph, f"{value.name}/{number}", content)
        for number, content in enumerate(found.scales[value.name])
    ]
    quantize = ir.node("QuantizeLinear", [value, *parameters])
    dequantize = ir.node("DequantizeLinear", [quantize.outputs[0], *parameters])
    graph.insert_after(value.producer(), [quantize, dequantize])
    for node, index in uses:
        node.replace_input_with(index, dequantize.outputs[0])
