from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from train.graph import split_kernels, store_half


def network(*, relu_read_twice: bool = False) -> Any:
    """Convolution, normalisation, ReLU and Split of 8 channels; their sum, over 6x6 cells."""
    rng = np.random.default_rng(0)
    values = {"w": rng.normal(size=(8, 4, 3, 3)), "scale": rng.uniform(0.5, 2, 8)}
    values |= {name: rng.normal(size=8) for name in ("shift", "mean")}
    values["variance"] = rng.uniform(0.5, 2, 8)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c", "scale", "shift", "mean", "variance"], ["n"]),
        helper.make_node("Relu", ["n"], ["r"]),
        helper.make_node("Split", ["r"], ["a", "b"], axis=1, num_outputs=2),
        helper.make_node("Sub", ["a", "b"], ["y"]),
    ]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 6, 6])]
    if relu_read_twice:
        outputs.append(helper.make_tensor_value_info("r2", TensorProto.FLOAT, [1, 8, 6, 6]))
        nodes.append(helper.make_node("Neg", ["r"], ["r2"]))
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 6, 6])],
        outputs,
        [numpy_helper.from_array(v.astype(np.float32), k) for k, v in values.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def run(model: Any) -> np.ndarray:
    onnx.checker.check_model(model, full_check=True)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(1).normal(size=(1, 4, 6, 6)).astype(np.float32)
    result: np.ndarray = session.run(["y"], {"x": x})[0]
    return result


def test_a_split_convolution_computes_the_same_and_splits_no_activation() -> None:
    model = network()
    before = run(model)
    assert split_kernels(model) == 1
    assert np.allclose(run(model), before, rtol=1e-6, atol=1e-6)
    stored = {tensor.name for tensor in model.graph.initializer}
    splits = [node for node in model.graph.node if node.op_type == "Split"]
    assert stored == {"w", "scale", "shift", "mean", "variance"}
    assert {node.input[0] for node in splits} == stored


def test_a_convolution_that_others_read_whole_stays() -> None:
    model = network(relu_read_twice=True)
    before = model.SerializeToString()
    assert split_kernels(model) == 0
    assert model.SerializeToString() == before


@pytest.mark.parametrize("split", [True, False])
def test_half_kernels_change_no_result_where_they_hold_half_values(split: bool) -> None:
    model = network()
    kernel = model.graph.initializer[0]
    rounded = numpy_helper.to_array(kernel).astype(np.float16).astype(np.float32)
    kernel.CopyFrom(numpy_helper.from_array(rounded, "w"))
    before = run(model)
    if split:
        split_kernels(model)
    store_half(model)
    assert model.graph.initializer[0].data_type == TensorProto.FLOAT16
    assert np.allclose(run(model), before, rtol=1e-6, atol=1e-6)
