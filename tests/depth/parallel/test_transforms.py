"""Law: under a transform of PyTorch a `LayerParallel` is its layers one after another, or refuses.

`torch.func` (also nested, and of the parameters), forward mode, `torch.export`, `torch.jit.trace`;
`torch.compile` calls the solve as it is, once and for all; a checkpoint may hold the first call.
Oracle: the `ODENet`, and the module without the transform.
"""

import copy

import pytest
import torch
from torch import func, nn
from torch.autograd import forward_ad, functional
from torch.utils.checkpoint import checkpoint

from mgnet.depth import AdaptiveCycles, CyclesToTolerance, DepthSpline, FixedCycles, ODENet
from mgnet.depth.parallel.layer_parallel import LayerParallel


def made(layers=16, dropout=0.0, **options):
    torch.manual_seed(0)
    block = nn.Sequential(nn.Linear(3, 3), nn.Dropout(dropout), nn.Tanh())
    return ODENet(block, layers, before=nn.Linear(2, 3), **options).double()


def inputs():
    return torch.randn(3, 2, generator=torch.Generator().manual_seed(1)).double()


def weights(model):
    return {name: x.detach() for name, x in model.named_parameters()}


def flat(tensors):
    return torch.cat([x.flatten() for x in tensors.values()])


def dual(model, x):
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(model(forward_ad.make_dual(x, x + 1.0))).tangent


def dual_weights(model, x):
    with forward_ad.dual_level():
        held = {k: forward_ad.make_dual(v, v + 1.0) for k, v in weights(model).items()}
        return forward_ad.unpack_dual(func.functional_call(model, held, (x,))).tangent


def gradient_of(model, x):
    return lambda w: func.functional_call(model, w, (x,)).square().sum()


ASKED = {
    "grad": lambda m, x: func.grad(lambda x: m(x).sum())(x),
    "vjp": lambda m, x: func.vjp(m, x)[1](torch.ones(3, 3).double())[0],
    "jvp": lambda m, x: func.jvp(m, (x,), (x,))[1],
    "jacrev": lambda m, x: func.jacrev(m)(x),
    "jacfwd": lambda m, x: func.jacfwd(m)(x),
    "hessian": lambda m, x: func.hessian(lambda x: m(x).sum())(x),
    "vmap": lambda m, x: func.vmap(lambda x: m(x[None])[0])(x),
    "vmap of grad": lambda m, x: func.vmap(func.grad(lambda x: m(x[None]).sum()))(x),
    "of the weights": lambda m, x: flat(func.grad(gradient_of(m, x))(weights(m))),
    "many networks": lambda m, x: func.vmap(lambda w: func.functional_call(m, w, (x,)))(
        {name: torch.stack([v, 2.0 * v]) for name, v in weights(m).items()}
    ),
    "each sample": lambda m, x: flat(
        func.vmap(lambda x: func.grad(gradient_of(m, x[None]))(weights(m)))(x)
    ),
    "forward mode": dual,
    "forward mode of the weights": dual_weights,
    "forward over reverse": lambda m, x: functional.hessian(
        lambda x: m(x).sum(), x, vectorize=True, outer_jacobian_strategy="forward-mode"
    ),
    "trace": lambda m, x: torch.jit.trace(m, (x,))(x + 1.0),
    "export": lambda m, x: torch.export.export(m, (x,), strict=False).module()(x + 1.0),
}
OPTIONS = [{}, {"weights": "shared"}, {"weights": DepthSpline(4, 2), "learnable_steps": True}]


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("name", ASKED)
def test_the_layers_one_after_another(name, options):
    net, x = made(**options), inputs()
    wanted = ASKED[name](net, x)
    for settings in ({"mode": "serial"}, {"control": CyclesToTolerance(1e-9)}, {"levels": 1}):
        found = ASKED[name](LayerParallel(net, **settings), x)
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-14)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("control", [FixedCycles(2), AdaptiveCycles()])
@pytest.mark.parametrize("name", ASKED)
def test_fixed_cycles_are_refused(name, control):
    with pytest.raises(RuntimeError, match="LayerParallel was called under .*; use control="):
        ASKED[name](LayerParallel(made(), control=control), inputs())


def test_a_level_without_dual_numbers_changes_nothing():
    parallel, x = LayerParallel(made()), inputs()
    with forward_ad.dual_level():
        assert torch.equal(parallel(x), parallel(x))
    assert parallel.last_forward.cycles == 1


@pytest.mark.parametrize("settings", [{}, {"control": CyclesToTolerance(1e-9)}, {"mode": "serial"}])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_compiled_once_with_the_same_bits(settings, dropout):
    torch._dynamo.reset()
    plain = LayerParallel(made(64, dropout), coarsening=8, **settings)
    inner, compiled_frames = copy.deepcopy(plain), []

    def backend(graph, given):
        compiled_frames.append(graph)
        return graph

    compiled = torch.compile(inner, backend=backend)
    for number in range(4):
        found = []
        for model, module in ((compiled, inner), (plain, plain)):
            x = (inputs() + number).requires_grad_()
            out = model(x)
            gradients = torch.autograd.grad(out.square().sum(), [x, *module.parameters()])
            found.append([out, *gradients])
        for ours, theirs in zip(*found, strict=True):
            assert torch.equal(ours, theirs)
    assert 1 <= len(compiled_frames) <= 2  # what stands before and after the solve
    assert inner.net.calls == plain.net.calls


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("traced", [True, False])
@pytest.mark.parametrize("settings", [{}, {"mode": "serial"}])
def test_a_checkpoint_around_the_first_call(settings, traced, reentrant):
    found = []
    for around in (False, True):
        parallel, x = LayerParallel(made(), **settings), inputs().requires_grad_()
        parallel.net.kernel.traced = traced
        out = checkpoint(parallel, x, use_reentrant=reentrant) if around else parallel(x)
        out.square().sum().backward()  # type: ignore[union-attr]
        found.append([x.grad, *(p.grad for p in parallel.parameters())])
    for ours, theirs in zip(*found, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("around", [LayerParallel, lambda net: net])
def test_a_checkpoint_around_dropout_is_refused(around, reentrant):
    model, x = around(made(dropout=0.3)), inputs().requires_grad_()
    loss = checkpoint(model, x, use_reentrant=reentrant).sum()  # type: ignore[union-attr]
    with pytest.raises(RuntimeError, match="dropout would have other masks"):
        loss.backward()
    model.eval()
    checkpoint(model, x, use_reentrant=reentrant).sum().backward()  # type: ignore[union-attr]


@pytest.mark.parametrize("parallel", [False, True])
def test_torchscript_is_refused_in_a_sentence(parallel):
    net = ODENet(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Tanh()), layers=8)
    module = LayerParallel(net, 2, 4) if parallel else net
    with pytest.raises(TypeError, match="torch.jit.script cannot compile an ODENet, .*; use torch"):
        torch.jit.script(module)


def test_forward_mode_by_a_side_input_alone():
    class Shifted(nn.Linear):
        def forward(self, u, shift=0.0):
            return torch.tanh(super().forward(u) + shift)

    net = ODENet(Shifted(2, 2), 8).double()
    x, shift = inputs(), torch.ones(2).double()
    expected = func.jvp(lambda s: net(x, shift=s), (shift,), (2.0 * shift,))[1]
    parallel = LayerParallel(net, control=CyclesToTolerance(1e-8))
    with forward_ad.dual_level():
        out = parallel(x, shift=forward_ad.make_dual(shift, 2.0 * shift))
        torch.testing.assert_close(forward_ad.unpack_dual(out).tangent, expected)
