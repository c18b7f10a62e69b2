"""A network of splines leaves PyTorch: ONNX, TorchScript, torch.fx, torch.export.

What comes out is the function itself, on other inputs and another number of samples, beyond the
domain too; or one sentence says what to take instead.
"""

import io

import numpy as np
import pytest
import torch

from mgnet.knots import KAN, FreeKnotKAN, MultichannelMLP


def multichannel(*arguments, **options):
    return MultichannelMLP(KAN(*arguments, **options))


def drawn(seed):
    """A network of drawn options, one input, and others to compare at."""
    draw = np.random.default_rng(seed)
    kind = [KAN, FreeKnotKAN, multichannel][seed % 3]
    linear = bool(draw.integers(2))
    options = {
        "widths": [2, *draw.integers(1, 5, 1 + linear).tolist(), 2],
        "intervals": int(draw.integers(1, 30)) if kind is not multichannel else 3,
        "degree": int(draw.integers(1, 6)) if kind is not multichannel else 2,
        "linear": linear,
        "hidden": str(draw.choice(["tanh", "identity"])),
        "domain": [(-1.0, 1.0), (-0.1, 1 / 3)][int(draw.integers(2))],
        "dtype": [torch.float64, torch.float32][int(draw.integers(2))],
    }
    network = kind(**options, generator=torch.Generator().manual_seed(seed))
    one = torch.from_numpy(draw.uniform(-1.0, 1.0, (4, 2))).to(options["dtype"])
    return network, one, torch.from_numpy(draw.uniform(-2.0, 3.0, (50, 2))).to(one)


SEEDS = range(9)


def close(found, network, x):
    expected = network(x)
    # Another order of the sums, and polynomials of high degree: a few roundings of the largest.
    tolerance = 300.0 * torch.finfo(x.dtype).eps * float(expected.detach().abs().max())
    torch.testing.assert_close(found, expected, rtol=0.0, atol=tolerance)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_torchscript(seed):
    network, one, others = drawn(seed)
    for module in (network, torch.nn.Sequential(torch.nn.Identity(), network)):
        with pytest.raises(TypeError, match="torch.jit.script cannot compile a .*; use torch.jit."):
            torch.jit.script(module)
    file = io.BytesIO()
    torch.jit.save(torch.jit.trace(network, (one,)), file)
    file.seek(0)
    close(torch.jit.load(file)(others), network, others)


@pytest.mark.parametrize("seed", SEEDS)
def test_fx_and_export(seed):
    network, one, others = drawn(seed)
    graph = torch.fx.symbolic_trace(network)
    graph.graph.lint()
    assert torch.equal(graph(others), network(others))
    whole = torch.fx.symbolic_trace(torch.nn.Sequential(torch.nn.Identity(), network))
    assert torch.equal(whole(others), network(others))
    if isinstance(network, KAN) and network.linear is None:
        with pytest.raises(TypeError, match="convert one of them"):
            graph(others.half())
    samples = {0: torch.export.Dim("samples")}
    exported = torch.export.export(network, (one,), dynamic_shapes=(samples,))
    close(exported.module()(others), network, others)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("degree", range(1, 6))
@pytest.mark.parametrize("kind", [KAN, FreeKnotKAN])
@pytest.mark.filterwarnings("ignore")  # the exporter's: deprecations of its own
def test_onnx_of_every_degree(kind, degree, dtype, tmp_path):
    """Batches of none, one and many rows; far beyond the domain; missing values."""
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    options = {"linear": degree % 2 == 0, "hidden": ["tanh", "identity"][degree in (2, 3)]}
    options |= {"domain": (-0.1, 1 / 3), "dtype": dtype}
    network = kind([2, 3, 2], 6, degree, **options).eval()
    x = torch.linspace(-3.0, 4.0, 60, dtype=dtype).reshape(-1, 2)
    x = torch.cat([x, torch.tensor([[-0.1, 1 / 3], [1e6, -1e6], [torch.nan, 0.0]], dtype=dtype)])
    file, shapes = str(tmp_path / "network.onnx"), ({0: torch.export.Dim("rows")},)
    names = {"input_names": ["x"], "output_names": ["y"], "verbose": False}
    torch.onnx.export(network, (x[:4],), file, dynamo=True, dynamic_shapes=shapes, **names)
    session = runtime.InferenceSession(file, providers=["CPUExecutionProvider"])
    for rows in (x, x[:1], x[:0]):
        found = torch.from_numpy(session.run(None, {"x": rows.numpy()})[0])
        right = network(rows).detach()
        size = right.abs().amax(1, keepdim=True).clamp(min=1.0)
        tolerance = 100.0 * torch.finfo(dtype).eps
        torch.testing.assert_close(
            found / size, right / size, rtol=0.0, atol=tolerance, equal_nan=True
        )


@pytest.mark.parametrize("dynamo", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.filterwarnings("ignore")  # the exporters': deprecations of their own
def test_onnx(seed, dynamo, tmp_path):
    pytest.importorskip("onnxscript" if dynamo else "onnx")
    runtime = pytest.importorskip("onnxruntime")
    network, one, others = drawn(seed)
    file = str(tmp_path / "network.onnx")
    names = {"input_names": ["x"], "output_names": ["y"], "verbose": False}
    if dynamo:
        shapes = ({0: torch.export.Dim("samples")},)
        torch.onnx.export(network, (one,), file, dynamo=True, dynamic_shapes=shapes, **names)
    else:
        axes = {"x": {0: "samples"}, "y": {0: "samples"}}
        torch.onnx.export(network, (one,), file, dynamo=False, dynamic_axes=axes, **names)
    session = runtime.InferenceSession(file)
    (y,) = session.run(None, {"x": others.numpy()})
    close(torch.from_numpy(y), network, others)
