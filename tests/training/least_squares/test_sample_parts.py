"""Rows of a part of the samples are those rows of the whole, whatever the parts."""

import torch

from mgnet.training.least_squares.sample_parts import PerSample, SampleParts, rows_of_samples
from mgnet.training.loss.parameters import FlatParameters

X = torch.linspace(-1.0, 1.0, 12, dtype=torch.float64).unsqueeze(1)


def network():
    torch.manual_seed(0)
    layers = torch.nn.Linear(1, 3), torch.nn.Tanh(), torch.nn.Linear(3, 2)
    return torch.nn.Sequential(*layers).double()


def equation(module):
    x = X.clone().requires_grad_()
    u = module(x)
    (slope,) = torch.autograd.grad(u[:, 0].sum(), x, create_graph=True)
    return slope + u, module(X[:4])[:, 1] * module(X[:4] + 1.0)[:, 0]


def made(window):
    flat = FlatParameters(network())
    stand_in = PerSample(flat, flat.start(), window)
    blocks = list(equation(stand_in))
    return blocks, list(rows_of_samples(blocks, stand_in.parts.calls))


def test_rows_of_a_part():
    whole, rows = made(lambda samples: (0, samples))
    (first, upper), (second, lower) = rows
    assert (first, second) == (slice(0, 24), slice(24, 28))
    J = torch.cat([upper, lower])
    blocks, found = made(lambda samples: (2, min(7, samples)))
    assert [place for place, _ in found] == [slice(4, 14), slice(26, 28)]
    for place, part in found:
        torch.testing.assert_close(part, J[place])
    torch.testing.assert_close(blocks[0][2:7], whole[0][2:7])
    torch.testing.assert_close(blocks[1][2:], whole[1][2:])
    # A call whose samples are done has no rows, and is differentiable by its inputs.
    assert [place for place, _ in made(lambda samples: (5, min(9, samples)))[1]] == [slice(10, 18)]


def test_values_of_the_others_are_made_once():
    seen = []

    def plain(x):
        seen.append(len(x))
        return 2.0 * x

    parts = SampleParts(lambda samples: (0, 5))
    for begin in (0, 5, 10):
        parts.restart(lambda samples, begin=begin: (begin, min(begin + 5, samples)))
        y = parts.run((X,), plain, lambda x: (2.0 * x, (x,)))
        torch.testing.assert_close(y, 2.0 * X)
        assert parts.calls[0].copies[0].shape == X[begin : begin + 5].shape
    assert seen == [5, 5, 2] and len(parts.calls) == 1
