"""The few operations on states that depend on their kind: NumPy array, torch tensor or PETSc Vec.

The rest of the core uses `+ - *` and `@` only. torch and petsc4py are not imported here: if a
tensor or a Vec is passed in, its library is already loaded and in `sys.modules`.
"""

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp

from mgnet import kernels, mats
from mgnet.kinds import is_mat, is_tensor, is_vec
from mgnet.norms import dot, is_finite, norm, unknown

__all__ = [
    "apply",
    "as_numpy",
    "as_scipy",
    "concatenate",
    "dot",
    "empty_like",
    "is_finite",
    "join",
    "like",
    "norm",
    "random_like",
    "zeros_like",
]

State = Any


def state_shape(u: State) -> tuple[int, ...]:
    """The lengths of the axes of a state (for a Vec, over all ranks), without a copy."""
    if not same_kind(u, u):
        raise unknown(u)
    return (u.getSize(),) if is_vec(u) else tuple(u.shape)


def dtype_of(u: State) -> np.dtype:
    """The precision of a state as a NumPy type, without a copy."""
    if is_tensor(u):
        return np.dtype(str(u.dtype).removeprefix("torch."))
    return np.dtype(sys.modules["petsc4py.PETSc"].ScalarType) if is_vec(u) else u.dtype


def precision_of(u: State) -> float:
    """The distance from 1 to the next larger number in the precision of a state.

    Examples
    --------
    >>> precision_of(np.ones(2)) == 2.0**-52
    True
    """
    of = sys.modules["torch"].finfo if is_tensor(u) else np.finfo
    return float(of(u.dtype if is_tensor(u) else dtype_of(u)).eps)


def at_most_double(*dtypes: Any) -> np.dtype:
    """The common precision, but at most double, since LAPACK and SciPy lack higher ones.

    Examples
    --------
    >>> at_most_double(np.dtype("longdouble")), at_most_double("f4", "f2")
    (dtype('float64'), dtype('float32'))
    """
    dtype = np.result_type(*dtypes)
    return np.dtype({"g": np.float64, "G": np.complex128}.get(dtype.char, dtype))


def computes(u: State) -> bool:
    """Whether a state has numbers to compute with: floating-point or complex, not half precision.

    Examples
    --------
    >>> computes(np.ones(2)), computes(np.ones(2, dtype=np.float16)), computes(np.array(["1"]))
    (True, False, False)
    """
    if is_tensor(u):
        return u.dtype.is_floating_point or u.dtype.is_complex
    return not isinstance(u, np.ndarray) or (u.dtype.kind in "fc" and u.dtype.itemsize >= 4)


def multiplies(matrix: Any, u: State) -> bool:
    """Whether `matrix @ u` is possible, as far as type, precision and device show.

    Examples
    --------
    >>> multiplies(sp.eye(2), np.ones(2))
    True
    """
    if isinstance(matrix, np.ndarray) or sp.issparse(matrix):
        return isinstance(u, np.ndarray)
    if not is_tensor(matrix):
        return True
    return is_tensor(u) and u.dtype == matrix.dtype and u.device == matrix.device


def alike(u: Any, v: State) -> bool:
    """Whether `u` is a state with the kind and shape of `v`; shapes of Vecs are not compared.

    Examples
    --------
    >>> alike(np.ones(2), np.zeros(2)), alike(None, np.zeros(2)), alike(np.ones(3), np.zeros(2))
    (True, False, False)
    """
    return same_kind(u, v) and (is_vec(u) or u.shape == v.shape)


def same_kind(u: Any, v: Any) -> bool:
    """Whether both are arrays, or tensors, or Vecs.

    Examples
    --------
    >>> same_kind(np.ones(2), np.zeros(3)), same_kind(np.ones(2), [0.0, 0.0])
    (True, False)
    """
    return any(kind(u) and kind(v) for kind in (_is_array, is_tensor, is_vec))


def _is_array(u: Any) -> bool:
    return isinstance(u, np.ndarray)


def describe(u: Any) -> str:
    """The type of an object, with shape, precision and device of an array or a tensor.

    Examples
    --------
    >>> describe(np.ones((2, 3))), describe(None)
    ('ndarray (2, 3) of float64', 'NoneType')
    """
    place = f" on {u.device}" if is_tensor(u) and u.device.type != "cpu" else ""
    shaped = isinstance(u, np.ndarray) or is_tensor(u)
    return type(u).__name__ + (f" {tuple(u.shape)} of {u.dtype}{place}" if shaped else "")


