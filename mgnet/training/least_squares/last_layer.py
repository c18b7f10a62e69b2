"""The last layer of a network, solved exactly: a linear least-squares problem.

Features and targets form one matrix, `[Phi Y] = Q T`. The triangle T suffices for the solution, and
the triangle of two blocks of rows is that of their stacked triangles. Batches can thus be reduced
one by one, and parallel ranks in a tree. `Phi^T Phi`, which would lose half of the digits, is never
formed. Network bases are usually nearly dependent, so the singular values of T are used.
Source: Cyr et al., arXiv 1912.04862; Demmel et al., arXiv 0808.2664 (the triangles).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

import torch
from torch.func import grad, vmap

from mgnet.smoother import Smoother
from mgnet.training.least_squares.device_reads import read
from mgnet.training.least_squares.factorizations import (
    check_numbers,
    check_rows,
    minimum_norm,
    triangle,
    written_rcond,
)
from mgnet.training.least_squares.problem import LeastSquares
from mgnet.training.least_squares.scaling import power_of_two
from mgnet.training.loss.checks import check_data, check_finite
from mgnet.training.loss.objective import Objective
from mgnet.training.loss.parameters import full_precision
from mgnet.training.loss.tied_tensors import call_with

if TYPE_CHECKING:
    from mgnet.level import Level
    from mgnet.training.least_squares.jacobian import Jacobian

__all__ = ["LastLayer", "LinearPart", "DistributedSamples", "solve_last_layer_"]


@runtime_checkable
class DistributedSamples(Protocol):
    """Methods of a `LeastSquares` whose samples are distributed; all ranks must call them."""

    def triangle_of(self, rows: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Any:
        """The triangle of `rows(inputs, targets)` for all samples; each call has some of them."""

    def projected(self, u: torch.Tensor, size: int, ridge: float, rcond: float | None) -> Jacobian:
        """Kaufman's Jacobian at u, for a last layer of `size` parameters."""
        ...


