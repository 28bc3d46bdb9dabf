"""Multiply-adds of a model, counted from the shapes that its convolutions and products run with."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.table.session import node_events, open_session, random_inputs

CONVOLUTIONS = ("Conv", "QLinearConv", "ConvInteger")
PRODUCTS = ("Gemm", "MatMul", "QLinearMatMul", "MatMulInteger")
_UNCOUNTED = ("Einsum", "GRU", "LSTM", "RNN", "Attention")


class Layer(NamedTuple):
    """One node that multiplies and adds.

    Attributes:
        name: The node's name.
        kind: "dense", "grouped" or "depthwise" (one input channel a group) convolution,
            "transposed" convolution, or "product" of matrices.
        macs: Multiply-adds for one run of the graph.
    """

    name: str
    kind: str
    macs: int


def count_macs(model: str | Path | bytes) -> list[Layer]:
    """Count the multiply-adds of every convolution and matrix product.

    A convolution takes (elements of its output) x (input channels of a group) x (kernel area);
    bias, activations, pooling and resizing count nothing, as in the papers' tables. The graph runs
    once as it is in the file, so that shapes which depend on others are known too.

    Args:
        model: An .onnx file, or its content; its inputs must have fixed sizes.

    Returns:
        The layers in the order in which they ran.

    Raises:
        ValueError: An input has no fixed size, or the graph has a node that multiplies in another
            way.
    """
    session = open_session(model, profile=True, optimise=False)
    session.run(None, random_inputs(session))
    events = [(name, args) for name, args, _ in node_events(session.end_profiling())]
    return [_layer(name, args) for name, args in events if _counts(args["op_name"])]


def total_macs(model: str | Path | bytes) -> int:
    """The sum of `count_macs`."""
    return sum(layer.macs for layer in count_macs(model))


def _counts(operator: str) -> bool:
    if operator in _UNCOUNTED:
        raise ValueError(f"the multiply-adds of {operator} are not counted here")
    return operator in (*CONVOLUTIONS, *PRODUCTS, "ConvTranspose")


def _layer(name: str, args: dict[str, Any]) -> Layer:
    operator = args["op_name"]
    inputs = [next(iter(shape.values())) for shape in args["input_type_shape"]]
    output = next(iter(args["output_type_shape"][0].values()))
    # A QLinear node has scale and zero point of its data before the weights.
    data, weight = inputs[0], inputs[3 if operator.startswith("QLinear") else 1]
    name = name.removesuffix("_kernel_time")
    if operator == "ConvTranspose":
        return Layer(name, "transposed", math.prod(data) * math.prod(weight[1:]))
    if operator in PRODUCTS:
        # The first matrix of a Gemm may be transposed.
        inner = math.prod(data) // output[0] if operator == "Gemm" else data[-1]
        return Layer(name, "product", math.prod(output) * inner)
    kind = "dense" if weight[1] == data[1] else "grouped"
    kind = "depthwise" if weight[1] == 1 < data[1] else kind
    return Layer(name, kind, math.prod(output) * math.prod(weight[1:]))
