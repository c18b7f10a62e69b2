"""Mixed precision as PyTorch advises it: forward under autocast, backward outside, a GradScaler.

Splines work in float32 or better, so a network of splines alone loses nothing, and one that begins
with a linear layer loses what that layer loses. Oracle: the network in float64.
"""

import copy

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from mgnet.knots import KAN, FreeKnotKAN, MultichannelMLP, layer
from mgnet.knots.layer import spline_layer, weighted_layer
from mgnet.knots.precision import in_full_precision, raised, working_dtype

LOW = [torch.bfloat16, torch.float16]
X = 2.0 * torch.rand(60, 2, generator=torch.Generator().manual_seed(2)) - 1.0


def multichannel(*arguments, **options):
    return MultichannelMLP(KAN(*arguments, **options))


def linear_before(kind):
    before = torch.nn.Linear(2, 3)
    with torch.no_grad():
        before.weight.mul_(0.5)
    return torch.nn.Sequential(before, kind([3, 2, 1], dtype=torch.float32))


MODELS = {
    "alone": (lambda kind: kind([2, 3, 1], 4, 2, dtype=torch.float32), 1e-5),
    "linear=True": (lambda kind: kind([2, 3, 2, 1], 4, 2, linear=True, dtype=torch.float32), 3e-2),
    "after Linear": (linear_before, 3e-2),
    "before Linear": (
        lambda kind: torch.nn.Sequential(kind([2, 3], dtype=torch.float32), torch.nn.Linear(3, 1)),
        3e-2,
    ),
}


def gradients(model):
    return torch.cat([p.grad.flatten().double() for p in model.parameters()])


def close(one, other, tolerance):
    return float((one - other).abs().max()) <= tolerance * float(other.abs().max())


# A backward pass inside, of which PyTorch advises against, is in 16 bits for its own operators.
@pytest.mark.parametrize(
    ("kind", "compiled", "inside"),
    [(KAN, fast, inside) for fast in (True, False) for inside in (True, False)]
    + [(FreeKnotKAN, True, False), (multichannel, True, False)],
)
@pytest.mark.parametrize("dtype", LOW)
@pytest.mark.parametrize("name", MODELS)
def test_forward_and_backward(kind, name, dtype, inside, compiled, monkeypatch):
    monkeypatch.setattr(layer, "compiled", compiled)
    torch.manual_seed(0)
    make, tolerance = MODELS[name]
    model = make(kind)
    exact = copy.deepcopy(model).double()
    expected = exact(X.double())
    expected.square().sum().backward()
    with torch.autocast("cpu", dtype=dtype):
        outputs = model(X)
        if inside:
            outputs.float().square().sum().backward()
    if not inside:
        outputs.float().square().sum().backward()
    assert outputs.dtype == (dtype if name == "before Linear" else torch.float32)
    assert close(outputs.detach().double(), expected.detach(), tolerance)
    assert close(gradients(model), gradients(exact), 5.0 * tolerance)
    assert {p.grad.dtype for p in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("dtype", LOW)
def test_inputs_and_parameters_of_16_bits(dtype):
    kan = KAN([2, 3, 1], dtype=torch.float32)
    low, x = copy.deepcopy(kan).to(dtype), X.to(dtype)
    with pytest.raises(TypeError, match="convert one of them"):
        kan(x)
    with torch.autocast("cpu", dtype=dtype):
        assert torch.equal(kan(x), kan(x.float()))
        assert torch.equal(low(x), copy.deepcopy(low).float()(x.float()))
        double = KAN([2, 3, 1])
        with pytest.raises(TypeError, match="inputs of torch.float32, but its coefficients are of"):
            double(X)
        assert torch.equal(double(X.double()), double(X.double()))


@pytest.mark.parametrize("kind", [KAN, FreeKnotKAN])
def test_double_precision_stays(kind):
    kan, x = kind([2, 3, 1], linear=False), X.double()
    expected = kan(x)
    with torch.autocast("cpu"):
        assert torch.equal(kan(x), expected)
        assert torch.equal(torch.func.vmap(kan)(x), expected)


def test_transforms_and_forward_mode_under_autocast():
    kan, v = KAN([2, 3, 1], dtype=torch.float32), torch.ones_like(X)
    plain = torch.func.jvp(kan, (X,), (v,)), torch.func.vmap(torch.func.jacrev(kan))(X)
    with torch.autocast("cpu"):
        mixed = torch.func.jvp(kan, (X,), (v,)), torch.func.vmap(torch.func.jacrev(kan))(X)
    torch.testing.assert_close(mixed, plain)


def test_gradients_of_samples_and_of_ensembles_under_autocast():
    """Their rule has all splines, of torch's own operators, which autocast would round."""
    kan = KAN([2, 4, 1], 3, dtype=torch.float32)
    parameters = {name: p.detach() for name, p in kan.named_parameters()}
    ensemble = {name: torch.stack([p, 1.1 * p]) for name, p in parameters.items()}

    def loss(parameters, x):
        return torch.func.functional_call(kan, parameters, (x,)).square().sum()

    gradient = torch.func.grad(loss)
    samples = torch.func.vmap(gradient, (None, 0))
    members = torch.func.vmap(gradient, (0, None))
    plain = samples(parameters, X), members(ensemble, X)
    with torch.autocast("cpu"):
        mixed = samples(parameters, X), members(ensemble, X)
    torch.testing.assert_close(mixed, plain)


def test_a_loss_scale_is_taken_back():
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), KAN([3, 1], dtype=torch.float32))
    exact = copy.deepcopy(model).double()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.float16):
            loss = model(X).square().mean()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        exact.zero_grad()
        exact.load_state_dict(model.state_dict())
        exact(X.double()).square().mean().backward()
        assert close(gradients(model), gradients(exact), 2e-2)
        scaler.step(optimizer)
        scaler.update()


