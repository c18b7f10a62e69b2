"""Law: `Solver` takes distributed Vecs as they are; every rank takes the same decisions."""

import json

import numpy as np
import pytest

from mgnet import Solver, gallery


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_the_history_on_ranks_is_that_of_numpy(mpiexec, ranks):
    expected = Solver(gallery.poisson((31, 31), levels=4), "F(2,1)", rtol=0.0, max_cycles=5).solve(
        np.sin(np.arange(31.0**2))
    )
    told = json.loads(mpiexec("poisson.py", ranks))
    assert told["reason"] == expected.reason.name
    np.testing.assert_allclose(told["norms"], expected.residual_norms, rtol=1e-9)


@pytest.mark.mpi
def test_a_nan_on_one_rank_ends_all_ranks(mpiexec):
    told = json.loads(mpiexec("poisson.py", 2, "--poison", timeout=30.0))
    assert told["reason"] == "NOT_FINITE"
