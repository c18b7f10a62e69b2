"""Law: a module that ranks collect at different times does not make them wait for one another."""

import pytest


@pytest.mark.mpi
def test_distributed_modules_may_be_collected_at_any_time(mpiexec):
    assert "distributed four times" in mpiexec("collected_modules.py", 3, timeout=120.0)
