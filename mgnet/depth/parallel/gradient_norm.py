"""The norm of all gradients even if the layers are on several processes: `clip_grad_norm_`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mgnet.depth.mgrit.communicator import squares
from mgnet.depth.parallel.layer_parallel import LayerParallel
from mgnet.depth.parallel.local_layers import layered_names
from mgnet.depth.parallel.whole_state import distributed_parts
from mgnet.limits import is_number, shown

__all__ = ["clip_grad_norm_"]


def clip_grad_norm_(module: nn.Module, max_norm: float) -> Tensor:
    """Scale all gradients so that their norm is at most `max_norm`, even if layers are distributed.

    This function corresponds to `torch.nn.utils.clip_grad_norm_(module.parameters(), max_norm)`,
    which takes into account only the layers of one process. All ranks must call it.

    Parameters
    ----------
    module : torch.nn.Module
        The module, such as a `LayerParallel`, distributed or not, or a module that contains it.
    max_norm : float
        Largest Euclidean norm of all gradients together.

    Returns
    -------
    tensor without axes
        The norm before scaling; for distributed layers, it has the same bits on any number of
        ranks.

    Raises
    ------
    ValueError
        If `max_norm` is not a positive number.
    TypeError
        If a gradient is sparse.

    Examples
    --------
    >>> from mgnet.depth import ODENet
    >>> parallel = LayerParallel(ODENet(nn.Linear(2, 2), 8))
    >>> parallel(torch.ones(1, 2)).sum().backward()
    >>> norm = clip_grad_norm_(parallel, 0.1)
    >>> bool(norm > 0.1), clip_grad_norm_(parallel, 0.1).item() < 0.1001
    (True, True)
    """
    if not is_number(max_norm, 0.0, open=True):
        raise ValueError(
            f"clip_grad_norm_ got max_norm {shown(max_norm)}; give a positive number, such as 1.0"
        )
    if any(p.grad is not None and p.grad.is_sparse for p in module.parameters()):
        raise TypeError(
            "clip_grad_norm_ got a sparse gradient, whose norm PyTorch does not form; use "
            "Embedding(sparse=False)"
        )
    spread = distributed_parts(module)
    if not spread:
        return nn.utils.clip_grad_norm_(module.parameters(), max_norm)
    layered = {id(p) for part in spread for p in _of_layers(part)}
    others = [p for p in module.parameters() if id(p) not in layered and p.grad is not None]
    terms = [torch.zeros(1, dtype=torch.float64)]  # in case nothing has a gradient
    terms += [squares(_real(p.grad).reshape(1, -1)) for p in others if p.grad is not None]
    for part in spread:
        rows = [
            squares(_real(p.grad)[:, None])
            if p.grad is not None
            else p.new_zeros(len(p), dtype=torch.float64)
            for p in _of_layers(part)
        ]
        if rows:
            stacked = torch.stack([row.cpu() for row in rows])
            terms.append(part.communicator.gather(stacked).sum(1))
    norm = torch.cat([term.cpu() for term in terms]).sum().sqrt()
    factor = float((max_norm / (norm + 1e-6)).clamp(max=1.0))
    for p in module.parameters():
        if p.grad is not None:
            p.grad.mul_(factor)
    return norm


def _real(gradient: Tensor) -> Tensor:
    """The entries of a gradient; if it is complex, their real and imaginary parts."""
    own = gradient.detach()
    return torch.view_as_real(own) if own.is_complex() else own


def _of_layers(parallel: LayerParallel) -> list[nn.Parameter]:
    """The parameters that have the layers on axis 0."""
    names = layered_names(parallel.net)
    return [p for name, p in parallel.net.named_parameters() if name in names]
