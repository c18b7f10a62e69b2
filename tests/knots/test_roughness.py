"""The roughness of a KAN: a column per parameter, of one value on all levels."""

import pytest
import torch

from mgnet.knots import KAN, roughness


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
    with pytest.raises(TypeError, match="roughness got splines that are made of other parameters"):
        roughness(kan)
