"""Law: with options, the module is the one that a script would build by hand."""

import pytest
import torch

from mgnet.depth import CyclesToTolerance, FixedCycles, TimeParallel
from mgnet.options.reader import _helped
from mgnet.options.time_options import time_parallel_from_options


@pytest.fixture
def gru():
    torch.manual_seed(0)
    return torch.nn.GRU(2, 3)


def test_without_options_it_is_the_script_s(gru):
    script = {"levels": 3, "coarsening": (8, 2), "relaxation": ("F", "FCF"), "cycle": "F"}
    script |= {"control": FixedCycles(2), "mode": "auto", "warm_start": True}
    made = time_parallel_from_options(gru, prefix="none_", **script)
    assert str(made) == str(TimeParallel(gru, **script)) and made.warm_start
    assert str(time_parallel_from_options(gru, prefix="none_")) == str(TimeParallel(gru))


def test_options_make_the_same_module(gru, options):
    options(
        "-rnn_mgnet_levels 3 -rnn_mgnet_coarsening 8,4 -rnn_mgnet_cycle F -rnn_mgnet_mode mgrit"
        " -rnn_mgnet_relaxation F,FCF -rnn_mgnet_tolerance 1e-4 -rnn_mgnet_forward_max_cycles 7"
    )
    made = time_parallel_from_options(gru, prefix="rnn_", levels=2, mode="serial")
    control = CyclesToTolerance(1e-4, max_cycles=7)
    byhand = TimeParallel(gru, 3, (8, 4), ("F", "FCF"), control, cycle="F")
    assert str(made) == str(byhand)
    x = torch.randn(300, 2, 2)
    assert torch.equal(made(x)[0], byhand(x)[0])


def test_fixed_cycles_and_newton(gru, options):
    options(
        "-k_mgnet_control fixed -k_mgnet_forward_max_cycles 2 -k_mgnet_coarsening 4"
        " -k_mgnet_cycle newton(diagonal)"
    )
    made = time_parallel_from_options(gru, prefix="k_")
    assert (made.control.cycles, made.cycles.cycle) == (2, "newton(diagonal)")
    assert made.cycles.coarsening == 4


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("-mgnet_cycel V", "-mgnet_cycel is unknown; the nearest is -mgnet_cycle "),
        ("-mgnet_control adaptive", "option -mgnet_control.* has no adaptive cycles; give fixed"),
        ("-mgnet_levels 70", "option -mgnet_levels.*70"),
        ("-mgnet_cycle X", "option -mgnet_cycle.*X"),
        ("-mgnet_relaxation F,F,F", "option -mgnet_relaxation.* for 2 levels"),
        ("-mgnet_mode fast", "option -mgnet_mode got 'fast'"),
    ],
)
def test_errors(gru, options, line, complaint):
    options(line)
    with pytest.raises(ValueError, match=complaint):
        time_parallel_from_options(gru)


def test_help(gru, options, capfd):
    _helped.discard(("th_", "time"))
    options("-help -th_mgnet_levels 3")
    time_parallel_from_options(gru, prefix="th_")
    text = capfd.readouterr().out
    assert "mgnet (time) options:" in text
    assert "-th_mgnet_levels <now 3 : formerly 2>: " in text
