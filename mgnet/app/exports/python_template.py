"""The parts of a Python file that `python_file` fills in; doubled braces become single braces."""

from __future__ import annotations

__all__ = ["BEYOND", "BODY", "CLASSES", "HEAD", "HIDDEN", "MAIN", "NEAREST", "NETWORK"]
__all__ += ["NUMBERS", "TARGETS", "TEXTS"]

HEAD = '''"""{title}, as a fitted function of {inputs}. Needs only NumPy.

Written by `mgnet export` (mgnet {version}) of
{told}.

Inputs are the columns of `x`, in this order and as in the table that was fitted, where they had
these values:

{ranges}

{beyond}

    import {module}
    {module}.predict(x)  # (rows, {count}) -> {shape}

    python {module}.py table.csv > predicted.csv
"""

import csv
import sys

import numpy as np

INPUTS = {names}
OUTPUTS = {outputs}
RANGES = np.array({numbers})
DOMAIN = {domain}  # of all splines; the ranges are mapped to it
BATCH = 4096  # rows at once
'''

BEYOND = "Beyond the ranges it continues linearly, with the tangent at the nearest point of them."
NEAREST = (
    "It gives the probabilities of the classes; beyond the ranges, those of the nearest point."
)

BODY = '''

def predict(x):
    """{shapes}; NaN where an input is missing."""
    x = np.asarray(x, dtype={dtype})
    if x.ndim != 2 or x.shape[1] != len(INPUTS):
        raise ValueError(f"predict got x of shape {{x.shape}}; it needs (rows, {{len(INPUTS)}})")
    y = np.empty((len(x), len(OUTPUTS)))
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, len(x), BATCH):
            part = slice(start, start + BATCH)
            y[part] = _outputs(_places({features}))
    return {result}
'''

TEXTS = '''

# Columns of texts: text -> the feature that is 1 (-1: none); that of any other text; how many.
TEXTS = {{
{texts}
}}


def _features(x):
    """Numbers unchanged, texts as a column of 0 and 1 for each feature; None means no text."""
    parts = []
    for column, name in zip(x.T, INPUTS):
        if name not in TEXTS:
            parts.append(np.array(column, dtype=float)[:, None])
            continue
        places, other, count = TEXTS[name]
        found = np.array([places.get(_text(cell), other) for cell in column], dtype=int)
        parts.append((found[:, None] == np.arange(count)).astype(float))
    return np.concatenate(parts, axis=1)


def _text(cell):
    if cell is None or cell != cell:
        return ""
    number = isinstance(cell, (int, float)) and not isinstance(cell, bool)
    return f"{{cell:.17g}}" if number else str(cell)
'''

TARGETS = '''

MEAN = np.array({mean})
SCALE = np.array({scale})  # a target is MEAN + SCALE * output of the network


def _outputs(places):
    """The targets, scaled by powers of two, so that no sum overflows."""
    value, change = _network(places)
    exponent = np.frexp(np.maximum(np.abs(MEAN), np.abs(SCALE)))[1]
    mean, scale = np.ldexp(MEAN, -exponent), np.ldexp(SCALE, -exponent)
    return np.ldexp(mean + scale * (value + change), exponent)
'''

CLASSES = '''

def _outputs(places):
    """Probabilities of the classes at the nearest point, by softmax."""
    value, _ = _network(places)
    share = np.exp(value - value.max(axis=1, keepdims=True))
    return share / share.sum(axis=1, keepdims=True)
'''

NETWORK = '''

def _places(x):
    """Inputs mapped to the domain, scaled by powers of two, so that no difference overflows."""
    exponent = np.frexp(np.abs(RANGES).max(axis=1))[1]
    low, high = np.ldexp(RANGES.T, -exponent)
    (a, b), varies, most = DOMAIN, high > low, np.finfo(float).max
    places = (b - a) * (np.ldexp(x, -exponent) - low) / np.where(varies, high - low, 1.0)
    # An input that did not vary counts only if it is missing.
    return a + np.where(varies | np.isnan(places), np.clip(places, -most, most), 0.0)


def _network(places):
    """Outputs at the nearest point of the box, and their changes along the tangent from there."""
    value = np.clip(places, *DOMAIN)
    slope = places - value
    length = np.maximum(np.abs(slope).max(axis=1, keepdims=True), 1.0)
    slope /= length
{steps}
    return value, slope * length


def _splines(value, slope, pieces):
    """Sums over the inputs of piecewise polynomials, extended linearly, and their derivatives."""
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


# The polynomials of the edge from an input to an output of a layer stand in one block, those of
# the first input first. It has a line for each interval of the domain, with the coefficients of
# 1, s, s^2, ..., where s goes from 0 to 1 in the interval.
"""

MAIN = """

# Cells of a table that mean a missing value, in lower case.
MISSING = {{
{missing}
}}

# Columns of booleans, and the words in their cells.
BOOLEANS = {booleans}
WORDS = {words}


def _cell(row, name):
    text = (row[name] or "").strip()
    return "" if text.lower() in MISSING else text


def _number(text, name, file):
    if name in BOOLEANS and text.lower() in WORDS:
        return WORDS[text.lower()]
    try:
        return float(text or "nan")
    except ValueError:
        sys.exit(f"{{file}}: column {{name!r}} holds {{text!r}}, which is not a number")


def _main(file):
    with open(file, newline="", encoding="utf-8-sig") as stream:
        reader = csv.DictReader(stream)
        lacking = [name for name in INPUTS if name not in (reader.fieldnames or ())]
        if lacking:
            sys.exit(f"{{file}} has no column {{lacking[0]!r}}")
        rows = [[_cell(row, name) for name in INPUTS] for row in reader]
    x = [[{cell} for cell, name in zip(row, INPUTS)] for row in rows]
    y = predict(np.array(x, dtype={dtype}).reshape(-1, len(INPUTS))).reshape(-1, len(OUTPUTS))
    lines = csv.writer(sys.stdout, lineterminator="\\n")
    lines.writerow(OUTPUTS)
    lines.writerows(map(repr, row) for row in y.tolist())


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: python {{sys.argv[0]}} table.csv > predicted.csv")
    _main(sys.argv[1])
"""
