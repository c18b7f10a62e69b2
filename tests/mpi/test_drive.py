"""Law: on one rank and on two, PETSc's multigrid on our hierarchy is our cycle."""

import json
import time

import numpy as np
import pytest

from mgnet import Solver, gallery

LINE = (
    "-options_left no -mgnet_cycle W(1,1) -ksp_ksp_type richardson -ksp_ksp_norm_type"
    " unpreconditioned -ksp_ksp_rtol 1e-7 -ksp_pc_type mg -ksp_pc_mg_levels 4"
    " -ksp_pc_mg_cycle_type w"
    " -ksp_mg_levels_ksp_type richardson -ksp_mg_levels_ksp_max_it 1 -ksp_mg_levels_pc_type python"
    " -ksp_mg_levels_pc_python_type mgnet.petsc.Sweeps -ksp_mg_coarse_pc_type redundant"
    " -snes_snes_type python -snes_snes_python_type mgnet.petsc.Cycle -snes_mgnet_cycle W(1,1)"
    " -snes_snes_rtol 1e-7"
).split()


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", [1, 2])
def test_petsc_and_we_agree_on_ranks(mpiexec, ranks):
    hierarchy = gallery.poisson((31, 31), levels=4)
    f = np.sin(np.arange(961.0))
    expected = Solver(hierarchy, "W(1,1)", rtol=1e-7).solve(f).residual_norms
    told = json.loads(mpiexec("drive.py", ranks, *LINE))
    assert told["mgnet"][0] == "RTOL"
    assert min(told["ksp"][0], told["snes"][0]) > 0
    for name in ("mgnet", "ksp", "snes"):
        np.testing.assert_allclose(told[name][1:], expected, rtol=1e-8)
    assert told["blocks"][0] > 0
    assert told["blocks"][1] == sum(range(3, 3 + ranks))
    np.testing.assert_allclose(told["blocks"][2:], 1.0, rtol=1e-7)


@pytest.mark.mpi
def test_a_nan_on_one_rank_is_a_reason_on_all(mpiexec):
    told = json.loads(mpiexec("drive.py", 2, *LINE, "nan", timeout=60.0))
    assert told["mgnet"][0] == "NOT_FINITE"
    assert max(told["ksp"][0], told["snes"][0]) < 0


@pytest.mark.mpi
def test_a_misspelt_option_ends_all_ranks(mpiexec):
    began = time.perf_counter()
    with pytest.raises(AssertionError, match="-mgnet_cycel is unknown; .* -mgnet_cycle "):
        mpiexec("drive.py", 2, "-mgnet_cycel", "V", timeout=60.0)
    assert time.perf_counter() - began < 60.0
