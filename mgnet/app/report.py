"""The written result of a fit: report.md, plain Markdown that also reads well in a terminal."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import scipy
import sklearn
import torch

import mgnet
from mgnet.app.data import Data, Settings, Trained, intervals_on
from mgnet.app.files.columns import listed
from mgnet.estimators.scales import exponents

__all__ = ["markdown_table", "write_report"]

WORST = 8  # rows shown
PARTS = 5  # of an input's range, where the error is counted


def write_report(
    folder: str | Path,
    data: Data,
    settings: Settings,
    trained: Sequence[Trained],
    hierarchy: object = "",
    schedule: object = "",
    pictures: Sequence[tuple[str, str]] = (),
    command: str = "",
    remarks: Sequence[str] = (),
) -> Path:
    """Write report.md.

    Parameters
    ----------
    folder : path
        Must exist.
    data : Data
    settings : Settings
    trained : sequence of Trained
        Ours first; the others make the comparison, sorted by the held-out error.
    hierarchy, schedule : object
        Their `str` is shown as it is.
    pictures : sequence of (file name, caption)
        In the same folder.
    command : str
        What was typed.
    remarks : sequence of str
        Sentences for the top, such as how many rows were dropped, or that the run was
        interrupted.

    Returns
    -------
    Path
        Of the report.

    Raises
    ------
    ValueError
        Without a trained model.

    Examples
    --------
    >>> import tempfile
    >>> x = np.linspace(0.0, 1.0, 10)[:, None]
    >>> data = Data(("a",), "b", x[:8], x[:8, 0], x[8:], x[8:, 0])
    >>> ours = Trained("KAN", lambda x: x[:, 0] + 0.1, 7, 1.0, 3.0, 0.1, 0.2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     text = write_report(folder, data, Settings(), [ours]).read_text()
    >>> text.splitlines()[0]
    '# Fit of b over a'
    """
    if not trained:
        raise ValueError("write_report got no trained model; pass at least ours")
    ours = trained[0]
    parts = [f"# Fit of {data.target} over {listed(data.names)}", *remarks]
    parts += ["## Result", _result(data, ours), *([ours.note] if ours.note else [])]
    for name, caption in pictures:
        parts.append(f"![{caption}]({name})")
    if len(trained) > 1:
        parts += ["## Comparison", *_comparison(data, trained)]
    parts += ["## Where the error sits", *_errors(data, ours)]
    parts += ["## Data", _ranges(data)]
    parts += ["## Network and hierarchy", _network(data, settings, ours)]
    parts += [f"```text\n{text}\n```" for text in (str(hierarchy), str(schedule)) if text]
    parts += ["## Run", *_run(settings, command)]
    path = Path(folder) / "report.md"
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return path


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table with aligned columns, the first to the left.

    Parameters
    ----------
    header : sequence of str
    rows : sequence of sequences of str

    Returns
    -------
    str

    Examples
    --------
    >>> text = markdown_table(("input", "from"), [("T", "305"), ("p", "0.1")])
    >>> text.splitlines()
    ['| input | from |', '| :---- | ---: |', '| T     |  305 |', '| p     |  0.1 |']
    """
    cells = [[cell.replace("|", r"\|") for cell in row] for row in (header, *rows)]
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    rule = [":" + "-" * (widths[0] - 1), *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = [[row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in cells]
    lines.insert(1, rule)
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _number(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.3g}"


def _root_mean_square(error: np.ndarray) -> float:
    size = exponents(error)
    return float(np.ldexp(np.sqrt(np.mean(np.ldexp(error, -size) ** 2)), size))


def _exact(value: float) -> str:
    return f"{value:.6g}"


def _measured_on(data: Data) -> tuple[np.ndarray, np.ndarray, str]:
    """Return the rows on which the error is measured, and their name."""
    if len(data.y_held):
        return data.x_held, data.y_held, "held-out"
    return data.x, data.y, "training"


def _result(data: Data, ours: Trained) -> str:
    columns = []
    for x, y, mse in (
        (data.x, data.y, ours.train_mse),
        (data.x_held, data.y_held, ours.held_mse),
    ):
        if len(y):
            error = np.abs(ours.predict(x) - y)
            rmse, most = _root_mean_square(error), float(error.max())
            columns.append((str(len(y)), f"{mse:.3e}", _number(rmse), _number(most)))
        else:
            columns.append(("0", "-", "-", "-"))
    names = ("rows", "standardised MSE", f"RMSE ({data.target})", f"largest error ({data.target})")
    rows = [(name, *cells) for name, *cells in zip(names, *columns, strict=True)]
    table = markdown_table(("", "training", "held-out"), rows)
    cost = f"{ours.parameters} parameters, {ours.seconds:.1f} seconds of training"
    if not np.isnan(ours.work):
        cost += f", work of {ours.work:.0f} gradient evaluations of the finest network"
    return f"{ours.name}: {cost}.\n\n{table}\n\nStandardised: over the variance of {data.target}."


def _comparison(data: Data, trained: Sequence[Trained]) -> list[str]:
    """Return the table, the best first whoever it is, and the notes."""
    ranked = sorted(trained, key=lambda one: (np.isnan(one.held_mse), one.held_mse))
    rows = []
    for one in ranked:
        x, y, _ = _measured_on(data)
        rmse = _root_mean_square(one.predict(x) - y)
        errors = (f"{one.held_mse:.2e}", f"{one.train_mse:.2e}", _number(rmse))
        cost = (str(one.parameters), f"{one.seconds:.1f}", _work(one.work))
        rows.append((f"{one.name} (ours)" if one is trained[0] else one.name, *errors, *cost))
    kind = _measured_on(data)[2]
    header = ("model", "held-out MSE", "training MSE", f"{kind} RMSE", "parameters", "seconds")
    table = markdown_table((*header, "work"), rows)
    notes = "\n".join(f"- {one.name}: {one.note}." for one in ranked if one.note)
    best, ours = ranked[0], trained[0]
    if best is ours and len(ranked) > 1:
        ratio = ranked[1].held_mse / max(best.held_mse, 1e-300)
        verdict = f"{ranked[1].name} comes next, with {ratio:.3g} times our held-out error."
    else:
        ratio = ours.held_mse / max(best.held_mse, 1e-300)
        verdict = f"{best.name} wins: our held-out error is {ratio:.3g} times as large."
    told = "MSE: standardised. Work: gradient evaluations of the finest network, where it has one."
    return [
        f"Best first, by the held-out error. {told}",
        table,
        verdict,
        *([notes] if notes else []),
    ]


def _work(work: float) -> str:
    return "-" if np.isnan(work) else f"{work:.0f}"


def _errors(data: Data, ours: Trained) -> list[str]:
    """Return the share of the worst rows, the error by parts of each input, the worst rows."""
    x, y, kind = _measured_on(data)
    predicted = ours.predict(x)
    error = predicted - y
    squares = np.ldexp(error, -exponents(error)) ** 2
    order = np.argsort(squares)[::-1]
    few = max(len(y) // 100, 1)
    total = max(float(squares.sum()), 1e-300)
    worst = 100.0 * float(squares[order[:few]].sum()) / total
    share = f"The worst {few} of the {len(y)} {kind} rows (1 %) hold {worst:.0f} % of it."
    share = f"Measured by the squared error. {share}"
    shares = []
    for name, column in zip(data.names, x.T, strict=True):
        edges = np.linspace(column.min(), column.max(), PARTS + 1)
        part = np.clip(np.searchsorted(edges, column, side="right") - 1, 0, PARTS - 1)
        sums = np.bincount(part, squares, minlength=PARTS)
        top = int(np.argmax(sums))
        place = f"{_exact(edges[top])} to {_exact(edges[top + 1])}"
        shares.append((name, *(f"{100.0 * s / total:.0f} %" for s in sums), place))
    header = ("input", *(f"fifth {k + 1}" for k in range(PARTS)), "largest in")
    rows = [
        (
            *map(_exact, x[k]),
            _exact(float(y[k])),
            _exact(float(predicted[k])),
            _number(float(error[k])),
        )
        for k in order[:WORST]
    ]
    table = markdown_table((*data.names, data.target, "predicted", "error"), rows)
    return [
        share,
        "Share of the squared error by fifths of each input's range, low to high:",
        markdown_table(header, shares),
        f"The {kind} rows with the largest errors:",
        table,
    ]


def _ranges(data: Data) -> str:
    rows = []
    columns = [*data.x.T, data.y]
    for name, column in zip((*data.names, f"{data.target} (target)"), columns, strict=True):
        size = exponents(column)
        median, deviation = (
            float(np.ldexp(of(np.ldexp(column, -size)), size)) for of in (np.median, np.std)
        )
        values = (column.min(), median, column.max(), deviation)
        rows.append((name, *map(_exact, values)))
    table = markdown_table(("column", "least", "median", "largest", "deviation"), rows)
    total = len(data.y) + len(data.y_held)
    split = f"{total} rows: {len(data.y)} for training, {len(data.y_held)} held out."
    return f"{split} Of the training rows:\n\n{table}"


def _network(data: Data, settings: Settings, ours: Trained) -> str:
    widths = [len(data.names), *settings.hidden, 1]
    coarsest, finest = (
        " and ".join(map(str, dict.fromkeys(intervals_on(settings, k))))
        for k in (0, settings.levels - 1)
    )
    return (
        f"A Kolmogorov-Arnold network of widths {widths} with splines of degree "
        f"{settings.degree}, {coarsest} intervals on the coarsest of {settings.levels} "
        f"levels and {finest} on the finest, {ours.parameters} parameters."
    )


def _run(settings: Settings, command: str) -> list[str]:
    versions = {
        "mgnet": mgnet.__version__,
        "Python": platform.python_version(),
        "NumPy": np.__version__,
        "SciPy": scipy.__version__,
        "PyTorch": torch.__version__,
        "scikit-learn": sklearn.__version__,
    }
    budget = f"{settings.seconds:g} seconds"
    if settings.evaluations is not None:
        budget = f"{settings.evaluations} gradient evaluations"
    lines = [
        f"- optimizer {settings.optimizer}, budget {budget}, "
        f"cycle {settings.cycle or 'a cascade by the budget'}",
        f"- seed {settings.seed}, held-out fraction {settings.held_out:g}, "
        f"validation fraction {settings.validation:g}, roughness {settings.roughness:g}",
        f"- {os.cpu_count()} cores, {torch.get_num_threads()} threads, "
        f"{platform.system()} {platform.machine()}",
        "- " + ", ".join(f"{name} {version}" for name, version in versions.items()),
    ]
    return [*([f"```sh\n{command}\n```"] if command else []), "\n".join(lines)]
