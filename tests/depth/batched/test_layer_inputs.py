"""Laws: what cannot be right is refused; a layer gets its row and nothing else."""

import pytest
import torch

from mgnet.depth.batched.layer_inputs import check_layer_inputs, input_names, inputs_of_layer


@pytest.mark.parametrize("names", ["inputs", 3, [1], ["a b"], [""]])
def test_names_are_a_list_of_words(names):
    with pytest.raises(TypeError, match="layer_inputs"):
        input_names(names)


@pytest.mark.parametrize("name", ["x", "times", "self"])
def test_names_of_arguments_are_refused(name):
    with pytest.raises(ValueError, match=f"with {name}, which is an argument of its own calls"):
        input_names(["inputs", name])


def test_rows_are_counted_in_every_part():
    parts = {"a": (torch.ones(4, 1), [torch.ones(4, 2), None]), "mask": torch.ones(7)}
    check_layer_inputs("ODENet", ["a", "left out"], parts, 4)
    for wrong in (torch.ones(5, 1), torch.ones(3, 4), torch.tensor(1.0), torch.ones(0, 2)):
        with pytest.raises(ValueError, match="a row for each layer"):
            check_layer_inputs("ODENet", ["a"], {"a": (torch.ones(4), wrong)}, 4)
    for wrong in (4, "four", 1.0):
        with pytest.raises(TypeError, match="give tensors of shape"):
            check_layer_inputs("ODENet", ["a"], {"a": [torch.ones(4), wrong]}, 4)


def test_a_layer_gets_its_row_of_every_part():
    side = {"a": (torch.arange(4), {"b": torch.eye(4)}), "c": torch.arange(4), "n": None}
    one = inputs_of_layer(side, ["a", "n"], 2)
    assert one["a"][0] == 2 and torch.equal(one["a"][1]["b"], torch.eye(4)[2])
    assert one["c"] is side["c"] and one["n"] is None
