"""Runs a fuzzer, prints every fault and a summary; the exit code is 1 if there was a fault."""

from __future__ import annotations

import argparse
import ast
import sys
from importlib import import_module
from pathlib import Path

from tools.fuzz import harness, positive, ranks

FILES = "models", "checkpoints", "resumable", "tables", "dialects", "texts", "options"
OWN = "interruptions", "soak", "soak_layers"  # programs with options of their own


def about(name: str) -> str:
    """What a fuzzer tries: the first line of its file, which is not imported for that."""
    text = Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(text)) or "").split("\n")[0]


def main() -> int:
    """Run what the command line asks for."""
    if sys.argv[1:2] and sys.argv[1] in OWN:
        return import_module(f"tools.fuzz.{sys.argv[1]}").main(sys.argv[2:])
    names = (*FILES, "ranks", *OWN)
    parser = argparse.ArgumentParser(
        prog="python -m tools.fuzz",
        description=__doc__,
        epilog="\n".join(
            [f"{name:14} {about(name)}" for name in names]
            + [f"{', '.join(OWN)} have options of their own: NAME --help"]
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("fuzzer", choices=names)
    parser.add_argument("--count", type=positive, default=1000, help="trials, a positive integer")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first trial")
    parser.add_argument("--show", action="store_true", help="print every outcome, not only faults")
    given = parser.parse_args()
    outcomes = []
    run_trials = ranks.run_trials if given.fuzzer == "ranks" else harness.run_trials
    for outcome in run_trials(given.fuzzer, given.count, given.seed, given.first):
        outcomes.append(outcome)
        if given.show or outcome.is_fault:
            print(f"{outcome.number} {outcome.kind}: {outcome.drawn}\n  {outcome.told}", flush=True)
    print(f"{given.fuzzer}, seed {given.seed}: {harness.summary(outcomes)}")
    return any(outcome.is_fault for outcome in outcomes)


if __name__ == "__main__":
    sys.exit(main())
