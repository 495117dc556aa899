"""Parts: what becomes of one block of raw rows, read, scored and written, in any process."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recsys_had.data.raw import RawBlock
from recsys_had.scoring.columns import MakeColumns, RowColumns, score_columns
from recsys_had.scoring.predictor import BatchPredictor
from recsys_had.scoring.reading import ReadRows, read_rows, without_rows
from recsys_had.scoring.score_error import ScoreError
from recsys_had.whole_files import file_digest, unfinished, write_whole

_ROW_GROUP_ROWS = 1 << 16
_NO_SCORE = "has a score that is not a number. Are its numbers too large, or the run's weights bad?"


@dataclass(frozen=True)
class _Read:
    number: int
    block: RawBlock
    found: ReadRows


@dataclass(frozen=True)
class _Scored:
    """What is to be written, and what is told of it: the rows themselves are no longer needed."""

    number: int
    digest: str | None
    columns: dict[str, Any]
    rejects: pa.Table
    told: dict[str, Any]


# What a manifest tells of a part.
Entry = dict[str, Any]


@dataclass(frozen=True)
class PartScorer:
    """Scores blocks; what it leaves lies in files, so any process may do it, and any number.

    Args:
        load: gives the predictor.
        stage: folder of the scores to be.
        work: folder of notes on what is finished.
        keep: raw columns to copy beside the score.
        extras: make further columns.
        reject: whether rows that are not as the card says are left out, not an error.
    """

    load: Callable[[], BatchPredictor]
    stage: Path
    work: Path
    keep: Sequence[str] = ()
    extras: Sequence[MakeColumns] = ()
    reject: bool = False

    def __call__(self, task: tuple[int, RawBlock]) -> Entry:
        """All of it for one block and its number."""
        return self.write(self.score(self.read(task)))

    def read(self, task: tuple[int, RawBlock]) -> Entry | _Read:
        """The rows of a block, or what is known of its part where an earlier try has written it."""
        number, block = task
        note = self.work / f"part-{number:05d}.json"
        if note.is_file():
            known: Entry = json.loads(note.read_text())
            path = self.stage / known["name"]
            is_same = known.pop("input") == block.digest
            if is_same and path.is_file() and file_digest(path) == known["sha256"]:
                return known
        found = read_rows(block, self.load().encoder, keep=self.keep, reject=self.reject)
        told = len(found.rows) + found.rejects.num_rows
        if told != block.num_rows:
            # What a manifest tells of rows would be true of those that were seen alone.
            raise RuntimeError(
                f"{block.path}: {block.num_rows} rows were counted from row {block.first_row_id} "
                f"on, and {told} were read."
            )
        return _Read(number, block.unread(), found)

    def score(self, read: Entry | _Read) -> Entry | _Scored:
        """The columns of a block's part."""
        if isinstance(read, dict):
            return read
        predictor, rows = self.load(), read.found.rows
        columns: dict[str, Any] = {"row_id": pa.array(rows.row_id), **read.found.kept}
        extras = [_made(make, predictor) for make in self.extras]
        # Of the first part, whoever scores it, and once: what is found is kept with the part.
        measured = None if read.number or predictor.mode.is_exact else ScoreError()
        columns |= score_columns(
            predictor, rows, extras if measured is None else [*extras, measured]
        )
        scores = columns["score"].to_numpy()
        error = None if measured is None else measured.found(predictor, rows, scores)
        found, bad = read.found, np.isnan(scores)
        if bad.any():
            found = without_rows(found, bad, read.block, _NO_SCORE, reject=self.reject)
            kept = pa.array(~bad)
            columns = {name: column.filter(kept) for name, column in columns.items()}
        told = {
            "rows": len(found.rows),
            "rejected": found.rejects.num_rows,
            "oov": {**found.unseen, **predictor.without_row(found.rows)},
            **({} if error is None else {"score_error": error}),
        }
        return _Scored(read.number, read.block.digest, columns, found.rejects, told)

    def write(self, scored: Entry | _Scored) -> Entry:
        """Writes a part, whole or not at all."""
        if isinstance(scored, dict):
            return scored
        rejects = rejects_path(self.work, scored.number)
        rejects.unlink(missing_ok=True)
        if scored.rejects.num_rows:
            _write(scored.rejects, rejects)
        name = f"part-{scored.number:05d}.parquet"
        entry = {
            "name": name,
            **scored.told,
            "sha256": _write(pa.table(scored.columns), self.stage / name),
        }
        # The last: what it tells of is whole.
        note = json.dumps({**entry, "input": scored.digest})
        write_whole(self.work / f"part-{scored.number:05d}.json", note)
        return entry


@lru_cache(maxsize=8)
def _made(make: MakeColumns, predictor: BatchPredictor) -> RowColumns:
    """Made once a process."""
    return make(predictor)


def forget_columns() -> None:
    """Lets go of the models that columns were made for."""
    _made.cache_clear()


def rejects_path(work: Path, number: int) -> Path:
    """Where the rejected rows of a block wait, if it has any."""
    return work / f"rejects-{number:05d}.parquet"


def _write(table: pa.Table, path: Path) -> str:
    """Writes a table; the rename makes it whole. Its digest."""
    fresh = unfinished(path)
    pq.write_table(table, fresh, compression="zstd", row_group_size=_ROW_GROUP_ROWS)
    digest = file_digest(fresh)
    fresh.rename(path)
    return digest
