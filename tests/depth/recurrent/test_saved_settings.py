"""Law: settings come back from a state_dict as they went in, or are refused in one sentence."""

import copy

import pytest
import torch
from torch import nn

from mgnet.depth import CyclesToTolerance, FixedCycles, LayerParallel, ODENet, TimeParallel
from mgnet.depth.recurrent.cycles import TimeCycles
from mgnet.depth.recurrent.saved_settings import settings_from_state, settings_to_state


@pytest.mark.parametrize(
    "settings",
    [
        (TimeCycles(), CyclesToTolerance(1e-9), "mgrit", True),
        (TimeCycles(3, (8, 2), ("F", "FCF"), "F"), FixedCycles(2, 3), "auto", False),
        (TimeCycles(2, None, "F", "newton(diagonal)"), FixedCycles(1), "serial", False),
    ],
)
def test_there_and_back(settings):
    assert settings_from_state(settings_to_state(*settings, True), True) == settings


def test_a_module_takes_over_the_settings_of_the_saved_one(tmp_path):
    torch.manual_seed(0)
    one = TimeParallel(
        nn.GRU(3, 4),
        3,
        (4, 2),
        "F",
        FixedCycles(1, tolerance=9.0),
        cycle="F",
        warm_start=True,
    )
    x = torch.randn(90, 2, 3)
    expected = copy.deepcopy(one)(x)[0]
    torch.save(one.state_dict(), tmp_path / "state.pt")
    other = TimeParallel(nn.GRU(3, 4), mode="serial")
    other(x)
    other.load_state_dict(torch.load(tmp_path / "state.pt"))
    assert str(other) == str(one)
    assert torch.equal(other(x)[0], expected)


def test_a_state_without_settings_leaves_those_of_the_module():
    module = nn.GRU(3, 4)
    parallel = TimeParallel(nn.GRU(3, 4), 3, 4)
    told = str(parallel)
    parallel.load_state_dict({f"cell.{name}": x for name, x in module.state_dict().items()})
    assert str(parallel) == told
    assert torch.equal(parallel.cell.weight_hh_l0, module.weight_hh_l0)


def test_another_function_is_refused_before_anything_is_loaded():
    parallel = TimeParallel(nn.GRU(3, 4, batch_first=True))
    before = parallel.cell.weight_hh_l0.clone()
    with pytest.raises(RuntimeError, match="batch_first=False, but this one has batch_first=True"):
        parallel.load_state_dict(TimeParallel(nn.GRU(3, 4)).state_dict())
    assert torch.equal(parallel.cell.weight_hh_l0, before)
    with pytest.raises(RuntimeError, match="size mismatch"):
        parallel.load_state_dict(TimeParallel(nn.GRU(3, 5, batch_first=True)).state_dict())


def test_states_of_other_modules_are_refused():
    net = LayerParallel(ODENet(nn.Linear(2, 2), 8))
    with pytest.raises(ValueError, match="load the state_dict of a TimeParallel module"):
        TimeParallel(nn.GRU(3, 4)).set_extra_state(net.get_extra_state())
    with pytest.raises(ValueError, match="load the state_dict of a LayerParallel module"):
        net.set_extra_state(TimeParallel(nn.GRU(3, 4)).get_extra_state())
    with pytest.raises(ValueError, match="holds no options"):
        settings_from_state(torch.zeros(3), False)