def zeros_like(u: State, shape: tuple[int, ...] | None = None) -> State:
    """A state of zeros like `u` in kind, precision and device, and in shape unless one is given.

    Examples
    --------
    >>> zeros_like(np.array([1.0, 2.0]))
    array([0., 0.])
    """
    if isinstance(u, np.ndarray):
        return np.zeros(u.shape if shape is None else shape, u.dtype)
    if is_tensor(u):
        return u.new_zeros(u.shape if shape is None else shape)
    if is_vec(u) and shape is None:
        v = u.duplicate()
        v.set(0.0)
        return v
    raise unknown(u)


def empty_like(u: State, shape: tuple[int, ...] | None = None) -> State:
    """An uninitialized array or tensor of the kind of `u`, with its shape unless one is given.

    Examples
    --------
    >>> empty_like(np.zeros(2), (3, 1)).shape
    (3, 1)
    """
    if is_tensor(u):
        return u.new_empty(u.shape if shape is None else shape)
    return np.empty(u.shape if shape is None else shape, u.dtype)


def as_numpy(u: State) -> np.ndarray:
    """The entries of a state as a NumPy array (for a Vec, those of this rank); may share memory.

    Examples
    --------
    >>> as_numpy(np.array([1.0, 2.0]))
    array([1., 2.])
    """
    if isinstance(u, np.ndarray):
        return u
    if is_tensor(u):
        # A conjugate, or its imaginary part, is a view with a sign that NumPy cannot represent.
        return u.detach().cpu().resolve_conj().resolve_neg().numpy()
    if is_vec(u):
        return u.getArray(readonly=True)
    raise unknown(u)


def like(values: np.ndarray, u: State) -> State:
    """A new state with the kind, shape, precision and device of `u` and the given entries.

    Examples
    --------
    >>> like(np.array([1, 2]), np.array([0.0, 0.0]))
    array([1., 2.])
    """
    values = as_numpy(values) if is_tensor(values) else values
    if isinstance(u, np.ndarray):
        return np.array(values, dtype=u.dtype).reshape(u.shape)
    if is_tensor(u):
        values = np.ascontiguousarray(values)  # torch refuses negative strides
        return sys.modules["torch"].tensor(values, dtype=u.dtype, device=u.device).reshape(u.shape)
    if is_vec(u):
        v = u.duplicate()
        v.setArray(np.asarray(values).ravel())
        return v
    raise unknown(u)


def completed(values: np.ndarray, u: State) -> State:
    """`like(values, u)`, but complex values stay complex if u is a real array.

    Examples
    --------
    >>> completed(np.array([1j]), np.zeros(1))
    array([0.+1.j])
    """
    if isinstance(u, np.ndarray) and values.dtype.kind == "c" and u.dtype.kind != "c":
        return values.reshape(u.shape)
    return like(values, u)


def solved_by_parts(solve: Any, dtype: np.dtype, b: np.ndarray) -> np.ndarray:
    """`solve(b)` for any b, if `solve` accepts arrays of one precision only.

    Examples
    --------
    >>> solved_by_parts(lambda b: 2.0 * b, np.dtype(float), np.array([1.0 + 1.0j]))
    array([2.+2.j])
    """
    if b.dtype.kind == "c" and dtype.kind != "c":
        real, imaginary = (solve(part.astype(dtype)) for part in (b.real, b.imag))
        return real + 1j * imaginary
    return solve(b.astype(dtype, copy=False))


def in_precision_of(u: State | None, v: State) -> State:
    """The state v, in the precision of u if both are arrays; levels may differ in precision.

    Examples
    --------
    >>> in_precision_of(np.ones(1, np.float32), np.ones(1)).dtype
    dtype('float32')
    """
    if isinstance(u, np.ndarray) and isinstance(v, np.ndarray) and v.dtype != u.dtype:
        return v.astype(u.dtype)
    return v


def concatenate(parts: Sequence[State]) -> State:
    """The entries of several arrays or tensors in one flat array or tensor.

    Examples
    --------
    >>> concatenate([np.array([1.0]), np.array([[2.0, 3.0]])])
    array([1., 2., 3.])
    """
    flat = [part.reshape(-1) for part in parts]
    return sys.modules["torch"].cat(flat) if is_tensor(flat[0]) else np.concatenate(flat)


