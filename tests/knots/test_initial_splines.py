"""The start of a KAN depends on the seed alone: not on knots, default devices or default types."""

import pytest
import torch

from mgnet.knots import KAN, FreeKnotKAN
from mgnet.knots.initial_splines import draw, owned


@pytest.mark.parametrize("seed", range(4))
def test_a_seed_gives_one_function_on_any_knots(seed):
    spline = torch.Generator().manual_seed(seed)
    inputs, outputs, degree = (int(torch.randint(1, 5, (), generator=spline)) for _ in range(3))
    generators = [torch.Generator().manual_seed(seed) for _ in range(2)]
    coarse, fine = (
        draw(inputs, outputs, n, degree, g) for n, g in zip((3, 6), generators, strict=True)
    )
    networks = [KAN([inputs, outputs], n, degree) for n in (3, 6)]
    for kan, u in zip(networks, (coarse, fine), strict=True):
        kan.coefficients[0].data.copy_(u)
    x = 2.0 * torch.rand(9, inputs, generator=spline, dtype=torch.float64) - 1.0
    torch.testing.assert_close(networks[0](x), networks[1](x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", [KAN, FreeKnotKAN])
def test_default_types_change_no_bit(kind, dtype):
    plain, x = kind([2, 3, 2, 1], linear=True), torch.rand(7, 2, dtype=torch.float64)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        other = kind([2, 3, 2, 1], linear=True)
        assert torch.equal(other(x), plain(x))
        assert torch.equal(other.refine()(x), plain.refine()(x))
    finally:
        torch.set_default_dtype(before)


@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("kind", [KAN, FreeKnotKAN])
def test_on_meta_and_filled_later(kind, linear):
    options = {"widths": [2, 3, 2, 1], "linear": linear}
    plain, x = kind(**options), torch.rand(7, 2, dtype=torch.float64)
    with torch.device("meta"):
        empty = kind(**options)
    torch.set_default_device("meta")
    try:
        by_default = kind(**options)
    finally:
        torch.set_default_device(None)
    for other in (empty, by_default, kind(**options, device="meta")):
        assert {t.device.type for t in (*other.parameters(), *other.buffers())} == {"meta"}
        other.load_state_dict(plain.state_dict(), assign=True)
        assert torch.equal(other(x), plain(x))
    on_cpu = torch.nn.utils.skip_init(kind, **options)
    with torch.device("meta"):
        emptied = kind(**options).to_empty(device="cpu")
    for other in (on_cpu, emptied):
        other.load_state_dict(plain.state_dict())
        assert torch.equal(other(x), plain(x))


def test_the_storage_is_torchs_own():
    kan = KAN([2, 3, 1], linear=False)
    fine = kan.refine()
    x = torch.rand(5, 2, dtype=torch.float64, requires_grad=True)
    (kan(x) + fine(x) + fine.coarsen()(x)).sum().backward()
    tensors = [*kan.parameters(), *fine.parameters(), owned(torch.ones(2).numpy())]
    assert all(t.untyped_storage().resizable() for t in tensors)
