"""Small operations on an ONNX graph: names, constants, who makes and who uses a value. Subgraphs are followed.

Everything here changes the given model; whoever wants to keep it hands in a copy.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
from onnx import GraphProto, ModelProto, NodeProto, numpy_helper

#: Names that begin so are made here and nowhere else.
OWN_PREFIX = "defectoscope/"


def standard_opset(model: ModelProto) -> int:
    """Return the version of the standard operator set that the model is written for."""
    return next(int(entry.version) for entry in model.opset_import if entry.domain in {"", "ai.onnx"})


def graphs_of(graph: GraphProto) -> Iterator[GraphProto]:
    """Yield a graph and every graph inside its nodes."""
    yield graph
    for node in graph.node:
        for inner in subgraphs_of(node):
            yield from graphs_of(inner)


def subgraphs_of(node: NodeProto) -> Iterator[GraphProto]:
    """Yield the graphs right inside a node, such as the branches of an If."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def free_names(graph: GraphProto, taken: Iterable[str]) -> dict[str, str]:
    """Rename whatever has one of the taken names, or a name that only this package gives.

    Args:
        graph: changed in place, subgraphs included.
        taken: names that must be free afterwards.

    Returns:
        New names by old ones, for those that were changed.
    """
    used = {name for each in graphs_of(graph) for name in _names(each)}
    reserved = set(taken)
    renamed: dict[str, str] = {}
    for name in sorted(used):
        if name in reserved or name.startswith(OWN_PREFIX):
            fresh = f"foreign/{name.removeprefix(OWN_PREFIX)}"
            while fresh in used or fresh in reserved:
                fresh += "_"
            used.add(fresh)
            renamed[name] = fresh
    if renamed:
        rename(graph, renamed)
    return renamed


def rename(graph: GraphProto, names: dict[str, str]) -> None:
    """Give values new names, wherever they are made or used, subgraphs included."""
    for each in graphs_of(graph):
        for node in each.node:
            node.input[:] = [names.get(name, name) for name in node.input]
            node.output[:] = [names.get(name, name) for name in node.output]
        for described in (*each.input, *each.output, *each.value_info, *each.initializer):
            described.name = names.get(described.name, described.name)
        for sparse in each.sparse_initializer:
            sparse.values.name = names.get(sparse.values.name, sparse.values.name)


def constant(graph: GraphProto, name: str) -> npt.NDArray[np.generic] | None:
    """Return the value of a constant of the graph, or None where the name is no constant."""
    for tensor in graph.initializer:
        if tensor.name == name:
            return numpy_helper.to_array(tensor)
    for node in graph.node:
        if node.op_type == "Constant" and name in node.output:
            for attribute in node.attribute:
                if attribute.name == "value":
                    return numpy_helper.to_array(attribute.t)
        if node.op_type == "Identity" and name in node.output:
            return constant(graph, node.input[0])
    return None


def makers(graph: GraphProto) -> dict[str, NodeProto]:
    """Return the node that makes each value."""
    return {name: node for node in graph.node for name in node.output if name}


def inputs_of(node: NodeProto) -> list[str]:
    """Return the values a node uses, those that its subgraphs take from around them included."""
    names = [name for name in node.input if name]
    for graph in subgraphs_of(node):
        own = {described.name for described in (*graph.input, *graph.initializer)}
        own |= {name for inside in graph.node for name in inside.output}
        used = [name for inside in graph.node for name in inputs_of(inside)]
        names += [name for name in (*used, *(value.name for value in graph.output)) if name not in own]
    return names


def depend_on(graph: GraphProto, name: str) -> set[str]:
    """Return every value that follows from one, itself included; the nodes are in the order that ONNX demands."""
    found = {name}
    for node in graph.node:
        if found.intersection(inputs_of(node)):
            found.update(output for output in node.output if output)
    return found


def prune(graph: GraphProto) -> None:
    """Remove the nodes and constants that no output needs."""
    needed = {value.name for value in graph.output}
    for index in reversed(range(len(graph.node))):
        node = graph.node[index]
        if needed.intersection(node.output):
            needed.update(inputs_of(node))
        else:
            del graph.node[index]
    for index in reversed(range(len(graph.initializer))):
        if graph.initializer[index].name not in needed:
            del graph.initializer[index]
    for index in reversed(range(len(graph.sparse_initializer))):
        if graph.sparse_initializer[index].values.name not in needed:
            del graph.sparse_initializer[index]


def _names(graph: GraphProto) -> Iterator[str]:
    for node in graph.node:
        yield from (name for name in (*node.input, *node.output) if name)
    for described in (*graph.input, *graph.output, *graph.initializer):
        yield described.name
    for sparse in graph.sparse_initializer:
        yield sparse.values.name
