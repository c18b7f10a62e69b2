"""The memory of a PyTorch optimizer refines with the network, for training loops of one's own."""

from __future__ import annotations

import torch

from mgnet.knots.hierarchy import parameter_transfers
from mgnet.knots.kan import KAN
from mgnet.training.optimizers.refined_optimizer import check_refinement, refined_optimizer

__all__ = ["refine_optimizer"]


def refine_optimizer(
    optimizer: torch.optim.Optimizer, coarse: KAN, fine: KAN
) -> torch.optim.Optimizer:
    """The optimizer of a refined network, with the memory of the coarse one's.

    What has an entry per coefficient goes through the prolongation, scaled as the gradient is
    (`carried_moments`), without negative weights; the pairs of L-BFGS by
    `carried_pairs`; step counts and options stay. Where the loss fell steeply, Adam's second
    moments are stale, with or without refinement, and a new optimizer may do better.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        Of any class, on the parameters of `coarse`. Parameters of other modules stay in it. The
        levels of a `MultilevelGradient` keep their memory, below a new finest level.
    coarse, fine : KAN
        `fine` has the intervals of `coarse.refine(factor, layers)`.

    Returns
    -------
    torch.optim.Optimizer
        A new one of the same class; learning-rate schedulers must be made anew.

    Raises
    ------
    TypeError
        If these are not an optimizer and two KANs.
    ValueError
        If `fine` is not a refinement of `coarse`, or the optimizer has none of its parameters.

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
