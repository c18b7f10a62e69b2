"""Read Parquet files with pyarrow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import IO, Any

import numpy as np

from mgnet.app.files.columns import Column, check_names, refuse_too_many, shown
from mgnet.app.files.typed import TypedFile, text_column

__all__ = ["open_parquet"]

# Bounds on the unpacked size of a file: a multiple of its size, and bytes in any case, as doubles.
MOST_UNPACKED, ALWAYS_UNPACKED = 100, 2**28
INDEX = "__index_level_"  # pandas's name for a column with the index of the rows


def open_parquet(source: str, file: IO[bytes]) -> TypedFile:
    """Read the columns of a Parquet file.

    Parameters
    ----------
    source : str
        Name of the file in messages.
    file : binary file
        File that is open for reading.

    Raises
    ------
    ImportError
        If pyarrow is not installed.
    ValueError
        If the file is damaged, has no columns, or unpacks to far more than its size.

    Notes
    -----
    Columns that pandas writes for the index of rows are omitted. Times with a zone are converted to
    UTC.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:  # it is missing, or does not work with the installed NumPy
        reason = shown(" ".join(str(error).split()), 100)
        raise ImportError(
            f"{source} is a Parquet file, which pyarrow reads ({reason}); install it with "
            "pip install 'mgnet-solvers[tables]', or save the table as CSV"
        ) from None
    try:
        size = file.seek(0, 2)
        file.seek(0)
        reader = pq.ParquetFile(file, page_checksum_verification=True)
        rows, width = reader.metadata.num_rows, len(reader.schema_arrow.names)
        refuse_too_many(source, width)
        room = max(MOST_UNPACKED * size, ALWAYS_UNPACKED)
        groups = range(reader.metadata.num_row_groups)
        packed = sum(reader.metadata.row_group(group).total_byte_size for group in groups)
        if max(8 * rows * width, packed) > room:
            raise ValueError(
                f"it unpacks to more than {MOST_UNPACKED} times its size, and more than "
                f"{ALWAYS_UNPACKED >> 20} MiB"
            )
        table = reader.read(use_threads=False)
        columns = {}
        for name, values in zip(table.column_names, table.columns, strict=True):
            columns.setdefault(name, _column(pa, name, values))
    except (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError) as error:
        reason = shown(" ".join(str(error).split()) or type(error).__name__, 150)
        raise ValueError(
            f"{source} cannot be read as a Parquet file ({reason}); write it again, or as CSV"
        ) from None
    places = [k for k, name in enumerate(table.column_names) if not name.startswith(INDEX)]
    names = tuple(table.column_names[place] for place in places)
    if not names or not all(names):
        what = "has a column without a name" if names else "has no columns"
        raise ValueError(f"{source} {what}; expected named columns of numbers")
    check_names(source, names)
    kept = table.select(places)

    def cells() -> Iterator[Sequence[object]]:
        for batch in kept.to_batches(max_chunksize=4096):
            yield from zip(*(values.to_pylist() for values in batch.columns), strict=True)

    found = {n: c for n, c in columns.items() if isinstance(c, Column)}
    others = {n: c for n, c in columns.items() if isinstance(c, str)}
    return TypedFile(source, names, found, others, cells, range(1, rows + 1))


def _column(pa: Any, name: str, values: Any) -> Column | str:
    """A column, or a description of its content if it is not a column."""
    kinds = pa.types
    if kinds.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    kind = values.type
    if kinds.is_null(kind):
        return Column(name, "number", np.full(len(values), np.nan))
    if kinds.is_boolean(kind):
        return Column(name, "boolean", values.cast(pa.int8()).cast(pa.float64()).to_numpy())
    if kinds.is_integer(kind) or kinds.is_floating(kind) or kinds.is_decimal(kind):
        return Column(name, "number", values.cast(pa.float64(), safe=False).to_numpy().copy())
    if kinds.is_string(kind) or kinds.is_large_string(kind):
        return text_column(name, values.to_pylist())
    if kinds.is_date(kind) or kinds.is_timestamp(kind):
        finer = kinds.is_timestamp(kind) and kind.unit == "ns"  # truncated to microseconds
        dates = values.cast(pa.timestamp("us"), safe=not finer)
        return Column(name, "date", dates.to_numpy().astype("datetime64[us]"))
    return shown(str(kind))
