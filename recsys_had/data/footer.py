"""What a Parquet file's footer tells of its parts, seen to be possible: it has no checksum.

Not all damage of a footer can be seen; what sends a column to the values of another mostly is.
"""

import pyarrow.parquet as pq

from recsys_had.errors import DataError


def check_footer(place: object, metadata: pq.FileMetaData) -> None:
    """Refuses a footer whose numbers of rows differ, or two columns of which begin together.

    Args:
        place: the file, for errors.
        metadata: its footer.

    Raises:
        DataError: no writer writes such a footer; the file is damaged.

    >>> import io
    >>> import pyarrow as pa
    >>> file = io.BytesIO()
    >>> pq.write_table(pa.table({"a": [1, 2]}), file)
    >>> check_footer("a.parquet", pq.read_metadata(file))
    """
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    rows = sum(group.num_rows for group in groups)
    if rows != metadata.num_rows:
        raise DataError(
            f"{place}: is damaged: it must hold {metadata.num_rows} rows; got {rows}. "
            "Fetch it again."
        )
    # A group without rows may have columns without bytes, which begin anywhere.
    starts = [
        _start(group.column(number))
        for group in groups
        if group.num_rows
        for number in range(group.num_columns)
    ]
    if len(set(starts)) < len(starts):
        raise DataError(
            f"{place}: is damaged: two of its columns begin at the same byte. Fetch it again."
        )


def _start(column: pq.ColumnChunkMetaData) -> int:
    first: int = column.data_page_offset
    dictionary = column.dictionary_page_offset
    return min(first, dictionary) if dictionary else first
