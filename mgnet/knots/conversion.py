"""Conversion of KANs trained with efficient-kan and pykan, from their `state_dict`.

Neither package is imported. In every layer, both packages compute

    x_q = sum_p scale_pq spline_pq(x_p) + weight_pq base(x_p) + bias_q

with splines that fall to zero within `degree` intervals beyond the grid, and with a fixed function
`base`, usually SiLU. Splines, scales, masks and biases are converted exactly. The base function is
not a spline: either the coefficients of its closest spline on the same knots are added, or it is
left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch.nn.functional import pad, silu

from mgnet.knots.free_knots import FreeKnotKAN, continued, insert_knots
from mgnet.knots.kan import KAN
from mgnet.knots.nonuniform import local_basis_on, spline_layer_on

__all__ = ["Imported", "from_efficient_kan", "from_pykan"]

State = Mapping[str, torch.Tensor]
Base = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Imported:
    """An imported network, and its differences from the original one.

    Attributes
    ----------
    network : KAN or FreeKnotKAN
        The imported network: a KAN if all grids of the original are the same uniform grid; float64.
    difference : float
        Largest difference between the outputs of the two networks, relative to the largest output,
        at those check points that stay inside the grids; dimensionless.
    base_share : float
        Contribution of the base functions to the layers, from 0 to 1: their norm divided by the sum
        of their norm and that of the splines.
    outside : float
        Fraction of the check points for which some value in some layer leaves the domain of the
        splines. At these points the network is continued linearly, and its outputs are not
        compared.
    """

    network: KAN | FreeKnotKAN
    difference: float
    base_share: float
    outside: float


class _Layer(NamedTuple):
    knots: torch.Tensor  # (inputs, intervals + 2 degree + 1)
    splines: torch.Tensor  # coefficients (inputs, intervals + degree, outputs)
    base: torch.Tensor  # weights of the base function (inputs, outputs)
    bias: torch.Tensor  # (outputs,)

    @property
    def degree(self) -> int:
        return self.knots.shape[1] - self.splines.shape[1] - 1


def from_efficient_kan(
    state: State,
    base: Base = silu,
    *,
    splines_only: bool = False,
    factor: int = 1,
    outside: str = "vanish",
    inputs: torch.Tensor | None = None,
    outputs: torch.Tensor | None = None,
    tolerance: float = 1e-3,
) -> Imported:
    """Import a network of efficient-kan (github.com/Blealtan/efficient-kan).

    Parameters
    ----------
    state : mapping of tensors
        The `state_dict()` of a `KAN` of that package.
    base : callable
        The `base_activation` of the model, a function from a tensor to a tensor of the same shape.
    splines_only : bool
        Whether to leave out the base branch; `base_share` measures the loss.
    factor : int
        Number of parts into which each interval is divided, for a better approximation of the base:
        the difference decreases like `factor^-(degree + 1)`.
    outside : "vanish" or "linear"
        Behavior beyond the grid: "vanish" falls to zero as in the original, with `degree` (for
        degree 1, two) more intervals on both sides; "linear" continues linearly from the ends of
        the grid, without more intervals.
    inputs : tensor of shape (samples, inputs), optional
        Check points; by default 1000 random points in the grids of the first layer.
    outputs : tensor of shape (samples, outputs), optional
        Outputs of the original network at `inputs`; by default its formula is evaluated.
    tolerance : float
        Largest accepted `difference`, dimensionless.

    Returns
    -------
    Imported
        The network, with measures of its accuracy.

    Raises
    ------
    ValueError
        If the state has an unsupported form, an argument is invalid, or the outputs differ too
        much.

    Examples
    --------
    >>> state = {
    ...     "layers.0.grid": torch.arange(-4.0, 6.0).repeat(2, 1),  # one uniform grid, [-1, 2]
    ...     "layers.0.spline_weight": torch.rand(1, 2, 6),
    ...     "layers.0.base_weight": torch.ones(1, 2),
    ... }
    >>> imported = from_efficient_kan(state, factor=4)
    >>> imported.network.intervals, imported.difference < 1e-4
    ((36,), True)
    """
    layers = []
    for number in range(_count(state, "layers.{}.spline_weight", "efficient-kan")):
        name = f"layers.{number}."
        splines = _read(state, name + "spline_weight")
        if name + "spline_scaler" in state:  # optional in the original
            splines = splines * _read(state, name + "spline_scaler").unsqueeze(-1)
        grid, weight = _read(state, name + "grid"), _read(state, name + "base_weight")
        layers.append(_Layer(grid, splines.permute(1, 2, 0), weight.T, grid.new_zeros(len(weight))))
    return _imported(layers, base, splines_only, factor, outside, inputs, outputs, tolerance)


def from_pykan(
    state: State,
    base: Base = silu,
    *,
    splines_only: bool = False,
    factor: int = 1,
    outside: str = "vanish",
    inputs: torch.Tensor | None = None,
    outputs: torch.Tensor | None = None,
    tolerance: float = 1e-3,
) -> Imported:
    """Import a network of pykan 0.2 (github.com/KindXiaoming/pykan).

    Source of the formulas: Liu et al., arXiv 2404.19756, section 2, and arXiv 2408.10205.

    Parameters
    ----------
    state : mapping of tensors
        The `state_dict()` of a model without multiplication nodes or symbolic edges. After
        `prune_input`, the network has only the remaining inputs.
    base : callable
        The `base_fun` of the model, a function from a tensor to a tensor of the same shape.
    splines_only, factor, outside, inputs, outputs, tolerance
        The arguments of `from_efficient_kan`.

    Returns
    -------
    Imported
        The network, with measures of its accuracy.

    Raises
    ------
    ValueError
        If the state has an unsupported form, an argument is invalid, or the outputs differ too
        much.

    Examples
    --------
    >>> state = {
    ...     "act_fun.0.grid": torch.tensor([[-2.0, -1.0, -0.2, 1.0, 2.0]]),  # of degree 1
    ...     "act_fun.0.coef": torch.tensor([[[1.0, 0.0, 1.0]]]),
    ...     **{f"act_fun.0.{name}": torch.ones(1, 1) for name in ("mask", "scale_sp")},
    ...     "act_fun.0.scale_base": torch.zeros(1, 1),
    ...     **{f"{name}_scale_0": torch.ones(1) for name in ("node", "subnode")},
    ...     **{f"{name}_bias_0": torch.zeros(1) for name in ("node", "subnode")},
    ...     "symbolic_fun.0.mask": torch.zeros(1, 1),
    ... }
    >>> imported = from_pykan(state, outside="linear")
    >>> imported.network(torch.tensor([[0.4]], dtype=torch.float64)).item()
    0.5
    >>> imported.base_share
    0.0
    """
    layers = []
    for number in range(_count(state, "act_fun.{}.coef", "pykan")):
        name = f"act_fun.{number}."
        coefficients = _read(state, name + "coef")
        if coefficients.dim() != 3:
            raise ValueError(
                f"from_pykan got coefficients of shape {tuple(coefficients.shape)} in layer "
                f"{number}; it reads the state of pykan 0.2, (inputs, outputs, splines)"
            )
        if _read(state, f"symbolic_fun.{number}.mask").any():
            raise ValueError(
                f"from_pykan got symbolic edges in layer {number}; their functions are not in the "
                "state, take the state from before they were fixed"
            )
        scale, subscale, bias, subbias = (
            _read(state, f"{kind}_{number}")
            for kind in ("node_scale", "subnode_scale", "node_bias", "subnode_bias")
        )
        if len(scale) != len(subscale):
            raise ValueError(
                f"from_pykan got multiplication nodes after layer {number}; "
                "a KAN of mgnet has sums only, train the original without them"
            )
        edges = _read(state, name + "mask") * subscale * scale
        splines = coefficients * (edges * _read(state, name + "scale_sp")).unsqueeze(-1)
        weight = edges * _read(state, name + "scale_base")
        bias = bias + scale * subbias
        layers.append(_Layer(_read(state, name + "grid"), splines.permute(0, 2, 1), weight, bias))
    return _imported(layers, base, splines_only, factor, outside, inputs, outputs, tolerance)


def _count(state: State, pattern: str, package: str) -> int:
    count = 0
    while pattern.format(count) in state:
        count += 1
    if not count:
        raise ValueError(
            f"state got no tensor {pattern.format(0)!r} but {sorted(state)[:3]}; "
            f"give the state_dict of a KAN of {package}, without a prefix in its names"
        )
    return count


def _read(state: State, name: str) -> torch.Tensor:
    if name not in state:
        raise ValueError(f"state got no tensor {name!r}; give the complete state_dict of the KAN")
    return state[name].detach().cpu().double()


def _imported(
    layers: list[_Layer],
    base: Base,
    splines_only: bool,
    factor: int,
    outside: str,
    inputs: torch.Tensor | None,
    outputs: torch.Tensor | None,
    tolerance: float,
) -> Imported:
    _check(layers, factor, outside)
    original = [_padded(layer) for layer in layers]
    kept = original if outside == "vanish" else layers
    network = _network(kept, None if splines_only else base, factor)
    x = _points_of(layers[0]) if inputs is None else inputs.detach().cpu().double()
    value = x
    inside = torch.ones(len(x), dtype=torch.bool)
    spline_norm = base_norm = 0.0
    for layer, ours in zip(original, kept, strict=True):
        a, b = ours.knots[:, ours.degree], ours.knots[:, -ours.degree - 1]
        inside &= ((value >= a) & (value <= b)).all(-1)
        splines = spline_layer_on(value, layer.splines, layer.knots, layer.degree)
        beside = base(value) @ layer.base
        spline_norm += float(splines.square().sum())
        base_norm += float(beside.square().sum())
        value = splines + layer.bias + (0.0 if splines_only else beside)
    if not inside.any():
        raise ValueError(
            f"import got {len(x)} check points, all of which leave the grids; "
            "give inputs that stay inside in every layer, or update the grids of the original"
        )
    expected = value if outputs is None else outputs.detach().cpu().double()
    with torch.no_grad():
        error = (network(x) - expected)[inside].abs().max() / expected[inside].abs().max()
    if not error <= tolerance:
        raise ValueError(
            f"import got outputs that differ by {float(error):.2g} of the largest, more than the "
            f"tolerance {tolerance:.2g}; give the base function of the original, or a larger factor"
        )
    share = base_norm**0.5 / max(base_norm**0.5 + spline_norm**0.5, 1e-300)
    return Imported(network, float(error), share, float((~inside).double().mean()))


def _check(layers: list[_Layer], factor: int, outside: str) -> None:
    if factor < 1 or outside not in ("vanish", "linear"):
        raise ValueError(
            f"import got factor {factor} and outside={outside!r}; "
            "the factor must be at least 1, outside 'vanish' or 'linear'"
        )
    degrees = [layer.degree for layer in layers]
    if len(set(degrees)) > 1 or not 1 <= degrees[0] <= 5:
        raise ValueError(
            f"import got splines of degrees {degrees}; they must be the same in all layers, 1 to 5"
        )
    for number, layer in enumerate(layers):
        empty = ~(layer.knots.diff(dim=-1) > 0.0).all(-1)
        if empty.any():
            raise ValueError(
                f"import got a grid that does not increase, of layer {number}, input "
                f"{int(empty.nonzero()[0])}; update the grid of the original with other samples"
            )


def _padded(layer: _Layer) -> _Layer:
    """The same splines on a domain that includes the intervals on which they fall to zero."""
    extra = max(layer.degree, 2)  # a broken line needs one more interval to end with slope 0
    knots = continued(layer.knots, extra)
    return layer._replace(knots=knots, splines=pad(layer.splines, (0, 0, extra, extra)))


def _network(layers: list[_Layer], base: Base | None, factor: int) -> KAN | FreeKnotKAN:
    degree, parts = layers[0].degree, torch.arange(factor, dtype=torch.float64) / factor
    grids, coefficients = [], []
    for layer in layers:
        coarse = layer.knots[:, degree:-degree]
        cut = coarse[:, :-1, None] + coarse.diff(dim=-1)[..., None] * parts
        grid = torch.cat([cut.flatten(1), coarse[:, -1:]], -1)
        u = insert_knots(layer.splines, layer.knots, continued(grid, degree), degree)
        if base is not None:
            u = u + _closest_splines(base, grid, degree).unsqueeze(-1) * layer.base.unsqueeze(1)
        grids.append(grid)
        coefficients.append(u + layer.bias / len(u))  # splines sum to 1, also in the continuation
    widths = [len(u) for u in coefficients] + [coefficients[-1].shape[-1]]
    intervals = [grid.shape[1] - 1 for grid in grids]
    domain = (float(grids[0][0, 0]), float(grids[0][0, -1]))
    if all(_is_uniform(grid, domain) for grid in grids):
        network = KAN(widths, intervals, degree, domain=domain, hidden="identity")
    else:
        network = FreeKnotKAN(widths, intervals, degree, hidden="identity")
        for knots, grid in zip(network.free_knots, grids, strict=True):
            knots.place(grid)
    with torch.no_grad():
        for own, u in zip(network.coefficients, coefficients, strict=True):
            own.copy_(u)
    return network


def _is_uniform(grid: torch.Tensor, domain: tuple[float, float]) -> bool:
    """Whether a grid is uniform to the rounding of float32, in which most grids were made."""
    uniform = torch.linspace(*domain, grid.shape[1], dtype=grid.dtype)
    return bool((grid - uniform).abs().max() <= 1e-4 * (uniform[1] - uniform[0]))


def _closest_splines(base: Base, grid: torch.Tensor, degree: int) -> torch.Tensor:
    """Coefficients (inputs, splines) of the least-squares fit of a function on each grid."""
    nodes = 0.5 - 0.5 * torch.cos(torch.linspace(0.0, torch.pi, 2 * degree + 1).double())
    x = (grid[:, :-1, None] + grid.diff(dim=-1)[..., None] * nodes).flatten(1)
    first, (values,) = local_basis_on(x.T, continued(grid, degree), degree)
    columns = first.unsqueeze(-1) + torch.arange(degree + 1)
    zeros = values.new_zeros(*x.T.shape, grid.shape[1] - 1 + degree)
    matrices = zeros.scatter(-1, columns, values).transpose(0, 1)
    return torch.linalg.lstsq(matrices, base(x).unsqueeze(-1)).solution.squeeze(-1)


def _points_of(layer: _Layer) -> torch.Tensor:
    a, b = layer.knots[:, layer.degree], layer.knots[:, -layer.degree - 1]
    generator = torch.Generator().manual_seed(0)
    return a + (b - a) * torch.rand(1000, len(a), generator=generator, dtype=torch.float64)
