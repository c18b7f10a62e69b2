"""Levels of tensors, for linear multigrid on a GPU; torch is imported on first use."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import scipy.linalg as la
import scipy.sparse as sp

from mgnet import callbacks, vector
from mgnet.coarse_solver import Direct
from mgnet.level import Level
from mgnet.limits import shown
from mgnet.smoother import Chebyshev, Jacobi, Smoother
from mgnet.transfer import Injection, MatrixTransfer

__all__ = ["TensorDirect", "tensor_levels"]

State = Any

# Unknowns of a level with dense factors: 128 MiB in double precision.
MOST_DENSE = 4096
DTYPES = "float32", "float64", "complex64", "complex128"
# Names of the parts of a nonlinear level: they are functions, which stay on the host.
FUNCTIONS = "residual", "linearize", "objective", "line_search", "recenter"


@dataclass(frozen=True)
class TensorDirect(Smoother):
    """`Direct` on tensors: dense factors that stay on the device of the tensors.

    `Hierarchy.to` uses it instead of `Direct`. The factors are computed once, on the host.

    Parameters
    ----------
    method : "lu" or "pinv"
        LU factors, or the dense pseudo-inverse for singular matrices.

    Examples
    --------
    >>> import torch
    >>> from mgnet import Hierarchy
    >>> level = Level(torch.tensor([[1.0, 0.0], [0.0, 2.0]]), TensorDirect("lu"))
    >>> memory = level.smoother.start(level, torch.zeros(2))
    >>> level.smoother.smooth(level, torch.zeros(2), torch.ones(2), 1, memory)[0]
    tensor([1.0000, 0.5000])
    """

    method: str

    def start(self, level: Level, u: State) -> Any:
        matrix: Any = vector.as_scipy(level.matrix, f"{self} on {level}")
        dense = matrix.toarray() if sp.issparse(matrix) else matrix
        if self.method == "pinv":
            return u.new_tensor(la.pinv(dense))
        with warnings.catch_warnings():  # the pivots show it
            warnings.simplefilter("ignore", la.LinAlgWarning)
            factors, pivots = la.lu_factor(dense, check_finite=False)
        limit = len(dense) * np.finfo(dense.dtype).eps * abs(dense).max(axis=0)
        if (abs(factors.diagonal()) <= limit).any():
            raise ValueError(
                f"{level} has a matrix of shape {dense.shape} that is singular to working "
                "precision; use Direct('pinv') or another coarse solver"
            )
        whole = sys.modules["torch"].int32
        return u.new_tensor(factors), u.new_tensor(pivots + 1, dtype=whole)  # LAPACK counts from 1

    def smooth(
        self, level: Level, u: State, f: State | None, sweeps: int, memory: Any
    ) -> tuple[State, Any]:
        level.charge(float(sweeps))
        if f is None:
            return vector.zeros_like(u), memory
        if self.method == "pinv":
            return memory @ f, memory
        lu_solve = sys.modules["torch"].linalg.lu_solve
        return lu_solve(*memory, f.reshape(-1, 1)).reshape(f.shape), memory

    def __str__(self) -> str:
        return f"Direct({self.method!r}) on tensors"


def tensor_levels(
    levels: Sequence[Level],
    device: Any,
    dtype: Any,
    smoother: Smoother | None,
    post_smoother: Smoother | None,
    coarse_solver: Smoother | None,
) -> list[Level]:
    """The levels with tensors as matrices: sparse CSR tensors, or dense if the matrix is dense.

    Parameters
    ----------
    levels : sequence of Level
        Levels to copy.
    device, dtype, smoother, post_smoother, coarse_solver
        The same as for `Hierarchy.to`.

    Raises
    ------
    TypeError
        If a level has parts that cannot be copied to tensors.

    Examples
    --------
    >>> from mgnet import gallery
    >>> levels = tensor_levels(gallery.poisson(7), "cpu", None, None, None, None)
    >>> str(levels[0].matrix.layout), str(levels[-1].smoother)
    ('torch.sparse_csr', "Direct('lu') on tensors")
    """
    torch = _torch()
    kind = _common_dtype(levels, dtype)
    place = _checked_device(torch, device, kind)
    made = []
    for level in levels:
        for name in FUNCTIONS:
            if getattr(level, name) is not None:
                raise TypeError(
                    f"Hierarchy.to got {level} with a function {name}; only levels of linear "
                    "multigrid, which are matrices, can be moved"
                )
        if level.transfer is None:
            pre, post = coarse_solver or level.smoother, None
        else:
            pre = smoother or level.smoother
            post = post_smoother or (None if smoother else level.post_smoother)
        moved = [None if part is None else _moved_smoother(level, part) for part in (pre, post)]
        operator = _tensor(torch, level.operator, kind, place)
        transfer = _moved_transfer(torch, level, kind, place)
        parts = {"smoother": moved[0], "post_smoother": moved[1]}
        made.append(replace(level, operator=operator, transfer=transfer, **parts))  # type: ignore
    return made


def _torch() -> Any:
    try:
        import torch
    except ImportError:
        raise ImportError(
            "Hierarchy.to needs PyTorch, which is not installed; pip install torch"
        ) from None
    return torch


def _common_dtype(levels: Sequence[Level], wanted: Any) -> np.dtype:
    """The precision of all products: that of level 0, complex if any matrix is."""
    kinds = []
    for level in levels:
        kinds.append(_dtype(level.operator, f"{level} with an operator"))
        for name in ("P", "R", "injection", "interpolation"):
            part = getattr(level.transfer, name, None)
            if type(level.transfer) is MatrixTransfer and not (part is None or _is_late(part)):
                kinds.append(_dtype(part, f"{level} with a transfer {name}"))
    complex_ones = any(kind.kind == "c" for kind in kinds)
    if wanted is None:
        own = np.dtype(float) if kinds[0].kind in "iub" else kinds[0]
        own = vector.at_most_double(own, np.complex64 if complex_ones else np.float32)
        return own
    name = str(wanted).removeprefix("torch.")
    if not str(wanted).startswith("torch.") or name not in DTYPES:
        raise TypeError(
            f"Hierarchy.to got dtype {shown(wanted)}; give one of "
            f"{', '.join(f'torch.{known}' for known in DTYPES)}"
        )
    if complex_ones and not name.startswith("complex"):
        raise ValueError(
            f"Hierarchy.to got dtype {wanted} for complex matrices; give torch.complex64 or "
            "torch.complex128"
        )
    return np.dtype(name)


def _dtype(matrix: Any, what: str) -> np.dtype:
    known, kind = False, None
    if isinstance(matrix, np.ndarray) or sp.issparse(matrix):
        kind = matrix.dtype
        known = kind.kind in "fciub"
    elif vector.is_tensor(matrix):
        kind = str(matrix.dtype).removeprefix("torch.")
        known = kind in DTYPES
    if not known:
        of = "" if kind is None else f" of {kind}"
        raise TypeError(
            f"Hierarchy.to got {what} of type {type(matrix).__name__}{of}; give a SciPy sparse "
            "matrix, a NumPy array or a torch tensor of real or complex numbers"
        )
    return np.dtype(kind)


def _checked_device(torch: Any, device: Any, kind: np.dtype) -> Any:
    """The device, after a test that it can multiply a sparse tensor."""
    try:
        place = torch.device(device)
        one = _tensor(torch, sp.csr_matrix(np.ones((1, 1))), kind, place)
        _ = one @ torch.ones(1, dtype=one.dtype, device=place)
    except (RuntimeError, AssertionError, TypeError) as error:
        told = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        cuda = torch.cuda.is_available()
        remedy = f"give another device, such as {'cuda' if cuda else 'cpu'!r}"
        if str(device).startswith("cuda") and not cuda:
            remedy += ", or install PyTorch for CUDA on a machine with a GPU"
        raise ValueError(
            f"Hierarchy.to got device {shown(device)} and {kind}, for which torch has no sparse "
            f"product here ({told}); {remedy}"
        ) from None
    return place


def _tensor(torch: Any, matrix: Any, kind: np.dtype, device: Any) -> Any:
    """A copy of the matrix on the device."""
    dtype = getattr(torch, kind.name)
    host: Any = vector.as_scipy(matrix)
    if not sp.issparse(host):
        return torch.tensor(np.ascontiguousarray(host, kind), dtype=dtype, device=device)
    if not host.has_canonical_format:
        host = host.copy()
        host.sum_duplicates()
    parts = host.indptr, host.indices, host.data.astype(kind)
    indptr, indices, data = (torch.tensor(part, device=device) for part in parts)
    with warnings.catch_warnings():  # torch calls the format a beta
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(
            indptr, indices, data, size=host.shape, dtype=dtype, check_invariants=True
        )


def _moved_transfer(torch: Any, level: Level, kind: np.dtype, device: Any) -> Any:
    transfer = level.transfer
    if transfer is None or type(transfer) is Injection:  # slices any state
        return transfer
    if type(transfer) is not MatrixTransfer:
        raise TypeError(
            f"Hierarchy.to got {level} with a transfer {type(transfer).__name__}; give a "
            "MatrixTransfer"
        )
    parts = transfer.P, transfer.R, transfer.injection, transfer.interpolation

    def moved(part: Any) -> Any:
        late = _is_late(part)
        return _OnFirstUse(part, kind, device) if late else _tensor(torch, part, kind, device)

    return MatrixTransfer(*(None if part is None else moved(part) for part in parts))


def _is_late(part: Any) -> bool:
    """Whether this is a matrix of mgnet that is built on first use, such as cubic interpolation."""
    return callbacks.ours(part) and hasattr(type(part), "matrix")


class _OnFirstUse:
    def __init__(self, part: Any, kind: np.dtype, device: Any):
        self.shape = part.shape
        self._part, self._kind, self._device = part, kind, device

    @cached_property
    def matrix(self) -> Any:
        return _tensor(sys.modules["torch"], self._part.matrix, self._kind, self._device)

    def __matmul__(self, u: State) -> State:
        return self.matrix @ u


def _moved_smoother(level: Level, given: Smoother) -> Smoother:
    if type(given) in (Direct, TensorDirect):
        if level.unknowns > MOST_DENSE:
            raise ValueError(
                f"Hierarchy.to got Direct on {level}, which has {level.unknowns} unknowns; on "
                f"tensors its factors are dense, for at most {MOST_DENSE}, so use more levels or "
                "give coarse_solver=Chebyshev(10)"
            )
        return TensorDirect(given.method)  # type: ignore[attr-defined]
    if type(given) in (Jacobi, Chebyshev) or not callbacks.ours(given):
        return given
    remedy = "coarse_solver=Direct('pinv')"
    if level.transfer is not None:
        remedy = "smoother=Chebyshev(kind='opt_fourth') or smoother=Jacobi()"
    raise TypeError(
        f"Hierarchy.to got {level} with the smoother {given}, which does not work on tensors; give "
        f"{remedy}"
    )
