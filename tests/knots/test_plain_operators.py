"""Programs exported within `plain_operators` are loaded where there is no mgnet."""

import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

from mgnet.knots import KAN, FreeKnotKAN, MultichannelMLP, plain_operators
from mgnet.knots.layer import weighted_layer
from mgnet.knots.plain_operators import asks_for_plain_operators

BATCH = {0: torch.export.Dim("batch")}
# Runs in a process where mgnet cannot be imported, nor what compiles its loops.
ELSEWHERE = """
import sys

class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("mgnet", "numba"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NotInstalled())
import torch

for number in range(int(sys.argv[1])):
    x = torch.load(f"{number}_x.pt")
    exported = torch.export.load(f"{number}.pt2").module()
    traced = torch.jit.load(f"{number}.pt")
    found = [[module(rows) for rows in (x, x[:1], x[:0])] for module in (exported, traced)]
    torch.save(found, f"{number}_y.pt")
assert not any(name.partition(".")[0] == "mgnet" for name in sys.modules)
"""


def drawn(number):
    draw = np.random.default_rng(number)
    options = {
        "degree": number % 5 + 1,
        "linear": bool(number % 2),
        "hidden": str(draw.choice(["tanh", "identity"])),
        "domain": (-1.0, 1.0) if number % 2 else (-0.1, 1 / 3),
        "dtype": [torch.float64, torch.float32][number % 3 == 1],
        "generator": torch.Generator().manual_seed(number),
    }
    return KAN([2, 3, 2], int(draw.integers(1, 30)), **options)


def rows(dtype):
    """Inside the domain, beyond both ends of it, on its ends, and far out."""
    x = torch.linspace(-3.0, 4.0, 40, dtype=dtype).reshape(20, 2)
    return torch.cat([x, torch.tensor([[-1.0, 1.0], [0.0, 2.0], [1e6, -1e6]], dtype=dtype)])


def close(found, right):
    size = right.abs().amax(1, keepdim=True).clamp(min=1.0)
    return bool(((found - right).abs() <= 300.0 * torch.finfo(right.dtype).eps * size).all())


@pytest.mark.parametrize("number", range(15))
def test_the_same_function(number):
    network = drawn(number)
    x = rows(network.coefficients[0].dtype)
    with plain_operators():
        found = network(x)
    assert close(found, network(x))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_a_process_without_mgnet_computes_the_same(tmp_path):
    networks = [drawn(1), torch.nn.Sequential(drawn(2), torch.nn.Tanh()), FreeKnotKAN([2, 3, 1], 5)]
    expected = []
    for number, network in enumerate(networks):
        x = rows(next(network.parameters()).dtype)
        with plain_operators():
            program = torch.export.export(
                network, (x[:4],), dynamic_shapes=(BATCH,), strict=number == 1
            )
            traced = torch.jit.trace(network, (x[:4],), check_trace=False)
        targets = {str(node.target) for node in program.graph.nodes}
        assert not [target for target in targets if target.startswith("mgnet.")]
        torch.export.save(program, tmp_path / f"{number}.pt2")
        torch.jit.save(traced, tmp_path / f"{number}.pt")
        torch.save(x, tmp_path / f"{number}_x.pt")
        expected.append(network(x).detach())
    command = [sys.executable, "-c", ELSEWHERE, str(len(expected))]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    for number, right in enumerate(expected):
        for whole, one, none in torch.load(tmp_path / f"{number}_y.pt"):
            assert close(whole, right)
            assert one.shape == (1, right.shape[1]) and none.shape == (0, right.shape[1])


@pytest.mark.parametrize("kind", [KAN, MultichannelMLP])
@pytest.mark.parametrize("linear", [False, True])
def test_no_number_is_one_that_the_exporter_to_onnx_would_round(kind, linear):
    network = KAN([2, 2, 1] if linear else [2, 1], 3, linear=linear, domain=(-0.1, 1 / 3))
    network = network if kind is KAN else MultichannelMLP(network)
    with plain_operators():
        graph = torch.export.export(network, (torch.zeros(4, 2, dtype=torch.float64),)).graph
    numbers = [n for node in graph.nodes for n in node.args if isinstance(n, float)]
    assert all(float(np.float32(number)) == number for number in numbers)


def test_without_the_switch_the_custom_operator_stays():
    kan, x = KAN([1, 1]), torch.zeros(4, 1, dtype=torch.float64)
    targets = [str(node.target) for node in torch.export.export(kan, (x,)).graph.nodes]
    assert any(target.startswith("mgnet.spline_layer") for target in targets)


def test_an_exported_program_is_trained(tmp_path):
    kan, x = KAN([2, 3, 1], 6), torch.rand(8, 2, dtype=torch.float64)
    with plain_operators():
        module = torch.export.export(kan, (x,)).module()
    module(x).square().sum().backward()
    kan(x).square().sum().backward()
    for (name, found), right in zip(module.named_parameters(), kan.parameters(), strict=True):
        assert name.startswith("coefficients")
        torch.testing.assert_close(found.grad, right.grad, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("order", [0, 1, 2])
def test_weighted_layers_and_nan(order):
    draw = torch.Generator().manual_seed(order)
    u = torch.randn(2, 9, 3, generator=draw, dtype=torch.float64)
    x = 3.0 * torch.randn(30, 2, generator=draw, dtype=torch.float64)
    x[4, 1] = torch.nan
    h = torch.randn(30, 2, generator=draw, dtype=torch.float64)
    right = weighted_layer(x, u, h, 6, 3, (-1.0, 1.0), order)
    with plain_operators():
        found = weighted_layer(x, u, h, 6, 3, (-1.0, 1.0), order)
    torch.testing.assert_close(found, right, rtol=1e-12, atol=1e-12, equal_nan=True)


def test_the_switch_is_of_its_block_and_thread():
    seen = []
    with pytest.raises(ZeroDivisionError), plain_operators():
        with plain_operators():
            pass
        other = threading.Thread(target=lambda: seen.append(asks_for_plain_operators()))
        other.start()
        other.join()
        assert asks_for_plain_operators()
        raise ZeroDivisionError
    assert seen == [False] and not asks_for_plain_operators()
