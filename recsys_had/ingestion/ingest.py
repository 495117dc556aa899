"""Ingestion: raw files to a data folder, shard by shard, in memory that does not grow.

Raw files are cut into shards at bytes that depend on the files alone. Each is read, split, counted
and staged in ``OUT/.work``; the counts of all become vocabularies; then each staged shard is
encoded into one part per split. All of it is work on shards or fields that does not depend on any
other's, so it runs in as many processes as there are, and a run that was killed finds what was
finished.
"""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from recsys_had.data.duplicates import find_duplicates
from recsys_had.data.encode import Encoder, ids_without_counts
from recsys_had.data.files import is_plain
from recsys_had.data.lookups import SideTable
from recsys_had.data.problems import Problems
from recsys_had.data.raw import BLOCK_BYTES, RawSource
from recsys_had.data.read_block import id_columns
from recsys_had.data.split import Splits, split_stratified
from recsys_had.data.statistics import Fitted, Statistics
from recsys_had.errors import DataError
from recsys_had.ingestion.engine import Engine, available_cores, open_engine
from recsys_had.ingestion.parts import PartWriter, part_names
from recsys_had.ingestion.rejects import write_rejects
from recsys_had.ingestion.stage import (
    Counter,
    CrossCounter,
    Staged,
    Stager,
    counted_fields,
    crosses_to_count,
    save_side_tables,
)
from recsys_had.ingestion.update import Earlier
from recsys_had.ingestion.vocabularies import Merger
from recsys_had.output import OutputFolder
from recsys_had.schema import SPLITS, DatasetCard, GivenSplit, StratifiedSplit
from recsys_had.storage import AnyPath
from recsys_had.versions import library_versions

# How many times as many bytes a compressed file holds.
_USUAL_COMPRESSION = 4

_log = logging.getLogger("recsys_had")


def ingest(
    card: DatasetCard,
    inputs: Sequence[tuple[str | None, str | AnyPath]],
    out: AnyPath,
    *,
    name: str | None = None,
    update: Path | None = None,
    overwrite: bool = False,
    engine: Literal["local", "ray"] = "local",
    num_workers: int | None = None,
    on_error: Literal["stop", "reject"] = "stop",
    block_bytes: int = BLOCK_BYTES,
    on_rows: Callable[[int], None] = lambda rows: None,
) -> dict[str, Any]:
    r"""Encodes raw files into a data folder.

    What comes out depends on the card and the files alone, and not on who did the work.

    Args:
        card: what the columns are and how rows are split.
        inputs: split (or None for the card's rule) and file, URL or glob, in the order of row ids.
        out: folder to write.
        name: the name or path the card was given by, for errors.
        update: an earlier data folder of this card, whose values keep their ids; see
            :mod:`recsys_had.ingestion.update`.
        overwrite: replace the data folder that ``out`` holds.
        engine: ``local``, or ``ray`` for the machines of a cluster, which must all see the files
            and ``out`` at the same paths.
        num_workers: processes; by default one a core, or fewer where there are fewer shards; with
            ``ray`` as many as its cluster has cores.
        on_error: what a row that is not as the card says does: ``stop``, or ``reject``: it is left
            out and told, with file, line and reason, in ``rejects.parquet``.
        block_bytes: decompressed bytes of a shard; parts are cut by it.
        on_rows: told the rows of each shard when it was read, and again when it was encoded.

    Returns:
        ``rows_read``, ``rows`` per split, ``rows_rejected``, ``num_embeddings`` per field,
        ``rows_per_s``, ``peak_rss_bytes``; ``duplicate_ids``, for each column of row identifiers
        how many rows have one that an earlier row has; ``sampling`` where the card leaves rows
        out: the share of ``negatives`` and how many were ``left_out``; ``update`` where there is an
        earlier folder: per field with a vocabulary how many values were ``kept`` and are ``new``;
        ``digest`` of the manifest, which names those of all parts and vocabularies.

    Raises:
        DataError: an input, a row or the output folder is not usable, or no row trains.
        SchemaError: the earlier folder was made with another card.
        CheckpointError: the earlier folder is damaged.
        EngineError: Ray is not installed, or its cluster cannot be used.

    >>> import tempfile
    >>> from recsys_had.schema import parse_card
    >>> card = parse_card('''
    ... name: clicks
    ... format: {type: csv}
    ... columns: {click: {kind: label}, C1: {kind: categorical}}
    ... split: {by: given}
    ... ''')
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "rows.csv").write_text("click,C1\n1,a\n0,b\n")
    >>> given = [("train", folder / "rows.csv")]
    >>> report = ingest(card, given, folder / "data", num_workers=1)
    >>> report["rows"], report["num_embeddings"]
    ({'train': 2}, {'C1': 3})
    """
    begin = time.perf_counter()
    given = _given_splits(card, inputs, name or card.name)
    earlier = None if update is None else Earlier.open(update, card=card, out=out)
    lineage = {} if earlier is None else {"lineage": earlier.lineage}
    source = RawSource([path for _, path in inputs], card)
    lookups = {
        name: SideTable.read(lookup, source.paths[0][1].parent)
        for name, lookup in card.lookups.items()
    }
    fingerprint = {
        "card": card.digest,
        "inputs": source.fingerprint,
        "splits": [split for split, _ in inputs],
        "lookups": {name: table.digest for name, table in lookups.items()},
        "block_bytes": block_bytes,
        "on_error": on_error,
        "versions": library_versions(),
        **lineage,
    }
    if engine == "local":
        num_workers = num_workers or _fitting_workers(source, block_bytes)
    with (
        OutputFolder(
            out, marker="manifest.json", overwrite=overwrite, resume=True, fingerprint=fingerprint
        ) as folder,
        open_engine(engine, num_workers=num_workers, folder=folder.work) as workers,
    ):
        _drop_unfinished(folder)
        side_tables = save_side_tables(lookups, folder.work)
        stager = Stager(card, given, side_tables, folder.work, reject=on_error == "reject")
        staged = _stage(workers, stager, source, block_bytes=block_bytes, on_rows=on_rows)
        encoder = _merge(workers, card, staged, lookups, folder, earlier)
        parts = _write_parts(workers, encoder, staged, folder, on_rows=on_rows)
        rows = dict(zip(SPLITS, staged.rows, strict=True))
        sampling = {}
        if card.sampling is not None:
            left_out = staged.num_rows - staged.num_rejected - sum(staged.rows)
            sampling["sampling"] = {"negatives": card.sampling.negatives, "left_out": left_out}
        duplicates = _duplicates(card, staged)
        write_rejects(staged.shards, folder.stage / "rejects.parquet")
        manifest = {
            "kind": "data",
            "dataset": card.name,
            "card_digest": card.digest,
            "vocabulary_digest": encoder.digest,
            "rows_read": staged.num_rows,
            "rows": {split: number for split, number in rows.items() if number},
            "rows_rejected": staged.num_rejected,
            **sampling,
            "duplicate_ids": duplicates,
            "num_embeddings": encoder.num_embeddings,
            "dense": list(card.dense),
            "versions": library_versions(),
            "inputs": [
                {"path": path.name, "size_bytes": path.stat().st_size, "split": inputs[index][0]}
                for index, path in source.paths
            ],
            "parts": parts,
            **lineage,
        }
        text = json.dumps(manifest, indent=2) + "\n"
        (folder.stage / "manifest.json").write_text(text)
        folder.publish()
        peak_rss_bytes = workers.peak_rss_bytes
    return {
        "rows_read": staged.num_rows,
        "rows": manifest["rows"],
        "rows_rejected": staged.num_rejected,
        **sampling,
        "duplicate_ids": duplicates,
        "num_embeddings": encoder.num_embeddings,
        "rows_per_s": staged.num_rows / max(time.perf_counter() - begin, 1e-9),
        "peak_rss_bytes": peak_rss_bytes,
        "digest": hashlib.sha256(text.encode()).hexdigest(),
        **({} if earlier is None else {"update": earlier.growth(encoder.num_embeddings)}),
    }


