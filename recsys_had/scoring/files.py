"""Raw files to scores: parts of Parquet, whole or not there, and a manifest that lists them."""

import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow.parquet as pq

from recsys_had.columns import source_columns
from recsys_had.data.raw import BLOCK_BYTES, RawBlock, RawSource, require_unchanged
from recsys_had.data.stream import StreamSource
from recsys_had.engines.local import open_engine
from recsys_had.errors import DataError, WorkerLostError
from recsys_had.output import OutputFolder
from recsys_had.schema import DatasetCard
from recsys_had.scoring.columns import MakeColumns
from recsys_had.scoring.parts import Entry, PartScorer, forget_columns, rejects_path
from recsys_had.scoring.pipeline import pipelined
from recsys_had.scoring.predictor import BatchPredictor
from recsys_had.storage import AnyPath
from recsys_had.whole_files import drop_unfinished

_OWN_COLUMNS = ("row_id", "score")


@dataclass(frozen=True)
class PredictReport:
    """What a prediction wrote.

    Args:
        rows_read: rows of the inputs: those scored and those rejected.
        rows: rows scored.
        rows_rejected: rows that were left out and told in ``rejects.parquet``.
        oov: per field, values that training never saw, or left without a row of their own
            (missing ones not counted).
        parts: names of the files written, in row order.
        peak_rss_bytes: most memory the processes have held, added up.
        digest: SHA-256 of the digests of all parts.
        score_error: of a mode that is not exact, how far the scores of the first part's rows are
            from the exact ones; see :mod:`recsys_had.scoring.score_error`.
    """

    rows_read: int
    rows: int
    rows_rejected: int
    oov: dict[str, int]
    parts: list[str]
    peak_rss_bytes: int
    digest: str
    score_error: dict[str, Any] | None = None


