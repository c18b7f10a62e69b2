"""Half the squared norm of a residual vector: an objective with a known Jacobian."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch

from mgnet.limits import is_count, shown
from mgnet.training.least_squares.jacobian import Jacobian, SparseJacobian, StackedJacobian
from mgnet.training.least_squares.linearization import Residual, blocks_of, linearize
from mgnet.training.least_squares.losses import pointwise_loss
from mgnet.training.least_squares.row_blocks import RowBlocks
from mgnet.training.least_squares.weights import weighted_samples
from mgnet.training.loss.objective import Data, Objective
from mgnet.training.loss.own_forward import knows
from mgnet.training.loss.parameters import lift
from mgnet.training.loss.user_functions import check_all_pairs

__all__ = ["LeastSquares"]


class LeastSquares(Objective):
    """Half the mean squared error: an objective with a known residual vector and Jacobian.

    The value is `1/2 |r(u)|^2` with `r = (outputs - targets) / sqrt(samples)`; with `from_torch`, r
    is the result of a function of the module. Residuals and Jacobians are in float64.

    Parameters
    ----------
    network : torch.nn.Module
        Network. If it has its own method `linearize(x)`, as a KAN does (see `KAN.altered` for
        subclasses), this method is used: it returns the outputs and a `Jacobian` with a row per
        sample and output. Other networks are differentiated automatically.
    data : (inputs, targets)
        Tensors with the samples on axis 0.
    penalty : callable, optional
        `network -> R`, a matrix with one column per parameter: the rows `R u` are appended to the
        residual vector. `mgnet.knots.roughness` is an example. Rows that act on frozen parameters
        are omitted.
    residual : callable, optional
        `module -> tensor` or tuple of tensors, instead of data; see `from_torch`.
    chunk_size : int, optional
        Number of rows of the Jacobian to hold in memory at once. If it has more rows, and at least
        as many rows as columns, they are recomputed when needed; see `RowBlocks`. By default all
        rows are stored, up to 2^26 numbers. A network with its own `linearize` ignores this.
    sample_weight : tensor or array of shape (samples,), optional
        Weight of each sample's squares, such as 1 / variance: `1/2 |r|^2 = 1/2 sum w_i |r_i|^2 /
        sum w_i`. Samples of weight 0 are omitted. With a residual function, multiply its rows by
        the square roots of the weights instead.
    loss : str
        "linear" for squares, or a loss that is less sensitive to outliers: "soft_l1", "huber",
        "cauchy", "arctan"; see `PointwiseLoss`. The loss is applied to the differences before they
        are weighted.
    f_scale : float
        Scale of such a loss, in the unit of the differences: about the size at which outliers
        begin.

    Raises
    ------
    TypeError, ValueError
        If arguments have the wrong type or do not fit together.

    Examples
    --------
    >>> network = torch.nn.Linear(1, 1, dtype=torch.float64)
    >>> x = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    >>> problem = LeastSquares(network, (x, 2.0 * x))
    >>> u = torch.tensor([1.0, 0.0], dtype=torch.float64)
    >>> problem.value(u), problem(u).tolist()
    (0.25, [-0.5, -0.5])
    >>> LeastSquares(network, (x, 2.0 * x), sample_weight=torch.tensor([1.0, 3.0])).value(u)
    0.375
    """

    # The term <shift, u> that the coarse problem of a descent subtracts; see `Recentred`.
    shift: torch.Tensor | None = None
    # Unit of the residuals; see `Rescaled`.
    unit: float = 1.0
    # Whether column norms of the Jacobian show the units of its unknowns; see `Unknowns`.
    tells_units: bool = True
    # Whether a check failed that steps on a device read at their end: see `device_steps`.
    checks_at_once: bool = False

    def __init__(
        self,
        network: torch.nn.Module,
        data: Data | None,
        penalty: Callable[[Any], torch.Tensor] | None = None,
        *,
        residual: Residual | None = None,
        chunk_size: int | None = None,
        sample_weight: Any = None,
        loss: str = "linear",
        f_scale: float = 1.0,
    ):
        if (data is None) == (residual is None):
            raise ValueError("LeastSquares needs either data or a residual function; give one")
        if chunk_size is not None and not is_count(chunk_size):
            raise ValueError(
                f"{type(self).__name__} got chunk_size {shown(chunk_size)}; it must be a positive "
                "integer, rows of the Jacobian in memory at once, or None"
            )
        super().__init__(network, _half_square, data)
        self.sample_weight = self._total = None
        if sample_weight is not None:
            self.data, self.sample_weight = weighted_samples("LeastSquares", data, sample_weight)
            self._total = float(self.sample_weight.sum())
        self.bend = pointwise_loss("LeastSquares", loss, f_scale)
        if penalty is not None and not callable(penalty):
            raise TypeError(
                f"LeastSquares got a penalty of type {type(penalty).__name__}; give a function of "
                "the network, such as mgnet.knots.roughness"
            )
        self.penalty = penalty
        self.residual = residual
        self.chunk_size = chunk_size

    @classmethod
    def from_torch(
        cls,
        module: torch.nn.Module,
        residual: Residual,
        chunk_size: int | None = None,
        loss: str = "linear",
        f_scale: float = 1.0,
    ) -> LeastSquares:
        """Half the sum of squared residuals of any module: `residual(module) -> tensor` or tuple.

        Parameters
        ----------
        module : torch.nn.Module
            Module whose parameters are the unknowns.
        residual : callable
            Residual function. It is fastest if entry i of each tensor depends only on sample i of
            each call of the module, so for several kinds of points return a tuple, not one long
            tensor.
        chunk_size, loss, f_scale
            The same as for `LeastSquares`.

        Examples
        --------
        >>> module = torch.nn.Linear(1, 1, bias=False)
        >>> problem = LeastSquares.from_torch(module, lambda m: m(torch.ones(1, 1)) - 3.0)
        >>> problem.value(torch.tensor([5.0]))
        2.0
        """
        return LeastSquares(
            module, None, residual=residual, chunk_size=chunk_size, loss=loss, f_scale=f_scale
        )

    def with_network(self, network: torch.nn.Module) -> LeastSquares:
        return self._like(network, self.data, self.sample_weight)

    def with_data(self, batch: Any) -> LeastSquares:
        self._require_data("with_data")
        if self.sample_weight is not None:
            raise TypeError(
                "LeastSquares with a sample_weight has no batches: its weights belong to all its "
                "samples; make one of the batch with its own weights"
            )
        return self._like(self.network, batch, None)

    def _at(self, kept: torch.Tensor) -> Objective:
        if self.sample_weight is None:
            return super()._at(kept)
        data = tuple(part[kept] for part in self.data)
        return self._like(self.network, data, self.sample_weight[kept])

    def _like(self, network: torch.nn.Module, data: Any, sample_weight: Any) -> LeastSquares:
        return LeastSquares(
            network,
            data,
            self.penalty,
            residual=self.residual,
            chunk_size=self.chunk_size,
            sample_weight=sample_weight,
            loss="linear" if self.bend is None else self.bend.name,
            f_scale=1.0 if self.bend is None else self.bend.f_scale,
        )

    @property
    def plain(self) -> bool:
        """Whether the objective is a sum of unweighted squares of the differences."""
        return self.sample_weight is None and self.bend is None

    @cached_property
    def rows(self) -> torch.Tensor | None:
        """The matrix of the penalty, with a column for each entry of u.

        Raises
        ------
        ValueError
            If it has the wrong number of columns, or couples trained and frozen parameters.
        """
        if self.penalty is None:
            return None
        rows, trained = _matrix(self.penalty(self.flat.module)), self.flat.places
        if rows.shape[1] not in (len(trained), int(trained.sum())):
            raise ValueError(
                f"LeastSquares got a penalty of shape {tuple(rows.shape)} for {len(trained)} "
                "parameters; give a matrix with one column per parameter"
            )
        if self.flat.all_trainable or rows.shape[1] == int(trained.sum()):
            return rows
        # The penalty of frozen parameters is a constant.
        trained = trained.to(rows.device)
        own, others = (rows.index_select(1, part.nonzero()[:, 0]) for part in (trained, ~trained))
        used = _nonzero_rows(own)
        if bool((used & _nonzero_rows(others)).any()):
            raise ValueError(
                "LeastSquares got a penalty that couples trained parameters with frozen ones "
                "(requires_grad=False); give one with a column for each trained parameter, or "
                "train all"
            )
        return own.index_select(0, used.nonzero()[:, 0])

    @cached_property
    def penalties(self) -> SparseJacobian | None:
        """The matrix as an operator, in float64."""
        return None if self.rows is None else SparseJacobian(self.rows.double())

    @property
    def weight(self) -> float:
        """Factor of all residuals: 1 / sqrt(samples, or the sum of weights); 1 without data."""
        if self._total is not None:
            return self._total**-0.5
        return 1.0 if self.data is None else len(self.data[0]) ** -0.5

    def _roots(self, differences: torch.Tensor) -> torch.Tensor:
        """Square root of each difference's sample weight, in float64."""
        weights: Any = self.sample_weight
        return weights.sqrt().repeat_interleave(len(differences) // len(weights))

    def _bent(self, differences: torch.Tensor) -> torch.Tensor:
        """The residuals of all differences, in float64, without the common weight."""
        r = differences.double() if self.bend is None else self.bend.roots(differences)
        return r if self.sample_weight is None else self._roots(r) * r

    def _slopes(self, differences: torch.Tensor) -> torch.Tensor:
        """The derivative of each of these residuals with respect to its difference."""
        if self.bend is None:
            return self._roots(differences)
        slopes = self.bend.slopes(differences)
        return slopes if self.sample_weight is None else self._roots(slopes) * slopes

    def differences(self, network: torch.nn.Module) -> Any:
        """The residuals of a network, without weight and penalty."""
        if self.residual is not None:
            made = self.residual(network)
            if not self._looked:
                self._looked = True
                check_all_pairs(self.residual, network, made)
            return made
        return self._against_targets(network(self.data[0]))

    def _against_targets(self, outputs: torch.Tensor) -> torch.Tensor:
        targets = self.data[1]
        if outputs.shape != targets.shape:  # torch would broadcast (n, 1) - (n,) to (n, n)
            raise ValueError(
                f"LeastSquares got targets of shape {tuple(targets.shape)} for outputs of shape "
                f"{tuple(outputs.shape)}; give targets of the shape of the outputs"
            )
        return outputs - targets

    def residuals(self, u: torch.Tensor) -> torch.Tensor:
        """The residual vector r: samples times outputs, then the rows of the penalty."""
        u = u.detach()
        with torch.enable_grad():  # a residual may contain derivatives with respect to the inputs
            blocks = blocks_of(self.flat.evaluate(self.differences, u))
        r = torch.cat([block.detach().reshape(-1) for block in blocks])
        r = self._bent(r) * self.weight
        return r if self.penalties is None else torch.cat([r, self.penalties.matvec(u.double())])

    def half_square(self, r: torch.Tensor) -> float:
        """`1/2 |r|^2` for a result of `residuals`, summed over ranks if each has its own rows."""
        return 0.5 * float(r @ r)

    def largest(self, r: torch.Tensor) -> float:
        """The largest magnitude in a result of `residuals`, over all ranks."""
        return float(r.abs().max()) if len(r) else 0.0

    def value(self, u: torch.Tensor) -> float:
        return self.half_square(self.residuals(u))

    def value_and_gradient(self, u: torch.Tensor) -> tuple[float, torch.Tensor]:
        value, gradient = super().value_and_gradient(u)
        if self.penalties is not None:
            extra = self.penalties.matvec(u.detach().double())
            value = value + 0.5 * float(extra @ extra)
            gradient = gradient + self.penalties.rmatvec(extra).to(gradient)
        if value in (0.0, math.inf):  # squares reach these earlier in float32 than in float64
            value = self.half_square(self.residuals(u))
        return value, gradient

    def _loss(self, u: torch.Tensor) -> torch.Tensor:
        with torch.enable_grad():
            blocks = blocks_of(self.flat.evaluate(self.differences, u))
            if self.plain:
                return _half_square(blocks) * self.weight**2
            r = torch.cat([block.reshape(-1) for block in blocks])
            known = r.detach()
            bent = self._bent(known) * self.weight
            # The value, plus terms that vanish and have the gradient of 1/2 |r|^2.
            pull = bent * self._slopes(known) * self.weight
            return 0.5 * (bent @ bent) + pull @ (r - known).double()

    def penalty_at(self, u: torch.Tensor) -> float:
        """Half the squared norm of the rows of the penalty; 0 without one."""
        return (
            0.0
            if self.penalties is None
            else 0.5 * float(self.penalties.matvec(u.double()).square().sum())
        )

    def mean_square(self, u: torch.Tensor) -> float:
        """The mean squared error, without the factor 1/2 and the penalty."""
        return 2.0 * super().value(u)

    def linearize(self, u: torch.Tensor) -> tuple[torch.Tensor, Jacobian]:
        """The residual vector and its Jacobian as an operator."""
        u = u.detach()
        J: Jacobian
        own = knows(self.network, "linearize") and self.flat.all_trainable
        if self.data is not None and own:
            x = self.data[0] if self.flat.module is self.network else lift(self.data[0])
            outputs, J = self.flat.evaluate(lambda network: network.linearize(x), u)
            r = self._against_targets(outputs).double().reshape(-1)
        else:
            inputs = None if self.data is None else self.data[0]
            r, J = linearize(self.flat, self.differences, u, self.chunk_size, inputs)
        if not self.plain:
            r, J = self._bent(r), J.scaled_rows(self._slopes(r))
        r = r * self.weight
        if isinstance(J, RowBlocks) and self.penalties is None:
            return r, J.scaled(self.weight)  # its matrix J^T J is not formed twice
        J = StackedJacobian(((self.weight, J),))
        if self.penalties is None:
            return r, J
        r = torch.cat([r, self.penalties.matvec(u.double())])
        return r, StackedJacobian((*J.parts, (1.0, self.penalties)))

    def jacobian(self, u: torch.Tensor) -> torch.Tensor:
        """The Jacobian of the residual vector as a dense matrix: shape (its length, parameters)."""
        return self.linearize(u)[1].dense()


def _half_square(blocks: list[torch.Tensor]) -> torch.Tensor:
    return 0.5 * torch.stack([block.square().sum() for block in blocks]).sum()


def _matrix(rows: Any) -> torch.Tensor:
    """Check that the result of a penalty is a matrix."""
    if isinstance(rows, torch.Tensor) and rows.dim() == 2:
        return rows.detach()
    got = f"shape {tuple(rows.shape)}" if isinstance(rows, torch.Tensor) else type(rows).__name__
    raise TypeError(
        f"LeastSquares got a penalty that returned {got}; it must return a matrix R, a tensor with "
        "one column per parameter, whose rows R u join the residuals"
    )


def _nonzero_rows(matrix: torch.Tensor) -> torch.Tensor:
    """Which rows of a matrix, dense or sparse, have a nonzero entry."""
    if not matrix.is_sparse:
        return (matrix != 0.0).any(1)
    matrix = matrix.coalesce()
    found = torch.zeros(matrix.shape[0], dtype=torch.bool, device=matrix.device)
    found[matrix.indices()[0][matrix.values() != 0.0]] = True
    return found
