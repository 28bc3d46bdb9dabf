"""The float graph of a model file, folded and laid out as int8 kernels compute it fastest.

Each step leaves the function of the network as it is, so that the result can be compared with the
file it came from and is what calibration measures. Times are of onnxruntime 1.32 on one core with
AVX-512 VNNI, for RefineDetLite72 at 320x320, which takes 7 ms.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from rdlite.errors import ModelError
from train.quantize_edit import (
    array,
    attribute,
    chain_after,
    constant,
    insert_after,
    nodes_of,
    only_reader,
    put,
    readers,
    replace,
    reshape,
    transpose,
)

CENTRED = "image/centred"
"""The bytes of the image minus `ZERO`, the first tensor that is quantised."""

ZERO = "image/zero"
"""The constant byte, as a float, that stands for zero in the image."""

LAYERS = ("Conv", "Gemm")
"""Operators with weights."""

_NARROW = 32  # channels of a group
_PIXELS = 4

Bytes = npt.NDArray[np.uint8]


def prepare(path: str | Path) -> onnx.ModelProto:
    """Fold and rearrange the graph of a model file.

    Args:
        path: An fp32 model file of `python -m train export`.

    Returns:
        The float graph. Its layers are named after their weights: "arm.0.reduce".

    Raises:
        ModelError: The graph does not begin as those of `python -m train export`.
    """
    model = ir.from_proto(_folded(path))
    _name_layers(model.graph)
    padding = _fold_input(model.graph, path)
    _group_pixels(model.graph, padding, path)
    _join_parts(model.graph)
    _fill_groups(model.graph)
    _predict_rows(model.graph)
    _repeat_cells(model.graph)
    RemoveUnusedNodesPass()(model)
    for number, node in enumerate(model.graph):
        node.name = node.name or f"{node.op_type}/{number}"
    model.metadata_props.clear()
    proto = ir.to_proto(model)
    del proto.graph.value_info[:]  # inferred anew by whoever needs it
    onnx.checker.check_model(proto)
    return proto


def layer_names(proto: onnx.ModelProto) -> list[str]:
    """Names of the operators with weights, in the order of the graph."""
    return [node.name for node in proto.graph.node if node.op_type in LAYERS]


def _folded(path: str | Path) -> onnx.ModelProto:
    """The graph with its constants computed and batch normalisation in the convolutions."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = str(Path(folder, "folded.onnx"))
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        proto = onnx.load(options.optimized_model_filepath)
    opsets = [opset for opset in proto.opset_import if not opset.domain]
    del proto.opset_import[:]
    proto.opset_import.extend(opsets)  # onnxruntime lists all that it knows
    return onnx.shape_inference.infer_shapes(proto)


def _name_layers(graph: ir.Graph) -> None:
    """Name layers after their weights, with "/1" for the second part of one that was split."""
    pattern = re.compile(r"(?:^|_)([a-z]\w*(?:\.\w+)*?)(?:\.conv)?\.weight(?:/float32)?(/\d+)?")
    for node in nodes_of(graph, "Conv"):
        found = pattern.search(node.inputs[1].name)
        node.name = "".join(found.groups(default="")) if found else node.inputs[1].name


def _fold_input(graph: ir.Graph, path: str | Path) -> Bytes:
    """Move the first batch normalisation into the first convolution.

    Returns:
        The byte of each channel that the network pads with: zero behind the normalisation.
    """
    kinds = ("Transpose", "Cast", "BatchNormalization", "Conv", "Relu")
    chain = chain_after(graph.inputs[0], *kinds)
    if chain is None:
        raise ModelError(
            f"{path}: does not begin with {', '.join(kinds)}, as every RefineDetLite that `python "
            "-m train export` writes: only these are quantised, other detectors stay in fp32"
        )
    _, cast, norm, conv, _ = chain
    weight, bias, mean, variance = (array(value).astype(float) for value in norm.inputs[1:])
    scale = weight / np.sqrt(variance + attribute(norm, "epsilon", 1e-5))
    shift = bias - mean * scale
    padding = np.clip(np.rint(-shift / scale), 0, 255).astype(np.uint8)
    zero = np.float32(np.rint(padding.mean()))
    kernel = array(conv.inputs[1])
    inside = (kernel * (shift + scale * zero)[:, None, None]).sum((1, 2, 3))
    put(graph, conv, 1, kernel * scale[:, None, None])
    put(graph, conv, 2, array(conv.inputs[2]) + inside)
    centre = ir.node("Sub", [cast.outputs[0], constant(graph, ZERO, zero)], name=CENTRED)
    centre.outputs[0].name = CENTRED
    graph.insert_before(norm, centre)
    replace(graph, norm, centre.outputs[0])
    return padding