def join(parts: Sequence[State]) -> State:
    """Arrays or tensors joined along axis 0.

    Examples
    --------
    >>> join([np.ones((1, 2)), np.zeros((2, 2))]).shape
    (3, 2)
    """
    return sys.modules["torch"].cat(parts) if is_tensor(parts[0]) else np.concatenate(parts)


def random_like(u: State, generator: np.random.Generator) -> State:
    """A state of standard normal entries with the kind, shape, precision and device of `u`.

    Examples
    --------
    >>> random_like(np.zeros(2), np.random.default_rng(0)).round(3)
    array([ 0.126, -0.132])
    """
    if is_vec(u):
        return like(mats.random_entries(u, generator), u)
    return like(generator.standard_normal(state_shape(u)), u)


def apply(operator: Any, u: State) -> State:
    """`operator(u)` for a callable (such as a SciPy LinearOperator or a Mat), else `operator @ u`.

    Examples
    --------
    >>> apply(np.array([[2.0]]), np.array([3.0])), apply(abs, -1.0)
    (array([6.]), 1.0)
    """
    return operator(u) if callable(operator) else kernels.multiply(operator, u)


def shape_of(matrix: Any) -> tuple[int, int]:
    """Rows and columns of a matrix of any kind (for a Mat, over all ranks).

    Examples
    --------
    >>> shape_of(np.ones((2, 3)))
    (2, 3)
    """
    if isinstance(matrix, list | tuple):
        raise TypeError(
            f"got a {type(matrix).__name__} as a matrix; give numpy.array(...) or "
            "scipy.sparse.csr_matrix(...) of it"
        )
    rows, columns = matrix.getSize() if is_mat(matrix) else matrix.shape
    return int(rows), int(columns)


def diagonal_like(matrix: Any, u: State) -> State:
    """The diagonal of a matrix as a state like `u`.

    Raises
    ------
    ValueError
        If the diagonal has a zero (on any rank).

    Examples
    --------
    >>> diagonal_like(np.diag([2.0, 3.0]), np.zeros(2))
    array([2., 3.])
    """
    if is_mat(matrix):
        diagonal = matrix.getDiagonal()
        least = diagonal.copy()
        least.abs()
        smallest = least.min()[1]
    else:
        values = as_scipy(matrix).diagonal()
        real = isinstance(u, np.ndarray) and u.dtype.kind != "c"
        diagonal = values if real and values.dtype.kind == "c" else like(values, u)
        smallest = abs(values).min(initial=1)
    if smallest == 0.0:
        raise ValueError(
            "the matrix has zeros on its diagonal; use a smoother that solves for several "
            "unknowns at a time, such as MultiplicativeSchwarz or BlockGaussSeidel"
        )
    return diagonal


def as_scipy(matrix: Any, owner: str = "") -> sp.csr_matrix | np.ndarray:
    """A matrix of any kind as a SciPy CSR matrix or, if it is dense, as a NumPy array.

    Parameters
    ----------
    matrix : SciPy sparse matrix, NumPy array, torch tensor (dense or sparse) or PETSc Mat
        Matrix with all entries on one rank; a tensor on an accelerator is copied to the host.
    owner : str
        Name of the caller in messages.

    Raises
    ------
    TypeError
        If the entries of the matrix cannot be read (a function, a LinearOperator, a Mat
        distributed over ranks).

    Examples
    --------
    >>> as_scipy(sp.eye(2)).format
    'csr'
    """
    if isinstance(matrix, np.ndarray):
        return matrix
    if sp.issparse(matrix):
        return sp.csr_matrix(matrix)
    if is_tensor(matrix):
        matrix = matrix.detach().cpu()
        if sys.modules["torch"].strided == matrix.layout:
            return as_numpy(matrix)
        matrix = matrix.to_sparse_coo().coalesce()
        return sp.csr_matrix(
            (matrix.values().numpy(), matrix.indices().numpy()), shape=tuple(matrix.shape)
        )
    if is_mat(matrix) and matrix.getComm().getSize() == 1:
        indptr, indices, data = matrix.getValuesCSR()
        return sp.csr_matrix((data, indices, indptr), shape=matrix.getSize())
    mats.refuse_spread(matrix, owner)
    raise TypeError(
        f"matrix has the type {type(matrix).__name__}; "
        "the entries are needed here: give a SciPy sparse matrix, "
        "a NumPy array, a torch tensor or a PETSc Mat on one rank"
    )
