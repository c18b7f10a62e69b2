"""Input columns of an exported file: numbers, or texts that become 0 and 1."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mgnet.app.columns.codes import BooleanCode, CategoryCode, Code, DateCode
from mgnet.app.columns.encoding import Encoding
from mgnet.app.files.columns import listed, shown

__all__ = ["InputColumn", "input_columns"]

BOOLEAN = "1: true, 0: false"


@dataclass(frozen=True)
class InputColumn:
    """A column, and its features in the network.

    Attributes
    ----------
    name : str
        Name of the column.
    places : mapping of str to int
        Text -> the feature that is 1 for this text, while the other features are 0; -1 for a text
        without a feature. An empty cell has the text "". The dictionary is empty for a numeric
        column, which is itself a feature.
    other : int
        Feature of every other text.
    features : int
        Number of features.
    note : str
        Note that is shown in parentheses after the range of the column.

    Examples
    --------
    >>> kind = InputColumn("kind", {"a": 0, "b": -1}, other=1, features=2)
    >>> kind.is_text, kind.told
    (True, "'a', 'b', or another")
    """

    name: str
    places: Mapping[str, int] = field(default_factory=dict)
    other: int = -1
    features: int = 1
    note: str = ""

    @property
    def is_text(self) -> bool:
        """Whether the cells of the column are text."""
        return bool(self.places)

    @property
    def is_boolean(self) -> bool:
        """Whether the column is 1 for true and 0 for false."""
        return self.note == BOOLEAN

    @property
    def told(self) -> str:
        """The texts of the column, listed for the user; only the first ones if there are many."""
        texts = [repr(text) if text.isprintable() else ascii(text) for text in self.places]
        shown = texts if len(texts) <= 12 else [*texts[:11], f"{len(texts) - 11} more"]
        return ", ".join([*shown, "or another"])


def input_columns(encoding: Encoding) -> tuple[InputColumn, ...]:
    """The columns of an encoding, in its order.

    Raises
    ------
    ValueError
        If there are dates, or both empty and missing texts, which no exported file distinguishes.

    Examples
    --------
    >>> codes = BooleanCode("on"), CategoryCode("kind", ("a", None), ("b",))
    >>> on, kind = input_columns(Encoding(codes, frozenset(["kind=a"])))
    >>> on.note, kind.places, kind.other, kind.features
    ('1: true, 0: false', {'a': -1, '': 0, 'b': 1}, 1, 2)
    """
    dates = [f"'{shown(code.name)}'" for code in encoding.codes if isinstance(code, DateCode)]
    if dates:
        raise ValueError(
            f"dates cannot be exported yet, and the model needs {listed(dates)}; write them as "
            "numbers in the table, or fit with --exclude"
        )
    return tuple(_input_column(code, encoding.left_out) for code in encoding.codes)


def _input_column(code: Code, left_out: frozenset[str]) -> InputColumn:
    if not isinstance(code, CategoryCode):
        note = BOOLEAN if isinstance(code, BooleanCode) else ""
        return InputColumn(code.name, note=note)
    kept = [name for name in code.features if name not in left_out]
    numbers = [kept.index(name) if name in kept else -1 for name in code.features]
    other = numbers[-1] if code.rare else -1
    levels = dict(zip(code.levels, numbers, strict=False)) | dict.fromkeys(code.rare, other)
    if {None, ""} <= levels.keys():
        raise ValueError(
            f"column '{shown(code.name)}' has empty texts and missing ones, which an exported file "
            "cannot distinguish; fill one of them in, and fit again"
        )
    places = {level or "": place for level, place in levels.items()}
    return InputColumn(code.name, places, other, len(kept))
