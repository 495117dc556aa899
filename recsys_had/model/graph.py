"""The graph of interaction nodes: what each reads, what shape it gives, how heads make a logit.

Letters: B batch, F fields, D embedding_dim, N = F*D.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from recsys_had import interactions
from recsys_had.errors import ConfigError
from recsys_had.nodes import NodeConfig, build_layer, heads

Shape = tuple[int, ...]


@dataclass(frozen=True)
class NodeSummary:
    """What ``describe`` tells of a node.

    Args:
        name: the node.
        layer: its interaction.
        inputs: what it reads.
        input_shape: shape of the joined input, without the batch.
        output_shape: shape of the output, without the batch.
        parameters: learned numbers of the layer and of its head, tables not counted.
        flops_per_row: multiplications and additions a row, the head's included.
        degree: polynomial degree in the embeddings, or None.
    """

    name: str
    layer: str
    inputs: tuple[str, ...]
    input_shape: Shape
    output_shape: Shape
    parameters: int
    flops_per_row: int
    degree: int | None


def table_widths(nodes: Mapping[str, NodeConfig], embedding_dim: int) -> dict[str, int]:
    """Sets of embedding tables a model needs, with their widths.

    ``fields`` is the shared set; a layer that owns its tables (``linear``) adds a set under its
    node's name when it reads the fields directly.
    """
    widths: dict[str, int] = {}
    for name, node in nodes.items():
        own = interactions.own_tables(node.layer)
        if own is not None and node.inputs == ("fields",):
            widths[name] = own
        elif "fields" in node.inputs:
            widths["fields"] = embedding_dim
    return widths


class InteractionGraph(nn.Module):
    """Runs the nodes in order and sums the heads into one logit.

    A node joins its inputs over the fields when all have the same width, else flattened. A head
    is a node nobody reads: its output counts as it is when it is ``(B, 1)``, else through a
    linear map to 1. One bias is added to the sum.

    Shape: sources ``(B, F, D)`` or ``(B, N)`` -> ``(B,)``.
    Paper: none; the wide-and-deep sum of heads is that of Cheng et al. 2016, eq. 3.
    Differs from the paper: any number of heads.

    Args:
        nodes: the graph, in order of reading.
        sources: shape of each source without the batch; a node's own tables under its name.

    Raises:
        ConfigError: a layer refuses its options or its input's shape.

    >>> nodes = {"fm": NodeConfig(layer="fm"), "deep": NodeConfig(layer="mlp")}
    >>> graph = InteractionGraph(nodes=nodes, sources={"fields": (3, 4)})
    >>> graph({"fields": torch.zeros(2, 3, 4)}).shape
    torch.Size([2])
    """

    def __init__(self, *, nodes: Mapping[str, NodeConfig], sources: Mapping[str, Shape]) -> None:
        super().__init__()
        self._config = dict(nodes)
        self._reads = {name: _reads(name, node, sources) for name, node in nodes.items()}
        self.layers = nn.ModuleDict()
        self.heads = nn.ModuleDict()
        self.bias = nn.Parameter(torch.zeros(1))
        self._input_shapes: dict[str, Shape] = {}
        self._head_names = heads(dict(nodes))
        shapes = dict(sources)
        outputs: dict[str, Shape] = {}
        for name, node in nodes.items():
            inputs = [outputs.get(source, shapes.get(source, ())) for source in self._reads[name]]
            num_fields, width = _joined_shape(inputs)
            layer = build_layer(node, name=name, num_fields=num_fields, embedding_dim=width)
            self.layers[name] = layer
            self._input_shapes[name] = (num_fields, width)
            outputs[name] = layer.output_shape
        self._output_shapes = outputs
        for name in self._head_names:
            if outputs[name] != (1,):
                self.heads[name] = _head(math.prod(outputs[name]))

    def forward(self, sources: Mapping[str, Tensor]) -> Tensor:
        """Computes the logit of every row."""
        outputs: dict[str, Tensor] = {}
        for name, layer in self.layers.items():
            inputs = [
                outputs[source] if source in outputs else sources[source]
                for source in self._reads[name]
            ]
            outputs[name] = layer(_join(inputs))
        logit: Tensor = self.bias
        for name in self._head_names:
            out = outputs[name]
            logit = logit + (self.heads[name](out.flatten(1)) if name in self.heads else out)
        return logit.squeeze(1)

    def summaries(self) -> list[NodeSummary]:
        """Shapes, parameters, cost and degree of every node."""
        degrees: dict[str, int | None] = {}
        found = []
        for name in self.layers:
            layer: Any = self.layers[name]
            read = [degrees.get(s, 1) for s in self._reads[name]]
            known = [degree for degree in read if degree is not None]
            whole = layer.degree is not None and len(known) == len(read)
            degrees[name] = layer.degree * max(known) if whole else None
            modules = [layer, *([self.heads[name]] if name in self.heads else [])]
            parameters = sum(p.numel() for module in modules for p in module.parameters())
            head_flops = 2 * math.prod(self._output_shapes[name]) if name in self.heads else 0
            found.append(
                NodeSummary(
                    name=name,
                    layer=self._config[name].layer,
                    inputs=self._config[name].inputs,
                    input_shape=self._input_shapes[name],
                    output_shape=self._output_shapes[name],
                    parameters=parameters,
                    flops_per_row=layer.flops_per_row + head_flops,
                    degree=degrees[name],
                )
            )
        return found


def _reads(name: str, node: NodeConfig, sources: Mapping[str, Shape]) -> tuple[str, ...]:
    """Its own tables stand under the node's name, in place of the shared fields."""
    inputs = (name,) if name in sources and node.inputs == ("fields",) else node.inputs
    if "dense" in inputs and "dense" not in sources:
        raise ConfigError(
            f"model.nodes.{name}: reads 'dense'. The dataset card has no dense column. "
            "Read 'fields' instead."
        )
    return inputs


def _joined_shape(shapes: list[Shape]) -> tuple[int, int]:
    """(num_fields, embedding_dim) of inputs put together; a flat one is a single wide field."""
    if all(len(shape) == 2 for shape in shapes) and len({shape[1] for shape in shapes}) == 1:
        return sum(shape[0] for shape in shapes), shapes[0][1]
    return 1, sum(math.prod(shape) for shape in shapes)


def _join(inputs: list[Tensor]) -> Tensor:
    if all(x.dim() == 3 for x in inputs) and len({x.shape[2] for x in inputs}) == 1:
        return inputs[0] if len(inputs) == 1 else torch.cat(inputs, dim=1)
    return torch.cat([x.flatten(1) for x in inputs], dim=1).unsqueeze(1)


def _head(in_features: int) -> nn.Linear:
    head = nn.Linear(in_features, 1, bias=False)
    nn.init.xavier_normal_(head.weight)
    return head
