"""Law: a hierarchy on tensors gives the histories of the one it is made of, with no host between.

No GPU is needed: what would make the host wait for one is refused while a cycle runs.
"""

import sys

import numpy as np
import pyamg
import pytest
import scipy.sparse as sp
import torch
from torch._subclasses import fake_tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mgnet import (
    CG,
    FGMRES,
    GMRES,
    ILU,
    Anderson,
    AxisTransfer,
    Chebyshev,
    Direct,
    GaussSeidel,
    Hierarchy,
    Injection,
    Jacobi,
    Krylov,
    Level,
    LineRelaxation,
    MatrixTransfer,
    MultiplicativeSchwarz,
    Solver,
    cycle,
    gallery,
    interpolation_matrix,
    nested,
    run,
)
from mgnet import tensor_levels as module

SMOOTHERS = [Jacobi(0.8), *(Chebyshev(3, kind=kind) for kind in ("first", "fourth", "opt_fourth"))]
POISSON = pyamg.gallery.poisson((30, 20), format="csr")
# What reads a device, or writes to it from the host, among the operators of torch.
HOST = {"_local_scalar_dense", "nonzero", "equal", "is_nonzero", "masked_select", "lift_fresh"}


class NoHost(TorchDispatchMode):
    """Refuses the operators that wait for the host."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket.__name__ in HOST:
            raise AssertionError(f"{func} meets the host")
        return func(*args, **(kwargs or {}))


@pytest.fixture
def no_host(monkeypatch):
    """`NoHost`, and no copies to NumPy or the host, which are nothing for tensors on the CPU."""

    def refused(*_):
        raise AssertionError("a copy to the host")

    def start():
        for name in ("cpu", "numpy", "item", "tolist", "__array__"):
            monkeypatch.setattr(torch.Tensor, name, refused)
        return NoHost()

    return start


def both(hierarchy, seed=0, dtype=None, **parts):
    moved = hierarchy.to("cpu", **parts)
    f = np.random.default_rng(seed).standard_normal(hierarchy[0].unknowns)
    f = f.astype(dtype or f.dtype)
    if f.dtype.kind == "c":
        f = f + 1j * np.random.default_rng(seed + 1).standard_normal(f.size).astype(f.real.dtype)
    return moved, f, torch.tensor(f)


def same_histories(hierarchy, schedule="V(1,1)", acceleration=None, dtype=None, rtol=1e-8):
    moved, f, g = both(hierarchy, dtype=dtype)
    a, b = (
        Solver(h, schedule, acceleration=acceleration, rtol=rtol).solve(right)
        for h, right in ((hierarchy, f), (moved, g))
    )
    limit = 1e3 * np.finfo(f.dtype).eps
    assert a.reason is b.reason and a.reason.name == "RTOL"
    norms, others = np.array(a.residual_norms), np.array(b.residual_norms)
    assert norms.shape == others.shape and b.value.dtype == g.dtype
    assert abs(norms - others).max() <= limit * norms[0]
    difference = np.linalg.norm(b.value.numpy() - a.value)
    assert difference <= limit * np.linalg.norm(a.value)
    assert [r.work for r in a.history] == [r.work for r in b.history]


@pytest.mark.parametrize("schedule", ["V(1,1)", "F(2,1)", "W(0,2)", "nested V(1,1)"])
@pytest.mark.parametrize("smoother", SMOOTHERS, ids=str)
def test_histories_of_smoothers(smoother, schedule):
    same_histories(gallery.poisson((31, 15), smoother=smoother), schedule)


@pytest.mark.parametrize("make", [pyamg.ruge_stuben_solver, pyamg.smoothed_aggregation_solver])
@pytest.mark.parametrize("acceleration", [None, CG(), GMRES(3), FGMRES(), Anderson()], ids=str)
def test_histories_of_pyamg(make, acceleration):
    smoother = Chebyshev(kind="opt_fourth")
    same_histories(Hierarchy.from_pyamg(make(POISSON), smoother), acceleration=acceleration)


def test_jacobi_of_pyamg_is_taken_over():
    sweep = ("jacobi", {"omega": 0.7})
    ml = pyamg.ruge_stuben_solver(POISSON, presmoother=sweep, postsmoother=sweep, max_coarse=9)
    same_histories(Hierarchy.from_pyamg(ml))
    assert isinstance(Hierarchy.from_pyamg(ml).to("cpu")[0].smoother, Jacobi)


def of_dtype(dtype, smoother):
    P = interpolation_matrix(31).astype(dtype)
    A = sp.diags([-1.0, 2.5, -1.0], [-1, 0, 1], shape=(63, 63), format="csr").astype(dtype)
    if A.dtype.kind == "c":
        phase = sp.diags(np.exp(1j * np.arange(63.0)))  # a Hermitian matrix of complex entries
        A, P = (phase @ A @ phase.conj()).tocsr().astype(dtype), (phase @ P).tocsr().astype(dtype)
    return Hierarchy.galerkin(A, [P], smoother=smoother)


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize("smoother", SMOOTHERS, ids=str)
@pytest.mark.parametrize("acceleration", [None, CG(), FGMRES()], ids=str)
def test_histories_of_precisions(smoother, dtype, acceleration):
    same_histories(of_dtype(dtype, smoother), dtype=dtype, acceleration=acceleration, rtol=1e-4)


def test_another_precision():
    hierarchy = gallery.poisson((15, 15))
    for dtype in (torch.float32, torch.complex128):
        moved = hierarchy.to("cpu", dtype)
        solution = Solver(moved, rtol=1e-5).solve(torch.ones(225, dtype=dtype))
        assert solution.value.dtype == dtype and solution.reason.name == "RTOL"
    assert hierarchy.to("cpu", torch.float32).to("cpu")[0].matrix.dtype == torch.float32


def test_integers_and_mixed_precisions_follow_level_0():
    P, A = np.array([[1], [2]]), np.array([[2, 0], [0, 2]])
    assert Hierarchy.galerkin(A, [P]).to("cpu")[0].matrix.dtype == torch.float64
    levels = Level(A.astype("f4"), Jacobi(), MatrixTransfer(1j * P, P.T)), Level(P.T @ P, Direct())
    assert Hierarchy(levels).to("cpu")[1].matrix.dtype == torch.complex64


def test_what_is_kept():
    hierarchy = gallery.poisson((15, 7), smoother=Jacobi(), post_smoother=Chebyshev())
    moved = hierarchy.to("cpu")
    assert moved.nested == hierarchy.nested
    for level, old in zip(moved, hierarchy, strict=True):
        for name in ("name", "shape", "unknowns", "evaluation_cost", "post_smoother"):
            assert getattr(level, name) == getattr(old, name)
    assert moved.check(torch.zeros(105, dtype=torch.float64)) == hierarchy.check(np.zeros(105))
    assert str(moved).replace(" on tensors", "").split() == str(hierarchy).split()


def test_matrices_of_any_format_are_copied_as_they_are():
    A = sp.random(6, 6, 0.4, random_state=0) + 3.0 * sp.eye(6)
    twice = sp.csr_matrix(([1.0, 2.0, 4.0], [1, 0, 1], [0, 3, 3]), shape=(2, 2))  # not canonical
    tensor = torch.tensor(A.toarray())
    sparse = [A.tobsr((3, 3)), A.tocsc(), A.tocoo(), sp.csr_array(A), twice]
    for matrix in [*sparse, A.toarray(), np.asfortranarray(A.toarray()), tensor.to_sparse_csr()]:
        moved = Hierarchy([Level(matrix, Jacobi())]).to("cpu")[0].matrix
        dense = getattr(matrix, "toarray", getattr(matrix, "to_dense", lambda m=matrix: m))()
        assert (moved.to_dense().numpy() == np.asarray(dense)).all()
        is_dense = isinstance(matrix, np.ndarray)
        assert moved.layout == (torch.strided if is_dense else torch.sparse_csr)
    assert not twice.has_canonical_format and twice.nnz == 3
    moved = Hierarchy([Level(kept := A.toarray(), Jacobi())]).to("cpu")[0].matrix
    kept[:] = 0.0
    assert moved.any()


@pytest.mark.parametrize("R", [None, "own"])
def test_transfers_are_csr_both_ways(R):
    P = interpolation_matrix(7)
    injection = sp.csr_matrix(sp.eye(15))[1::2]
    transfer = MatrixTransfer(P, 0.5 * P.T if R else None, injection, 2.0 * P)
    levels = Level(sp.eye(15), Jacobi(), transfer), Level(sp.eye(7), Direct())
    moved = Hierarchy(levels).to("cpu")[0].transfer
    assert moved.adjoint is (R is None) and moved._restriction.layout == torch.sparse_csr
    rng = np.random.default_rng(0)
    for method, size in (("prolong", 7), ("restrict", 15), ("inject", 15), ("interpolate", 7)):
        u = rng.standard_normal(size)
        told = getattr(moved, method)(torch.tensor(u)).numpy()
        assert np.allclose(told, getattr(transfer, method)(u), rtol=1e-14)


def test_full_approximation_and_injection():
    P, A = interpolation_matrix(7), 16.0 * sp.eye(15, format="csr")
    injection = sp.csr_matrix(sp.eye(15))[1::2]
    for transfer, n in ((MatrixTransfer(P, 0.5 * P.T, injection), 7), (Injection(15, 2), 8)):
        coarse = Level(16.0 * sp.eye(n, format="csr"), Direct())
        same_histories(Hierarchy([Level(A, Jacobi(), transfer), coarse]))


@pytest.mark.parametrize("solver", [Direct(), Direct("pinv"), Jacobi(), Chebyshev(5)], ids=str)
def test_coarse_solvers(solver):
    same_histories(gallery.poisson((31, 15), levels=2, coarse_solver=solver), "V(1,1,2)", rtol=0.1)


@pytest.mark.parametrize("acceleration", [None, CG(), GMRES()], ids=str)
def test_singular_equations(acceleration):
    hierarchy = Hierarchy.geometric(
        (24, 16), coefficients=1.0, boundary="neumann", smoother=Jacobi(0.8)
    )
    assert hierarchy.nullspace is not None and hierarchy.to("cpu").nullspace is hierarchy.nullspace
    same_histories(hierarchy, acceleration=acceleration)


def test_null_vectors_of_several_devices_are_kept_apart():
    space = Hierarchy.geometric((8, 8), coefficients=1.0, boundary="neumann").nullspace
    for device in ("cpu", "meta", "cpu"):
        u = torch.ones(64, dtype=torch.float64, device=device)
        assert space._like(space.vectors, u)[0].device.type == device


@pytest.mark.parametrize(
    "schedule", [cycle(4), cycle(4, np.inf), nested(4)], ids=["V", "W", "full"]
)
@pytest.mark.parametrize("solver", [Direct(), Direct("pinv"), Chebyshev()], ids=str)
@pytest.mark.parametrize("smoother", SMOOTHERS, ids=str)
def test_cycle_meets_the_host_at_its_end_alone(smoother, solver, schedule, monkeypatch, no_host):
    hierarchy = gallery.poisson((31, 15), 4, smoother=smoother, coarse_solver=solver)
    moved, f, g = both(hierarchy)
    _, memory = run(schedule, moved, None, g)  # the set-up
    looks = []
    monkeypatch.setattr("mgnet.vector.is_finite", lambda u: not looks.append(u))
    with no_host():
        u, _ = run(schedule, moved, None, g, memory)
    monkeypatch.undo()
    assert len(looks) == 1 and looks[0] is u
    assert np.allclose(u.numpy(), run(schedule, hierarchy, None, f)[0], rtol=1e-12, atol=1e-13)


def test_solver_reads_a_norm_for_each_level_and_cycle():
    """Of every descent, of the residual, and a sum that tells of NaN."""
    moved, _, g = both(gallery.poisson((31, 15), 4))
    reads = []

    class Count(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func.overloadpacket.__name__ in HOST:
                reads.append(func)
            return func(*args, **(kwargs or {}))

    counts = []
    for cycles in (2, 5):
        reads.clear()
        with Count():
            Solver(moved, rtol=0.0, max_cycles=cycles).solve(g)
        counts.append(len(reads))
    assert counts[1] - counts[0] == 3 * (len(moved) + 1)


def test_a_watched_cycle_meets_the_host(no_host):
    moved, _, g = both(gallery.poisson((31, 15)))
    _, memory = run(cycle(4), moved, None, g)
    with pytest.raises(AssertionError, match="host"), no_host():
        run(cycle(4), moved, None, g, memory, record=lambda *_: None)


def test_cycle_on_tensors_without_numbers(monkeypatch):
    """Fake tensors of a GPU: whatever asks for a number of one raises an error."""
    looks = []
    monkeypatch.setattr("mgnet.vector.is_finite", lambda u: not looks.append(u))
    with fake_tensor.FakeTensorMode():
        A, P, B, f, c = (
            torch.ones(shape, dtype=torch.float64, device="cuda")
            for shape in ((15, 15), (15, 7), (7, 7), (15,), (7,))
        )
        levels = Level(A, Chebyshev(kind="fourth"), MatrixTransfer(P)), Level(B, Jacobi())
        memory = {(0, "pre"): (torch.ones_like(f), 2.0, 0), (1, "pre"): (c, 0)}
        u, _ = run(cycle(2), Hierarchy(levels), None, f, memory)
        assert u.device.type == "cuda" and u.shape == f.shape and len(looks) == 1
        with pytest.raises(RuntimeError):
            float(u.sum())


@pytest.mark.parametrize("step", ["f", "coarse matrix"])
def test_nan_is_found_at_the_end(step):
    moved, _, g = both(gallery.poisson(15, 3))
    if step == "f":
        g[3] = torch.nan
    else:
        moved[1].matrix.values()[2] = torch.nan
    with pytest.raises(FloatingPointError, match="step 9, 'post 1' on level 0"):
        run(cycle(3), moved, None, g)


NO_FORM = [
    GaussSeidel(),
    ILU(),
    LineRelaxation(),
    MultiplicativeSchwarz([[0, 1], [1, 2]]),
    Krylov(),
]


@pytest.mark.parametrize("smoother", NO_FORM, ids=lambda s: type(s).__name__)
def test_smoothers_without_a_form(smoother):
    hierarchy = gallery.poisson((15, 15), smoother=smoother)
    with pytest.raises(TypeError, match=r"level 0 with the smoother .*opt_fourth.*Jacobi\(\)"):
        hierarchy.to("cpu")
    with pytest.raises(TypeError, match="level 0 with the smoother"):
        gallery.poisson((15, 15), post_smoother=smoother).to("cpu")
    with pytest.raises(TypeError, match=r"level 3 with .*coarse_solver=Direct\('pinv'\)"):
        gallery.poisson((15, 15), coarse_solver=smoother).to("cpu")
    moved = hierarchy.to("cpu", smoother=Jacobi(), coarse_solver=Chebyshev())
    assert moved[0].smoother == Jacobi() and moved[-1].smoother == Chebyshev()
    moved = gallery.poisson((15, 15), post_smoother=smoother).to("cpu", post_smoother=Jacobi(0.5))
    assert moved[0].post_smoother == Jacobi(0.5)


def test_smoother_alone_replaces_both():
    moved = gallery.poisson(15, post_smoother=GaussSeidel()).to("cpu", smoother=Jacobi())
    assert moved[0].post_smoother is None


def test_smoothers_of_pyamg_are_refused():
    ml = pyamg.ruge_stuben_solver(POISSON, presmoother="cf_jacobi", postsmoother="fc_jacobi")
    with pytest.raises(TypeError, match="PyAMG cf_jacobi, which does not work on tensors"):
        Hierarchy.from_pyamg(ml).to("cpu")


def level(**parts):
    return Hierarchy([Level(np.eye(2), Jacobi(), **parts)])


REFUSED = [
    (level(residual=lambda u, f: u), {}, TypeError, "a function residual; only levels of linear"),
    (level(objective=lambda u: 0.0), {}, TypeError, "a function objective"),
    (Hierarchy([Level(lambda u: u, Jacobi())]), {}, TypeError, "operator of type function; give a"),
    (Hierarchy([Level(np.eye(2).astype(object), Jacobi())]), {}, TypeError, "of object; give a"),
    (Hierarchy([Level(torch.eye(2).half(), Jacobi())]), {}, TypeError, "of float16; give a"),
    (
        Hierarchy([Level(np.eye(2), Jacobi())], norm=np.linalg.norm),
        {},
        TypeError,
        "leave these out",
    ),
    (Hierarchy([Level(np.eye(2), Jacobi())], bind=lambda b: []), {}, TypeError, "leave these out"),
    (level(), {"dtype": torch.float16}, TypeError, "got dtype torch.float16; give one of"),
    (level(), {"dtype": "float32"}, TypeError, "got dtype 'float32'; give one of torch.float32"),
    (level(), {"device": "tpu"}, ValueError, "got device 'tpu' and float64, for which"),
    (level(), {"device": None}, ValueError, "got device None"),
    (of_dtype("complex64", Jacobi()), {"dtype": torch.float32}, ValueError, "complex matrices"),
    (
        Hierarchy([Level(np.eye(3), Jacobi(), AxisTransfer(np.ones((3, 2)))), level()[0]]),
        {},
        TypeError,
        "a transfer AxisTransfer; give a MatrixTransfer",
    ),
]


@pytest.mark.parametrize(("hierarchy", "given", "error", "told"), REFUSED)
def test_what_is_refused(hierarchy, given, error, told):
    with pytest.raises(error, match=told):
        hierarchy.to(**{"device": "cpu", **given})


@pytest.mark.skipif(torch.cuda.is_available(), reason="has CUDA")
def test_no_cuda():
    with pytest.raises(ValueError, match=r"device 'cuda'.*not compiled|device 'cuda'.*NVIDIA"):
        gallery.poisson(7).to("cuda")
    with pytest.raises(ValueError, match="another device, such as 'cpu', or install PyTorch for"):
        gallery.poisson(7).to("cuda")


def test_dense_factors_of_large_levels(monkeypatch):
    monkeypatch.setattr(module, "MOST_DENSE", 8)
    with pytest.raises(ValueError, match="Direct on level 1, which has 9 unknowns"):
        gallery.poisson((7, 7), levels=2).to("cpu")
    assert gallery.poisson((7, 7), levels=3).to("cpu")[2].unknowns == 1


def test_singular_coarse_level():
    moved = Hierarchy([Level(np.ones((2, 2)), Direct())]).to("cpu")
    with pytest.raises(ValueError, match=r"singular to working precision; use Direct\('pinv'\)"):
        run(cycle(1), moved, None, torch.ones(2, dtype=torch.float64))


def test_without_right_hand_side():
    moved = gallery.poisson(7).to("cpu")
    u, _ = run(cycle(3), moved, torch.ones(7, dtype=torch.float64), None)
    same, _ = run(cycle(3), gallery.poisson(7), np.ones(7), None)
    assert np.allclose(u.numpy(), same, rtol=1e-14)


def test_states_that_do_not_fit():
    solver = Solver(gallery.poisson(7).to("cpu"))
    for f in (np.ones(7), torch.ones(7), torch.ones(7, dtype=torch.float64, device="meta")):
        with pytest.raises(TypeError, match="one kind and precision, on one device"):
            solver.solve(f)
    with pytest.raises(TypeError, match=r"SciPy's vectors are arrays; give Solver\(acceleration"):
        solver.as_preconditioner()


def test_without_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match="Hierarchy.to needs PyTorch"):
        module._torch()
