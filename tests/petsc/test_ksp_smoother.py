"""Law: PETSc's solvers are smoothers like any other, and the command line beats the script."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from mgnet import Hierarchy, Jacobi, Level, Solver, gallery

F = np.sin(np.arange(961.0))
JACOBI = {
    "ksp_type": "richardson",
    "ksp_richardson_scale": 2.0 / 3.0,
    "ksp_max_it": 1,
    "pc_type": "jacobi",
}


@pytest.fixture
def make(petsc):
    from mgnet.petsc import KSPSmoother

    return KSPSmoother


def test_richardson_with_jacobi_is_jacobi(make):
    theirs = gallery.poisson((31, 31), smoother=make("j_", JACOBI))
    ours = gallery.poisson((31, 31), smoother=Jacobi(2.0 / 3.0))
    for cycle in ("V(1,1)", "F(2,1)"):
        norms = [Solver(h, cycle, max_cycles=5).solve(F).residual_norms for h in (theirs, ours)]
        np.testing.assert_allclose(*norms, rtol=1e-9)


def test_the_command_line_beats_the_script(make, options, petsc):
    options("-beaten_pc_type lu -beaten_ksp_type preonly")
    level = gallery.poisson(31, levels=1)[0]
    smoother = make("beaten_", JACOBI)
    u, _ = smoother.smooth(level, 0 * F[:31], F[:31], 1, smoother.start(level, F[:31]))
    np.testing.assert_allclose(level.matrix @ u, F[:31], atol=1e-12)
    assert not petsc.Options("beaten_").hasName("ksp_max_it"), "the script's are taken out again"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_coarse_solver_of_tensors_in_either_precision(make, dtype):
    lu = make("lu_", {"ksp_type": "preonly", "pc_type": "lu"})
    A = torch.tensor([[2.0, -1.0], [-1.0, 3.0]], dtype=dtype)
    f = torch.tensor([1.0, 2.0], dtype=dtype)
    value = Solver(Hierarchy([Level(A, lu)]), rtol=1e-6).solve(f).require().value
    assert value.dtype == dtype
    torch.testing.assert_close(A @ value, f)


@pytest.mark.parametrize("prefix", ["dense_", "free_"])
def test_newton_on_a_nonlinear_level(make, prefix):
    model = gallery.reaction(31, 100.0, levels=1)[0]
    linearize = model.linearize
    kinds = {
        "dense_": lambda u: linearize(u).toarray(),
        "free_": lambda u: linearize(u).__matmul__,
    }
    options = {"pc_type": "lu" if prefix == "dense_" else "none", "ksp_rtol": 1e-10}
    level = replace(model, linearize=kinds[prefix], smoother=make(prefix, options))
    solution = Solver(Hierarchy([level]), rtol=1e-10, max_cycles=8).solve(np.full(31, 1 / 32))
    assert solution.reason.converged, "Newton converges in a few steps"
    expected = Solver(gallery.reaction(31, 100.0), rtol=1e-12).solve(np.full(31, 1 / 32)).value
    np.testing.assert_allclose(solution.value, expected, atol=1e-9)


def test_a_singular_matrix_is_a_reason(make):
    lu = make("sing_", {"ksp_type": "preonly", "pc_type": "lu"})
    A = sp.csr_matrix([[1.0, 1.0], [1.0, 1.0]])
    solution = Solver(Hierarchy([Level(A, lu)])).solve(np.array([1.0, 0.0]))
    assert solution.reason.name == "NOT_FINITE"


def test_name(make):
    assert str(make("a_")) == "KSPSmoother('a_')"


SCRIPT = """
import sys
import numpy as np
from mgnet import Hierarchy, Level, Solver
from mgnet.petsc import KSPSmoother

def product(x):
    if how == "error":
        raise KeyError("mine")
    if how == "caught":
        raise FloatingPointError("mine")
    return np.nan * x

how, options = sys.argv[1], {"ksp_type": sys.argv[2], "pc_type": "none"}
if how == "PETSc's error":
    options["ksp_error_if_not_converged"] = None
smoother = KSPSmoother("child_", options)
level = Level(np.eye(3), smoother, linearize=lambda u: product)
memory = smoother.start(level, np.ones(3))
try:
    solution = Solver(Hierarchy([level])).solve(np.ones(3))
