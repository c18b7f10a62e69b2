"""Laws: intervals cover every layer once; the transfer injects at C-points."""

import numpy as np
import pytest
import torch

from mgnet.depth.mgrit.c_layers import CLayers, Intervals, intervals, level_factors, level_sizes

SIZES = [(n, c) for n in (*range(1, 18), 130) for c in (2, 3, 4, 7)]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("layers", "factor"), SIZES)
def test_calls_take_every_layer_once_and_in_order(layers, factor, reverse):
    own = Intervals(layers, factor, reverse)
    c_points = sorted({*range(0, layers, factor), layers})
    assert own.count == len(c_points) - 1
    assert sum(call.count for call in own.f_steps) == layers - own.count
    known, before = set(c_points), []  # points whose value is there; the last ones written
    for call in own.f_steps:
        which = range(layers)[call.which]
        wrote = range(layers + 1)[call.write]
        right = [i + 1 for i in which]
        reads = right if reverse else list(which)
        assert len(which) and list(wrote) == (list(which) if reverse else right)
        assert set(reads) <= known and not set(wrote) & known
        if call.read is None:
            assert reads == before
        else:
            assert reads == list(range(layers + 1)[call.read])
        known |= set(wrote)
        before = list(wrote)
    assert known == set(range(layers + 1))
    ends = []
    for call in own.c_steps:
        which, reads = range(layers)[call.which], range(layers + 1)[call.read]
        assert list(reads) == [i + 1 for i in which] if reverse else list(reads) == list(which)
        ends += [c_points[k] for k in range(own.count + 1)[call.write]]
        assert ends[-len(which) :] == (list(which) if reverse else [i + 1 for i in which])
    assert ends == (c_points[:-1] if reverse else c_points[1:])


@pytest.mark.parametrize("reverse", [False, True])
def test_a_factor_beyond_all_layers_costs_nothing(reverse):
    near, far = (Intervals(5, factor, reverse) for factor in (7, 10**12))
    for one, other in zip(near.f_steps, far.f_steps, strict=True):
        assert [range(5)[x.which] for x in (one, other)][0][0] == range(5)[other.which][0]
    assert near.count == far.count == 1


def test_the_same_slices_serve_all_hierarchies():
    assert intervals(9, 4, False) is intervals(9, 4, False)
    assert intervals(9, 4, False).f_steps is intervals(9, 4, False).f_steps


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
@pytest.mark.parametrize(("layers", "factor"), SIZES)
def test_transfer_at_the_c_points(layers, factor, kind):
    transfer = CLayers(Intervals(layers, factor))
    c_points = sorted({*range(0, layers, factor), layers})
    fine = kind(np.random.default_rng(0).standard_normal((layers + 1, 2)))
    coarse = kind(np.random.default_rng(1).standard_normal((len(c_points), 2)))
    assert (transfer.inject(fine) == fine[c_points]).all()
    assert (transfer.restrict(fine) == fine[c_points]).all()
    assert transfer.restrict(coarse) is coarse  # a residual that lives there only
    P = np.eye(layers + 1)[:, c_points]
    for lift in (transfer.prolong, transfer.interpolate):
        assert (np.asarray(lift(coarse)) == P @ np.asarray(coarse)).all()
        assert isinstance(lift(coarse), type(fine)) and lift(coarse).dtype == fine.dtype


def test_inject_gives_back_the_object_it_came_from():
    transfer, coarse = CLayers(Intervals(7, 3)), np.arange(4.0)
    fine = transfer.interpolate(coarse)
    assert transfer.inject(fine) is coarse
    assert transfer.inject(fine.copy()) is not coarse
    fine = transfer.spread(coarse)
    assert transfer.inject(fine) is coarse


def test_levels():
    assert level_sizes(1024, level_factors(5, 4)) == (1024, 256, 64, 16, 4)
    assert level_sizes(130, (7, 2)) == (130, 19, 10)
    assert level_sizes(5, ()) == (5,)
    assert level_factors(1, 4) == ()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((5, 4, 4), "largest possible number of levels is 3"),
        ((4, 9, 2), "largest possible number of levels is 3"),
        ((1, 2, 2), "largest possible number of levels is 1"),
        ((0, 1, 2), "got layers = 0"),
        ((8, 0, 2), "got levels = 0"),
        ((8, 2, 1), "got the coarsening 1 for 2 levels"),
        ((8, 3, (2,)), "a sequence of 2"),
        ((8, 2, (2.0,)), "a sequence of 1"),
    ],
)
def test_levels_are_refused(arguments, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        layers, levels, coarsening = arguments
        level_sizes(layers, level_factors(levels, coarsening))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: Intervals(-1, 2), "got -1 layers"),
        (lambda: Intervals(4, 1), "factor 1"),
        (lambda: CLayers(Intervals(7, 3)).inject(np.zeros(4)), "4 points on axis 0"),
        (lambda: CLayers(Intervals(7, 3)).prolong(np.zeros(8)), "8 points on axis 0"),
    ],
)
def test_refusals(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()


@pytest.mark.parametrize("reverse", [False, True])
def test_a_process_may_have_no_layers(reverse):
    none = Intervals(0, 3, reverse)
    assert (none.count, none.f_steps, none.c_steps) == (0, (), ())
    assert CLayers(none).spread(np.ones((1, 2))).tolist() == [[1.0, 1.0]]
    assert level_sizes(3, (4, 4), part=True) == (3, 1, 1)
    assert level_sizes(0, (4, 4), part=True) == (0, 0, 0)
