"""Residuals of any module and their Jacobian by automatic differentiation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.func import jacrev, vmap

from mgnet.limits import check_memory, machine_memory, written
from mgnet.training.least_squares.device_reads import holds
from mgnet.training.least_squares.jacobian import DenseJacobian, Jacobian
from mgnet.training.least_squares.row_blocks import RowBlocks, rows_at_once, streams
from mgnet.training.least_squares.sample_parts import PerSample, rows_of_samples
from mgnet.training.loss.own_forward import knows
from mgnet.training.loss.parameters import FlatParameters
from mgnet.training.loss.tied_tensors import call_with

__all__ = ["Residual", "RowStream", "blocks_of", "linearize", "residuals_of"]

Residual = Callable[[Any], torch.Tensor | Sequence[torch.Tensor]]

TRIED = 64  # first and last samples, used to test whether each row depends on one sample


def blocks_of(residuals: Any) -> list[torch.Tensor]:
    """Convert the result of a residual function to a list of real-valued tensors.

    Raises
    ------
    TypeError
        If the result has the wrong type.
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
    """Evaluate the user's residual function and refuse a loss as its result.

    Raises
    ------
    ValueError
        If the function returns one number.
    """
    made = residual(module)
    if isinstance(made, torch.Tensor) and not made.dim():
        raise ValueError(
            "residual(module) returned one number; it must return all residuals, such as "
            "module(x) - y, not the mean of their squares, which is computed here"
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

    If residual i of a tensor depends only on sample i of each call of the module, every sample is
    given its own copy of the parameters, and one backward pass gives all rows of the tensor. To
    check this, the product of the result with a vector is compared with the product from autograd.
    If the two differ, the Jacobian is computed by rows or, if there are fewer parameters than
    residuals, by columns (by differentiating `J^T y` with respect to y), several at a time.

    Parameters
    ----------
    parameters : FlatParameters
        Parameters of the module.
    residual : callable
        `module -> tensor` or tuple of tensors.
    u : tensor of shape (parameters,)
        Parameters at which to linearize.
    chunk_size : int, optional
        Number of rows of the Jacobian to hold in memory at once. If the Jacobian has more rows than
        this, and at least as many rows as columns, its rows are recomputed whenever they are needed
        (`RowBlocks`). By default all rows are stored, up to 2^26 numbers. If samples are mixed,
        this is the number of rows or columns per pass.
    inputs : tensor, optional
        Inputs of the network, if the residuals are its outputs at these inputs up to a constant.

    Raises
    ------
    ValueError
        If the residuals do not depend on the parameters.
    """
    u = u.detach().requires_grad_()
    with torch.enable_grad():
        blocks = blocks_of(parameters.evaluate(residual, u))
        r = _flat(blocks)
        if not _depends(r, u):
            raise ValueError(
                "residual(module) does not depend on the parameters of the module; "
                "it must call the module that it is given, without torch.no_grad or detach"
            )
        if inputs is None and _makes_its_own(parameters, u):
            own = _own(parameters, residual, r, u)
            if own is not None:
                return r.detach().double(), own
            blocks = blocks_of(parameters.evaluate(residual, u))  # their graph was freed
            r = _flat(blocks)
        if streams(len(r), len(u), chunk_size):
            streamed = _streamed(parameters, residual, blocks, u, chunk_size)
            if streamed is not None:
                return r.detach().double(), streamed
        entries = len(r) * len(u)
        check_memory(
            16 * entries,  # in the precision of the module, and in float64
            f"the Jacobian of {len(r)} residuals and {len(u)} parameters has {written(entries)} "
            "numbers",
            "use LBFGS or Broyden, which need none, or fewer samples",
        )
        J = None if inputs is None else _checked(lambda: _of_outputs(parameters, u, inputs), r, u)
        if J is None:
            J = _checked(lambda: _by_samples(parameters, residual, u), r, u)
        if J is None:
            by_rows = len(r) <= 2 * len(u)  # a column costs more, since it is differentiated twice
            J = (_by_rows if by_rows else _by_columns)(r, u, chunk_size)
    return r.detach().double(), DenseJacobian(J.double())


def _depends(r: torch.Tensor, u: torch.Tensor) -> bool:
    """Whether r depends on u through its graph; r may also depend on other parameters."""
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


def _checked(
    make: Callable[[], torch.Tensor], r: torch.Tensor, u: torch.Tensor
) -> torch.Tensor | None:
    """A Jacobian computed sample by sample if it is the Jacobian of r, else None."""
    try:
        J = make()
    except Exception:
        # The residuals were evaluated without an error, so they do not allow this method: they read
        # parameters or submodules, mix samples, or use operations that vmap does not support.
        return None
    if J.shape != (len(r), len(u)):
        return None
    y = torch.cos(torch.arange(1.0, len(r) + 1.0, dtype=r.dtype, device=r.device))
    (expected,) = torch.autograd.grad(r, u, y, retain_graph=True)
    tolerance = torch.finfo(r.dtype).eps ** 0.5 * J.norm() * y.norm()
    return J if holds((J.T @ y.to(J) - expected).norm() <= tolerance) else None


def _makes_its_own(parameters: FlatParameters, u: torch.Tensor) -> bool:
    able = knows(parameters.module, "linearize_residual") and parameters.all_trainable
    return able and u.device.type == "cpu"


def _own(
    parameters: FlatParameters, residual: Residual, r: torch.Tensor, u: torch.Tensor
) -> Jacobian | None:
    """The network's own Jacobian if it has one and it is the Jacobian of r, else None.

    It comes from a method `linearize_residual(residual)`, such as that of KAN, which returns the
    residuals, each of which depends on one sample of one call, and their Jacobian. The method may
    raise any error.
    """
    y = torch.cos(torch.arange(1.0, len(r) + 1.0, dtype=r.dtype))
    (expected,) = torch.autograd.grad(r, u, y)  # frees the graph before J is computed
    try:
        _, J = parameters.evaluate(lambda module: module.linearize_residual(residual), u.detach())
    except Exception:
        return None  # as in `_checked`, these residuals do not allow it
    if J.shape != (len(r), len(u)):
        return None
    found = J.rmatvec(y.double())
    tolerance = torch.finfo(r.dtype).eps ** 0.5 * (found.norm() + expected.norm())
    return J if bool((found - expected).norm() <= tolerance) else None


def _of_outputs(parameters: FlatParameters, u: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
    def outputs(named: dict[str, torch.Tensor], sample: torch.Tensor) -> torch.Tensor:
        return call_with(parameters.module, named, (sample.unsqueeze(0),))[0].flatten()

    by_name = vmap(jacrev(outputs), in_dims=(None, 0))(parameters.named(u.detach()), inputs)
    return torch.cat([part.flatten(2) for part in by_name.values()], -1).flatten(0, 1)


def _by_samples(parameters: FlatParameters, residual: Residual, u: torch.Tensor) -> torch.Tensor:
    """The Jacobian sample by sample; correct if each residual depends on one sample per call."""
    stand_in = PerSample(parameters, u)
    blocks = blocks_of(residual(stand_in))
    return torch.cat([rows for _, rows in rows_of_samples(blocks, stand_in.parts.calls)])


def _streamed(
    parameters: FlatParameters,
    residual: Residual,
    blocks: list[torch.Tensor],
    u: torch.Tensor,
    chunk_size: int | None,
) -> RowBlocks | None:
    """The Jacobian in blocks of rows; None if columns are cheaper."""
    r, columns = _flat(blocks), len(u)
    most = rows_at_once(len(r), columns, chunk_size)
    widest = max(math.prod(block.shape[1:]) for block in blocks)
    stream = RowStream(parameters, residual, u, most, widest)
    # Otherwise sums over the rows are computed in float64, block by block.
    exact = r.dtype == torch.float64
    if stream.suits(r, u):
        way = stream.by_samples
    elif len(r) <= 2 * columns or 16 * len(r) * columns > machine_memory():
        way = stream.by_rows
    else:
        return None
    return RowBlocks(len(r), columns, way, stream.push, stream.pull if exact else None, stream.pull)


class RowStream:
    """The Jacobian at u in blocks of rows, and products with it.

    Parameters
    ----------
    parameters : FlatParameters
        Parameters of the module.
    residual : callable
        `module -> tensor` or tuple of tensors.
    u : tensor of shape (parameters,)
        Parameters at which to linearize.
    most : int
        Number of rows per block.
    widest : int
        Largest number of residuals of one sample.

    Examples
    --------
    >>> module = torch.nn.Linear(1, 1, dtype=torch.float64)
    >>> x = torch.arange(5.0, dtype=torch.float64).unsqueeze(1)
    >>> flat = FlatParameters(module)
    >>> stream = RowStream(flat, lambda m: m(x), flat.start(), most=2)
    >>> [(rows.start, rows.stop) for rows, _ in stream.by_samples()]
    [(0, 2), (2, 4), (4, 5)]
    >>> stream.push(torch.tensor([1.0, 0.0])).tolist()
    [0.0, 1.0, 2.0, 3.0, 4.0]
    """

    def __init__(
        self,
        parameters: FlatParameters,
        residual: Residual,
        u: torch.Tensor,
        most: int,
        widest: int = 1,
    ):
        self.parameters = parameters
        self.residual = residual
        self.u = u.detach()
        self.most = most
        self.widest = widest

    def evaluated(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The residuals as a function of the parameters, and the parameters."""
        u = self.u.clone().requires_grad_()
        with torch.enable_grad():
            return _flat(blocks_of(self.parameters.evaluate(self.residual, u))), u

    def push(self, d: torch.Tensor) -> torch.Tensor:
        """The product `J d`."""
        r, u = self.evaluated()
        y = torch.zeros_like(r, requires_grad=True)
        (gradient,) = torch.autograd.grad(r, u, y, create_graph=True)  # J^T y, linear in y
        (image,) = torch.autograd.grad(gradient, y, d.to(gradient))
        return image.double()

    def pull(self, y: torch.Tensor) -> torch.Tensor:
        """The product `J^T y`."""
        r, u = self.evaluated()
        return torch.autograd.grad(r, u, y.to(r))[0].double()

    def by_samples(self) -> Iterator[tuple[slice, torch.Tensor]]:
        """Blocks of rows, if each residual depends on only one sample of each call."""
        part, size = 0, max(1, self.most // self.widest)

        def window(samples: int) -> tuple[int, int]:
            return part * size, min((part + 1) * size, samples)

        stand_in = PerSample(self.parameters, self.u, window)
        while True:
            with torch.enable_grad():
                blocks = blocks_of(self.residual(stand_in))
            calls = stand_in.parts.calls
            for places, block in rows_of_samples(blocks, calls):
                yield places, block.double()
            del blocks  # and their graph, before the next block
            if all(call.end >= call.samples for call in calls):
                return
            part += 1
            stand_in.parts.restart(window)

    def by_rows(self) -> Iterator[tuple[slice, torch.Tensor]]:
        """Blocks of rows for any residuals, at the cost of one backward pass per row."""
        r, u = self.evaluated()
        for begin in range(0, len(r), self.most):
            rows = slice(begin, min(begin + self.most, len(r)))
            yield rows, _by_rows(r[rows], u, None).double()

    def suits(self, r: torch.Tensor, u: torch.Tensor) -> bool:
        """Whether `by_samples` gives rows of J, tested for the first and last samples."""
        for window in (
            lambda samples: (0, min(TRIED, samples)),
            lambda samples: (max(0, samples - TRIED), samples),
        ):
            try:
                stand_in = PerSample(self.parameters, self.u, window)
                made = list(
                    rows_of_samples(blocks_of(self.residual(stand_in)), stand_in.parts.calls)
                )
            except Exception:
                return False  # as in `_checked`
            y, total, size = torch.zeros_like(r), torch.zeros_like(u), 0.0
            for rows, block in made:
                y[rows] = torch.cos(torch.arange(1.0, len(block) + 1.0)).to(y)
                total += block.T.to(u) @ y[rows].to(u)
                size += float(block.norm() * y[rows].norm())
            (expected,) = torch.autograd.grad(r, u, y, retain_graph=True)
            if not float((total - expected).norm()) <= torch.finfo(r.dtype).eps ** 0.5 * size:
                return False
        return True


def _by_rows(r: torch.Tensor, u: torch.Tensor, chunk_size: int | None) -> torch.Tensor:
    return _products(r, u, len(r), chunk_size or _chunk(len(r)))


def _by_columns(r: torch.Tensor, u: torch.Tensor, chunk_size: int | None) -> torch.Tensor:
    y = torch.zeros_like(r, requires_grad=True)
    (gradient,) = torch.autograd.grad(r, u, y, create_graph=True)  # J^T y, linear in y
    return _products(gradient, y, len(u), chunk_size or _chunk(len(r))).T


def _chunk(residuals: int) -> int:
    """Number of outputs per pass, from tests with tanh networks; more would only cost memory."""
    return max(1, min(64, 2**15 // residuals))


def _products(outputs: torch.Tensor, inputs: torch.Tensor, count: int, chunk: int) -> torch.Tensor:
    """The derivatives of each output with respect to the inputs, `chunk` outputs at once."""

    def pull(y: torch.Tensor, batched: bool) -> torch.Tensor:
        (product,) = torch.autograd.grad(
            outputs, inputs, y, retain_graph=True, is_grads_batched=batched
        )
        return product

    def units(begin: int) -> torch.Tensor:
        some = outputs.new_zeros(min(chunk, count - begin), count)
        some[:, begin:].fill_diagonal_(1.0)
        return some

    starts = range(0, count, chunk)
    if chunk > 1:
        try:
            return torch.cat([pull(units(begin), True) for begin in starts])
        except RuntimeError:
            pass  # an operation that vmap does not support; use single passes
    return torch.stack([pull(unit, False) for begin in starts for unit in units(begin)])
