"""Runs a fuzzer, prints every fault and a summary; the exit code is 1 if there was a fault."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module

from tools.fuzz import harness, ranks

FILES = "models", "checkpoints", "resumable", "tables", "texts", "options"
OWN = "interruptions", "soak", "soak_layers"  # programs with options of their own


def main() -> int:
    """Run what the command line asks for."""
    if sys.argv[1:2] and sys.argv[1] in OWN:
        return import_module(f"tools.fuzz.{sys.argv[1]}").main(sys.argv[2:])
    parser = argparse.ArgumentParser(
        prog="python -m tools.fuzz", description=__doc__, epilog=f"{', '.join(OWN)}: NAME --help"
    )
    parser.add_argument("fuzzer", choices=(*FILES, "ranks", *OWN))
    parser.add_argument("--count", type=int, default=1000, help="trials")
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
