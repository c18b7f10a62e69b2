"""What the edge pictures draw is what the network computes."""

from itertools import combinations

import numpy as np
import pytest
import torch
from matplotlib.collections import LineCollection

from mgnet.knots import KAN, FreeKnotKAN
from mgnet.knots.nonuniform import spline_layer_on
from mgnet.plot.edges import BEYOND, BINS, plot_edges


def seeded(widths, intervals=4, degree=3, **options):
    kan = KAN(widths, intervals, degree, generator=torch.Generator().manual_seed(1), **options)
    with torch.no_grad():  # any splines, not the smooth initial ones
        for number, u in enumerate(kan.coefficients):
            noise = torch.randn(u.shape, generator=torch.Generator().manual_seed(number))
            u.add_(0.3 * noise)
    return kan


def uniform(samples, inputs, domain=(-1.0, 1.0)):
    draw = torch.rand(samples, inputs, generator=torch.Generator().manual_seed(2)).double()
    return domain[0] + (domain[1] - domain[0]) * draw


def panels(figure):
    return {ax.get_title(): ax for ax in figure.axes}


def curve(ax):
    """The line over the whole panel, not the thick one over the data."""
    lines = [line for line in ax.lines if len(line.get_xdata()) > 2]
    z, values = max(lines, key=lambda line: len(line.get_xdata())).get_data()
    return np.asarray(z), np.asarray(values)


@pytest.mark.parametrize("degree", [1, 3, 5])
@pytest.mark.parametrize("domain", [(-1.0, 1.0), (2.0, 6.0)])
def test_an_edge_is_what_the_network_does_along_one_input(degree, domain):
    kan, x = seeded([3, 2], [7], degree, domain=domain), uniform(300, 3, domain)
    for title, ax in panels(plot_edges(kan, x)).items():
        p, q = int(title[1]) - 1, int(title[-1]) - 1
        z, drawn = curve(ax)
        assert z[0] < domain[0] and z[-1] > domain[1]  # the continuation is drawn

        def edge(places, p=p, q=q):
            moved = x[:1].repeat(len(places), 1)  # the other inputs stand still
            moved[:, p] = torch.as_tensor(places)
            return kan(moved)[:, q].detach().numpy()

        assert drawn == pytest.approx(edge(z) - edge(x[:, p]).mean(), abs=1e-12)


@pytest.mark.parametrize("linear", [False, True])
def test_the_bars_count_the_data_that_arrive(linear):
    kan, x = seeded([2, 3, 1], linear=linear), uniform(500, 2)
    if linear:
        z = torch.tanh(kan.linear(x))
    else:
        first = seeded([2, 3])
        first.load_state_dict({"coefficients.0": kan.coefficients[0]})
        z = torch.tanh(first(x))
    figure = panels(plot_edges(kan, x))
    for p in range(3):
        bars = figure[f"h{p + 1} → y"].patches[0].get_data()
        counts, edges = np.histogram(z[:, p].detach(), bins=bars.edges)
        assert bars.values * counts.max() == pytest.approx(counts * bars.values.max())
        assert edges[[BEYOND, -BEYOND - 1]] == pytest.approx([-1.0, 1.0])
        assert len(counts) == BINS + 2 * BEYOND


def test_ticks_are_the_knots_and_the_outside_is_shaded():
    (ax,) = plot_edges(seeded([1, 1], 5, domain=(0.0, 2.0))).axes
    (ticks,) = ax.collections
    assert [line[0, 0] for line in ticks.get_segments()] == pytest.approx(np.linspace(0, 2, 6))
    left, right = (patch.get_x() for patch in ax.patches)
    assert (left, right) == pytest.approx((ax.get_xlim()[0], 2.0))
    assert ax.patches[1].get_width() == pytest.approx(ax.get_xlim()[1] - 2.0)


def test_the_strongest_edges_are_drawn_and_the_others_counted():
    kan = seeded([3, 16, 16, 2])
    with torch.no_grad():
        kan.coefficients[1][4, :, 6] *= 100.0
    figure = plot_edges(kan, uniform(200, 3), most=12)
    titles = list(panels(figure))
    assert len(titles) == 36
    assert titles[12] == "h1.5 → h2.7"
    heads = [text.get_text() for text in figure.texts if text.get_text().startswith("layer")]
    assert [head.split(",")[0] for head in heads] == [
        f"layer {k + 1}: the 12 strongest of {count} edges" for k, count in enumerate((48, 256, 32))
    ]
    left_out = [int(head.split("have ")[1].split(" %")[0]) for head in heads]
    assert left_out[1] < 10 < left_out[0]


