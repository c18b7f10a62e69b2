"""Points that fill a box more evenly than random points, so that fewer of them suffice."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import torch
from scipy.stats import qmc

from mgnet.limits import check_memory, is_count, is_one_of, is_whole, shown, written
from mgnet.training.equations.domain import Domain, checked_domain

__all__ = ["quasi_random"]

KINDS = "sobol", "halton", "latin"
# SciPy 1.15 renamed the argument.
SEED = "rng" if "rng" in inspect.signature(qmc.Sobol).parameters else "seed"
MOST_BITS = 30  # of SciPy's Sobol sequence: 2^30 points


def quasi_random(
    count: int,
    domain: Domain,
    kind: str = "sobol",
    seed: int | torch.Generator = 0,
    *,
    dtype: torch.dtype = torch.float64,
) -> torch.Tensor:
    """Draw evenly distributed points in a box, with `scipy.stats.qmc`.

    If the integral of a smooth function is approximated with n such points, the error decreases
    about like 1/n, instead of n^-1/2 for random points. All kinds of points are randomized, so no
    point lies in a corner; the same seed gives the same points.

    Parameters
    ----------
    count : int
        Number of points. Powers of two are best for "sobol"; any other number gives the first
        points of the next power of two.
    domain : sequence of (low, high)
        Interval for each input, in its units. If low = high, the input is fixed at this value,
        which gives a side of a box, such as `[(-1, -1), (0, 2)]` for x = -1.
    kind : "sobol", "halton" or "latin"
        Sobol' or Halton sequence, or a Latin hypercube, in which every single input is evenly
        distributed.
    seed : int or torch.Generator
        Seed, or a generator from which every call draws a new seed, as `resampled` needs.
    dtype : torch.dtype
        Type of the points, float64 or float32.

    Returns
    -------
    tensor of shape (count, inputs)
        The points.

    Raises
    ------
    ValueError
        If the domain, the count or the seed is invalid, or "sobol" is used for more than 2^30
        points.
    TypeError
        If the seed or the dtype has the wrong type.

    Examples
    --------
    >>> quasi_random(1000, [(-1.0, 1.0), (0.0, 2.0)]).mean(0)
    tensor([0.00, 1.00], dtype=torch.float64)

    New points for every cycle of a training run:

    >>> from mgnet.training import Term, resampled
    >>> terms = [Term(lambda u: u.value, torch.zeros(4, 1))]
    >>> draw = lambda generator: quasi_random(64, [(0.0, 1.0)], seed=generator)
    >>> (term,) = next(resampled(terms, [draw]))
    >>> term.points.shape
    torch.Size([64, 1])
    """
    box = checked_domain("quasi_random", domain, sides=True)
    if not is_count(count):
        raise ValueError(f"quasi_random got count {shown(count)}; it must be at least 1")
    if not is_one_of(kind, KINDS):
        raise ValueError(
            f"quasi_random got kind {shown(kind)}; it must be 'sobol', 'halton' or 'latin'"
        )
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise TypeError(
            f"quasi_random got dtype {shown(dtype)}; give torch.float64 or torch.float32"
        )
    generator = np.random.default_rng(_number(seed))
    low, high = np.array(box).T
    free = low < high
    # The points of a Sobol sequence are generated in whole powers of two.
    made = 2 ** (int(count) - 1).bit_length() if kind == "sobol" else int(count)
    if kind == "sobol" and made > 2**MOST_BITS:
        raise ValueError(
            f"quasi_random got count {written(count)}; 'sobol' has at most {2**MOST_BITS}: use "
            "'halton'"
        )
    check_memory(
        24 * made * len(box), f"quasi_random got count {written(count)}", "use fewer points"
    )
    x = np.tile(low, (int(count), 1))
    if free.any():
        unit = _unit_points(kind, int(free.sum()), made, generator)[: int(count)]
        x[:, free] += unit * (high - low)[free]
    return torch.from_numpy(np.clip(x, low, high)).to(dtype)


def _number(seed: Any) -> int:
    if isinstance(seed, torch.Generator):
        drawn = torch.randint(2**62, (), generator=seed, device=seed.device)
        return int(drawn)
    if not is_whole(seed):
        raise TypeError(
            f"quasi_random got seed {shown(seed)}; give an integer from 0 to 2**63 - 1, or a "
            "torch.Generator"
        )
    return int(seed)


def _unit_points(kind: str, inputs: int, count: int, generator: np.random.Generator) -> Any:
    """Points in the unit cube, of shape (count, inputs)."""
    given: dict[str, Any] = {SEED: generator}
    if kind == "sobol":
        return qmc.Sobol(inputs, **given).random_base2(count.bit_length() - 1)
    engine = qmc.Halton if kind == "halton" else qmc.LatinHypercube
    return engine(inputs, **given).random(count)
