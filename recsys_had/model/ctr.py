"""CTRModel: field embeddings under a graph of interactions.

Letters: B batch, F fields, D embedding_dim.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from recsys_had.batch import Batch
from recsys_had.config import ModelConfig
from recsys_had.errors import ConfigError
from recsys_had.model.embeddings import FieldEmbeddings, is_table
from recsys_had.model.graph import InteractionGraph, NodeSummary, table_widths
from recsys_had.model.numeric import NumericFields, numeric_fields
from recsys_had.model.plain_tables import PLAIN
from recsys_had.model.tables import FieldSpec, TableBackend
from recsys_had.nodes import JOINT, SOURCES, NodeConfig
from recsys_had.seeds import derived_seed
from recsys_had.suggest import nearest

# Rows drawn from one random stream; part of the definition of an initial row.
_ROWS_PER_STREAM = 4096


class CTRModel(nn.Module):
    """A click-through-rate model: raw ids in, one logit a row out.

    Shape: batch of B rows -> ``(B,)`` logits.
    Paper: none; see each interaction's own.
    Differs from the paper: nothing.

    Args:
        fields: the categorical fields and the sizes of their tables.
        dense: names of the dense inputs.
        config: the model part of an experiment.
        vectors: name and size of each content vector, which a node may read by its name.
        seed: of every initial weight.
        tables_on: device of the tables; ``meta`` where they are to be described, not filled.
        table_type: of the tables' numbers; float16 ones must be sharded to be looked up.
        backend: whose tables: plain torch's, or TorchRec's, which can be trained on many machines.

    Raises:
        ConfigError: a node reads what is not there, or two things have one name.
    """

    def __init__(
        self,
        *,
        fields: Sequence[FieldSpec],
        dense: Sequence[str],
        config: ModelConfig,
        vectors: Mapping[str, int] | None = None,
        seed: int = 0,
        tables_on: str = "cpu",
        table_type: torch.dtype = torch.float32,
        backend: TableBackend = PLAIN,
    ) -> None:
        super().__init__()
        for name in (*config.nodes, *config.tables):
            if hasattr(nn.ModuleDict(), name):
                node = config.nodes.get(name)
                told, what = (node.told(name), "node") if node else (f"model.tables.{name}", "set")
                raise ConfigError(f"{told}: is a name torch keeps for itself. Rename the {what}.")
        self.vectors = dict(vectors or {})
        _check_vector_names(self.vectors, config.nodes)
        if not fields and not dense:
            _refuse_fields(config, self.vectors)
        self.initial = InitialRows(seed=seed, std=config.embedding_init_std)
        names = [*(field.name for field in fields), *dense]
        widths = table_widths(config, len(names))
        chosen = {
            name: members
            for name in config.tables
            if (members := config.table_set(name).fields) is not None
        }
        for name, members in chosen.items():
            _places(f"tables.{name}.fields", members, names, dense=dense)
        # Groups nobody reads take no part.
        read = {source for node in config.nodes.values() for source in node.inputs}
        # TorchRec fills its tables as it makes them; torch's own streams are left alone, those of
        # GPUs, which begin to be used when their state is asked for, too.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.embeddings = FieldEmbeddings(
                fields=fields,
                dense=dense,
                widths=widths,
                chosen=chosen,
                numeric=numeric_fields(dense, config, is_read="fields" in widths, seed=seed),
                tables_on=tables_on,
                table_type=table_type,
                backend=backend,
                width_keys=_width_keys(config),
            )
            torch.default_generator.manual_seed(seed)
            names = list(self.embeddings.field_names)
            groups = {
                name: _places(f"groups.{name}", group, names, dense=dense)
                for name, group in config.groups.items()
            }
            if JOINT in read:
                groups[JOINT] = _joint_places(self.embeddings.numeric_fields, names)
            sources: dict[str, tuple[int, ...]] = {
                name: (self.embeddings.num_fields_of(name), width) for name, width in widths.items()
            }
            if dense:
                sources["dense"] = (len(dense),)
            sources |= {name: (size,) for name, size in self.vectors.items()}
            self.graph = InteractionGraph(
                nodes=config.nodes,
                sources=sources,
                groups={name: at for name, at in groups.items() if name in read},
                combine=config.combine,
            )
        with torch.no_grad():
            for name, weight in self.named_parameters():
                if is_table(name) and not weight.is_meta:
                    width = self.table_width(name)
                    weight.zero_()
                    weight[:, :width] = self.initial.rows(name, 0, len(weight), width)
                if name == "embeddings.numeric.fields":
                    # The vector a column has where all columns have one, whatever others choose.
                    rows = self.initial.rows(name, 0, len(dense), width)
                    weight.copy_(rows[list(self.embeddings.scaled("fields"))])

    def forward(self, batch: Batch, *, passes: int = 0) -> Tensor:
        """Computes the logit of every row, ``(B,)``; with passes also what it is made of.

        Args:
            batch: the rows.
            passes: 1 gives ``(B, 1 + H)``, the logit and each head's own; n > 1 runs the
                interactions n times, each with its own dropout, and gives ``(B, 1 + n)``, the mean
                logit and that of each pass.
        """
        sources = self.sources(batch)
        if passes == 0:
            logit: Tensor = self.graph(sources)
            return logit
        if passes == 1:
            apart = self.graph.heads_apart(sources)
            return torch.cat([self.graph.combine_heads(apart).unsqueeze(1), apart], dim=1)
        repeated = {name: torch.cat([rows] * passes) for name, rows in sources.items()}
        apart = self.graph(repeated).view(passes, -1).T
        return torch.cat([apart.mean(dim=1, keepdim=True), apart], dim=1)

    def from_looked_up(
        self, dense: Tensor, looked_up: Mapping[str, Tensor], vectors: Mapping[str, Tensor]
    ) -> Tensor:
        """Computes the logit of rows that were looked up (``embeddings.look_up``), ``(B,)``."""
        embedded = self.embeddings.embed(dense, looked_up)
        logit: Tensor = self.graph(_sources(embedded, dense, vectors))
        return logit

    def sources(self, batch: Batch) -> dict[str, Tensor]:
        """What the graph reads of a batch.

        Sets of tables ``(B, F, width)``, content vectors ``(B, size)`` and ``dense``
        ``(B, num_dense)``, by name.
        """
        return _sources(self.embeddings(batch), batch.dense, batch.vectors)

    def with_terms(self, batch: Batch) -> tuple[Tensor, list[Tensor]]:
        """The logit of every row and the terms it is the sum of; see the graph's own."""
        return self.graph.with_terms(self.sources(batch))

    def table_width(self, weight_name: str) -> int:
        """Columns of a table that are part of the model; what is beyond is padding.

        Args:
            weight_name: ``embeddings.tables.SET...`` or ``embeddings.numeric.SET``.
        """
        return self.embeddings.widths[weight_name.split(".")[2]]

    def num_parameters(self) -> int:
        """Learned numbers, padding not counted."""
        return sum(
            weight.shape[0] * self.table_width(name) if is_table(name) else weight.numel()
            for name, weight in self.named_parameters()
        )

    def flops_per_row(self) -> int:
        """Multiplications and additions of a row's forward pass; lookups are free."""
        made = self.embeddings.flops_per_row
        return made + sum(node.flops_per_row for node in self.node_summaries())

    def node_summaries(self) -> list[NodeSummary]:
        """Shapes, parameters, cost and degree of every node."""
        return self.graph.summaries()

    def export_state(self) -> dict[str, Tensor]:
        """All weights and buffers, without padding: what a run folder holds."""
        return {
            name: self.without_padding(name, tensor) for name, tensor in self.state_dict().items()
        }

    def without_padding(self, name: str, tensor: Tensor) -> Tensor:
        """A weight as a run folder holds it."""
        if is_table(name):
            tensor = tensor[:, : self.table_width(name)]
        return tensor.detach().contiguous()

    def import_state(self, state: Mapping[str, Tensor]) -> None:
        """Loads what :meth:`export_state` gave; for tables on ``meta`` the given tensors are taken.

        Raises:
            ValueError: a weight is missing, unknown or of another shape.
        """
        own = self.state_dict()
        if set(own) != set(state):
            missing, unknown = sorted(set(own) - set(state)), sorted(set(state) - set(own))
            raise ValueError(f"weights: missing {missing}, unknown {unknown}.")
        taken: dict[str, Tensor] = {}
        with torch.no_grad():
            for name, target in own.items():
                source = state[name]
                kept = self.without_padding(name, target)
                if kept.shape != source.shape:
                    raise ValueError(
                        f"{name}: must have shape {tuple(kept.shape)}; got {tuple(source.shape)}."
                    )
                if target.is_meta:
                    taken[name] = source.to(target.dtype)
                    continue
                if is_table(name):
                    target = target[:, : self.table_width(name)]
                target.copy_(source)
        self.load_state_dict(taken, strict=False, assign=True)


