"""Gaussian priors whose precisions are sums of known parts, with weights that follow from data.

The update of the weights is that of Wood and Fasiolo, "A generalized Fellner-Schall method for
smoothing parameter optimization", Biometrics 73 (2017); for a single part, it is MacKay's (1992).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp

__all__ = ["Part", "Prior", "prior_of"]

LEAST, MOST = 1e-7, 1e9
FIXED = 1e-8  # precision added to all parameters, so that the prior is proper


@dataclass(frozen=True)
class Part:
    """One part of the precisions (inverse variances).

    Parameters
    ----------
    places : array of int
        Numbers of the parameters in this part.
    sizes : array or float
        Precision of each of these parameters if the weight is 1.
    weight : float
        Initial weight.
    name : str
        Name by which a model on other knots identifies the part.
    """

    places: np.ndarray
    sizes: np.ndarray | float = 1.0
    weight: float = 1.0
    name: str = ""


@dataclass(frozen=True, eq=False)
class Prior:
    """Independent normal distributions of mean zero: precision = sum of weights times parts.

    Attributes
    ----------
    parts : sparse array of shape (parts, parameters)
        Precisions of each part.
    weights : array of shape (parts,)
        Weights of the parts.
    names : tuple of str
        Names of the parts.

    Examples
    --------
    >>> prior = prior_of(3, [Part(np.array([0, 1])), Part(np.array([1, 2]), np.array([2.0, 5.0]))])
    >>> prior.precisions.round(6).tolist()
    [1.0, 3.0, 5.0]
    """

    parts: sp.csr_array
    weights: np.ndarray
    names: tuple[str, ...]

    @property
    def precisions(self) -> np.ndarray:
        """The precisions, of shape (parameters,)."""
        return self.weights @ self.parts + FIXED

    def updated(self, u: np.ndarray, variances: np.ndarray) -> Prior:
        """The prior with the weights after one Fellner-Schall step.

        Parameters
        ----------
        u : array of shape (parameters,)
            Mode of the posterior.
        variances : array of shape (parameters,)
            Diagonal of the covariance of the posterior.
        """
        freed = self.parts @ np.maximum(1.0 / self.precisions - variances, 0.0)
        used = self.parts @ (u * u)
        weights = self.weights * np.maximum(freed, 1e-6) / np.maximum(used, 1e-10)
        return replace(self, weights=np.clip(weights, LEAST, MOST))

    def carried(self, former: Prior) -> Prior:
        """The prior with the weights of the prior on coarser knots, which may lack some parts."""
        known = dict(zip(former.names, former.weights, strict=True))
        weights = [known.get(n, w) for n, w in zip(self.names, self.weights, strict=True)]
        return replace(self, weights=np.array(weights))

    def change(self, former: Prior) -> float:
        """The largest change of the logarithm of a weight that is not near its limits."""
        open_ = (self.weights < 0.01 * MOST) & (self.weights > 100.0 * LEAST)
        return float(np.abs(np.log(self.weights / former.weights))[open_].max(initial=0.0))


def prior_of(parameters: int, parts: Sequence[Part]) -> Prior:
    """Build a prior from its parts.

    Parameters
    ----------
    parameters : int
        Number of parameters; those that are in no part are unconstrained.
    parts : sequence of Part
        Parts of the precisions.
    """
    rows = np.repeat(np.arange(len(parts)), [len(part.places) for part in parts])
    columns = np.concatenate([part.places for part in parts])
    sizes = np.concatenate([np.broadcast_to(part.sizes, part.places.shape) for part in parts])
    matrix = sp.csr_array((sizes, (rows, columns)), shape=(len(parts), parameters))
    weights, names = zip(*((part.weight, part.name) for part in parts), strict=True)
    return Prior(matrix, np.array(weights), names)
