"""The laws that the parts of a hierarchy must obey; `Hierarchy.check` tests them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mgnet import vector
from mgnet.callbacks import duplicate
from mgnet.level import Level
from mgnet.limits import typed
from mgnet.moves import carried, swept
from mgnet.smoother import Smoother
from mgnet.transfer import MatrixTransfer, Transfer

if TYPE_CHECKING:
    from mgnet.hierarchy import Hierarchy

__all__ = ["check", "check_levels", "check_parts", "not_a_hierarchy"]

State = Any

# The parts besides transfers that `check` calls for their own sake.
_CALLED = "operator", "residual", "smoother", "post_smoother", "line_search"


def check_levels(levels: Sequence[Level]) -> None:
    """Check that the levels fit together.

    Raises
    ------
    TypeError, ValueError
        If they do not fit together; the message gives the number of the level.

    Examples
    --------
    >>> check_levels([])
    Traceback (most recent call last):
    ValueError: Hierarchy got no levels; give at least one Level
    """
    if not levels:
        raise ValueError("Hierarchy got no levels; give at least one Level")
    for number, level in enumerate(levels):
        if not isinstance(level, Level):
            matrices = "; for matrices use Hierarchy.from_pyamg, galerkin or from_matrices"
            raise TypeError(
                f"level {number} is a {type(level).__name__}; a Hierarchy takes Level objects, "
                f"finest first{matrices * hasattr(level, 'shape')}"
            )
    for number, level in enumerate(levels):  # each is checked with the next
        check_parts(number, level, levels[number + 1] if number + 1 < len(levels) else None)


def not_a_hierarchy(caller: str, given: Any) -> TypeError:
    """Return the error for an argument that should be a Hierarchy; it shows how to get one.

    Examples
    --------
    >>> print(not_a_hierarchy("Solver", [1]))
    Solver got a list; it takes a Hierarchy: Hierarchy([Level(...), ...])
    >>> print(not_a_hierarchy("Solver", np.eye(2)))  # doctest: +NORMALIZE_WHITESPACE
    Solver got a ndarray; it takes a Hierarchy: for a matrix A and nothing else
    Hierarchy.from_pyamg(pyamg.ruge_stuben_solver(A)), or call mgnet.solve(A, b)
    """
    if vector.is_mat(given):
        remedy = ": Hierarchy.galerkin(A, [P, ...]) with the prolongations as Mats"
    elif hasattr(given, "shape"):
        remedy = (
            ": for a matrix A and nothing else Hierarchy.from_pyamg(pyamg.ruge_stuben_solver(A)), "
            "or call mgnet.solve(A, b)"
        )
    elif hasattr(given, "aspreconditioner"):
        remedy = ": Hierarchy.from_pyamg(ml) for a solver ml of PyAMG"
    elif callable(getattr(given, "hierarchy", None)):
        remedy = ": call the method hierarchy(...) of the problem"
    else:
        remedy = ": Hierarchy([Level(...), ...])"
    return TypeError(f"{caller} got a {type(given).__name__}; it takes a Hierarchy{remedy}")


def check_parts(number: int, level: Level, coarser: Level | None) -> None:
    """Check that the parts of a level fit together.

    Raises
    ------
    TypeError, ValueError
        If they do not fit together; the message gives the number of the level.

    Examples
    --------
    >>> from mgnet import Jacobi, Level
    >>> check_parts(0, Level("no operator", Jacobi()), None)
    Traceback (most recent call last):
    TypeError: level 0 has an operator of type str; give a callable or something with `@`
    """
    kinds = {name: type(getattr(level, name)).__name__ for name in ("operator", "transfer")}
    if not callable(level.operator) and level.matrix is None:
        raise TypeError(
            f"level {number} has an operator of type {kinds['operator']}; "
            "give a callable or something with `@`"
        )
    rows, columns = (0, 0) if level.matrix is None else vector.shape_of(level.matrix)
    if rows != columns:
        raise ValueError(
            f"level {number} has a matrix of shape ({rows}, {columns}); the operator of a level "
            "must be square"
        )
    for part in (level.smoother, level.post_smoother or level.smoother):
        _check_smoother(number, part)
    if coarser is None:
        if level.transfer is not None:
            raise ValueError(
                f"level {number} is the coarsest but has a transfer; "
                "leave it out or add a coarser level"
            )
        return
    if not isinstance(level.transfer, Transfer):
        raise TypeError(
            f"level {number} has a transfer of type {kinds['transfer']}; "
            "every level but the coarsest needs a Transfer"
        )
    if isinstance(level.transfer, MatrixTransfer):
        _check_shapes(number, level.transfer, (level.unknowns, coarser.unknowns))


def _check_smoother(number: int, part: Any) -> None:
    if isinstance(part, Smoother):
        return
    kind = part if isinstance(part, type) else type(part)
    remedy = "an instance of a Smoother, such as Jacobi()"
    if kind.__module__.startswith("torch.optim"):
        remedy = f'TorchOptimizer(torch.optim.{kind.__name__}, {{"lr": 1e-3}}) of mgnet.training'
    raise TypeError(f"level {number} has {typed('a smoother', part)}; give {remedy}")


def _check_shapes(number: int, transfer: MatrixTransfer, unknowns: tuple[int, int]) -> None:
    up, down = unknowns, unknowns[::-1]
    for name, matrix, expected in (
        ("prolongation", transfer.P, up),
        ("interpolation", transfer.interpolation, up),
        ("restriction", transfer.R, down),
        ("injection", transfer.injection, down),
    ):
        if matrix is None or (callable(matrix) and not vector.is_mat(matrix)):
            continue  # functions have no shape
        shape = vector.shape_of(matrix)
        if any(want and got != want for got, want in zip(shape, expected, strict=True)):
            raise ValueError(
                f"level {number} has a matrix of {name} of shape {shape}; between {up[0]} fine and "
                f"{up[1]} coarse unknowns it must be {expected}"
            )


def check(hierarchy: Hierarchy, u: State, generator: np.random.Generator) -> Iterator[str]:
    """Test every law on every level, in this order, and yield a line for each law that holds.

    Raises
    ------
    TypeError, ValueError
        If a law does not hold, or the state does not fit.

    Examples
    --------
    >>> from mgnet import Hierarchy, Jacobi, Level
    >>> level = Level(lambda u: u**3, Jacobi(), objective=lambda u: float((u**4).sum()) / 2)
    >>> list(check(Hierarchy([level]), np.ones(2), np.random.default_rng(0)))
    Traceback (most recent call last):
    ValueError: level 0: the operator is not the gradient of the objective: -0.06991 and -0.03495
    are not equal (along a random direction)
    """
    size, unknowns = math.prod(vector.state_shape(u)), hierarchy[0].unknowns
    if unknowns and not vector.is_vec(u) and size != unknowns:
        raise ValueError(
            f"Hierarchy.check got a state of {size} entries; level 0 has {unknowns} unknowns"
        )
    # Copies of the levels, so that their parts are checked as on a first call.
    levels = [replace(l, name=l.name or f"level {k}") for k, l in enumerate(hierarchy)]
    for number in range(len(levels)):
        level = levels[number]
        tests = _Laws(hierarchy, level, u, generator)
        yield from tests.functions(number)
        yield from tests.derivatives(number)
        if level.transfer is None:
            continue
        if level.recenter is not None:
            levels[number + 1] = level.recentred(u)
        u = yield from tests.transfer(number, levels[number + 1])


class _Laws:
    def __init__(self, hierarchy: Hierarchy, level: Any, u: State, generator: np.random.Generator):
        self.hierarchy = hierarchy
        self.level = level
        self.u = u
        self.generator = generator
        # Half the digits of the state's own precision: central differences reach at best
        # two thirds of the digits.
        self.tolerance = 1e-2 if vector.dtype_of(u).itemsize <= 4 else 1e-5

    def random(self, u: State) -> State:
        return vector.random_like(u, self.generator)

    def carried(self, method: str, u: State, like: State | None = None) -> State:
        """A new state, even if the transfer returns the same array each time."""
        result = carried(self.level, method, u, like=like)
        return duplicate(result) if "transfer" in self.level.watched else result

    def equal(self, a: float, b: float, scale: float, number: int, law: str, how: str) -> None:
        if not abs(a - b) <= self.tolerance * max(scale, 1e-300):
            raise ValueError(f"level {number}: {law}: {a:.4g} and {b:.4g} are not equal ({how})")

    def functions(self, number: int) -> Iterator[str]:
        """Call the user's functions (not transfers); `Level` and `moves` refuse invalid results."""
        level, u = self.level, self.u
        check_layers = getattr(level.operator, "check_layers", None)
        if check_layers is not None:
            check_layers(u)
            yield f"level {number}: a call for all layers agrees with calls for single layers"
        parts = [name for name in _CALLED if name in level.watched]
        if not parts:
            return
        d = self.random(u)
        near = u + self.tolerance * max(self.hierarchy.norm(u), 1.0) / self.hierarchy.norm(d) * d
        f = level.apply(near)
        r = level.residual_at(u, f)
        for name in ("smoother", "post_smoother"):
            if name in level.watched:
                action = "pre" if name == "smoother" else "post"
                swept(level, (action, number, 1), u, f, {}, ahead=False)
        if "line_search" in level.watched:
            level.step_length(u, near - u, f, r)
        yield f"level {number}: {', '.join(parts)}: arguments stay as they are, results fit"

    def derivatives(self, number: int) -> Iterator[str]:
        level, u, dot, norm = self.level, self.u, self.hierarchy.dot, self.hierarchy.norm
        d = self.random(u)
        d = d * (1.0 / norm(d))
        h = self.tolerance * max(norm(u), 1.0)
        if level.objective is not None:
            slope = (level.value(u + h * d, None) - level.value(u - h * d, None)) / (2.0 * h)
            gradient = level.apply(u)
            law = "the operator is not the gradient of the objective"
            self.equal(
                slope, dot(gradient, d), norm(gradient), number, law, "along a random direction"
            )
            yield f"level {number}: the operator is the gradient of the objective"
        if level.linearize is None:
            return
        jacobian = level.jacobian(u)
        image = vector.apply(jacobian, d)
        other = self.random(image)
        transposed = jacobian.rmatvec(other) if callable(jacobian) else jacobian.T @ other
        scale = norm(image) * norm(other)
        law = "the transpose of `linearize` is not its adjoint"
        self.equal(
            dot(image, other), dot(d, transposed), scale, number, law, "<J d, w> and <d, J^T w>"
        )
        yield f"level {number}: linearize and its transpose match"
        if (
            level.objective is None
        ):  # with one, `linearize` is the Jacobian of the residual vector (least squares)
            difference = (level.apply(u + h * d) - level.apply(u - h * d)) * (0.5 / h)
            law = "`linearize` is not the derivative of the operator"
            self.equal(
                norm(difference - image),
                0.0,
                norm(image),
                number,
                law,
                "norm of A'(u) d - J d, and 0",
            )
            yield f"level {number}: linearize is the derivative of the operator"

    def transfer(self, number: int, coarse: Level) -> Iterator[str]:
        level, u, dot, norm = self.level, self.u, self.hierarchy.dot, self.hierarchy.norm
        transfer = level.transfer
        fine = self.random(u)
        restricted = self.carried("restrict", fine)
        size = math.prod(vector.state_shape(restricted))
        if coarse.unknowns and not vector.is_vec(restricted) and size != coarse.unknowns:
            raise ValueError(
                f"level {number}: restrict returns {size} unknowns, but level {number + 1} has "
                f"{coarse.unknowns}; it must return that number"
            )
        if transfer.inject is not None:
            self.carried("inject", u, restricted)
        w = self.random(restricted)
        prolonged = self.carried("prolong", w)
        shape, expected = vector.state_shape(prolonged), vector.state_shape(u)
        if shape != expected:
            raise ValueError(
                f"level {number}: prolong returns the shape {shape}, but the state has {expected}; "
                "it must return the shape of the state"
            )
        if transfer.adjoint:
            scale = norm(restricted) * norm(w) + norm(fine) * norm(prolonged)
            law = "restrict is not the transpose of prolong"
            self.equal(
                dot(restricted, w),
                dot(fine, prolonged),
                scale,
                number,
                law,
                "<R r, w> and <r, P w>",
            )
            yield f"level {number}: restrict is the transpose of prolong"
        if transfer.inject is not None:
            law = "inject does not undo prolong"
            self.equal(
                norm(self.carried("inject", prolonged, w) - w),
                0.0,
                norm(w),
                number,
                law,
                "norm of inject(P w) - w, and 0",
            )
            yield f"level {number}: inject undoes prolong"
        if level.recenter is not None:
            yield self.recentred(number, coarse, w)
        elif self.hierarchy.nested:
            yield self.nesting(number, coarse, w)
        return w if transfer.inject is None else self.carried("inject", u, w)

    def recentred(self, number: int, coarse: Level, w: State) -> str:
        level, norm = self.level, self.hierarchy.norm
        zero = vector.zeros_like(w)
        at_zero = norm(coarse.apply(zero))
        scale = norm(level.apply(self.u)) + 1.0
        law = "the recentered operator does not vanish at 0"
        self.equal(at_zero, 0.0, scale, number, law, "its norm there, and 0")
        difference = level.apply(self.u + self.carried("prolong", w)) - level.apply(self.u)
        expected = self.carried("restrict", difference)
        law = "the recentered operator is not restrict(A(u + P w) - A(u))"
        self.equal(
            norm(coarse.apply(w) - expected),
            0.0,
            norm(expected),
            number,
            law,
            "norm of the difference, and 0",
        )
        fine, below = f"A_{number}", f"A_{number + 1}"
        return f"level {number}: recentering, {below}(w) = restrict({fine}(u + P w) - {fine}(u))"

    def nesting(self, number: int, coarse: Level, w: State) -> str:
        level, norm = self.level, self.hierarchy.norm
        lifted = self.carried("prolong", w)
        if level.objective is not None and coarse.objective is not None:
            a, b = coarse.value(w, None), level.value(lifted, None)
            self.equal(a, b, abs(b), number, "the objectives are not nested", "J_c(w) and J(P w)")
        expected = self.carried("restrict", level.apply(lifted))
        law = "the levels are not nested"
        how = "norm of A_c(w) - restrict(A(P w)), and 0"
        self.equal(norm(coarse.apply(w) - expected), 0.0, norm(expected), number, law, how)
        return f"level {number}: nesting, A_{number + 1}(w) = restrict(A_{number}(prolong(w)))"
