"""What a row of the table is, and how a cell is judged."""

from __future__ import annotations

import importlib
import re
import traceback
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from typing import NamedTuple

from crossings.networks import NETWORKS, Network, WrongNumberError

Check = Callable[[Network], None]
MODULES = ("derivatives", "precision", "compilers", "modes", "saving", "surgery", "processes")
MODULES += ("trainers", "recurrent_networks", "transformer_models")
LONGEST = 330


class Row(NamedTuple):
    """A way of using a network.

    Attributes
    ----------
    section, title : str
    check : callable
        Uses a network and compares numbers; what it raises is the verdict.
    needs : tuple of str
        Modules that must be installed.
    quick : bool
        Whether the test suite runs it, too.
    ranks : int
        Processes that run the check together.
    networks : tuple of str
        The titles of those that it is for.
    """

    section: str
    title: str
    check: Check
    needs: tuple[str, ...] = ()
    quick: bool = True
    ranks: int = 1
    networks: tuple[str, ...] = tuple(network.title for network in NETWORKS)

    def missing(self) -> list[str]:
        """What is not installed."""
        return [name for name in self.needs if find_spec(name) is None]


ROWS: dict[str, Row] = {}


def row(
    section: str,
    title: str,
    *needs: str,
    quick: bool = True,
    ranks: int = 1,
    networks: tuple[str, ...] = (),
) -> Callable[[Check], Check]:
    """Add a check to the table; of all networks, unless some are named."""

    def add(check: Check) -> Check:
        chosen = networks or Row._field_defaults["networks"]
        ROWS[title] = Row(section, title, check, needs, quick, ranks, chosen)
        return check

    return add


def load() -> dict[str, Row]:
    """All rows, in the order of the page."""
    for name in MODULES:
        importlib.import_module(f"crossings.{name}")
    return ROWS


def network_of(title: str) -> Network:
    from crossings.recurrent_networks import NETWORKS as RECURRENT  # it has rows itself

    return next(network for network in [*NETWORKS, *RECURRENT] if network.title == title)


def sentence(error: BaseException) -> str:
    """The first sentences of a message, on one line, without what differs from run to run."""
    text = re.sub(r"\x1b\[\d+m", "", str(error)).strip().split("\n\n")[0]
    text = re.sub(r"0x[0-9a-f]+", "0x...", re.sub(r"\s+", " ", text)).replace("`", "'")
    text = re.sub(r"(?<=[ '\"(])/\S*/", ".../", text)
    text = re.sub(r"^(\w+)\( .*\) (?=\w)", r"\1(...) ", text)  # the picture of a module
    while len(text) > LONGEST and ". " in text[:-1]:
        text = text[:-1].rpartition(". ")[0] + "."
    if len(text) > LONGEST:
        text = "... " + text[-LONGEST:].partition(" ")[2]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def is_ours(error: BaseException) -> bool:
    """Whether a `raise` of mgnet is at its root, below what other libraries wrapped around it."""
    inner: BaseException | None = error
    while inner is not None:
        frames = traceback.extract_tb(inner.__traceback__)
        if frames and "/mgnet/" in frames[-1].filename and "raise" in (frames[-1].line or ""):
            return True
        inner = inner.__cause__ or inner.__context__
    return False


def judge(row: Row, network: Network) -> dict[str, str]:
    """Run a cell here: its verdict and what is said of it."""
    told = {"row": row.title, "network": network.title}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            row.check(network)
        return told | {"verdict": "works", "text": ""}
    except WrongNumberError as error:
        return told | {"verdict": "wrong", "text": str(error)}
    except Exception as error:
        verdict = "refused" if is_ours(error) else "fails"
        return told | {"verdict": verdict, "text": sentence(error)}
