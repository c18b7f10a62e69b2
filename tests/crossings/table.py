"""docs/works-with.md, made of what the rows in this folder find.

    python tests/crossings/table.py [--only WORD] [--save]

Runs every cell whose libraries are installed (extra `crossings`), each row in a process of its own,
and prints the verdicts. `--save` keeps them in results.json beside this file and writes the page.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent)]

from crossings import rows  # noqa: E402
from crossings.networks import NETWORKS  # noqa: E402

SECONDS = 1000.0  # of a row


def run_row(title: str) -> list[dict[str, str]]:
    """All cells of a row, in a process of its own: one prints what another would trip over."""
    command = [sys.executable, __file__, "--row", title]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    found = [json.loads(line[5:]) for line in done.stdout.splitlines() if line.startswith("CELL ")]
    if len(found) < len(NETWORKS):
        raise RuntimeError(f"{title} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return found


def cells_of(title: str) -> None:
    row = rows.load()[title]
    for network in NETWORKS:
        if row.ranks > 1:
            with tempfile.TemporaryDirectory() as folder:
                told = rows.judge_on_ranks(row, network, folder)
        else:
            told = rows.judge(row, network)
        print("CELL " + json.dumps(told), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="rows with this word in their title or section")
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.row:
        cells_of(options.row)
        return
    for row in rows.load().values():
        if options.only.lower() not in f"{row.section} {row.title}".lower():
            continue
        if row.missing():
            print(f"{row.title}\n    not run: {', '.join(row.missing())} is not installed")
            continue
        print(row.title, flush=True)
        try:
            for told in run_row(row.title):
                print(f"    {told['network']}: {told['verdict']} {told['text'][:300]}", flush=True)
        except Exception as error:
            print("   ROW", error)


if __name__ == "__main__":
    main()
