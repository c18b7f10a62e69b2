"""The multilevel row of benchmarks/rough_compositions.py, and nothing else."""

import time
from functools import partial
from typing import Any

import torch
from rough_link_models import Predict
from rough_rivals import by_blocks
from rough_targets import Rows

from mgnet import CycleRecord
from mgnet.knots import KAN, knot_hierarchy, roughness
from mgnet.training import LeastSquares, LevenbergMarquardt, train


def multilevel(
    data: Rows,
    seconds: float,
    seed: int,
    *,
    hidden: tuple[int, ...],
    levels: int = 6,
    starts: int = 8,
    keep: tuple[int, ...] = (4, 2, 1, 1, 1),
    outer: int = 16,
    rows: float = 10.0,
    coarsest: int = 8,
    roughness_weight: float = 0.0,
) -> Predict:
    """A tournament over the knots: many starts on the coarsest, the best ones on finer ones."""
    until = time.process_time() + 0.95 * seconds
    generator = torch.Generator().manual_seed(seed)
    kan = KAN([data.x.shape[1], *hidden, 1], coarsest, generator=generator)
    penalty = partial(roughness, weight=roughness_weight) if roughness_weight else None
    problem = LeastSquares(kan, (data.x, data.y), penalty=penalty)
    hierarchy = knot_hierarchy(
        kan, problem, levels, LevenbergMarquardt(), most_intervals=(None, *[outer] * len(hidden))
    )

    def over(record: CycleRecord, u: Any) -> bool:
        """Seconds of `train` are wall time; these are of the processor."""
        return time.process_time() > until

    solution = train(
        hierarchy,
        hierarchy[0].operator.start(),
        rows=rows,
        starts=starts,
        keep=keep,
        seed=seed,
        max_cycles=30,
        patience=3,
        gain=0.05,
        monitor=over,
    )
    return by_blocks(hierarchy.network(0, solution.value))
