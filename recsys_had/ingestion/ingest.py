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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from recsys_had.data.duplicates import find_duplicates
from recsys_had.data.files import is_plain
from recsys_had.data.lookups import SideTable
from recsys_had.data.raw import BLOCK_BYTES, RawSource, require_unchanged
from recsys_had.data.read_block import id_columns
from recsys_had.engines.local import available_cores, open_engine
from recsys_had.errors import DataError
from recsys_had.ingestion.passes import AllStaged, merge_all, stage_all, write_all_parts
from recsys_had.ingestion.rejects import write_rejects
from recsys_had.ingestion.stage import Stager, save_side_tables
from recsys_had.ingestion.update import Earlier
from recsys_had.output import OutputFolder
from recsys_had.schema import SPLITS, DatasetCard, GivenSplit
from recsys_had.storage import AnyPath
from recsys_had.versions import library_versions
from recsys_had.whole_files import drop_unfinished

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
        DataError: an input, a row or the output folder is not usable, an input was changed while it
            was read, or no row trains.
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
    fingerprint: dict[str, Any] = {
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
        for root in (folder.stage, folder.work):
            drop_unfinished(root)
        side_tables = save_side_tables(lookups, folder.work)
        stager = Stager(card, given, side_tables, folder.work, reject=on_error == "reject")
        staged = stage_all(workers, stager, source, block_bytes=block_bytes, on_rows=on_rows)
        require_unchanged(source, fingerprint["inputs"])
        encoder = merge_all(workers, card, staged, lookups, folder, earlier)
        parts = write_all_parts(workers, encoder, staged, folder, on_rows=on_rows)
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


def _duplicates(card: DatasetCard, staged: AllStaged) -> dict[str, int]:
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
