"""Law: what is added up over samples has the same bits on any number of ranks, and on all ranks.

Last layers, gradients, triangles, Levenberg-Marquardt, adaptive bases and cycles over knots, each
beside NumPy or the same of one process.
"""

import json

import pytest

RANKS = [1, 3]


@pytest.fixture(scope="module")
def told(mpiexec):
    out = {ranks: mpiexec("distribute_samples.py", ranks, timeout=300.0) for ranks in RANKS}
    # numba's colorama resets colours before or after the line, where it sees a terminal
    return {ranks: json.loads(text.replace("\x1b[0m", "")) for ranks, text in out.items()}


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", RANKS)
def test_every_rank_has_the_bits_of_one(told, ranks):
    expected = {name: digests[0] for name, digests in told[1][0].items()}
    assert len(set(expected.values())) == len(expected)  # the digests see something
    assert told[ranks][0] == {name: ranks * [digest] for name, digest in expected.items()}


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", RANKS)
def test_results_are_those_of_one_process(told, ranks):
    """Also with PCMG, which has no such bits."""
    assert {name: error for name, error in told[ranks][1].items() if not error < 1e-6} == {}
