"""Law: a model is saved with its settings, as a tensor; its net only with options of its own."""

import copy
import random
from dataclasses import asdict

import pytest
import torch

from mgnet.depth import (
    AdaptiveCycles,
    CyclesToTolerance,
    DepthSpline,
    FixedCycles,
    LayerParallel,
    ODENet,
)
from mgnet.depth.parallel.saved_settings import settings_from_state, settings_to_state
from mgnet.petsc import gather_state, load_state
from mgnet.training.extra_state import encode

CONTROLS = [
    FixedCycles(2),
    FixedCycles(1, backward=3),
    CyclesToTolerance(1e-3, max_cycles=7),
    AdaptiveCycles(every=5),
]


def drawn(seed, net=None):
    rng = random.Random(seed)
    levels = rng.choice([1, 2, 3])
    return LayerParallel(
        net or made(),
        levels,
        rng.choice([2, 4]) if levels < 3 else 2,
        rng.choice(["cascade + V", "V"]),
        rng.choice(["cascade + V", "V"]),
        rng.choice(CONTROLS),
        relaxation=rng.choice([("F", "FCF"), ("FCF",)]),
        mode=rng.choice(["mgrit", "serial", "auto"]),
        warm_start=rng.random() < 0.5,
    )


def made(**options):
    torch.manual_seed(0)
    return ODENet(torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Tanh()), 16, **options)


@pytest.mark.parametrize("seed", range(12))
def test_settings_come_back(seed):
    saved, other = drawn(seed), drawn(seed + 1)
    saved.calls = 10**seed
    state = saved.state_dict()
    assert all(isinstance(value, torch.Tensor) for value in state.values())
    assert not any(other.load_state_dict(state))
    assert (other.settings, other.control) == (saved.settings, saved.control)
    assert (other.calls, other.method) == (saved.calls, saved.method)
    told = settings_from_state(settings_to_state(saved.settings, None, 3))
    assert told == (saved.settings, None, 3)


def test_the_dictionary_of_an_older_version_loads():
    saved, other = drawn(0), drawn(1)
    state = saved.state_dict()
    control = [type(saved.control).__name__, asdict(saved.control)]
    state["_extra_state"] = {"settings": saved.settings, "control": control, "calls": 4}
    state["net._extra_state"] = torch.tensor([1, 2])
    assert not any(other.load_state_dict(state))
    assert (other.settings, other.control, other.calls) == (saved.settings, saved.control, 4)


@pytest.mark.parametrize("strict", [True, False])
def test_a_state_without_settings_leaves_them(strict):
    saved, other = drawn(0), drawn(1)
    settings, control = other.settings, other.control
    state = {k: v for k, v in saved.state_dict().items() if not k.endswith("_extra_state")}
    assert not any(other.load_state_dict(state, strict=strict))
    assert (other.settings, other.control) == (settings, control)


@pytest.mark.parametrize("options", [{"final_time": 2.0}, {"scheme": "heun"}])
@pytest.mark.parametrize("load", ["load_state_dict", "load_state"])
def test_another_net_is_refused_before_settings_are_taken_over(options, load):
    saved, other = drawn(0, made(**options)), drawn(1)
    before = copy.deepcopy(other)
    name, value = next(iter(options.items()))
    with pytest.raises(RuntimeError, match=f"a network with {name}={value!r}"):
        if load == "load_state":
            load_state(other, saved.state_dict())
        else:
            other.load_state_dict(saved.state_dict())
    assert (other.settings, other.control) == (before.settings, before.control)
    torch.testing.assert_close(dict(other.state_dict()), dict(before.state_dict()))


def test_what_is_gathered_has_everything():
    net = made(weights=DepthSpline(4, 2), learnable_steps=True)
    saved, other = drawn(3, net), drawn(4, copy.deepcopy(net))
    load_state(other, gather_state(saved))
    assert other.settings == saved.settings


def test_a_block_with_an_extra_state_of_its_own_is_not_cut_into_layers():
    class Noting(torch.nn.Linear):
        def get_extra_state(self):
            return encode({"kind": "noting"})

        def set_extra_state(self, state):
            pass

    one, other = (LayerParallel(ODENet(Noting(3, 3), 8)) for _ in range(2))
    load_state(other, gather_state(one))
    x = torch.ones(1, 3)
    assert torch.equal(one(x), other(x))


@pytest.mark.parametrize("state", [encode({"degree": 3}), {"settings": {}}, encode({})])
def test_the_state_of_another_module_is_refused(state):
    with pytest.raises(
        ValueError, match="extra state of another module.*of an ODENet into its net"
    ):
        settings_from_state(state)


def test_safetensors_and_accelerate_can_save_it(tmp_path):
    save = pytest.importorskip("safetensors.torch")
    saved, other = drawn(0), drawn(1)
    save.save_model(saved, tmp_path / "model.safetensors")
    assert save.load_model(other, tmp_path / "model.safetensors") == (set(), [])
    assert other.settings == saved.settings
    x = torch.rand(2, 3)
    assert torch.equal(other(x), saved(x))
