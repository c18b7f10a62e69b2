"""Refinement of a PyTorch optimizer's state with a KAN, for custom training loops."""

from __future__ import annotations

import torch

from mgnet.knots.hierarchy import parameter_transfers
from mgnet.knots.kan import KAN
from mgnet.training.optimizers.refined_optimizer import check_refinement, refined_optimizer

__all__ = ["refine_optimizer"]


def refine_optimizer(
    optimizer: torch.optim.Optimizer, coarse: KAN, fine: KAN
) -> torch.optim.Optimizer:
    """Create an optimizer for a refined network with the state of the coarse network's optimizer.

    State with an entry per coefficient is prolonged with nonnegative weights, and averages of
    gradients are scaled as gradients are (see `carried_moments`); the pairs of L-BFGS are
    transferred by `carried_pairs`; step counts and options stay the same. If the loss has decreased
    steeply, Adam's second moments are outdated, with or without refinement, and a new optimizer may
    be better.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        The optimizer of the parameters of `coarse`, of any class. Parameters of other modules are
        kept. The levels of a `MultilevelGradient` keep their state, below a new finest level.
    coarse, fine : KAN
        The coarse network, and one with the intervals of `coarse.refine(factor, layers)`.

    Returns
    -------
    torch.optim.Optimizer
        A new optimizer of the same class; learning-rate schedulers must be created again.

    Raises
    ------
    TypeError
        If the arguments are not an optimizer and two KANs.
    ValueError
        If `fine` is not a refinement of `coarse`, or the optimizer has no parameters of `coarse`.

    Examples
    --------
    >>> x = torch.linspace(-1, 1, 100, dtype=torch.float64).unsqueeze(1)
    >>> kan = KAN([1, 3, 1], intervals=2)
    >>> optimizer = torch.optim.Adam(kan.parameters(), lr=1e-2)
    >>> for epoch in range(150):
    ...     if epoch in (100, 125):
    ...         fine = kan.refine()
    ...         kan, optimizer = fine, refine_optimizer(optimizer, kan, fine)
    ...     loss = (kan(x) - torch.sin(8 * x)).square().mean()
    ...     optimizer.zero_grad()
    ...     loss.backward()
    ...     optimizer.step()
    >>> kan.intervals, float(loss.detach()) < 0.1
    ((8, 8), True)
    """
    check_refinement(optimizer, coarse, fine, KAN)
    pairs = zip(coarse.intervals, fine.intervals, strict=False)
    layers = [number for number, (few, many) in enumerate(pairs) if few != many]
    factor = fine.intervals[layers[0]] // coarse.intervals[layers[0]] if layers else 1
    refined = [factor * n if k in layers else n for k, n in enumerate(coarse.intervals)]
    kept = [(one.widths, one.degree, one.domain, one.hidden) for one in (coarse, fine)]
    if factor < 2 or kept[0] != kept[1] or fine.intervals != tuple(refined):
        raise ValueError(
            f"refine_optimizer got networks KAN({coarse.extra_repr()}) and "
            f"KAN({fine.extra_repr()}); "
            "the second must be a refinement of the first"
        )
    counterparts = dict(zip(coarse.parameters(), fine.parameters(), strict=True))
    transfers = dict(parameter_transfers(coarse, factor, layers))
    return refined_optimizer(optimizer, counterparts, transfers)
