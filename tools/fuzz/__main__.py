"""Runs a fuzzer, prints every fault and a summary; the exit code is 1 if there was a fault."""

from __future__ import annotations

import argparse
import sys

from tools.fuzz import harness, ranks
from tools.fuzz.harness import summary

FUZZERS = "models", "checkpoints", "resumable", "tables", "texts", "options", "ranks"


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tools.fuzz", description=__doc__)
    parser.add_argument("fuzzer", choices=FUZZERS)
    parser.add_argument("--count", type=int, default=1000, help="trials")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first trial")
    parser.add_argument("--show", action="store_true", help="print every outcome, not only faults")
    if sys.argv[1:2] == ["interruptions"]:  # it has options of its own
        from tools.fuzz.interruptions import main as interruptions

        return interruptions(sys.argv[2:])
    given = parser.parse_args()
    outcomes = []
    run_trials = ranks.run_trials if given.fuzzer == "ranks" else harness.run_trials
    for outcome in run_trials(given.fuzzer, given.count, given.seed, given.first):
        outcomes.append(outcome)
        if given.show or outcome.is_fault:
            print(f"{outcome.number} {outcome.kind}: {outcome.drawn}\n  {outcome.told}", flush=True)
    print(f"{given.fuzzer}, seed {given.seed}: {summary(outcomes)}")
    return any(outcome.is_fault for outcome in outcomes)


if __name__ == "__main__":
    sys.exit(main())
