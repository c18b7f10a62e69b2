"""A model as the text of one Python file that needs NumPy alone."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from mgnet import __version__
from mgnet.app.exports.formula import Formula

__all__ = ["python_text"]

MOST_NUMBERS = 2**20  # about 20 megabytes of text

HEAD = '''"""{target}, as a fitted function of {inputs}. Needs NumPy alone.

Written by `mgnet export` (mgnet {version}) of {told}.
Inputs are the columns of `x`, in this order and in the units of the table that was fitted; behind
them are their ranges there:

{ranges}

Beyond the ranges the function goes on linearly, by the tangent at the nearest point of them.

    import {module}
    {module}.predict(x)  # (rows, {count}) -> (rows,)

    python {module}.py table.csv > predicted.csv
"""

import csv
import sys

import numpy as np

INPUTS = {names}
TARGET = {target_name}
RANGES = np.array({numbers})
DOMAIN = {domain}  # of all splines; the ranges are mapped to it
MEAN, SCALE = {mean}, {scale}  # the target is MEAN + SCALE * output of the network
BATCH = 4096  # rows at once
'''

BODY = '''

def predict(x):
    """(rows, inputs) -> (rows,), in the units of the table; NaN where an input is missing."""
    x = np.asarray(x, dtype=float)
    if x.ndim != 2 or x.shape[1] != len(INPUTS):
        raise ValueError(f"predict got x of shape {x.shape}; it needs (rows, {len(INPUTS)})")
    y = np.empty(len(x))
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, len(x), BATCH):
            y[start : start + BATCH] = _network(_places(x[start : start + BATCH]))
        _, exponent = np.frexp(max(abs(MEAN), abs(SCALE)))
        mean, scale = np.ldexp(MEAN, -exponent), np.ldexp(SCALE, -exponent)
        return np.ldexp(mean + scale * y, exponent)


def _places(x):
    """Inputs mapped to the domain; over powers of two, so that no difference overflows."""
    exponent = np.frexp(np.abs(RANGES).max(axis=1))[1]
    low, high = np.ldexp(RANGES.T, -exponent)
    (a, b), varies, most = DOMAIN, high > low, np.finfo(float).max
    places = (b - a) * (np.ldexp(x, -exponent) - low) / np.where(varies, high - low, 1.0)
    # An input that did not vary counts only where it is missing.
    return a + np.where(varies | np.isnan(places), np.clip(places, -most, most), 0.0)


def _network(places):
    """The output at the nearest point of the box, and its derivative along the way from there."""
    value = np.clip(places, *DOMAIN)
    slope = places - value
    length = np.maximum(np.abs(slope).max(axis=1, keepdims=True), 1.0)
    slope /= length
{steps}
    return (value + slope * length)[:, 0]


def _splines(value, slope, pieces):
    """Sums over the inputs of piecewise polynomials that go on linearly, and derivatives."""
    (a, b), (inputs, outputs, intervals, powers) = DOMAIN, pieces.shape
    inside = np.clip(value, a, b)
    position = (inside - a) * (intervals / (b - a))
    number = np.clip(np.nan_to_num(position).astype(int), 0, intervals - 1)
    s, total, change = position - number, np.zeros((outputs, len(value))), 0.0
    for p in range(inputs):
        c = pieces[p][:, number[:, p]]  # (outputs, rows, powers of s)
        y, dy = c[..., -1], 0.0
        for m in reversed(range(powers - 1)):
            y, dy = y * s[:, p] + c[..., m], dy * s[:, p] + y
        dy = dy * (intervals / (b - a))
        total = total + y + dy * (value - inside)[:, p]
        change = change + dy * slope[:, p]
    return total.T, change.T
'''

HIDDEN = '''

def _hidden(value, slope):
    """The map of hidden values into the domain, and its derivative."""
    a, b = DOMAIN
    t = np.tanh(value)
    return 0.5 * (a + b) + 0.5 * (b - a) * t, 0.5 * (b - a) * (1.0 - t * t) * slope
'''

NUMBERS = """

def _numbers(text, *shape):
    return np.array(text.split(), dtype=float).reshape(shape)


# The polynomials of the edge from an input to an output of a layer stand in one block, a line for
# each interval: the coefficients of 1, s, s^2, ..., where s goes from 0 to 1 in the interval.
"""

MAIN = """

