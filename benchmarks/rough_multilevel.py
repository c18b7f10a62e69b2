"""The multilevel row of benchmarks/rough_compositions.py, and nothing else."""

import time
from functools import partial
from typing import Any, NamedTuple

import torch
from rough_link_models import Predict
from rough_rivals import by_blocks, error, parts
from rough_targets import Rows

from mgnet import Level
from mgnet.knots import KAN, roughness
from mgnet.training import LeastSquares, LevenbergMarquardt


class Member(NamedTuple):
    """A network of the tournament."""

    kan: KAN
    memory: Any = None
    loss: float = 0.0


def finer(kan: KAN, outer: int) -> KAN:
    """Twice as many intervals; layers after the first stop at `outer`."""
    fine = kan.refine()
    intervals = [2 * kan.intervals[0], *(min(2 * n, outer) for n in kan.intervals[1:])]
    mixed = KAN(kan.widths, intervals, kan.degree)
    with torch.no_grad():
        for layer, n in enumerate(intervals):
            source = fine if n != kan.intervals[layer] else kan
            mixed.coefficients[layer].copy_(source.coefficients[layer])
    return mixed


# To be replaced by the library's own: `knot_hierarchy(..., outer=)`, `train(rows=, starts=)`.
def multilevel(
    data: Rows,
    seconds: float,
    seed: int,
    *,
    hidden: tuple[int, ...],
    keep: tuple[int, ...] = (8, 4, 2, 1, 1, 1),
    steps: tuple[int, ...] = (30, 20, 12, 8, 6, 3),
    outer: int = 16,
    rows: float = 10.0,
    coarsest: int = 8,
    roughness_weight: float = 0.0,
) -> Predict:
    """A cascade over the knots: many starts on the coarsest, the best ones on finer ones.

    Every level sees `rows` rows per parameter. The level that is best on rows apart is returned.
    """
    until = time.process_time() + 0.95 * seconds
    kept, x, y = parts(data)
    judged = kept.x[:20000], kept.y[:20000]
    widths = [data.x.shape[1], *hidden, 1]
    generator = torch.Generator().manual_seed(seed)
    field = [Member(KAN(widths, coarsest, generator=generator)) for _ in range(keep[0])]
    penalty = partial(roughness, weight=roughness_weight) if roughness_weight else None
    smoother = LevenbergMarquardt()
    best, lowest = field[0].kan, float("inf")
    for number, (count, sweeps) in enumerate(zip(keep, steps, strict=True)):
        if number:
            field = [m._replace(kan=finer(m.kan, outer)) for m in field[:count]]
        for place, member in enumerate(field):
            kan, memory = member.kan, member.memory
            size = sum(p.numel() for p in kan.parameters())
            few = min(len(kept.x), int(rows * size))
            problem = LeastSquares(kan, (kept.x[:few], kept.y[:few]), penalty=penalty)
            level = Level(problem, smoother, objective=problem.value)
            u = problem.start()
            memory = smoother.start(level, u) if memory is None else memory
            for _ in range(sweeps):
                if time.process_time() > until:
                    break
                u, memory = smoother.smooth(level, u, None, 1, memory)
            torch.nn.utils.vector_to_parameters(u, kan.parameters())
            field[place] = Member(kan, memory, error(kan, *judged))
        field.sort(key=lambda member: member.loss)
        found = error(field[0].kan, x, y)
        if found < lowest:
            best, lowest = field[0].kan, found
        if time.process_time() > until:
            break
    return by_blocks(best)
