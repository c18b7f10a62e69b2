"""Build levels from matrices, for the constructors of `Hierarchy`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mgnet.level import Level
from mgnet.mats import refuse_layout
from mgnet.smoother import Smoother
from mgnet.transfer import MatrixTransfer

__all__ = ["matrix_levels"]


def matrix_levels(
    matrices: Sequence[Any],
    prolongations: Sequence[Any],
    restrictions: Sequence[Any] | None,
    smoothers: tuple[Smoother, Smoother | None, Smoother],
    shapes: Sequence[tuple[int, ...]] | None,
) -> list[Level]:
    """Build linear levels, finest first.

    Parameters
    ----------
    matrices, prolongations, restrictions, shapes
        The same as for `Hierarchy.from_matrices`.
    smoothers : tuple of Smoother
        Smoothers before and after the coarse correction, and on the coarsest level.

    Raises
    ------
    ValueError
        If the numbers of matrices do not fit together.

    Examples
    --------
    >>> import numpy as np
    >>> from mgnet import Direct, Jacobi
    >>> P = np.ones((2, 1))
    >>> levels = matrix_levels([np.eye(2), P.T @ P], [P], None, (Jacobi(), None, Direct()), None)
    >>> [level.unknowns for level in levels]
    [2, 1]
    """
    count = len(matrices)
    restrictions = [None] * (count - 1) if restrictions is None else restrictions
    shapes = [()] * count if shapes is None else shapes
    if count == 0 or len(prolongations) != count - 1 or len(restrictions) != count - 1:
        raise ValueError(
            f"Hierarchy.from_matrices got {count} matrices, {len(prolongations)} "
            f"prolongations and {len(restrictions)} restrictions; L levels need L matrices and "
            "L - 1 of the others"
        )
    if len(shapes) != count:
        raise ValueError(
            f"Hierarchy.from_matrices got {count} matrices and {len(shapes)} shapes; give one "
            "for each level"
        )
    smoother, post, solver = smoothers
    levels = []
    for k, (A, P, R) in enumerate(zip(matrices[:-1], prolongations, restrictions, strict=True)):
        refuse_layout(A, P, f"Hierarchy.from_matrices got a prolongation {k}")
        refuse_layout(P, matrices[k + 1], f"Hierarchy.from_matrices got a matrix {k + 1}")
        transfer, name = MatrixTransfer(P, R), f"level {k}"
        levels.append(Level(A, smoother, transfer, post, name=name, shape=shapes[k]))
    coarsest = Level(matrices[-1], solver, name=f"level {count - 1}", shape=shapes[-1])
    return [*levels, coarsest]
