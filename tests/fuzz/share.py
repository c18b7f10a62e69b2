"""What the shares of the fuzzers in the tests have in common: a few trials, in this process."""

import numpy as np


def taken(fuzzer, root, seed, trials):
    """How many inputs were used right; the others are refused in one sentence."""
    count = 0
    for number in range(trials):
        folder = root / f"{seed}-{number}"
        folder.mkdir()
        drawn = fuzzer.draw(np.random.default_rng([seed, number]), folder)
        try:
            assert fuzzer.use(folder), drawn
            count += 1
        except fuzzer.refusals as refusal:
            told = str(refusal)
            assert told and "\n" not in told and len(told) < 1000, (drawn, told)
    return count
