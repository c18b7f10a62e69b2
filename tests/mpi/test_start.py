"""Law: the launcher, mpi4py and petsc4py belong to the same MPI, on 1, 2 and 4 ranks.

The tests of this folder start the scripts beside them through the fixture `mpiexec` and compare
what rank 0 prints; no pytest plugin is needed, and a hanging rank is ended with its group.
"""

import json

import pytest


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_every_rank_takes_part(mpiexec, ranks):
    assert json.loads(mpiexec("vector_sum.py", ranks)) == {"ranks": ranks, "total": 3.0 * ranks}


@pytest.mark.mpi
def test_a_failing_rank_is_reported(mpiexec):
    with pytest.raises(AssertionError, match="no_such_script.py on 2 ranks ended with"):
        mpiexec("no_such_script.py", 2)
