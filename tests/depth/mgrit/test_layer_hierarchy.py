"""Laws: MGRIT equals a plain one, ends exactly after N/c cycles, costs what its author counted."""

import numpy as np
import pytest
import torch

from mgnet import Schedule, Solver, Step, cycle, run
from mgnet.depth import NewtonSweep, OneStep
from mgnet.depth.mgrit.layer_hierarchy import layer_hierarchy, mgrit


class Net:
    """Layers `u + h tanh(W_i u)`, smooth in i; the adjoint with a trajectory to linearise at."""

    def __init__(self, layers, coarsening=4, time=1.0, width=3, trajectory=None):
        t = np.arange(layers)[:, None, None] / layers
        A, B = np.random.default_rng(0).standard_normal((2, width, width))
        W = A * np.cos(t) + B * np.sin(3 * t)
        self.W, self.h, self.trajectory, self.count = [W], [np.full(layers, time / layers)], [], 0
        self.trajectory = [None if trajectory is None else trajectory[:-1]]
        for c in [coarsening] * 6 if isinstance(coarsening, int) else coarsening:
            self.W.append(self.W[-1][::c])
            self.h.append(np.add.reduceat(self.h[-1], range(0, len(self.h[-1]), c)))
            below = self.trajectory[-1]
            self.trajectory.append(None if below is None else below[::c])

    def advance(self, level, which, states):
        W, h = self.W[level][which], self.h[level][which, None, None]
        self.count += len(W)
        kind = type(states)
        states = np.asarray(states)
        if self.trajectory[0] is None:
            new = states + h * np.tanh(states @ W)
        else:
            u = self.trajectory[level][which]
            new = states + (h * states / np.cosh(u @ W) ** 2) @ W.transpose(0, 2, 1)
        return torch.from_numpy(new) if kind is torch.Tensor else new


def serial(net, u0):
    points = [u0]
    for i in range(len(net.W[0])):
        points.append(net.advance(0, slice(i, i + 1), points[-1][None])[0])
    net.count = 0
    return np.stack(points)


def plain_cycle(net, level, u, g, factors, words, corrections=1):
    """One cycle in the FAS form of XBraid's documentation, a loop over single layers."""

    def phi(l, i, v):
        return net.advance(l, slice(i, i + 1), v[None])[0]

    u, n = u.copy(), len(u) - 1
    if level == len(factors):
        u[0] = g[0]
        for i in range(n):
            u[i + 1] = phi(level, i, u[i]) + g[i + 1]
        return u
    c = factors[level]
    points = sorted({*range(0, n, c), n})

    def relax_f():
        for i in range(n):
            if i + 1 not in points:
                u[i + 1] = phi(level, i, u[i]) + g[i + 1]

    for letter in words[min(level, len(words) - 1)]:
        if letter == "F":
            relax_f()
        else:
            for i in points[1:]:
                u[i] = phi(level, i - 1, u[i - 1]) + g[i]
    for call in range(1 if level + 1 == len(factors) else corrections):
        relax_f() if call else None
        v = u[points]
        gc = v.copy()
        gc[0] += g[0] - u[0]
        for k, i in enumerate(points[1:]):
            r = g[i] + phi(level, i - 1, u[i - 1]) - u[i]
            gc[k + 1] += r - phi(level + 1, k, v[k])
        u[points] = plain_cycle(net, level + 1, v, gc, factors, words)
    relax_f()
    return u


def closed(hierarchy, u):
    return hierarchy[0].operator.relax(u, None)


CASES = [
    (64, 2, 4, ("F",)),
    (5, 2, 2, ("F",)),
    (5, 3, 2, ("F", "FCF")),
    (5, 3, 3, ("FCF",)),
    (130, 3, 7, ("F", "FCF")),
    (130, 3, (3, 4), ("FCF", "FCFCF")),
    (33, 4, 2, ("F", "F")),
]


@pytest.mark.parametrize(("layers", "levels", "coarsening", "words"), CASES)
def test_two_cycles_are_those_of_a_plain_mgrit(layers, levels, coarsening, words):
    factors = (coarsening,) * (levels - 1) if isinstance(coarsening, int) else coarsening
    net, u0 = Net(layers, coarsening, 3.0), np.random.default_rng(1).standard_normal((2, 3))
    hierarchy = layer_hierarchy(
        net, layers, u0, levels=levels, coarsening=coarsening, relaxation=words
    )
    u = expected = np.broadcast_to(u0, (layers + 1, 2, 3))
    g = np.zeros((layers + 1, 2, 3))
    g[0] = u0
    for _ in range(2):
        expected = plain_cycle(net, 0, expected, g, factors, words)
        u, _ = run(mgrit(levels, "V")[1], hierarchy, u, None)
        assert abs(closed(hierarchy, u) - expected).max() < 1e-13
    assert abs(expected - serial(net, u0)).max() > 1e-12 or layers < 64  # not yet the solution