def _main(file):
    with open(file, newline="", encoding="utf-8-sig") as stream:
        reader = csv.DictReader(stream)
        lacking = [name for name in INPUTS if name not in (reader.fieldnames or ())]
        if lacking:
            sys.exit(f"{file} has no column {lacking[0]!r}")
        x = [[float(row[name] or "nan") for name in INPUTS] for row in reader]
    lines = csv.writer(sys.stdout, lineterminator="\\n")
    lines.writerow([TARGET])
    lines.writerows([[repr(float(y))] for y in predict(np.reshape(x, (-1, len(INPUTS))))])


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: python {sys.argv[0]} table.csv > predicted.csv")
    _main(sys.argv[1])
"""


def python_text(formula: Formula, module: str = "model") -> str:
    """The text of the file; the same for the same model.

    Parameters
    ----------
    formula : Formula
    module : str
        How its docstring calls it.

    Raises
    ------
    ValueError
        If it would hold more numbers than a source file should.
    """
    degree, domain = formula.degree, formula.domain
    count = (degree + 1) * sum(
        layer.intervals * layer.coefficients[:, 0].size for layer in formula.layers
    )
    if count > MOST_NUMBERS:
        raise ValueError(
            f"the Python file would hold {count} coefficients of polynomials, and {MOST_NUMBERS} "
            "are the most; use --to onnx, or fit fewer intervals or widths"
        )
    steps, numbers = [], []
    if formula.linear is not None:
        weight, bias = formula.linear
        numbers.append(_table("WEIGHT", weight[None, None]))
        numbers.append(_table("BIAS", bias[None, None, None]))
        steps.append(
            "value, slope = value @ WEIGHT[0, 0].T + BIAS[0, 0, 0], slope @ WEIGHT[0, 0].T"
        )
    for number, layer in enumerate(formula.layers, 1):
        if (number > 1 or formula.linear is not None) and formula.hidden == "tanh":
            steps.append("value, slope = _hidden(value, slope)")
        steps.append(f"value, slope = _splines(value, slope, LAYER_{number})")
        numbers.append(_table(f"LAYER_{number}", layer.pieces(degree, domain)))
    parts = [
        _head(formula, module),
        BODY.replace("{steps}", "\n".join(f"    {step}" for step in steps)),
        HIDDEN if any("_hidden" in step for step in steps) else "",
        NUMBERS,
        "\n".join(numbers),
        MAIN,
    ]
    return "".join(parts)


def _head(formula: Formula, module: str) -> str:
    width = max(len(_quoted(name)) for name in formula.columns)
    return HEAD.format(
        target=_quoted(formula.target),
        inputs=_listed([_quoted(name) for name in formula.columns]),
        version=__version__,
        told=formula.told,
        ranges="\n".join(
            f"    {_quoted(name):<{width}}  {low:g} to {high:g}"
            for name, (low, high) in zip(formula.columns, formula.ranges.tolist(), strict=True)
        ),
        module=module,
        count=len(formula.columns),
        names=_lines(_literal(name) for name in formula.columns),
        target_name=_literal(formula.target),
        numbers=_lines(str(pair) for pair in formula.ranges.tolist()),
        domain=formula.domain,
        mean=formula.mean,
        scale=formula.scale,
    )


def _literal(name: str) -> str:
    return repr(name) if name.isprintable() else ascii(name)


def _quoted(name: str) -> str:
    """A name within a docstring, on one line, whatever its characters."""
    text = name.replace("\\", "\\\\") if name.isprintable() else ascii(name)[1:-1]
    return text.replace('"', '\\"')


def _listed(names: list[str]) -> str:
    return ", ".join(names if len(names) <= 8 else [*names[:7], f"and {len(names) - 7} more"])


def _lines(items: Iterable[str]) -> str:
    return "[\n" + "".join(f"    {item},\n" for item in items) + "]"


def _table(name: str, array: np.ndarray) -> str:
    """Lines of the last axis, in blocks of the one before it."""
    shape = ", ".join(map(str, array.shape))
    blocks = ["\n".join(" ".join(map(repr, row)) for row in block)
              for block in array.reshape(-1, *array.shape[2:]).tolist()]  # fmt: skip
    return f'{name} = _numbers("""\n' + "\n\n".join(blocks) + f'\n""", {shape})\n'
