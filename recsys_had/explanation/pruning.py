"""A model without its weakest pairs: the graph that names the others, and its weights.

Letters: P pairs = F(F-1)/2, C channels.
"""

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from recsys_had import interactions
from recsys_had.config import ModelConfig
from recsys_had.errors import ConfigError
from recsys_had.interactions.algebra import Pairs
from recsys_had.model.ctr import CTRModel
from recsys_had.nodes import FORMULA, NodeConfig

_WHY_NOT = {
    "fm": "sums all pairs at once by the square of the sum; leaving some out would cost time",
    "bi_interaction": "sums all pairs at once by the square of the sum; leaving some out would "
    "cost time",
    "ffm": "has tables with a vector for every other field, which stay whatever is left out",
    "field_aware_products": "has tables with a vector for every other field, which stay whatever "
    "is left out",
}


@dataclass(frozen=True)
class PrunedGraph:
    """A model that names its pairs.

    Args:
        config: the model.
        nodes: the nodes whose pairs are fewer.
    """

    config: ModelConfig
    nodes: tuple[str, ...]


def prunable_nodes(config: ModelConfig) -> tuple[str, ...]:
    """The nodes that have pairs of fields one by one, some of which can be left out.

    Raises:
        ConfigError: there is none; one line per node tells why.
    """
    found = tuple(
        name
        for name, node in config.nodes.items()
        if node.layer != FORMULA
        and node.inputs == ("fields",)
        and "keep" in interactions.options(node.layer)
    )
    problems = [
        f"prune: node {name} leaves out pairs already. Prune the run it was made of, or train anew."
        for name in found
        if config.nodes[name].options.get("keep") is not None
    ]
    if not found:
        problems = [
            f"prune: node {name} ({node.layer}) {_WHY_NOT.get(node.layer, _NO_PAIRS)}."
            for name, node in config.nodes.items()
        ]
        problems.append(
            "prune: no node has pairs that can be left out. Train a model with "
            f"{', '.join(_with_pairs())}."
        )
    if problems:
        raise ConfigError(problems)
    return found


_NO_PAIRS = "does not hold the pairs of the fields one by one"


def _with_pairs() -> list[str]:
    return [name for name in interactions.names() if "keep" in interactions.options(name)]


def pruned_graph(config: ModelConfig, keep: Pairs) -> PrunedGraph:
    """Leaves pairs out of all nodes that have them, and out of formulas that read these nodes.

    Args:
        config: the model.
        keep: pairs (i, j) of the shared fields' places, i < j, in order.

    Raises:
        ConfigError: no node has pairs.
    """
    found = prunable_nodes(config)
    nodes = dict(config.nodes)
    for name in found:
        nodes[name] = nodes[name].with_option("keep", keep)
    for name, node in config.nodes.items():
        if node.layer == FORMULA and set(node.inputs) & set(found):
            text = _with_taken_pairs(node.options[FORMULA], keep)
            nodes[name] = NodeConfig(
                layer=FORMULA, inputs=node.inputs, options={**node.options, FORMULA: text}
            )
    return PrunedGraph(config.model_copy(update={"nodes": nodes}), found)


def _with_taken_pairs(text: str, keep: Pairs) -> str:
    """A formula whose ``outer(a, b, "upper")`` are products of the kept pairs alone.

    >>> _with_taken_pairs('pairs * outer(g, g, "upper")', ((0, 2), (1, 2)))
    'pairs * (take(g, 0, 1) * take(g, 2, 2))'
    """

    class Taken(ast.NodeTransformer):
        def visit_Call(self, node: ast.Call) -> ast.AST:
            self.generic_visit(node)
            match node:
                case ast.Call(func=ast.Name(id="outer"), args=[a, b, ast.Constant(value="upper")]):
                    sides = zip((a, b), zip(*keep, strict=True), strict=True)
                    first, second = (
                        ast.Call(ast.Name("take"), [x, *map(ast.Constant, places)], [])
                        for x, places in sides
                    )
                    return ast.BinOp(first, ast.Mult(), second)
            return node

    return ast.unparse(Taken().visit(ast.parse(text.strip("\n"))))


def pruned_weights(
    state: Mapping[str, Tensor], whole: CTRModel, pruned: CTRModel, keep: Pairs
) -> dict[str, Tensor]:
    """What is left of a model's weights where some pairs are left out.

    Args:
        state: the whole model's weights and buffers.
        whole: the model.
        pruned: the model without some pairs.
        keep: the pairs it has, in order.

    Raises:
        ConfigError: a node reads the pairs in a way of which it is not known what to leave out.
    """
    num_fields = whole.embeddings.num_fields
    every = list(combinations(range(num_fields), 2))
    kept = torch.tensor([every.index(pair) for pair in keep])
    shapes = _Shapes(whole, pruned, num_pairs=len(every), kept=kept)
    found = {}
    for name, target in pruned.export_state().items():
        weight = state[name]
        for axis, (size, wanted) in enumerate(zip(weight.shape, target.shape, strict=True)):
            if size != wanted:
                weight = weight.index_select(axis, shapes.left(name, size, wanted))
        found[name] = weight.contiguous()
    return found


class _Shapes:
    """Which numbers of an axis are left, by what a node gives and reads."""

    def __init__(self, whole: CTRModel, pruned: CTRModel, *, num_pairs: int, kept: Tensor) -> None:
        self._num_pairs, self._kept = num_pairs, kept
        nodes = [{s.name: s for s in model.node_summaries()} for model in (whole, pruned)]
        self._reads = {name: summary.inputs for name, summary in nodes[0].items()}
        self._given: dict[str, tuple[int, ...]] = whole.graph.sources_read()
        self._given |= {name: summary.output_shape for name, summary in nodes[0].items()}
        self._changed = {
            name
            for name, summary in nodes[0].items()
            if summary.output_shape != nodes[1][name].output_shape
        }

    def left(self, weight: str, size: int, wanted: int) -> Tensor:
        """Places along an axis of a weight that are left of it.

        Args:
            weight: its name, ``graph.layers.NODE...`` or ``graph.heads.NODE...``.
            size: of the axis.
            wanted: of it in the pruned model.
        """
        _, kind, node, *_ = weight.split(".")
        reads_pairs = kind == "heads" or set(self._reads[node]) & self._changed
        if reads_pairs:
            sources = (node,) if kind == "heads" else self._reads[node]
            pieces, first = [], 0
            for source in sources:
                shape = self._given[source]
                length = int(torch.tensor(shape).prod())
                pieces.append(first + self._of(source, shape, length))
                first += length
            found = torch.cat(pieces)
            size = size if first == size else -1
        else:
            found = self._blocks(size)
        if size < 0 or len(found) != wanted:
            raise ConfigError(
                f"prune: node {node} reads pairs in a way of which it is not known what to leave "
                "out. Train the smaller model anew, with `keep` in its node."
            )
        return found

    def _of(self, source: str, shape: Sequence[int], length: int) -> Tensor:
        if source in self._changed and shape[0] == self._num_pairs:
            return self._blocks(length)
        return torch.arange(length)

    def _blocks(self, size: int) -> Tensor:
        """Of P runs of equally many numbers, those of the kept pairs."""
        width = size // self._num_pairs
        return (self._kept.unsqueeze(1) * width + torch.arange(width)).flatten()
