"""Laws: one interpreter does the correction scheme, FAS, MGRIT and the subspace form."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from mgnet import (
    Backtracking,
    Chebyshev,
    Direct,
    GaussSeidel,
    Hierarchy,
    Injection,
    Jacobi,
    Level,
    MatrixTransfer,
    Smoother,
    cascade,
    cycle,
    gallery,
    nested,
    parse,
    run,
)
from mgnet.interpolation import interpolation_matrix
from mgnet.interpreter import perform


def with_injection(hierarchy):
    """The same linear hierarchy as FAS: full weighting of the solution goes down too."""
    levels = []
    for level in hierarchy:
        transfer = level.transfer
        if transfer is not None:
            weights = sp.csr_matrix(transfer.P.T) / 4.0
            transfer = MatrixTransfer(transfer.P, injection=weights)
        levels.append(Level(level.operator, level.smoother, transfer))
    return Hierarchy(levels)


@pytest.mark.parametrize("text", ["V(2,1)", "F(1,1)", "W(0,1)", "K3(1,2)"])
def test_fas_is_the_correction_scheme_on_linear_problems(text):
    hierarchy = gallery.poisson((15, 15))
    rng = np.random.default_rng(0)
    u, f = rng.standard_normal((2, 225))
    schedule = parse(text, len(hierarchy))
    plain, _ = run(schedule, hierarchy, u, f)
    fas, _ = run(schedule, with_injection(hierarchy), u, f)
    np.testing.assert_allclose(fas, plain, rtol=0, atol=1e-12)


def test_a_cycle_keeps_the_exact_solution():
    hierarchy = gallery.reaction((15, 15), strength=20.0)
    u = np.random.default_rng(0).standard_normal(225)
    value, _ = run(cycle(len(hierarchy)), hierarchy, u, hierarchy[0].operator(u))
    np.testing.assert_allclose(value, u, atol=1e-11)


class Put(Injection):
    """Injection that puts coarse values in place."""

    def replace(self, state, coarse):
        fine = state.copy()
        fine[:: self.factor] = coarse
        return fine


@pytest.mark.parametrize("search", [None, lambda level, u, d, f, r: 1.0])
def test_a_transfer_may_replace_instead_of_adding(search):
    u, f = np.array([1.1, 2.0, 3.3, 4.0]), np.zeros(4)
    results = []
    for transfer in (Injection(4, 2), Put(4, 2)):
        fine = Level(2.97 * np.eye(4), Jacobi(), transfer, line_search=search)
        hierarchy = Hierarchy([fine, Level(3.0 * np.eye(2), Direct())])
        results.append(run(parse("down, solve, up", 2), hierarchy, u, f)[0])
    solution = (3.0 * u[::2] - 2.97 * u[::2]) / 3.0  # u + (solution - u) differs
    assert abs(results[0] - results[1]).max() < 1e-15
    assert not (results[0][::2] == solution).all()
    assert (results[1][::2] == solution).all() == (search is None)
    assert (results[1][1::2] == u[1::2]).all()


# MGRIT from the same parts


@dataclass(frozen=True)
class Relaxation(Smoother):
    """F- and C-relaxation of u_i - phi u_(i-1) = f_i, as "F" or "FCF"; factor 0 sweeps serially."""

    kind: str
    factor: int

    def smooth(self, level, u, f, sweeps, memory):
        phi = level.operator.phi
        u = u.copy()
        for part in self.kind * sweeps:
            for i in range(len(u)):
                is_c = self.factor and i % self.factor == 0
                if not self.factor or is_c == (part == "C"):
                    u[i] = f[i] + (phi * u[i - 1] if i else 0.0)
        return u, memory


class Recurrence:
    """A(u)_i = u_i - phi u_(i-1)."""

    def __init__(self, phi):
        self.phi = phi

    def __call__(self, u):
        image = u.copy()
        image[1:] -= self.phi * u[:-1]
        return image


def dahlquist(layers, factor, levels, step=0.05, rate=-1.0):
    parts = []
    for number in range(levels):
        size = math.ceil(layers / factor**number)
        last = number == levels - 1
        phi = 1.0 / (1.0 - rate * step * factor**number)
        parts.append(
            Level(
                Recurrence(phi),
                Relaxation("F", 0) if last else Relaxation("FCF", factor),
                None if last else Injection(size, factor),
                None if last else Relaxation("F", factor),
                size=size,
            )
        )
    return Hierarchy(parts)


def serial(hierarchy, f):
    u = f.copy()
    for i in range(1, len(u)):
        u[i] += hierarchy[0].operator.phi * u[i - 1]
    return u


@pytest.mark.parametrize("layers", [64, 61])
def test_mgrit_with_fcf_is_exact_after_half_as_many_cycles_as_coarse_points(layers):
    factor, f = 4, np.zeros(layers)
    f[0] = 1.0
    hierarchy = dahlquist(layers, factor, 2)
    exact, u, errors = serial(hierarchy, f), np.zeros(layers), []
    cycles = math.ceil(layers / factor) // 2
    for _ in range(cycles):
        u, _ = run(cycle(2), hierarchy, u, f)
        errors.append(abs(u - exact).max())
    assert errors[-1] <= 1e-15
    assert errors[0] > 1e-4  # not exact at once: the test sees the iteration
    assert errors[1] < 0.1 * errors[0]


def test_mgrit_v_and_f_cycles_on_three_levels_converge_to_the_serial_recurrence():
    f = np.random.default_rng(0).standard_normal(64)
    hierarchy = dahlquist(64, 4, 3)
    exact = serial(hierarchy, f)
    for text, cycles in (("V(1,1)", 14), ("F(1,1)", 7)):
        u = np.zeros(64)
        for _ in range(cycles):
            u, _ = run(parse(text, 3), hierarchy, u, f)
        np.testing.assert_allclose(u, exact, rtol=0, atol=1e-12)


def test_the_skipped_first_descent_is_a_cascade():
    f = np.zeros(64)
    f[0] = 1.0
    hierarchy = dahlquist(64, 4, 2)
    u, _ = run(cascade([1, 1]), hierarchy, None, f)
    coarse = serial(Hierarchy([hierarchy[1]]), f[::4])
    np.testing.assert_allclose(u[::4], coarse, atol=1e-15)  # injected, F-layers filled by F
    np.testing.assert_allclose(u[1::4], hierarchy[0].operator.phi * coarse, atol=1e-15)


# Subspace form


def test_recentred_levels_minimise_over_the_coarse_space():
    fine = gallery.reaction(31, strength=100.0, levels=1)[0]
    P = interpolation_matrix(15)

    def recenter(u):
        at = fine.operator(u)

        def operator(w):
            return P.T @ (fine.operator(u + P @ w) - at)

        def jacobian(w):
            return P.T @ fine.operator.derivative(u + P @ w) @ P

        return Level(operator, Direct(), linearize=jacobian, size=15)

    transfer = MatrixTransfer(P)
    top = Level(
        fine.operator,
        Jacobi(),
        transfer,
        objective=fine.operator.energy,
        line_search=Backtracking(),
        recenter=recenter,
        size=31,
    )
    hierarchy = Hierarchy([top, recenter(np.zeros(31))])
    u, f = np.sin(np.arange(31.0)), np.full(31, 10.0 / 32)
    assert "recentering" in hierarchy.check(u)
    value, _ = run(parse("down, solve 20, up", 2), hierarchy, u, f)
    best = value - u  # in the range of P, where the gradient of J - <f, .> must vanish
    assert np.linalg.norm(P.T @ (f - fine.operator(value))) < 1e-10
    assert np.linalg.norm(best - P @ np.linalg.lstsq(P.toarray(), best, rcond=None)[0]) < 1e-12


def test_a_refused_correction_leaves_the_state():
    parts = list(gallery.poisson(15, levels=2))
    level = Level(parts[0].operator, Jacobi(), parts[0].transfer, line_search=lambda *_: 0.0)
    told = []
    u = np.arange(15.0)
    value, _ = run(
        parse("down, solve, up", 2),
        Hierarchy([level, parts[1]]),
        u,
        np.ones(15),
        record=lambda step, data: told.append((step.action, data.step_length)),
    )
    assert np.array_equal(value, u)
    assert told == [("down", None), ("solve", None), ("up", 0.0)]


# Memory


@dataclass(frozen=True)
class Remembering(Smoother):
    """Counts its sweeps and, at refinement, passes the count on doubled."""

    name: str = "one"

    def start(self, level, u):
        return (self.name, 0)

    def smooth(self, level, u, f, sweeps, memory):
        return u, (memory[0], memory[1] + sweeps)

    def carry(self, memory, transfer):
        return (memory[0] + "+", 2 * memory[1])


def remembering(pre, post, coarse):
    parts = list(gallery.poisson(7, levels=2))
    return Hierarchy(
        [
            Level(parts[0].operator, pre, parts[0].transfer, post),
            Level(parts[1].operator, coarse),
        ]
    )


def test_one_memory_per_level_and_role():
    f = np.ones(7)
    hierarchy = remembering(Remembering("pre"), Remembering("post"), Remembering("coarse"))
    _, memory = run(cycle(2, pre=2, post=3), hierarchy, None, f)
    assert memory == {(0, "pre"): ("pre", 2), (0, "post"): ("post", 3), (1, "pre"): ("coarse", 1)}
    _, again = run(cycle(2, pre=2, post=3), hierarchy, None, f, memory)
    assert again[0, "pre"] == ("pre", 4)
    assert memory[0, "pre"] == ("pre", 2)  # the given one is not edited


def test_pre_and_post_smoother_share_a_memory_when_they_are_one():
    hierarchy = remembering(Remembering(), None, Remembering())
    _, memory = run(cycle(2, pre=2, post=3), hierarchy, None, np.ones(7))
    assert memory[0, "pre"] == ("one", 5)
    assert (0, "post") not in memory


def test_memory_is_carried_at_refinement_by_smoothers_of_one_kind():
    _, memory = run(nested(2), remembering(Remembering(), None, Remembering()), None, np.ones(7))
    assert memory[0, "pre"] == ("one+", 4)  # 2 carried, 1 before, 1 after
    _, memory = run(nested(2), remembering(Remembering(), None, Direct()), None, np.ones(7))
    assert memory[0, "pre"] == ("one", 2)


# What a run may not do


def test_nothing_that_was_given_is_edited():
    for hierarchy in (gallery.poisson((15, 15)), gallery.reaction((15, 15))):
        u, f = np.random.default_rng(0).standard_normal((2, 225))
        before = u.copy(), f.copy()
        run(nested(len(hierarchy)), hierarchy, u, f)
        run(cycle(len(hierarchy), math.inf), hierarchy, u, f)
        assert np.array_equal(u, before[0])
        assert np.array_equal(f, before[1])


@pytest.mark.parametrize("smoother", [Jacobi(), GaussSeidel(), Chebyshev(2)], ids=str)
@pytest.mark.parametrize(
    ("u", "f"),
    [
        (np.ones(7), np.ones(6)),
        (np.ones(7), np.ones(700)),
        (np.ones(7), np.ones((7, 1))),
        (np.ones(7), [1.0] * 7),
    ],
)
def test_a_right_hand_side_of_another_shape_is_refused(smoother, u, f):
    """A compiled sweep would read beyond its end."""
    hierarchy = gallery.poisson(7, smoother=smoother)
    with pytest.raises(ValueError, match="run got u as ndarray .7,. of float64 and f as "):
        run(cycle(len(hierarchy)), hierarchy, u, f)


def test_no_right_hand_side_stands_for_zero():
    for hierarchy in (gallery.poisson(15, smoother=GaussSeidel()), gallery.reaction(15)):
        u = np.random.default_rng(0).standard_normal(15)
        for schedule in (cycle(len(hierarchy), pre=2), nested(len(hierarchy))):
            without, _ = run(schedule, hierarchy, u, None)
            zero, _ = run(schedule, hierarchy, u, np.zeros(15))
            np.testing.assert_allclose(without, zero, atol=1e-14)
    with pytest.raises(ValueError, match="neither u nor f"):
        run(cycle(4), gallery.poisson(15), None, None)


@pytest.mark.parametrize(
    ("bad", "step"),
    [("operator", "step 1, 'pre 1' on level 0"), ("coarse", "step 3, 'solve 1' on level 1")],
)
def test_a_state_that_is_not_finite_stops_the_run(bad, step):
    parts = list(gallery.poisson(7, levels=2))

    class Poisoned(Smoother):
        def smooth(self, level, u, f, sweeps, memory):
            return u + np.inf, memory

    first = Level(
        parts[0].operator, Poisoned() if bad == "operator" else Jacobi(), parts[0].transfer
    )
    last = Level(parts[1].operator, Poisoned())
    with pytest.raises(FloatingPointError, match=step):
        run(cycle(2), Hierarchy([first, last]), None, np.ones(7))


def test_a_replaced_norm_decides_what_is_finite():
    asked = []

    def norm(u):
        asked.append(len(u))
        return math.nan if len(u) == 3 else float(np.linalg.norm(u))

    hierarchy = Hierarchy(list(gallery.poisson(7, levels=2)), norm=norm)
    with pytest.raises(FloatingPointError, match="'solve 1' on level 1"):
        run(cycle(2), hierarchy, None, np.ones(7))
    assert asked == [7, 7, 3]


# Kinds of arrays


def model() -> Any:
    """A linear hierarchy without special interpolation of solutions."""
    levels: Any = gallery.poisson((15, 15), levels=3)
    return Hierarchy.from_matrices(
        [level.matrix for level in levels], [level.transfer.P for level in levels[:-1]]
    )


def on_torch(hierarchy, torch, device):
    def tensor(matrix):
        return torch.tensor(matrix.toarray(), dtype=torch.float64, device=device)

    levels = []
    for level in hierarchy:
        transfer = None if level.transfer is None else MatrixTransfer(tensor(level.transfer.P))
        levels.append(Level(tensor(level.matrix), level.smoother, transfer))
    return Hierarchy(levels)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("text", ["V(1,1)", "nested F(2,1)"])
def test_torch_tensors_run_as_numpy_arrays_do(device, text):
    torch = pytest.importorskip("torch")
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("this machine has no CUDA device")
    hierarchy = model()
    f = np.random.default_rng(0).standard_normal(225)
    schedule = parse(text, 3)
    expected, _ = run(schedule, hierarchy, None, f)
    value, _ = run(
        schedule, on_torch(hierarchy, torch, device), None, torch.tensor(f, device=device)
    )
    assert value.device.type == device
    np.testing.assert_allclose(value.cpu().numpy(), expected, rtol=0, atol=1e-13)


def on_petsc(hierarchy, petsc):
    def mat(matrix):
        matrix = sp.csr_matrix(matrix)
        csr = (matrix.indptr.astype("i4"), matrix.indices.astype("i4"), matrix.data)
        return petsc.Mat().createAIJ(matrix.shape, csr=csr, comm=petsc.COMM_SELF)

    levels = []
    for level in hierarchy:
        transfer = None
        if level.transfer is not None:
            transfer = MatrixTransfer(mat(level.transfer.P), mat(level.transfer.P.T))
        levels.append(Level(mat(level.matrix), level.smoother, transfer))
    return Hierarchy(levels)


def vec(petsc, values):
    return petsc.Vec().createWithArray(values.copy(), comm=petsc.COMM_SELF)


@pytest.mark.parametrize("text", ["V(1,1)", "F(2,1)", "nested W(1,1)"])
def test_petsc_vecs_run_as_numpy_arrays_do(petsc, text):
    hierarchy = model()
    f = np.random.default_rng(0).standard_normal(225)
    schedule = parse(text, 3)
    expected, _ = run(schedule, hierarchy, None, f)
    value, _ = run(schedule, on_petsc(hierarchy, petsc), None, vec(petsc, f))
    np.testing.assert_allclose(value.getArray(), expected, rtol=0, atol=1e-13)


def test_petsc_pcmg_with_the_same_parts_gives_the_same_iterates(petsc, options):
    hierarchy = model()
    ours: Any = on_petsc(hierarchy, petsc)
    f = np.random.default_rng(0).standard_normal(225)
    ksp = petsc.KSP().create(petsc.COMM_SELF)
    ksp.setOperators(ours[0].operator)
    ksp.setType("richardson")
    ksp.setNormType(petsc.KSP.NormType.NONE)
    ksp.setTolerances(max_it=3)
    pc = ksp.getPC()
    pc.setType("mg")
    pc.setMGLevels(3)
    for number, level in enumerate(ours[:-1]):
        theirs = 2 - number  # PETSc counts from the coarsest
        pc.setMGInterpolation(theirs, level.transfer.P)
        pc.setMGRestriction(theirs, level.transfer.R)
    for number, level in enumerate(ours):
        smoother = pc.getMGSmoother(2 - number)
        smoother.setOperators(level.operator)
        if number < 2:
            smoother.setType("richardson")
            smoother.setTolerances(max_it=1)
            smoother.setNormType(petsc.KSP.NormType.NONE)
            smoother.getPC().setType("jacobi")
            options(f"-mg_levels_ksp_richardson_scale {2 / 3}")  # taken back after the test
        else:
            smoother.setType("preonly")
            smoother.getPC().setType("lu")
    ksp.setFromOptions()
    b, x = vec(petsc, f), vec(petsc, np.zeros(225))
    ksp.solve(b, x)
    u: Any = None
    for _ in range(3):
        u, _ = run(cycle(3), hierarchy, u, f)
    np.testing.assert_allclose(u, x.getArray(), rtol=0, atol=1e-13)


# Going on from the middle


def resumable():
    """A schedule, a hierarchy, u and f of each kind of method."""
    linear, nonlinear = gallery.poisson((15, 15)), gallery.reaction((15, 15), strength=20.0)
    u, f = np.random.default_rng(1).standard_normal((2, 225))
    yield parse("F(1,2)", 4), linear, u, f
    yield parse("nested W(1,1)", 4), linear, None, f
    yield parse("nested V(1,1)", len(nonlinear)), nonlinear, u, f
    yield cascade([3, 2, 2, 4]).split(), linear, None, f
    yield cycle(3, math.inf), hierarchy_around(), None, np.ones(16)


def around(matrix, number=0):
    """A level whose coarse levels depend on the fine state."""
    smoother = Jacobi(0.1)
    if number == 2:
        return Level(matrix, smoother)
    P = np.kron(np.eye(len(matrix) // 2), np.ones((2, 1)))

    def recenter(u):
        return around(P.T @ matrix @ P * (1.0 + 0.1 * np.tanh(abs(u).max())), number + 1)

    return Level(matrix, smoother, MatrixTransfer(P), recenter=recenter)


def hierarchy_around():
    M = np.random.default_rng(2).standard_normal((20, 16))
    levels = [around(M.T @ M)]
    while len(levels) < 3:
        levels.append(levels[-1].recenter(np.zeros(len(levels[-1].matrix))))
    return Hierarchy(levels)


@pytest.mark.parametrize("case", range(5))
def test_a_run_resumes_after_any_step_with_the_same_bits(case):
    schedule, hierarchy, u, f = list(resumable())[case]
    kept = []
    value, memory = run(
        schedule, hierarchy, u, f, record=lambda step, data: kept.append(data.progress)
    )
    assert [progress.position for progress in kept] == list(range(1, len(schedule) + 1))
    for progress in kept:
        told = []
        again, remembered = run(
            schedule,
            hierarchy,
            None,
            None,
            resume=progress,
            record=lambda step, data: told.append(step),  # noqa: B023
        )
        np.testing.assert_array_equal(again, value)
        assert told == list(schedule[progress.position :])
        assert remembered.keys() == memory.keys()


def test_only_steps_to_come_may_change_at_a_resume():
    hierarchy, f, kept = gallery.poisson(7, levels=2), np.ones(7), []
    run(cycle(2), hierarchy, None, f, record=lambda _, data: kept.append(data.progress))
    longer, _ = run(
        parse("pre 1, down, solve, up, post 5", 2), hierarchy, None, None, resume=kept[2]
    )
    expected, _ = run(parse("pre 1, down, solve, up, post 5", 2), hierarchy, None, f)
    np.testing.assert_array_equal(longer, expected)
    with pytest.raises(ValueError, match="does not begin with them"):
        run(cycle(2, pre=2), hierarchy, None, None, resume=kept[2])
    with pytest.raises(ValueError, match="on 2 levels.*on 3 levels"):
        run(cycle(3), gallery.poisson(7, levels=3), None, None, resume=kept[0])
    with pytest.raises(ValueError, match="besides resume"):
        run(cycle(2), hierarchy, None, f, resume=kept[2])


def test_evaluations_are_work_without_prices():
    hierarchy, told = gallery.poisson(7), []
    run(cycle(3), hierarchy, None, np.ones(7), record=lambda step, data: told.append(data))
    assert [data.evaluations for data in told[:3]] == [1.0, 1.0, 1.0]  # pre, down, pre
    cost = hierarchy[1].evaluation_cost / hierarchy[0].evaluation_cost
    assert [data.work for data in told[:3]] == [1.0, 1.0, cost]


def test_a_caller_may_look_for_nan_itself(monkeypatch):
    """On a device each look would wait; then no norm is taken, and the state comes as it is."""
    hierarchy, f = gallery.poisson(15), np.ones(15)
    f[3] = np.nan
    with pytest.raises(FloatingPointError, match="step 1"):
        perform(cycle(4), hierarchy, None, f)
    monkeypatch.setattr(type(hierarchy), "is_finite", property(lambda self: pytest.fail))
    hierarchy.norm = pytest.fail
    assert np.isnan(perform(cycle(4), hierarchy, None, f, look=False).state).any()