def predict_files(
    predictor: BatchPredictor,
    inputs: Sequence[str | AnyPath],
    out: AnyPath,
    *,
    keep: Sequence[str] = (),
    extras: Sequence[MakeColumns] = (),
    engine: Literal["local", "ray"] = "local",
    num_workers: int = 1,
    on_error: Literal["stop", "reject"] = "stop",
    resume: bool = False,
    overwrite: bool = False,
    block_bytes: int = BLOCK_BYTES,
    on_rows: Callable[[int], None] = lambda rows: None,
) -> PredictReport:
    """Streams raw rows into ``part-*.parquet`` of row_id, kept columns and score.

    Each block of some 32 MiB becomes a part, in memory that does not grow with the rows. With one
    worker, reading, scoring and writing of three blocks overlap in this process; more are
    processes of their own. The scores are the same to the bit.

    Args:
        predictor: what scores.
        inputs: files, URLs or globs; row ids count through them in this order. Or ``-`` alone: an
            Arrow stream on standard input.
        out: folder to write.
        keep: raw columns to copy beside the score.
        extras: make what makes further columns beside the score; sent to other processes where
            there are some.
        engine: ``local``, or ``ray`` for the machines of a cluster, which must all see the run,
            the files and ``out`` at the same paths.
        num_workers: processes; each holds the whole model.
        on_error: what a row that is not as the card says does: ``stop``, or ``reject``: it is left
            out and told, with file, line and reason, in ``rejects.parquet``.
        resume: go on after a kill; parts already written are not scored again. Of an Arrow stream
            the same rows must come again: blocks that differ are scored anew.
        overwrite: replace what ``out`` holds.
        block_bytes: decompressed bytes of a block; parts are cut by it.
        on_rows: told the number of rows of each part.

    Raises:
        DataError: a raw row, a file or the output folder is not usable, or a file was changed
            while it was read.
        WorkerLostError: a process was killed; what is finished is kept.
    """
    card = predictor.run.card
    made = [make(predictor) for make in extras]
    _check_keep(card, keep, [*_OWN_COLUMNS, *(name for extra in made for name in extra.names)])
    source = _source(inputs, card, keep)
    fingerprint: dict[str, Any] = {
        "run": predictor.run.manifest["digest"],
        "inputs": source.fingerprint,
        "keep": list(keep),
        # What else decides a column, where it says so: how many it lists, for example.
        "extras": [extra.made_with for extra in made],
        "on_error": on_error,
        "block_bytes": block_bytes,
        "calibrated": predictor.calibrated,
        "mode": predictor.mode.content,
    }
    with OutputFolder(
        out,
        marker="_SUCCESS",
        overwrite=overwrite,
        resume=resume,
        fingerprint=fingerprint,
        keep_unfinished=True,
    ) as folder:
        for root in (folder.stage, folder.work):
            drop_unfinished(root)
        tasks = enumerate(_at_least_one(source, block_bytes))
        alone = engine == "local" and num_workers == 1
        load: Callable[[], BatchPredictor] = (lambda: predictor) if alone else predictor.loading
        scorer = PartScorer(load, folder.stage, folder.work, keep, extras, on_error == "reject")
        done: list[Entry] = []
        try:
            with open_engine(engine, num_workers=num_workers, folder=folder.work) as workers:
                found = (
                    pipelined(tasks, scorer.read, scorer.score, scorer.write)
                    if alone
                    else workers.map(scorer, tasks)
                )
                for entry in found:
                    done.append(entry)
                    on_rows(entry["rows"])
                peak_rss_bytes = workers.peak_rss_bytes
        except WorkerLostError as error:
            raise WorkerLostError(f"{error} Add --resume.") from error
        finally:
            forget_columns()
        predictor.run.require_unchanged_weights()
        require_unchanged(source, fingerprint["inputs"])
        _drop_others(folder.stage, [part["name"] for part in done])
        _write_rejects(folder, len(done))
        score_error = done[0].pop("score_error", None)
        report = PredictReport(
            rows_read=sum(part["rows"] + part["rejected"] for part in done),
            rows=sum(part["rows"] for part in done),
            rows_rejected=sum(part["rejected"] for part in done),
            oov={
                field.name: sum(part["oov"].get(field.name, 0) for part in done)
                for field in card.fields
            },
            parts=[part["name"] for part in done],
            peak_rss_bytes=peak_rss_bytes,
            digest=hashlib.sha256("".join(part["sha256"] for part in done).encode()).hexdigest(),
            score_error=score_error,
        )
        manifest = {
            "kind": "scores",
            "run_digest": predictor.run.manifest["digest"],
            "weights_digest": predictor.run.manifest["weights_digest"],
            "rows_read": report.rows_read,
            "calibrated": predictor.calibrated,
            "mode": fingerprint["mode"],
            "score_error": score_error,
            "rows": report.rows,
            "rows_rejected": report.rows_rejected,
            "oov": report.oov,
            "keep": list(keep),
            "extras": fingerprint["extras"],
            "inputs": fingerprint["inputs"],
            "parts": done,
        }
        (folder.stage / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
        (folder.stage / "_SUCCESS").touch()
        folder.publish()
    return report


def _source(
    inputs: Sequence[str | AnyPath], card: DatasetCard, keep: Sequence[str]
) -> RawSource | StreamSource:
    if "-" not in map(str, inputs):
        return RawSource(inputs, card, label="optional", keep=keep)
    if len(inputs) > 1:
        raise DataError("--input -: standard input must be the only input. Leave the others out.")
    if sys.stdin is None or sys.stdin.isatty():
        raise DataError("--input -: an Arrow stream must come on standard input. Pipe one in.")
    return StreamSource(sys.stdin.buffer, card, keep=keep)


def _check_keep(card: DatasetCard, keep: Sequence[str], own: Sequence[str]) -> None:
    """Refuses columns that cannot stand beside the scores."""
    taken = [name for name in keep if name in own]
    if taken:
        raise DataError(
            f"--keep {taken[0]}: scores have a column {taken[0]} of their own. "
            "Rename it in the raw rows, or join by row_id."
        )
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


def _at_least_one(source: RawSource | StreamSource, block_bytes: int) -> Iterator[RawBlock]:
    """The source's blocks, or an empty one: a folder without a part is hard to read."""
    found = False
    for block in source.blocks(block_bytes):
        found = True
        yield block
    if not found:
        yield source.empty_block()


def _drop_others(stage: Path, parts: Sequence[str]) -> None:
    """Leaves nothing that an earlier try, of a stream that was longer, has written beyond these."""
    for path in stage.iterdir():
        if path.name not in parts:
            path.unlink()


def _write_rejects(folder: OutputFolder, num_parts: int) -> None:
    """The rejected rows of all blocks in one file, in the order of the rows; no file of none."""
    paths = [rejects_path(folder.work, number) for number in range(num_parts)]
    paths = [path for path in paths if path.is_file()]
    if not paths:
        return
    with pq.ParquetWriter(
        folder.stage / "rejects.parquet", pq.read_schema(paths[0]), compression="zstd"
    ) as writer:
        for path in paths:
            writer.write_table(pq.read_table(path))
