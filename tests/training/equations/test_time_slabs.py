"""Time slabs: continuous solutions, exact derivatives, networks that start from the last one."""

import math

import pytest
import torch

from mgnet import Hierarchy, Level
from mgnet.knots import KAN
from mgnet.training import (
    Ansatz,
    LevenbergMarquardt,
    Term,
    levenberg_marquardt,
    periodic,
    quasi_random,
    time_slabs,
    train,
)
from mgnet.training.equations.derivatives import derivatives_of

DOMAIN = [(0.0, 2.0 * math.pi), (0.0, 1.0)]


def mlp(*widths):
    torch.manual_seed(0)
    layers = []
    for inputs, outputs in zip(widths[:-1], widths[1:], strict=True):
        layers += [torch.nn.Linear(inputs, outputs), torch.nn.Tanh()]
    return torch.nn.Sequential(*layers[:-1]).double()


def in_place(problem):
    levenberg_marquardt(problem, max_cycles=25)


def by_levels(problem):
    level = Level(problem, LevenbergMarquardt(), objective=problem.value)
    return train(Hierarchy([level]), problem.start(), max_cycles=12)


@pytest.mark.parametrize("kind", ["mlp", "kan"])
def test_a_wave_that_travels_and_decays(kind):
    """u_t + u_x = u_xx has exp(-t) sin(x - t)."""
    network = mlp(3, 10, 1) if kind == "mlp" else KAN([3, 4, 1], 2, 5)
    edges, count, most = [0.0, 0.3, 0.6, 1.0], *((128, 1e-4) if kind == "mlp" else (256, 5e-3))
    u = time_slabs(
        network,
        lambda box: [Term(lambda u: u.d(1) + u.d(0) - u.d(0, 0), quasi_random(count, box))],
        DOMAIN,
        edges,
        lambda x: torch.sin(x[:, :1]),
        in_place if kind == "mlp" else by_levels,
        features=lambda box: periodic(box, dims=0),
    )
    x = quasi_random(300, [DOMAIN[0]], "halton")

    def at(time):
        return torch.cat([x, torch.full_like(x, time)], 1)

    errors = []
    for time in [*edges, 0.15, 0.45, 0.8]:
        exact = math.exp(-time) * torch.sin(x - time)
        errors.append(float((u(at(time)) - exact).detach().norm() / exact.norm()))
    assert errors[0] == 0.0 and max(errors) < most
    for edge in edges[1:-1]:
        before, after = (u(at(edge + h)) for h in (-1e-12, 1e-12))
        torch.testing.assert_close(before, after, rtol=0.0, atol=1e-10)
    ends = torch.tensor([[0.0, 0.7], [2.0 * math.pi, 0.7]], dtype=torch.float64)
    torch.testing.assert_close(u(ends)[0], u(ends)[1], rtol=0.0, atol=1e-15)  # sin(2 pi) is no 0


@pytest.mark.parametrize("kind", ["mlp", "kan"])
@pytest.mark.parametrize("axis", [0, -1])
def test_residuals_see_the_derivatives_of_the_solution(kind, axis):
    """In the second of two slabs; autograd of the finished solution is the oracle."""
    seen = []

    def residual(u):
        pairs = [(), (0,), (1,), (0, 0), (0, 1), (1, 0), (1, 1)]
        seen.append((u.points.detach().clone(), {axes: u.d(*axes).detach() for axes in pairs}))
        return u.value

    space = 1 if axis == 0 else 0
    u = time_slabs(
        mlp(2, 5, 2) if kind == "mlp" else KAN([2, 3, 2]),
        lambda box: [Term(residual, quasi_random(20, box))],
        [(-1.0, 2.0), (0.0, 3.0)],
        2,
        lambda x: torch.cat([torch.sin(x[:, [space]]), x[:, [space]] ** 3], 1),
        lambda problem: None if problem.value(problem.start()) else None,
        output=lambda x, y: x[:, [space]] * y,
        axis=axis,
    )
    points, found = seen[-1]
    assert bool((points[:, axis] >= u.edges[1]).all())
    oracle = derivatives_of(u, points)
    for axes, d in found.items():
        torch.testing.assert_close(d, oracle.d(*axes).detach(), rtol=1e-11, atol=1e-11)
    points[:, axis] = u.edges[1]  # an edge belongs to the later slab
    at, after = (derivatives_of(u, x).d(axis % 2).detach() for x in (points, points + 1e-9))
    torch.testing.assert_close(at, after, rtol=1e-6, atol=1e-6)
    with pytest.raises(ValueError, match=r"u.d got the axes \(2,\); an axis is a column"):
        time_slabs(
            KAN([2, 1]),
            lambda box: [Term(lambda u: u.d(2), torch.zeros(3, 2, dtype=torch.float64))],
            DOMAIN,
            1,
            lambda x: x[:, :1],
            lambda problem: problem.value(problem.start()),
        )


def test_terms_at_new_points_and_at_several_points():
    """What is kept for the points of a term is not taken for others."""
    network, seen = mlp(2, 4, 1), []

    def jump(u, v):
        seen.append([w.d(0).detach() for w in (u, v)])
        return u.value - v.value

    def at_others(problem):
        for shift in (0.0, 0.1, 0.0):
            places = tuple(place + shift for place in problem.terms[0].places)
            term = Term(problem.terms[0].residual, places)
            problem.with_data([term]).value(problem.start())

    left, right = (quasi_random(6, [(x, x), (0.5, 0.9)]) for x in (0.0, 3.0))
    u = time_slabs(
        network,
        lambda box: [Term(jump, (left, right))],
        DOMAIN,
        2,
        lambda x: x[:, :1].cos(),
        at_others,
    )
    for shift, found in zip((0.0, 0.1, 0.0), seen[3:], strict=True):
        for place, d in zip((left, right), found, strict=True):
            torch.testing.assert_close(d, derivatives_of(u, place + shift).d(0).detach())


