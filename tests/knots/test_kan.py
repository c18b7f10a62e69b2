"""A KAN refines exactly, starts from one function on any grid, and knows its Jacobian."""

import copy
import pickle

import pytest
import torch
from torch.func import functional_call, jacrev, vmap

from mgnet.knots import KAN, roughness


def inputs(rows=20, columns=2):
    generator = torch.Generator().manual_seed(1)
    return 3.0 * torch.rand(rows, columns, generator=generator, dtype=torch.float64) - 0.5


NETWORKS = [
    {"widths": [2, 4, 1]},
    {"widths": [2, 3, 3, 2], "degree": 5, "domain": (0.0, 2.0)},
    {"widths": [2, 3, 1], "degree": 1, "intervals": [4, 8]},
    {"widths": [2, 4, 3, 1], "linear": True},
]


@pytest.mark.parametrize("options", NETWORKS)
def test_refine_changes_no_output_and_coarsen_undoes_it(options):
    kan, x = KAN(**options), inputs()
    for factor in (2, 4):
        fine = kan.refine(factor)
        assert fine.intervals == tuple(factor * n for n in kan.intervals)
        torch.testing.assert_close(fine(x), kan(x), rtol=0, atol=1e-13)
        for back, own in zip(fine.coarsen(factor).parameters(), kan.parameters(), strict=True):
            torch.testing.assert_close(back, own, rtol=0, atol=1e-12)


@pytest.mark.parametrize("options", NETWORKS)
def test_the_jacobian_is_that_of_autograd(options):
    kan, x = KAN(**options), inputs(7)
    named = {name: p.detach() for name, p in kan.named_parameters()}

    def outputs(parameters, row):
        return functional_call(kan, parameters, (row,))

    parts = vmap(jacrev(outputs), in_dims=(None, 0))(named, x)
    expected = torch.cat([parts[name].flatten(2) for name in named], -1)
    torch.testing.assert_close(kan.jacobian(x), expected, rtol=0, atol=1e-12)


def test_a_seed_gives_the_same_function_on_any_number_of_intervals():
    x = inputs()
    made = [KAN([2, 5, 1], n, generator=torch.Generator().manual_seed(3))(x) for n in (1, 4, 5, 32)]
    for other in made[1:]:
        torch.testing.assert_close(other, made[0], rtol=0, atol=1e-12)
    assert (KAN([2, 5, 1], 4)(x) - made[0]).abs().max() > 1e-3  # another seed, another function


def test_copies_pickles_and_state_dicts():
    kan, x = KAN([2, 3, 1]), inputs()
    other = KAN([2, 3, 1], generator=torch.Generator().manual_seed(9))
    other.load_state_dict(kan.state_dict())
    for twin in (copy.deepcopy(kan), pickle.loads(pickle.dumps(kan)), other):
        assert torch.equal(twin(x), kan(x))
    assert kan.float()(x.float()).dtype == torch.float32


def test_leading_batch_shapes():
    kan, x = KAN([2, 3, 1]), inputs(12)
    assert torch.equal(kan(x.reshape(3, 4, 2)).reshape(12, 1), kan(x))


def test_double_backward():
    kan = KAN([1, 3, 1])
    x = torch.linspace(-0.9, 0.9, 5, dtype=torch.float64).unsqueeze(1).requires_grad_()
    assert torch.autograd.gradgradcheck(kan, (x,))


@pytest.mark.parametrize("linear", [False, True])
def test_roughness_has_a_column_per_parameter_and_survives_refinement(linear):
    kan = KAN([2, 3, 2], linear=linear) if not linear else KAN([2, 3, 2, 1], linear=True)
    u = torch.nn.utils.parameters_to_vector(kan.parameters())
    v = torch.nn.utils.parameters_to_vector(kan.refine().parameters())
    now = (roughness(kan, 4.0) @ u).norm()
    assert now > 0.1
    torch.testing.assert_close((roughness(kan.refine(), 4.0) @ v).norm(), now)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([2],), "widths"),
        (([2, 0],), "widths"),
        (([2, 1], 0), "intervals"),
        (([2, 1], [4, 4]), "intervals"),
        (([2, 1], 4, 6), "degree"),
    ],
)
def test_refusals(arguments, words):
    with pytest.raises(ValueError, match=f"KAN got {words}"):
        KAN(*arguments)
    with pytest.raises(ValueError, match="KAN got domain"):
        KAN([1, 1], domain=(1.0, 1.0))
    with pytest.raises(ValueError, match="must divide all"):
        KAN([1, 1], 3).coarsen(2)
