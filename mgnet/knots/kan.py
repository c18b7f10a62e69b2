"""Kolmogorov-Arnold networks whose edges are splines on a grid that refines exactly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Integral
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
import torch

from mgnet.knots.derivatives import KANDerivatives
from mgnet.knots.jacobian import linearize
from mgnet.knots.layer import spline_layer
from mgnet.knots.local_jacobian import linearize_residual
from mgnet.knots.refinement import (
    injection_matrix,
    mass_matrix,
    projection_matrix,
    refinement_matrix,
    uniform_knots,
)
from mgnet.knots.spline import polynomial_coefficients, roughness_factor
from mgnet.knots.spline_network import into_domain
from mgnet.training.least_squares.jacobian import Jacobian
from mgnet.training.least_squares.linearization import Residual
from mgnet.transfer import AxisTransfer

if TYPE_CHECKING:
    from mgnet.training.equations.derivatives import Derivatives

__all__ = ["KAN", "roughness"]


class KAN(torch.nn.Module):
    """A network whose edges carry univariate splines: `x_q = sum_p phi_qp(x_p)` in every layer.

    Hidden values go through one fixed map onto the spline interval, that all levels of a
    hierarchy share. Beyond the interval splines are continued linearly. The initial edge functions
    are random polynomials: a seed gives the same function on any number of intervals.
    Source: Southworth et al., arXiv 2603.04827, section 2.

    Parameters
    ----------
    widths : sequence of int
        Of the input, the hidden layers and the output.
    intervals : int or sequence of int
        Of each edge's spline; one number per layer if wished.
    degree : int
        Of the splines, 1 to 5.
    linear : bool
        Whether a plain linear layer maps the input to the first hidden width, before any spline.
    domain : (float, float)
        The interval of all splines; inputs are expected in it.
    hidden : "tanh" or "identity"
        The map of hidden values: tanh scaled to the domain, or none, which leaves values beyond it
        to the linear continuation (as networks trained elsewhere may need).
    dtype : torch.dtype, optional
        float64 by default.
    generator : torch.Generator, optional
        Of the initial coefficients; seed 0 by default.

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
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        if not isinstance(widths, Sequence) or not _positive(widths) or len(widths) < 2 + linear:
            raise ValueError(
                f"KAN got widths {widths!r}; it needs positive integers, one spline layer apart: "
                f"{'[2, 5, 1]' if linear else '[2, 1]'} is the least"
            )
        layers = len(widths) - 1 - linear
        if not isinstance(degree, Integral) or not 1 <= degree <= 5:
            raise ValueError(f"KAN got degree {degree}; it must be 1, 2, 3, 4 or 5")
        per_layer = list(intervals) if isinstance(intervals, Sequence) else [intervals] * layers
        if len(per_layer) != layers or not _positive(per_layer):
            raise ValueError(
                f"KAN got intervals {intervals!r} for {layers} spline layers; "
                "give one positive integer, or one per layer"
            )
        if not isinstance(domain, Sequence) or len(domain) != 2 or not domain[0] < domain[1]:
            raise ValueError(f"KAN got domain {domain!r}; give two numbers in increasing order")
        if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
            raise TypeError(f"KAN got dtype {dtype!r}; give torch.float64 or torch.float32")
        if generator is not None and not isinstance(generator, torch.Generator):
            raise TypeError(
                f"KAN got generator {generator!r}; give torch.Generator().manual_seed(0), say"
            )
        if hidden not in ("tanh", "identity"):
            raise ValueError(f"KAN got hidden {hidden!r}; it must be 'tanh' or 'identity'")
        self.widths: tuple[int, ...] = tuple(widths)
        self.intervals: tuple[int, ...] = tuple(int(n) for n in per_layer)
        self.degree: int = degree
        self.domain: tuple[float, float] = (float(domain[0]), float(domain[1]))
        self.hidden: str = hidden
        dtype = dtype or torch.float64
        generator = generator or torch.Generator().manual_seed(0)
        self.linear: torch.nn.Linear | None = None
        if linear:
            self.linear = torch.nn.Linear(widths[0], widths[1], dtype=dtype)
            self._draw_linear(generator)
        splines = self.widths[linear:]
        self.coefficients: torch.nn.ParameterList = torch.nn.ParameterList(
            torch.nn.Parameter(self._draw(inputs, outputs, n, generator).to(dtype))
            for inputs, outputs, n in zip(splines[:-1], splines[1:], per_layer, strict=True)
        )

    def _draw(
        self, inputs: int, outputs: int, intervals: int, generator: torch.Generator
    ) -> torch.Tensor:
        """Random polynomials of degree at most 3, of variance about 1 / inputs on the domain."""
        top = min(self.degree, 3)
        drawn = torch.randn(inputs, outputs, top + 1, generator=generator, dtype=torch.float64)
        # Chebyshev polynomials, the higher ones smaller, in powers of the centred variable z.
        size = np.array([0.1, 1.0, 0.4, 0.2])[: top + 1] / np.sqrt(inputs)
        centred = np.apply_along_axis(np.polynomial.chebyshev.cheb2poly, -1, drawn.numpy() * size)
        if centred.shape[-1] < self.degree + 1:
            pad = [(0, 0)] * 2 + [(0, self.degree + 1 - centred.shape[-1])]
            centred = np.pad(centred, pad)
        # In the variable z in [-1, 1], so that no powers of large numbers appear.
        values = polynomial_coefficients(centred, intervals, self.degree, (-1.0, 1.0))
        return torch.from_numpy(np.ascontiguousarray(values.swapaxes(1, 2)))

    def _draw_linear(self, generator: torch.Generator) -> None:
        layer = self.linear
        if layer is not None:
            with torch.no_grad():
                weight = torch.randn(layer.weight.shape, generator=generator, dtype=torch.float64)
                layer.weight.copy_(weight / layer.in_features**0.5)
                layer.bias.zero_()

    def into_domain(self, hidden: torch.Tensor) -> torch.Tensor:
        """The fixed map of hidden values onto the spline interval."""
        return into_domain(hidden, self.hidden, self.domain)

    def check_inputs(self, x: torch.Tensor, axes: int | None = None) -> None:
        """Raise unless x can be the input: kind, last axis, precision, device, number of axes.

        Raises
        ------
        TypeError, ValueError
        """
        if not isinstance(x, torch.Tensor):
            raise TypeError(f"KAN got inputs of type {type(x).__name__}; give a tensor")
        first, inputs = self.coefficients[0], self.widths[0]
        if x.dim() < 1 or x.shape[-1] != inputs or axes not in (None, x.dim()):
            raise ValueError(
                f"KAN got inputs of shape {tuple(x.shape)}; it needs "
                f"({'...' if axes is None else 'samples'}, {inputs}), one column per input"
            )
        if x.dtype != first.dtype:
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
        """(..., inputs) -> (..., outputs)."""
        self.check_inputs(x)
        if self.linear is not None:
            x = self.into_domain(self.linear(x))
        for number, (n, u) in enumerate(zip(self.intervals, self.coefficients, strict=True)):
            if number:
                x = self.into_domain(x)
            x = spline_layer(x, u, n, self.degree, self.domain)
        return x

    def linearize(self, x: torch.Tensor) -> tuple[torch.Tensor, Jacobian]:
        """Outputs (samples, outputs), and their Jacobian in all parameters as an operator.

        Parameters
        ----------
        x : tensor of shape (samples, inputs)
        """
        self.check_inputs(x, axes=2)
        return linearize(self, x)

    def derivatives(self, inputs: Derivatives) -> KANDerivatives:
        """Outputs and their derivatives in the points, of which the inputs are functions."""
        return KANDerivatives(self, inputs)

    def jacobian(self, x: torch.Tensor) -> torch.Tensor:
        """Derivatives of the outputs by all parameters, in the order of `parameters()`.

        Parameters
        ----------
        x : tensor of shape (samples, inputs)

        Returns
        -------
        tensor of shape (samples, outputs, parameters), in float64
        """
        return self.linearize(x)[1].dense().unflatten(0, (len(x), -1))

    def refinement_matrices(self, factor: int = 2) -> list[sp.csr_matrix]:
        """Of each layer, from the splines of this network to those of `refine(factor)`."""
        return [refinement_matrix(n, self.degree, factor) for n in self.intervals]

    def coarsening_matrices(self, factor: int = 2, by: str = "projection") -> list[np.ndarray]:
        """Of each layer, from the splines of `refine(factor)` to those of this network."""
        if by not in ("projection", "injection"):
            raise ValueError(f"KAN.coarsen got by={by!r}; it must be 'projection' or 'injection'")
        made = {}
        for n in set(self.intervals):
            P = refinement_matrix(n, self.degree, factor)
            if by == "injection":
                made[n] = injection_matrix(P)
            else:  # on any domain: its length cancels
                knots = uniform_knots(factor * n, self.degree, (0.0, 1.0))
                made[n] = projection_matrix(P, mass_matrix(knots, self.degree))
        return [made[n] for n in self.intervals]

    def linearize_residual(self, residual: Residual) -> tuple[torch.Tensor, Jacobian]:
        """Residuals and their Jacobian in all parameters, with few entries in each row.

        Parameters
        ----------
        residual : callable
            `module -> tensor` or tuple of tensors, each of one call of the module, a row per
            sample.
        """
        return linearize_residual(self, residual)

    def refine(self, factor: int = 2) -> KAN:
        """The same function with `factor` times as many intervals, a new network.

        Parameters
        ----------
        factor : int
            At least 2.
        """
        if not isinstance(factor, Integral) or factor < 2:
            raise ValueError(f"KAN.refine got factor {factor}; it must be an integer of at least 2")
        fine = self._with_intervals([factor * n for n in self.intervals])
        fine._take(self, self.refinement_matrices(factor))
        return fine

    def coarsen(self, factor: int = 2, by: str = "projection") -> KAN:
        """The closest network with fewer intervals, a new one; undoes `refine`.

        Parameters
        ----------
        factor : int
            Must divide the intervals of every layer.
        by : "projection" or "injection"
            Closest edge functions, in L2 over the domain, or closest coefficients.
        """
        if (
            not isinstance(factor, Integral)
            or factor < 2
            or any(n % factor for n in self.intervals)
        ):
            raise ValueError(
                f"KAN.coarsen got factor {factor} for {self.intervals} intervals; "
                "it must be an integer of at least 2 and divide all"
            )
        coarse = self._with_intervals([n // factor for n in self.intervals])
        coarse._take(self, coarse.coarsening_matrices(factor, by))
        return coarse

    def nesting_defect(self, x: torch.Tensor, factor: int = 2) -> float:
        """The largest change of an output by `refine`, over the largest output; rounding only.

        Parameters
        ----------
        x : tensor of shape (..., inputs)
        factor : int
        """
        with torch.no_grad():
            outputs = self(x)
            if not outputs.numel():
                raise ValueError("KAN.nesting_defect got no samples; give at least one")
            change = (self.refine(factor)(x) - outputs).abs().max()
            return float(change / outputs.abs().max().clamp_min(torch.finfo(x.dtype).tiny))

    def _take(self, other: KAN, matrices: Sequence[sp.csr_matrix | np.ndarray]) -> None:
        """Set the coefficients to matrices times those of another network, in float64."""
        for matrix, source, own in zip(
            matrices, other.coefficients, self.coefficients, strict=True
        ):
            values = source.detach().cpu().double().numpy()
            with torch.no_grad():
                own.copy_(torch.from_numpy(AxisTransfer(matrix, axis=1).prolong(values)))

    def _with_intervals(self, intervals: Sequence[int]) -> KAN:
        """A network of the same kind with zero coefficients and the same linear layer."""
        first = self.coefficients[0]
        other = KAN(
            self.widths,
            intervals,
            self.degree,
            linear=self.linear is not None,
            domain=self.domain,
            hidden=self.hidden,
            dtype=first.dtype,
        ).to(first.device)
        if self.linear is not None and other.linear is not None:
            other.linear.load_state_dict(self.linear.state_dict())
        for own, theirs in zip(other.parameters(), self.parameters(), strict=True):
            own.requires_grad_(theirs.requires_grad)
        return other

    def extra_repr(self) -> str:
        return (
            f"widths={list(self.widths)}, intervals={list(self.intervals)}, degree={self.degree}, "
            f"domain={self.domain}, hidden={self.hidden!r}"
        )


def _positive(numbers: Sequence[int]) -> bool:
    return all(isinstance(n, Integral) and n > 0 for n in numbers)


def roughness(kan: KAN, weight: float = 1.0) -> torch.Tensor:
    """Rows R with `|R u|^2 = weight * sum over edges of the integral of phi''^2`, as a penalty.

    Integrals are taken as if the domain were [-1, 1]. Refinement does not change the value.

    Parameters
    ----------
    kan : KAN
    weight : float
        Not negative.

    Returns
    -------
    tensor of shape (coefficients, parameters)
        For `LeastSquares(kan, data, penalty=partial(roughness, weight=...))`.

    Examples
    --------
    >>> kan = KAN([1, 2, 1], intervals=3)
    >>> u = torch.nn.utils.parameters_to_vector(kan.parameters())
    >>> fine = torch.nn.utils.parameters_to_vector(kan.refine().parameters())
    >>> bool(torch.isclose((roughness(kan) @ u).norm(), (roughness(kan.refine()) @ fine).norm()))
    True
    """
    blocks = []
    if kan.linear is not None:
        linear = kan.linear
        blocks.append(linear.weight.new_zeros(0, linear.weight.numel() + linear.bias.numel()))
    for n, u in zip(kan.intervals, kan.coefficients, strict=True):
        factor = torch.as_tensor(roughness_factor(n, kan.degree) * weight**0.5).to(u.detach())
        inputs, _, outputs = u.shape
        eyes = [torch.eye(size).to(factor) for size in (inputs, outputs)]
        blocks.append(torch.kron(torch.kron(eyes[0], factor), eyes[1]))
    return torch.block_diag(*blocks)
