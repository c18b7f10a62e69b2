"""The roughness of a KAN: a column per parameter, of one value on all levels."""

import sys

import pytest
import torch

from mgnet.knots import KAN, roughness
from mgnet.training import LeastSquares


@pytest.mark.parametrize("linear", [False, True])
def test_roughness_has_a_column_per_parameter_and_survives_refinement(linear):
    kan = KAN([2, 3, 2], linear=linear) if not linear else KAN([2, 3, 2, 1], linear=True)
    u = torch.nn.utils.parameters_to_vector(kan.parameters())
    v = torch.nn.utils.parameters_to_vector(kan.refine().parameters())
    now = (roughness(kan, 4.0) @ u).norm()
    assert now > 0.1
    torch.testing.assert_close((roughness(kan.refine(), 4.0) @ v).norm(), now)


def test_parameters_of_a_subclass_do_not_bend():
    class Scaled(KAN):
        def __init__(self, widths):
            super().__init__(widths)
            self.factor = torch.nn.Parameter(torch.ones(2, dtype=torch.float64))

    kan = Scaled([2, 3, 1])
    plain = roughness(KAN([2, 3, 1]))
    named = dict(kan.named_parameters())
    assert list(named)[0] == "factor"
    assert torch.equal(roughness(kan), torch.nn.functional.pad(plain, (2, 0)))
    torch.nn.utils.parametrize.register_parametrization(kan.coefficients, "0", torch.nn.Tanh())
    with pytest.raises(TypeError, match="roughness got splines that are computed"):
        roughness(kan)


@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("degree", [1, 2, 3, 5])
def test_many_parameters_have_a_sparse_penalty_of_the_same_value(linear, degree, monkeypatch):
    kan = KAN([2, 3, 2, 1] if linear else [2, 3, 2], 5, degree, linear=linear)
    u = torch.nn.utils.parameters_to_vector(kan.parameters()).detach()
    dense = roughness(kan, 4.0)
    monkeypatch.setattr(sys.modules[roughness.__module__], "DENSE", 10)
    rows = roughness(kan, 4.0)
    assert rows.is_sparse and rows.shape[1] == len(u)
    torch.testing.assert_close((rows.T @ (rows @ u)), dense.T @ (dense @ u))


def test_frozen_parameters_leave_a_sparse_penalty_as_they_leave_a_dense_one(monkeypatch):
    x = torch.linspace(-1.0, 1.0, 20, dtype=torch.float64).unsqueeze(1)
    kan = KAN([1, 2, 1], intervals=5)
    kan.coefficients[0].requires_grad_(False)
    values = []
    for limit in (10_000, 10):
        monkeypatch.setattr(sys.modules[roughness.__module__], "DENSE", limit)
        problem = LeastSquares(kan, (x, x), penalty=roughness)
        values.append(problem.value_and_gradient(problem.start()))
    assert values[0][0] == pytest.approx(values[1][0], rel=1e-12)
    torch.testing.assert_close(values[0][1], values[1][1])
