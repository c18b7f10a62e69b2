"""What a file takes for one input column of a table: numbers, or texts that become 0 and 1."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["InputColumn"]


@dataclass(frozen=True)
class InputColumn:
    """A column, and the features that the network has of it.

    Attributes
    ----------
    name : str
    places : mapping of str to int
        Text -> the feature that is 1 where the row has this text, while the others are 0; -1 for
        none. A cell without a text is "". Empty for a column of numbers, which is a feature itself.
    other : int
        The feature of every other text.
    features : int
    note : str
        In brackets behind its range.

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
        """Whether its cells are texts."""
        return bool(self.places)

    @property
    def told(self) -> str:
        """Its texts in words; of very many, the first."""
        texts = [repr(text) if text.isprintable() else ascii(text) for text in self.places]
        shown = texts if len(texts) <= 12 else [*texts[:11], f"{len(texts) - 11} more"]
        return ", ".join([*shown, "or another"])