class LinearPart:
    """The parameters in which a network is linear: those of its last layer.

    This layer owns the network's last parameter: a `torch.nn.Linear`, or spline coefficients with
    the outputs last. `network(x) = features(x) @ W`; the last row of W is the bias, if any.

    Parameters
    ----------
    network : torch.nn.Module
        Network with a linear last layer.

    Raises
    ------
    ValueError
        If the network has no parameters.
    """

    def __init__(self, network: torch.nn.Module):
        named = dict(network.named_parameters())
        if not named:
            raise ValueError(f"{type(network).__name__} has no parameters; a last layer needs some")
        self.network = network
        self.name = list(named)[-1]
        owner = network.get_submodule(self.name.rpartition(".")[0])
        self.linear = owner if isinstance(owner, torch.nn.Linear) else None
        own = [] if self.linear is None else [p for p in owner.parameters(recurse=False)]
        self.names = [n for n, p in named.items() if n == self.name or any(p is o for o in own)]
        last = named[self.name]
        if self.linear is not None:
            self.biased = self.linear.bias is not None
            self.outputs = self.linear.out_features
            self.size = self.outputs * (self.linear.in_features + self.biased)
        else:
            self.biased = False
            self.outputs = last.shape[-1] if last.dim() else 1
            self.size = last.numel()

    def unpack(self, block: torch.Tensor) -> torch.Tensor:
        """W, of shape (features, outputs), from the last `size` entries of a flat vector."""
        if self.linear is None:
            return block.view(-1, self.outputs)
        weights = self.outputs * self.linear.in_features
        W = block[:weights].view(self.outputs, -1).T
        return torch.cat([W, block[weights:].unsqueeze(0)]) if self.biased else W

    def pack(self, W: torch.Tensor) -> torch.Tensor:
        """The inverse of `unpack`."""
        if self.linear is None:
            return W.flatten()
        rows = self.linear.in_features
        return torch.cat([W[:rows].T.flatten(), W[rows:].flatten()])

    def write(self, W: torch.Tensor) -> None:
        """Make W the last layer of the network, in place."""
        with torch.no_grad():
            flat = torch.nn.utils.parameters_to_vector(self.network.parameters())
            flat[-self.size :] = self.pack(W)
            torch.nn.utils.vector_to_parameters(flat, self.network.parameters())

    def features(self, parameters: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        """The basis at x, of shape (samples, features); the last column is ones if there is a bias.

        Raises
        ------
        ValueError
            If the last layer does not run exactly once.
        """
        if self.linear is None:
            return self._derivatives(parameters, x)
        caught: list[torch.Tensor] = []

        def catch(_: torch.nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
            caught.append(arguments[0].flatten(0, -2))

        handle = self.linear.register_forward_pre_hook(catch)
        try:
            call_with(self.network, parameters, (x,))
        finally:
            handle.remove()
        if len(caught) != 1:
            ran = f"the last layer {self.linear} ran {len(caught)} times for one input"
            raise ValueError(f"{ran}; it must run once, after all others")
        basis = caught[0]
        return torch.cat([basis, basis.new_ones(len(basis), 1)], 1) if self.biased else basis

    def _derivatives(self, parameters: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        """The basis as derivatives of the first output, for layers without an explicit basis."""
        others = {name: p for name, p in parameters.items() if name != self.name}

        def first(last: torch.Tensor, sample: torch.Tensor) -> torch.Tensor:
            named = others | {self.name: last}
            return call_with(self.network, named, (sample.unsqueeze(0),)).flatten()[0]

        columns = vmap(grad(first), in_dims=(None, 0))(parameters[self.name], x)
        return columns[..., 0].flatten(1)

    def check(self, parameters: dict[str, torch.Tensor], x: torch.Tensor) -> None:
        """Check that the network is its features times its last layer.

        Raises
        ------
        ValueError
            If the network is not linear in its last layer.
        """
        with torch.no_grad():
            outputs = call_with(self.network, parameters, (x,)).reshape(-1, self.outputs)
            block = torch.cat([p.flatten() for p in parameters.values()])[-self.size :]
            basis, W = self.features(parameters, x), self.unpack(block)
            product, terms = basis @ W, basis.abs() @ W.abs()  # sums that may cancel
        if not bool(torch.isfinite(outputs).all()):
            return  # no comparison is possible; the solver reports this
        close = 1e3 * torch.finfo(outputs.dtype).eps * (1.0 + float(terms.max()))
        if product.shape != outputs.shape or not float((product - outputs).abs().max()) <= close:
            got = f"{type(self.network).__name__} is not linear in its last parameter {self.name!r}"
            need = "its last module must be a Linear, or spline coefficients with the outputs last"
            raise ValueError(f"{got}; {need}")


def solve_last_layer_(
    network: torch.nn.Module,
    batches: Iterable[tuple[torch.Tensor, torch.Tensor]],
    *,
    ridge: float = 0.0,
    rcond: float | None = None,
) -> torch.nn.Module:
    """Fit the last layer of a network by least squares, in place, in one pass over the data.

    The minimized function is half the mean squared error (summed over outputs) plus `ridge / 2`
    times the squared norm of the layer with its bias. The minimizer of least norm is used.

    Parameters
    ----------
    network : torch.nn.Module
        Network that ends in a `torch.nn.Linear` or in spline coefficients with outputs last.
    batches : iterable of (inputs, targets)
        `[(x, y)]`, or a DataLoader; each batch is reduced to (features + outputs)^2 numbers.
    ridge, rcond : float
        As for `LastLayer`.

    Returns
    -------
    torch.nn.Module
        The network itself.

    Raises
    ------
    TypeError, ValueError
        If network and batches do not fit together, or values are not finite.

    Examples
    --------
    >>> x = torch.linspace(-1, 1, 200).double().unsqueeze(1)
    >>> layers = torch.nn.Linear(1, 30), torch.nn.Tanh(), torch.nn.Linear(30, 1)
    >>> network = torch.nn.Sequential(*layers).double()
    >>> network = solve_last_layer_(network, [(x, torch.sin(3 * x))])
    >>> bool((network(x) - torch.sin(3 * x)).abs().max() < 1e-3)
    True
    """
    check_numbers("solve_last_layer_", ridge, rcond)
    computed = full_precision(network)
    part = LinearPart(computed)
    parameters = {name: p.detach() for name, p in computed.named_parameters()}
    kind = parameters[part.name].dtype
    blocks: list[torch.Tensor] = []
    samples = 0
    for batch in batches:
        check_data("solve_last_layer_", batch)
        x, y = batch
        try:
            if not samples:
                part.check(parameters, x)
            with torch.no_grad():
                basis = part.features(parameters, x)
        except RuntimeError as error:
            if x.dtype == kind:
                raise
            got = f"solve_last_layer_ got inputs of {x.dtype} for a network of {kind}"
            raise TypeError(f"{got}; convert one, such as x.to({kind})") from error
        if y.numel() != len(basis) * part.outputs or y.is_complex():
            got = f"solve_last_layer_ got targets of shape {tuple(y.shape)} and {y.dtype} for real"
            wanted = f"outputs of shape {(len(basis), part.outputs)}; give targets like the outputs"
            raise ValueError(f"{got} {wanted}")
        blocks = [triangle(*blocks, torch.cat([basis, y.detach().reshape(-1, part.outputs)], 1))]
        samples += len(x)
    if not samples:
        raise ValueError("solve_last_layer_ got no batches; give an iterable with at least one")
    T = blocks[0] / samples**0.5
    check_rows(T)
    rcond = written_rcond(network) if rcond is None else rcond
    W = minimum_norm(T[:, : -part.outputs], T[:, -part.outputs :], ridge, rcond)
    LinearPart(network).write(W)
    return network


@dataclass(frozen=True)
class LastLayer(Smoother):
    """The exact last layer as a smoother: one visit minimizes the objective with respect to it.

    The objective plus `ridge / 2` times the squared norm of the layer never rises: a solution that
    is not better, because of rounding or of `rcond`, is refused. The operator must be a
    `LeastSquares` with data; its penalty and f are part of the system. A `Collocation` is refused:
    `LevenbergMarquardt` finds the same layer, which is linear only if the equation is.

    Parameters
    ----------
    ridge : float
        Weight of the squared norm, not negative. The penalty of a `LeastSquares` is an alternative.
    rcond : float, optional
        Singular values below `rcond` times the largest count as zero; by default those at the
        rounding level.

    Examples
    --------
    >>> from mgnet import Hierarchy, Level, Solver
    >>> x = torch.linspace(-1, 1, 50, dtype=torch.float64).unsqueeze(1)
    >>> network = torch.nn.Sequential(torch.nn.Linear(1, 9), torch.nn.Tanh(), torch.nn.Linear(9, 1))
    >>> problem = LeastSquares(network.double(), (x, torch.sin(3 * x)))
    >>> level = Level(problem, LastLayer(rcond=1e-8))
    >>> u = Solver(Hierarchy([level]), "V(0,0,1)", max_cycles=1).solve(u=problem.start()).value
    >>> bool(problem(u)[-10:].norm() < 1e-6)  # the gradient for the last layer
    True
    """

    ridge: float = 0.0
    rcond: float | None = None
    fixed_work: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_numbers(str(self), self.ridge, self.rcond)

    def start(self, level: Level, u: torch.Tensor) -> tuple[()]:
        check_level(level, u, LeastSquares, "LastLayer")
        return ()

    def work(self, level: Level, sweeps: int) -> float:
        return 1.0 / 3.0  # one forward pass for any number of sweeps, since it solves

    def smooth(
        self, level: Level, u: torch.Tensor, f: torch.Tensor | None, sweeps: int, memory: Any
    ) -> tuple[torch.Tensor, Any]:
        problem: Any = level.operator
        part, basis = basis_at(level, u)
        solved = self.solve(problem, part, basis, u, f)
        if solved is u:
            check_finite(self, level, u, problem.value(u))
        return solved, memory

    def solve(
        self,
        problem: Any,
        part: LinearPart,
        basis: torch.Tensor | None,
        u: torch.Tensor,
        f: torch.Tensor | None,
    ) -> torch.Tensor:
        """The state u with the last layer solved; u itself if the solved state is not better."""
        A, b, order = self._system(problem, part, basis, u)
        finite, size = read([torch.isfinite(A).all(), b.abs().max()])
        if not finite:
            return u

        def arranged(block: torch.Tensor) -> torch.Tensor:
            return part.unpack(block) if order is None else block[order].unsqueeze(1)

        slope = None if f is None else arranged(f[-part.size :])
        old = arranged(u[-part.size :])  # squares are compared: they must be finite
        unit = 1.0 if 1e-100 < size < 1e100 else power_of_two(size)
        old, b, slope = old / unit, b / unit, None if slope is None else slope / unit
        new = minimum_norm(A, b, self.ridge, self.rcond, slope)

        def value(W: torch.Tensor) -> torch.Tensor:
            J = 0.5 * ((A @ W - b).square().sum() + self.ridge * W.square().sum()).double()
            return J if slope is None else J - (slope * W).sum().double()

        values = read([value(new), value(old)])
        if not values[0] < values[1]:  # also if it is NaN
            return u
        new = new * unit
        if order is None:
            return torch.cat([u[: -part.size], part.pack(new)])
        block = torch.empty_like(new[:, 0]).index_copy_(0, order, new[:, 0])
        return torch.cat([u[: -part.size], block])

    def _system(
        self, problem: Any, part: LinearPart, basis: torch.Tensor | None, u: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """A and b of the objective `1/2 |A W - b|^2`.

        W has one column per output, or a single column if a penalty couples the outputs; the order
        of its entries is then returned too.
        """
        x, y = problem.data
        if basis is None:
            parameters = problem.parameters(u)

            def rows(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
                return torch.cat([part.features(parameters, x), y.reshape(-1, part.outputs)], 1)

            T = problem.triangle_of(rows) / len(x) ** 0.5
        else:
            T = triangle(torch.cat([basis, y.reshape(-1, part.outputs)], 1) / len(x) ** 0.5)
        A, b = T[:, : -part.outputs], T[:, -part.outputs :]
        if problem.rows is None:
            return A, b, None
        order = part.unpack(torch.arange(part.size, device=u.device)).flatten()
        hidden = u.clone()
        hidden[-part.size :] = 0.0
        select = torch.eye(len(u), dtype=u.dtype, device=u.device)[:, -part.size :]
        penalty = problem.rows @ select
        eye = torch.eye(part.outputs, dtype=u.dtype, device=u.device)
        A = torch.cat([torch.kron(A.contiguous(), eye), penalty[:, order]])
        b = torch.cat([b.flatten(), -(problem.rows @ hidden)]).unsqueeze(1)
        T = triangle(torch.cat([A, b], 1))
        return T[:, :-1], T[:, -1:], order


def basis_at(level: Level, u: torch.Tensor) -> tuple[LinearPart, Any]:
    """The linear part of a level's network, and its features at u; one forward pass is counted."""
    problem: Any = level.operator
    part = LinearPart(problem.flat.module)
    level.charge(1.0 / 3.0)
    return part, features_of(problem, part, u)


def features_of(problem: Any, part: LinearPart, u: torch.Tensor) -> torch.Tensor | None:
    """The features of all samples; None if samples are distributed (see `triangle_of`)."""
    if isinstance(problem, DistributedSamples):
        return None
    with torch.no_grad():
        return part.features(problem.parameters(u), problem.data[0])


def check_level(level: Level, u: torch.Tensor, kind: type[Objective], name: str) -> None:
    """Refuse a level whose operator has the wrong class or is not linear in a last layer."""
    problem: Any = level.operator
    spread = kind is LeastSquares and isinstance(level.operator, DistributedSamples)
    fits = type(problem) is kind and (not isinstance(problem, LeastSquares) or problem.plain)
    if not (fits or spread) or problem.data is None:
        got = f"{level} has an operator of type {type(problem).__name__}; {name} needs the class"
        wanted = f"{kind.__name__} itself with (inputs, targets), without weights or robust loss"
        raise TypeError(f"{got} {wanted}: for the residuals of an equation use LevenbergMarquardt")
    part = LinearPart(problem.flat.module)
    frozen = [owned for owned in part.names if owned not in problem.shapes]
    if frozen:
        got = f"{level}: the parameter {frozen[0]!r} of the last layer is frozen"
        raise ValueError(f"{got}, but {name} solves for it; train it, or use another smoother")
    part.check(problem.parameters(u), problem.data[0])
