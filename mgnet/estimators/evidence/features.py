"""Features of the inputs of a table: as many modes of each input as its distinct values allow."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from mgnet.estimators.evidence.modes import Modes, refined_modes

__all__ = ["Features", "different_values", "features_of", "finer"]


@dataclass(frozen=True, eq=False)
class Features:
    """A matrix with several columns for each input: the centered modes of the input.

    Attributes
    ----------
    modes : Modes
        Modes of a single input.
    counts : array of int of shape (inputs,)
        Number of columns of each input.
    centre : array of shape (columns,)
        Means over the training rows, which are subtracted.
    deviation : array of shape (columns,)
        Standard deviations over the training rows.

    Examples
    --------
    >>> from mgnet.estimators.evidence.modes import spline_modes
    >>> x = np.column_stack([np.linspace(-1.0, 1.0, 9), np.tile([-1.0, 1.0, 1.0], 3)])
    >>> features = features_of(x, spline_modes(2, 3))
    >>> features.counts.tolist(), features.matrix(x).shape
    ([4, 1], (9, 5))
    """

    modes: Modes
    counts: np.ndarray
    centre: np.ndarray
    deviation: np.ndarray

    @property
    def inputs(self) -> np.ndarray:
        """The input to which each column belongs."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    @property
    def roughness(self) -> np.ndarray:
        """Roughness of the mode in each column."""
        return np.concatenate([self.modes.roughness[:count] for count in self.counts])

    @property
    def bent(self) -> np.ndarray:
        """For each input that has all modes, the number of the column with the roughest one."""
        whole = self.counts == len(self.modes.roughness)
        return (np.cumsum(self.counts) - 1)[whole]

    @property
    def linear(self) -> np.ndarray:
        """Numbers of the columns that contain an input itself, centered."""
        return np.concatenate([[0], np.cumsum(self.counts)[:-1]])

    def matrix(self, x: np.ndarray) -> np.ndarray:
        """Map rows of shape (rows, inputs) within [-1, 1] to shape (rows, columns)."""
        return _columns(x, self.modes, self.counts) - self.centre

    def splines(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Convert weights of the columns to edge functions.

        Parameters
        ----------
        weights : array of shape (columns, outputs)
            Weights of the columns.

        Returns
        -------
        coefficients : array of shape (inputs, splines, outputs)
            Spline coefficients of the edge functions.
        constants : array of shape (outputs,)
            Constants to add to their sum.
        """
        ends = np.concatenate([[0], np.cumsum(self.counts)])
        own = self.modes.coefficients
        edges = [own[:, : b - a] @ weights[a:b] for a, b in pairwise(ends)]
        return np.stack(edges), -self.centre @ weights


def finer(coarse: Features, fine: Features, x: np.ndarray) -> list[np.ndarray]:
    """For each input, the matrix that maps weights of coarse features to weights of fine features.

    The functions do not change; those of an input with few distinct values agree only there.

    Parameters
    ----------
    coarse, fine : Features
        Features of the same rows; `fine` has twice as many intervals as `coarse`.
    x : array of shape (rows, inputs)
        Training rows.
    """
    whole = refined_modes(coarse.modes, fine.modes)
    matrices = []
    for number, (own, more) in enumerate(zip(coarse.counts, fine.counts, strict=True)):
        if own == 1:
            matrices.append(np.eye(more, 1))
        elif own == whole.shape[1] and more == whole.shape[0]:
            matrices.append(whole)
        else:
            values = np.unique(x[:, number])
            values = values[np.linspace(0, len(values) - 1, min(len(values), 200)).astype(int)]
            parts = (f.modes.values(values)[:, :n] for f, n in ((coarse, own), (fine, more)))
            old, new = (part - part.mean(0) for part in parts)
            matrices.append(np.linalg.lstsq(new, old, rcond=None)[0])
    return matrices


def features_of(
    x: np.ndarray, modes: Modes, weights: np.ndarray | None = None, most: int | None = None
) -> Features:
    """Compute the features of training rows.

    An input with d distinct values has at most d - 1 columns.

    Parameters
    ----------
    x : array of shape (rows, inputs)
        Training rows within [-1, 1].
    modes : Modes
        Modes of a single input.
    weights : array of shape (rows,), optional
        Weights of the rows in the means.
    most : int, optional
        Largest number of columns of each input.
    """
    limit = len(modes.roughness) if most is None else min(most, len(modes.roughness))
    counts = np.array([_told_apart(column, limit) for column in x.T])
    columns = _columns(x, modes, counts)
    centre = np.average(columns, 0, weights)
    deviation = np.sqrt(np.average((columns - centre) ** 2, 0, weights))
    return Features(modes, counts, centre, deviation)


def different_values(x: np.ndarray) -> np.ndarray:
    """Number of distinct values in each column; only the first rows of very long columns count.

    Examples
    --------
    >>> different_values(np.array([[1.0, 2.0], [1.0, 3.0]])).tolist()
    [1, 2]
    """
    return np.array([len(np.unique(column[:10_000])) for column in x.T])


def _told_apart(column: np.ndarray, most: int) -> int:
    few = np.unique(column[: 50 * most])  # most columns have that many in their first rows
    if len(few) <= most:
        few = np.unique(column)
    return int(np.clip(len(few) - 1, 1, most))


def _columns(x: np.ndarray, modes: Modes, counts: np.ndarray) -> np.ndarray:
    matrix = np.empty((len(x), int(counts.sum())))
    ends = np.cumsum(counts)
    plain = counts == 1
    matrix[:, ends[plain] - 1] = x[:, plain]
    for number in np.flatnonzero(~plain):
        place = slice(ends[number] - counts[number], ends[number])
        matrix[:, place] = modes.values(x[:, number])[:, : counts[number]]
    return matrix
