"""Of some buffers, edits and replacements are noticed; of the others they are not."""

import pytest
import torch
from torch import nn

from mgnet.depth.batched.fixed_buffers import FixedBuffers


def test_edits_and_replacements():
    a, b = torch.ones(2), torch.ones(3)
    fixed = FixedBuffers(nn.Tanh(), ["a", "b"], ["b"])
    before = fixed.before([a, b])
    fixed.check([a, b], [a.add_(1.0).clone(), b], before)
    with pytest.raises(ValueError, match="Tanh changes its buffer b, of which all layers have one"):
        fixed.check([a, b], [a, b.clone()], before)
    b[0] = 2.0
    with pytest.raises(ValueError, match="leave b out of shared_buffers"):
        fixed.check([a, b], [a, b], before)
    fixed.check([a, b], [a, b], fixed.before([a, b]))


def test_a_view_is_looked_at_by_what_is_behind_it():
    whole = torch.ones(1, 2)
    rows = whole.expand(4, 2).unbind()
    fixed = FixedBuffers(nn.Tanh(), ["a"], ["a"])
    before = fixed.before([rows[1]])
    whole.mul_(2.0)
    with pytest.raises(ValueError, match="changes its buffer a"):
        fixed.check([rows[1]], [rows[1]], before)


def test_without_any():
    fixed = FixedBuffers(nn.Tanh(), ["a"], [])
    a = torch.ones(1)
    assert fixed.before([a]) == []
    fixed.check([a], [a.add_(1.0).clone()], [])


@pytest.mark.parametrize("values", [True, False])
def test_edits_that_nobody_counts(values):
    mean, var = torch.zeros(2), torch.ones(2)
    fixed = FixedBuffers(nn.Tanh(), ["mean"], ["mean"])
    before = fixed.before([mean], values)
    nn.functional.batch_norm(torch.rand(3, 2), mean, var, training=True)
    if values:
        with pytest.raises(ValueError, match="changes its buffer mean"):
            fixed.check([mean], [mean], before)
    else:
        fixed.check([mean], [mean], before)


def test_what_a_trace_says():
    fixed = FixedBuffers(nn.Tanh(), ["a", "b"], ["b"])
    fixed.check_numbers((0,))
    with pytest.raises(ValueError, match="changes its buffer b"):
        fixed.check_numbers((0, 1))


def test_under_vmap_versions_alone_are_compared():
    fixed = FixedBuffers(nn.Tanh(), ["a"], ["a"])

    def call(a, change):
        before = fixed.before([a])
        fixed.check([a], [a.clone() if change else a], before)
        return a

    a = torch.ones(3, 2)
    assert torch.equal(torch.func.vmap(lambda a: call(a, False))(a), a)
    with pytest.raises(ValueError, match="changes its buffer a"):
        torch.func.vmap(lambda a: call(a, True))(a)


def test_counted_edits_are_noticed_without_values():
    a = torch.ones(2)
    fixed = FixedBuffers(nn.Tanh(), ["a"], ["a"])
    before = fixed.before([a], values=False)
    a.add_(1.0)
    with pytest.raises(ValueError, match="changes its buffer a"):
        fixed.check([a], [a], before)
