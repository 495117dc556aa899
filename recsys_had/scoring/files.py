"""Raw files to scores: parts of Parquet, whole or not there, and a manifest that lists them."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recsys_had.batch import EncodedRows
from recsys_had.columns import source_columns
from recsys_had.data.raw import RawBlock, RawSource
from recsys_had.errors import DataError
from recsys_had.output import OutputFolder
from recsys_had.schema import DatasetCard
from recsys_had.scoring.predictor import BatchPredictor, Watcher
from recsys_had.storage import AnyPath
from recsys_had.whole_files import file_digest

_OWN_COLUMNS = ("row_id", "score")


class RowColumns(Protocol):
    """Makes further columns beside the score of each row."""

    @property
    def names(self) -> tuple[str, ...]:
        """What the columns are called."""

    def __call__(self, rows: EncodedRows) -> dict[str, pa.Array]:
        """The columns of some rows, by name, each as long as they are."""


class Column(Watcher, Protocol):
    """Makes further columns of some rows while they are scored."""

    def columns(self) -> dict[str, pa.Array]:
        """The columns of the rows that were shown, by name."""


@runtime_checkable
class WatchingColumns(Protocol):
    """Makes further columns beside the score of what the model computes for it anyway."""

    @property
    def names(self) -> tuple[str, ...]:
        """What the columns are called."""

    @property
    def how(self) -> str:
        """How they are made: what a job that is gone on with must not change."""

    def watch(self) -> Column:
        """Begins with some rows; what others are doing at the same time is apart from it."""


@dataclass(frozen=True)
class PredictReport:
    """What a prediction wrote.

    Args:
        rows: rows scored.
        oov: per field, values that training never saw, or left without a row of their own
            (missing ones not counted).
        parts: names of the files written, in row order.
    """

    rows: int
    oov: dict[str, int]
    parts: list[str]


def predict_files(
    predictor: BatchPredictor,
    inputs: Sequence[str | AnyPath],
    out: AnyPath,
    *,
    keep: Sequence[str] = (),
    extras: Sequence[RowColumns | WatchingColumns] = (),
    resume: bool = False,
    overwrite: bool = False,
    on_rows: Callable[[int], None] = lambda rows: None,
) -> PredictReport:
    """Streams raw files into ``part-*.parquet`` of row_id, kept columns and score.

    Args:
        predictor: what scores.
        inputs: files, URLs or globs; row ids count through them in this order.
        out: folder to write.
        keep: raw columns to copy beside the score.
        extras: make further columns beside the score.
        resume: go on after a kill; parts already written are not scored again.
        overwrite: replace what ``out`` holds.
        on_rows: told the number of rows of each part.

    Raises:
        DataError: a raw row, a file or the output folder is not usable.
    """
    own = [*_OWN_COLUMNS, *(name for extra in extras for name in extra.names)]
    taken = [name for name in keep if name in own]
    if taken:
        raise DataError(
            f"--keep {taken[0]}: scores have a column {taken[0]} of their own. "
            "Rename it in the raw rows, or join by row_id."
        )
    _refuse_side_columns(predictor.run.card, keep)
    source = RawSource(inputs, predictor.run.card, label="optional", keep=keep)
    made_by = {
        name: extra.how
        for extra in extras
        if isinstance(extra, WatchingColumns)
        for name in extra.names
    }
    fingerprint = {
        "run": predictor.run.manifest["digest"],
        "inputs": source.fingerprint,
        "keep": list(keep),
        "extras": [list(extra.names) for extra in extras],
        "made_by": made_by,
    }
    with OutputFolder(
        out,
        marker="_SUCCESS",
        overwrite=overwrite,
        resume=resume,
        fingerprint=fingerprint,
        keep_unfinished=True,
    ) as folder:
        done = [
            _write_part(predictor, folder, number, block, keep, extras, on_rows)
            for number, block in enumerate(_at_least_one(source))
        ]
        report = PredictReport(
            rows=sum(part["rows"] for part in done),
            oov={
                field.name: sum(part["oov"].get(field.name, 0) for part in done)
                for field in predictor.run.card.fields
            },
            parts=[part["name"] for part in done],
        )
        manifest = {
            "kind": "scores",
            "run_digest": predictor.run.manifest["digest"],
            "weights_digest": predictor.run.manifest["weights_digest"],
            "rows": report.rows,
            "oov": report.oov,
            "keep": list(keep),
            "made_by": made_by,
            "parts": done,
        }
        (folder.stage / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
        (folder.stage / "_SUCCESS").touch()
        folder.publish()
    return report


def _refuse_side_columns(card: DatasetCard, keep: Sequence[str]) -> None:
    raw = source_columns(card.columns)
    problems = [
        f"--keep {name}: comes from the side table {lookup.file}, not from the raw rows, and "
        f"cannot be kept. Keep {lookup.key} and join by it."
        for name in keep
        for lookup in card.lookups.values()
        if name not in raw and name in {*lookup.columns, *source_columns(lookup.columns)}
    ]
    if problems:
        raise DataError(problems)


def _write_part(
    predictor: BatchPredictor,
    folder: OutputFolder,
    number: int,
    block: RawBlock,
    keep: Sequence[str],
    extras: Sequence[RowColumns | WatchingColumns],
    on_rows: Callable[[int], None],
) -> dict[str, Any]:
    """Scores one block, unless a part of an earlier try is there whole."""
    name = f"part-{number:05d}.parquet"
    path, note = folder.stage / name, folder.work / f"{name}.json"
    if note.is_file():
        found: dict[str, Any] = json.loads(note.read_text())
        if path.is_file() and file_digest(path) == found["sha256"]:
            on_rows(found["rows"])
            return found
    encoded = predictor.encoder.encode(block.frame, place=block.place)
    rows = predictor.with_unseen(predictor.rows(encoded), block.frame, encoded)
    watching = [extra.watch() for extra in extras if isinstance(extra, WatchingColumns)]
    score = predictor.score_rows(rows, watchers=watching)
    last = block.first_row_id + len(score)
    columns: dict[str, Any] = {
        "row_id": pa.array(np.arange(block.first_row_id, last, dtype=np.int64))
    }
    columns |= {name: block.frame[name].to_arrow() for name in keep}
    columns["score"] = pa.array(score)
    for extra in extras:
        if not isinstance(extra, WatchingColumns):
            columns |= extra(rows)
    for column in watching:
        columns |= column.columns()
    fresh = path.with_suffix(".tmp")
    pq.write_table(pa.table(columns), fresh, compression="zstd")
    digest = file_digest(fresh)
    fresh.rename(path)
    entry = {
        "name": name,
        "rows": len(score),
        "sha256": digest,
        "oov": {**_oov(rows), **predictor.without_row(rows)},
    }
    note.with_suffix(".tmp").write_text(json.dumps(entry))
    note.with_suffix(".tmp").rename(note)
    on_rows(len(score))
    return entry


def _oov(rows: EncodedRows) -> dict[str, int]:
    assert rows.unseen is not None, "raw rows were at hand"
    counts = rows.unseen.sum(axis=0, dtype=np.int64).tolist()
    return dict(zip(rows.layout.fields, counts, strict=True))


def _at_least_one(source: RawSource) -> Iterator[RawBlock]:
    """The source's blocks, or an empty one: a folder without a part is hard to read."""
    found = False
    for block in source.blocks():
        found = True
        yield block
    if not found:
        yield source.empty_block()