@pytest.mark.parametrize("text", ["cascade + V", "cascade + F", "cascade + W", "V", "F", "W"])
@pytest.mark.parametrize(("layers", "levels", "coarsening"), [(64, 3, 4), (130, 4, 3), (37, 3, 2)])
def test_every_cycle_converges_to_the_serial_trajectory(text, layers, levels, coarsening):
    net, u0 = Net(layers, coarsening), np.random.default_rng(1).standard_normal((2, 3))
    exact = serial(net, u0)
    hierarchy = layer_hierarchy(net, layers, u0, levels=levels, coarsening=coarsening)
    opening, repeated = mgrit(levels, text)
    u = np.broadcast_to(u0, (layers + 1, 2, 3))
    if opening is not None:
        u, _ = run(opening, hierarchy, u, None)
    errors = []
    for _ in range(14):
        u, _ = run(repeated, hierarchy, u, None)
        errors.append(abs(u[::coarsening] - exact[::coarsening]).max())
    assert errors[1] < 0.5 * errors[0]
    assert errors[-1] < 2e-14


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
@pytest.mark.parametrize(("word", "gain"), [("F", 1), ("FCF", 2)])
@pytest.mark.parametrize(("layers", "factor"), [(32, 4), (30, 4), (25, 7)])
def test_finite_termination(word, gain, layers, factor, kind):
    """After k two-level cycles the first k (F) or 2 k (FCF) intervals are exact."""
    net, u0 = Net(layers, factor, time=20.0), np.random.default_rng(1).standard_normal((2, 3))
    exact = serial(net, u0)
    hierarchy = layer_hierarchy(net, layers, kind(u0), coarsening=factor, relaxation=word)
    u, intervals = kind(np.tile(u0, (layers + 1, 1, 1))), -(-layers // factor)
    for k in range(1, -(-intervals // gain) + 1):
        u, _ = run(mgrit(2, "V")[1], hierarchy, u, None)
        error = abs(np.asarray(closed(hierarchy, u)) - exact).max(axis=(1, 2))
        # C-point gain * k is exact, and what is relaxed from it, up to the next
        done = min((gain * k + 1) * factor, layers) if gain * k < intervals else layers + 1
        assert error[:done].max() < 1e-13 * max(abs(exact).max(), 1.0)  # rounding grows, too
        assert done > layers or error[done:].max() > 1e-8


@pytest.mark.parametrize(("layers", "levels", "factor"), [(24, 2, 4), (26, 3, 3), (5, 2, 7)])
def test_the_adjoint_is_the_transposed_matrix(layers, levels, factor):
    net, u0 = Net(layers, factor), np.random.default_rng(1).standard_normal((1, 3))
    u = serial(net, u0)
    # The derivative of every layer by differences, the adjoint by a dense transposed solve.
    size, h = 3, 1e-6
    A = np.eye(size * (layers + 1))
    for i in range(layers):
        for j in range(size):
            e = h * np.eye(size)[j]
            ends = [net.advance(0, slice(i, i + 1), (u[i] + s * e)[None])[0, 0] for s in (1, -1)]
            A[size * (i + 1) : size * (i + 2), size * i + j] = (ends[1] - ends[0]) / (2 * h)
    end = np.random.default_rng(2).standard_normal((1, 3))
    right = np.zeros(size * (layers + 1))
    right[-size:] = end
    exact = np.linalg.solve(A.T, right).reshape(layers + 1, 1, size)
    back = Net(layers, factor, trajectory=u)
    hierarchy = layer_hierarchy(back, layers, end, levels=levels, coarsening=factor, reverse=True)
    opening, V = mgrit(levels)
    lam, _ = run(opening, hierarchy, np.zeros((layers + 1, 1, 3)), None)
    for _ in range(12):
        lam, _ = run(V, hierarchy, lam, None)
    assert abs(closed(hierarchy, lam) - exact).max() < 1e-8


def test_counts_of_two_levels():
    """Evaluations per layer; see the table of the design: .25, then .75 + .25 + .25 + .25."""
    net, u0 = Net(64), np.ones((1, 3))
    for word, costs in (("F", [1.25, 1.25, 1.25]), ("FCF", [2.5, 2.5, 2.5])):
        hierarchy = layer_hierarchy(net, 64, u0, relaxation=word)
        u, net.count = np.tile(u0, (65, 1, 1)), 0
        u, _ = run(mgrit(2)[0], hierarchy, u, None)
        assert net.count == 16
        for cost in costs:
            net.count = 0
            u, _ = run(mgrit(2)[1], hierarchy, u, None)
            assert net.count == 64 * cost
        net.count = 0
        closed(hierarchy, u)
        assert net.count == 48
    hierarchy = layer_hierarchy(net, 64, u0)
    net.count = 0
    run(mgrit(2)[1], hierarchy, np.tile(u0, (65, 1, 1)), None)  # a cold V pays for A_c(v)
    assert net.count == 64 * 1.5


@pytest.mark.parametrize(("layers", "levels", "factor"), [(64, 2, 4), (130, 3, 4), (9, 3, 2)])
@pytest.mark.parametrize("text", ["nested F(1,1)", "V(1,1)", "V(0,1)", "W(1,0)"])
def test_work_is_what_the_propagator_counts(layers, levels, factor, text):
    net, u0 = Net(layers, factor), np.ones((1, 3))
    exact = serial(net, u0)
    hierarchy = layer_hierarchy(net, layers, u0, levels=levels, coarsening=factor)
    solver = Solver(hierarchy, text, rtol=1e-13)
    solution = solver.solve(u=np.tile(u0, (layers + 1, 1, 1))).require()
    assert solution.work * layers == pytest.approx(net.count, rel=1e-12)
    assert abs(closed(hierarchy, solution.value) - exact).max() < 1e-11
    assert not solver.schedule.work(hierarchy).exact


class Priced(Net):
    """Counts what layers cost; a coarse one costs the mean of those that it stands for."""

    def __init__(self, layers, coarsening, costs):
        super().__init__(layers, coarsening)
        self.costs, self.spent, stride = [], 0.0, 1
        for W in self.W:
            parts = [costs[i * stride : (i + 1) * stride] for i in range(len(W))]
            self.costs.append(np.array([part.mean() if len(part) else 0.0 for part in parts]))
            stride *= coarsening

    def advance(self, level, which, states):
        self.spent += self.costs[level][which].sum()
        return super().advance(level, which, states)

    def linearize(self, level, which, states, structure):
        self.spent += 2.0 * self.costs[level][which].sum()
        value = super().advance(level, which, states)
        return value, np.ones_like(states)


@pytest.mark.parametrize(("layers", "levels", "factor"), [(64, 2, 4), (130, 3, 4), (9, 3, 2)])
@pytest.mark.parametrize("text", ["nested F(1,1)", "V(0,1)"])
@pytest.mark.parametrize("stored", [False, True])
def test_work_is_in_costs_where_layers_have_them(layers, levels, factor, text, stored):
    costs = np.random.default_rng(layers).uniform(0.0, 9.0, layers)
    costs[layers // 2 :] *= 0.1
    net, u0 = Priced(layers, factor, costs), np.ones((1, 3))
    options = {"levels": levels, "coarsening": factor, "c_points_only": stored}
    hierarchy = layer_hierarchy(net, layers, u0, costs=costs, **options)
    points = -(-layers // factor) + 1 if stored else layers + 1
    solver = Solver(hierarchy, text, rtol=1e-12)
    solution = solver.solve(u=np.tile(u0, (points, 1, 1))).require()
    assert solution.work * costs.sum() == pytest.approx(net.spent, rel=1e-12)
    parts = {(0, "pre"): 0, (0, "down"): 0, (levels - 1, "solve"): 0}
    for entry in solution.record:
        if (entry.step.level, entry.step.action) in parts:
            parts[entry.step.level, entry.step.action] += entry.work
    alike = Solver(layer_hierarchy(Net(layers, factor), layers, u0, **options), text, rtol=1e-12)
    counted = alike.solve(u=np.tile(u0, (points, 1, 1)))
    assert counted.cycles == solution.cycles  # costs change what is counted, and nothing else
    assert (counted.value == solution.value).all()
    solves = sum(entry.step.action == "solve" for entry in solution.record)
    coarsest = solves * net.costs[levels - 1].sum() / costs.sum()
    assert parts[levels - 1, "solve"] == pytest.approx(coarsest)


@pytest.mark.parametrize("structure", ["identity", "diagonal"])
@pytest.mark.parametrize("levels", [1, 2])
def test_newton_sweeps_are_counted_in_costs(structure, levels):
    costs = np.arange(1.0, 22.0)
    net, u0 = Priced(21, 4, costs), np.ones((1, 3))
    hierarchy = layer_hierarchy(net, 21, u0, levels=levels, costs=costs)
    sweep, level = NewtonSweep(structure), hierarchy[0]
    sweep.smooth(level, np.tile(u0, (22, 1, 1)), None, 2, None)
    assert level.tally[0] * level.cost == pytest.approx(net.spent) and net.spent > 0


def test_costs_by_hand():
    """Eight steps that cost 1 to 8, factor 4: C-layers are the fourth and the eighth."""
    problem = OneStep(lambda t, dt, u: 0.5 * u, np.ones(1), np.ones(8))
    level, coarse = problem.hierarchy(coarsening=4, costs=range(1, 9)).levels
    assert level.cost == 36.0 and coarse.cost == 2.5 + 6.5
    u = problem.guess()
    relaxed = level.operator.relax(u, None)
    assert level.tally[0] == pytest.approx((1 + 2 + 3 + 5 + 6 + 7) / 36)
    level.operator.residual(relaxed, None)
    assert level.tally[0] == pytest.approx(1.0)
    coarse.operator.march(None)
    assert coarse.tally[0] == 1.0
    solution = Solver(problem.hierarchy(coarsening=4, costs=range(1, 9)), rtol=1e-9).solve(u=u)
    down = [entry.work for entry in solution.record if entry.step.action == "down"]
    # The check before it paid for the residual; the operator at the restricted state is coarse.
    assert down[0] == pytest.approx(9 / 36)
    assert f"{sum(down):.4g}" in solution.explain()
    with pytest.raises(ValueError, match="layer_hierarchy got costs .* each of the 8 layers"):
        problem.hierarchy(costs=[1.0, 2.0])


def test_relaxed_states_are_relaxed_once():
    """Under `Solver` a V(1,1) costs as little as the rotated cycle: its first F is the last one."""
    net, u0 = Net(64), np.ones((1, 3))
    hierarchy = layer_hierarchy(net, 64, u0)
    Solver(hierarchy, "V(1,1)", rtol=0.0, max_cycles=4).solve(u=np.tile(u0, (65, 1, 1)))
    assert net.count == 64 * (1.0 + 4 * 1.5 - 3 * 0.25)


@pytest.mark.parametrize("z", [-0.5, -2.0, -8.0])
@pytest.mark.parametrize("word", ["F", "FCF"])
def test_two_level_factors_are_those_of_the_theory(z, word):
    """Dobrev et al. 2017: |phi^c - phi_c| (1 - |phi_c|^(N/c)) / (1 - |phi_c|), FCF |phi|^c more."""
    layers, c = 256, 4
    phi = [1.0 / (1.0 - z * k / layers) for k in (1, c)]  # implicit Euler for u' = z u on [0, 1]

    class Dahlquist:
        def advance(self, level, which, states):
            return phi[level] * states

    theory = abs(phi[0] ** c - phi[1]) * (1 - phi[1] ** (layers / c)) / (1 - phi[1])
    theory *= phi[0] ** c if word == "FCF" else 1.0
    hierarchy = layer_hierarchy(Dahlquist(), layers, np.ones(1), relaxation=word)
    # The matrix that takes the error at the C-points through a cycle, column by column.
    zero, columns = np.zeros((layers + 1, 1)), []
    for k in range(1, layers // c + 1):
        u = zero.copy()
        u[k * c] = 1.0
        columns.append(run(mgrit(2, "V")[1], hierarchy, u, zero)[0][::c, 0])
    norm = abs(np.array(columns)).sum(axis=1).max()
    assert norm == pytest.approx(theory, rel=0.2) and norm <= theory * (1 + 1e-12)


def test_weights_reach_the_relaxation():
    net, u0 = Net(64), np.ones((1, 3))
    hierarchy = layer_hierarchy(net, 64, u0, levels=3, relaxation=("F", "FCF"), weight=1.3)
    assert str(hierarchy[1].smoother) == "Relaxation('FCF', 1.3)"
    assert [str(level.post_smoother) for level in hierarchy] == ["None", "Relaxation('F')", "None"]
    norms = []
    u, _ = run(mgrit(3)[0], hierarchy, np.tile(u0, (65, 1, 1)), None)
    for _ in range(8):
        u, _ = run(mgrit(3)[1], hierarchy, u, None, record=lambda s, d: norms.append(d))
    down = [d.residual_norm for d in norms if d.residual_norm is not None][::2]
    assert down[-1] < 1e-6 * down[0]


@pytest.mark.parametrize("levels", [2, 3, 5])
def test_schedules(levels):
    for text, kappa in (("V", 1), ("F", 2), ("W", float("inf"))):
        for prefix in ("", "cascade+", " cascade  + "):
            opening, repeated = mgrit(levels, prefix + text)
            assert repeated == Schedule(cycle(levels, kappa)[:-1])
            assert (opening is None) == (prefix == "")
            if opening is not None:
                assert opening[-1] == Step("interpolate", 0)
                assert sum(step.action == "post" for step in opening) == levels - 2
    assert mgrit(1) == (None, cycle(1))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "character 1: the text ends there; expected V, F, W or 'cascade \\+'"),
        ("cascade", "character 8: the text ends there; expected '\\+'"),
        ("cascade + X", "character 11: got 'X'; expected V, F or W"),
        ("V(1,1)", "character 2: got '\\(1,1\\)'; expected the end"),
        ("VF", "got 'VF'"),
    ],
)
def test_texts_are_refused(text, sentence):
    with pytest.raises(ValueError, match=sentence):
        mgrit(2, text)


def test_other_refusals():
    with pytest.raises(TypeError, match="got a int"):
        mgrit(2, 3)
    with pytest.raises(ValueError, match="relaxation"):
        layer_hierarchy(Net(8), 8, np.ones(1), relaxation=())
    with pytest.raises(ValueError, match="relaxation"):
        layer_hierarchy(Net(8), 8, np.ones(1), levels=3, coarsening=2, relaxation=("F",) * 3)
    with pytest.raises(ValueError, match="largest possible number of levels is 4"):
        layer_hierarchy(Net(8), 8, np.ones(1), levels=5, coarsening=2)


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("words", [("F", "FCF"), ("FCF", "F")])
@pytest.mark.parametrize("text", ["V", "cascade + F"])
@pytest.mark.parametrize(
    ("layers", "levels", "coarsening"),
    [(64, 2, 4), (64, 3, 4), (61, 2, 4), (63, 3, 4), (62, 2, 4), (3, 2, 4), (5, 2, 7), (1, 1, 2)],
)
def test_storing_c_points_only_changes_nothing(
    layers, levels, coarsening, words, text, reverse, kind
):
    results = []
    for lean in (False, True):
        u0 = kind(np.random.default_rng(1).standard_normal((2, 3)))
        trajectory = np.random.default_rng(2).standard_normal((layers + 1, 2, 3))
        net = Net(layers, coarsening, trajectory=trajectory if reverse else None)
        hierarchy = layer_hierarchy(
            net,
            layers,
            u0,
            levels=levels,
            coarsening=coarsening,
            relaxation=words,
            reverse=reverse,
            c_points_only=lean,
        )
        stored = -(-layers // coarsening) if lean and levels > 1 else layers
        u, norms, counts = kind(np.ones((stored + 1, 2, 3))), [], []
        for schedule in (mgrit(levels, text)[0], *[mgrit(levels, text)[1]] * 3):
            if schedule is not None:
                told = norms.append
                u, _ = run(schedule, hierarchy, u, None, record=lambda s, d, t=told: t(d))
                counts.append(net.count)
            assert len(u) == stored + 1
        downs = [d.residual_norm for d in norms if d.residual_norm is not None]
        u = hierarchy[0].operator.trajectory(u) if levels > 1 else u
        results.append((np.asarray(u), downs, counts, net.count))
    (u, downs, counts, count), (lean, *others) = results
    assert (u == lean).all()
    assert others == [downs, counts, count]


def test_counted_work_is_what_was_evaluated():
    """The tallies of the levels, in layers: residuals and coarse operators are counted once."""
    net = Net(64, 4)
    hierarchy = layer_hierarchy(net, 64, np.ones((1, 3)), levels=3, c_points_only=True)
    opening, repeated = mgrit(3)
    u, _ = run(opening, hierarchy, np.ones((17, 1, 3)), None)
    for _ in range(3):
        u, _ = run(repeated, hierarchy, u, None)
        work = sum(level.tally[0] * level.cost for level in hierarchy)
        assert work == pytest.approx(net.count, rel=1e-12)
