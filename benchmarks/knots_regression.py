"""exp(sin(pi x) + y^2) on [-1, 1]^2, a KAN [2,5,1] from grid 5 to grid 80: pykan's example.

    OMP_NUM_THREADS=1 python benchmarks/knots_regression.py [--seeds 5] [--pykan PATH] [--save]

1000 training points up to grid 40 and 2000 on grid 80, 2000 held-out points, uniform. A seed draws
the points and the initial weights. Seconds count from the start of the training, all grids below
included. The MLP has two hidden layers, as many parameters as the KAN of each grid, the same
optimizer (our Levenberg-Marquardt), the same points, and from a fresh start as many seconds as the
KAN took up to that grid. PATH is a folder that holds pykan and what it needs, `pip install --target
PATH --no-deps pykan tqdm pandas pytz`: it runs with its own L-BFGS, grid updates and refinement, in
float64.
"""

import argparse
import contextlib
import io
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from typing import NamedTuple

import saved
import torch

from mgnet import Level, Step, StepData, cascade, run
from mgnet.knots import KAN, knot_hierarchy
from mgnet.training import LeastSquares, LevenbergMarquardt

GRIDS = (5, 10, 20, 40, 80)
STEPS = (50, 50, 50, 50, 20)  # Levenberg-Marquardt, per grid
POINTS = (1000, 1000, 1000, 1000, 2000)
HELD_OUT = 2000
PYKAN_STEPS = 20  # per grid, as in its example; each is up to 20 iterations of L-BFGS
OURS = "KAN, cascade, LM"


class Row(NamedTuple):
    """Figures of one seed on one grid."""

    weights: int
    training: float
    held_out: float
    steps: int
    seconds: float


class Points:
    """Training and held-out points of a seed."""

    def __init__(self, seed: int):
        generator = torch.Generator().manual_seed(seed)
        places = torch.rand(max(POINTS) + HELD_OUT, 2, generator=generator, dtype=torch.float64)
        x = 2.0 * places - 1.0
        y = torch.exp(torch.sin(math.pi * x[:, :1]) + x[:, 1:] ** 2)
        self.x, self.y = x[: max(POINTS)], y[: max(POINTS)]
        self.x_held, self.y_held = x[max(POINTS) :], y[max(POINTS) :]
        few = self.y[: min(POINTS)]
        self.mean, self.scale = float(few.mean()), float(few.std())

    def data(self, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.x[:count], (self.y[:count] - self.mean) / self.scale

    def judge(self, model: Callable, count: int, weights: int, cost: tuple[int, float]) -> Row:
        """The errors of a model of the targets as they are."""
        errors = []
        for x, y in ((self.x[:count], self.y[:count]), (self.x_held, self.y_held)):
            with torch.no_grad():
                errors.append(float((model(x) - y).square().mean().sqrt()))
        return Row(weights, errors[0], errors[1], *cost)

    def judge_network(self, network: torch.nn.Module, count: int, cost: tuple[int, float]) -> Row:
        """The errors of a network of the standardized targets."""
        weights = sum(p.numel() for p in network.parameters())
        return self.judge(lambda x: self.mean + self.scale * network(x), count, weights, cost)


def multigrid(points: Points, seed: int) -> list[Row]:
    """A cascade up to grid 40, then grid 80 with twice as many points."""
    coarsest = KAN([2, 5, 1], GRIDS[0], generator=torch.Generator().manual_seed(seed))
    rows, spent = [], 0.0
    network, first = coarsest, 0
    while first < len(GRIDS):  # one hierarchy for all grids with the same points
        count = POINTS[first]
        levels = POINTS[first:].count(count)
        began = time.perf_counter()
        problem = LeastSquares(network, points.data(count))
        hierarchy = knot_hierarchy(network, problem, levels, LevenbergMarquardt())
        states: list[tuple[int, torch.Tensor, float]] = []

        def note(step: Step, told: StepData, began=began, states=states) -> None:
            if step.action in ("solve", "post"):
                states.append((step.level, told.state, time.perf_counter() - began))

        schedule = cascade(STEPS[first : first + levels])
        run(schedule, hierarchy, hierarchy[0].operator.start(), None, record=note)
        for level, u, seconds in states:
            network = hierarchy.network(level, u)
            cost = sum(STEPS[: len(rows) + 1]), spent + seconds
            rows.append(points.judge_network(network, count, cost))
        first, spent, network = first + levels, rows[-1].seconds, network.refine()
    return rows


def mlp(points: Points, seed: int, equals: list[Row]) -> list[Row]:
    """A tanh network for each grid, from a fresh start."""
    rows = []
    for count, equal in zip(POINTS, equals, strict=True):
        width = round(math.sqrt(6.25 + equal.weights - 1) - 2.5)  # w^2 + 5 w + 1 parameters
        torch.manual_seed(seed)
        network = torch.nn.Sequential(
            torch.nn.Linear(2, width),
            torch.nn.Tanh(),
            torch.nn.Linear(width, width),
            torch.nn.Tanh(),
            torch.nn.Linear(width, 1),
        ).double()
        problem, smoother = LeastSquares(network, points.data(count)), LevenbergMarquardt()
        level, u = Level(problem, smoother, objective=problem.value), problem.start()
        problem.jacobian(u)  # the first one compiles, which is not to be timed
        memory, steps, began = smoother.start(level, u), 0, time.perf_counter()
        while time.perf_counter() - began < equal.seconds:
            u, memory = smoother.smooth(level, u, None, 1, memory)
            steps += 1
        seconds = time.perf_counter() - began
        torch.nn.utils.vector_to_parameters(u, network.parameters())
        rows.append(points.judge_network(network, count, (steps, seconds)))
    return rows


def pykan(points: Points, seed: int, path: str) -> list[Row]:
    """Its own training and refinement."""
    if path not in sys.path:
        sys.path.insert(0, path)
    import kan  # pyright: ignore[reportMissingImports]

    rows, spent = [], 0.0
    torch.set_default_dtype(torch.float64)
    quiet = contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO())
    with tempfile.TemporaryDirectory() as folder, quiet[0], quiet[1]:
        network = kan.KAN(width=[2, 5, 1], grid=GRIDS[0], k=3, seed=seed, ckpt_path=folder)
        for grid, count in zip(GRIDS, POINTS, strict=True):
            began = time.perf_counter()
            data = {
                "train_input": points.x[:count],
                "train_label": points.y[:count],
                "test_input": points.x_held[:1],
                "test_label": points.y_held[:1],
            }
            if grid != GRIDS[0]:
                network(data["train_input"])  # refinement reads the activations
                network = network.refine(grid)
            network.fit(data, opt="LBFGS", steps=PYKAN_STEPS)
            spent += time.perf_counter() - began
            weights = 15 * (grid + 3 + 2)  # with the two scales of each edge
            cost = PYKAN_STEPS * (len(rows) + 1), spent
            rows.append(points.judge(network, count, weights, cost))
    torch.set_default_dtype(torch.float32)
    return rows


