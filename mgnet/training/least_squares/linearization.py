"""Residuals of any module and their Jacobian, by automatic differentiation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.func import jacrev, vmap

from mgnet.limits import check_memory, written
from mgnet.training.least_squares.jacobian import DenseJacobian, Jacobian
from mgnet.training.loss.own_forward import knows
from mgnet.training.loss.parameters import FlatParameters
from mgnet.training.loss.tied_tensors import call_with

__all__ = ["Residual", "blocks_of", "linearize", "residuals_of"]

Residual = Callable[[Any], torch.Tensor | Sequence[torch.Tensor]]


def blocks_of(residuals: Any) -> list[torch.Tensor]:
    """What a residual function returned, as a list of real tensors.

    Raises
    ------
    TypeError
        If it is anything else.
    """
    blocks = list(residuals) if isinstance(residuals, tuple | list) else [residuals]
    for block in blocks:
        if not isinstance(block, torch.Tensor) or block.is_complex():
            got = block.dtype if isinstance(block, torch.Tensor) else type(block).__name__
            raise TypeError(
                f"residual(module) returned {got}; "
                "it must return a real tensor, or a tuple of real tensors"
            )
    if not blocks:
        raise TypeError("residual(module) returned nothing; it must return at least one tensor")
    return blocks


def residuals_of(residual: Residual, module: torch.nn.Module) -> Any:
    """What the function of the user returns, unless that is a loss."""
    made = residual(module)
    if isinstance(made, torch.Tensor) and not made.dim():
        raise ValueError(
            "residual(module) returned one number; it must return all residuals, such as "
            "module(x) - y, not the mean of their squares: that is taken here"
        )
    return made


def linearize(
    parameters: FlatParameters,
    residual: Residual,
    u: torch.Tensor,
    chunk_size: int | None = None,
    inputs: torch.Tensor | None = None,
) -> tuple[torch.Tensor, Jacobian]:
    """The residual vector at u and its Jacobian, in float64.

    Where residual i of a tensor depends on sample i of each call of the module alone, one backward
    pass over a copy of the parameters per sample gives the whole tensor's rows. One product of the
    outcome with a vector is compared with autograd's; where they differ, the Jacobian comes by rows
    or, where parameters are fewer, by columns (differentiating `J^T y` by y), several at once.

    Parameters
    ----------
    parameters : FlatParameters
    residual : callable
        `module -> tensor` or tuple of tensors.
    u : tensor of shape (parameters,)
    chunk_size : int, optional
        Rows or columns at once.
    inputs : tensor, optional
        Given where the residuals are the outputs at these inputs, but for a constant.

    Raises
    ------
    ValueError
        If the residuals do not depend on the parameters.
    """
    u = u.detach().requires_grad_()
    with torch.enable_grad():
        r = _flat(blocks_of(parameters.evaluate(residual, u)))
        if not _depends(r, u):
            raise ValueError(
                "residual(module) does not depend on the parameters of the module; "
                "it must call the module that it is given, without torch.no_grad or detach"
            )
        own = None if inputs is not None else _own(parameters, residual, r, u)
        if own is not None:
            return r.detach().double(), own
        entries = len(r) * len(u)
        check_memory(
            16 * entries,  # in the precision of the module, and in float64
            f"the Jacobian of {len(r)} residuals by {len(u)} parameters has {written(entries)} "
            "numbers",
            "take LBFGS or Broyden, which need none, or fewer samples",
        )
        J = None if inputs is None else _checked(lambda: _of_outputs(parameters, u, inputs), r, u)
        if J is None:
            J = _checked(lambda: _by_samples(parameters, residual, u), r, u)
        if J is None:
            by_rows = len(r) <= 2 * len(u)  # a column costs more: it is differentiated twice
            J = (_by_rows if by_rows else _by_columns)(r, u, chunk_size)
    return r.detach().double(), DenseJacobian(J.double())


def _depends(r: torch.Tensor, u: torch.Tensor) -> bool:
    """Whether the graph of r leads to u; other parameters may need a gradient, too."""
    seen, waiting = set(), [r.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if getattr(node, "variable", None) is u:
            return True
        waiting += [before for before, _ in node.next_functions]
    return False


def _flat(blocks: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat([block.reshape(-1) for block in blocks])


class _PerSample(torch.nn.Module):
    """Stands in for the module: every sample of a call has its own copy of the parameters."""

    def __init__(self, parameters: FlatParameters, u: torch.Tensor):
        super().__init__()
        self.parameters_of = parameters
        self.named = parameters.named(u.detach())
        self.copies: list[tuple[torch.Tensor, ...]] = []  # for each call, of each parameter

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        samples = len(inputs[0])
        copies = tuple(p.expand(samples, *p.shape).requires_grad_() for p in self.named.values())
        self.copies.append(copies)

        def one(own: tuple[torch.Tensor, ...], *sample: torch.Tensor) -> torch.Tensor:
            named = dict(zip(self.named, own, strict=True))
            batch = tuple(part.unsqueeze(0) for part in sample)
            return call_with(self.parameters_of.module, named, batch)[0]

        return vmap(one)(copies, *inputs)


def _checked(
    make: Callable[[], torch.Tensor], r: torch.Tensor, u: torch.Tensor
) -> torch.Tensor | None:
    """A Jacobian that was made sample by sample, if it is the Jacobian of r, else None."""
    try:
        J = make()
    except Exception:
        # The residuals themselves came out well, so this way does not suit them: they read
        # parameters or submodules, mix samples, or use what vmap cannot do.
        return None
    if J.shape != (len(r), len(u)):
        return None
    y = torch.cos(torch.arange(1.0, len(r) + 1.0, dtype=r.dtype, device=r.device))
    (expected,) = torch.autograd.grad(r, u, y, retain_graph=True)
    tolerance = torch.finfo(r.dtype).eps ** 0.5 * J.norm() * y.norm()
    return J if bool((J.T @ y.to(J) - expected).norm() <= tolerance) else None


def _own(
    parameters: FlatParameters, residual: Residual, r: torch.Tensor, u: torch.Tensor
) -> Jacobian | None:
    """The Jacobian that the network makes itself, if it can and it is the Jacobian of r.

    By a method `linearize_residual(residual)`, as a KAN has: residuals, each of one sample of one
    call, and their Jacobian; any error if it cannot.
    """
    module = parameters.module
    able = knows(module, "linearize_residual") and parameters.all_trainable
    if not able or u.device.type != "cpu":
        return None
    try:
        _, J = parameters.evaluate(lambda module: module.linearize_residual(residual), u.detach())
    except Exception:
        return None  # as in `_checked`: it does not suit these residuals
    if J.shape != (len(r), len(u)):
        return None
    y = torch.cos(torch.arange(1.0, len(r) + 1.0, dtype=r.dtype))
    (expected,) = torch.autograd.grad(r, u, y, retain_graph=True)
    found = J.rmatvec(y.double())
    tolerance = torch.finfo(r.dtype).eps ** 0.5 * (found.norm() + expected.norm())
    return J if bool((found - expected).norm() <= tolerance) else None


def _of_outputs(parameters: FlatParameters, u: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
    def outputs(named: dict[str, torch.Tensor], sample: torch.Tensor) -> torch.Tensor:
        return call_with(parameters.module, named, (sample.unsqueeze(0),))[0].flatten()

    by_name = vmap(jacrev(outputs), in_dims=(None, 0))(parameters.named(u.detach()), inputs)
    return torch.cat([part.flatten(2) for part in by_name.values()], -1).flatten(0, 1)


def _by_samples(parameters: FlatParameters, residual: Residual, u: torch.Tensor) -> torch.Tensor:
    """Right if every residual depends on one sample of each call alone."""
    stand_in = _PerSample(parameters, u)
    blocks = blocks_of(residual(stand_in))
    return torch.cat([_rows_of(block, stand_in.copies) for block in blocks])


def _rows_of(block: torch.Tensor, calls: list[tuple[torch.Tensor, ...]]) -> torch.Tensor:
    samples = len(block)
    own = [copies for copies in calls if len(copies[0]) == samples]
    whole = [copy for copies in own for copy in copies]
    rows = []
    for component in block.reshape(samples, -1).unbind(1):
        parts = torch.autograd.grad(
            component.sum(), whole, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        row = torch.cat([part.flatten(1) for part in parts], 1)
        rows.append(row.unflatten(1, (len(own), -1)).sum(1) if len(own) > 1 else row)
    return rows[0] if len(rows) == 1 else torch.stack(rows, 1).flatten(0, 1)


def _by_rows(r: torch.Tensor, u: torch.Tensor, chunk_size: int | None) -> torch.Tensor:
    return _products(r, u, len(r), chunk_size or _chunk(len(r)))


def _by_columns(r: torch.Tensor, u: torch.Tensor, chunk_size: int | None) -> torch.Tensor:
    y = torch.zeros_like(r, requires_grad=True)
    (gradient,) = torch.autograd.grad(r, u, y, create_graph=True)  # J^T y, linear in y
    return _products(gradient, y, len(u), chunk_size or _chunk(len(r))).T


def _chunk(residuals: int) -> int:
    """Measured with tanh networks: more at once only fills the memory."""
    return max(1, min(64, 2**15 // residuals))


def _products(outputs: torch.Tensor, inputs: torch.Tensor, count: int, chunk: int) -> torch.Tensor:
    """The derivatives of each output with respect to the inputs, `chunk` outputs at once."""

    def pull(y: torch.Tensor, batched: bool) -> torch.Tensor:
        (product,) = torch.autograd.grad(
            outputs, inputs, y, retain_graph=True, is_grads_batched=batched
        )
        return product

    units = torch.eye(count, dtype=outputs.dtype, device=outputs.device)
    if chunk > 1:
        try:
            return torch.cat([pull(part, True) for part in units.split(chunk)])
        except RuntimeError:
            pass  # an operation that vmap does not know; one by one then
    return torch.stack([pull(unit, False) for unit in units])