def _group_pixels(graph: ir.Graph, padding: Bytes, path: str | Path) -> None:
    """Let the first convolution, 3x3 of stride 2, see four neighbouring pixels as 12 channels.

    Its direct kernel needs channels by the four, and three bytes a pixel are a reshape away from
    twelve a group: 3x2 groups give two neighbouring outputs, which a reshape sets apart again.
    0.23 ms in place of 0.69. The padding, other bytes in each channel, becomes a row and a column
    of the image (0.02 ms): with one byte for all, the error of the whole network is 5 % more.
    """
    first, conv = readers(graph.inputs[0])[0], next(n for n in graph if n.op_type == "Conv")
    relu = readers(conv.outputs[0])[0]
    kernel, (_, height, width, colours) = array(conv.inputs[1]), graph.inputs[0].shape
    geometry = [attribute(conv, name) for name in ("kernel_shape", "strides", "pads")]
    if geometry != [[3, 3], [2, 2], [1, 1, 1, 1]] or width % _PIXELS or height % 2:
        raise ModelError(
            f"{path}: the first convolution must be 3x3 of stride 2 with one pixel of padding over "
            f"an image with sides by the {_PIXELS}, got {geometry} over {height}x{width}: "
            "only a RefineDetLite of `python -m train export` is quantised"
        )
    outputs, channels = len(kernel), _PIXELS * colours
    grouped = np.zeros((2, outputs, _PIXELS, colours, 3, 2), np.float32)
    for place in range(2):  # output 2g + place reads pixels 4g + 2 place + (-1, 0, 1)
        for tap in range(3):
            pixel = 2 * place + tap - 1
            grouped[place, :, pixel % _PIXELS, :, :, int(pixel >= 0)] = kernel[:, :, :, tap]
    put(graph, conv, 1, grouped.reshape(2 * outputs, channels, 3, 2))
    put(graph, conv, 2, np.tile(array(conv.inputs[2]), 2))
    for name, value in (("kernel_shape", [3, 2]), ("strides", [2, 1]), ("pads", [0, 0, 0, 0])):
        conv.attributes[name] = ir.AttrInt64s(name, value)
    pixels = reshape(graph, graph.inputs[0], [1, height, width // _PIXELS, channels])
    group = np.tile(padding, _PIXELS)
    row = constant(graph, "image/row", np.tile(group, (1, 1, width // _PIXELS, 1)))
    column = constant(graph, "image/column", np.tile(group, (1, height + 1, 1, 1)))
    below = ir.node("Concat", [row, pixels.outputs[0]], {"axis": 1})
    right = ir.node("Concat", [column, below.outputs[0]], {"axis": 2})
    graph.insert_before(first, [pixels, below, right])
    first.replace_input_with(0, right.outputs[0])
    last = transpose(relu.outputs[0], 0, 2, 3, 1)
    apart = reshape(graph, last.outputs[0], [1, height // 2, width // 2, outputs])
    insert_after(graph, relu, [last, apart, transpose(apart.outputs[0], 0, 3, 1, 2)])


def _join_parts(graph: ir.Graph) -> None:
    """Make one convolution and a Split of the parts that `train.graph.split_kernels` made.

    Splitting bytes is cheaper than three more convolutions: 1 % of the whole network.
    """
    parts: dict[str, list[ir.Node]] = {}
    for conv in nodes_of(graph, "Conv"):
        name, _, part = conv.name.partition("/")
        if part:
            parts.setdefault(name, []).append(conv)
    for name, convs in parts.items():
        first = convs[0]
        convs.sort(key=lambda conv: int(conv.name.rpartition("/")[2]))
        constants = [
            constant(
                graph, f"{name}/{index}", np.concatenate([array(c.inputs[index]) for c in convs])
            )
            for index in (1, 2)
        ]
        joined = ir.node("Conv", [first.inputs[0], *constants], first.attributes, name=name)
        relu = ir.node("Relu", joined.outputs)
        count = len(convs)
        split = ir.node("Split", relu.outputs, {"axis": 1, "num_outputs": count}, num_outputs=count)
        graph.insert_before(first, [joined, relu, split])
        for conv, output in zip(convs, split.outputs, strict=True):
            replace(graph, readers(conv.outputs[0])[0], output)
            graph.remove(conv, safe=True)


def _fill_groups(graph: ir.Graph) -> None:
    """Make convolutions of narrow groups dense, with zeros between the groups.

    onnxruntime's direct int8 kernel is for dense convolutions. For 2 x 16 channels at 40x40 cells
    it takes 40 us, the grouped one 98; from 2 x 64 channels on the grouped one is faster.
    """
    for conv in nodes_of(graph, "Conv"):
        groups, kernel = attribute(conv, "group", 1), array(conv.inputs[1])
        outputs, inputs = kernel.shape[0] // groups, kernel.shape[1]
        if groups == 1 or inputs > _NARROW:
            continue
        dense = np.zeros((len(kernel), groups * inputs, *kernel.shape[2:]), np.float32)
        for group in range(groups):
            rows = slice(group * outputs, (group + 1) * outputs)
            dense[rows, group * inputs : (group + 1) * inputs] = kernel[rows]
        put(graph, conv, 1, dense)
        conv.attributes["group"] = ir.AttrInt64("group", 1)


def _predict_rows(graph: ir.Graph) -> None:
    """Turn 1x1 convolutions before a Transpose to channels-last into products of matrices.

    onnxruntime has an int8 product with float output, so that offsets and logits are not rounded
    to bytes, which takes a fifth off the error of the whole network; and it saves 0.04 ms.
    """
    rows: dict[ir.Value, ir.Value] = {}
    for conv in nodes_of(graph, "Conv"):
        turn, kernel = only_reader(conv.outputs[0], "Transpose"), array(conv.inputs[1])
        if turn is None or kernel.shape[2:] != (1, 1) or attribute(turn, "perm") != [0, 2, 3, 1]:
            continue
        source = conv.inputs[0]
        if source not in rows:
            last = transpose(source, 0, 2, 3, 1)
            flat = reshape(graph, last.outputs[0], [-1, kernel.shape[1]])
            graph.insert_after(source.producer(), [last, flat])
            rows[source] = flat.outputs[0]
        matrix = constant(graph, f"{conv.name}/matrix", kernel[:, :, 0, 0])
        inputs = [rows[source], matrix, conv.inputs[2]]
        gemm = ir.node("Gemm", inputs, {"transB": 1}, name=conv.name)
        graph.insert_before(conv, gemm)
        replace(graph, turn, gemm.outputs[0])
        graph.remove(conv, safe=True)


def _repeat_cells(graph: ir.Graph) -> None:
    """Enlarge maps by picking rows and columns, channels last: 0.02 ms in place of 0.1."""
    names = ("mode", "coordinate_transformation_mode", "nearest_mode")
    for resize in nodes_of(graph, "Resize"):
        if [attribute(resize, name) for name in names] != ["nearest", "asymmetric", "floor"]:
            continue
        source, target = resize.inputs[0].shape, resize.outputs[0].shape
        last = transpose(resize.inputs[0], 0, 2, 3, 1)
        picks = [last]
        for axis in (2, 3):
            cells = np.arange(target[axis]) * source[axis] // target[axis]
            index = constant(graph, f"cells/{source[axis]}/{target[axis]}", cells)
            picks.append(ir.node("Gather", [picks[-1].outputs[0], index], {"axis": axis - 1}))
        first = transpose(picks[-1].outputs[0], 0, 3, 1, 2)
        graph.insert_before(resize, [*picks, first])
        replace(graph, resize, first.outputs[0])
