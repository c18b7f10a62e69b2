"""Read Excel files (.xlsx) with openpyxl."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import IO, Any
from zipfile import ZipFile

from mgnet.app.files.cells import number
from mgnet.app.files.columns import Column, check_names, listed, refuse_too_many, shown
from mgnet.app.files.layout import Layout, find_layout
from mgnet.app.files.typed import TypedFile, cell_text, column_of

__all__ = ["open_excel"]

MOST_UNPACKED, ALWAYS_UNPACKED = 100, 2**28  # the same limits as for other files
SAMPLE = 100  # rows that are searched for names and units
Row = Sequence[Any]


def open_excel(source: str, file: IO[bytes]) -> TypedFile:
    """Read the columns of the only nonempty sheet of an Excel file.

    Parameters
    ----------
    source : str
        Name of the file in messages.
    file : binary file
        File that is open for reading.

    Raises
    ------
    ImportError
        If openpyxl is not installed.
    ValueError
        If the file is damaged, or if it has several nonempty sheets, formulas without stored
        values, or no names.
    """
    try:
        import openpyxl
    except ImportError as error:
        reason = shown(" ".join(str(error).split()), 100)
        raise ImportError(
            f"{source} is an Excel file, which openpyxl reads ({reason}); install it with "
            "pip install 'mgnet-solvers[tables]', or save the sheet as CSV"
        ) from None
    try:
        with ZipFile(file) as archive:
            size = sum(info.file_size for info in archive.infolist())
            room = max(MOST_UNPACKED * file.seek(0, 2), ALWAYS_UNPACKED)
        if size > room:
            raise ValueError(f"it unpacks to more than {MOST_UNPACKED} times its size")
        sheets = _sheets(openpyxl, file, values=True)
        formulas = _sheets(openpyxl, file, values=False)
    except Exception as error:  # of any kind if a file is damaged
        reason = shown(" ".join(str(error).split()) or type(error).__name__, 150)
        raise ValueError(
            f"{source} cannot be read as an Excel file ({reason}); save it again, or as CSV"
        ) from None
    if not sheets:
        raise ValueError(f"{source} is empty; expected a row of column names, then rows")
    if len(sheets) > 1:
        raise ValueError(
            f"{source} has {len(sheets)} sheets with cells ({listed(list(sheets))}); save the one "
            "with the table as a separate file"
        )
    ((title, rows),) = sheets.items()
    for line, row in formulas.get(title, {}).items():
        for cell, value in zip(row, rows.get(line, [None] * len(row)), strict=False):
            if value is None and isinstance(cell, str) and cell.startswith("="):
                raise ValueError(
                    f"{source}: row {line} has the formula '{shown(cell, 30)}' without its value; "
                    "open and save it in a spreadsheet program, or save the sheet as CSV"
                )
    return _table(source, rows)


def _sheets(openpyxl: Any, file: IO[bytes], values: bool) -> dict[str, dict[int, Row]]:
    """Nonempty sheets with their nonempty rows by row number."""
    file.seek(0)
    book = openpyxl.load_workbook(file, read_only=True, data_only=values, keep_links=False)
    found = {}
    for sheet in book.worksheets:
        sheet.reset_dimensions()  # the dimensions stored in the file may be wrong
        rows = {
            line: row
            for line, row in enumerate(sheet.iter_rows(values_only=True), 1)
            if any(cell is not None for cell in row)
        }
        if rows:
            found[sheet.title] = rows
    return found


def _table(source: str, rows: dict[int, Row]) -> TypedFile:
    left = min(next(k for k, cell in enumerate(row) if cell is not None) for row in rows.values())
    width = max(map(len, rows.values()), default=0) - left
    refuse_too_many(source, width)
    cut = {line: _padded(row[left:], width) for line, row in rows.items()}
    while width > 1 and all(row[width - 1] is None for row in cut.values()):
        width -= 1
    lines = list(cut)
    table = [cut[line][:width] for line in lines]
    layout = _layout(table)
    names = layout.names
    where = f"row {lines[layout.header]}"
    if all(number(name) is not None for name in names):
        raise ValueError(f"{source} has no header: {where} has no names; write them there")
    if "" in names[1:]:  # the first may be an index
        raise ValueError(
            f"{source}: column {names.index('', 1) + 1} has no name in {where}; name it"
        )
    check_names(source, names)
    body, labels = table[layout.first :], lines[layout.first :]
    units = layout.units or (None,) * width
    columns = {
        name: column_of(name, [row[k] for row in body], unit)
        for k, (name, unit) in enumerate(zip(names, units, strict=True))
    }

    def cells() -> Iterator[Row]:
        return iter(body)

    found = {name: column for name, column in columns.items() if isinstance(column, Column)}
    others = {name: column for name, column in columns.items() if isinstance(column, str)}
    return TypedFile(source, names, found, others, cells, labels)


def _padded(row: Row, width: int) -> Row:
    return (*row, *[None] * (width - len(row)))


def _layout(table: Sequence[Row]) -> Layout:
    """Names and units, found as in text; rows above the first complete row are title lines."""
    text = [[cell_text(cell).strip() for cell in row] for row in table[:SAMPLE]]
    full = next((k for k, row in enumerate(text) if all(row)), 0)
    for row in text[:full]:
        while row and not row[-1]:
            row.pop()
    plain = Layout(tuple(text[0] + [""] * (len(table[0]) - len(text[0]))))
    return find_layout(text) or plain
