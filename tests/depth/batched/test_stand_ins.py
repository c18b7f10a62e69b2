import logging

import pytest
import torch

from mgnet.depth.batched.graphs import ShapeError
from mgnet.depth.batched.stand_ins import StandIns, mode_for, quiet, spare_mode, trusting


def test_conditions_are_those_that_were_asked():
    given = StandIns([], torch.ones(5, 8, 3), [0, 1])
    batch, length, width = given.state.shape
    assert width == 3 and given.hold((2, 9, 3)) and not given.hold((2, 9, 4))
    assert batch + length < 20 and length % 2 == 0
    for shape, right in (((2, 8, 3), True), ((2, 9, 3), False), ((12, 8, 3), False)):
        assert given.hold(shape) is right
    assert not given.hold((1, 8, 3)) and not given.hold((5, 8))


def test_shapes_whose_sizes_are_equal_where_those_here_are_not_have_a_trace_of_their_own():
    given = StandIns([], torch.ones(5, 8), [0, 1])
    assert given.hold((6, 7)) and not given.hold((6, 6))


def test_a_size_that_became_a_number_is_a_condition():
    given = StandIns([], torch.ones(5, 3), [0])
    assert given.is_open() and len(given.state) == 5
    assert not given.is_open() and not given.hold((6, 3)) and given.hold((5, 3))


def test_those_who_are_trusted_make_no_condition():
    given = StandIns([torch.ones(3)], torch.ones(5, 3), [0])
    with trusting(given.tensors), given.mode:
        torch.func.vmap(lambda u: torch.cat([u, u]))(given.many(2)[-1])
    assert given.hold((6, 3))
    assert mode_for(given.tensors) is given.mode is not spare_mode()


def test_what_is_not_whole_is_refused():
    given = StandIns([], torch.ones(5, 3), [0])
    assert given.state.shape[0] * 0.3 > 1.0
    with pytest.raises(ShapeError, match="a condition is"):
        given.check()


def test_loggers_are_as_before():
    logger = logging.getLogger("torch.fx.experimental.symbolic_shapes")
    with quiet():
        assert logger.disabled
    assert not logger.disabled
