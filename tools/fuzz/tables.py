"""Tables: what is read is what another reader reads, or it is refused in one sentence.

The oracle is written from the rules in `docs/fit.md`: Python's csv module over the whole text,
`float` of the stripped cell, and `numpy.load`.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from mgnet.app import cli
from mgnet.app.columns.encoding import Encoding
from mgnet.app.columns.targets import Targets
from mgnet.app.files.opening import open_data_file
from mgnet.app.model import Model
from mgnet.app.prediction import predict_file
from mgnet.app.table import read_table
from mgnet.estimators.scales import Scales
from mgnet.knots import KAN
from tools.fuzz.odd_tables import draw_archive, draw_text, odd_name, replace_by_device

__all__ = ["Fuzzer"]

WORDS = "", "na", "n/a", "nan", "null", "none", "-nan"  # of those that are drawn
PLAIN = ValueError, OSError, ImportError, FileNotFoundError, IsADirectoryError, PermissionError
OTHERS = b"PAR1", b"\xd0\xcf\x11\xe0", b"\x93NUM", b"sep="
MODEL_INPUTS = "T", "p [MPa]"


class Fuzzer:
    """Reads, predicts and writes; and what is refused is refused by the command, too."""

    refusals = ValueError, OSError, ImportError  # of pyarrow, perhaps

    def prepare(self, folder: Path) -> None:
        network = KAN([2, 1], 4)
        ranges = ((-1.0, 1.0), (0.0, 5.0))
        encoding, scales = Encoding.of_numbers(MODEL_INPUTS), Scales(ranges, (1.0,), (2.0,))
        Model(network, encoding, Targets(("rho",)), scales).save(folder)
        (folder / "table.csv").write_text("T,p [MPa]\n1,2\n")
        predict_file(folder, folder / "table.csv")  # compiled loops are loaded

    def draw(self, rng: np.random.Generator, folder: Path) -> str:
        is_archive = rng.random() < 0.35
        name = "table.npz" if is_archive ^ (rng.random() < 0.03) else "table.csv"
        drawn = (draw_archive if is_archive else draw_text)(rng, folder / name)
        if rng.random() < 0.01:
            drawn += f"; {replace_by_device(rng, folder / name)}"
        known = ["T", "rho"] if rng.random() < 0.9 else ["x0", "note", "none", "q5", "t"]
        target = str(rng.choice(known)) if rng.random() < 0.95 else odd_name(rng, known)
        inputs = None
        if rng.random() < 0.5:
            inputs = [odd_name(rng, ["T", "x1", "p [MPa]"]) for _ in range(rng.integers(1, 3))]
            if rng.random() < 0.7:
                inputs = ["x0", "x2"] if is_archive else ["p [MPa]"]
        asked = {
            "file": name,
            "mode": str(rng.choice(["read", "predict", "command", "write"])),
            "target": target,
            "inputs": inputs,
            "drop": bool(rng.random() < 0.5),
        }
        (folder / "asked.json").write_text(json.dumps(asked))
        return f"{name}: {drawn}; {asked}"[:600]

    def use(self, folder: Path) -> bool:
        asked = json.loads((folder / "asked.json").read_text())
        path = folder / asked["file"]
        try:
            if asked["mode"] == "predict":
                return _predicts(folder.parent / "prepared", path)
            if asked["mode"] == "write":
                return _writes(path)
            if asked["mode"] == "command":
                return _refuses(path, asked)
            return _reads(path, asked)
        except self.refusals as error:
            told = str(error)
            ours = any(word in told for word in (path.name, "target '", "input '", "column names"))
            if type(error) not in PLAIN or not told.isprintable() or not ours:
                raise RuntimeError("the refusal is not a sentence of mgnet") from error
            if asked["mode"] in ("read", "command") and _is_good(path, asked):
                raise RuntimeError("a good table is refused") from error
            raise


def _reads(path: Path, asked: dict) -> bool:
    table = read_table(path, asked["target"], asked["inputs"], asked["drop"], task="regression")
    if any(column.kind != "number" for column in table.inputs):
        return True  # cells that are not numbers are left to the tests of mgnet.app.columns
    there = _read_again(path)
    inputs = list(table.names)  # those that are empty or count the rows are left out
    expected = np.array([there[name] for name in [*inputs, asked["target"]]]).T
    complete = np.isfinite(expected).all(1)
    if not asked["drop"] and not complete.all():
        return False
    expected = expected[complete]
    return (
        (asked["inputs"] is None or inputs == asked["inputs"])
        and table.dropped == (~complete).sum()
        and np.array_equal(np.array([c.values for c in table.inputs]).T, expected[:, :-1])
        and np.array_equal(table.y, expected[:, -1])
    )


def _predicts(model: Path, path: Path) -> bool:
    lines, remarks = predict_file(model, path)
    there = _read_again(path)
    x = np.array([there[name] for name in MODEL_INPUTS]).T
    x[np.isinf(x)] = np.nan
    complete = np.isfinite(x).all(1)
    y = np.full(len(x), np.nan)
    if complete.any():
        y[complete] = Model.load(model).predict(x[complete])
    lacking = [remark for remark in remarks if "lack an input" in remark]
    return (
        _extended(path, lines, y, "rho_predicted")
        and all(len(remark) < 1000 for remark in remarks)
        and bool(lacking) == (not complete.all())
    )


def _writes(path: Path) -> bool:
    file = open_data_file(path)
    numbers = file.numbers(list(file.names[:1]))[:, 0]
    numbers[np.isinf(numbers)] = np.nan
    return _extended(path, file.with_columns({"new, one": numbers}), numbers, "new, one")


def _refuses(path: Path, asked: dict) -> bool:
    """Whether the command refuses what `read_table` refuses, in one line, and leaves no file."""
    inputs = asked["inputs"] and [name.strip() for name in asked["inputs"]]  # as the command does
    try:
        read_table(path, asked["target"], inputs, asked["drop"], task="regression")
    except (ValueError, OSError) as error:
        refusal = error
    else:
        return True  # it would train
    command = [
        "fit",
        str(path),
        f"--target={asked['target']}",
        "--evaluations",
        "1",
        "--task=regression",
    ]
    command += ["--out", str(path.parent / "out"), *["--drop-missing"] * asked["drop"]]
    if asked["inputs"] is not None:
        line = io.StringIO()
        csv.writer(line, lineterminator="").writerow(asked["inputs"])
        command.append(f"--inputs={line.getvalue()}")
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main(command)
    if code != 2 or out.getvalue() or (path.parent / "out").exists():
        return False
    if not err.getvalue().startswith("mgnet: ") or err.getvalue().count("\n") != 1:
        return False
    raise refusal


def _extended(path: Path, lines: object, column: np.ndarray, name: str) -> bool:
    """Whether lines are the table with a column more."""
    lines = list(lines)  # type: ignore[call-overload]
    if _is_archive(path):
        with np.load(path, allow_pickle=False) as archive:
            arrays = _arrays(archive)
        kept = {n: v for n, v in _columns(arrays).items() if len(v) == len(column)}
        kept = {n: v for n, v in kept.items() if v.dtype.kind in "biufUSM"}
        cells = list(csv.reader(lines[1:]))
        got = np.array([[float(row[-1] or "nan")] for row in cells])
        expected = column[:, None]
        is_same = next(csv.reader(lines[:1])) == [*kept, name]
        for place, values in enumerate(kept.values()):
            there = [row[place] for row in cells]
            if values.dtype.kind in "biuf":
                numbers = np.array([float(cell or "nan") for cell in there])
                is_same &= np.array_equal(numbers, values.astype(float), equal_nan=True)
            elif values.dtype.kind in "US":
                is_same &= there == [str(value) for value in values.astype(str)]
    else:
        rows, separator = _rows(path)
        got_rows = _without_units(_parsed(_without_notes("\n".join(lines)), separator))
        got = np.array([[float(row[-1] or "nan")] for row in got_rows[1:]])
        expected = column[:, None]
        is_same = got_rows[0] == [*rows[0], name]
        is_same = is_same and [row[:-1] for row in got_rows[1:]] == rows[1:]
    shape = got.reshape(len(column), -1)[:, -1] if len(column) else column
    return is_same and np.allclose(shape, expected[:, -1], rtol=1e-9, equal_nan=True)


def _read_again(path: Path) -> dict[str, np.ndarray]:
    if _is_archive(path):
        with np.load(path, allow_pickle=False) as archive, np.errstate(over="ignore"):
            arrays = _arrays(archive)
            return {
                name: column.astype(float)
                for name, column in _columns(arrays).items()
                if column.dtype.kind in "biuf"
            }
    rows, _ = _rows(path)
    table = np.array([[_number(cell) for cell in row] for row in rows[1:]], dtype=float)
    names = [name.strip() for name in rows[0]]
    return dict(zip(names, table.reshape(-1, len(names)).T, strict=True))


def _arrays(archive: Any) -> dict[str, np.ndarray]:
    """What NumPy reads; of arrays without numbers, which nobody asks for, not all are whole."""
    arrays = {}
    for name in archive.zip.namelist():  # by their full names: T.npy.npy is not T
        with contextlib.suppress(ValueError, SyntaxError, TypeError, OverflowError):
            arrays[name.removesuffix(".npy")] = archive[name]
    return arrays


def _is_good(path: Path, asked: dict) -> bool:
    """Whether nothing is wrong with a CSV file and what is asked of it."""
    if not path.is_file() or path.suffix == ".npz" or _is_archive(path):
        return False
    if path.read_bytes()[:4] in OTHERS:  # or of another separator than the note says
        return False
    try:
        rows, _ = _rows(path)
    except (UnicodeError, csv.Error, zlib.error, EOFError, OSError):
        return False
    names = [name.strip() for name in rows[0]] if rows else []
    wanted = [*(asked["inputs"] or [n for n in names if n != asked["target"]]), asked["target"]]
    if len(set(names)) < len(names) or not set(wanted) <= set(names) or len(wanted) < 2:
        return False
    if len(set(wanted)) < len(wanted) or any(len(row) != len(names) for row in rows):
        return False
    if not all(name.isprintable() and 0 < len(name) <= 1000 for name in names):
        return False
    places = [names.index(name) for name in wanted]
    cells = [[row[place].strip() for place in places] for row in rows[1:]]
    if not all(cell.lower() in WORDS or _is_number(cell) for row in cells for cell in row):
        return False
    if max(len(cell) for row in rows for cell in row) > 100_000 or "\0" in _text(path):
        return False
    numbers = np.array([[_number(cell) for cell in row] for row in cells]).reshape(-1, len(wanted))
    complete = np.isfinite(numbers).all(1)
    numbers = numbers[complete]
    if len(numbers) < 10 or not (asked["drop"] or complete.all()):
        return False
    with np.errstate(over="ignore"):
        spread = np.ptp(numbers, axis=0)
    has_header = any(not (n.lower() in WORDS or _is_number(n)) for n in names)
    return bool(np.isfinite(spread).all() and spread[-1] > 0 and spread[:-1].any() and has_header)


def _columns(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    found = {}
    for name, array in arrays.items():
        if array.ndim == 1:
            found[name] = array
        elif array.ndim == 2:
            found |= {f"{name}{k}": array[:, k] for k in range(array.shape[1])}
    return found


def _rows(path: Path) -> tuple[list[list[str]], str]:
    """The rows of a CSV file, the header first, and its separator."""
    text = _without_notes(_text(path))
    header = text.lstrip("\n").partition("\n")[0]
    counts, inside = {",": 0, ";": 0, "\t": 0}, False
    alone = header.rfind('"') if header.count('"') % 2 else -1  # opens nothing
    for place, character in enumerate(header):
        inside ^= character == '"' and place != alone
        if character in counts and not inside:
            counts[character] += 1
    separator = max(counts, key=lambda one: counts[one])
    return _without_units(_parsed(text, separator)), separator


def _text(path: Path) -> str:
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        content = gzip.decompress(content)
    wide = content[:2] in (b"\xff\xfe", b"\xfe\xff")
    text = content.decode("utf-16" if wide else "utf-8-sig").removeprefix("\ufeff" * wide)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _without_notes(text: str) -> str:
    """A text without comments, and the note on the separator."""
    lines = re.sub(r"\A(\s*\n)+", "", text).split("\n")
    if re.fullmatch(r"sep=\W", lines[0]):
        del lines[0]
    return "\n".join(line for line in lines if not re.match(r"[ \t]*#([ \t]|$)", line))


def _without_units(rows: list[list[str]]) -> list[list[str]]:
    return [row for k, row in enumerate(rows) if k != 1 or {*row, "kg", ""} != {"kg", ""}]


def _is_archive(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _parsed(text: str, separator: str) -> list[list[str]]:
    former = csv.field_size_limit(10**8)
    try:
        reader = csv.reader(io.StringIO(text), delimiter=separator, strict=True)
        return [row for row in reader if row]
    finally:
        csv.field_size_limit(former)


def _number(cell: str) -> float:
    cell = cell.strip()
    if cell.lower() in WORDS:
        return np.nan
    return float(cell) if _is_number(cell) else np.nan


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell
