"""The sparse Jacobian of a KAN is that of autograd, in all its products."""

import pytest
import torch
from torch.func import functional_call, jacrev, vmap

from mgnet.knots import KAN, jacobian
from mgnet.training.least_squares.jacobian import DenseJacobian

NETWORKS = [
    {"widths": [2, 4, 1]},
    {"widths": [1, 3], "intervals": 6},
    {"widths": [2, 3, 2, 3], "degree": 5, "domain": (0.0, 2.0)},
    {"widths": [2, 3, 1], "degree": 1, "intervals": [4, 60]},
    {"widths": [2, 4, 3, 2], "linear": True},
]


def expected(kan, x):
    named = {name: p.detach() for name, p in kan.named_parameters()}
    of_row = jacrev(lambda parameters, row: functional_call(kan, parameters, (row,)))
    parts = vmap(of_row, in_dims=(None, 0))(named, x)
    return torch.cat([parts[name].flatten(2) for name in named], -1).flatten(0, 1)


@pytest.mark.parametrize("options", NETWORKS)
@pytest.mark.parametrize("identity", [False, True])
def test_every_product_is_that_of_autograd(options, identity, monkeypatch):
    monkeypatch.setattr(jacobian, "BUFFER", 64)  # several chunks
    monkeypatch.setattr(jacobian.KANJacobian, "pays", True)
    kan = KAN(**options)
    if identity:
        kan.into_domain = lambda hidden: hidden
    generator = torch.Generator().manual_seed(1)
    width = options["widths"][0]
    x = 3.0 * torch.rand(150, width, generator=generator, dtype=torch.float64) - 0.5
    outputs, J = jacobian.linearize(kan, x)
    matrix = expected(kan, x)
    assert isinstance(J, jacobian.KANJacobian)
    assert J.shape == matrix.shape
    torch.testing.assert_close(outputs, kan(x).detach())
    d, y = (torch.randn(n, generator=generator, dtype=torch.float64) for n in J.shape[::-1])
    for ours, theirs in (
        (J.dense(), matrix),
        (torch.from_numpy(J.sparse().toarray()), matrix),
        (J.matvec(d), matrix @ d),
        (J.rmatvec(y), matrix.T @ y),
        (J.gram(), matrix.T @ matrix),
        (J.squares(), matrix.square().sum(0)),
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-9)


@pytest.mark.parametrize(("intervals", "kind"), [(2, DenseJacobian), (40, jacobian.KANJacobian)])
def test_sparse_where_it_pays(intervals, kind):
    kan, x = KAN([2, 5, 1], intervals).float(), torch.rand(50, 2)
    outputs, J = jacobian.linearize(kan, x)
    assert type(J) is kind
    assert outputs.dtype == torch.float32
    assert J.gram().dtype == J.dense().dtype == torch.float64
    torch.testing.assert_close(J.dense().float(), expected(kan, x), rtol=1e-4, atol=1e-5)