@pytest.mark.parametrize("linear", [False, True])
def test_compiled_under_autocast(linear):
    kan = KAN([2, 3, 2, 1], linear=linear, dtype=torch.float32)
    torch._dynamo.reset()
    whole = torch.compile(kan, fullgraph=True, backend="aot_eager")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed, expected = whole(X.bfloat16()), kan(X.bfloat16())
    torch.testing.assert_close(mixed, expected)
    ours = torch.autograd.grad(mixed.sum(), list(kan.parameters()))
    torch.testing.assert_close(ours, torch.autograd.grad(expected.sum(), list(kan.parameters())))
    torch.testing.assert_close(whole(X), kan(X))


def test_checkpoints_and_inference_first():
    kan = KAN([2, 3, 1], linear=False, dtype=torch.float32)
    with torch.inference_mode():
        kan(X)
    x = X.clone().requires_grad_()
    for context in (torch.autocast("cpu"), torch.autocast("cpu", enabled=False)):
        for reentrant in (False, True):
            with context:
                plain, again = kan(x), checkpoint(kan, x, use_reentrant=reentrant)
            wanted = [x, *kan.parameters()]
            expected = torch.autograd.grad(plain.square().sum(), wanted)
            kan.zero_grad()
            x.grad = None
            again.square().sum().backward()
            torch.testing.assert_close([t.grad for t in wanted], list(expected))


@pytest.mark.parametrize("linear", [False, True])
def test_the_jacobian_is_not_of_16_bits(linear):
    kan = KAN([2, 3, 2, 1], linear=linear, dtype=torch.float32)
    outputs, J = kan.linearize(X)
    with torch.autocast("cpu"):
        same, other = kan.linearize(X)
    assert torch.equal(same, outputs) and torch.equal(other.dense(), J.dense())


def test_the_helpers():
    half = torch.ones(2, 2, dtype=torch.bfloat16)
    assert raised(half) is half and working_dtype(half) == torch.bfloat16
    with torch.autocast("cpu"):
        assert raised(half).dtype == torch.float32
        assert raised(half.double()).dtype == torch.float64
        assert in_full_precision(torch.mm, half, half.float()).dtype == torch.float32
    hat = torch.tensor([[[0.0], [1.0], [0.0]]])
    at = torch.tensor([[0.25]], dtype=torch.bfloat16)
    with torch.autocast("cpu"):
        for apply in (
            lambda: spline_layer(at, hat.bfloat16(), 2, 1, (0.0, 1.0)),
            lambda: weighted_layer(at, hat, at, 2, 1, (0.0, 1.0), 1) / (2 * at.float()),
        ):
            assert float(apply()) in (0.5, 1.0) and apply().dtype == torch.float32
