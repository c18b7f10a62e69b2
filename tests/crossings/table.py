"""Write docs/works-with.md from the results of the rows in this folder.

    python tests/crossings/table.py [--only WORDS] [--save]

Runs every cell whose libraries are installed (extra `crossings`), in a child process, and prints
the verdicts. `--save` keeps them in results.json beside this file and writes the page.
"""

import argparse
import faulthandler
import json
import platform
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent)]

from crossings import rows  # noqa: E402
from crossings.networks import WrongNumberError  # noqa: E402
from crossings.ranks import Workers  # noqa: E402

LONGEST = 600  # seconds of a cell: inductor compiles on a busy machine
RESULTS, PAGE = HERE / "results.json", HERE.parent.parent / "docs" / "works-with.md"
PACKAGES = ("torch", "numpy", "numba", "safetensors", "scikit-learn", "accelerate", "lightning")
PACKAGES += ("skorch", "onnx", "onnxscript", "onnxruntime", "transformers", "peft", "torchdiffeq")
WORDS = {"works": "works", "refused": "refused", "fails": "error", "wrong": "**wrong**"}
HEAD = """# What works with what

<!-- Made by `python tests/crossings/table.py --page` of tests/crossings/results.json. -->

Every cell was run: the network was used in this way for a few calls or steps, and its outputs,
gradients or trained weights were compared with those of the same function in plain PyTorch, in
double precision unless the row says otherwise.

- **works**: the right numbers.
- **refused**: mgnet raises an error, quoted [below](#the-sentences) under that number.
- **error**: the other library does not accept such a module; its message is below, too.

KAN is a KAN after a linear layer, ODENet one of 16 layers, LayerParallel the same layers by MGRIT
with `CyclesToTolerance(1e-13)`, and by `mode="serial"`; TimeParallel is a GRU of two layers in
the same two ways.

The last table has models, tiny and with random weights, whose layers are loaded into an ODE net.
Outputs and gradients are those of the model to 1e-6 and, in training with the dropout that it has
by default, those of the ODE net. The net and the model are then trained for three steps of AdamW
with `parameter_groups`, in bfloat16 by `torch.autocast`: the changes of their weights differ by at
most 20 % in norm. Three more steps use dropout. Finally the `state_dict` goes through a file, and
`to_layers` writes the weights into the model, whose outputs must be those of the trained net.
"""
Cell = dict[str, str]


def too_long(number: int, frame: object) -> None:
    raise WrongNumberError(f"takes more than {LONGEST} s")


def work(cells: list[list[str]]) -> None:
    """Judge cells in this process, a line of JSON each."""
    signal.signal(signal.SIGALRM, too_long)
    workers: Workers | None = None
    for title, name in cells:
        row, network = rows.load()[title], rows.network_of(name)
        faulthandler.dump_traceback_later(2 * LONGEST, exit=True)
        if row.ranks > 1:
            workers = workers or Workers(row.ranks)
            told = workers.judge(row, network)
            if told["verdict"] != "works":
                workers.end()
                workers = None
        else:
            signal.alarm(LONGEST)
            told = rows.judge(row, network)
            signal.alarm(0)
        print("CELL " + json.dumps(told), flush=True)
    if workers is not None:
        workers.end()


def judged(cells: list[tuple[str, str]]) -> Iterator[Cell]:
    """Run cells in a child process, and in a new one after a cell that ended it."""
    while cells:
        command = [sys.executable, __file__, "--work", json.dumps(cells)]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as child:
            assert child.stdout is not None
            for line in child.stdout:
                if line.startswith("CELL "):
                    cells = cells[1:]
                    yield json.loads(line[5:])
        if cells:
            text = f"the process ended with {child.returncode}"
            yield {"row": cells[0][0], "network": cells[0][1], "verdict": "wrong", "text": text}
            cells = cells[1:]


def versions() -> dict[str, str]:
    """Of what is installed of all that the rows use."""
    found = {"Python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name).partition("+")[0]
        except metadata.PackageNotFoundError:
            continue
    return found


def read() -> dict[str, Any]:
    return json.loads(RESULTS.read_text())


def write(cells: list[Cell]) -> None:
    """Keep the cells, one a line, in the order of the rows."""
    lines = ",\n".join(f"    {json.dumps(cell)}" for cell in cells)
    told = json.dumps(versions())
    RESULTS.write_text(f'{{\n  "versions": {told},\n  "cells": [\n{lines}\n  ]\n}}\n')


def page(saved: dict[str, Any]) -> str:
    """The page, of what was saved; a row that was not run says so."""
    found = {(cell["row"], cell["network"]): cell for cell in saved["cells"]}
    sentences: list[str] = []

    def shown(title: str, network: str) -> str:
        cell = found.get((title, network))
        if cell is None:
            return "not run"
        if not cell["text"]:
            return WORDS[cell["verdict"]]
        if cell["text"] not in sentences:
            sentences.append(cell["text"])
        return f"{WORDS[cell['verdict']]} ({sentences.index(cell['text']) + 1})"

    known = ", ".join(f"{name} {version}" for name, version in saved["versions"].items())
    told, section = [HEAD, f"Run with {known}."], ""
    for row in rows.load().values():
        if row.section != section:
            section = row.section
            told.append(f"\n## {section}\n")
            told.append("| | " + " | ".join(row.networks) + " |")
            told.append("| --- |" + " --- |" * len(row.networks))
        cells = [shown(row.title, network) for network in row.networks]
        told.append(f"| {row.title} | " + " | ".join(cells) + " |")
    told.append("\n## The sentences\n")
    told += [f"{number}. `{text}`" for number, text in enumerate(sentences, 1)]
    return "\n".join(told) + "\n"


def run(only: str) -> list[Cell]:
    """Run the rows with these words in title or section; the cells, printed on the way."""
    todo = []
    for row in rows.load().values():
        if only.lower() not in f"{row.section} {row.title}".lower():
            continue
        if row.missing():
            print(f"not run, as {', '.join(row.missing())} is not installed: {row.title}")
            continue
        todo += [(row.title, network) for network in row.networks]
    found = []
    for cell in judged(todo):
        found.append(cell)
        print(f"{cell['row']}, {cell['network']}: {cell['verdict']} {cell['text']}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="rows with this word in title or section")
    parser.add_argument("--save", action="store_true", help="keep what is found, write the page")
    parser.add_argument("--page", action="store_true", help="write the page of what is kept")
    parser.add_argument("--work", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.work)
        return
    if not options.page:
        cells = run(options.only)
        if options.save:
            fresh = {(cell["row"], cell["network"]): cell for cell in cells}
            before = read()["cells"] if RESULTS.is_file() and options.only else []
            kept = {(cell["row"], cell["network"]): cell for cell in before} | fresh
            keys = [
                (row.title, network) for row in rows.load().values() for network in row.networks
            ]
            write([kept[key] for key in keys if key in kept])
    if options.page or options.save:
        PAGE.write_text(page(read()))


if __name__ == "__main__":
    main()
