"""Spline layers in one pass over the samples, in loops compiled by numba (extra `fast`).

The basis is recomputed wherever it is needed, so only inputs and coefficients are stored. Only the
degree + 1 splines that are nonzero at an input are accessed, so the cost does not depend on the
number of intervals. Each sum is tested against `mgnet.knots.products`, in plain torch.
`mgnet.knots.layer` imports this file on first use, because numba takes a second to load.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch

from mgnet.knots import spline_loops
from mgnet.knots.spline import derivative_pieces
from mgnet.knots.team import openmp
from mgnet.threads import share

__all__ = ["Pieces", "adjoint", "layer", "pieces"]

# Number of products for which a second thread is worthwhile. PyTorch's threads start in
# microseconds, unless they sleep; mgnet's take a tenth of a millisecond, or longer while PyTorch's
# occupy their cores.
WORTH, WORTH_OF_OURS = 4_000_000, 50_000_000
BESIDES = 24  # outputs whose products cost as much as locating an input and evaluating its splines


class Pieces(NamedTuple):
    """The splines of one interval as polynomials in the local coordinate s.

    Attributes
    ----------
    powers : array of shape (degree + 1, degree + 1)
        Coefficients of each spline, or of its derivative, highest power first.
    ends : array of shape (2, degree + 1)
        Slopes of the continuation beyond the left and the right end.
    vanish : bool
        Whether the continuation is 0, as for second and higher derivatives.
    """

    powers: np.ndarray
    ends: np.ndarray
    vanish: bool


def pieces(
    x: torch.Tensor, intervals: int, degree: int, domain: tuple[float, float], order: int
) -> Pieces:
    """The splines, or their derivatives of this order, in the precision of x."""
    return Pieces(*_numbers(x.dtype == torch.float32, intervals, degree, domain, order), order > 1)


@lru_cache(maxsize=1024)
def _numbers(single: bool, intervals: int, degree: int, domain: tuple[float, float], order: int):
    """The polynomials in the format of the loops; they must not be modified."""
    powers, ends = derivative_pieces(intervals, degree, domain, order)
    dtype = np.float32 if single else np.float64
    return np.ascontiguousarray(powers[:, ::-1]).astype(dtype), ends.astype(dtype)


def _share(alone: Any, team: Any, arguments: tuple[Any, ...], size: int, cost: int) -> None:
    """Call `alone(*arguments, start, stop)` for parts of range(size) on torch's number of threads.

    If torch's own threads are not available, use mgnet's for sufficiently expensive work.
    """
    threads, functions = min(torch.get_num_threads(), size), openmp()
    if threads <= 1 or cost < (WORTH if functions[0] else WORTH_OF_OURS):
        alone(*arguments, 0, size)
    elif not functions[0]:
        share(lambda start, stop: alone(*arguments, start, stop), size, threads)
    elif team(*arguments, size, threads, functions):
        raise MemoryError("mgnet's spline layer got no memory for a thread's part of the samples")


class _Memory:
    """Memory of a tensor in the form that NumPy accepts; it does not keep the tensor alive.

    After `Tensor.numpy()`, the storage of a tensor could never be resized, but FSDP resizes it
    between passes.
    """

    __slots__ = ("__array_interface__",)

    def __init__(self, tensor: torch.Tensor):
        self.__array_interface__ = {
            "data": (tensor.data_ptr(), False),
            "shape": (tensor.numel(),),
            "typestr": "=f4" if tensor.dtype == torch.float32 else "=f8",
            "version": 3,
        }


def _flat_parameter(tensor: torch.Tensor) -> np.ndarray:
    """A contiguous tensor as a flat array on the same memory; the tensor must be kept alive."""
    if tensor.numel():
        return np.asarray(_Memory(tensor))
    return np.empty(0, np.float32 if tensor.dtype == torch.float32 else np.float64)


def _flat(tensor: torch.Tensor | None, like: torch.Tensor) -> np.ndarray:
    if tensor is None:
        tensor = like.new_empty(0)
    return tensor.detach().contiguous().numpy().reshape(-1)


def _span(x: torch.Tensor, intervals: int, domain: tuple[float, float]) -> tuple[Any, ...]:
    number = np.float32 if x.dtype == torch.float32 else np.float64
    a, b = domain
    return number(a), number(b), number(intervals / (b - a))


def layer(
    x: torch.Tensor,
    U: torch.Tensor,
    h: torch.Tensor | None,
    intervals: int,
    domain: tuple[float, float],
    pieces: Pieces,
) -> torch.Tensor:
    """Compute `y[n, q] = sum_p h[n, p] sum_i U[p, i, q] b_i(x[n, p])`, with h = None for ones.

    Parameters
    ----------
    x, h : tensor of shape (samples, inputs)
        Inputs, and their weights.
    U : tensor of shape (inputs, splines, outputs)
        Coefficients.
    intervals : int
        Number of intervals of each spline.
    domain : (float, float)
        The interval of all splines.
    pieces : Pieces
        The functions b, splines or their derivatives, in the precision of x.

    Returns
    -------
    tensor of shape (samples, outputs)
        The outputs.
    """
    samples, (inputs, splines, outputs) = len(x), U.shape
    y = x.new_empty(samples, outputs)
    U = U.contiguous()
    flat = _flat(x, x), _flat_parameter(U), _flat(h, x)
    order = (0,) * pieces.powers.shape[1]
    rows = min(samples, 1 + 16384 // inputs)
    tile = min(inputs, max(4, 32768 // (splines * outputs * x.itemsize)))
    shape = inputs, splines, outputs, max(rows, 1), tile
    out = y.numpy().reshape(-1)
    arguments = *flat, _span(x, intervals, domain), shape, order, tuple(pieces), out
    _share(
        spline_loops.layer,
        spline_loops.layer_on_team,
        arguments,
        samples,
        samples * inputs * outputs * len(order),
    )
    return y


def adjoint(
    x: torch.Tensor,
    U: torch.Tensor,
    g: torch.Tensor,
    h: torch.Tensor | None,
    intervals: int,
    domain: tuple[float, float],
    for_x: Pieces | None,
    for_U: Pieces | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Both products with g of shape (samples, outputs), in one pass; empty if not requested.

    Returns
    -------
    (tensor of shape (samples, inputs), tensor of shape (inputs, splines, outputs))
        `sum_iq U[p, i, q] b_i(x[n, p]) g[n, q]` with the functions b in `for_x`, and
        `sum_n h[n, p] b_i(x[n, p]) g[n, q]` with the functions b in `for_U`.
    """
    samples, (inputs, splines, outputs) = len(x), U.shape
    wanted = for_x is not None, for_U is not None
    gx = x.new_empty(x.shape if wanted[0] else 0)
    gU = x.new_empty(U.shape if wanted[1] else 0)
    U = U.contiguous()
    flat = _flat(x, x), _flat_parameter(U), _flat(g, x), _flat(h, x)
    any_pieces: Any = for_x or for_U  # replaces a missing one, because arguments have fixed types
    pieces = tuple(tuple(piece or any_pieces) for piece in (for_x, for_U))
    order = (0,) * any_pieces.powers.shape[1]
    shape = samples, inputs, splines, outputs, max(min(samples, 1024), 1)
    outs = gx.numpy().reshape(-1), gU.numpy().reshape(-1)
    arguments = *flat, _span(x, intervals, domain), shape, order, wanted, *pieces, *outs
    cost = 2 * samples * inputs * (outputs + BESIDES) * len(order)
    _share(spline_loops.adjoint, spline_loops.adjoint_on_team, arguments, inputs, cost)
    return gx, gU
