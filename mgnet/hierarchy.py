"""The levels of a multigrid method: `Hierarchy`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from numbers import Integral
from typing import Any, overload

import numpy as np

from mgnet import callbacks, consistency, vector
from mgnet.coarse_solver import Direct
from mgnet.galerkin import conjugated, galerkin_products
from mgnet.gauss_seidel import GaussSeidel
from mgnet.grid_levels import grid_levels
from mgnet.hierarchy_table import table
from mgnet.level import Level
from mgnet.matrix_levels import matrix_levels
from mgnet.nullspace import NullSpace
from mgnet.pyamg_levels import pyamg_levels
from mgnet.smoother import Jacobi, Smoother
from mgnet.tensor_levels import tensor_levels

__all__ = ["Hierarchy"]

State = Any


class Hierarchy(Sequence[Level]):
    """The levels of a multigrid method; `[0]` is the finest, and `print` shows them as a table.

    Parameters
    ----------
    levels : sequence of Level
        Levels, finest first; each but the last has a transfer to the next.
    norm, dot : callable, optional
        Replacements for `vector.norm` and `vector.dot`, for states spread over MPI ranks.
    bind : callable, optional
        `batch -> sequence of Level`: the same levels for one batch of the data, for `with_data`.
    nested : bool
        Claim that the coarse equation is the fine one restricted to the range of the transfer,
        `A_{l+1}(w) = restrict(A_l(prolong(w)))`, and the same for the objective; `check` tests it.
    network : callable, optional
        `(number of a level, state of that level) -> network` with the state as its parameters.
    nullspace : "constant", array of shape (n,) or (n, k), or NullSpace, optional
        Null space of a singular matrix of level 0; by default the one attached to a PETSc Mat.

    Raises
    ------
    TypeError, ValueError
        If the parts of a level do not fit together; the message gives the level's number.

    Examples
    --------
    >>> from mgnet import gallery
    >>> print(gallery.poisson((15, 15)))
    Hierarchy of 4 levels, 284 unknowns in all (1.26 times the finest)
    level  unknowns     cost  smoother                transfer
        0       225        1  Jacobi(omega=0.666667)  MatrixTransfer
        1        49    0.218  Jacobi(omega=0.666667)  MatrixTransfer
        2         9     0.04  Jacobi(omega=0.666667)  MatrixTransfer
        3         1  0.00444  Direct('lu')            -
    """

    def __init__(
        self,
        levels: Sequence[Level],
        *,
        norm: Callable[[State], float] = vector.norm,
        dot: Callable[[State, State], float] = vector.dot,
        bind: Callable[[Any], Sequence[Level]] | None = None,
        nested: bool = False,
        network: Callable[[int, State], Any] | None = None,
        nullspace: Any = None,
    ):
        if isinstance(levels, Level):
            raise TypeError("Hierarchy got a Level; it takes a sequence of them: [level, ...]")
        self.levels = tuple(levels)
        self.norm: Callable[[State], float] = callbacks.real_function(
            "Hierarchy", "a norm", norm, least=0.0
        )
        self.dot: Callable[[State, State], float] = callbacks.real_function(
            "Hierarchy", "a dot", dot
        )
        self.bind = bind
        self.nested = nested
        self.network: Callable[[int, State], Any] = network or callbacks.no_network
        consistency.check_levels(self.levels)
        matrix = self.levels[0].matrix
        self.nullspace: NullSpace | None = NullSpace.of(nullspace, matrix)
        if self.nullspace is not None and matrix is not None:
            self.nullspace.check(matrix)

    @overload
    def __getitem__(self, index: int) -> Level: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Level, ...]: ...
    def __getitem__(self, index: int | slice) -> Level | tuple[Level, ...]:
        return self.levels[index]

    def __len__(self) -> int:
        return len(self.levels)

    @property
    def is_finite(self) -> Callable[[State], bool]:
        """`is_finite(u)`: whether a state has no NaN and no Inf on any rank."""
        norm = self.norm
        return vector.is_finite if norm is vector.norm else lambda u: math.isfinite(norm(u))

    def with_data(self, batch: Any) -> Hierarchy:
        """The same hierarchy with one batch of the data bound to all levels by its `bind`.

        Raises
        ------
        TypeError
            If the hierarchy has no `bind`.
        """
        if self.bind is None:
            raise TypeError("Hierarchy.with_data got a batch; first give Hierarchy(bind=...)")
        return self.with_levels(self.bind(batch))

    def with_levels(
        self,
        levels: Sequence[Level] | Callable[[Sequence[Level]], Sequence[Level]],
        first: int = 0,
    ) -> Hierarchy:
        """A hierarchy with other levels that keeps `norm`, `dot`, `bind` and so on.

        Parameters
        ----------
        levels : sequence of Level, or callable
            New levels. A function of the levels is also applied to the levels of every batch; with
            a sequence, `with_data` uses the levels from `bind`. `nested` is kept: if operators or
            transfers change, test it with `check`.
        first : int
            First level of the new hierarchy; `network` counts from it. Above 0 `nullspace` is lost.

        Raises
        ------
        ValueError
            If `first` is not the number of a level.

        Examples
        --------
        >>> from mgnet import gallery
        >>> gallery.poisson(15).with_levels(lambda levels: levels[1:], first=1)[0].unknowns
        7
        """
        if not isinstance(first, Integral) or not 0 <= first < len(self):
            got = f"Hierarchy.with_levels got first = {first!r}"
            raise ValueError(f"{got}; give the number of a level, from 0 to {len(self) - 1}")
        bind, network = self.bind, self.network
        if callable(levels):
            change, levels = levels, levels(self.levels)
            bind = None if bind is None else partial(callbacks.bind_changed, bind, change)
        if first:
            network = partial(callbacks.network_below, network, first)
        null = None if first else self.nullspace
        norm, dot, nested = self.norm, self.dot, self.nested
        return Hierarchy(
            levels, norm=norm, dot=dot, bind=bind, nested=nested, network=network, nullspace=null
        )

    def to(
        self,
        device: Any,
        dtype: Any = None,
        smoother: Smoother | None = None,
        post_smoother: Smoother | None = None,
        coarse_solver: Smoother | None = None,
    ) -> Hierarchy:
        """Linear multigrid on tensors, for example on a GPU: copies of all matrices on a device.

        f and u are then tensors on this device. After the setup in the first cycle, `run` waits for
        the device once, at its end; `Solver` waits for every residual norm and inner product.

        Parameters
        ----------
        device, dtype : torch.device, torch.dtype or None
            Device and type of the copies; by default the type of level 0, complex if any level is.
        smoother, post_smoother, coarse_solver : Smoother, optional
            Replacements for smoothers that do not work on tensors: `Jacobi`, `Chebyshev`, `Direct`.

        Raises
        ------
        TypeError
            If the hierarchy has its own norm, dot or bind, or parts that cannot be moved.

        Examples
        --------
        >>> import torch
        >>> from mgnet import Solver, gallery
        >>> Solver(gallery.poisson(7).to("cpu")).solve(torch.ones(7).double()).reason.name
        'RTOL'
        """
        parts = smoother, post_smoother, coarse_solver
        if self.bind or self.norm is not vector.norm or self.dot is not vector.dot:
            raise TypeError("Hierarchy.to got a hierarchy with norm, dot or bind; leave these out")
        return self.with_levels(tensor_levels(self.levels, device, dtype, *parts))

    def check(self, u: State, seed: int = 0) -> str:
        """Test the laws that the parts must obey, at `u` and at random states; one line per law.

        The tests compare adjoints of transfers and Jacobians, inject after prolong, gradients with
        differences, and calls for all layers with calls for single layers; they also check nesting,
        recentering, and that the user's functions edit nothing and keep kinds and shapes.

        Parameters
        ----------
        u, seed : state of level 0 and int
            State at which nonlinear parts are tested, and seed of the random states.

        Raises
        ------
        TypeError, ValueError
            If a law fails. The message names the level and the two numbers that should be equal,
            or the function and its invalid result.

        Examples
        --------
        >>> from mgnet import gallery
        >>> print(gallery.poisson(7).check(np.zeros(7)))
        level 0: restrict is the transpose of prolong
        level 0: nesting, A_1(w) = restrict(A_0(prolong(w)))
        level 1: restrict is the transpose of prolong
        level 1: nesting, A_2(w) = restrict(A_1(prolong(w)))
        """
        return "\n".join(consistency.check(self, u, np.random.default_rng(seed)))

    @classmethod
    def from_matrices(
        cls,
        matrices: Sequence[Any],
        prolongations: Sequence[Any],
        restrictions: Sequence[Any] | None = None,
        smoother: Smoother | None = None,
        post_smoother: Smoother | None = None,
        coarse_solver: Smoother | None = None,
        nested: bool = False,
        shapes: Sequence[tuple[int, ...]] | None = None,
        nullspace: Any = None,
    ) -> Hierarchy:
        """Linear multigrid from matrices, finest first.

        Parameters
        ----------
        matrices : sequence of L matrices
            Operators of the levels.
        prolongations, restrictions : sequence of L - 1 matrices
            Interpolation of shape (fine, coarse); restrictions are the transposes by default.
        smoother, post_smoother, coarse_solver : Smoother, optional
            By default `Jacobi()` twice, and `Direct()` (with a null space, `Direct("pinv")`).
        nested : bool
            Whether the matrices are Galerkin products.
        shapes : sequence of L tuples of int, optional
            Grid shapes, needed by `LineRelaxation` (`Level.shape`).
        nullspace : "constant", array or NullSpace, optional
            Null space of a singular matrix of level 0.

        Examples
        --------
        >>> from mgnet import interpolation_matrix
        >>> P = interpolation_matrix(3)
        >>> len(Hierarchy.from_matrices([P @ P.T, P.T @ P @ P.T @ P], [P], nested=True))
        2
        """
        first = matrices[0] if len(matrices) else None
        singular = NullSpace.of(nullspace, first) is not None
        solver = coarse_solver or Direct("pinv" if singular else "lu")
        smoothers = smoother or Jacobi(), post_smoother, solver
        levels = matrix_levels(matrices, prolongations, restrictions, smoothers, shapes)
        return cls(levels, nested=nested, nullspace=nullspace)

    @classmethod
    def galerkin(
        cls,
        matrix: Any,
        prolongations: Sequence[Any],
        restrictions: Sequence[Any] | None = None,
        smoother: Smoother | None = None,
        post_smoother: Smoother | None = None,
        coarse_solver: Smoother | None = None,
        shapes: Sequence[tuple[int, ...]] | None = None,
        nullspace: Any = None,
    ) -> Hierarchy:
        """Linear multigrid from one matrix and prolongations, with coarse matrices R A P.

        Parameters
        ----------
        matrix, prolongations : matrix of shape (n, n), sequence of matrices (fine, coarse)
            Operator of level 0 and interpolation, finest first: SciPy, NumPy, torch or PETSc.
        restrictions, smoother, post_smoother, coarse_solver, shapes, nullspace
            The same as for `from_matrices`.

        Examples
        --------
        >>> import scipy.sparse as sp
        >>> from mgnet import interpolation_matrix
        >>> A = sp.diags([-1.0, 2.0, -1.0], [-1, 0, 1], shape=(7, 7), format="csr")
        >>> hierarchy = Hierarchy.galerkin(A, [interpolation_matrix(3), interpolation_matrix(1)])
        >>> hierarchy[2].matrix.toarray(), hierarchy.nested
        (array([[0.5]]), True)
        """
        nested = restrictions is None
        restrictions = conjugated(prolongations) if nested else restrictions
        matrices = galerkin_products(matrix, prolongations, restrictions)
        parts = smoother, post_smoother, coarse_solver, nested, shapes, nullspace
        return cls.from_matrices(matrices, prolongations, restrictions, *parts)

    @classmethod
    def geometric(
        cls,
        shape: int | Sequence[int],
        stencil: Any = None,
        *,
        coefficients: Any = None,
        boundary: Any = "dirichlet",
        coarsen: int | Sequence[int] | None = None,
        levels: int | None = None,
        interpolation: str = "auto",
        smoother: Smoother | None = None,
        post_smoother: Smoother | None = None,
        coarse_solver: Smoother | None = None,
    ) -> Hierarchy:
        """Linear multigrid on a structured grid of 1 to 3 axes of any lengths, in C order.

        Every second point is kept along coarsened axes, and coarse matrices are Galerkin products.

        Parameters
        ----------
        shape : int or sequence of int
            Number of points along each axis.
        stencil : array of shape (3,) * d or (3,) * d + shape, or sparse matrix of the points
            One stencil for all points, as in `pyamg.gallery.stencil_grid`, one for each point, or a
            matrix that couples adjacent points only.
        coefficients : number, array of `shape`, or sequence of one of these per axis
            Instead of a stencil: c in `-div(c grad u)` on the unit interval, square or cube. Finite
            volumes are used, so f is the source times the volume of a cell.
        boundary : "dirichlet", "neumann", "periodic", or a sequence of one or a pair per axis
            Boundary conditions.
        coarsen : int or sequence of int, optional
            Axes that may be coarsened; by default those with strong couplings.
        levels : int, optional
            Number of levels; by default the coarsest has at most 300 points.
        interpolation : "auto", "linear" or "operator"
            "operator" weights are accurate where coefficients jump; "auto" chooses by the stencil.
        smoother, post_smoother, coarse_solver : Smoother, optional
            `GaussSeidel()`, `GaussSeidel("backward")` and `Direct()` by default. If constants are
            null vectors, the hierarchy has that `nullspace`.

        Examples
        --------
        >>> c = np.where(np.indices((50, 40)).sum(axis=0) < 45, 1.0, 1e6)
        >>> [level.shape for level in Hierarchy.geometric((50, 40), coefficients=c)]
        [(50, 40), (25, 20), (12, 10)]
        """
        g = grid_levels(shape, stencil, coefficients, boundary, coarsen, levels, interpolation)
        post = post_smoother or smoother or GaussSeidel("backward")
        parts = (smoother or GaussSeidel(), post, coarse_solver, True, g.shapes)
        null = "constant" if g.singular else None
        return cls.from_matrices(g.matrices, g.prolongations, g.restrictions, *parts, null)

    @classmethod
    def from_pyamg(
        cls,
        solver: Any,
        smoother: Smoother | None = None,
        post_smoother: Smoother | None = None,
        coarse_solver: Smoother | None = None,
        nullspace: Any = None,
    ) -> Hierarchy:
        """The levels of a PyAMG multilevel solver, for any schedule; costs are numbers of nonzeros.

        Parameters
        ----------
        solver : pyamg.multilevel.MultilevelSolver
            Its matrices A, P, R are shared, not copied.
        smoother, post_smoother, coarse_solver : Smoother, optional
            By default those of PyAMG; mgnet itself runs the Gauss-Seidel, Jacobi and direct ones.
        nullspace : "constant", array or NullSpace, optional
            Null space of a singular matrix of level 0.

        Examples
        --------
        >>> import pyamg
        >>> A = pyamg.gallery.poisson((20, 20), format="csr")
        >>> hierarchy = Hierarchy.from_pyamg(pyamg.ruge_stuben_solver(A, max_coarse=10))
        >>> hierarchy[0].unknowns
        400
        """
        levels = pyamg_levels(solver, smoother, post_smoother, coarse_solver)
        return cls(levels, nullspace=nullspace)

    def __str__(self) -> str:
        return table(self.levels)

    def __repr__(self) -> str:
        return f"<Hierarchy of {len(self)} levels, {self.levels[0].unknowns or '?'} unknowns>"
