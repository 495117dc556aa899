"""How many training rows hold each value of a shard: in the first pass, or when more is known."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import pyarrow as pa

from recsys_had.columns import Field
from recsys_had.data.crosses import crosses
from recsys_had.data.quantiles import QuantileBins, with_bins
from recsys_had.data.split import Splits
from recsys_had.data.statistics import Statistics, rows_per_value
from recsys_had.ingestion.shard import Staged, distinct_of, splits_of, values_of, write_batch
from recsys_had.schema import SPLITS, DatasetCard


@dataclass(frozen=True)
class Counter:
    """Counts shards whose splits are known only now."""

    card: DatasetCard

    def __call__(self, task: tuple[Staged, Splits | None]) -> Staged:
        """Counts one shard, given the split of each of its rows."""
        staged, splits = task
        values = staged.shard.read()
        return count(self.card, staged, values, splits_of(values, splits))


@dataclass(frozen=True)
class CrossCounter:
    """Counts the crosses of quantile bins, which all shards together have to be known for.

    Args:
        card: what the columns are.
        bins: of each binned column.
    """

    card: DatasetCard
    bins: Mapping[str, QuantileBins]

    def __call__(self, task: tuple[Staged, Splits | None]) -> Staged:
        """Counts one shard, given the split of each of its rows where it was not staged."""
        staged, splits = task
        values = staged.shard.read()
        is_training = splits_of(values, splits) == SPLITS.index("train")
        values = with_bins(values, self.card, self.bins)
        held: dict[str, pa.Array] = {}
        num_distinct = dict(staged.num_distinct or {})
        for field in crosses_to_count(self.card):
            column = values.column(field.name)
            held[values_of(field.name)] = pa.array(
                [distinct_of(column).to_pylist()], pa.large_list(pa.large_string())
            )
            counts = rows_per_value(column, is_training)
            held[field.name] = pa.array([counts], pa.list_(pa.int32()))
            num_distinct[field.name] = len(counts)
        write_batch(pa.RecordBatch.from_pydict(held), staged.shard.crosses_path)
        return replace(staged, num_distinct=num_distinct)


def crosses_to_count(card: DatasetCard) -> list[Field]:
    """The crosses that are counted when the bins are known."""
    return [field for field in crosses(card, of_bins=True) if field.has_vocabulary]


def counted_fields(card: DatasetCard) -> list[Field]:
    """The fields whose values are counted, to become a vocabulary, in card order."""
    return [field for field in card.fields if field.has_vocabulary and field.source != "quantile"]


def count(card: DatasetCard, staged: Staged, values: pa.RecordBatch, splits: Splits) -> Staged:
    """Counts a shard's training rows; the counts of its values are left in a file."""
    is_training = splits == SPLITS.index("train")
    late = crosses_to_count(card)
    counts = {
        field.name: rows_per_value(values.column(field.name), is_training)
        for field in counted_fields(card)
        if field not in late
    }
    if counts:
        lists = {name: pa.array([found], pa.list_(pa.int32())) for name, found in counts.items()}
        write_batch(pa.RecordBatch.from_pydict(lists), staged.shard.counts_path)
    statistics = Statistics(card)
    statistics.add(values, is_training)
    return replace(
        staged,
        rows=tuple(int((splits == code).sum()) for code in range(len(SPLITS))),
        num_distinct={name: len(found) for name, found in counts.items()},
        statistics=statistics,
        labels=None,
    )
