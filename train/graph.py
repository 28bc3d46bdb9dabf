"""Rewrites of an exported graph that make it smaller or faster and leave its function as it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np


def store_half(proto: Any) -> None:
    """Store convolution kernels as float16; a Cast behind each is folded while loading.

    Args:
        proto: The model; kernels must hold float16 values already.
    """
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for tensor in proto.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype != np.float32 or array.ndim != 4:
            continue
        full = f"{tensor.name}/float32"
        for node in proto.graph.node:
            node.input[:] = [full if name == tensor.name else name for name in node.input]
        casts.append(helper.make_node("Cast", [tensor.name], [full], to=TensorProto.FLOAT))
        tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float16), tensor.name))
    for node in reversed(casts):
        proto.graph.node.insert(0, node)


def split_kernels(proto: Any) -> int:
    """Where the output of a convolution is split, split its kernel and compute each part apart.

    A Res2Block splits what its first convolution gives. onnxruntime computes convolutions in blocks
    of 16 channels and leaves that layout for a Split, and again for each sum of a part and a
    branch: eight changes of layout a block. Four convolutions over the same input take about the
    time of one and stay in the layout; the whole network takes 1 to 2 % less.

    The weights keep their names; splitting them is folded while loading.

    Args:
        proto: The model; convolution, batch normalisation, ReLU and Split in this order, each read
            by the next alone, are rewritten.

    Returns:
        How many splits were rewritten.
    """
    chains = list(_chains(proto))
    for chain in chains:
        for node in _apart(*chain):
            proto.graph.node.insert(_index(proto, chain[-1]), node)
        for node in chain:
            proto.graph.node.remove(node)
    return len(chains)


def _chains(proto: Any) -> Iterator[tuple[Any, Any, Any, Any]]:
    makers = {name: node for node in proto.graph.node for name in node.output}
    readers: dict[str, int] = {}
    for node in proto.graph.node:
        for name in node.input:
            readers[name] = readers.get(name, 0) + 1
    for split in proto.graph.node:
        chain = [split]
        for kind in ("Split", "Relu", "BatchNormalization", "Conv"):
            node = chain[0]
            if node.op_type != kind or (node is not split and readers[node.output[0]] != 1):
                break
            if kind != "Conv":
                chain.insert(0, makers.get(node.input[0], node))
        else:
            conv, norm, relu, split = chain
            yield conv, norm, relu, split


def _apart(conv: Any, norm: Any, relu: Any, split: Any) -> Iterator[Any]:
    """The same as one convolution, normalisation and ReLU for each output of `split`."""
    from onnx import helper

    parts = len(split.output)
    pieces: dict[str, list[str]] = {}
    for name in (*conv.input[1:], *norm.input[1:]):
        pieces[name] = [f"{name}/{part}" for part in range(parts)]
        yield helper.make_node("Split", [name], pieces[name], axis=0, num_outputs=parts)
    for part, output in enumerate(split.output):
        value = conv.input[0]
        for node in (conv, norm, relu):
            inputs = [value, *(pieces[name][part] for name in node.input[1:])]
            value = output if node is relu else f"{node.output[0]}/{part}"
            piece = helper.make_node(node.op_type, inputs, [value], name=f"make {value}")
            piece.attribute.extend(node.attribute)
            yield piece


def _index(proto: Any, node: Any) -> int:
    return next(n for n, other in enumerate(proto.graph.node) if other is node)
