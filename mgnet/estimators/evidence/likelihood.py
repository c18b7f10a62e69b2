"""Likelihoods of the targets, given the outputs of a network: normal errors, or classes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

__all__ = ["Classes", "Curvature", "Likelihood", "Normal", "log_softmax"]

LEAST_SHARE = 0.02  # part of the rows that count as free if parameters could fit all of them
LEAST_VARIANCE = 1e-12


@dataclass(frozen=True, eq=False)
class Curvature:
    """The Hessian of a loss in the outputs, for each row: diag(own) - cross cross^T.

    Attributes
    ----------
    own, cross : array of shape (rows, outputs)
        The diagonal `own` and the vector `cross` of each row.

    Examples
    --------
    >>> p = np.array([[0.25, 0.75]])
    >>> Curvature(p, p).times(np.array([[1.0, 1.0]])).tolist()  # a softmax does not see shifts
    [[0.0, 0.0]]
    """

    own: np.ndarray
    cross: np.ndarray

    def times(self, f: np.ndarray) -> np.ndarray:
        """The product with an array of shape (rows, outputs), row by row."""
        return self.own * f - self.cross * (self.cross * f).sum(1, keepdims=True)

    def along(self, slopes: np.ndarray) -> np.ndarray:
        """For each row, the second derivative along a common direction or along its own direction.

        Parameters
        ----------
        slopes : array of shape (outputs,) or (rows, outputs)
            Directions.
        """
        curved = (self.own * slopes**2).sum(1) - (self.cross * slopes).sum(1) ** 2
        return np.maximum(curved, 0.0)


@dataclass(frozen=True, eq=False)
class Normal:
    """Squared differences from standardized targets.

    Attributes
    ----------
    targets : array of shape (rows,)
        Standardized targets.
    weights : array of shape (rows,)
        Weights of the squares; their sum is the effective number of rows.

    Examples
    --------
    >>> Normal(np.array([1.0, -1.0]), np.ones(2)).loss(np.zeros((2, 1)))
    1.0
    """

    targets: np.ndarray
    weights: np.ndarray
    outputs: int = field(default=1, init=False)

    @property
    def rows(self) -> float:
        """Effective number of rows: the sum of the weights."""
        return float(self.weights.sum())

    def start(self) -> np.ndarray:
        """Initial constants of the outputs."""
        return np.array([np.average(self.targets, weights=self.weights)])

    def at(self, rows: np.ndarray | slice, weights: np.ndarray | None = None) -> Normal:
        """The likelihood of some rows, with other weights if they are given."""
        return Normal(self.targets[rows], self.weights[rows] if weights is None else weights)

    def loss(self, f: np.ndarray) -> float:
        """Half the weighted sum of squares."""
        return 0.5 * float(self.weights @ (self.targets - f[:, 0]) ** 2)

    def equations(self, f: np.ndarray, J: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Matrix K and residuals s: K^T K is the Gauss-Newton matrix, and -K^T s the gradient.

        Parameters
        ----------
        f : array of shape (rows, outputs)
            Outputs of the network.
        J : array of shape (outputs, rows, parameters)
            Derivatives of f; the array is overwritten.
        """
        roots = np.sqrt(self.weights)
        K = J[0]
        if np.ptp(roots) > 0.0 or roots[0] != 1.0:
            K *= roots[:, None]
        return K, roots * (self.targets - f[:, 0])

    def descent(self, f: np.ndarray) -> np.ndarray:
        """Minus the derivatives of the loss with respect to the outputs: (rows, outputs)."""
        return (self.weights * (self.targets - f[:, 0]))[:, None]

    def curvature(self, f: np.ndarray) -> Curvature:
        """Second derivatives of the loss at these outputs."""
        own = self.weights[:, None]
        return Curvature(own, np.zeros_like(own))

    def variance(self, f: np.ndarray, used: float) -> float:
        """Variance of the errors if the parameters use up this many degrees of freedom."""
        free = max(self.rows - used, LEAST_SHARE * self.rows)
        return max(2.0 * self.loss(f) / free, LEAST_VARIANCE)


