"""The module that exporters see predicts what the model does, beyond the ranges too."""

import numpy as np
import pytest
import torch

from mgnet.app.exports.formula import Formula
from mgnet.app.exports.plain_network import PlainNetwork
from mgnet.knots import plain_operators


@pytest.mark.parametrize("seed", range(12))
def test_predictions_are_those_of_the_model(seed, drawn, difference):
    model, x = drawn(seed)
    network = PlainNetwork(Formula.of(model))
    assert difference(network(torch.from_numpy(x))[:, 0].numpy(), model.predict(x)) < 1e-12
    x[3, 0], x[4, -1] = np.nan, np.nan
    assert network(torch.from_numpy(x[3:5])).isnan().all()


@pytest.mark.parametrize("classes", [(), ("a", "b", "c")])
def test_several_targets_and_classes(classes, mixed):
    formula, _, features, right = mixed(1, classes)
    found = PlainNetwork(formula)(torch.from_numpy(features)).numpy()
    np.testing.assert_allclose(found, right, rtol=1e-12)


def test_the_largest_numbers(drawn):
    model, _ = drawn(1)
    x = np.array([[np.finfo(float).max] * len(model.names), [-np.inf] * len(model.names)])
    found = PlainNetwork(Formula.of(model))(torch.from_numpy(x))[:, 0].numpy()
    np.testing.assert_array_equal(np.isinf(found), np.isinf(model.predict(x)))
    np.testing.assert_array_equal(np.sign(found), np.sign(model.predict(x)))


def test_its_graph_has_operators_of_torch_alone_and_no_number_that_onnx_would_round(drawn):
    model, x = drawn(3)
    network, rows = PlainNetwork(Formula.of(model)), torch.from_numpy(x[:4])
    with plain_operators():
        graph = torch.export.export(network, (rows,)).graph
    nodes = [node for node in graph.nodes if node.op == "call_function"]
    assert nodes and not [node for node in nodes if str(node.target).startswith("mgnet")]
    numbers = [value for node in nodes for value in node.args if isinstance(value, float)]
    assert all(float(np.float32(number)) == number for number in numbers)
