"""Law: second derivatives of a distributed `LayerParallel` are those of the whole network.

Within rounding, and those of the input with the same bits on any number of ranks; what is refused
is refused on all ranks, in one sentence. Weights per layer, shared, splines; learnable steps;
gathered coarsest levels and marches in turn; serial; more ranks than intervals.
"""

import json
from typing import Any

import pytest

RANKS = [1, 3]


@pytest.fixture(scope="module")
def told(mpiexec) -> dict[int, dict[str, Any]]:
    """What rank 0 prints, from each run."""
    return {n: json.loads(mpiexec("layer_penalty.py", n, timeout=300.0)) for n in RANKS}


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", RANKS)
def test_second_derivatives_are_those_of_the_layers(told, ranks):
    cases = {name: case for name, case in told[ranks].items() if len(case) == 2}
    assert len(cases) == 4
    for name, (bits, error) in cases.items():
        assert error < 1e-12, name
        assert bits == told[1][name][0], name


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", RANKS)
def test_refusals_are_the_same_on_all_ranks(told, ranks):
    (cycles,) = told[ranks]["refused"]
    assert "fixed number of cycles leaves a gradient" in cycles
    (transform,) = told[ranks]["transformed"]
    assert "LayerParallel was called under torch.func" in transform
