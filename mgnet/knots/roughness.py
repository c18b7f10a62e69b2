"""The roughness of the edges of a KAN: how much they bend, as a penalty of least squares."""

from __future__ import annotations

import torch

from mgnet.knots.kan import KAN
from mgnet.knots.network_state import check_plain_tensors
from mgnet.knots.spline import roughness_factor

__all__ = ["roughness"]


def roughness(kan: KAN, weight: float = 1.0) -> torch.Tensor:
    """Rows R with `|R u|^2 = weight * sum over edges of the integral of phi''^2`, as a penalty.

    Integrals are taken as if the domain were [-1, 1]. Refinement does not change the value.

    Parameters
    ----------
    kan : KAN
    weight : float
        Not negative.

    Returns
    -------
    tensor of shape (coefficients, parameters)
        For `LeastSquares(kan, data, penalty=partial(roughness, weight=...))`.

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
