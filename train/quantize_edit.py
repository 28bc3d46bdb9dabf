"""Small edits of an onnx_ir graph, for the modules that quantise one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir


def nodes_of(graph: ir.Graph, *kinds: str) -> list[ir.Node]:
    """The nodes of some kinds, in the order of the graph, which may be edited meanwhile."""
    return [node for node in graph if node.op_type in kinds]


def readers(value: ir.Value) -> list[ir.Node]:
    """The nodes that read a value."""
    return [use.node for use in value.uses()]


def only_reader(value: ir.Value, kind: str) -> ir.Node | None:
    """The one node that reads a value, if it is of a kind."""
    found = readers(value)
    return found[0] if len(found) == 1 and found[0].op_type == kind else None


def chain_after(value: ir.Value, *kinds: str) -> list[ir.Node] | None:
    """The only reader of a value, its only reader and so on, if they are of these kinds."""
    chain: list[ir.Node] = []
    for kind in kinds:
        node = only_reader(value, kind)
        if node is None:
            return None
        chain.append(node)
        value = node.outputs[0]
    return chain


def attribute(node: ir.Node, name: str, default: Any = None) -> Any:
    """An attribute's value; several numbers as a list."""
    found = node.attributes.get(name)
    value = default if found is None else found.value
    return list(value) if isinstance(value, tuple) else value


def array(value: Any) -> npt.NDArray[Any]:
    """A constant's content."""
    content: npt.NDArray[Any] = value.const_value.numpy()
    return content


def constant(graph: ir.Graph, name: str, content: npt.ArrayLike) -> ir.Value:
    """The constant of a name, which is made unless there is one."""
    if name not in graph.initializers:
        tensor = ir.tensor(np.ascontiguousarray(content), name=name)
        graph.register_initializer(ir.Value(name=name, const_value=tensor))
    return graph.initializers[name]


def put(graph: ir.Graph, node: ir.Node, index: int, content: npt.NDArray[Any]) -> None:
    """Give a node another float constant, a new one: the old may have other readers."""
    name = f"{node.name}/{index}/{len(graph.initializers)}"
    node.replace_input_with(index, constant(graph, name, content.astype(np.float32)))


def reshape(graph: ir.Graph, value: ir.Value, shape: Sequence[int]) -> ir.Node:
    """A Reshape that is not yet in the graph."""
    name = "shape/" + "x".join(map(str, shape))
    return ir.node("Reshape", [value, constant(graph, name, np.array(shape, np.int64))])


def transpose(value: ir.Value, *order: int) -> ir.Node:
    """A Transpose that is not yet in the graph."""
    return ir.node("Transpose", [value], {"perm": list(order)})


def replace(graph: ir.Graph, node: ir.Node, value: ir.Value) -> None:
    """Let a node's readers read another value, and remove the node."""
    ir.convenience.replace_all_uses_with(node.outputs[0], value)
    graph.remove(node, safe=True)


def insert_after(graph: ir.Graph, node: ir.Node, chain: Sequence[ir.Node]) -> None:
    """Put a chain that begins at a node between it and its readers."""
    uses = [use for use in node.outputs[0].uses() if use.node is not chain[0]]
    graph.insert_after(node, chain)
    for use in uses:
        use.node.replace_input_with(use.idx, chain[-1].outputs[0])
