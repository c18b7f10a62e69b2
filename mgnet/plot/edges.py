"""Pictures of the edge functions of a KAN, with their knots and the density of the data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.interpolate import BSpline

from mgnet.knots import KAN, FreeKnotKAN
from mgnet.knots.refinement import uniform_knots
from mgnet.plot.plots import BLUE, GREY, ORANGE
from mgnet.training.loss.own_forward import alteration

__all__ = ["plot_edges"]

COLUMNS, ACROSS = 10, 11.0  # most panels in a row, and their total width in inches
WIDEST, ASPECT = 2.0, 0.72  # width of a panel in inches, and height over width
LEFT, RIGHT, HEAD, TITLE, FOOT, GAP = 0.7, 0.15, 0.3, 0.24, 0.52, 0.1  # margins in inches
NUMBERS = 0.16  # inches below a panel with its own numbers
SHORT = 4  # letters of a number, if three fit below a panel
LONGEST = 9  # letters of a name
POINTS, BINS = 401, 32  # in the domain
BEYOND = 4  # bins drawn on each side of it


class _Layer(NamedTuple):
    """One layer of splines, and the data at its inputs."""

    knots: np.ndarray  # (inputs, intervals + 2 degree + 1)
    coefficients: np.ndarray  # (inputs, splines, outputs)
    degree: int
    data: np.ndarray | None  # (samples, inputs)
    inputs: str  # label of the axis
    ranges: Sequence[tuple[float, float]] = ()  # the ends of the domain in the units of the inputs

    def domain(self, p: int) -> tuple[float, float]:
        return float(self.knots[p, self.degree]), float(self.knots[p, -self.degree - 1])

    def functions(self, p: int, z: np.ndarray) -> np.ndarray:
        """All edge functions of input p at z, of shape (len(z), outputs), extended linearly."""
        spline = BSpline(self.knots[p], self.coefficients[p], self.degree)
        inside = np.clip(z, *self.domain(p))
        return spline(inside) + (z - inside)[:, None] * spline(inside, 1)

    def places(self, p: int) -> np.ndarray:
        """Points where an edge is measured: at the data, or else throughout the domain."""
        return np.linspace(*self.domain(p), POINTS) if self.data is None else self.data[:, p]


class _Choice(NamedTuple):
    """The edges of a layer to draw, row by row."""

    edges: list[tuple[int, int]]  # input, output
    columns: int
    left_out: float  # share of the variance
    span: float  # largest distance of a drawn function from its mean
    numbers: bool = False  # whether each panel of a column has its own numbers below

    @property
    def width(self) -> float:
        """Width of a panel with its gap, in inches."""
        return min(ACROSS / self.columns, WIDEST)

    @property
    def height(self) -> float:
        """Height of all rows, in inches."""
        return HEAD + self.rows * self.pitch + FOOT

    @property
    def pitch(self) -> float:
        """Height of one row, in inches."""
        return ASPECT * self.width + TITLE + NUMBERS * self.numbers

    @property
    def rows(self) -> int:
        return -(-len(self.edges) // self.columns)


def plot_edges(
    kan: KAN | FreeKnotKAN,
    x: torch.Tensor | None = None,
    *,
    names: Sequence[str] = (),
    ranges: Sequence[tuple[float, float]] = (),
    most: int = 30,
) -> Figure:
    """Draw the edge functions of a KAN, layer by layer.

    Every function is shifted to mean 0, since constants may move between the edges that end in the
    same neuron. All panels of a layer have the same scale. Ticks on the lower edge are the knots,
    and bars show the density of the data at this input. Beyond the domain, which is shaded, the
    function is linear. The line is thin where there are no data.

    Parameters
    ----------
    kan : KAN or FreeKnotKAN
        Network to draw.
    x : tensor of shape (samples, inputs), optional
        Inputs of the network.
    names : sequence of str, optional
        Names of the inputs, then of the outputs; x1, x2, ..., y by default.
    ranges : sequence of (float, float), optional
        Ends of the domain in the unit of each input, for the numbers on the axes.
    most : int
        Largest number of panels per layer. If a layer has more edges, those are drawn whose
        functions have the largest variance over the data (over the domain if no data are given).

    Returns
    -------
    matplotlib Figure
        Figure with all layers; save it with `figure.savefig(path)`.

    Raises
    ------
    ValueError
        If there is not one name for each input and output, the number of ranges is not that of
        inputs, or `most` is not positive.
    TypeError
        If x is given for a subclass with its own forward, or for a network with hooks, since these
        may change the data inside the network.

    Examples
    --------
    >>> figure = plot_edges(KAN([2, 3, 1]), torch.rand(100, 2, dtype=torch.float64))
    >>> [ax.get_title() for ax in figure.axes]
    ['x1 → h1', 'x1 → h2', 'x1 → h3', 'x2 → h1', 'x2 → h2', 'x2 → h3', 'h1 → y', 'h2 → y', 'h3 → y']
    """
    ends = kan.widths[0] + kan.widths[-1]
    if names and len(names) != ends:
        raise ValueError(
            f"plot_edges got {len(names)} names; it needs {ends}, one for each input and output"
        )
    if len(ranges) not in (0, kan.widths[0]):
        raise ValueError(
            f"plot_edges got {len(ranges)} ranges; it needs {kan.widths[0]}, one for each input"
        )
    if most < 1:
        raise ValueError(f"plot_edges got most={most}; it must draw at least one edge of a layer")
    _check_whole(kan, x)
    layers = _layers(kan, x)
    if len(ranges) and kan.linear is None:
        told = "input, in its unit"
        layers[0] = layers[0]._replace(
            ranges=[(float(a), float(b)) for a, b in ranges], inputs=told
        )
    choices = [_choose(layer, most) for layer in layers]
    labels = _labels(kan.widths, names)[-len(layers) - 1 :]
    across = max(choice.columns * choice.width for choice in choices)
    size = max(LEFT + across + RIGHT, 3.6), sum(choice.height for choice in choices)
    figure, top = Figure(figsize=size), size[1]
    for number, (layer, choice) in enumerate(zip(layers, choices, strict=True)):
        _draw_layer(figure, top, layer, choice, (labels[number], labels[number + 1]))
        _write_head(figure, top, layer, choice, f"layer {len(kan.widths) - len(layers) + number}")
        top -= choice.height
    return figure


def _check_whole(kan: KAN | FreeKnotKAN, x: torch.Tensor | None) -> None:
    """Refuse data if a subclass or a hook may change them inside the network."""
    found = alteration(kan, FreeKnotKAN if isinstance(kan, FreeKnotKAN) else KAN)
    if x is not None and found:
        raise TypeError(
            f"plot_edges cannot follow the data through the layers, for {found}; leave x out"
        )


@torch.no_grad()
def _layers(kan: KAN | FreeKnotKAN, x: torch.Tensor | None) -> list[_Layer]:
    """The spline layers of a network, with the data propagated through them."""

    def mapped(hidden: torch.Tensor, layer: int) -> torch.Tensor:
        if isinstance(kan, FreeKnotKAN):
            return kan.into_domain(hidden, layer)
        return kan.into_domain(hidden)

    z = x if x is None or kan.linear is None else mapped(kan.linear(x), 0)
    layers = []
    for number, (n, u) in enumerate(zip(kan.intervals, kan.coefficients, strict=True)):
        if isinstance(kan, FreeKnotKAN):
            knots = kan.knots(number).double().cpu().numpy()
        else:
            knots = np.tile(uniform_knots(n, kan.degree, kan.domain), (len(u), 1))
        data = None if z is None else z.double().cpu().numpy()
        inputs = "input"
        if number or kan.linear is not None:
            mapping = ", mapped into the domain" if kan.hidden == "tanh" else ""
            inputs = f"hidden value{mapping}"
        layer = _Layer(knots, u.double().cpu().numpy(), kan.degree, data, inputs)
        layers.append(layer)
        if data is not None and number + 1 < len(kan.intervals):
            sums = sum(layer.functions(p, data[:, p]) for p in range(len(u)))
            z = mapped(torch.as_tensor(sums).to(u), number + 1)
    return layers


def _labels(widths: Sequence[int], names: Sequence[str]) -> list[list[str]]:
    """Names of all neurons, layer by layer."""

    def numbered(letter: str, count: int) -> list[str]:
        return [letter] if count == 1 else [f"{letter}{k + 1}" for k in range(count)]

    between = widths[1:-1]
    hidden = [
        [f"h{k + 1}" if len(between) == 1 else f"h{layer + 1}.{k + 1}" for k in range(width)]
        for layer, width in enumerate(between)
    ]
    short = [name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…" for name in names]
    given = [short[: widths[0]], short[widths[0] :]]
    if not names:
        given = [numbered("x", widths[0]), numbered("y", widths[-1])]
    return [given[0], *hidden, given[1]]


def _choose(layer: _Layer, most: int) -> _Choice:
    """All edges as a matrix, with its longer side horizontal, if it fits; else the strongest."""
    inputs, _, outputs = layer.coefficients.shape
    variance, reach = np.empty((inputs, outputs)), np.empty((inputs, outputs))
    for p in range(inputs):
        values = layer.functions(p, layer.places(p))
        centred = values - values.mean(0)
        variance[p], reach[p] = (centred**2).mean(0), np.abs(centred).max(0)
    if inputs * outputs <= most and max(inputs, outputs) <= COLUMNS:
        order = np.arange(inputs * outputs).reshape(inputs, outputs)
        order = order.T.ravel() if inputs >= outputs else order.ravel()
        columns = max(inputs, outputs)
    else:
        order = np.argsort(-variance, axis=None, kind="stable")[:most]
        columns = min(len(order), COLUMNS)
    shown = float(variance.ravel()[order].sum())
    total = max(float(variance.sum()), 1e-300)
    span = max(float(reach.ravel()[order].max()), 1e-12)
    edges = [divmod(int(k), outputs) for k in order]
    below = zip(edges, edges[columns:], strict=False)
    numbers = bool(layer.ranges) and any(one[0] != other[0] for one, other in below)
    return _Choice(edges, columns, max(1.0 - shown / total, 0.0), span, numbers)


def _write_head(figure: Figure, top: float, layer: _Layer, choice: _Choice, name: str) -> None:
    """Write which layer this is, and how many of its edges are left out."""
    inputs, _, outputs = layer.coefficients.shape
    total, shown = inputs * outputs, len(choice.edges)
    intervals = layer.knots.shape[1] - 1 - 2 * layer.degree
    text = f"{total} edge{'s' if total > 1 else ''}"
    if shown < total:
        text = f"the {shown} strongest of {text}"
    text = f"{text}, {intervals} interval{'s' if intervals > 1 else ''}, degree {layer.degree}"
    if shown < total:
        text += f" (those left out have {100.0 * choice.left_out:.0f} % of the variance)"
    width, height = figure.get_size_inches()
    figure.text(
        0.12 / width,
        (top - 0.08) / height,
        f"{name}: {text}",
        va="top",
        fontsize=10,
        weight="bold",
        color="0.2",
    )


def _draw_layer(
    figure: Figure, top: float, layer: _Layer, choice: _Choice, labels: tuple[list[str], list[str]]
) -> None:
    """Draw the panels of one layer, with its upper edge at `top` inches."""
    width, height = figure.get_size_inches()
    tall = ASPECT * choice.width
    last = len(choice.edges) - choice.columns  # panels from here on have no panel below
    for number, (p, q) in enumerate(choice.edges):
        row, column = divmod(number, choice.columns)
        left = LEFT + column * choice.width
        low = top - HEAD - row * choice.pitch - tall - TITLE
        wide = choice.width - GAP
        ax = figure.add_axes((left / width, low / height, wide / width, tall / height))
        _draw_edge(ax, layer, p, q, choice.span)
        title = f"{labels[0][p]} → {labels[1][q]}"
        ax.set_title(title, fontsize=min(8.0, 115.0 * wide / len(title)), pad=3)
        numbers = choice.numbers or number >= last
        ax.tick_params(labelsize=7, pad=2, labelleft=column == 0, labelbottom=numbers)
    middle = LEFT + 0.5 * (min(len(choice.edges), choice.columns) * choice.width)
    foot = top - choice.height + 0.2
    figure.text(middle / width, foot / height, layer.inputs, ha="center", va="center", fontsize=8)
    centre = top - HEAD - 0.5 * choice.rows * choice.pitch
    style = {"rotation": 90, "ha": "center", "va": "center", "fontsize": 8}
    figure.text(0.2 / width, centre / height, "edge function, mean 0", **style)


def _draw_edge(ax: Axes, layer: _Layer, p: int, q: int, span: float) -> None:
    """Draw one panel: the density, the knots and the function."""
    a, b = layer.domain(p)
    places = layer.places(p)
    bins = a + (b - a) / BINS * np.arange(-BEYOND, BINS + BEYOND + 1)
    ends = bins[0], bins[-1]
    inside = np.clip([places.min(), places.max()], *ends)
    z = np.union1d(np.linspace(*ends, POINTS), [a, b, *inside])
    values = layer.functions(p, z)[:, q] - layer.functions(p, places)[:, q].mean()
    upright = ax.get_xaxis_transform()
    if layer.data is not None:
        counts, _ = np.histogram(places, bins)
        bars = 0.35 * counts / max(counts.max(), 1)
        ax.stairs(bars, bins, fill=True, color="0.85", transform=upright, zorder=1)
    for side in ((ends[0], a), (b, ends[1])):
        ax.axvspan(*side, color=ORANGE, alpha=0.12, linewidth=0, zorder=0)
    ax.axhline(0.0, color="0.8", linewidth=0.6, zorder=1)
    reached = (z >= inside[0]) & (z <= inside[1])
    ax.plot(z, values, color=BLUE, linewidth=0.7, alpha=0.7, zorder=3)
    ax.plot(z[reached], values[reached], color=BLUE, linewidth=1.7, zorder=4)
    ax.set_xlim(*ends)
    ax.set_ylim(-1.15 * span, 1.15 * span)
    knots = layer.knots[p, layer.degree : -layer.degree]
    thin = float(np.clip(30.0 / len(knots), 0.2, 0.9))
    ax.vlines(knots, 0.0, 0.055, color="black", linewidth=thin, transform=upright, zorder=5)
    ax.tick_params(which="major", color=GREY, width=0.6, length=2.5)
    ax.set_xticks([a, 0.5 * (a + b), b])
    if layer.ranges:
        ax.set_xticks(*_in_units(layer.ranges[p], (a, b)))
    ax.yaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))
    for spine in ax.spines.values():
        spine.set_linewidth(0.5)
        spine.set_color(GREY)


def _in_units(
    ends: tuple[float, float], domain: tuple[float, float]
) -> tuple[list[float], list[str]]:
    """Points of the domain where an input is a round number in its unit, and these numbers."""
    size = max(map(abs, ends))
    # Over a power of ten at which sums of such numbers would overflow or lose their digits.
    unit = 10.0 ** np.floor(np.log10(size)) if size and not 1e-290 < size < 1e290 else 1.0
    low, high = ends[0] / unit, ends[1] / unit
    ticks = MaxNLocator(3, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    ticks = [float(tick) for tick in ticks if min(low, high) <= tick <= max(low, high)]
    texts = [f"{tick * unit:.6g}".replace("e+0", "e").replace("e-0", "e-") for tick in ticks]
    if max(map(len, texts), default=0) > SHORT:
        ticks, texts = ticks[:: len(ticks) - 1 or 1], texts[:: len(texts) - 1 or 1]
    a, b = domain
    return [a + (b - a) * (tick - low) / ((high - low) or 1.0) for tick in ticks], texts
