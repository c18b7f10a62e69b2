"""A KAN refines exactly, starts from one function on any grid, and knows its Jacobian."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch.func import functional_call, jacrev, vmap

from mgnet.knots import KAN
from mgnet.knots.spline import dense_basis


def inputs(rows=20, columns=2):
    generator = torch.Generator().manual_seed(1)
    return 3.0 * torch.rand(rows, columns, generator=generator, dtype=torch.float64) - 0.5


NETWORKS = [
    {"widths": [2, 4, 1]},
    {"widths": [2, 3, 3, 2], "degree": 5, "domain": (0.0, 2.0)},
    {"widths": [2, 3, 1], "degree": 1, "intervals": [4, 8]},
    {"widths": [2, 4, 3, 1], "linear": True},
    {"widths": [2, 3, 2, 1], "hidden": "identity"},
    {"widths": [2, 4, 3, 1], "linear": True, "hidden": "identity", "domain": (0.0, 2.0)},
]


@pytest.mark.parametrize("options", NETWORKS)
@pytest.mark.parametrize("factor", [2, 3, 4])
def test_refine_changes_no_output_and_coarsen_undoes_it(options, factor):
    kan, x = KAN(**options), inputs()
    fine = kan.refine(factor)
    assert fine.intervals == tuple(factor * n for n in kan.intervals)
    assert fine.extra_repr() == kan.extra_repr().replace(
        str(list(kan.intervals)), str(list(fine.intervals))
    )
    torch.testing.assert_close(fine(x), kan(x), rtol=0, atol=1e-13)
    change = (fine(x) - kan(x)).abs().max() / kan(x).abs().max()
    assert kan.nesting_defect(x, factor) == float(change.detach())
    for by in ("projection", "injection"):
        back = fine.coarsen(factor, by)
        for u, own in zip(back.parameters(), kan.parameters(), strict=True):
            torch.testing.assert_close(u, own, rtol=0, atol=1e-10)


def test_coarsening_of_a_spline_that_is_not_coarse_is_the_closest_in_l2():
    fine = KAN([1, 1], 8, domain=(0.0, 2.0), generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        fine.coefficients[0].normal_(generator=torch.Generator().manual_seed(5))
    coarse = fine.coarsen()
    nodes, weights = np.polynomial.legendre.leggauss(5)
    x = (0.25 * np.arange(8)[:, None] + 0.125 * (nodes + 1.0)).ravel()
    w = np.tile(weights, 8)[:, None] ** 0.5
    basis = dense_basis(torch.from_numpy(x), 4, 3, (0.0, 2.0))[0].numpy()
    values = fine(torch.from_numpy(x[:, None])).detach().numpy()
    expected, error, *_ = np.linalg.lstsq(w * basis, w * values, rcond=None)
    np.testing.assert_allclose(coarse.coefficients[0][0].detach(), expected, atol=1e-11)
    assert error > 0.1
    other = fine.coarsen(by="injection").coefficients[0][0].detach()
    assert abs(other - expected).max() > 0.1


def drawn_network(seed):
    """Any network of splines, with rough coefficients, and some of its layers."""
    draw = np.random.default_rng(seed)
    count, linear = int(draw.integers(1, 4)), bool(draw.integers(2))
    widths = draw.integers(1, 4, count + 1 + linear).tolist()
    options = {
        "intervals": draw.integers(1, 7, count).tolist(),
        "degree": int(draw.integers(1, 6)),
        "linear": linear,
        "domain": [(-1.0, 1.0), (0.0, 2.0)][draw.integers(2)],
        "hidden": ["tanh", "identity"][draw.integers(2)],
    }
    kan = KAN(widths, **options)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for u in kan.coefficients:
            u.normal_(generator=generator)
    some = draw.choice(count, int(draw.integers(1, count + 1)), replace=False)
    return kan, [int(n) - count * int(draw.integers(2)) for n in some], int(draw.integers(2, 5))


@pytest.mark.parametrize("seed", range(12))
def test_some_layers_are_refined_and_the_others_stay(seed):
    kan, layers, factor = drawn_network(seed)
    count, x = len(kan.intervals), inputs(20, kan.widths[0])
    fine = kan.refine(factor, layers)
    chosen = {n % count for n in layers}
    assert fine.intervals == tuple(
        n * factor if k in chosen else n for k, n in enumerate(kan.intervals)
    )
    outputs = kan(x).detach()
    bound = 1e-10 * float(outputs.abs().max())
    torch.testing.assert_close(fine(x).detach(), outputs, rtol=0, atol=bound)
    assert kan.nesting_defect(x, factor, layers) <= 1e-10
    wholly, back = kan.refine(factor), fine.coarsen(factor, layers=layers)
    assert back.intervals == kan.intervals
    ups, downs = (
        kan.refinement_matrices(factor, layers),
        kan.coarsening_matrices(factor, layers=layers),
    )
    for k, (u, up, down) in enumerate(zip(kan.coefficients, ups, downs, strict=True)):
        own = wholly if k in chosen else kan
        assert torch.equal(fine.coefficients[k], own.coefficients[k])
        assert fine.coefficients[k] is not u
        torch.testing.assert_close(back.coefficients[k], u, rtol=0, atol=1e-9)
        assert k in chosen or torch.equal(back.coefficients[k], u)
        np.testing.assert_allclose((down @ up.toarray()), np.eye(u.shape[1]), atol=1e-9)
    every = kan.refine(factor, range(count))
    assert all(map(torch.equal, every.parameters(), wholly.parameters()))


@pytest.mark.parametrize("seed", range(6))
def test_coarsening_a_layer_is_the_dense_projection(seed):
    """Least squares at the nodes of a quadrature that is exact for products of splines."""
    draw = np.random.default_rng(seed)
    degree, factor, n = (int(k) for k in draw.integers([1, 2, 1], [6, 4, 5]))
    layer = int(draw.integers(2))
    kan = KAN([2, 3, 1], [factor * n if k == layer else 3 for k in range(2)], degree)
    with torch.no_grad():
        for u in kan.coefficients:
            u.normal_(generator=torch.Generator().manual_seed(seed))
    coarse = kan.coarsen(factor, layers=[layer - 2])
    assert coarse.intervals == tuple(n if k == layer else 3 for k in range(2))
    assert torch.equal(coarse.coefficients[1 - layer], kan.coefficients[1 - layer])
    nodes, weights = np.polynomial.legendre.leggauss(degree + 1)
    cells = factor * n
    x = torch.from_numpy((-1 + (2 * np.arange(cells)[:, None] + 1 + nodes) / cells).ravel())
    w = np.tile(weights, cells)[:, None] ** 0.5
    ours, theirs = (w * dense_basis(x, k, degree, (-1.0, 1.0))[0].numpy() for k in (n, cells))
    for own, fine in zip(coarse.coefficients[layer], kan.coefficients[layer], strict=True):
        expected = np.linalg.lstsq(ours, theirs @ fine.detach().numpy(), rcond=None)[0]
        np.testing.assert_allclose(own.detach(), expected, atol=1e-9)


def test_layers_that_cannot_be_chosen_are_refused():
    kan = KAN([2, 2, 2, 1], [2, 2, 3])
    for layers in ([], [3], [-4], [0.0], [True], "0", 0, {0}):
        for change in (kan.refine, kan.coarsen, kan.refinement_matrices, kan.coarsening_matrices):
            told = rf"KAN.{change.__name__} got layers .*; give a sequence of some of the numbers"
            with pytest.raises(ValueError, match=told):
                change(layers=layers)
    with pytest.raises(ValueError, match=r"got layers \[0, -3\]; give each layer once"):
        kan.refine(layers=[0, -3])
    with pytest.raises(ValueError, match=r"\(2, 2, 3\) intervals; it must divide all of layers"):
        kan.coarsen(layers=[1, 2])
    assert kan.coarsen(layers=[0, 1]).intervals == (1, 1, 3)
    kan.coefficients[1] = kan.coefficients[0]
    with pytest.raises(ValueError, match="layer 1 shares its coefficients with layer 0; choose bo"):
        kan.refine(layers=[0, 2])
    fine = kan.refine(layers=[1, 0])
    assert fine.coefficients[0] is fine.coefficients[1] and fine.intervals == (4, 4, 3)
    torch.testing.assert_close(fine(inputs()), kan(inputs()))
    assert kan.refine(layers=[-1]).intervals == (2, 2, 6)


@pytest.mark.parametrize("degree", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("rough", [False, True])
@pytest.mark.parametrize(
    ("dtype", "inside", "outside"), [(torch.float64, 1e-14, 1e-13), (torch.float32, 3e-6, 3e-5)]
)
def test_six_doublings_change_nothing(degree, rough, dtype, inside, outside):
    kan = KAN([3, 16, 16, 2], 4, degree, dtype=dtype)
    generator = torch.Generator().manual_seed(6)
    if rough:
        with torch.no_grad():
            for u in kan.coefficients:
                u.normal_(0.0, 0.3, generator=generator)
    x = 2.0 * torch.rand(500, 3, generator=generator, dtype=dtype) - 1.0
    finest = kan
    for _ in range(6):
        finest = finest.refine()
    assert finest.intervals == (256,) * 3
    for points, bound in ((x, inside), (1.15 * x, outside)):
        outputs = kan(points)
        assert (finest(points) - outputs).abs().max() <= bound * outputs.abs().max()
        assert kan.nesting_defect(points, 64) <= bound


def test_the_new_network_is_where_and_what_the_old_one_was():
    kan = KAN([2, 3, 1], linear=True, dtype=torch.float32)
    kan.linear.requires_grad_(False)
    for other in (kan.refine(), kan.coarsen()):
        for own, theirs in zip(other.parameters(), kan.parameters(), strict=True):
            assert own.dtype == torch.float32
            assert own.requires_grad == theirs.requires_grad
            assert own.grad_fn is None


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


@pytest.mark.parametrize("linear", [False, True])
def test_compiled_in_one_graph(linear):
    kan, x = KAN([2, 3, 3, 1], linear=linear), inputs()
    torch._dynamo.reset()
    whole = torch.compile(kan, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(whole(x), kan(x))
    ours = torch.autograd.grad(whole(x).square().sum(), list(kan.parameters()))
    plain = torch.autograd.grad(kan(x).square().sum(), list(kan.parameters()))
    for mine, other in zip(ours, plain, strict=True):
        torch.testing.assert_close(mine, other)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_the_gpu():
    kan, x = KAN([2, 3, 1]), inputs()
    far = copy.deepcopy(kan).cuda()
    torch.testing.assert_close(far(x.cuda()).cpu(), kan(x))
    assert far.refine().coefficients[0].device.type == "cuda"


def test_double_backward():
    kan = KAN([1, 3, 1])
    x = torch.linspace(-0.9, 0.9, 5, dtype=torch.float64).unsqueeze(1).requires_grad_()
    assert torch.autograd.gradgradcheck(kan, (x,))


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
    with pytest.raises(ValueError, match="KAN got hidden 'sine'"):
        KAN([1, 1], hidden="sine")
    with pytest.raises(ValueError, match="divide all"):
        KAN([1, 1], 3).coarsen(2)
    with pytest.raises(
        ValueError, match="KAN.coarsen got factor 1; it must be an integer of at least 2"
    ):
        KAN([1, 1], 3).coarsen(1)
    with pytest.raises(ValueError, match="got by='nearest'; it must be 'projection' or"):
        KAN([1, 1]).coarsen(by="nearest")
