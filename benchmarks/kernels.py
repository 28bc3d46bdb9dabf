"""Fixed pieces of work that a benchmark is divided by, so that its number outlives the machine.

A ratio holds still only if both sides suffer alike from clock, caches and neighbours, so there is
one kernel of each kind of work; README.md beside this file says how they were chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import Any, Final

import cv2
import numpy as np
import onnxruntime as ort

CHANNELS: Final = 576
SIDE: Final = 20
SHAPE: Final = (1, CHANNELS, SIDE, SIDE)

Work = Callable[[], object]


def seconds(work: Work, clock: Callable[[], float] = perf_counter) -> float:
    """Return how long one call takes."""
    start = clock()
    work()
    return clock() - start


def low(times: Sequence[float]) -> float:
    """Return the lowest decile: the time that a call takes when nothing gets in its way."""
    return float(np.quantile(times, 0.1))


def convolution() -> Work:
    """A 1x1 convolution of 576 channels at 20x20 in float: 133 million multiply-adds."""
    from onnx import TensorProto, helper

    rng = np.random.default_rng(0)
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    weight = rng.normal(size=(CHANNELS, CHANNELS, 1, 1)).astype(np.float32)
    run = _session(node, TensorProto.FLOAT, {"w": weight})
    x = rng.normal(size=SHAPE).astype(np.float32)
    return lambda: run(x)


def int8_convolution() -> Work:
    """The same with uint8 activations and int8 weights, one scale for each channel."""
    from onnx import TensorProto, helper

    rng = np.random.default_rng(0)
    constants = {
        "x_scale": np.float32(0.02),
        "x_zero": np.uint8(0),
        "w": rng.integers(-127, 128, (CHANNELS, CHANNELS, 1, 1), np.int8),
        "w_scale": np.full(CHANNELS, 0.01, np.float32),
        "w_zero": np.zeros(CHANNELS, np.int8),
        "y_scale": np.float32(1),
        "y_zero": np.uint8(0),
    }
    node = helper.make_node("QLinearConv", ["x", *constants], ["y"])
    run = _session(node, TensorProto.UINT8, constants)
    x = rng.integers(0, 256, SHAPE, np.uint8)
    return lambda: run(x)


def resize() -> Work:
    """OpenCV's bilinear 1280x720 to 320x320: bytes moved and a little integer arithmetic."""
    image = np.random.default_rng(0).integers(0, 256, (720, 1280, 3), np.uint8)
    return lambda: cv2.resize(image, (320, 320), interpolation=cv2.INTER_LINEAR)


KERNELS: Final[Mapping[str, Callable[[], Work]]] = {
    "convolution": convolution,
    "int8 convolution": int8_convolution,
    "resize": resize,
}


def _session(node: Any, kind: int, constants: Mapping[str, Any]) -> Callable[[Any], object]:
    """One node from `x` to `y` of `SHAPE` on one onnxruntime thread."""
    from onnx import helper, numpy_helper

    graph = helper.make_graph(
        [node],
        "kernel",
        [helper.make_tensor_value_info("x", kind, SHAPE)],
        [helper.make_tensor_value_info("y", kind, SHAPE)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {"x": x})
