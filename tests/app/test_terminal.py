"""Law: the result table is complete and plain; the bar speaks on terminals only."""

import io
import math

import numpy as np
import pytest
from rich.console import Console

from mgnet.app.columns.targets import Targets
from mgnet.app.data import Data, Trained
from mgnet.app.terminal import progress_bar, result_table

DATA = Data(
    ("T",), Targets(("rho",)), np.zeros((2, 1)), np.array([0.0, 4.0]), np.zeros((0, 1)), np.zeros(0)
)


def trained(name, held, work=3.0):
    return Trained(name, lambda x: x[:, 0], 10, 1.0, work, 1e-3, held)


def test_the_best_held_out_error_is_starred():
    lines = result_table([trained("a", 1e-2), trained("b", 1e-3)], DATA).splitlines()
    assert [("*" in line) for line in lines] == [False, False, False, True]


def test_every_figure_is_in_its_column_and_unit():
    """Four times the square of 0.3 is the mean square: the target has the variance 4."""
    *_, line = result_table([trained("a", 0.09 / 4.0, work=1234.5)], DATA).splitlines()
    assert line.split() == ["a", "10", "1.0", "1234", "1.0e-03", "2.2e-02", "*", "0.3"]


def test_numbers_that_mean_nothing_do_no_harm():
    text = result_table([trained("[red]x", math.nan, math.nan), trained("b", math.inf)], DATA)
    assert "[red]x" in text
    assert " - " in text


@pytest.mark.parametrize("names", [("force", "charge", "ratio"), ("u" * 1000, "[red]v" * 20, "w")])
def test_nothing_of_several_targets_is_cut(names):
    """The first column was gone where three names stood side by side."""
    y = np.random.default_rng(0).normal(size=(9, 3))
    data = Data(("T",), Targets(names), y[:, :1], y, y[:, :1], y)
    one = Trained("KAN ensemble", lambda x: y + 0.5, 3402, 1.0, math.nan, 1e-3, 1e-2)
    text = result_table([one], data)
    lines = [line.split() for line in text.splitlines()]
    assert lines[-1] == [
        "KAN",
        "ensemble",
        "3402",
        "1.0",
        "-",
        "1.0e-03",
        "1.0e-02",
        "*",
        *["0.5"] * 3,
    ]
    assert "…" not in text and text.count("held-out RMSE,") == 3
    assert all(name[:40] in text for name in names)


def test_no_escape_codes_even_where_colours_are_forced(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b" not in result_table([trained("a", 1e-2)], DATA)


def test_the_bar_is_silent_in_a_pipe():
    stream = io.StringIO()
    with progress_bar(Console(file=stream, force_terminal=False)) as progress:
        progress(1.0, 0.5, 1e-3, 2)
    assert stream.getvalue().strip() == ""


def test_the_bar_shows_level_and_loss_on_a_terminal():
    stream = io.StringIO()
    with progress_bar(Console(file=stream, force_terminal=True, width=120)) as progress:
        progress(1.0, 0.5, 1e-3, 2)
    assert "level 2   training loss 1.000e-03" in stream.getvalue()
