"""Another start is what the constructors would draw; what nothing draws is refused."""

import pytest
import torch

from mgnet.knots import KAN
from mgnet.training import Ansatz, sine_network
from mgnet.training.loss.fresh_start import fresh_start
from mgnet.training.loss.parameters import FlatParameters


def mlp():
    return torch.nn.Sequential(torch.nn.Linear(2, 5), torch.nn.Tanh(), torch.nn.Linear(5, 1))


@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_kan_is_drawn_by_the_generator_as_its_constructor_does(linear, dtype):
    kan = KAN([2, 3, 1], [2, 5] if not linear else [5], linear=linear, dtype=dtype)
    other = KAN(
        kan.widths,
        kan.intervals,
        linear=linear,
        dtype=dtype,
        generator=torch.Generator().manual_seed(7),
    )
    before = FlatParameters(kan).start()
    assert torch.equal(fresh_start("train", kan, 7), FlatParameters(other).start())
    assert torch.equal(before, FlatParameters(kan).start())


def test_other_networks_are_drawn_as_pytorch_does_and_its_generator_stays():
    network, state = mlp(), torch.random.get_rng_state()
    found = fresh_start("train", network, 3)
    assert torch.equal(state, torch.random.get_rng_state())
    torch.manual_seed(3)
    assert torch.equal(found, FlatParameters(mlp()).start())
    assert not torch.equal(found, fresh_start("train", network, 4))
    assert torch.equal(found, fresh_start("train", network, 3))


def test_single_numbers_keep_their_values_and_frozen_ones_have_no_place():
    u = Ansatz(KAN([1, 2, 1]), coefficients={"c": 1.5})
    assert fresh_start("train", u, 9)[-1] == 1.5
    sines = sine_network([1, 3, 1], 4.0, learn=True)
    assert 4.0 in fresh_start("train", sines, 0)
    network = mlp()
    network[0].requires_grad_(False)
    torch.manual_seed(5)
    expected = FlatParameters(mlp()[2]).start()
    found = fresh_start("train", network, 5)
    assert found.shape == expected.shape
    assert not torch.equal(found, FlatParameters(network).start())


def test_attention_and_normalisation_are_drawn():
    layer = torch.nn.TransformerEncoderLayer(4, 2, 8)
    found, before = fresh_start("train", layer, 1), FlatParameters(layer).start()
    assert bool(torch.isfinite(found).all())
    assert float((found != before).double().mean()) > 0.7  # but biases of 0, scales of 1


class Waves(torch.nn.Module):
    def __init__(self, numbers):
        super().__init__()
        self.numbers = torch.nn.Parameter(torch.tensor(numbers))

    def forward(self, x):
        return (self.numbers * x).sin().sum(1, keepdim=True)


@pytest.mark.parametrize("numbers", [[1.0, 2.0], [3.0]])
def test_what_nothing_draws_is_refused(numbers):
    sentence = "train cannot draw a new start of the Waves: no method draws its parameter 'numbers'"
    with pytest.raises(TypeError, match=sentence):
        fresh_start("train", Waves(numbers), 0)


def test_a_reset_that_always_gives_the_same_is_refused():
    class Zeroed(Waves):
        def reset_parameters(self):
            self.numbers.data.zero_()

    with pytest.raises(TypeError, match="no method draws its parameter 'numbers'"):
        fresh_start("train", Zeroed([0.0, 0.0]), 0)


def test_a_kan_is_drawn_by_pytorchs_own_generator_without_another():
    kan = KAN([2, 3, 1])
    torch.manual_seed(8)
    kan.reset_parameters()
    torch.manual_seed(8)
    again = KAN([2, 3, 1], generator=torch.default_generator)
    assert torch.equal(FlatParameters(kan).start(), FlatParameters(again).start())
