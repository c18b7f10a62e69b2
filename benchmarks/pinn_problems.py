"""The differential equations of benchmarks/pinn.py: terms, hard constraints, reference, plan."""

import math
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from pinn_references import (
    allen_cahn,
    burgers,
    burgers_by_fourier,
    interface_by_chebyshev,
    poisson_by_chebyshev,
)

from mgnet.training import Term, periodic

Draw = Callable[[int, torch.Generator], torch.Tensor]


class Plan(NamedTuple):
    """How a KAN is trained; the last widths, intervals and points are those of the finest level."""

    widths: tuple[int, ...]
    intervals: int  # of the coarsest level; each finer one has twice as many
    points: tuple[int, ...]  # in the interior, of each level, coarsest first
    shares: tuple[float, ...]  # of the seconds
    linear: bool = True
    degree: int = 5
    every: int = 10  # steps between new points


class Problem(NamedTuple):
    """An equation, its solution, and what solves it."""

    title: str
    terms: Callable[[torch.Tensor], list[Term]]  # from the points in the interior
    draw: Draw
    output: Callable | None
    features: Callable | None
    grid: torch.Tensor
    exact: torch.Tensor
    plan: Plan
    mlp: tuple[int, ...]
    target: str
    seconds: float
    classical: str


def box(count: int, generator: torch.Generator) -> torch.Tensor:
    """Even in [-1, 1]^2."""
    return 2.0 * torch.rand(count, 2, generator=generator, dtype=torch.float64) - 1.0


def strip(count: int, generator: torch.Generator) -> torch.Tensor:
    """Even in [-1, 1] x [0, 1]: (x, t)."""
    return torch.rand(count, 2, generator=generator, dtype=torch.float64) * _two_one - _one_zero


_two_one, _one_zero = torch.tensor([2.0, 1.0]).double(), torch.tensor([1.0, 0.0]).double()


def on_grid(first: np.ndarray, second: np.ndarray) -> torch.Tensor:
    return torch.cartesian_prod(torch.from_numpy(first), torch.from_numpy(second))


def timed(solve: Callable[[], object]) -> float:
    began = time.perf_counter()
    solve()
    return time.perf_counter() - began


def from_strip(x: torch.Tensor) -> torch.Tensor:
    """(x, t) to [-1, 1]^2."""
    return torch.cat([x[:, :1], 2.0 * x[:, 1:] - 1.0], 1)


def burgers_problem(nu: float, name: str, points: int, steps: int, target: float) -> Problem:
    grid = on_grid(np.linspace(-1.0, 1.0, 257), np.linspace(0.0, 1.0, 101))
    x, t = grid.numpy().T

    def residual(u):  # type: ignore[no-untyped-def]
        return u.d(1) + u.value * u.d(0) - nu * u.d(0, 0)

    seconds = timed(lambda: burgers_by_fourier(nu, points, steps, 10))
    return Problem(
        f"Burgers, nu = {name}",
        lambda x: [Term(residual, x)],
        strip,
        lambda x, y: -torch.sin(math.pi * x[:, :1]) + x[:, 1:] * (1.0 - x[:, :1] ** 2) * y,
        from_strip,
        grid,
        torch.from_numpy(burgers(x, t, nu)).unsqueeze(1),
        Plan((2, 8, 8, 8, 1), 4, (1200, 2000, 4000), (0.15, 0.25, 0.6)),
        (2, 24, 24, 24, 1),
        f"{target:.0e} in 300 s",
        300.0,
        f"Fourier + ETDRK4, {points} x {steps}: {seconds:.2f} s",
    )


def poisson_problem() -> Problem:
    side = np.linspace(-1.0, 1.0, 101)
    grid = on_grid(side, side)

    def exact(x: torch.Tensor) -> torch.Tensor:
        return torch.sin(math.pi * x[:, :1]) * torch.sin(2.0 * math.pi * x[:, 1:])

    def residual(u):  # type: ignore[no-untyped-def]
        return (u.d(0, 0) + u.d(1, 1)) / (5.0 * math.pi**2) + exact(u.points)

    seconds = timed(lambda: poisson_by_chebyshev(18))
    return Problem(
        "Poisson, sin(pi x) sin(2 pi y)",
        lambda x: [Term(residual, x)],
        box,
        lambda x, y: (1.0 - x[:, :1] ** 2) * (1.0 - x[:, 1:] ** 2) * y,
        None,
        grid,
        exact(grid),
        Plan((2, 8, 1), 8, (800, 1200, 2500), (0.1, 0.3, 0.6), linear=False, every=50),
        (2, 30, 30, 1),
        "1e-7 in 60 s",
        60.0,
        f"Chebyshev, 17 x 17 unknowns: {seconds:.4f} s",
    )


