"""Cells on several processes: workers that stay, so that PyTorch is imported once in each."""

from __future__ import annotations

import queue
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from crossings.networks import Network
from crossings.rows import Row, judge, load, network_of

SECONDS = 180.0  # of a cell
SEVERITY = ["works", "refused", "fails", "wrong"]


def _work(rank: int, ranks: int, tasks: Any, results: Any) -> None:
    torch.set_num_threads(1)
    for title, network, file in iter(tasks.get, None):
        group = {"init_method": f"file://{file}", "rank": rank, "world_size": ranks}
        torch.distributed.init_process_group("gloo", **group)
        results.put(judge(load()[title], network_of(network)))
        torch.distributed.destroy_process_group()


class Workers:
    """Processes that judge cells together, each cell in a group of its own."""

    def __init__(self, ranks: int):
        context = torch.multiprocessing.get_context("spawn")
        self.results = context.Queue()
        self.tasks = [context.Queue() for _ in range(ranks)]
        self.processes = [
            context.Process(target=_work, args=(rank, ranks, tasks, self.results), daemon=True)
            for rank, tasks in enumerate(self.tasks)
        ]
        for process in self.processes:
            process.start()

    def judge(self, row: Row, network: Network) -> dict[str, str]:
        """The worst verdict of all processes; one that comes to no end is wrong."""
        found, end = [], time.monotonic() + SECONDS
        with tempfile.TemporaryDirectory() as folder:
            for tasks in self.tasks:
                tasks.put((row.title, network.title, str(Path(folder) / "group")))
            while len(found) < len(self.tasks):
                alive = all(process.is_alive() for process in self.processes)
                try:
                    found.append(self.results.get(timeout=1.0))
                except queue.Empty:
                    if alive and time.monotonic() < end:
                        continue
                    codes = [process.exitcode for process in self.processes]
                    text = f"{len(found)} of {row.ranks} processes gave an answer, codes {codes}"
                    told = {"row": row.title, "network": network.title}
                    found.append(told | {"verdict": "wrong", "text": text})
                    break
        return max(found, key=lambda told: SEVERITY.index(told["verdict"]))

    def end(self) -> None:
        for process in self.processes:
            process.kill()
