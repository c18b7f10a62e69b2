"""Preconditioning of a Gauss-Newton matrix by its banded blocks for single inputs of a layer.

At a sample, degree + 1 neighboring splines of an input are nonzero, and the outputs share them. The
coefficients of an input are therefore coupled in a band of width (degree + 1) times the number of
outputs. The same holds for the rows of a penalty such as `roughness`. The Cholesky factor of this
block takes time and memory proportional to the number of knots. The coupling of different inputs is
left to conjugate gradients, which took 2 to 20 iterations per system for [1, 8, 1] with 10000
intervals.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
import torch

from mgnet.knots.coarse_inputs import CoarseInputs
from mgnet.knots.input_blocks import input_parts, normal_product
from mgnet.knots.spline_operator import BandedInverse, bands_of
from mgnet.limits import is_count, shown
from mgnet.training.least_squares.jacobian import Jacobian
from mgnet.training.least_squares.newton_krylov import Product

__all__ = ["InputBands", "PreparedBands"]


@dataclass(frozen=True)
class InputBands:
    """A preconditioner for `(J^T J + shift I) d = b` of a KAN: an exact solve for each input.

    It is intended for networks with thousands of knots, and for penalties, which the cycles of
    `KnotMultigrid` leave out. With a coarse level, which couples all inputs of all layers and is
    solved exactly, it is the two-level additive Schwarz method (Toselli and Widlund, Domain
    Decomposition Methods, 2005, chapter 3).

    Parameters
    ----------
    coarsest : int, optional
        Least number of intervals of the coarse level; None for no coarse level. The setup of this
        level takes as long as 40 to 100 iterations.

    Raises
    ------
    ValueError
        If `coarsest` is not a positive integer.

    Examples
    --------
    >>> from mgnet.knots import KAN
    >>> from mgnet.knots.jacobian import linearize
    >>> x = torch.linspace(-1, 1, 50, dtype=torch.float64).unsqueeze(1)
    >>> _, J = linearize(KAN([1, 1], 40), x)
    >>> product, solve = InputBands().prepare(J).shifted(1e-3)
    >>> b = torch.ones(43, dtype=torch.float64)
    >>> bool((product(solve(b)) - b).norm() < 1e-9)  # one input: exact
    True
    """

    coarsest: int | None = None

    def __post_init__(self) -> None:
        if self.coarsest is not None and not is_count(self.coarsest):
            raise ValueError(
                f"InputBands got coarsest {shown(self.coarsest)}; it must be an integer, at least "
                "1 interval, or None"
            )

    def prepare(self, J: Jacobian) -> PreparedBands:
        """Compute the bands of all inputs, and the coarse matrix."""
        return prepared_bands(J, "InputBands", self.coarsest)


@dataclass(frozen=True, eq=False)
class PreparedBands:
    """The data of `InputBands` for one Jacobian.

    Attributes
    ----------
    J : Jacobian
        The Jacobian.
    bands : tuple of array
        The lower bands of `J_p^T J_p` for every input p, including rows of a penalty.
    scale : float
        The mean of the diagonal of `J^T J` without the penalty; on fine knots, the size of the
        penalty is unrelated to admissible step lengths.
    coarse : CoarseInputs or None
        The coarse level.
    """

    J: Jacobian
    bands: tuple[np.ndarray, ...]
    scale: float
    coarse: CoarseInputs | None = None

    def shifted(self, shift: float) -> tuple[Product, Product]:
        """Products with `J^T J + shift I`, and with the inverse of its diagonal blocks."""
        inverses = [banded_inverse(one, shift) for one in self.bands]
        ends = np.cumsum([one.shape[1] for one in self.bands])[:-1]
        couple = None if self.coarse is None else self.coarse.inverse(shift)

        def precondition(r: torch.Tensor) -> torch.Tensor:
            parts = zip(inverses, np.split(r.numpy(), ends), strict=True)
            solved = torch.from_numpy(np.concatenate([one @ part for one, part in parts]))
            return solved if couple is None else solved + couple(r)

        J = self.J
        return lambda d: normal_product(J, d) + shift * d, precondition


def prepared_bands(J: Jacobian, asked: str, coarsest: int | None = None) -> PreparedBands:
    """The data of `InputBands(coarsest)`; `asked` is the name of the preconditioner in messages.

    Raises
    ------
    TypeError
        If J is not the Jacobian of a KAN that has only splines.
    """
    parts = input_parts(J, asked, with_local=coarsest is not None)
    bands = tuple(bands_of(block.matrix) for block in parts.blocks)
    coarse = None
    if coarsest is not None and len(bands) > 1:
        coarse = CoarseInputs.of(parts.local, parts.penalty, coarsest)
    return PreparedBands(J, bands, parts.scale, coarse)


def banded_inverse(bands: np.ndarray, shift: float = 0.0) -> BandedInverse:
    """The inverse of a banded matrix plus `shift I`; the shift grows until Cholesky succeeds."""
    largest = float(bands[0].max(initial=0.0))
    least = float(np.finfo(float).eps) * largest + float(np.finfo(float).tiny)
    while True:
        shifted = bands.copy()
        shifted[0] += shift
        try:
            return BandedInverse.from_bands(shifted)
        except scipy.linalg.LinAlgError:
            shift = max(10.0 * shift, least)