def interface_problem() -> Problem:
    """From arXiv 2603.04827, with its level set as an input; the boundary is built in."""
    side = np.linspace(-1.0, 1.0, 101)
    grid = on_grid(side, side)

    def exact(x: torch.Tensor) -> torch.Tensor:
        waves = torch.where(x[:, :1] < 0.0, 1.0, 2.0) * math.pi * x[:, :1]
        return torch.sin(waves) * torch.sin(3.0 * math.pi * x[:, 1:])

    def residual(u):  # type: ignore[no-untyped-def]
        left = u.points[:, :1] < 0.0
        eps = torch.where(left, 1.0, 0.5)
        source = torch.where(left, 10.0, 6.5) * math.pi**2 * exact(u.points)
        return (eps * (u.d(0, 0) + u.d(1, 1)) + source) / 100.0

    y = torch.linspace(-1.0, 1.0, 99, dtype=torch.float64)
    sides = tuple(torch.stack([torch.full_like(y, x), y], 1) for x in (-1e-14, 1e-14))

    def jump(left, right):  # type: ignore[no-untyped-def]
        return (left.d(0) - 0.5 * right.d(0)) / 10.0

    seconds = timed(lambda: interface_by_chebyshev(18))
    return Problem(
        "Poisson interface",
        lambda x: [Term(residual, x), Term(jump, sides)],
        box,
        lambda x, y: (1.0 - x[:, :1] ** 2) * (1.0 - x[:, 1:] ** 2) * y,
        lambda x: torch.cat([x, 2.0 * x[:, :1].abs() - 1.0], 1),
        grid,
        exact(grid),
        Plan((3, 8, 1), 8, (1000, 1500, 2500), (0.1, 0.3, 0.6), linear=False, every=50),
        (3, 30, 30, 1),
        "1e-4 in 120 s",
        120.0,
        f"Chebyshev on two halves, 2 x 19 x 17 unknowns: {seconds:.4f} s",
    )


