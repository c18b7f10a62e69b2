"""A model as the text of one Python file that needs only NumPy."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator

import numpy as np

from mgnet import __version__
from mgnet.app.columns.meaning import WORDS
from mgnet.app.exports import python_template as template
from mgnet.app.exports.formula import Formula
from mgnet.app.files.cells import MISSING

__all__ = ["python_text"]

MOST_NUMBERS = 2**20  # about 20 megabytes of text
NAMED = 8  # columns named in the first line of a file


def python_text(formula: Formula, module: str = "model") -> str:
    """The text of the file, which depends only on the model.

    Parameters
    ----------
    formula : Formula
        Formula of the model.
    module : str
        Module name in its docstring.

    Raises
    ------
    ValueError
        If the file would contain more numbers than a source file should.
    """
    count = (formula.degree + 1) * sum(
        layer.intervals * layer.coefficients[:, 0].size for layer in formula.layers
    )
    if count > MOST_NUMBERS:
        raise ValueError(
            f"the Python file would hold {count} coefficients of polynomials, and {MOST_NUMBERS} "
            "is the limit; use --to onnx, or fit fewer intervals or widths"
        )
    statements, numbers = _layers(formula)
    texts = any(column.is_text for column in formula.columns)
    one = len(formula.targets) == 1 and not formula.classes
    shape = "(rows,)" if one else f"(rows, {len(formula.classes or formula.targets)})"
    dtype, number = "object" if texts else "float", "_number(cell, name, file)"
    scales = {"mean": formula.mean.tolist(), "scale": formula.scale.tolist()}
    parts = [
        _head(formula, module, shape),
        template.BODY.format(
            shapes=f"(rows, {len(formula.columns)}) -> {shape}",
            dtype=dtype,
            features="_features(x[part])" if texts else "x[part]",
            result="y[:, 0]" if one else "y",
        ),
        template.TEXTS.format(texts="\n".join(_texts(formula))) if texts else "",
        template.CLASSES if formula.classes else template.TARGETS.format(**scales),
        template.NETWORK.format(steps="\n".join(f"    {each}" for each in statements)),
        template.HIDDEN if formula.has_hidden and formula.hidden == "tanh" else "",
        template.NUMBERS,
        "\n".join(numbers),
        template.MAIN.format(
            cell=f"cell if name in TEXTS else {number}" if texts else number,
            dtype=dtype,
            booleans=_lines(_literal(one.name) for one in formula.columns if one.is_boolean),
            words=WORDS,
            missing=textwrap.fill(
                "".join(f"{ascii(word)}, " for word in sorted(MISSING)),
                100,
                initial_indent="    ",
                subsequent_indent="    ",
                break_long_words=False,
                break_on_hyphens=False,
            ),
        ),
    ]
    return "".join(parts)


def _layers(formula: Formula) -> tuple[list[str], list[str]]:
    """The statements that evaluate the layers, and the tables that they use."""
    statements, numbers = [], []
    if formula.linear is not None:
        weight, bias = formula.linear
        numbers += [_table("WEIGHT", weight[None, None]), _table("BIAS", bias[None, None, None])]
        statements.append("value, slope = value @ WEIGHT[0, 0].T, slope @ WEIGHT[0, 0].T")
        statements.append("value = value + BIAS[0, 0, 0]")
    for number, layer in enumerate(formula.layers, 1):
        if statements and formula.hidden == "tanh":
            statements.append("value, slope = _hidden(value, slope)")
        statements.append(f"value, slope = _splines(value, slope, LAYER_{number})")
        numbers.append(_table(f"LAYER_{number}", layer.pieces(formula.degree, formula.domain)))
    return statements, numbers


def _head(formula: Formula, module: str, shape: str) -> str:
    names = [_quoted(column.name) for column in formula.columns]
    width = max(map(len, names))
    return template.HEAD.format(
        title=_listed([_quoted(name) for name in formula.targets]),
        inputs=_listed(names),
        version=__version__,
        told=formula.told,
        ranges="\n".join(
            f"    {name:<{width}}  {_quoted(told)}"
            for name, told in zip(names, formula.domains(), strict=True)
        ),
        beyond=template.NEAREST if formula.classes else template.BEYOND,
        module=module,
        count=len(names),
        shape=shape,
        names=_lines(_literal(column.name) for column in formula.columns),
        outputs=_lines(_literal(name) for name in formula.classes or formula.targets),
        numbers=_lines(str(pair) for pair in formula.ranges.tolist()),
        domain=formula.domain,
    )


def _texts(formula: Formula) -> Iterator[str]:
    for column in formula.columns:
        if column.is_text:
            places = (f"{_literal(text)}: {place}" for text, place in column.places.items())
            inside = "".join(f"        {each},\n" for each in places)
            yield (
                f"    {_literal(column.name)}: ({{\n{inside}    }}, {column.other}, "
                f"{column.features}),"
            )


def _literal(name: str) -> str:
    return repr(name) if name.isprintable() else ascii(name)


def _quoted(text: str) -> str:
    """A text on one line, with its characters escaped for a docstring if necessary."""
    text = text.replace("\\", "\\\\") if text.isprintable() else ascii(text)[1:-1]
    return text.replace('"', '\\"')


def _listed(names: list[str]) -> str:
    if len(names) > NAMED:
        names = [*names[: NAMED - 1], f"and {len(names) - NAMED + 1} more"]
    return ", ".join(names)


def _lines(items: Iterable[str]) -> str:
    return "[\n" + "".join(f"    {item},\n" for item in items) + "]"


def _table(name: str, array: np.ndarray) -> str:
    """An array as text: one line for the last axis, one block of lines for the axis before it."""
    shape = ", ".join(map(str, array.shape))
    blocks = array.reshape(-1, *array.shape[2:]).tolist()
    text = "\n\n".join("\n".join(" ".join(map(repr, row)) for row in block) for block in blocks)
    return f'{name} = _numbers("""\n{text}\n""", {shape})\n'
