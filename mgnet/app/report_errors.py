"""The part of a report about errors: how large they are, and where they occur."""

from __future__ import annotations

import numpy as np

from mgnet.app.data import Data, Trained
from mgnet.app.markdown import exact, markdown_table, number
from mgnet.estimators.scales import exponents

__all__ = ["result", "where_errors"]

WORST = 8  # rows shown
PARTS = 5  # of an input's range in which errors are summed
MOST_CLASSES = 12  # limit for a table of all pairs


def result(data: Data, ours: Trained) -> str:
    """The trained model, its cost, and its errors.

    Examples
    --------
    >>> from mgnet.app.columns.targets import Targets
    >>> x = np.linspace(0.0, 1.0, 10)[:, None]
    >>> data = Data(("a",), Targets(("b",)), x[:8], x[:8, 0], x[8:], x[8:, 0])
    >>> ours = Trained("KAN", lambda x: x[:, 0] + 0.1, 7, 1.0, 3.0, 0.1, 0.2)
    >>> print(result(data, ours).splitlines()[6])
    | RMSE (b)          |       0.1 |       0.1 |
    """
    classes = data.targets.classes
    name = data.loss_name if classes else f"standardized {data.loss_name}"
    columns, names = [], ["rows", name, *_measures(data)]
    for x, y, weights, loss in (
        (data.x, data.y, data.weights, ours.train_loss),
        (data.x_held, data.y_held, data.weights_held, ours.held_loss),
    ):
        if not len(y):
            columns.append(["0", *["-"] * (len(names) - 1)])
            continue
        predicted = ours.predict(x)
        if classes:
            frequent = np.bincount(data.y, minlength=len(classes)).argmax()
            shares = (
                data.accuracy(predicted, y, weights),
                float(np.average(y == frequent, weights=weights)),
            )
            columns.append([str(len(y)), f"{loss:.4f}", *(f"{share:.4f}" for share in shares)])
            continue
        most = np.atleast_1d(np.abs(predicted - y).max(0))
        each = zip(data.root_mean_squares(predicted, y, weights), most, strict=True)
        columns.append([str(len(y)), f"{loss:.3e}", *(number(v) for pair in each for v in pair)])
    rows = [(name, *cells) for name, *cells in zip(names, *columns, strict=True)]
    cost = f"{ours.parameters} parameters, {ours.seconds:.1f} seconds of training"
    if not np.isnan(ours.work):
        cost += f", work of {ours.work:.0f} gradient evaluations of the finest network"
    parts = [f"{ours.name}: {cost}.", markdown_table(("", "training", "held-out"), rows)]
    parts += _confusion(data, ours) if classes else [f"Standardized: {_standardized(data)}."]
    return "\n\n".join(parts)


def _measures(data: Data) -> list[str]:
    if data.targets.classes:
        return ["accuracy", "share of the most frequent class in training"]
    names = data.targets.names
    return [f"{what} ({name})" for name in names for what in ("RMSE", "largest error")]


def _standardized(data: Data) -> str:
    if len(data.targets.names) == 1:
        return f"over the variance of {data.targets.title}"
    return "over the variance of each target, and the mean of the targets"


def _confusion(data: Data, ours: Trained) -> list[str]:
    """A table of how many rows of each class were predicted as each class."""
    classes = data.targets.classes
    x, y, _, kind = data.measured
    found = ours.predict(x).argmax(1)
    told = (
        "Log loss: the mean of -log of the probability of the true class. Accuracy: the share of "
        "rows whose class has the largest probability."
    )
    if len(classes) > MOST_CLASSES:
        return [told]
    counts = np.bincount(y * len(classes) + found, minlength=len(classes) ** 2)
    rows = [
        (kind, *map(str, row))
        for kind, row in zip(classes, counts.reshape(-1, len(classes)).tolist(), strict=True)
    ]
    table = markdown_table(("true class", *(f"as {name}" for name in classes)), rows)
    return [told, f"How many {kind} rows of each class were taken for which:", table]