class _AllStaged:
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


def _given_splits(
    card: DatasetCard, inputs: Sequence[tuple[str | None, str | AnyPath]], name: str
) -> tuple[int, ...] | None:
    """Split of each input, or None where the card's rule decides."""
    splits = [split for split, _ in inputs]
    unknown = [split for split in splits if split not in (None, *SPLITS)]
    if unknown:
        raise DataError(f"split '{unknown[0]}': must be one of {', '.join(SPLITS)}.")
    if None not in splits:
        return tuple(SPLITS.index(str(split)) for split in splits)
    if any(splits):
        bare = next(path for split, path in inputs if split is None)
        raise DataError(
            f"{bare}: has no split, and other inputs have one. Write SPLIT={bare} with one of "
            f"{', '.join(SPLITS)}, or name no split at all."
        )
    if isinstance(card.split, GivenSplit):
        raise DataError(
            f"{name}: its splits are given as files. Write `recsys-had ingest {name} "
            "--raw train=PATH --raw valid=PATH --out DATA`."
        )
    return None


def _fitting_workers(source: RawSource, block_bytes: int) -> int:
    """One worker a core, unless there are fewer shards than that."""
    size_bytes = sum(
        path.stat().st_size * (1 if is_plain(path) else _USUAL_COMPRESSION)
        for _, path in source.paths
    )
    return max(1, min(available_cores(), size_bytes // block_bytes))


def _drop_unfinished(folder: OutputFolder) -> None:
    """Removes what an earlier try was writing when it was killed."""
    for root in (folder.stage, folder.work):
        for path in root.rglob("*.tmp"):
            path.unlink()


def _stage(
    workers: Engine,
    stager: Stager,
    source: RawSource,
    *,
    block_bytes: int,
    on_rows: Callable[[int], None],
) -> _AllStaged:
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
        tasks = _AllStaged(shards, splits, total).with_splits()
        counted = workers.map(Counter(stager.card), tasks)
        shards = [_added(staged, total) for staged in counted]
    found = _AllStaged(shards, splits, total)
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


def _duplicates(card: DatasetCard, staged: _AllStaged) -> dict[str, int]:
    """Rows whose identifier an earlier row has, by column; the first are told in the log."""
    found = {}
    for name in id_columns(card):
        duplicates = find_duplicates([(each.ids or {})[name] for each in staged.shards])
        found[name] = duplicates.num_rows
        if duplicates.num_rows:
            first = ", ".join(
                f"{repeated.file}:{repeated.line} (row {repeated.row_id}, as row "
                f"{repeated.first_row_id})"
                for repeated in duplicates.first
            )
            _log.warning(
                "column %s: %s rows have the identifier of an earlier row, first %s.",
                name,
                f"{duplicates.num_rows:,}",
                first,
            )
    return found


def _merge(
    workers: Engine,
    card: DatasetCard,
    staged: _AllStaged,
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
    encoder.save(folder.stage)
    return encoder


def _write_parts(
    workers: Engine,
    encoder: Encoder,
    staged: _AllStaged,
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
