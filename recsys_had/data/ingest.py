"""Ingestion: raw files to a data folder, block by block, in memory that does not grow.

Each block is read, split, counted and staged in ``OUT/.work``; when the last one has been
counted, the encoder is fitted and each staged block is encoded into one part per split. A run
that was killed finds its staged blocks again.
"""

import hashlib
import json
import logging
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from recsys_had.data.encode import Encoder
from recsys_had.data.lookups import SideTable
from recsys_had.data.prepare import prepare
from recsys_had.data.problems import Problems
from recsys_had.data.raw import BLOCK_BYTES, RawBlock, RawSource
from recsys_had.data.split import Splits, split_by_content, split_by_time, split_stratified
from recsys_had.data.statistics import Statistics
from recsys_had.errors import DataError
from recsys_had.output import OutputFolder
from recsys_had.schema import (
    SPLITS,
    ContentHashSplit,
    DatasetCard,
    GivenSplit,
    StratifiedSplit,
    TimeSplit,
)
from recsys_had.storage import AnyPath
from recsys_had.versions import library_versions

_ROW_GROUP_ROWS = 1 << 16
# A column of a staged block, beside its values; no field's name holds a dot.
_SPLIT = ".split"

_log = logging.getLogger("recsys_had")


def ingest(
    card: DatasetCard,
    inputs: Sequence[tuple[str | None, str | AnyPath]],
    out: AnyPath,
    *,
    name: str | None = None,
    overwrite: bool = False,
    block_bytes: int = BLOCK_BYTES,
    on_rows: Callable[[int], None] = lambda rows: None,
) -> dict[str, Any]:
    r"""Encodes raw files into a data folder.

    Args:
        card: what the columns are and how rows are split.
        inputs: split (or None for the card's rule) and file, URL or glob, in the order of row ids.
        out: folder to write.
        name: the name or path the card was given by, for errors.
        overwrite: replace the data folder that ``out`` holds.
        block_bytes: decompressed bytes worked on together.
        on_rows: told the rows of each block when it was read, and again when it was encoded.

    Returns:
        ``rows_read``, ``rows`` per split, ``num_embeddings`` per field, ``rows_per_s``,
        ``peak_rss_bytes``.

    Raises:
        DataError: an input, a row or the output folder is not usable, or no row trains.

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
    >>> report = ingest(card, [("train", folder / "rows.csv")], folder / "data")
    >>> report["rows"], report["num_embeddings"]
    ({'train': 2}, {'C1': 3})
    """
    begin = time.perf_counter()
    given = _given_splits(card, inputs, name or card.name)
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
        "versions": library_versions(),
    }
    with OutputFolder(
        out, marker="manifest.json", overwrite=overwrite, resume=True, fingerprint=fingerprint
    ) as folder:
        staged = _stage(
            source, card, lookups, given, folder.work, block_bytes=block_bytes, on_rows=on_rows
        )
        if not staged.statistics.num_rows:
            raise DataError(
                f"split: none of the {staged.num_rows:,} rows is in the training split. "
                "Give more rows, or another split."
            )
        encoder = Encoder.fit(card, staged.statistics, lookups)
        encoder.save(folder.stage)
        parts = _write_parts(staged, encoder, folder.stage, on_rows=on_rows)
        rows = {
            split: sum(part["rows"] for name, part in parts.items() if name.startswith(split))
            for split in SPLITS
        }
        manifest = {
            "kind": "data",
            "dataset": card.name,
            "card_digest": card.digest,
            "vocabulary_digest": encoder.digest,
            "rows": {split: number for split, number in rows.items() if number},
            "num_embeddings": encoder.num_embeddings,
            "dense": list(card.dense),
            "versions": library_versions(),
            "inputs": [
                {"path": path.name, "size_bytes": path.stat().st_size, "split": inputs[index][0]}
                for index, path in source.paths
            ],
            "parts": parts,
        }
        (folder.stage / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
        folder.publish()
    return {
        "rows_read": staged.num_rows,
        "rows": manifest["rows"],
        "num_embeddings": encoder.num_embeddings,
        "rows_per_s": staged.num_rows / max(time.perf_counter() - begin, 1e-9),
        "peak_rss_bytes": peak_rss_bytes(),
    }


@dataclass(frozen=True)
class _Staged:
    """Blocks whose values are read and whose ids are not known.

    Args:
        blocks: first row id and file of each.
        num_rows: rows in all.
        splits: split of every row, where it was not known block by block.
        statistics: what the training rows have shown.
    """

    blocks: list[tuple[int, Path]]
    num_rows: int
    splits: Splits | None
    statistics: Statistics

    def read(self) -> Iterator[tuple[int, pa.RecordBatch, Splits]]:
        """First row id, values and splits of each block."""
        for first, path in self.blocks:
            values = _read_staged(path)
            assert values is not None, f"{path} was staged"
            splits = values.column(_SPLIT).to_numpy()
            if self.splits is not None:
                splits = self.splits[first : first + values.num_rows]
            yield first, values, splits


def _given_splits(
    card: DatasetCard, inputs: Sequence[tuple[str | None, str | AnyPath]], name: str
) -> list[int] | None:
    """Split of each input, or None where the card's rule decides."""
    splits = [split for split, _ in inputs]
    unknown = [split for split in splits if split not in (None, *SPLITS)]
    if unknown:
        raise DataError(f"split '{unknown[0]}': must be one of {', '.join(SPLITS)}.")
    if None not in splits:
        return [SPLITS.index(str(split)) for split in splits]
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


def _stage(
    source: RawSource,
    card: DatasetCard,
    lookups: dict[str, SideTable],
    given: list[int] | None,
    work: Path,
    *,
    block_bytes: int,
    on_rows: Callable[[int], None],
) -> _Staged:
    """Reads every block once, unless an earlier try has staged it; counts what trains.

    Raises:
        DataError: the problems of all blocks together.
    """
    rule = card.split if given is None else None
    waits_for_labels = isinstance(rule, StratifiedSplit)
    statistics = Statistics(card)
    problems = Problems()
    blocks, labels = [], []
    num_rows = reused = 0
    for number, block in enumerate(source.blocks(block_bytes)):
        path = work / f"block-{number:05d}.arrow"
        values = _read_staged(path)
        if values is None:
            try:
                values = _read_block(block, card, lookups, given)
            except DataError as error:
                problems.add_error(error)
                continue
            _write_staged(values, path)
        else:
            reused += 1
        blocks.append((block.first_row_id, path))
        num_rows += block.num_rows
        if waits_for_labels:
            labels.append(values.column("label").to_numpy().astype(np.int8))
        else:
            statistics.add(values, values.column(_SPLIT).to_numpy() == 0)
        on_rows(block.num_rows)
        del block, values  # before the next one is read
    problems.raise_any()
    if not num_rows:
        raise DataError(
            [f"{path}: holds no row. Give the file that holds them." for _, path in source.paths]
        )
    if reused:
        _log.info("%d of %d blocks were found staged by an earlier try.", reused, len(blocks))
    splits = None
    if isinstance(rule, StratifiedSplit):
        splits = split_stratified(np.concatenate([np.empty(0, np.int8), *labels]), rule)
    staged = _Staged(blocks, num_rows, splits, statistics)
    if waits_for_labels:
        for _, values, split in staged.read():
            statistics.add(values, split == 0)
    return staged


def _read_block(
    block: RawBlock,
    card: DatasetCard,
    lookups: dict[str, SideTable],
    given: list[int] | None,
) -> pa.RecordBatch:
    frame = block.read()
    values = prepare(frame, card, lookups, place=block.place, require_label=True)
    rule = card.split
    if given is not None:
        splits = np.full(block.num_rows, given[block.input_index], np.int8)
    elif isinstance(rule, ContentHashSplit):
        splits = split_by_content(frame, card, rule)
    elif isinstance(rule, TimeSplit):
        splits = split_by_time(frame, card, rule, place=block.place)
    else:
        splits = np.full(block.num_rows, -1, np.int8)  # known when all labels are
    return values.append_column(_SPLIT, pa.array(splits))


def _write_staged(values: pa.RecordBatch, path: Path) -> None:
    """Arrow's own format keeps the dictionaries as they are; the rename makes it whole."""
    unfinished = path.with_suffix(".tmp")
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with pa.OSFile(str(unfinished), "wb") as sink:
        with pa.ipc.new_file(sink, values.schema, options=options) as writer:
            writer.write_batch(values)
    unfinished.rename(path)


def _read_staged(path: Path) -> pa.RecordBatch | None:
    if not path.is_file():
        return None
    with pa.OSFile(str(path), "rb") as stream:
        return pa.ipc.open_file(stream).get_batch(0)


def _write_parts(
    staged: _Staged, encoder: Encoder, stage: Path, *, on_rows: Callable[[int], None]
) -> dict[str, dict[str, Any]]:
    """Encodes each block into a part for each split it has rows of."""
    parts: dict[str, dict[str, Any]] = {}
    numbers = dict.fromkeys(SPLITS, 0)
    for first, values, splits in staged.read():
        encoded = encoder.encode_values(values)
        row_id = np.arange(first, first + values.num_rows, dtype=np.int64)
        encoded = encoded.add_column(0, "row_id", pa.array(row_id))
        for code, split in enumerate(SPLITS):
            rows = np.flatnonzero(splits == code)
            if not len(rows):
                continue
            name = f"{split}/part-{numbers[split]:05d}.parquet"
            numbers[split] += 1
            (stage / split).mkdir(exist_ok=True)
            _write_part(encoded, rows, stage / name)
            parts[name] = {"rows": len(rows), "sha256": _file_digest(stage / name)}
        on_rows(values.num_rows)
        del values, encoded
    return parts


def _file_digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _write_part(encoded: pa.Table, rows: NDArray[np.int64], path: Path) -> None:
    table = encoded if len(rows) == encoded.num_rows else encoded.take(pa.array(rows))
    pq.write_table(table, path, compression="zstd", row_group_size=_ROW_GROUP_ROWS)


def peak_rss_bytes() -> int:
    """Most memory this process and its largest child have held."""
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * sum(
        resource.getrusage(who).ru_maxrss
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
