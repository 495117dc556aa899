"""One raw file, whatever its format: opened, and its columns looked at."""

from collections.abc import Mapping, Sequence

from recsys_had.columns import Column, source_columns
from recsys_had.data.table import TableFile
from recsys_had.data.text import TextFile
from recsys_had.errors import DataError
from recsys_had.schema import DatasetCard, FileFormat
from recsys_had.storage import AnyPath
from recsys_had.suggest import nearest


def open_raw(
    path: AnyPath,
    file_format: FileFormat,
    columns: Mapping[str, Column],
    *,
    optional: Sequence[str] = (),
) -> TextFile | TableFile:
    """Opens a raw file; a name ending in .parquet is Parquet whatever the format says.

    Args:
        path: the file.
        file_format: how it is written.
        columns: what its columns are, in the order of a file without a header.
        optional: those of them that a file without a header may lack: the first, or all.

    Raises:
        DataError: it is empty, cannot be read or has another number of columns.
    """
    if path.suffix == ".parquet" or file_format.type == "parquet":
        return TableFile(path, columns, missing=file_format.missing)
    return TextFile(path, file_format, columns=source_columns(columns), optional=optional)


def check_header(file: TextFile | TableFile, wanted: Sequence[str]) -> None:
    """Asks of a file the columns that will be read.

    Raises:
        DataError: one line per column that is missing or stands twice, or a single one where the
            separator looks wrong.
    """
    names, place = file.columns, file.header_place
    if isinstance(file, TextFile) and len(names) == 1 < len(wanted) and names[0] not in wanted:
        raise DataError(_told_of_one_column(file, len(wanted)))
    check_columns(names, wanted, place=place)


def check_columns(names: Sequence[str], wanted: Sequence[str], *, place: str) -> None:
    """Asks of the names of columns those that will be read.

    Raises:
        DataError: one line per column that is missing or stands twice.
    """
    problems = [
        f"{place}: column {name}: stands twice. Rename one of them."
        for name in sorted({name for name in names if names.count(name) > 1})
    ]
    problems += [
        f"{place}: column {name}: is missing.{nearest(name, names)}"
        for name in wanted
        if name not in names
    ]
    if problems:
        raise DataError(problems)


def told_of_further(names: Sequence[str], card: DatasetCard, wanted: Sequence[str]) -> str:
    """What is said of columns that nobody reads; nothing where there are none."""
    known = {*source_columns(card.columns), *wanted}
    further = [name for name in names if name not in known]
    return f"not in the card and so not read: {', '.join(further)}." if further else ""


_SEPARATORS = {"\t": "tabs", ",": "commas", ";": "semicolons", "|": "bars"}


def _told_of_one_column(file: TextFile, num_wanted: int) -> str:
    ours = file.format.column_separator
    found = [
        name
        for separator, name in _SEPARATORS.items()
        if separator in file.columns[0] and separator != ours
    ]
    seen = f" The line holds {found[0]}." if found else ""
    return (
        f"{file.header_place}: holds 1 column, and {num_wanted} are asked for.{seen} Is "
        f"format.type '{file.format.type}' right, which looks for "
        f"{_SEPARATORS.get(ours, repr(ours))}?"
    )
