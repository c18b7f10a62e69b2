"""Fuzzers: what mgnet does with damaged files, odd texts, interruptions and faults.

`python -m tools.fuzz NAME --count N --seed S`, from the root of the repository, or `--help`.
"""

from __future__ import annotations

from argparse import ArgumentTypeError


def positive(text: str) -> int:
    """A count from a command line."""
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"got {text!r}; expected a positive integer")
    return int(text)
