"""What a row of the table is, and how a cell is judged."""

from __future__ import annotations

import importlib
import queue
import re
import time
import traceback
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from crossings.networks import NETWORKS, Network, WrongNumberError

Check = Callable[[Network], None]
MODULES = ("derivatives", "precision", "compilers", "modes", "saving", "surgery", "processes")
MODULES += ("trainers",)
SECONDS = 240.0  # of a cell on several processes
LONGEST = 260  # characters of a sentence


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
    """

    section: str
    title: str
    check: Check
    needs: tuple[str, ...] = ()
    quick: bool = True
    ranks: int = 1

    def missing(self) -> list[str]:
        """What is not installed."""
        return [name for name in self.needs if find_spec(name) is None]


ROWS: dict[str, Row] = {}


def row(
    section: str, title: str, *needs: str, quick: bool = True, ranks: int = 1
) -> Callable[[Check], Check]:
    """Add a check to the table."""

    def add(check: Check) -> Check:
        ROWS[title] = Row(section, title, check, needs, quick, ranks)
        return check

    return add


def load() -> dict[str, Row]:
    """All rows, in the order of the page."""
    for name in MODULES:
        importlib.import_module(f"crossings.{name}")
    return ROWS


def network_of(title: str) -> Network:
    return next(network for network in NETWORKS if network.title == title)


def sentence(error: BaseException) -> str:
    """The first sentences of a message, on one line, without what differs from run to run."""
    text = re.sub(r"\x1b\[\d+m", "", str(error)).strip().split("\n\n")[0]
    text = re.sub(r"0x[0-9a-f]+", "0x...", re.sub(r"\s+", " ", text)).replace("`", "'")
    text = re.sub(r"(?<=[ '\"(])/\S*/", ".../", text)
    while len(text) > LONGEST and ". " in text[:-1]:
        text = text[:-1].rpartition(". ")[0] + "."
    if len(text) > LONGEST:
        text = text[:LONGEST].rpartition(" ")[0] + " ..."
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


def _rank(rank: int, file: str, ranks: int, names: tuple[str, str], results: Any) -> None:
    torch.set_num_threads(1)
    group = {"init_method": f"file://{file}", "rank": rank, "world_size": ranks}
    torch.distributed.init_process_group("gloo", **group)
    results.put(judge(load()[names[0]], network_of(names[1])))
    torch.distributed.destroy_process_group()


def judge_on_ranks(row: Row, network: Network, folder: str) -> dict[str, str]:
    """Run a cell on several processes: the first verdict that is not "works" is that of all."""
    context = torch.multiprocessing.get_context("spawn")
    results = context.Queue()
    names = (row.title, network.title)
    workers = [
        context.Process(target=_rank, args=(rank, f"{folder}/group", row.ranks, names, results))
        for rank in range(row.ranks)
    ]
    for worker in workers:
        worker.start()
    found, end = [], time.monotonic() + SECONDS
    while len(found) < row.ranks:
        alive = any(worker.is_alive() for worker in workers) and time.monotonic() < end
        try:
            found.append(results.get(timeout=1.0))
        except queue.Empty:
            if not alive:
                codes = [worker.exitcode for worker in workers]
                text = f"{len(found)} of {row.ranks} processes came to an end; exit codes {codes}"
                found.append(
                    {"row": row.title, "network": network.title, "verdict": "wrong", "text": text}
                )
                break
    for worker in workers:
        worker.join(10.0)
        if worker.is_alive():
            worker.kill()
    return min(found, key=lambda told: told["verdict"] == "works")
