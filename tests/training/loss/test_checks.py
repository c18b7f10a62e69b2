"""Law: what cannot be data or a loss is refused before anything is computed."""

import pytest
import torch

from mgnet.training.loss.checks import check_data, check_loss

x = torch.zeros(3, 1)


@pytest.mark.parametrize("data", [(x, x), [x, x]])
def test_pairs_of_tensors_pass(data):
    check_data("Objective", data)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (x, "Tensor"),
        ((x,), "tuple"),
        ((x, x.numpy()), "Tensor, ndarray"),
        ((x, x[:2]), "3 inputs and 2 targets"),
        ((x[:0], x[:0]), "without samples"),
    ],
)
def test_other_data_are_refused(data, words):
    with pytest.raises((TypeError, ValueError), match=words):
        check_data("Objective", data)


@pytest.mark.parametrize("loss", [1.0, x, None])
def test_a_loss_is_one_number(loss):
    with pytest.raises(TypeError, match="one number"):
        check_loss(loss)


@pytest.mark.parametrize("loss", [torch.tensor(2.0), torch.tensor([[2.0]])])
def test_one_number_passes_as_it_is(loss):
    assert check_loss(loss) is loss
