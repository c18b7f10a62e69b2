"""Equations of a Gauss-Newton step, solved with a matrix over parameters or rows, or by blocks.

The equations are `(K^T K / v + P) d = K^T s / v - P u`, with rows K and residuals s from
`Normal.equations`, the variance v of the errors and the precisions P of the prior, a diagonal
matrix.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.linalg import get_lapack_funcs

from mgnet.estimators.evidence.likelihood import Curvature, Likelihood
from mgnet.estimators.evidence.model import Model
from mgnet.estimators.evidence.tangents import Tangent, tangent

__all__ = ["System", "system_of", "work_of_block_step", "work_of_step"]

potrf, potri, potrs, trtrs = get_lapack_funcs(
    ("potrf", "potri", "potrs", "trtrs"), dtype=np.float64
)
BLOCK = 2**22  # entries of a Jacobian in memory at once
ITERATIONS, TOLERANCE = 30, 0.03  # of conjugate gradients, and their final relative residual
AVERAGE = 10  # typical number of iterations


class _Primal:
    """A Cholesky factorization of a matrix over the parameters.

    Parameters
    ----------
    gram : array of shape (parameters, parameters)
        The matrix K^T K.
    """

    def __init__(self, gram: np.ndarray):
        self.gram, self.trace = gram, float(np.trace(gram))

    def _factor(self, variance: float, diagonal: np.ndarray) -> np.ndarray | None:
        return _cholesky(self.gram / variance, diagonal)

    def solve(self, g: np.ndarray, variance: float, diagonal: np.ndarray) -> np.ndarray | None:
        """Solve with right-hand side g; None if the matrix is not positive definite."""
        factor = self._factor(variance, diagonal)
        return None if factor is None else potrs(factor, g, lower=1)[0]

    def variances(self, variance: float, diagonal: np.ndarray) -> np.ndarray | None:
        """The diagonal of the inverse."""
        factor = self._factor(variance, diagonal)
        return None if factor is None else _inverse_diagonal(factor)


class _Dual:
    """A matrix over the rows, for more parameters than rows (Woodbury formula).

    Parameters
    ----------
    K : array of shape (rows, parameters)
        The matrix K of the equations.
    """

    def __init__(self, K: np.ndarray):
        self.K, self.trace = K, float(np.vdot(K, K))

    def _factor(self, variance: float, covariances: np.ndarray) -> np.ndarray | None:
        roots = self.K * np.sqrt(covariances)
        # BLAS computes only half of such a product.
        return _cholesky(roots @ roots.T, np.full(len(roots), variance))

    def solve(self, g: np.ndarray, variance: float, diagonal: np.ndarray) -> np.ndarray | None:
        """Solve like `_Primal.solve`."""
        covariances = 1.0 / diagonal
        factor = self._factor(variance, covariances)
        if factor is None:
            return None
        d = covariances * g
        return d - covariances * (self.K.T @ potrs(factor, self.K @ d, lower=1)[0])

    def variances(self, variance: float, diagonal: np.ndarray) -> np.ndarray | None:
        """The diagonal of the inverse, like `_Primal.variances`."""
        covariances = 1.0 / diagonal
        factor = self._factor(variance, covariances)
        if factor is None:
            return None
        half = trtrs(factor, self.K, lower=1)[0]
        return covariances - covariances**2 * np.einsum("np,np->p", half, half)


class _Blocks:
    """Conjugate gradients, preconditioned with a block for each hidden unit and each output.

    Products with the matrix are computed from the derivatives of the model, without the matrix.
    Variances are those of the blocks alone, which are lower bounds of the true ones.

    Parameters
    ----------
    tangent : Tangent
        Products with the derivatives.
    curvature : Curvature
        Second derivatives of the loss.
    """

    def __init__(self, tangent: Tangent, curvature: Curvature):
        self.tangent, self.curvature = tangent, curvature
        self.grams = []
        for block in tangent.blocks:
            K = block.columns * np.sqrt(curvature.along(block.slopes))[:, None]
            self.grams.append(K.T @ K)
        self.trace = sum(float(np.trace(gram)) for gram in self.grams)

    def _factors(self, variance: float, diagonal: np.ndarray) -> list[np.ndarray] | None:
        factors = []
        for block, gram in zip(self.tangent.blocks, self.grams, strict=True):
            factor = _cholesky(gram / variance, diagonal[block.places])
            if factor is None:
                return None
            factors.append(factor)
        return factors

    def solve(self, g: np.ndarray, variance: float, diagonal: np.ndarray) -> np.ndarray | None:
        """Solve like `_Primal.solve`, to a small residual relative to g."""
        factors = self._factors(variance, diagonal)
        if factors is None:
            return None

        def preconditioned(r: np.ndarray) -> np.ndarray:
            z = np.empty_like(r)
            for block, factor in zip(self.tangent.blocks, factors, strict=True):
                z[block.places] = potrs(factor, r[block.places], lower=1)[0]
            return z

        d, r, z = np.zeros_like(g), g, preconditioned(g)
        direction, rest = z, float(r @ z)
        enough = TOLERANCE**2 * rest
        for _ in range(ITERATIONS):
            if rest <= enough:
                break
            curved = self.curvature.times(self.tangent.forward(direction))
            product = self.tangent.backward(curved) / variance + diagonal * direction
            length = rest / float(direction @ product)
            d, r = d + length * direction, r - length * product
            z = preconditioned(r)
            former, rest = rest, float(r @ z)
            direction = z + rest / former * direction
        return d

    def variances(self, variance: float, diagonal: np.ndarray) -> np.ndarray | None:
        """Diagonals of the inverses of the blocks."""
        factors = self._factors(variance, diagonal)
        if factors is None:
            return None
        found = np.empty_like(diagonal)
        for block, factor in zip(self.tangent.blocks, factors, strict=True):
            found[block.places] = _inverse_diagonal(factor)
        return found


class System:
    """The equations with their current variance and precisions.

    Parameters
    ----------
    method : _Primal, _Dual or _Blocks
        Method of solution.
    slope : array of shape (parameters,)
        The vector K^T s.
    u : array of shape (parameters,)
        Parameters at the start of the step.

    Attributes
    ----------
    size : float
        Mean of the diagonal of K^T K, the unit of the damping.
    gradient : array of shape (parameters,)
        Right-hand side.
    """

    def __init__(self, method: _Primal | _Dual | _Blocks, slope: np.ndarray, u: np.ndarray):
        self.method, self.slope, self.u = method, slope, u
        self.size = method.trace / len(u)

    def set(self, variance: float, precisions: np.ndarray) -> None:
        """Set variance and precisions for the next solves."""
        self.variance, self.precisions = variance, precisions
        self.gradient = self.slope / variance - precisions * self.u

    def solve(self, damping: float) -> np.ndarray | None:
        """The damped step; None if the matrix is not positive definite in double precision."""
        diagonal = self.precisions + damping * self.size / self.variance
        return self.method.solve(self.gradient, self.variance, diagonal)

    def variances(self) -> np.ndarray | None:
        """The diagonal of the inverse, without damping."""
        return self.method.variances(self.variance, self.precisions)


def system_of(
    model: Model, B: np.ndarray, likelihood: Likelihood, u: np.ndarray, blocks: bool = False
) -> tuple[System, float]:
    """Set up the equations of a step at u, and evaluate the loss there.

    Parameters
    ----------
    model : Model
        Model that is fitted.
    B : array of shape (rows, columns)
        Features of the rows.
    likelihood : Likelihood
        Likelihood of the rows.
    u : array of shape (parameters,)
        Parameters at the start of the step.
    blocks : bool
        Whether to avoid matrices over all parameters.
    """
    if blocks:
        f, own = tangent(model, B, u)
        method, slope = _Blocks(own, likelihood.curvature(f)), own.backward(likelihood.descent(f))
        return System(method, slope, u), likelihood.loss(f)
    if len(B) * likelihood.outputs < len(u):
        f, J = model.linearized(B, u)
        K, s = likelihood.equations(f, J)
        return System(_Dual(K), K.T @ s, u), likelihood.loss(f)
    loss, gram, slope = 0.0, np.zeros((len(u), len(u))), np.zeros(len(u))
    block = max(1, BLOCK // (len(u) * likelihood.outputs))
    for start in range(0, len(B), block):
        part = slice(start, start + block)
        f, J = model.linearized(B[part], u)
        own_part = likelihood.at(part)
        K, s = own_part.equations(f, J)
        loss, gram, slope = loss + own_part.loss(f), gram + K.T @ K, slope + K.T @ s
    return System(_Primal(gram), slope, u), loss


def work_of_step(rows: float, size: float) -> float:
    """Approximate number of multiplications of a step with a matrix.

    Examples
    --------
    >>> work_of_step(1000, 10), work_of_step(10, 1000)
    (101000.0, 101000.0)
    """
    few, many = sorted((float(rows), float(size)))
    return few * few * many + few**3


def work_of_block_step(rows: float, sizes: Sequence[float]) -> float:
    """Approximate number of multiplications of a step with blocks of these sizes.

    Examples
    --------
    >>> work_of_block_step(100, [10, 10])
    62000.0
    """
    blocks = sum(work_of_step(rows, size) for size in sizes)
    return float(blocks + 2.0 * AVERAGE * rows * sum(sizes))


def _cholesky(matrix: np.ndarray, diagonal: np.ndarray) -> np.ndarray | None:
    """A lower Cholesky factor of the matrix plus a diagonal; the matrix is overwritten."""
    matrix.flat[:: len(matrix) + 1] += diagonal
    factor, failed = potrf(matrix.T, lower=1, overwrite_a=1)
    return None if failed else factor


def _inverse_diagonal(factor: np.ndarray) -> np.ndarray:
    return np.diag(potri(factor, lower=1)[0]).copy()