def medians(name: str, runs: list[list[Row]]) -> list[saved.Row]:
    """A row per grid: medians over the seeds, and the range of the held-out error."""
    found = []
    for grid, count, rows in zip(GRIDS, POINTS, zip(*runs, strict=True), strict=True):
        held = [row.held_out for row in rows]
        row: saved.Row = {"method": name, "grid": grid, "points": count, "weights": rows[0].weights}
        row |= {"error_median": statistics.median(held)}
        row |= {"error_least": min(held), "error_largest": max(held)}
        row |= {"training_median": statistics.median(row.training for row in rows)}
        row |= {"steps": round(statistics.median(row.steps for row in rows))}
        row |= {"seconds": statistics.median(row.seconds for row in rows)}
        found.append(row | {"seconds_largest": max(row.seconds for row in rows)})
    return found


def table(rows: list[saved.Row]) -> str:
    lines = [
        f"{rows[0]['method']:<24} {'held-out RMSE':^26} {'training':>9}",
        f"{'  grid':<8} {'points':>6} {'weights':>8} {'median':>8} {'least':>8} {'largest':>8} "
        f"{'median':>9} {'steps':>6} {'seconds':>8}",
    ]
    for row in rows:
        lines.append(
            f"{row['grid']:>6}   {row['points']:>6} {row['weights']:>8} "
            f"{row['error_median']:>8.1e} {row['error_least']:>8.1e} {row['error_largest']:>8.1e} "
            f"{row['training_median']:>9.1e} {row['steps']:>6} {row['seconds']:>8.1f}"
        )
    return "\n".join(lines) + "\n"


def targets(rows: list[saved.Row]) -> list[saved.Row]:
    at_40, at_80 = (row for row in rows if row["method"] == OURS and row["grid"] >= 40)
    error, seconds = at_40["error_median"], at_40["seconds_largest"]
    measured = f"{error:.1e} in at most {seconds:.1f} s"
    met = error <= 2e-4 and seconds <= 25.0
    higher = at_80["error_median"] <= error
    return [
        saved.target("held-out RMSE on grid 40", "at most 2e-4 within 25 s", measured, met),
        saved.target("on grid 80", "not higher", f"{at_80['error_median']:.1e}", higher),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--pykan", metavar="PATH")
    saved.add_option(parser)
    given = parser.parse_args()
    torch.set_num_threads(1)
    runs: dict[str, list[list[Row]]] = {}
    for seed in range(given.seeds):
        points = Points(seed)
        ours = multigrid(points, seed)
        runs.setdefault(OURS, []).append(ours)
        runs.setdefault("MLP, LM, equal seconds", []).append(mlp(points, seed, ours))
        if given.pykan:
            runs.setdefault("pykan, its L-BFGS", []).append(pykan(points, seed, given.pykan))
    tables = [medians(name, of_seeds) for name, of_seeds in runs.items()]
    rows = [row for table in tables for row in table]
    setting = f"exp(sin(pi x) + y^2), {given.seeds} seeds"
    found = targets(rows)
    lines = [setting, saved.heading(), "", *(table(part) for part in tables)]
    lines += [f"{t['name']}, {t['target']}: {t['measured']}" for t in found]
    print("\n".join(lines))
    if given.save:
        saved.save(given.save, "knots_regression", setting, rows, found, "\n".join(lines))


if __name__ == "__main__":
    main()