def allen_cahn_problem() -> Problem:
    points, kept = 256, 100
    seconds = timed(lambda: allen_cahn(512, 200, kept))
    # The kink of the initial values leaves errors that fall as the square of the distance of the
    # points: 1e-6 with 2048. Extrapolated, the next two differ from these by 5e-9.
    sizes = (2048, 2000), (4096, 4000)
    coarse, fine = (allen_cahn(n, steps, kept)[:, :: n // points] for n, steps in sizes)
    truth = (4.0 * fine - coarse) / 3.0
    grid = on_grid(-1.0 + 2.0 * np.arange(points) / points, np.linspace(0.0, 1.0, kept + 1))

    def residual(u):  # type: ignore[no-untyped-def]
        # Early errors grow, so early residuals count more.
        early = torch.exp(-2.5 * u.points[:, 1:])
        return early * (u.d(1) - 1e-4 * u.d(0, 0) - 5.0 * (u.value - u.value**3))

    def features(x: torch.Tensor) -> torch.Tensor:
        turn = math.pi * x[:, :1]
        return torch.cat([torch.cos(turn), torch.sin(turn), 2.0 * x[:, 1:] - 1.0], 1)

    def output(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        # The initial values have a kink at x = -1 = 1, where they are -1 + 2 s: no residual at
        # points sees it. It spreads as heat does and decays as reaction near u = -1 asks for; what
        # is left of it in the initial values is taken away by a multiple of cos(pi x / 2).
        s, t = 1.0 - x[:, :1].abs(), x[:, 1:]
        width, left = torch.sqrt(4e-4 * (t + 1e-9)), torch.exp(-10.0 * t)
        spread = width / math.pi**0.5 * torch.exp(-((s / width) ** 2))
        spread = spread - s * torch.special.erfc(s / width)
        gone = (1.0 - left) * 2.0 / math.pi * torch.cos(0.5 * math.pi * x[:, :1])
        start = x[:, :1] ** 2 * torch.cos(math.pi * x[:, :1])
        return start + 2.0 * (left * spread - gone) + t * y

    return Problem(
        "Allen-Cahn",
        lambda x: [Term(residual, x)],
        strip,
        output,
        features,
        grid,
        torch.from_numpy(truth.T.copy()).reshape(-1, 1),
        Plan((3, 10, 10, 1), 4, (1500, 2000, 4000), (0.15, 0.25, 0.6)),
        (3, 24, 24, 24, 1),
        "1e-4 in 600 s",
        600.0,
        f"Fourier + ETDRK4, 512 x 200: {seconds:.2f} s",
    )


def kovasznay_problem() -> Problem:
    """Navier-Stokes at the Reynolds number 40; velocity at both ends, the pressure at a corner."""
    rate = 20.0 - math.sqrt(400.0 + 4.0 * math.pi**2)
    box = [(-0.5, 1.0), (-0.5, 0.5)]
    line = torch.linspace(-0.5, 0.5, 32, dtype=torch.float64)
    ends = torch.cat([torch.stack([torch.full_like(line, x), line], 1) for x in box[0]])
    corner = torch.tensor([[1.0, 0.5]], dtype=torch.float64)
    grid = on_grid(np.linspace(-0.5, 1.0, 121), np.linspace(-0.5, 0.5, 81))

    def exact(points: torch.Tensor) -> torch.Tensor:
        x, y = points.split(1, dim=1)
        wake, angle = torch.exp(rate * x), 2.0 * math.pi * y
        v = rate / (2.0 * math.pi) * wake * torch.sin(angle)
        return torch.cat([1.0 - wake * torch.cos(angle), v, 0.5 * (1.0 - wake**2)], 1)

    def flow(f):  # type: ignore[no-untyped-def]
        (u, v, _), x, y = (part.split(1, 1) for part in (f.value, f.d(0), f.d(1)))
        friction = ((f.d(0, 0) + f.d(1, 1)) / 40.0).split(1, 1)
        along = u * x[0] + v * y[0] + x[2] - friction[0]
        across = u * x[1] + v * y[1] + y[2] - friction[1]
        return torch.cat([along, across, x[0] + y[1]], 1)

    def terms(points: torch.Tensor) -> list[Term]:
        return [
            Term(flow, points),
            Term(lambda f: (f.value - exact(f.points))[:, :2], ends),
            Term(lambda f: (f.value - exact(f.points))[:, 2:], corner),
        ]

    def draw(count: int, generator: torch.Generator) -> torch.Tensor:
        unit = torch.rand(count, 2, generator=generator, dtype=torch.float64)
        return unit * torch.tensor([1.5, 1.0]).double() - 0.5

    return Problem(
        "Kovasznay",
        terms,
        draw,
        None,
        periodic(box, dims=1),
        grid,
        exact(grid),
        Plan((3, 8, 3), 8, (800, 1200, 2500), (0.1, 0.3, 0.6)),
        (3, 20, 20, 3),
        "1e-7 in 60 s",
        60.0,
        "exact solution",
    )


def burgers_of_the_paper() -> Problem:
    """From arXiv 2603.04827, nu = 0.01; the published figure is the loss with 64 x 64 points.

    Trained on these very points the loss fell to 5e-9 in 46 steps, but it was 2e-2 on 256 x 256.
    """
    hard = burgers_problem(0.01, "0.01, loss of arXiv 2603.04827", 256, 400, 1e-6)
    line = torch.linspace(-1.0, 1.0, 64, dtype=torch.float64)
    when = torch.linspace(0.0, 1.0, 64, dtype=torch.float64)
    first = torch.stack([line, torch.zeros_like(line)], 1)
    ends = torch.cat([torch.stack([torch.full_like(when, x), when], 1) for x in (-1.0, 1.0)])

    def initial(u):  # type: ignore[no-untyped-def]
        return u.value + torch.sin(math.pi * u.points[:, :1])

    def terms(x: torch.Tensor) -> list[Term]:
        return [*hard.terms(x), Term(initial, first), Term(lambda u: u.value, ends)]

    return hard._replace(
        terms=terms,
        output=None,
        target="loss 1e-7 in 300 s (published: 2.4e-5)",
    )


def lattice(count: int) -> torch.Tensor:
    """An array of count x count points on [-1, 1] x [0, 1]."""
    return on_grid(np.linspace(-1.0, 1.0, count), np.linspace(0.0, 1.0, count))


PROBLEMS: dict[str, Callable[[], Problem]] = {
    "burgers": lambda: burgers_problem(0.01, "0.01", 256, 400, 1e-6),
    "shock": lambda: burgers_problem(0.01 / math.pi, "0.01 / pi", 1024, 800, 1e-5),
    "poisson": poisson_problem,
    "interface": interface_problem,
    "allen-cahn": allen_cahn_problem,
    "paper": burgers_of_the_paper,
}
