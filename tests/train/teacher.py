"""A small detector to imitate, as an ONNX file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CHANNELS = 4
NATIVE = 320
BINS = 4


def save_teacher(path: Path) -> None:
    """A detector as exporters write them: batch 1, side 320 and a channel shuffle in constants.

    Its features at strides 16, 32, 64 are averages of the (scaled) blue, green and red of the cell
    and one channel of ones, shuffled; its scores are sigmoids of blue and green, flattened; its
    boxes reach one cell to each side of a cell's centre (all distances are in the second bin).
    """
    nodes, constants, outputs = [], [], []

    def constant(name: str, value: np.ndarray) -> str:
        constants.append(numpy_helper.from_array(value, name))
        return name

    kernel = np.zeros((CHANNELS, 3, 1, 1), np.float32)
    kernel[[0, 1, 2], [0, 1, 2]] = 1
    bias = constant("bias", np.array([0, 0, 0, 1], np.float32))
    nodes.append(helper.make_node("Conv", ["image", constant("kernel", kernel), bias], ["colours"]))
    for stride in (16, 32, 64):
        grid, s = NATIVE // stride, str(stride)
        pair = constant(f"pair{s}", np.array([1, 2, CHANNELS // 2, grid, grid]))
        back = constant(f"back{s}", np.array([1, CHANNELS, grid, grid]))
        flat = constant(f"flat{s}", np.array([1, 2, -1]))
        nodes += [
            helper.make_node(
                "AveragePool",
                ["colours"],
                [f"cells{s}"],
                kernel_shape=[stride] * 2,
                strides=[stride] * 2,
            ),
            helper.make_node("Reshape", [f"cells{s}", pair], [f"p{s}"]),
            helper.make_node("Transpose", [f"p{s}"], [f"t{s}"], perm=[0, 2, 1, 3, 4]),
            helper.make_node("Reshape", [f"t{s}", back], [f"feature{s}"]),
            helper.make_node(
                "Slice",
                [
                    f"cells{s}",
                    constant(f"a{s}", np.array([0])),
                    constant(f"b{s}", np.array([2])),
                    constant(f"c{s}", np.array([1])),
                ],
                [f"first{s}"],
            ),
            helper.make_node("Sigmoid", [f"first{s}"], [f"sigmoid{s}"]),
            helper.make_node("Reshape", [f"sigmoid{s}", flat], [f"r{s}"]),
            helper.make_node("Transpose", [f"r{s}"], [f"score{s}"], perm=[0, 2, 1]),
        ]
        logits = constant(f"bins{s}", np.tile([0.0, 50, 0, 0], 4).astype(np.float32))
        zeros = constant(f"zeros{s}", np.zeros((4 * BINS, 3, stride, stride), np.float32))
        flat_bins = constant(f"flat_bins{s}", np.array([1, 4 * BINS, -1]))
        nodes += [
            helper.make_node("Conv", ["image", zeros, logits], [f"b0{s}"], strides=[stride] * 2),
            helper.make_node("Reshape", [f"b0{s}", flat_bins], [f"b1{s}"]),
            helper.make_node("Transpose", [f"b1{s}"], [f"box{s}"], perm=[0, 2, 1]),
        ]
        outputs.append(helper.make_tensor_value_info(f"score{s}", TensorProto.FLOAT, None))
        outputs.append(helper.make_tensor_value_info(f"box{s}", TensorProto.FLOAT, None))
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, NATIVE, NATIVE])
    graph = helper.make_graph(nodes, "teacher", [image], outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, path)


def options(path: Path, **changed: str) -> dict[str, str]:
    """What `fit` is told to imitate it."""
    return {
        "mimic": str(path),
        "mimic_features": "feature16,feature32,feature64",
        "mimic_scores": "score16, score32, score64",
        "mimic_mean": "100,0,0",
        "mimic_std": "10,1,1",
        **changed,
    }