def _sources(
    embedded: Mapping[str, Tensor], dense: Tensor, vectors: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """What a graph reads."""
    sources = {**embedded, **vectors}
    return {**sources, "dense": dense} if dense.shape[1] else sources


def _places(
    key: str, members: tuple[str, ...], fields: Sequence[str], *, dense: Sequence[str]
) -> tuple[int, ...]:
    """Where the fields that a key of the model names stand.

    Raises:
        ConfigError: there is no such field, or one is named twice.
    """
    for name in members:
        if name in dense and name not in fields:
            raise ConfigError(
                f"model.{key}: '{name}' is no field of its own by model.numeric. Leave it out, or "
                "give the column another kind."
            )
        if name not in fields:
            raise ConfigError(
                f"model.{key}: the card has no field '{name}'.{nearest(name, fields)}"
            )
        if members.count(name) > 1:
            raise ConfigError(f"model.{key}: names '{name}' twice. Name it once.")
    return tuple(fields.index(name) for name in members)


def _joint_places(numeric: NumericFields | None, fields: Sequence[str]) -> tuple[int, ...]:
    """Where the fields stand that numeric columns make together.

    Raises:
        ConfigError: there is none.
    """
    joint = () if numeric is None else numeric.joint_names
    if not joint:
        raise ConfigError(
            f"model.nodes: a node reads '{JOINT}', and no numeric columns make a field together. "
            "Give them kind mlp in model.numeric, or read 'fields'."
        )
    return tuple(fields.index(name) for name in joint)


def _width_keys(config: ModelConfig) -> dict[str, str]:
    """The keys of the widths that a configuration gives its further sets of tables."""
    keys = {}
    for name, given in config.tables.items():
        if isinstance(given, int):
            keys[name] = f"model.tables.{name}"
        elif given is not None and given.dim is not None:
            keys[name] = f"model.tables.{name}.dim"
    return keys


def _check_vector_names(vectors: Mapping[str, int], nodes: Mapping[str, NodeConfig]) -> None:
    """Refuses a vector whose name means something else among a node's inputs."""
    problems = [
        f"{nodes[name].told(name)}: the dataset card has a vector of this name, and inputs could "
        "mean either. Rename the node."
        for name in vectors
        if name in nodes
    ]
    problems += [
        f"model: the dataset card has a vector '{name}', and inputs mean something else by this "
        "name. Rename the column."
        for name in vectors
        if name in SOURCES
    ]
    if problems:
        raise ConfigError(problems)


def _refuse_fields(config: ModelConfig, vectors: Mapping[str, int]) -> None:
    """Refuses a node that reads fields of a card without any."""
    for name, node in config.nodes.items():
        for read in node.inputs:
            if read in ("fields", JOINT, *config.tables, *config.groups):
                raise ConfigError(
                    f"{node.told(name)}.inputs: '{read}' is neither a node above it nor anything "
                    f"the dataset card has.{nearest(read, vectors)}"
                )


@dataclass(frozen=True)
class InitialRows:
    """Initial embedding rows that depend on seed, table and row alone.

    Never on rank, plan or the size of another table, so that any sharding starts alike.

    Args:
        seed: of the run.
        std: standard deviation of the normal distribution.
    """

    seed: int
    std: float

    def rows(self, table: str, first: int, num_rows: int, width: int) -> Tensor:
        """Rows ``first .. first + num_rows`` of a table, ``(num_rows, width)`` float32.

        >>> initial = InitialRows(seed=1, std=0.01)
        >>> whole = initial.rows("t", 0, 10, 4)
        >>> bool((initial.rows("t", 6, 3, 4) == whole[6:9]).all())
        True
        """
        if num_rows == 0:
            return torch.empty(0, width)
        blocks = list(self._blocks(table, first, num_rows, width))
        return torch.from_numpy(np.concatenate(blocks)).mul_(self.std)

    def drawn_anew(self, table: str, step: int, num_rows: int, width: int) -> Tensor:
        """Initial rows of values that come later, ``(num_rows, width)`` float32.

        Args:
            table: as above.
            step: the update they come with.
            num_rows: how many come.
            width: columns.
        """
        generator = np.random.Generator(
            np.random.Philox(key=[derived_seed(self.seed, table, "anew"), step])
        )
        drawn = generator.standard_normal((num_rows, width), dtype=np.float32)
        return torch.from_numpy(drawn).mul_(self.std)

    def _blocks(
        self, table: str, first: int, num_rows: int, width: int
    ) -> Iterator["np.ndarray[tuple[int, int], np.dtype[np.float32]]"]:
        key = derived_seed(self.seed, table)
        last = first + num_rows
        for block in range(first // _ROWS_PER_STREAM, -(-last // _ROWS_PER_STREAM)):
            begin = block * _ROWS_PER_STREAM
            generator = np.random.Generator(np.random.Philox(key=[key, block]))
            rows = generator.standard_normal((_ROWS_PER_STREAM, width), dtype=np.float32)
            yield rows[max(first - begin, 0) : min(last - begin, _ROWS_PER_STREAM)]


def weights_digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of all weights and buffers by name: independent of sharding and padding.

    >>> weights_digest({"a": torch.zeros(2)}) == weights_digest({"a": torch.zeros(2)})
    True
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}:".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
