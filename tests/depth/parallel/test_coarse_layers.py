"""Laws of coarse layers: means weighted by steps, and bits that do not depend on what is beside."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mgnet.depth.batched.layers import Layers
from mgnet.depth.mgrit.communicator import SerialCommunicator
from mgnet.depth.parallel.coarse_layers import (
    coarse_layers,
    layers_of_all,
    renew,
    renew_means,
    shares_of,
    sums,
)


def made(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    theta = torch.randn(count, 3, 2, generator=generator)
    flags = torch.arange(count) % 2 == 0
    steps = torch.rand(count, generator=generator, dtype=torch.float64)
    return Layers((theta, theta[:, :1, 0].bfloat16()), (flags,), torch.arange(count) / count, steps)


@pytest.mark.parametrize(("count", "stride"), [(8, 4), (9, 4), (11, 4), (3, 5)])
def test_means_are_weighted_by_the_steps(count, stride):
    layers = made(count)
    coarse = coarse_layers(layers, stride, 1)
    for n, first in enumerate(range(0, count, stride)):
        part = slice(first, first + stride)
        steps = layers.steps[part]
        wanted = torch.einsum("n,nij->ij", steps, layers.parameters[0][part].double()) / steps.sum()
        torch.testing.assert_close(coarse.parameters[0][n].double(), wanted, rtol=1e-6, atol=1e-6)
        assert coarse.steps[n].item() == pytest.approx(steps.sum().item(), rel=1e-14)
    assert torch.equal(coarse.buffers[0], layers.buffers[0][::stride])


def test_an_euler_step_has_the_mean_time_and_one_of_stages_its_left_end():
    theta, t = torch.tensor([1.0, 3.0, 8.0, 2.0, 6.0]), torch.tensor([0.0, 1.0, 2.0, 4.0, 8.0])
    layers = Layers((theta,), (theta,), t, torch.tensor([3.0, 1.0, 2.0, 2.0, 5.0]))
    euler, rk4 = (coarse_layers(layers, 2, stages) for stages in (1, 4))
    assert euler.times.tolist() == [0.25, 3.0, 8.0]
    assert rk4.times.tolist() == [0.0, 2.0, 8.0]
    for coarse in (euler, rk4):
        assert coarse.steps.tolist() == [4.0, 4.0, 5.0]
        assert coarse.parameters[0].tolist() == coarse.buffers[0].tolist() == [1.5, 5.0, 6.0]


def test_gates_that_are_not_positive_have_no_weight():
    """A mean stays between the layers' own weights; where no gate is positive, all count alike."""
    theta = torch.tensor([1.0, 3.0, 8.0, 2.0, 6.0, 4.0])
    steps = torch.tensor([2.0, -1.0, 0.0, 0.0, -3.0, -1.0])
    coarse = coarse_layers(Layers((theta,), (), torch.zeros(6), steps), 2, 1)
    assert coarse.parameters[0].tolist() == [1.0, 5.0, 5.0]
    assert coarse.steps.tolist() == [1.0, 0.0, -4.0]


@pytest.mark.parametrize("count", [8, 9])
def test_new_means_come_in_one_copy(count):
    """Another thread may read them at any time, and with the same weights they are the same."""
    layers = made(count)
    coarse, wanted = coarse_layers(layers, 4, 1), coarse_layers(layers, 4, 1)
    kept, edits = [x.data_ptr() for x in (*coarse.parameters, *coarse.buffers)], []

    class Edits(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            edited = (kwargs or {}).get("out", args[0])
            if function._schema.is_mutable and edited.data_ptr() in kept:
                edits.append((str(function), edited.shape))
            return function(*args, **(kwargs or {}))

    with Edits():
        renew_means(coarse, layers, 4, shares_of(layers.steps, 4))
    whole = [x.shape for x in (*coarse.parameters, *coarse.buffers)]
    assert edits == [("aten.copy_.default", shape) for shape in whole]
    for ours, theirs in zip(coarse.tensors(), wanted.tensors(), strict=True):
        assert torch.equal(ours, theirs)


def test_gathered_layers_keep_their_bits_and_kinds():
    whole = made(7)

    class Third(SerialCommunicator):
        """The second of three processes: the first has 3 layers, it has 2."""

        def allgather(self, rows):
            assert torch.equal(rows, told[1])
            return told

    class Teller(SerialCommunicator):
        def allgather(self, rows):
            told.append(rows)
            return [rows]

    told = []
    for part in (slice(0, 3), slice(3, 5), slice(5, 7)):
        layers_of_all(whole[part], Teller())
    found = layers_of_all(whole[3:5], Third())
    for ours, wanted in zip(found.tensors(), whole.tensors(), strict=True):
        assert ours.dtype == wanted.dtype and torch.equal(ours, wanted)
    assert len(found.parameters) == 2 and len(found.buffers) == 1
    other = made(7, seed=1)
    renew(found, other)
    assert torch.equal(found.parameters[0], other.parameters[0])


def test_no_layers_are_gathered_too():
    assert layers_of_all(made(3)[3:], SerialCommunicator()).parameters[0].shape == (0, 3, 2)


@pytest.mark.parametrize(("count", "stride"), [(8, 4), (9, 4), (11, 4), (3, 5)])
def test_means_made_anew_have_the_bits_of_new_layers(count, stride):
    layers, other = made(count), made(count, seed=1).with_steps(made(count).steps)
    coarse = coarse_layers(layers, stride, 1)
    shares = shares_of(layers.steps, stride)
    places = [tensor.data_ptr() for tensor in coarse.tensors()]
    renew(layers, other)
    layers.buffers[0].logical_not_()
    renew_means(coarse, layers, stride, shares)
    wanted = coarse_layers(layers, stride, 1)
    assert [tensor.data_ptr() for tensor in coarse.tensors()] == places
    for ours, theirs in zip(coarse.tensors(), wanted.tensors(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("size", [1, 3, 64, 1001])
def test_sums_do_not_depend_on_how_many_there_are(size):
    values = torch.randn(30, size, generator=torch.Generator().manual_seed(size))
    together = sums(values, 4)
    for first, last in ((0, 1), (2, 5), (7, 8)):
        assert torch.equal(sums(values[4 * first : 4 * last].clone(), 4), together[first:last])


@pytest.mark.parametrize("count", [2, 4, 9])
def test_nothing_is_written_into_tensors_that_all_layers_share(count):
    """Also where one coarse layer is left, whose view of them looks like a tensor of its own."""
    shared = torch.randn(1, 3, dtype=torch.float64)
    kept, steps = shared.clone(), torch.full((count,), 1.0 / 3.0, dtype=torch.float64)
    flags = torch.tensor([[True, False]]).expand(count, 2)
    layers = Layers((shared.expand(count, 3),), (flags,), steps, steps)
    coarse = coarse_layers(layers, 4, 1)
    for renewed in (lambda: renew_means(coarse, layers, 4, shares_of(steps, 4)),
                    lambda: renew(coarse, coarse_layers(layers, 4, 1))):  # fmt: skip
        shared.add_(1.0)
        kept += 1.0
        renewed()
        assert torch.equal(shared, kept)
        assert torch.equal(coarse.parameters[0], shared.expand(len(coarse), 3))
        assert torch.equal(coarse.buffers[0], flags[: len(coarse)])