def where_errors(data: Data, ours: Trained) -> list[str]:
    """The worst rows, their share of the error, and the error in each part of every input's range.

    Examples
    --------
    >>> from mgnet.app.columns.targets import Targets
    >>> x = np.linspace(0.0, 1.0, 10)[:, None]
    >>> data = Data(("a",), Targets(("b",)), x[:8], x[:8, 0], x[8:], x[8:, 0])
    >>> ours = Trained("KAN", lambda x: x[:, 0] + 0.1 * x[:, 0], 7, 1.0, 3.0, 0.1, 0.2)
    >>> print(where_errors(data, ours)[0])
    Measured by the squared error. The worst of the 2 held-out rows (50 %) has 56 % of it.
    """
    x, y, weights, kind = data.measured
    predicted = ours.predict(x)
    sizes, word = _row_losses(data, predicted, y)
    sizes = sizes if weights is None else sizes * weights
    order = np.argsort(sizes, kind="stable")[::-1]
    few = max(len(y) // 100, 1)
    total = max(float(sizes.sum()), 1e-300)
    worst = 100.0 * float(sizes[order[:few]].sum()) / total
    first = "The worst" if few == 1 else f"The worst {few}"
    verb, part = "has" if few == 1 else "have", f"{100.0 * few / len(y):.0f} %"
    share = f"{first} of the {len(y)} {kind} rows ({part}) {verb} {worst:.0f} % of it."
    shares = []
    for name, column in zip(data.names, x.T, strict=True):
        if np.ptp(column) == 0.0:
            continue  # nothing to divide, such as a level that none of these rows has
        edges = np.linspace(column.min(), column.max(), PARTS + 1)
        part = np.clip(np.searchsorted(edges, column, side="right") - 1, 0, PARTS - 1)
        sums = np.bincount(part, sizes, minlength=PARTS)
        top = int(np.argmax(sums))
        inside = column[part == top]
        ends = [inside[0]] if np.ptp(inside) == 0.0 else [edges[top], edges[top + 1]]
        place = " to ".join(data.input_text(name, end) for end in ends)
        shares.append((name, *(f"{100.0 * s / total:.0f} %" for s in sums), place))
    sign = "" if data.targets.classes else ", predicted minus true"
    header = ("input", *(f"fifth {k + 1}" for k in range(PARTS)), "largest in")
    names, cells = _row_cells(data, predicted, y)
    rows = [(*map(data.input_text, data.names, x[k]), *cells(k)) for k in order[:WORST].tolist()]
    return [
        f"Measured by the {word}. {share}",
        f"Share of the {word} by fifths of each input's range, low to high:",
        markdown_table(header, shares),
        f"The {kind} rows with the largest errors{sign}:",
        markdown_table((*data.names, *names), rows),
    ]


def _row_losses(data: Data, predicted: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, str]:
    """The contribution of each row to the loss, up to a factor, and the name of this measure."""
    if data.targets.classes:
        own = predicted[np.arange(len(y)), y]
        return -np.log(np.maximum(own, np.finfo(float).tiny)), "log loss"
    error = predicted - y
    if error.ndim > 1:
        return ((error / data.deviation) ** 2).sum(1), "standardized squared error"
    return np.ldexp(error, -exponents(error)) ** 2, "squared error"


def _row_cells(data: Data, predicted: np.ndarray, y: np.ndarray):  # noqa: ANN202
    """Headers, and a function that returns the cells of a row; the inputs are not included."""
    targets, classes = data.targets, data.targets.classes
    if classes:
        found = predicted.argmax(1)

        def labels(k: int) -> list[str]:
            return [classes[y[k]], classes[found[k]], number(float(predicted[k, y[k]]))]

        return [targets.title, "predicted", "probability of the true class"], labels
    y, predicted = y.reshape(len(y), -1), predicted.reshape(len(y), -1)

    def numbers(k: int) -> list[str]:
        triples = zip(y[k], predicted[k], predicted[k] - y[k], strict=True)
        return [cell for true, found, error in triples
                for cell in (exact(true), exact(found), number(float(error)))]  # fmt: skip

    if len(targets.names) == 1:
        return [targets.title, "predicted", "error"], numbers
    return [text for n in targets.names for text in (n, f"{n} predicted", f"{n} error")], numbers