def test_a_small_network_is_a_matrix_with_its_wider_side_to_the_right():
    figure = plot_edges(seeded([2, 3, 2]), names=("a", "b", "f", "g"))
    boxes = {title: ax.get_position() for title, ax in panels(figure).items()}
    assert boxes["a → h1"].y0 == boxes["a → h3"].y0 > boxes["b → h1"].y0
    assert boxes["b → h1"].y0 > boxes["h1 → f"].y0 == boxes["h3 → f"].y0 > boxes["h1 → g"].y0
    for k in (1, 2, 3):
        assert boxes[f"a → h{k}"].x0 == boxes[f"b → h{k}"].x0 == boxes[f"h{k} → g"].x0
    assert len({ax.get_ylim() for ax in figure.axes}) == 2  # one scale per layer


@pytest.mark.parametrize("widths", [[1, 1], [2, 5, 1], [16, 1], [3, 16, 1]])
def test_no_text_covers_another(widths):
    names = ["temperature of gas"] * (widths[0] + widths[-1])
    figure = plot_edges(seeded(widths, 20), uniform(50, widths[0]), names=names)
    figure.draw_without_rendering()
    bounds = [ax.title.get_window_extent() for ax in figure.axes]
    bounds += [text.get_window_extent() for text in figure.texts]
    assert all(box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 for box in bounds)
    assert not any(one.overlaps(two) for one, two in combinations(bounds, 2))


@pytest.mark.parametrize(
    "ends",
    [(280.0, 400.0), (-3e-9, 1e-9), (1e5, 2e7), (5.0, -5.0), (0.0, 1.7e308), (-1.7e308, 1.7e308)],
)
@pytest.mark.parametrize("widths", [[2, 3, 1], [3, 2, 1], [3, 16, 1]])
def test_numbers_below_an_input_are_in_its_unit(widths, ends):
    inputs = widths[0]
    kan, x = seeded(widths), uniform(50, inputs)
    figure = plot_edges(kan, x, ranges=[(0.0, 1.0)] * (inputs - 1) + [ends])
    figure.draw_without_rendering()
    drawn = panels(figure)
    first = {title: ax for title, ax in drawn.items() if title.startswith(f"x{inputs} ")}
    numbered = [ax for ax in first.values() if ax.xaxis.get_tick_params()["labelbottom"]]
    assert numbered
    for ax in numbered:
        told = np.array([float(text.get_text()) for text in ax.get_xticklabels()])
        middle, half = 0.5 * ends[0] + 0.5 * ends[1], 0.5 * ends[1] - 0.5 * ends[0]
        expected = middle + half * ax.get_xticks()
        np.testing.assert_allclose(told, expected, atol=1e-6 * abs(half), rtol=1e-6)
        assert 2 <= len(told) <= 4
    boxes = [
        text.get_window_extent()
        for ax in figure.axes
        for text in ax.get_xticklabels()
        if ax.xaxis.get_tick_params()["labelbottom"]
    ]
    boxes += [ax.title.get_window_extent() for ax in figure.axes]
    assert not any(one.overlaps(two) for one, two in combinations(boxes, 2))
    for column in {round(ax.get_position().x0, 3) for ax in first.values()}:
        own = [ax for ax in drawn.values() if round(ax.get_position().x0, 3) == column]
        own = [ax for ax in own if not ax.get_title().startswith("h")]
        silent = [ax for ax in own if not ax.xaxis.get_tick_params()["labelbottom"]]
        kinds = {ax.get_title().split()[0] for ax in own}
        assert not silent or len(kinds) == 1  # what has no numbers has those of the panel below
    assert "input, in its unit" in {text.get_text() for text in figure.texts}


def test_float32_and_no_data():
    plot_edges(seeded([2, 1], dtype=torch.float32), uniform(20, 2).float())
    assert not panels(plot_edges(seeded([1, 1])))["x → y"].patches[2:]  # no bars


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="got 2 names; it needs 3"):
        plot_edges(seeded([2, 1]), names=("a", "b"))
    with pytest.raises(ValueError, match="got 1 ranges; it needs 2"):
        plot_edges(seeded([2, 1]), ranges=[(0.0, 1.0)])
    with pytest.raises(ValueError, match="most=0"):
        plot_edges(seeded([2, 1]), most=0)


def test_free_knots_and_unmapped_hidden_values():
    kan = FreeKnotKAN([2, 2, 1], intervals=3, hidden="identity")
    with torch.no_grad():
        kan.free_knots[0].logits.copy_(torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, -1.0]]))
    x = uniform(200, 2)
    figure = plot_edges(kan, x)
    drawn = panels(figure)["x2 → h1"]
    knots = kan.knots(0)[1, 3:7].detach().numpy()
    marks = [c for c in drawn.collections if isinstance(c, LineCollection)][0].get_segments()
    assert [mark[0][0] for mark in marks] == pytest.approx(knots)
    z, values = curve(drawn)
    moved = x[:1].repeat(len(z), 1)
    moved[:, 1] = torch.as_tensor(z)
    first = spline_layer_on(moved, kan.coefficients[0], kan.knots(0), 3)[:, 0].detach().numpy()
    assert values - values[0] == pytest.approx(first - first[0], abs=1e-12)
    told = {text.get_text() for text in figure.texts}
    assert "hidden value" in told and "input" in told
