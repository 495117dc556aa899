"""Decoded folders: the rows of a data folder as raw values, in Parquet, CSV or TSV."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from recsys_had.data.decode import Decoder, separator_of
from recsys_had.data.folder import DataFolder
from recsys_had.data.shards import encoder_of, existing_splits, pieces_of, shards_of
from recsys_had.errors import DataError
from recsys_had.output import OutputFolder, refuse_other_kinds
from recsys_had.schema import DatasetCard
from recsys_had.versions import library_versions

_MANIFEST = "manifest.json"
_KIND = "decoded"

FileFormat = Literal["parquet", "csv", "tsv"]


def decode_folder(
    data: DataFolder,
    out: Path,
    *,
    splits: Sequence[str] = (),
    rows: int | None = None,
    columns: Sequence[str] = (),
    file_format: FileFormat = "parquet",
    overwrite: bool = False,
    on_rows: Callable[[int], object] = lambda rows: None,
) -> dict[str, Any]:
    """Writes ``OUT/SPLIT/part-*`` with the raw values of a data folder's rows, piece by piece.

    Args:
        data: the encoded rows.
        out: folder to write.
        splits: which ones; all where there is none.
        rows: no more than the first so many of each split.
        columns: which columns beside ``row_id``; all where there is none.
        file_format: parquet; csv (RFC 4180); or tsv, which has no quoting. Text files join the
            values of a list by the separator of their column.
        overwrite: replace decoded rows that ``out`` holds.
        on_rows: told the rows of each piece.

    Returns:
        The manifest: ``rows`` per split; ``decoded``, how each column came back;
        ``not_decoded``, why others did not; ``id_0``, per decoded field, the values that were
        missing or unseen and came back as null; ``missing_as``, the number a missing dense input
        came back as, where its card does not fill it.

    Raises:
        ConfigError: there is no such split or column.
        DataError: a shard cannot be read, ``out`` holds something this may not replace, or a
            value cannot be written in this format.
        CheckpointError: the vocabularies are not those of the rows.
    """
    chosen = existing_splits(data, splits)
    refuse_other_kinds(out, _MANIFEST, kind=_KIND, told="decoded data")
    decoder = Decoder(encoder_of(data), columns)
    nulls = {field.name: 0 for field in data.card.fields if field.name in decoder.ways}
    written: dict[str, int] = {}
    with OutputFolder(out, marker=_MANIFEST, overwrite=overwrite) as folder:
        for split in chosen:
            (folder.stage / split).mkdir()
            written[split] = 0
            for shard in shards_of(data, split):
                left = None if rows is None else rows - written[split]
                if left == 0:
                    break
                path = folder.stage / split / f"{shard.name.removesuffix('.parquet')}.{file_format}"
                with _Writer(path, data.card) as writer:
                    for piece in _first(pieces_of(shard, decoder.columns), left):
                        values = decoder.decode(piece)
                        writer.write(values)
                        written[split] += len(values)
                        for name in nulls:
                            nulls[name] += _num_nulls(values.column(name))
                        on_rows(len(values))
        manifest = {
            "kind": _KIND,
            "dataset": data.card.name,
            "vocabulary_digest": data.manifest["vocabulary_digest"],
            "format": file_format,
            "rows": written,
            "decoded": decoder.ways,
            "not_decoded": decoder.obstacles,
            "id_0": nulls,
            "missing_as": decoder.missing,
            "versions": library_versions(),
        }
        (folder.stage / _MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
        folder.publish()
    return manifest


def _first(pieces: Iterator[pa.RecordBatch], rows: int | None) -> Iterator[pa.RecordBatch]:
    for piece in pieces:
        kept = piece if rows is None else piece.slice(0, rows)
        yield kept
        if rows is not None:
            rows -= len(kept)
            if not rows:
                return


def _num_nulls(values: Any) -> int:
    return int((values.flatten() if pa.types.is_large_list(values.type) else values).null_count)


class _Writer:
    """Writes one file, in the format its name ends with."""

    def __init__(self, path: Path, card: DatasetCard) -> None:
        self._path = path
        self._card = card
        self._parquet: Any = None
        self._stream = None if path.suffix == ".parquet" else path.open("wb")

    def write(self, rows: pa.RecordBatch) -> None:
        """Appends rows; the first say what the columns are."""
        if self._stream is not None:
            tsv = self._path.suffix == ".tsv"
            text = _as_text(rows, self._card, tsv=tsv)
            text.write_csv(
                self._stream,
                include_header=not self._stream.tell(),
                separator="\t" if tsv else ",",
                quote_style="never" if tsv else "necessary",
                null_value=next(iter(self._card.format.missing), ""),
            )
            return
        if self._parquet is None:
            self._parquet = pq.ParquetWriter(self._path, rows.schema, compression="zstd")
        self._parquet.write_batch(rows)

    def __enter__(self) -> "_Writer":
        return self

    def __exit__(self, *error: object) -> None:
        if self._stream is not None:
            self._stream.close()
        if self._parquet is not None:
            self._parquet.close()


def _as_text(rows: pa.RecordBatch, card: DatasetCard, *, tsv: bool) -> pl.DataFrame:
    """Cells that stand on a line: lists joined, everything else as Polars writes it."""
    frame = pl.DataFrame(pl.from_arrow(rows))
    for name, dtype in frame.schema.items():
        if isinstance(dtype, pl.List | pl.Array):
            frame = frame.with_columns(_joined(frame[name], separator_of(card, name)))
        cells = frame[name]
        if tsv and cells.dtype == pl.String and cells.str.contains(r"[\t\r\n]").any():
            raise DataError(
                f"--format tsv: column {name}: a value holds a tab or a line end, and TSV has no "
                "quoting. Choose csv or parquet."
            )
    return frame


def _joined(lists: pl.Series, separator: str) -> pl.Series:
    if isinstance(lists.dtype, pl.Array):
        lists = lists.arr.to_list()
    texts = lists.cast(pl.List(pl.String))
    holds = texts.explode().drop_nulls().str.contains(separator, literal=True)
    if holds.any():
        raise DataError(
            f"--format: column {lists.name}: a value holds '{separator}', which stands between "
            "values. Choose parquet."
        )
    joined = texts.list.join(separator, ignore_nulls=True)
    return joined.replace("", None).alias(lists.name)
