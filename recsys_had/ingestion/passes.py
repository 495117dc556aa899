"""The passes over all shards, one after another: staging, merging, writing."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from recsys_had.data.encode import Encoder, ids_without_counts
from recsys_had.data.encoder_files import save_encoder
from recsys_had.data.lookups import SideTable
from recsys_had.data.problems import Problems
from recsys_had.data.raw import RawSource
from recsys_had.data.split import Splits, split_stratified
from recsys_had.data.statistics import Fitted, Statistics
from recsys_had.engines.local import Engine
from recsys_had.errors import DataError
from recsys_had.ingestion.counting import (
    Counter,
    CrossCounter,
    counted_fields,
    crosses_to_count,
)
from recsys_had.ingestion.parts import PartWriter, part_names
from recsys_had.ingestion.shard import Staged
from recsys_had.ingestion.stage import Stager
from recsys_had.ingestion.update import Earlier
from recsys_had.ingestion.vocabularies import Merger
from recsys_had.output import OutputFolder
from recsys_had.schema import SPLITS, DatasetCard, StratifiedSplit

_log = logging.getLogger("recsys_had")


class AllStaged:
    """All shards, staged and counted.

    Args:
        shards: in the order of their rows.
        splits: split of every row that was kept, where it was not known shard by shard.
        statistics: of all training rows, where they were counted.
    """

    def __init__(self, shards: list[Staged], splits: Splits | None, statistics: Statistics) -> None:
        self.shards = shards
        self.statistics = statistics
        self._splits = splits
        self._ends = np.cumsum([staged.num_kept for staged in shards])

    @property
    def num_rows(self) -> int:
        """Rows read."""
        return sum(staged.num_rows for staged in self.shards)

    @property
    def num_rejected(self) -> int:
        """Rows that were rejected."""
        return self.num_rows - int(self._ends[-1])

    @property
    def rows(self) -> list[int]:
        """Rows of each split."""
        return [sum(numbers) for numbers in zip(*(each.rows for each in self.shards), strict=True)]

    def splits_of(self, number: int) -> Splits | None:
        """Split of each row of a shard, where it was not staged with it."""
        if self._splits is None:
            return None
        end = int(self._ends[number])
        return self._splits[end - self.shards[number].num_kept : end]

    def with_splits(self) -> Iterator[tuple[Staged, Splits | None]]:
        """Each shard, and the split of each of its rows where it was not staged with it."""
        for number, staged in enumerate(self.shards):
            yield staged, self.splits_of(number)

    def num_distinct(self, field: str) -> list[int]:
        """Distinct values of a field in each shard."""
        return [(staged.num_distinct or {})[field] for staged in self.shards]


def stage_all(
    workers: Engine,
    stager: Stager,
    source: RawSource,
    *,
    block_bytes: int,
    on_rows: Callable[[int], None],
) -> AllStaged:
    """Reads every shard once, unless an earlier try has staged it; counts what trains.

    Raises:
        DataError: the problems of all shards together, or there is nothing to train on.
    """
    problems = Problems()
    total = Statistics(stager.card)
    shards = []
    for staged in workers.map(stager, enumerate(source.blocks(block_bytes))):
        if staged.problems is not None:
            problems.add_error(staged.problems)
        shards.append(_added(staged, total))
        on_rows(staged.num_rows)
    problems.raise_any()
    if not shards:
        raise DataError(
            [f"{path}: holds no row. Give the file that holds them." for _, path in source.paths]
        )
    reused = sum(staged.was_there for staged in shards)
    if reused:
        _log.info("%d of %d shards were found staged by an earlier try.", reused, len(shards))
    splits = None
    rule = stager.card.split
    if stager.waits_for_labels and isinstance(rule, StratifiedSplit):
        labels = [staged.labels for staged in shards if staged.labels is not None]
        splits = split_stratified(np.concatenate(labels), rule)
        tasks = AllStaged(shards, splits, total).with_splits()
        counted = workers.map(Counter(stager.card), tasks)
        shards = [_added(staged, total) for staged in counted]
    found = AllStaged(shards, splits, total)
    if not found.rows[SPLITS.index("train")]:
        raise DataError(
            f"split: none of the {found.num_rows - found.num_rejected:,} rows is in the training "
            "split. Give more rows, or another split."
        )
    return found


def _added(staged: Staged, total: Statistics) -> Staged:
    """Adds a shard's statistics to those of all, so that nobody holds them for each."""
    if staged.statistics is not None:
        total.merge(staged.statistics)
    return replace(staged, statistics=None)


def merge_all(
    workers: Engine,
    card: DatasetCard,
    staged: AllStaged,
    lookups: dict[str, SideTable],
    folder: OutputFolder,
    earlier: Earlier | None,
) -> Encoder:
    """Makes the encoder of what all shards have shown, and writes it."""
    (folder.stage / "vocab").mkdir(exist_ok=True)
    statistics: Fitted = staged.statistics
    if earlier is not None:
        statistics = earlier.fitted(workers, staged.with_splits())
    if crosses_to_count(card):
        bins = {name: edges for name, (edges, _) in statistics.bins.items()}
        staged.shards = list(workers.map(CrossCounter(card, bins), staged.with_splits()))
    merger = Merger(
        tuple(each.shard for each in staged.shards),
        folder.stage / "vocab",
        folder.work,
        earlier=None if earlier is None else earlier.encoder.vocabulary_files,
    )
    # The largest first: at the end no worker waits long for another.
    fields = sorted(counted_fields(card), key=lambda field: -sum(staged.num_distinct(field.name)))
    tasks = ((field, staged.num_distinct(field.name)) for field in fields)
    made = dict(zip([field.name for field in fields], workers.map(merger, tasks), strict=True))
    ids = {
        field.name: ids_without_counts(field, statistics) or made[field.name]
        for field in card.fields
    }
    encoder = Encoder.of_training(card, statistics, ids=ids, lookups=lookups)
    save_encoder(encoder, folder.stage)
    return encoder


def write_all_parts(
    workers: Engine,
    encoder: Encoder,
    staged: AllStaged,
    folder: OutputFolder,
    *,
    on_rows: Callable[[int], None],
) -> dict[str, dict[str, Any]]:
    """Encodes each shard into a part for each split it has rows of."""
    for split, number in zip(SPLITS, staged.rows, strict=True):
        if number:
            (folder.stage / split).mkdir(exist_ok=True)
    names = part_names([each.rows for each in staged.shards])
    tasks = (
        (each.shard, name, splits)
        for (each, splits), name in zip(staged.with_splits(), names, strict=True)
    )
    writer = PartWriter(encoder.without_lookups(), folder.stage, folder.work)
    parts: dict[str, dict[str, Any]] = {}
    for each, written in zip(staged.shards, workers.map(writer, tasks), strict=True):
        parts |= written
        on_rows(each.num_rows)
    return dict(sorted(parts.items(), key=lambda part: (SPLITS.index(part[0].split("/")[0]), part)))
