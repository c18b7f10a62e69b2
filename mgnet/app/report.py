"""The written result of a fit: report.md, plain Markdown that is also readable in a terminal."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import scipy
import sklearn
import torch

import mgnet
from mgnet.app.data import Data, Settings, Trained, intervals_on
from mgnet.app.files.columns import listed
from mgnet.app.markdown import exact, markdown_table, number
from mgnet.app.report_errors import result, where_errors
from mgnet.estimators.scales import exponents

__all__ = ["write_report"]


def write_report(
    folder: str | Path,
    data: Data,
    settings: Settings,
    trained: Sequence[Trained],
    summary: str = "",
    pictures: Sequence[tuple[str, str]] = (),
    command: str = "",
    remarks: Sequence[str] = (),
) -> Path:
    """Write report.md.

    Parameters
    ----------
    folder : path
        Existing folder.
    data : Data
        Training and held-out rows.
    settings : Settings
        Settings of the fit.
    trained : sequence of Trained
        mgnet's model first; the others form the comparison, sorted by held-out error.
    summary : str
        Description of hierarchy and schedule, or of the ensemble; shown unchanged.
    pictures : sequence of (file name, caption)
        Pictures in the same folder.
    command : str
        The typed command.
    remarks : sequence of str
        Sentences for the top, such as the number of dropped rows, or a note that the run was
        interrupted.

    Returns
    -------
    Path
        Path of the report.

    Raises
    ------
    ValueError
        If there is no trained model.

    Examples
    --------
    >>> import tempfile
    >>> from mgnet.app.columns.targets import Targets
    >>> x = np.linspace(0.0, 1.0, 10)[:, None]
    >>> data = Data(("a",), Targets(("b",)), x[:8], x[:8, 0], x[8:], x[8:, 0])
    >>> ours = Trained("KAN", lambda x: x[:, 0] + 0.1, 7, 1.0, 3.0, 0.1, 0.2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     text = write_report(folder, data, Settings(), [ours]).read_text()
    >>> text.splitlines()[0]
    '# Fit of b over a'
    """
    if not trained:
        raise ValueError("write_report got no trained model; give at least mgnet's")
    ours = trained[0]
    columns = data.names if data.encoding is None else data.encoding.columns
    parts = [f"# Fit of {data.targets.title} over {listed(columns)}", *remarks]
    parts += ["## Result", result(data, ours), *([ours.note] if ours.note else [])]
    for name, caption in pictures:
        parts.append(f"![{caption}]({name})")
    if len(trained) > 1:
        parts += ["## Comparison", *_comparison(data, trained)]
    parts += ["## Where the error is", *where_errors(data, ours)]
    parts += ["## Data", _ranges(data)]
    parts += ["## Network and hierarchy", _network(data, settings, ours)]
    parts += [f"```text\n{text}\n```" for text in summary.split("\n\n") if text]
    parts += ["## Run", *_run(settings, command)]
    path = Path(folder) / "report.md"
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return path


def _comparison(data: Data, trained: Sequence[Trained]) -> list[str]:
    """Return the table, sorted by error, and the notes."""
    ranked = sorted(trained, key=lambda one: (np.isnan(one.held_loss), one.held_loss))
    x, y, weights, kind = data.measured
    classes, rows = data.targets.classes, []
    for one in ranked:
        predicted = one.predict(x)
        if classes:
            last = [f"{data.accuracy(predicted, y, weights):.4f}"]
        else:
            last = [number(value) for value in data.root_mean_squares(predicted, y, weights)]
        errors = (f"{one.held_loss:.2e}", f"{one.train_loss:.2e}", *last)
        cost = (str(one.parameters), f"{one.seconds:.1f}", _work(one.work))
        rows.append((f"{one.name} (ours)" if one is trained[0] else one.name, *errors, *cost))
    names = data.targets.names
    each = [f"{kind} RMSE" + (f" ({name})" if len(names) > 1 else "") for name in names]
    measures = [f"{kind} accuracy"] if classes else each
    loss = data.loss_name
    header = ("model", f"held-out {loss}", f"training {loss}", *measures, "parameters", "seconds")
    table = markdown_table((*header, "work"), rows)
    notes = "\n".join(f"- {one.name}: {one.note}." for one in ranked if one.note)
    told = "Work: gradient evaluations of the finest network, if there is one."
    told = told if classes else f"MSE: standardized. {told}"
    return [
        f"Best first, by the held-out error. {told}",
        table,
        _verdict(ranked, trained[0]),
        *([notes] if notes else []),
    ]


def _verdict(ranked: Sequence[Trained], ours: Trained) -> str:
    best = ranked[0]
    if best is ours:
        ratio = ranked[1].held_loss / max(best.held_loss, 1e-300)
        return f"{ranked[1].name} comes next, with {ratio:.3g} times the held-out error of mgnet."
    ratio = ours.held_loss / max(best.held_loss, 1e-300)
    return f"{best.name} wins: the held-out error of mgnet is {ratio:.3g} times as large."


def _work(work: float) -> str:
    return "-" if np.isnan(work) else f"{work:.0f}"


def _ranges(data: Data) -> str:
    classes, names = data.targets.classes, list(data.names)
    columns = list(data.x.T)
    if not classes:
        columns += list(np.atleast_2d(data.y.T))
        names += [f"{name} (target)" for name in data.targets.names]
    rows = []
    for name, column in zip(names, columns, strict=True):
        size = exponents(column)
        median, deviation = (
            float(np.ldexp(of(np.ldexp(column, -size)), size)) for of in (np.median, np.std)
        )
        shown = exact if name not in data.names else partial(data.input_text, name)
        rows.append((name, *map(shown, (column.min(), median, column.max())), exact(deviation)))
    table = markdown_table(("column", "smallest", "median", "largest", "deviation"), rows)
    total = len(data.y) + len(data.y_held)
    split = f"{total} rows: {len(data.y)} for training, {len(data.y_held)} held out."
    weighted = "" if data.weights is None else " Errors are means over the weights of the rows."
    text = f"{split}{weighted} Of the training rows:\n\n{table}"
    if not classes:
        return text
    counts = np.bincount(data.y, minlength=len(classes)).tolist()
    shares = [(kind, str(n), f"{n / len(data.y):.3f}") for kind, n in zip(classes, counts,
              strict=True)]  # fmt: skip
    return f"{text}\n\n{markdown_table((data.targets.title, 'rows', 'share'), shares)}"


def _network(data: Data, settings: Settings, ours: Trained) -> str:
    if settings.ensemble > 1:
        return (
            "The mean of an ensemble of Kolmogorov-Arnold networks, itself such a network, with "
            f"splines of degree {settings.degree} and {ours.parameters} parameters. Penalties and "
            "the noise level are chosen by the marginal likelihood, knots by whether the data "
            "determine them."
        )
    widths = [len(data.names), *settings.hidden, len(data.targets.outputs)]
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
    lines = [
        *_budget(settings),
        f"- {os.cpu_count()} cores, {torch.get_num_threads()} threads, "
        f"{platform.system()} {platform.machine()}",
        "- " + ", ".join(f"{name} {version}" for name, version in versions.items()),
    ]
    return [*([f"```sh\n{command}\n```"] if command else []), "\n".join(lines)]


def _budget(settings: Settings) -> list[str]:
    split = f"- seed {settings.seed}, held-out fraction {settings.held_out:g}"
    if settings.ensemble > 1:
        timed = f"limited to {settings.seconds:g} seconds"
        work = timed if math.isfinite(settings.seconds) else "counted, not timed"
        return [f"- {settings.ensemble} members, work {work}", split]
    budget = f"{settings.seconds:g} seconds"
    if settings.evaluations is not None:
        budget = f"{settings.evaluations} gradient evaluations"
    return [
        f"- optimizer {settings.optimizer}, budget {budget}, "
        f"cycle {settings.cycle or 'a cascade by the budget'}",
        f"{split}, validation fraction {settings.validation:g}, roughness {settings.roughness:g}",
    ]