except Exception:
    if how == "error":
        raise
    solution = None
try:
    smoother.smooth(level, np.zeros(3), np.ones(3), 1, memory)
except Exception:
    pass
ksp = memory[0]
print(solution and solution.reason.name)
"""


@pytest.mark.parametrize(
    ("how", "method"),
    [("not finite", "gmres"), ("caught", "cg"), ("error", "gmres"), ("PETSc's error", "bcgs")],
)
def test_a_script_ends_well_after_a_ksp_did_not(petsc, how, method):
    """PETSc 3.18 cannot destroy what an error interrupted, and would try it at exit."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, how, method],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if how == "error":
        assert done.returncode == 1
        assert done.stderr.endswith("KeyError: 'mine'\n")
    else:
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == ("None\n" if how == "PETSc's error" else "NOT_FINITE\n")


def test_a_ksp_that_met_nan_is_a_reason_with_the_level(make):
    """Where it went on from zero, nobody would notice."""
    smoother = make("nan_", {"ksp_type": "gmres", "pc_type": "none"})
    level = Level(np.eye(3), smoother, linearize=lambda u: lambda x: np.nan * x, name="level 0")
    solution = Solver(Hierarchy([level])).solve(np.ones(3))
    assert solution.reason.name == "NOT_FINITE"
    assert "KSPSmoother('nan_') on level 0: PETSc met a norm that is not fin" in solution.message


def residual_after_a_sweep(smoother, matrix):
    level, u, f = Level(matrix, smoother), np.zeros(961), F
    u, _ = smoother.smooth(level, u, f, 1, smoother.start(level, u))
    return np.linalg.norm(f - matrix @ u)


def test_options_of_the_script_reach_the_inner_solvers(make):
    """PETSc asks for those of blocks and levels when it sets up, after `setFromOptions`."""
    A = gallery.poisson((31, 31), levels=1)[0].matrix
    once = {"ksp_type": "richardson", "ksp_max_it": 1, "pc_type": "bjacobi"}
    assert residual_after_a_sweep(make("ilu_", once), A) > 1e-3 * np.linalg.norm(F)
    exact = make("blocks_", once | {"sub_pc_type": "lu"})
    assert residual_after_a_sweep(exact, A) < 1e-10 * np.linalg.norm(F)


def test_a_misspelt_option_of_the_script_is_warned_of(make, recwarn):
    A = gallery.poisson((31, 31), levels=1)[0].matrix
    residual_after_a_sweep(make("right_", JACOBI | {"mg_levels_pc_type": "jacobi"}), A)
    assert not recwarn.list
    told = "options of 'wrong_' have 'ksp_typ', .* the nearest is 'ksp_type'"
    with pytest.warns(UserWarning, match=told):
        residual_after_a_sweep(make("wrong_", {"ksp_typ": "cg"}), A)


@pytest.mark.parametrize("method", ["gamg", "jacobi"])
def test_nothing_is_kept_of_an_earlier_jacobian(make, method):
    """Of gamg PETSc 3.18 keeps aggregates and eigenvalues of coarser levels."""
    one, two = sp.diags([-1.0, 2.0, -1.0], [-1, 0, 1], shape=(31, 31)), sp.eye(31)
    first = (sp.kron(one, two) + sp.kron(two, one)).tocsr()
    second = (first + sp.diags(np.where(np.arange(961) % 31 < 15, 0.0, 50.0))).tocsr()
    now, options = [first], {"ksp_type": "richardson", "ksp_max_it": 4, "pc_type": method}
    if method == "jacobi":
        options["ksp_type"] = "chebyshev"
    smoother = make("kept_", options | {"mg_levels_pc_type": "jacobi"})
    level = Level(lambda u: now[0] @ u, smoother, linearize=lambda u: now[0], size=961)
    u = np.zeros(961)
    _, memory = smoother.smooth(level, u, F, 1, smoother.start(level, u))
    now[0] = second
    kept, _ = smoother.smooth(level, u, F, 1, memory)
    fresh, _ = smoother.smooth(level, u, F, 1, smoother.start(level, u))
    np.testing.assert_allclose(kept, fresh, rtol=1e-10)
