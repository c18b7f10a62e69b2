"""Law: a cell passes its check if its rows are independent of all else; the refusals are told."""

import threading

import pytest
import torch
from torch import nn

from mgnet.depth.recurrent.cell_checks import check_cell

X, H = torch.randn(5, 3, 2), torch.randn(3, 4)
MEMORY = []


class Counting(nn.RNNCell):
    def __init__(self):
        super().__init__(2, 4)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x, h):
        self.calls += 1
        return super().forward(x, h)


def scaled(cell):
    """A cell whose weight is computed from another tensor."""
    return nn.utils.parametrizations.weight_norm(cell, "weight_hh")


@pytest.mark.parametrize(
    "cell", [nn.RNNCell(2, 4), scaled(nn.GRUCell(2, 4)), lambda x, h: h.detach(), lambda x, h: h]
)
def test_good_cells_pass_and_leave_no_trace(cell):
    state = torch.random.get_rng_state()
    check_cell(cell, None, X, H, (4,))
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        (Counting(), "edits its arguments or its buffers"),
        (lambda x, h: x.add_(1.0).sum(-1, keepdim=True) + h, "edits its arguments"),
        (lambda x, h: h + torch.rand(4), "random numbers"),
        (lambda x, h: h / h.norm(), "each row on its own"),
        (lambda x, h: h + (x - x.mean(0)).sum(-1, keepdim=True), "each row on its own"),
        (lambda x, h: h + nn.functional.batch_norm(x, None, None, training=True)[:, :1], "row on"),
        (lambda x, h: h + x[:1, :1], "each row on its own"),
        (lambda x, h: h + len(MEMORY.append(0) or MEMORY), "for the same arguments"),
        (lambda x, h: h + H, "another number of rows"),
        (lambda x, h: nn.functional.layer_norm(h.T, (3,)).T if len(h) == 3 else h, "row on its"),
    ],
)
def test_refusals(cell, words):
    with pytest.raises(ValueError, match=words):
        check_cell(cell, None, X, H, (4,))


def test_hidden_leaves_are_found_behind_others_and_only_with_gradients():
    hidden = torch.ones(4, requires_grad=True)
    behind = (2.0 * hidden).sin()

    def cell(x, h):
        return behind * h

    with pytest.raises(ValueError, match="not among its parameters"):
        check_cell(cell, None, X, H, (4,))
    with torch.no_grad():
        check_cell(cell, None, X, H, (4,))


@pytest.mark.parametrize("given", [H[:, :2], (H,), None, H.double()])
def test_states_of_another_kind(given):
    with pytest.raises(TypeError, match="a state like the one"):
        check_cell(lambda x, h: given, None, X, H, (4,))
    with pytest.raises(TypeError, match="got a coarse step that returns"):
        check_cell(nn.RNNCell(2, 4), lambda x, h, k: given, X, H, (4,))


def test_random_numbers_of_another_thread_are_not_those_of_the_cell():
    class Beside(nn.RNNCell):
        def forward(self, x, h):
            thread = threading.Thread(target=torch.rand, args=(3,))
            thread.start()
            thread.join()
            return super().forward(x, h)

    check_cell(Beside(2, 4), None, X, H, (4,))