@dataclass(frozen=True, eq=False)
class Classes:
    """Cross entropy of a softmax; with two classes, the only output is the log-odds of the second.

    Attributes
    ----------
    labels : array of int of shape (rows,)
        Numbers of the classes.
    weights : array of shape (rows,)
        Weights of the rows.
    count : int
        Number of classes.

    Examples
    --------
    >>> Classes(np.array([0, 1]), np.ones(2), 2).loss(np.zeros((2, 1))) / 2
    0.6931
    """

    labels: np.ndarray
    weights: np.ndarray
    count: int

    @property
    def rows(self) -> float:
        """Effective number of rows: the sum of the weights."""
        return float(self.weights.sum())

    @property
    def outputs(self) -> int:
        """Number of outputs of a network."""
        return 1 if self.count == 2 else self.count

    def start(self) -> np.ndarray:
        """Logits of the frequencies of the classes."""
        shares = np.bincount(self.labels, self.weights, self.count)
        logs = np.log((shares + 0.5) / (self.rows + 0.5 * self.count))
        return logs[1:] - logs[:1] if self.count == 2 else logs

    def at(self, rows: np.ndarray | slice, weights: np.ndarray | None = None) -> Classes:
        """The likelihood of some rows, with other weights if they are given."""
        own = self.weights[rows] if weights is None else weights
        return Classes(self.labels[rows], own, self.count)

    def loss(self, f: np.ndarray) -> float:
        """The weighted sum of cross entropies."""
        return -float(self.weights @ log_softmax(f)[np.arange(len(f)), self.labels])

    def equations(self, f: np.ndarray, J: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Matrix K and residuals s as for `Normal`, from the generalized Gauss-Newton matrix."""
        p = np.exp(log_softmax(f))
        roots = np.sqrt(self.weights)
        if self.count == 2:
            spread = np.maximum(np.sqrt(p[:, 1] * p[:, 0]), 1e-12)
            s = roots * (self.labels - p[:, 1]) / spread
            J[0] *= (roots * spread)[:, None]
            return J[0], s
        # The matrix of a row is diag(p) - p p^T = A^T A, A = diag(q) (I - 1 p^T), q = sqrt(p).
        q = np.sqrt(p).T
        J -= np.einsum("on,onp->np", p.T, J)
        J *= (q * roots)[:, :, None]
        s = -q
        s[self.labels, np.arange(len(f))] += 1.0 / np.maximum(
            q[self.labels, np.arange(len(f))], 1e-12
        )
        return J.reshape(-1, J.shape[2]), (s * roots).ravel()

    def descent(self, f: np.ndarray) -> np.ndarray:
        """Minus the derivatives of the loss with respect to the outputs: (rows, outputs)."""
        p = np.exp(log_softmax(f))
        wrong = -p
        wrong[np.arange(len(f)), self.labels] += 1.0
        return (self.weights[:, None] * wrong)[:, -self.outputs :]

    def curvature(self, f: np.ndarray) -> Curvature:
        """Second derivatives of the loss at these outputs."""
        p, weights = np.exp(log_softmax(f)), self.weights[:, None]
        if self.count == 2:
            own = weights * p[:, :1] * p[:, 1:]
            return Curvature(own, np.zeros_like(own))
        return Curvature(weights * p, np.sqrt(weights) * p)

    def variance(self, f: np.ndarray, used: float) -> float:
        """Always 1, since the likelihood of classes has no variance to estimate."""
        return 1.0


Likelihood: TypeAlias = Normal | Classes


def log_softmax(f: np.ndarray) -> np.ndarray:
    """Logarithms of the probabilities, of shape (rows, classes), from the outputs as in `Classes`.

    Examples
    --------
    >>> np.exp(log_softmax(np.array([[0.0]]))).tolist()
    [[0.5, 0.5]]
    """
    if f.shape[1] == 1:
        f = np.concatenate([np.zeros_like(f), f], 1)
    f = f - f.max(1, keepdims=True)
    return f - np.log(np.exp(f).sum(1, keepdims=True))
