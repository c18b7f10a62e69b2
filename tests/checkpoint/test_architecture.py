"""Law: a network described is built again, with every argument it has."""

import inspect
import json

import numpy as np
import pytest
import torch

from mgnet.checkpoint.architecture import check_shapes, from_config, to_config
from mgnet.knots import KAN, FreeKnotKAN

ARGUMENTS = {
    "widths": (2, 3, 1),
    "intervals": (4, 6),
    "degree": 2,
    "linear": False,
    "domain": (0.0, 2.0),
    "hidden": "identity",
    "dtype": torch.float32,
    "device": "cpu",
    "generator": torch.Generator().manual_seed(4),
}


@pytest.mark.parametrize("kind", [KAN, FreeKnotKAN])
@pytest.mark.parametrize("linear", [False, True])
def test_a_kan_is_built_again(kind, linear):
    arguments = ARGUMENTS | {"linear": linear, "intervals": (4,) if linear else (4, 6)}
    assert set(inspect.signature(kind).parameters) == set(arguments)  # none is forgotten
    network = kind(**arguments)
    again = from_config(json.loads(json.dumps(to_config(network))))
    again.load_state_dict(network.state_dict())
    assert type(again) is kind
    assert repr(again) == repr(network)
    x = torch.rand(50, 2, generator=torch.Generator().manual_seed(0)) * 3.0 - 0.5
    assert torch.equal(again(x), network(x))


def test_other_networks_are_told_by_their_shapes():
    told = to_config(torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3)))
    assert told["kind"] == "Sequential"
    assert told["shapes"]["0.weight"] == [3, 2] and told["shapes"]["1.running_mean"] == [3]
    with pytest.raises(ValueError, match="kind Sequential cannot be built"):
        from_config(told)


def test_a_subclass_and_a_namesake_are_not_taken_for_the_class():
    class Positive(KAN):
        def forward(self, x):
            return super().forward(x).exp()

    namesake = type("KAN", (Positive,), {})
    other = type("KAN", (torch.nn.Linear,), {})
    for network in (Positive([2, 1]), namesake([2, 1]), other(2, 1)):
        told = to_config(network)
        assert told["kind"] not in ("KAN", "FreeKnotKAN")
        with pytest.raises(ValueError, match="cannot be built from its description"):
            from_config(told)


@pytest.mark.parametrize("kind", [KAN, FreeKnotKAN])
def test_integers_of_numpy(kind):
    network = kind([np.int64(2), np.int32(3), 1], np.int64(4), np.int64(2))
    told = json.loads(json.dumps(to_config(network)))
    assert from_config(told).state_dict().keys() == network.state_dict().keys()


def test_shapes_are_those_of_files_from_before_options_were_in_the_state():
    network = torch.nn.Sequential(KAN([2, 1]), torch.nn.Linear(1, 1))
    assert list(to_config(network)["shapes"]) == ["0.coefficients.0", "1.weight", "1.bias"]


@pytest.mark.parametrize("kind", [KAN, FreeKnotKAN])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"widths": []}, "other numbers of widths and of intervals"),
        ({"widths": "x"}, "the widths 'x'; positive integers"),
        ({"widths": [2, True, 1]}, "the widths .2, True, 1."),
        ({"widths": [2, 10**30, 0]}, "the widths"),
        ({"intervals": 4}, "the intervals 4; positive"),
        ({"intervals": [4.0, 4]}, "the intervals"),
        ({"degree": None}, "degree of the network is not an integer"),
        ({"degree": 7}, "degree 7; it must be 1, 2, 3, 4 or 5"),
        ({"linear": 1}, "or linear is not a bool"),
        ({"linear": True}, "other numbers of widths and of intervals"),
        ({"hidden": 3}, "not strings"),
        ({"hidden": "sin"}, "hidden 'sin'"),
        ({"dtype": "x"}, "the dtype 'x'"),
        ({"dtype": "int64"}, "the dtype 'int64'"),
        ({"dtype": "nn"}, "the dtype 'nn'"),
        ({"domain": [1, 0]}, "domain"),
        ({"domain": ["a", "b"]}, "domain"),
        ({"domain": 3}, "domain"),
        ({"kind": ["KAN"]}, "kind .'KAN'. cannot be built"),
        ({"kind": None}, "kind None cannot be built"),
    ],
)
def test_descriptions_that_make_no_sense_are_refused(kind, change, words):
    with pytest.raises(ValueError, match=words):
        from_config({**to_config(kind([2, 3, 1])), **change})


def test_a_network_larger_than_its_tensors_is_not_built():
    kan = KAN([3, 2, 1], intervals=2, linear=True)
    told, tensors = to_config(kan), kan.state_dict()
    check_shapes(told, tensors)
    for change in ({"widths": [10**11, 2, 1]}, {"intervals": [10**11]}, {"degree": 10**11}):
        with pytest.raises(ValueError, match="the network has .* and its tensors have"):
            check_shapes({**told, **change}, tensors)
    with pytest.raises(ValueError, match="coefficients.0 of shape .*, and its tensors have None"):
        check_shapes(told, {})
