"""Kolmogorov-Arnold networks whose edges are splines on a grid that refines exactly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import scipy.sparse as sp
import torch

from mgnet.knots.derivatives import KANDerivatives
from mgnet.knots.initial_splines import draw, draw_linear_, owned
from mgnet.knots.jacobian import linearize
from mgnet.knots.kan_options import check_coefficients, checked_options, layer_factors
from mgnet.knots.layer import spline_layer
from mgnet.knots.local_jacobian import linearize_residual
from mgnet.knots.network_state import OptionsInState, check_no_hooks, check_plain_tensors, copy_with
from mgnet.knots.precision import in_full_precision, raised, under_autocast, working_dtype
from mgnet.knots.refinement import coarsening_matrices, coarser_matrices, refinement_matrices
from mgnet.knots.spline_network import into_domain
from mgnet.knots.spline_operator import SplineOperator
from mgnet.limits import shown
from mgnet.training.least_squares.jacobian import Jacobian
from mgnet.training.least_squares.linearization import Residual
from mgnet.training.loss.own_forward import alteration
from mgnet.transfer import AxisTransfer

if TYPE_CHECKING:
    from mgnet.training.equations.derivatives import Derivatives

__all__ = ["KAN"]

Self = TypeVar("Self", bound="KAN")

torch.fx.wrap("raised")  # one node per call in the graphs of `torch.fx.symbolic_trace`
torch.fx.wrap("spline_layer")


class KAN(OptionsInState):
    """A network whose edges are univariate splines: `x_q = sum_p phi_qp(x_p)` in every layer.

    Hidden values pass through a fixed map to the spline interval, which all levels of a hierarchy
    share. Beyond the interval, splines are continued linearly. The initial edge functions are
    random polynomials: a seed gives the same function for any number of intervals. Source:
    Southworth et al., arXiv 2603.04827, section 2.

    Subclasses are preserved: `refine`, `coarsen` and the levels of a hierarchy are copies with
    other coefficients. An overridden `forward` should call the splines only through
    `super().forward`; automatic differentiation then replaces the sparse Jacobians (see `altered`).

    Parameters
    ----------
    widths : sequence of int
        Number of inputs, widths of the hidden layers, and number of outputs.
    intervals : int or sequence of int
        Number of intervals of each edge's spline; one number, or one per layer.
    degree : int
        Degree of the splines, 1 to 5.
    linear : bool
        Whether a plain linear layer maps the input to the first hidden width, before all splines.
    domain : (float, float)
        The interval of all splines; inputs should lie in it.
    hidden : "tanh" or "identity"
        The map of hidden values: tanh scaled to the domain, or none, so that values outside the
        domain use the linear continuation (which networks trained elsewhere may need).
    dtype : torch.dtype, optional
        Precision of the parameters; float64 by default.
    device : torch.device, optional
        Device of the parameters; torch's default device by default.
    generator : torch.Generator, optional
        Source of the initial coefficients; seed 0 by default.

    Raises
    ------
    TypeError, ValueError
        If an argument is invalid, or the network does not fit into memory.

    Examples
    --------
    >>> kan = KAN([2, 5, 1], intervals=4)
    >>> x = torch.rand(10, 2, dtype=torch.float64)
    >>> kan(x).shape
    torch.Size([10, 1])
    >>> bool((kan.refine()(x) - kan(x)).abs().max() < 1e-14)
    True
    """

    __call__: Callable[..., torch.Tensor]

    def __init__(
        self,
        widths: Sequence[int],
        intervals: int | Sequence[int] = 4,
        degree: int = 3,
        *,
        linear: bool = False,
        domain: tuple[float, float] = (-1.0, 1.0),
        hidden: str = "tanh",
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        told = checked_options(
            widths, intervals, degree, linear, domain, hidden, dtype, device, generator
        )
        self.widths: tuple[int, ...] = told.widths
        self.intervals: tuple[int, ...] = told.intervals
        self.degree: int = told.degree
        self.domain: tuple[float, float] = told.domain
        self.hidden: str = told.hidden
        kind: dict[str, Any] = {"dtype": told.dtype, "device": told.device}
        generator = told.generator
        self.linear: torch.nn.Linear | None = None
        if linear:
            first, second = told.widths[:2]
            self.linear = torch.nn.Linear(first, second, **kind)
            draw_linear_(self.linear, generator)
        splines = self.widths[bool(linear) :]
        self.coefficients: torch.nn.ParameterList = torch.nn.ParameterList(
            torch.nn.Parameter(draw(inputs, outputs, n, told.degree, generator).to(**kind))
            for inputs, outputs, n in zip(splines[:-1], splines[1:], told.intervals, strict=True)
        )

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all parameters again, in place, as the constructor does.

        Parameters
        ----------
        generator : torch.Generator, optional
            PyTorch's own generator by default, as for every `reset_parameters`.
        """
        generator = torch.default_generator if generator is None else generator
        if self.linear is not None:
            draw_linear_(self.linear, generator)
        with torch.no_grad():
            for n, u in zip(self.intervals, self.coefficients, strict=True):
                u.copy_(draw(u.shape[0], u.shape[2], n, self.degree, generator))

    def state_options(self) -> dict[str, Any]:
        return {"degree": self.degree, "domain": self.domain, "hidden": self.hidden}

    def altered(self, method: str = "") -> str:
        """Describe what the formulas of a method do not cover in a call; "" if there is nothing.

        The formulas cover the `forward` of `KAN` and its own linear layer, but no other parameters.
        Otherwise `LeastSquares` and `Collocation` use automatic differentiation. `method` is
        "linearize", "linearize_residual" or "derivatives"; if it is overridden, the result is "".

        Examples
        --------
        >>> class Positive(KAN):
        ...     def forward(self, x):
        ...         return super().forward(x).exp()
        >>> KAN([1, 1]).altered(), Positive([1, 1]).altered()
        ('', 'Positive has a forward of its own')
        """
        if method and (
            method in vars(self) or getattr(type(self), method) is not vars(KAN)[method]
        ):
            return ""
        # The Jacobians use the map of hidden values itself, so it may be overridden.
        jacobian = method in ("linearize", "linearize_residual")
        found = alteration(self, KAN, ("forward",) if jacobian else ("forward", "into_domain"))
        if found or self.linear is None:
            known = list(self.coefficients)
        else:
            found = alteration(self.linear, torch.nn.Linear)
            known = [self.linear.weight, self.linear.bias, *self.coefficients]
        if found or [id(p) for p in known] == [id(p) for p in self.parameters()]:
            return found
        return f"{type(self).__name__} has other parameters than a KAN"

    def _require_plain(self, method: str) -> None:
        found = self.altered(method)
        if found:
            raise TypeError(
                f"KAN.{method} requires a network as KAN computes it, but {found}; differentiate "
                "it automatically, as LeastSquares does by itself, or override the method"
            )

    def into_domain(self, hidden: torch.Tensor) -> torch.Tensor:
        """The fixed map of hidden values to the spline interval."""
        return into_domain(hidden, self.hidden, self.domain)

    def check_inputs(self, x: torch.Tensor, axes: int | None = None) -> None:
        """Raise an error unless x is valid: type, last axis, precision, device, number of axes.

        Raises
        ------
        TypeError, ValueError
            If x is not valid.
        """
        if isinstance(x, torch.fx.Proxy):
            return  # `spline_layer` checks the input when the graph runs
        if not isinstance(x, torch.Tensor):
            raise TypeError(f"KAN got inputs of type {type(x).__name__}; give a tensor")
        first, inputs = self.coefficients[0], self.widths[0]
        if x.dim() < 1 or x.shape[-1] != inputs or axes not in (None, x.dim()):
            raise ValueError(
                f"KAN got inputs of shape {tuple(x.shape)}; it needs "
                f"({'...' if axes is None else 'samples'}, {inputs}), one column per input"
            )
        if x.dtype != first.dtype and working_dtype(x) != working_dtype(first):
            raise TypeError(
                f"KAN got inputs of {x.dtype}, but its coefficients are of {first.dtype}; convert "
                f"one of them, as with x.to({first.dtype})"
            )
        if x.device != first.device:
            raise ValueError(
                f"KAN got inputs on {x.device}, but its coefficients are on {first.device}; move "
                f"one of them, as with x.to({str(first.device)!r})"
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., inputs) to (..., outputs)."""
        coefficients = self.coefficients
        check_no_hooks("KAN", coefficients)
        self.check_inputs(x)
        if self.linear is not None:
            x = self.into_domain(raised(self.linear(x)))
        for number, (n, u) in enumerate(zip(self.intervals, coefficients, strict=True)):
            if number:
                x = self.into_domain(x)
            x = spline_layer(x, u, n, self.degree, self.domain)
        return x

    def linearize(self, x: torch.Tensor) -> tuple[torch.Tensor, Jacobian]:
        """The outputs for x of shape (samples, inputs), and their Jacobian as an operator."""
        self._require_plain("linearize")
        self.check_inputs(x, axes=2)
        if under_autocast(x):
            return in_full_precision(self.linearize, x)
        return linearize(self, x)

    def derivatives(self, inputs: Derivatives) -> KANDerivatives:
        """The outputs and their derivatives with respect to the points, given those of `inputs`."""
        self._require_plain("derivatives")
        return KANDerivatives(self, inputs)

    def jacobian(self, x: torch.Tensor) -> torch.Tensor:
        """The derivatives of the outputs with respect to all parameters, in `parameters()` order.

        The shape is (samples, outputs, parameters), in float64, for x of shape (samples, inputs).
        """
        return self.linearize(x)[1].dense().unflatten(0, (len(x), -1))

    def refinement_matrices(
        self, factor: int = 2, layers: Sequence[int] | None = None
    ) -> list[sp.csr_matrix]:
        """For each layer, the matrix from its splines to those of `refine(factor, layers)`."""
        factors = layer_factors("KAN.refinement_matrices", factor, layers, self.coefficients)
        return refinement_matrices(self.intervals, self.degree, factors)

    def coarsening_matrices(
        self, factor: int = 2, by: str = "projection", layers: Sequence[int] | None = None
    ) -> list[np.ndarray | SplineOperator]:
        """For each layer, the matrix from the splines of `refine(factor, layers)` to its own."""
        factors = layer_factors("KAN.coarsening_matrices", factor, layers, self.coefficients)
        return coarsening_matrices(self.intervals, self.degree, factors, by)

    def coarser_transfers(
        self, levels: int | None = None
    ) -> list[tuple[torch.nn.Parameter, list[AxisTransfer]]]:
        """Transfers from successively coarser levels, for the splines of each layer.

        Intervals are halved or divided by three as long as the number is divisible and greater
        than 4. `MultilevelGradient` calls this method.

        Parameters
        ----------
        levels : int, optional
            Maximal number of levels, including the network's own; if given, 4 or fewer are halved,
            too.
        """
        check_plain_tensors(self.coefficients, "KAN.coarser_transfers")
        chains = [coarser_matrices(n, self.degree, levels) for n in self.intervals]
        return [
            (u, [AxisTransfer(P, axis=1) for P in chain])
            for u, chain in zip(self.coefficients, chains, strict=True)
        ]

    def linearize_residual(self, residual: Residual) -> tuple[torch.Tensor, Jacobian]:
        """Residuals and their sparse Jacobian with respect to all parameters.

        Parameters
        ----------
        residual : callable
            The function `module -> tensor` or tuple of tensors; each tensor is computed from one
            call of the module and has a row per sample.
        """
        self._require_plain("linearize_residual")
        return linearize_residual(self, residual)

    def refine(self: Self, factor: int = 2, layers: Sequence[int] | None = None) -> Self:
        """Create a network with the same function and `factor` times as many intervals.

        Parameters
        ----------
        factor : int
            Refinement factor, at least 2.
        layers : sequence of int, optional
            The spline layers to refine, where -1 is the last; all by default. Layers that share
            their coefficients must be refined together.

        Examples
        --------
        >>> KAN([2, 5, 1], intervals=8).refine(layers=[0]).intervals
        (16, 8)
        """
        factors = layer_factors("KAN.refine", factor, layers, self.coefficients)
        intervals = [by * n for by, n in zip(factors, self.intervals, strict=True)]
        what, splines = f"KAN.refine got factor {shown(factor)}", self.widths[-len(intervals) - 1 :]
        check_coefficients(what, splines, intervals, self.degree)
        matrices = refinement_matrices(self.intervals, self.degree, factors)
        return self._on(intervals, matrices, "refine")

    def coarsen(
        self: Self, factor: int = 2, by: str = "projection", layers: Sequence[int] | None = None
    ) -> Self:
        """Create the closest network with fewer intervals; the inverse of `refine`.

        Parameters
        ----------
        factor : int
            Number by which the intervals are divided in every coarsened layer.
        by : "projection" or "injection"
            Closest edge functions, in L2 over the domain, or closest coefficients.
        layers : sequence of int, optional
            The layers to coarsen, as in `refine`.

        Raises
        ------
        ValueError
            If `factor` does not divide all numbers of intervals.
        """
        factors = layer_factors("KAN.coarsen", factor, layers, self.coefficients)
        if any(n % f for n, f in zip(self.intervals, factors, strict=True)):
            among = "" if layers is None else f" of layers {shown(layers)}"
            raise ValueError(
                f"KAN.coarsen got factor {shown(factor)} for {self.intervals} intervals; "
                f"it must divide all{among}"
            )
        intervals = [n // f for n, f in zip(self.intervals, factors, strict=True)]
        matrices = coarsening_matrices(intervals, self.degree, factors, by)
        return self._on(intervals, matrices, "coarsen")

    def nesting_defect(
        self, x: torch.Tensor, factor: int = 2, layers: Sequence[int] | None = None
    ) -> float:
        """The largest change of an output by `refine`, relative to the largest output.

        Parameters
        ----------
        x : tensor of shape (..., inputs)
            The inputs.
        factor : int
            Refinement factor.
        layers : sequence of int, optional
            The layers to refine, as in `refine`.

        Raises
        ------
        ValueError
            If x has no samples.
        """
        with torch.no_grad():
            outputs = self(x)
            if not outputs.numel():
                raise ValueError("KAN.nesting_defect got no samples; give at least one")
            change = (self.refine(factor, layers)(x) - outputs).abs().max()
            return float(change / outputs.abs().max().clamp_min(torch.finfo(x.dtype).tiny))

    def _on(
        self: Self,
        intervals: Sequence[int],
        matrices: Sequence[sp.csr_matrix | np.ndarray | SplineOperator],
        method: str,
    ) -> Self:
        """A copy on other knots: the matrices multiply the coefficients, in float64."""
        check_plain_tensors(self.coefficients, f"KAN.{method}")
        moved: dict[int, torch.nn.Parameter] = {}  # layers that share splines continue to do so
        pairs: Any = zip(matrices, self.coefficients, strict=True)
        for matrix, u in pairs:
            there = u.detach().clone()
            if matrix.shape[0] != matrix.shape[1]:  # otherwise the layer does not change
                values = AxisTransfer(matrix, axis=1).prolong(there.cpu().double().numpy())
                there = owned(values).to(u.device, u.dtype)
            moved.setdefault(id(u), torch.nn.Parameter(there, u.requires_grad))
        others = torch.nn.ParameterList(moved[id(u)] for u in self.coefficients)
        made = copy_with(self, f"KAN.{method}", [(self.coefficients, others)])
        made.intervals = tuple(intervals)
        return made

    def extra_repr(self) -> str:
        return (
            f"widths={list(self.widths)}, intervals={list(self.intervals)}, degree={self.degree}, "
            f"domain={self.domain}, hidden={self.hidden!r}"
        )
