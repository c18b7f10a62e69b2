"""The roughness of the edges of a KAN, a measure of curvature, as a least-squares penalty."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch

from mgnet.knots.kan import KAN
from mgnet.knots.network_state import check_plain_tensors
from mgnet.knots.spline import roughness_factor, roughness_rows

__all__ = ["roughness"]

DENSE = 4000  # largest number of parameters for a dense matrix, 128 MB


def roughness(kan: KAN, weight: float = 1.0) -> torch.Tensor:
    """Rows R with `|R u|^2 = weight * sum over edges of the integral of phi''^2`, for a penalty.

    Integrals are computed as if the domain were [-1, 1]. Refinement does not change the value.

    Parameters
    ----------
    kan : KAN
        The network.
    weight : float
        Factor of the penalty, not negative.

    Returns
    -------
    tensor of shape (rows, parameters)
        The penalty for `LeastSquares(kan, data, penalty=partial(roughness, weight=...))`. It is
        sparse (COO) above 4000 parameters, with different rows but the same `R^T R`.

    Examples
    --------
    >>> kan = KAN([1, 2, 1], intervals=3)
    >>> u = torch.nn.utils.parameters_to_vector(kan.parameters())
    >>> fine = torch.nn.utils.parameters_to_vector(kan.refine().parameters())
    >>> bool(torch.isclose((roughness(kan) @ u).norm(), (roughness(kan.refine()) @ fine).norm()))
    True
    """
    check_plain_tensors(kan.coefficients, "roughness")
    splines = {id(u): n for n, u in zip(kan.intervals, kan.coefficients, strict=True)}
    if sum(u.numel() for u in kan.parameters()) > DENSE:
        return _sparse(kan, splines, weight)
    blocks = []
    for u in kan.parameters():
        if id(u) not in splines:
            blocks.append(u.new_zeros(0, u.numel()))
            continue
        factor = roughness_factor(splines[id(u)], kan.degree) * weight**0.5
        factor = torch.as_tensor(factor).to(u.detach())
        inputs, _, outputs = u.shape
        eyes = [torch.eye(size).to(factor) for size in (inputs, outputs)]
        blocks.append(torch.kron(torch.kron(eyes[0], factor), eyes[1]))
    return torch.block_diag(*blocks)


def _sparse(kan: KAN, splines: dict[int, int], weight: float) -> torch.Tensor:
    """The same penalty, with a few entries in each row."""
    blocks = []
    for u in kan.parameters():
        if id(u) not in splines:
            blocks.append(sp.csr_matrix((0, u.numel())))
            continue
        factor = roughness_rows(splines[id(u)], kan.degree) * weight**0.5
        inputs, _, outputs = u.shape
        blocks.append(sp.kron(sp.kron(sp.eye(inputs), factor), sp.eye(outputs)))
    rows = sp.coo_matrix(sp.block_diag(blocks))
    places = torch.from_numpy(np.stack([rows.row, rows.col]).astype(np.int64))
    first = next(iter(kan.parameters()))
    entries = torch.from_numpy(rows.data)
    made = torch.sparse_coo_tensor(places, entries, rows.shape, check_invariants=True)
    return made.to(first.device, first.dtype).coalesce()
