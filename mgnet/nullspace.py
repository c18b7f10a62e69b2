"""Singular equations: `NullSpace`, the vectors that a matrix maps to zero."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as spla

from mgnet import norms, vector
from mgnet.combinations import add_scaled, inner
from mgnet.limits import shown

__all__ = ["NullSpace", "in_range"]

State = Any

# A vector counts as a null vector if the matrix scales it by less than this factor times the
# scaling of a random vector; rounding in single precision stays below the second value.
NULL = 1e-8
NULL_SINGLE = 1e-4


class NullSpace:
    """The null space of a matrix, for a hierarchy that solves a singular equation.

    `A u = f` has a solution if f is orthogonal to the left null space, which is the null space of
    the conjugate transpose; the solutions then differ by null vectors. `Solver` projects f onto
    such right-hand sides (`Solution.projected` is the relative norm of the removed part) and keeps
    the component of the initial state in the null space. If constants are null vectors, this
    component is the mean of the initial state (0 if no initial state is given).

    Parameters
    ----------
    vectors : "constant", array of shape (n,) or (n, k), or sequence of k states
        A basis, not necessarily orthonormal: "constant" is the vector of ones, as for Neumann or
        periodic boundaries. Give tensors and PETSc Vecs in a sequence.
    left : the same types, optional
        Basis of the left null space; `vectors` by default, which is right for symmetric matrices.

    Raises
    ------
    TypeError, ValueError
        If the vectors are not finite or are linearly dependent.

    Examples
    --------
    A periodic interval, where the solution is unique up to its mean:

    >>> from mgnet import Hierarchy, Jacobi, Level, Solver
    >>> A = np.array([[2.0, -1.0, -1.0], [-1.0, 2.0, -1.0], [-1.0, -1.0, 2.0]])
    >>> level = Level(A, Jacobi(0.8))
    >>> solver = Solver(Hierarchy([level], nullspace="constant"), "V(0,0)")
    >>> solution = solver.solve(np.array([2.0, 0.0, 1.0]))
    >>> solution.value.round(6) + 0.0, round(solution.projected, 3)
    (array([ 0.333333, -0.333333,  0.      ]), 0.775)
    """

    def __init__(self, vectors: Any = "constant", left: Any = None):
        self.vectors: list[State] | None = _basis("NullSpace", vectors)
        self.left: list[State] | None = self.vectors if left is None else _basis("left", left)
        self._kept: dict[tuple[int, str], list[State]] = {}

    @classmethod
    def of(cls, given: Any, matrix: Any = None) -> NullSpace | None:
        """Build a null space from a user's argument, or from the one attached to a PETSc Mat.

        Parameters
        ----------
        given : None, "constant", array, sequence of states or NullSpace
            Null space in any of these forms.
        matrix : matrix, optional
            Matrix whose attached null space is used if none is given.

        Examples
        --------
        >>> str(NullSpace.of("constant")), NullSpace.of(None)
        ('NullSpace of constants', None)
        """
        if isinstance(given, NullSpace):
            return given
        if given is not None:
            return cls(given)
        right = _attached(matrix, "getNullSpace")
        return None if right is None else cls(right, _attached(matrix, "getTransposeNullSpace"))

    def project(self, f: State) -> State:
        """Return f without its component in the left null space.

        Examples
        --------
        >>> NullSpace().project(np.array([1.0, 3.0]))
        array([-1.,  1.])
        """
        return self._without(self.left, f)

    def remove(self, u: State, keep: State | None = None) -> State:
        """Return u without its component in the null space, or with that of `keep`.

        Examples
        --------
        >>> NullSpace().remove(np.array([1.0, 3.0]), keep=np.array([5.0, 5.0]))
        array([4., 6.])
        """
        new = self._without(self.vectors, u)
        if keep is None:
            return new
        for v in self._like(self.vectors, u):
            new = add_scaled(new, inner(v, keep), v)
        return new

    def _without(self, basis: list[State] | None, u: State) -> State:
        new = u.copy() if not vector.is_tensor(u) else u.clone()
        for v in self._like(basis, u):
            new = add_scaled(new, -inner(v, new), v)
        return new

    def _like(self, basis: list[State] | None, u: State) -> list[State]:
        """The basis with the kind and precision of u."""
        kind: Any = u.getSizes() if vector.is_vec(u) else (u.dtype, u.shape)
        if vector.is_tensor(u):
            kind = *kind, u.device
        key = id(basis), f"{type(u).__name__} {kind}"
        if key not in self._kept:
            self._kept[key] = [_ones(u)] if basis is None else [_cast(v, u) for v in basis]
        return self._kept[key]

    def check(self, matrix: Any) -> None:
        """Check that the matrix maps the null vectors to zero, and its transpose the left ones.

        Raises
        ------
        ValueError
            If a vector is not a null vector.

        Examples
        --------
        >>> NullSpace().check(np.eye(2))
        Traceback (most recent call last):
        ValueError: nullspace got a vector that the matrix does not map to zero: ...
        """
        like = _state_of(matrix)
        limit = NULL if vector.precision_of(like) < 1e-10 else NULL_SINGLE
        kept = norms.norm(vector.apply(matrix, vector.random_like(like, np.random.default_rng(0))))
        kept /= math.sqrt(math.prod(vector.state_shape(like)))
        for number, v in enumerate(self._like(self.vectors, like)):
            image = vector.apply(matrix, v)
            length = norms.norm(image)
            if not length <= limit * kept:
                raise ValueError(
                    "nullspace got a vector that the matrix does not map to zero: its product "
                    f"with number {number}, scaled to length 1, has the norm {length:.1e}, and "
                    f"{kept:.1e} for a random one; leave nullspace out if the matrix is regular"
                )
            row = _row_off(matrix, v, image, 100.0 * limit)
            if row is not None:
                raise ValueError(
                    f"nullspace got a vector, number {number}, that row {row} of the matrix does "
                    "not map to zero, relative to the entries of that row; leave nullspace out "
                    "if the matrix is regular"
                )
        for number, w in enumerate(self._like(self.left, like)):
            image = _transposed_product(matrix, w)
            if image is not None and not norms.norm(image) <= limit * kept:
                raise ValueError(
                    f"nullspace got a left vector, number {number}, that the transpose of the "
                    "matrix does not map to zero: the product has the norm "
                    f"{norms.norm(image):.1e}; give nullspace=NullSpace(vectors, left=...) for a "
                    "matrix that is not symmetric"
                )

    def __str__(self) -> str:
        if self.vectors is None:
            return "NullSpace of constants"
        return f"NullSpace of {len(self.vectors)} vectors"


def in_range(
    nullspace: NullSpace | None, f: State | None, norm: Callable[[State], float]
) -> tuple[State | None, float]:
    """The part of f in the range of a singular matrix, and the relative norm of the rest.

    Examples
    --------
    >>> in_range(NullSpace(), np.array([1.0, 1.0]), norms.norm)
    (array([0., 0.]), 1.0)
    """
    if f is None or nullspace is None:
        return f, 0.0
    new, size = nullspace.project(f), norm(f)
    if not 0.0 < size < math.inf:
        return new, 0.0
    projected = norm(f - new) / size
    if norm(new) <= 10.0 * vector.precision_of(f) * size:
        new = vector.zeros_like(f)  # otherwise the solve would be for the rounding of f
    return new, projected


def _attached(matrix: Any, getter: str) -> Any:
    """The null space of a PETSc Mat in a form that `NullSpace` accepts, or None."""
    if not vector.is_mat(matrix):
        return None
    space = getattr(matrix, getter)()
    if not space or not space.handle:
        return None
    vectors = list(space.getVecs())
    if not space.hasConstant():
        return vectors or None
    return "constant" if not vectors else [_ones(vectors[0]), *vectors]


def _basis(owner: str, given: Any) -> list[State] | None:
    """Orthonormal vectors, or None for the constant vector."""
    if isinstance(given, str):
        if given != "constant":
            raise ValueError(
                f"{owner} got {shown(given)}; give 'constant' or the vectors, as an array of shape "
                "(n,) or (n, k)"
            )
        return None
    vectors = _columns(owner, given)
    orthonormal: list[State] = []
    for number, v in enumerate(vectors):
        length = norms.norm(v)
        if not 0.0 < length < math.inf:
            raise ValueError(
                f"{owner} got vector {number} of norm {length}; give finite vectors that are not "
                "zero"
            )
        # 1 / length may overflow.
        rest = norms.times_power_of_two(v, -norms.binary_exponent(length))
        rest = rest * (1.0 / norms.norm(rest))
        for _ in range(2):  # twice, to correct the rounding of the first pass
            for q in orthonormal:
                rest = rest - inner(q, rest) * q
        left = norms.norm(rest)
        if left <= 1e-10:
            raise ValueError(
                f"{owner} got vector {number} that is a combination of those before it; leave it "
                "out"
            )
        orthonormal.append(rest * (1.0 / left))
    return orthonormal


def _columns(owner: str, given: Any) -> Sequence[State]:
    if sp.issparse(given):
        given = given.toarray()
    if vector.is_vec(given) or vector.is_tensor(given):
        given = [given]
    if isinstance(given, list | tuple) and given and not np.isscalar(given[0]):
        if all(vector.is_vec(v) or vector.is_tensor(v) for v in given):
            return [v.copy() if vector.is_vec(v) else _wide(v) for v in given]
        columns = [np.ravel(v) for v in given]
        if len({len(column) for column in columns}) > 1:
            raise ValueError(
                f"{owner} got vectors of {', '.join(str(len(column)) for column in columns)} "
                "entries; give all of one length, or an array of shape (n, k)"
            )
        given = np.stack(columns, axis=1)
    try:
        array = np.asarray(given)
    except ValueError:  # a list of strings and arrays
        array = np.array(None)
    odd = array.ndim not in (1, 2) or not array.size or np.ma.is_masked(given)
    if odd or array.dtype.kind not in "fciub":
        raise TypeError(
            f"{owner} got {vector.describe(given)}; give 'constant', or numbers in an array of "
            "shape (n,) or (n, k), a column for each vector"
        )
    if array.ndim == 2 and array.shape[1] > array.shape[0]:
        raise ValueError(
            f"{owner} got an array of shape {array.shape}: it has more vectors than entries per "
            "vector; give a column for each vector, for example with .T"
        )
    wide = np.promote_types(array.dtype, float)
    return list(np.ascontiguousarray(array.reshape(len(array), -1).T, wide))


def _wide(v: Any) -> Any:
    """A tensor in double precision, in which it is scaled to length 1."""
    return v.detach() + vector.zeros_like(v.detach()).double()


def _row_off(matrix: Any, v: State, image: State, limit: float) -> int | None:
    """A row whose product with v is not zero, relative to the size of its own entries."""
    if not isinstance(matrix, np.ndarray) and not sp.issparse(matrix):
        return None
    sizes = np.asarray(abs(matrix).sum(axis=1)).ravel()
    off = abs(image) > limit * sizes * abs(v).max()
    return int(np.argmax(off)) if off.any() else None


def _state_of(matrix: Any) -> State:
    """A state that a matrix can multiply."""
    if vector.is_mat(matrix):
        return matrix.createVecRight()
    rows = vector.shape_of(matrix)[0]
    if vector.is_tensor(matrix):
        return matrix.new_zeros((rows,), layout=sys.modules["torch"].strided)
    kind = getattr(matrix, "dtype", None)
    return np.zeros(rows, np.result_type(kind if isinstance(kind, np.dtype) else float, np.float32))


def _ones(u: State) -> State:
    count = math.prod(vector.state_shape(u))
    if vector.is_vec(u):
        ones = u.duplicate()
        ones.set(1.0 / math.sqrt(count))
        return ones
    return vector.zeros_like(u) + 1.0 / math.sqrt(count)


def _cast(v: State, u: State) -> State:
    if vector.is_vec(v):
        return v
    if math.prod(vector.state_shape(v)) != math.prod(vector.state_shape(u)):
        raise ValueError(
            f"nullspace got vectors of {math.prod(vector.state_shape(v))} entries; level 0 has "
            f"{math.prod(vector.state_shape(u))} unknowns"
        )
    values = vector.as_numpy(v)
    if vector.is_vec(u):  # every rank has all numbers and copies its own
        values = values[slice(*u.getOwnershipRange())]
    if values.dtype.kind == "c" and vector.dtype_of(u).kind != "c":
        raise ValueError(
            "nullspace got complex vectors for real states; give real and imaginary parts as two"
        )
    return vector.like(values, u)


def _transposed_product(matrix: Any, w: State) -> State | None:
    """The conjugate transpose of a matrix times w; None if there is no such product."""
    if vector.is_mat(matrix):
        product = w.duplicate()
        try:
            matrix.multTranspose(w, product)
        except Exception:  # a Mat of type "python" may have no transpose
            return None
        return product
    try:
        if isinstance(matrix, spla.LinearOperator):
            return matrix.H @ w
        image = matrix.T @ w.conj()
    except (AttributeError, TypeError, NotImplementedError, ValueError):
        return None
    return image.conj()
