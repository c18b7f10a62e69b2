"""Law: with options, the module is the one that a script would build by hand."""

import pytest
import torch

import mgnet.depth

if "LayerParallel" not in dir(mgnet.depth):
    pytest.skip("mgnet.depth has no LayerParallel yet", allow_module_level=True)

from mgnet.depth import AdaptiveCycles, CyclesToTolerance, FixedCycles, LayerParallel, ODENet
from mgnet.options.layer_options import layer_parallel_from_options
from mgnet.options.reader import _helped


@pytest.fixture
def net():
    torch.manual_seed(0)
    return ODENet(torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Tanh()), layers=64)


def test_without_options_it_is_the_script_s(net):
    made = layer_parallel_from_options(
        net, prefix="none_", coarsening=8, control=AdaptiveCycles(2, 3)
    )
    byhand = LayerParallel(net, 2, 8, control=AdaptiveCycles(2, 3))
    assert (made.settings, made.control) == (byhand.settings, byhand.control)


def test_options_make_the_same_module(net, options):
    options(
        "-net_mgnet_levels 3 -net_mgnet_coarsening 8,4 -net_mgnet_forward_cycle 'cascade + F'"
        " -net_mgnet_backward_cycle V -net_mgnet_forward_max_cycles 2"
        " -net_mgnet_backward_max_cycles 3 -net_mgnet_relaxation FCF,F -net_mgnet_mode auto"
    )
    made = layer_parallel_from_options(net, prefix="net_")
    byhand = LayerParallel(
        net, 3, (8, 4), "cascade + F", "V", FixedCycles(2, 3), relaxation=("FCF", "F"), mode="auto"
    )
    assert (made.settings, made.control) == (byhand.settings, byhand.control)
    x = torch.randn(5, 3)
    assert torch.equal(made(x), byhand(x))


@pytest.mark.parametrize(
    ("line", "script", "expected"),
    [
        ("-k_mgnet_forward_max_cycles 2", FixedCycles(1), FixedCycles(2)),
        ("-k_mgnet_forward_max_cycles 2", AdaptiveCycles(1, 3), AdaptiveCycles(2, 3)),
        ("-k_mgnet_backward_max_cycles 2", AdaptiveCycles(1, 3), AdaptiveCycles(1, 2)),
        (
            "-k_mgnet_forward_max_cycles 7",
            CyclesToTolerance(0.1),
            CyclesToTolerance(0.1, max_cycles=7),
        ),
        ("-k_mgnet_control tolerance", FixedCycles(1), CyclesToTolerance(0.1)),
        ("-k_mgnet_control tolerance -k_mgnet_tolerance 1e-3", None, CyclesToTolerance(1e-3)),
        ("-k_mgnet_control adaptive -k_mgnet_forward_max_cycles 2", None, AdaptiveCycles(2)),
    ],
)
def test_controls(net, options, line, script, expected):
    options(line)
    assert layer_parallel_from_options(net, prefix="k_", control=script).control == expected


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("-mgnet_forward_cycel V", "-mgnet_forward_cycel is unknown; .*-mgnet_forward_cycle "),
        ("-mgnet_control fixd", "option -mgnet_control got 'fixd'.*the nearest is fixed"),
        ("-mgnet_levels 40", "option -mgnet_levels: .*40"),
        ("-mgnet_coarsening 1", "option -mgnet_coarsening got '1'; .* at least 2"),
        ("-mgnet_forward_cycle X", "option -mgnet_forward_cycle: .*X"),
        ("-mgnet_relaxation FXF", "option -mgnet_relaxation got 'FXF'; .*FCF"),
    ],
)
def test_errors(net, options, line, complaint):
    options(line)
    with pytest.raises(ValueError, match=complaint):
        layer_parallel_from_options(net)


def test_help(net, options, capfd):
    _helped.discard(("lh_", "layers"))
    options("-help -lh_mgnet_forward_max_cycles 2")
    layer_parallel_from_options(net, prefix="lh_")
    text = capfd.readouterr().out
    assert "mgnet (layers) options:" in text
    assert "-lh_mgnet_forward_max_cycles <now 2 : formerly 1>: " in text
    assert "-lh_mgnet_relaxation <F,FCF : F,FCF>: " in text
