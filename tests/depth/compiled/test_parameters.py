"""Memory goes round; parameters stand in one array, shared ones once."""

import torch

from mgnet.depth.batched.tracing import trace
from mgnet.depth.compiled import parameters
from mgnet.depth.compiled.graph_operations import WRITERS
from mgnet.depth.compiled.layer_code import Writer
from mgnet.depth.compiled.parameters import MOST, Memory, Prepared


def prepared(function, *tensors):
    u = torch.randn(5, 4)
    given = [*[x[0] for x in tensors], torch.tensor(0.0), torch.tensor(1.0), u]
    return Prepared(
        Writer(trace(lambda *x: function(x[-1], *x[:-3]), given, {}), u, WRITERS).written()
    )


def test_memory_waits_for_the_next_pass_and_not_too_much_of_it():
    held = [Memory(1000, torch.float32) for _ in range(3)]
    places = {x.numbers.data_ptr() for x in held}
    assert len(places) == 3
    del held
    assert Memory(1000, torch.float32).numbers.data_ptr() in places
    assert Memory(1000, torch.float64).numbers.dtype == torch.float64
    large = [Memory(MOST // 8, torch.float32) for _ in range(4)]
    del large
    assert sum(x.nbytes for x in parameters._waiting) <= MOST
    with torch.inference_mode():
        assert not Memory(777, torch.float32).numbers.is_inference()


def test_what_is_packed():
    A, v = torch.randn(3, 4, 4), torch.randn(1, 4).expand(3, 4)
    ready = prepared(lambda u, A, v: u @ (A - A.mT) + v, A, v)
    times, steps = torch.zeros(3), torch.ones(1).expand(3)
    values, given = ready.shaped([A, v, times, steps], whole=False)
    assert [len(x) for x in values] in ([3, 1], [1, 3]) and not given
    memory, at = ready.packed(steps, values)
    own = {value.dim(): (slot, value) for slot, value in zip(ready.slots, values, strict=True)}
    slot, M = own[3]
    torch.testing.assert_close(M, A - A.mT)
    for k, wanted in ((slot, M), (slot + 1, M.mT)):
        first, stride = map(int, at[k])
        assert stride == 16
        found = memory.numbers[first : first + 48].view(3, 4, 4)
        torch.testing.assert_close(found, wanted)
    assert at[own[2][0], 1] == 0 and at[0, 1] == 0


def test_gradients_of_what_is_shared_are_those_of_one():
    A, v = torch.randn(3, 4, 4), torch.randn(1, 4)
    ready = prepared(lambda u, A, v: u @ A.t() * v, A, v)
    tensors = [A, v, torch.zeros(3), torch.ones(3)]
    leaves, values, given = ready.leaves(tensors, [True] * 4)
    gradients = {slot: torch.ones_like(x) for slot, x in zip(ready.slots, values, strict=True)}
    of_a, of_v, of_time, of_step = ready.pull(leaves, values, given, gradients, [])
    assert of_a.shape == A.shape and of_v.shape == (1, 4) and of_time is None and of_step is None


def test_what_depends_on_which_tensors():
    A, v = torch.randn(1, 4, 4), torch.randn(1, 4)
    ready = prepared(lambda u, A, v: u @ (A - A.mT) + v, A, v)
    matrix = next(k for k, shape in enumerate(ready.shapes) if len(shape) == 2)
    assert ready.wanted([True, False, False, False]) == {matrix}
    assert ready.wanted([False, False, False, True]) == {0}
    assert ready.keeps_apart(2)
    assert not prepared(lambda u, A, v: u @ (A * v), A, v).keeps_apart(1)
    assert not prepared(lambda u, A: u * A[0, 0] + A.new_ones(5, 4) * A[0], A).keeps_apart(1)
