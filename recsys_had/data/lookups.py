"""SideTable: a small table joined to every row by a key, such as an item's genres."""

from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from recsys_had.columns import source_columns
from recsys_had.data.problems import Problems, quoted
from recsys_had.data.rawfile import check_header, open_raw
from recsys_had.data.values import column_values
from recsys_had.data.vocabulary import SortedTexts, digest_of, texts_of
from recsys_had.errors import DataError
from recsys_had.schema import Lookup
from recsys_had.storage import AnyPath, read_parquet

_WHOLE_FILE = 1 << 40


class SideTable:
    """A side table, ready to be joined.

    Args:
        lookup: what the card says of it.
        frame: its rows as text, the key unique.
    """

    def __init__(self, lookup: Lookup, frame: pl.DataFrame) -> None:
        self.lookup = lookup
        self.frame = frame
        self._keys = SortedTexts(frame[lookup.key])
        problems = Problems()
        # The last row answers for every key that is not there: all of it is missing.
        with_unknown = pl.concat([frame, pl.DataFrame(schema=frame.schema).clear(1)])
        self._values = dict(
            column_values(_values_of(lookup), with_unknown, place=str, problems=problems)
        )
        problems.raise_any()

    @classmethod
    def read(cls, lookup: Lookup, folder: AnyPath) -> "SideTable":
        """Reads the table from a folder of raw files.

        Raises:
            DataError: it is missing or a row of it is not as the card says.
        """
        path = folder / lookup.file
        if not path.is_file():
            raise DataError(
                f"{path}: there is no such file; the card joins it to every row by "
                f"'{lookup.key}'. Put it beside the first raw file."
            )
        file = open_raw(path, lookup.format, lookup.columns)
        wanted = (lookup.key, *source_columns(_values_of(lookup)))
        check_header(file, wanted)
        blocks = [rows for _, rows in file.blocks(wanted, block_bytes=_WHOLE_FILE)]
        if not blocks:
            raise DataError(f"{path}: holds no rows. Give the file that does.")
        frames = [rows.read() for rows in blocks]
        firsts = np.cumsum([0, *map(len, frames)])

        def place(row: int) -> str:
            block = int(np.searchsorted(firsts, row, side="right")) - 1
            return blocks[block].place(row - int(firsts[block]))

        frame = pl.concat(frames)
        keys = frame[lookup.key]
        problems = Problems()
        problems.add_rows(
            (keys.is_null() | ~keys.is_first_distinct()).to_numpy(),
            place,
            lambda row: f"column {lookup.key}: must be there and unique; got {quoted(keys[row])}.",
        )
        for _ in column_values(_values_of(lookup), frame, place=place, problems=problems):
            pass
        problems.raise_any()
        return cls(lookup, frame)

    @property
    def digest(self) -> str:
        """SHA-256 of the rows."""
        return digest_of(self.frame)

    def save(self, path: Path) -> None:
        """Writes the rows as Parquet."""
        pq.write_table(self.frame.to_arrow(), path, compression="zstd")

    @classmethod
    def load(cls, lookup: Lookup, path: AnyPath) -> "SideTable":
        """Reads what :meth:`save` wrote.

        Raises:
            DataError: the file is missing, or does not hold the lookup's columns.
        """
        try:
            return cls(lookup, pl.DataFrame(pl.from_arrow(read_parquet(path))))
        except (OSError, pa.ArrowException, pl.exceptions.PolarsError) as cause:
            raise DataError(f"{path}: cannot be read: {cause}.") from cause

    def join(self, keys: pl.Series) -> dict[str, pa.Array]:
        """The table's values for each key, missing where it is unknown."""
        found = keys.to_arrow().dictionary_encode()
        rows = self._keys.positions(texts_of(found.dictionary))
        unknown = len(self.frame)
        codes = found.indices.fill_null(len(rows)).to_numpy()
        index = np.append(np.where(rows < 0, unknown, rows), unknown)[codes]
        return {name: values.take(pa.array(index)) for name, values in self._values.items()}


def _values_of(lookup: Lookup) -> dict:  # type: ignore[type-arg]
    return {
        name: column
        for name, column in lookup.columns.items()
        if name != lookup.key and column.kind not in {"id", "ignored", "label"}
    }
