"""A rate of each layer is computed with as its tensor, and is no plain number."""

import copy
import math
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mgnet.depth.batched.layer_rate import give_rates, has_rates, plain_number


def rated(rates=(0.0, 0.1, 0.25)):
    module = nn.Dropout(0.0)
    give_rates(module, "p", rates)
    return module


def of_layer(n, rates=(0.0, 0.1, 0.25)):
    module = rated(rates)
    module._buffers["p_of_layers"] = module._buffers["p_of_layers"][n]
    return module


@pytest.mark.parametrize("n", [0, 1, 2])
def test_arithmetic_is_that_of_the_number(n):
    rate, number, x = of_layer(n).p, (0.0, 0.1, 0.25)[n], torch.tensor([2.0, 3.0])
    for f in (
        lambda p: x * (1 - p),
        lambda p: (1.0 - p) * x,
        lambda p: x / (1 - p),
        lambda p: x.div(1.0 - p),
        lambda p: x.clone().div_(1 - p),
        lambda p: 1 - (1 - p) + x,
        lambda p: x - p + (p - 0.5) + (p + 2) / (1 - p) + 3 / (1 - p) + p * 2 - (2 - p),
        lambda p: torch.full_like(x, 1.0).mul(p),
        lambda p: x * (1 - p) ** 2 + 2**p - abs(p) + abs(1 - p) - (-p),
    ):
        got = f(rate)
        assert got.dtype == torch.float32
        torch.testing.assert_close(got, f(number))


def test_comparisons_are_those_of_a_number_between_0_and_1():
    rate = rated().p
    for p in (rate, 1 - rate):
        assert p and p != 0.0 and p != 1 and p > 0.0 and p >= 0 and p < 1.0 and p <= 1
        assert not (p == 0 or p == 1.0 or p < 0.0 or p > 1.0 or p >= 1 or p <= 0 or p is None)
        assert p == p and p != "x" and len({p, rate}) >= 1
        for use in (
            lambda p: p > 0.5,
            lambda p: p == 0.1,
            lambda p: float(p),
            lambda p: math.sqrt(p),
        ):
            with pytest.raises(TypeError, match="p of its Dropout, which differs between layers"):
                use(p)


def test_numbers_come_back_as_they_were_in_every_precision():
    rates = [0.0, 0.001, 0.1, 1 / 3, 0.7, 1 - 2.0**-53]
    module = nn.Sequential(rated(rates)).half().bfloat16().double()
    module = pickle.loads(pickle.dumps(copy.deepcopy(module)))
    assert module[0].p.rates().tolist() == rates
    assert (1 - module[0].p).rates().tolist() == [1 - rate for rate in rates]
    assert [plain_number(of_layer(n, rates).p) for n in range(6)] == rates
    assert plain_number(0.3) == 0.3
    assert not module.state_dict()


def test_copies_have_their_own():
    module = rated()
    other = copy.deepcopy(module)
    other.p_of_layers.zero_()
    assert module.p.rates().tolist() == [0.0, 0.1, 0.25]
    assert other.p.rates().tolist() == [0.0] * 3
    assert has_rates(nn.Sequential(other)) and not has_rates(nn.Dropout(0.1))


def test_pictures():
    assert str(rated()) == "Dropout(p=0.0 to 0.25, inplace=False)"
    assert f"{round(rated().p, 3):0.3f}" == "0.000 to 0.250"
    assert repr(rated().to("meta").p) == "..."


def test_functions_that_take_a_number_get_it():
    n = 40_000
    x = torch.ones(n, dtype=torch.float64)
    got = F.dropout(x, of_layer(2).p, True)
    assert sorted(set(got.tolist())) == [0.0, 1 / 0.75]
    assert abs((got == 0).double().mean() - 0.25) < 5 * (0.25 * 0.75 / n) ** 0.5
    assert torch.equal(F.dropout(x, of_layer(0).p, True), x)
