"""The graph of interaction nodes: what each reads, what shape it gives, how heads make a logit.

Letters: B batch, F fields, D embedding_dim, N = F*D.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from recsys_had import interactions
from recsys_had.config import ModelConfig
from recsys_had.errors import ConfigError
from recsys_had.interactions.algebra import Expr, add, cat, flatten, lin, source, take
from recsys_had.interactions.algebra.program import Program, definition, named_ops, output_shape
from recsys_had.interactions.algebra.terms import terms_of
from recsys_had.model.program_runner import ProgramRunner
from recsys_had.nodes import FORMULA, JOINT, NodeConfig, express_node, heads
from recsys_had.suggest import nearest

Shape = tuple[int, ...]

# Terms of a logit that are made for whoever asks; more of them cost more than the model itself.
_MOST_TERMS = 8192


@dataclass(frozen=True)
class NodeSummary:
    """What ``describe`` tells of a node.

    Args:
        name: the node.
        layer: its interaction.
        inputs: what it reads.
        input_shapes: (T, C) of each input, after joining.
        output_shape: shape of the output, without the batch.
        parameters: learned numbers of the layer and of its head, tables not counted.
        flops_per_row: multiplications and additions a row, the head's included.
        bytes_per_row: moved by the operations in float32, parameters not counted.
        degree: polynomial degree in the embeddings, or None.
    """

    name: str
    layer: str
    inputs: tuple[str, ...]
    input_shapes: tuple[Shape, ...]
    output_shape: Shape
    parameters: int
    flops_per_row: int
    bytes_per_row: int
    degree: int | None


def table_widths(config: ModelConfig, num_fields: int) -> dict[str, int]:
    """Sets of embedding tables a model needs, with their widths.

    ``fields`` is the shared set, which groups of fields are taken from; the model's further sets
    stand under their names. A layer that owns its tables (``linear``, ``ffm``) adds a set under
    its node's name when it reads the fields directly.
    """
    widths: dict[str, int] = {}
    for name, node in config.nodes.items():
        own = None
        if node.layer != FORMULA and node.inputs == ("fields",):
            own = interactions.own_tables(
                node.layer, num_fields, config.embedding_dim, **node.options
            )
        for read in node.inputs:
            if own is not None:
                widths[name] = own
            elif read in ("fields", JOINT, *config.groups):
                widths["fields"] = config.embedding_dim
            elif read in config.tables:
                widths[read] = config.table_set(read).dim or config.embedding_dim
    return widths


class InteractionGraph(nn.Module):
    """Runs the nodes in order and sums the heads into one logit.

    The nodes are one expression: what a node gives is made only if somebody reads it, and a linear
    map that consumes another node's pairs never holds them all. A node joins its inputs over the
    fields when all have the same width, else flattened; an interaction of several inputs takes
    them one by one. A head is a node nobody reads: its output counts as it is when it is
    ``(B, 1)``, else through a linear map to 1. The logit is the heads' sum, or their mean, and one
    bias.

    Shape: sources ``(B, F, D)`` or ``(B, N)`` -> ``(B,)``.
    Paper: none; the wide-and-deep sum of heads is that of Cheng et al. 2016, eq. 3.
    Differs from the paper: any number of heads.

    Args:
        nodes: the graph, in order of reading.
        sources: shape of each source without the batch; a node's own tables under its name.
        groups: places of the fields of each group, which is read as a source of its own.
        combine: whether the heads are summed or averaged.

    Raises:
        ConfigError: a layer refuses its options or its input's shape.

    >>> nodes = {"fm": NodeConfig(layer="fm"), "deep": NodeConfig(layer="mlp")}
    >>> graph = InteractionGraph(nodes=nodes, sources={"fields": (3, 4)})
    >>> graph({"fields": torch.zeros(2, 3, 4)}).shape
    torch.Size([2])
    """

    # Polynomial degree of the logit in the sources, or None.
    degree: int | None

    def __init__(
        self,
        *,
        nodes: Mapping[str, NodeConfig],
        sources: Mapping[str, Shape],
        groups: Mapping[str, Sequence[int]] | None = None,
        combine: Literal["sum", "mean"] = "sum",
    ) -> None:
        super().__init__()
        self._config = dict(nodes)
        self.layers = nn.ModuleDict()
        self.heads = nn.ModuleDict()
        self.bias = nn.Parameter(torch.zeros(1))
        self._sources = {name: _source(shape) for name, shape in sources.items()}
        self._combine = combine
        chosen = {name: take(self._sources["fields"], *at) for name, at in (groups or {}).items()}
        known = {**self._sources, **chosen}
        logits: list[Expr] = []
        self._num_heads = len(heads(dict(nodes)))
        self._summaries: list[NodeSummary] = []
        self._read: dict[str, Shape] = {}
        for name, node in nodes.items():
            told = node.told(name)
            read = [_known(known, source, told) for source in _reads(name, node, sources)]
            # A node's own tables stand among the sources under its name; what it gives does not.
            are_fields = [
                expr.num_tokens > 1
                or given in chosen
                or (given not in nodes and len(sources.get(given, ())) == 2)
                for given, expr in zip(node.inputs, read, strict=True)
            ]
            joined = _joined(read, are_fields=all(are_fields))
            found = express_node(node, *read, name=name, joined=joined)
            for given, expr in zip(node.inputs, read, strict=True):
                if given not in nodes:
                    # The shared tables, though a node that has its own may read first.
                    self._read[given] = output_shape(known.get(given, expr))
            own = definition(found, until=known.values())
            self.layers[name] = named_ops(own)
            if name in heads(dict(nodes)):
                logit = found if found.shape == (1, 1) else lin(flatten(found), out=1)
                logits.append(logit)
                head = definition(logit, until=[found])
                if found.shape != (1, 1):
                    self.heads[name] = named_ops(head)
                own = [*own, *head]
            inputs = [joined] if joined in own or len(read) == 1 else read
            self._summaries.append(_summary(name, node, inputs, found, own))
            known = {**known, name: found}
        wanted = list(self._sources.values())
        total = add(*logits)
        if not any(expr.op is None for expr in definition(total)):
            raise ConfigError(
                "model.nodes: the logit is the same for every row, since no head reads the row. "
                "Let one read 'fields'."
            )
        self.degree = total.degree
        self._program = Program(total, wanted)
        self._terms = terms_of(logits, factor=1 / len(logits) if combine == "mean" else 1.0)
        # The same operations once more, with what the last of them read.
        self._with_terms = Program(total, wanted, [terms.values for terms in self._terms])
        # The same operations, run so that each head's logit is to be had.
        self._apart = Program(cat(*logits, on="C"), wanted)
        self.train_with(compiled_rows=None, half=False)
        self.score_with(compiled_rows=None, half=False)

    def train_with(self, *, compiled_rows: int | None, half: bool) -> None:
        """Sets how training steps run; scoring runs in float32 as it stands, whatever is set.

        Args:
            compiled_rows: rows of the batches that torch.compile is for; None for none.
            half: whether matrix products take and give bfloat16.
        """
        self._in_training = {
            program: ProgramRunner(program, compiled_rows=compiled_rows, half=half)
            for program in (self._program, self._apart)
        }

    def score_with(self, *, compiled_rows: int | None, half: bool) -> None:
        """Sets how batches run in evaluation mode; the arguments are those of :meth:`train_with`.

        Nothing that trains calls it: see :mod:`recsys_had.scoring.modes`.
        """
        self._in_scoring = {
            program: ProgramRunner(program, compiled_rows=compiled_rows, half=half)
            for program in (self._program, self._apart, self._with_terms)
        }

    @property
    def num_heads(self) -> int:
        """Nodes whose logits make the model's."""
        return self._num_heads

    @property
    def has_dropout(self) -> bool:
        """Whether two passes over the same rows differ in training."""
        return any(getattr(op, "share", 0.0) > 0 for op in self.modules())

    def forward(self, sources: Mapping[str, Tensor]) -> Tensor:
        """Computes the logit of every row."""
        return self._logit(self._run(self._program, sources))

    def _logit(self, total: Tensor) -> Tensor:
        total = total.flatten()
        return self.bias + (total / self.num_heads if self._combine == "mean" else total)

    def heads_apart(self, sources: Mapping[str, Tensor]) -> Tensor:
        """Computes each head's own logit of every row, ``(B, H)``, the bias in each."""
        return self.bias + self._run(self._apart, sources).flatten(1)

    def with_terms(self, sources: Mapping[str, Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Computes the logit of every row, the same bits, and the terms it is the sum of.

        Compiled code alone may round the logit otherwise.

        ``logit = sum(terms * weights) + offset``; see :meth:`term_weights`. The terms are the
        penultimate features: what the last linear map of each head reads, the coordinates a
        factorization machine sums up, the weights of a row's ids in a linear part.

        Returns:
            The logit, ``(B,)``, and tensors of B rows, whose other axes flattened and put beside
            each other are the terms.
        """
        total, terms = self._in_scoring[self._with_terms].with_beside(*self._given(sources))
        rows = len(total)
        flat = [found.flatten(1) for found in terms]
        return self._logit(total), [found.expand(rows, -1) for found in flat]

    def term_weights(self) -> tuple[Tensor, float]:
        """The weight of each term, ``(terms,)``, and what is added to the weighted sum."""
        weights = torch.cat([terms.weights() for terms in self._terms])
        return weights, float(self.bias.detach()) + sum(terms.offset() for terms in self._terms)

    def require_terms(self) -> None:
        """Refuses a model whose logit has no terms to speak of.

        Raises:
            ConfigError: each head gives a single number that is no sum, or there are too many.
        """
        found = sum(terms.values.num_tokens * terms.values.num_channels for terms in self._terms)
        heads_named = ", ".join(heads(self._config))
        if not any(terms.is_sum for terms in self._terms):
            raise ConfigError(
                f"model.nodes: {heads_named} gives the logit as a number that is no sum, so there "
                "are no penultimate features. Choose a method that needs none, such as likelihood."
            )
        if found > _MOST_TERMS:
            raise ConfigError(
                f"model.nodes: {heads_named} gives the logit as a sum of {found:,} terms a row, "
                f"more than {_MOST_TERMS:,}. Choose a method that needs none, such as likelihood."
            )

    def combine_heads(self, logits_BH: Tensor) -> Tensor:
        """The logit, ``(B,)``, of what :meth:`heads_apart` gave."""
        if self._combine == "mean":
            return logits_BH.mean(dim=1)
        return (logits_BH - self.bias).sum(dim=1) + self.bias

    def _run(self, program: Program, sources: Mapping[str, Tensor]) -> Tensor:
        runners = self._in_training if self.training else self._in_scoring
        return runners[program](*self._given(sources))

    def _given(self, sources: Mapping[str, Tensor]) -> list[Tensor]:
        tensors = (sources[name] for name in self._sources)
        return [x if x.dim() == 3 else x.unsqueeze(1) for x in tensors]

    def sources_read(self) -> dict[str, Shape]:
        """Shapes of the sources that nodes name, groups included."""
        return dict(self._read)

    def summaries(self) -> list[NodeSummary]:
        """Shapes, parameters, cost and degree of every node."""
        return list(self._summaries)


def _known(known: Mapping[str, Expr], source: str, reader: str) -> Expr:
    if source not in known:
        raise ConfigError(
            f"{reader}.inputs: '{source}' is neither a node above it nor anything the "
            f"dataset card has.{nearest(source, known)}"
        )
    return known[source]


def _source(shape: Shape) -> Expr:
    return source(*shape) if len(shape) == 2 else source(1, *shape)


def _summary(
    name: str, node: NodeConfig, inputs: list[Expr], found: Expr, own: list[Expr]
) -> NodeSummary:
    ops = [expr.op for expr in own if expr.op is not None]
    return NodeSummary(
        name=name,
        layer=node.layer,
        inputs=node.inputs,
        input_shapes=tuple(expr.shape for expr in inputs),
        output_shape=output_shape(found),
        parameters=sum(weight.numel() for op in ops for weight in op.parameters()),
        flops_per_row=sum(expr.flops.total for expr in own),
        bytes_per_row=sum(expr.bytes_moved for expr in own),
        degree=found.degree,
    )


def _reads(name: str, node: NodeConfig, sources: Mapping[str, Shape]) -> tuple[str, ...]:
    """Its own tables stand under the node's name, in place of the shared fields."""
    inputs = (name,) if name in sources and node.inputs == ("fields",) else node.inputs
    if "dense" in inputs and "dense" not in sources:
        raise ConfigError(
            f"{node.told(name)}: reads 'dense'. The dataset card has no dense column. "
            "Read 'fields' instead."
        )
    return inputs


def _joined(inputs: list[Expr], *, are_fields: bool) -> Expr:
    """Inputs put together over the fields; flattened where one is flat or their widths differ."""
    if len(inputs) == 1 or (are_fields and len({expr.num_channels for expr in inputs}) == 1):
        return cat(*inputs, on="T")
    return cat(*(flatten(expr) for expr in inputs), on="C")