def test_what_came_before_is_evaluated_once_for_each_set_of_points():
    calls = []

    def initial(x):
        calls.append(len(x))
        return torch.sin(x[:, :1])

    def thrice(problem):
        for _ in range(3):
            problem.value(problem.start())

    sets = [quasi_random(count, DOMAIN) for count in range(3, 11)]
    terms = lambda box: [Term(lambda u: u.value, x) for x in sets]  # noqa: E731
    time_slabs(mlp(2, 3, 1), terms, DOMAIN, 1, initial, thrice)
    assert sorted(calls) == [len(x) for x in sets]


def test_every_network_starts_from_the_last_one():
    network, starts = mlp(2, 4, 1), []
    first = torch.nn.utils.parameters_to_vector(network.parameters()).detach().clone()

    def add_one(problem):
        starts.append(problem.start())
        return problem.start() + 1.0

    args = lambda box: [Term(lambda u: u.d(1), quasi_random(4, box))], DOMAIN, 3, lambda x: x[:, :1]  # noqa: E731
    u = time_slabs(network, *args, add_one, perturbation=0.25)
    torch.testing.assert_close(starts[0], first)
    torch.testing.assert_close(starts[1], 1.25 * first + 1.0)
    torch.testing.assert_close(starts[2], 1.5 * first + 2.0)
    assert torch.equal(first, torch.nn.utils.parameters_to_vector(network.parameters()))
    assert len(u.networks) == len(u.results) == 3 and u.edges == (0.0, 1.0 / 3.0, 2.0 / 3.0, 1.0)
    frozen = mlp(2, 4, 1)
    frozen[0].weight.requires_grad_(False)
    u = time_slabs(frozen, *args, lambda problem: problem.start() + 1.0)
    kept = dict(u.networks[2].named_parameters())["network.0.weight"]
    assert torch.equal(kept, frozen[0].weight)


def call(**changes):
    given = {
        "network": mlp(2, 3, 1),
        "terms": lambda box: [Term(lambda u: u.d(1), quasi_random(4, box))],
        "domain": DOMAIN,
        "slabs": 2,
        "initial": lambda x: x[:, :1],
        "train": lambda problem: problem.value(problem.start()) and None,
    }
    return time_slabs(**(given | changes))


@pytest.mark.parametrize(
    ("changes", "kind", "match"),
    [
        ({"slabs": 0}, ValueError, "time_slabs got slabs 0; give their number, 1 to"),
        ({"slabs": [0.0]}, ValueError, "time_slabs got slabs"),
        ({"slabs": "2"}, ValueError, "time_slabs got slabs"),
        ({"slabs": [0.0, 0.5]}, ValueError, "for times from 0 to 1; their edges must rise"),
        ({"slabs": [0.0, 0.7, 0.7, 1.0]}, ValueError, "their edges must rise"),
        ({"domain": [(0.0, 1.0), (1.0, 0.0)]}, ValueError, "time_slabs got domain"),
        ({"axis": 2}, ValueError, "time_slabs got axis 2 for 2 inputs"),
        ({"axis": None}, ValueError, "time_slabs got axis None"),
        ({"perturbation": -0.1}, ValueError, "perturbation -0.1; it must be from 0 to 1"),
        ({"network": Ansatz(mlp(2, 1))}, TypeError, "a network of type Ansatz; give a"),
        ({"network": torch.sin}, TypeError, "a network of type builtin_function_or_method"),
        ({"terms": []}, TypeError, "time_slabs got terms of type list; give a function"),
        ({"terms": lambda box: [1]}, TypeError, r"time_slabs got terms of \[1\]; give a function"),
        ({"terms": lambda box: 1}, TypeError, "time_slabs got terms of 1; give a function of the"),
        ({"features": 3}, TypeError, "time_slabs got features of type int; give a function"),
        ({"output": 3}, TypeError, "time_slabs got output of type int; give a function"),
        ({"slabs": 10**30}, ValueError, "give their number, 1 to 10000, or a list of their edges"),
        ({"initial": torch.zeros(3)}, TypeError, "initial of type Tensor; give a function"),
        ({"train": None}, TypeError, "train of type NoneType; give a function"),
        ({"train": lambda problem: True}, TypeError, "time_slabs got bool from train"),
        ({"train": lambda problem: torch.zeros(3)}, ValueError, "give a flat tensor of 13 numbers"),
    ],
)
def test_refusals(changes, kind, match):
    with pytest.raises(kind, match=match):
        call(**changes)


@pytest.mark.parametrize("initial", [lambda x: x[:, 0], lambda x: x])
def test_initial_values_of_another_shape(initial):
    terms = lambda box: [Term(lambda u: u.value, quasi_random(4, box))]  # noqa: E731
    with pytest.raises(ValueError, match=r"initial|outputs"):
        call(initial=initial, terms=terms)


def test_times_that_are_not_solved():
    u = call()
    for time in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="TimeSlabs got times .*; it is solved from 0 to 1"):
            u(torch.tensor([[0.0, time]]))
