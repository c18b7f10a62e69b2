"""Rows on derivatives: second ones by autograd, and the transforms of torch.func."""

import torch
from crossings.networks import (
    Network,
    close,
    data,
    gradients,
    loss_of,
    plain_gradients,
    same_step,
    weights_of,
)
from crossings.rows import row
from torch import Tensor
from torch.func import functional_call, stack_module_state

SECTION = "Derivatives"


@row(SECTION, "a loss with the input derivative (gradient penalty), `create_graph=True`")
def gradient_penalty(network: Network) -> None:
    module = network.make()
    x, y = data()

    def loss(function) -> Tensor:
        z = x.clone().requires_grad_()
        outputs = function(z)
        (slope,) = torch.autograd.grad(outputs.sum(), z, create_graph=True)
        return loss_of(outputs, y) + slope.square().mean()

    loss(module).backward()
    close(gradients(module), plain_gradients(network, weights_of(module), loss), "gradients")


@row(SECTION, "`torch.autograd.functional.hessian` in the inputs")
def functional_hessian(network: Network) -> None:
    module, point = network.make(), data()[0][:1]
    weights = weights_of(module)
    got = torch.autograd.functional.hessian(lambda u: module(u).sum(), point)
    right = torch.autograd.functional.hessian(lambda u: network.plain(weights, u).sum(), point)
    close(got, right, "Hessian")


@row(SECTION, "`torch.autograd.functional.jvp` and `vhp`")
def functional_products(network: Network) -> None:
    module, point = network.make(), data()[0][:3]
    weights, v = weights_of(module), torch.ones_like(data()[0][:3])
    for product in (torch.autograd.functional.jvp, torch.autograd.functional.vhp):

        def total(u: Tensor) -> Tensor:
            return module(u).sum()

        def plain_total(u: Tensor) -> Tensor:
            return network.plain(weights, u).sum()

        close(product(total, point, v)[1], product(plain_total, point, v)[1], product.__name__)


@row(SECTION, "Hessian of the loss in the weights, times a vector")
def weight_hessian(network: Network) -> None:
    module = network.make()
    x, y = data()

    def product(outputs: Tensor, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        found = torch.autograd.grad(loss_of(outputs, y), [*weights.values()], create_graph=True)
        along = torch.stack([gradient.sum() for gradient in found]).sum()
        return dict(zip(weights, torch.autograd.grad(along, [*weights.values()]), strict=True))

    weights = weights_of(module)
    right = product(network.plain(weights, x), weights)
    got = product(module(x), dict(zip(weights, module.parameters(), strict=True)))
    close(got, right, "product")


def _call(module: torch.nn.Module):
    """`(weights, x) -> outputs`, and the weights by their full names."""
    weights = {name: value.detach() for name, value in module.named_parameters()}
    return lambda values, x: functional_call(module, values, (x,)), weights


def _plainly(network: Network, module: torch.nn.Module):
    """The same of the plain function, which has the names without wrappers."""
    names = dict(
        zip([name for name, _ in module.named_parameters()], weights_of(module), strict=True)
    )
    return lambda values, x: network.plain({names[k]: v for k, v in values.items()}, x)


@row(SECTION, "`torch.func.functional_call` with other weights")
def other_weights(network: Network) -> None:
    module = network.make()
    call, weights = _call(module)
    x, _ = data()
    module(x)
    other = {name: 0.7 * value for name, value in weights.items()}
    close(call(other, x), _plainly(network, module)(other, x), "outputs")
    close(module(x), _plainly(network, module)(weights, x), "outputs after it")


@row(SECTION, "`torch.func.grad` in the weights")
def func_grad(network: Network) -> None:
    module = network.make()
    call, weights = _call(module)
    x, y = data()
    got = torch.func.grad(lambda w: loss_of(call(w, x), y))(weights)
    plain = _plainly(network, module)
    close(got, torch.func.grad(lambda w: loss_of(plain(w, x), y))(weights), "gradients")


def _in_inputs(network: Network, transform) -> None:
    module = network.make()
    point = data()[0][0]
    weights = weights_of(module)
    got = transform(lambda u: module(u.unsqueeze(0))[0, 0])(point)
    right = transform(lambda u: network.plain(weights, u.unsqueeze(0))[0, 0])(point)
    close(got, right, "derivative")


@row(SECTION, "`torch.func.jacrev` in the inputs")
def func_jacrev(network: Network) -> None:
    _in_inputs(network, torch.func.jacrev)


@row(SECTION, "`torch.func.jacfwd` in the inputs")
def func_jacfwd(network: Network) -> None:
    _in_inputs(network, torch.func.jacfwd)


@row(SECTION, "`torch.func.hessian` in the inputs")
def func_hessian(network: Network) -> None:
    _in_inputs(network, torch.func.hessian)


@row(SECTION, "`torch.func.vmap` over samples")
def vmap_samples(network: Network) -> None:
    module = network.make()
    x, _ = data()
    got = torch.func.vmap(lambda u: module(u.unsqueeze(0)).squeeze(0))(x)
    close(got, network.plain(weights_of(module), x), "outputs")


@row(SECTION, "gradients per sample, `vmap(grad(...))`")
def per_sample(network: Network) -> None:
    module = network.make()
    call, weights = _call(module)
    plain = _plainly(network, module)
    x, y = data()

    def each(function):
        one = torch.func.grad(lambda w, u, t: loss_of(function(w, u.unsqueeze(0)), t.unsqueeze(0)))
        return torch.func.vmap(one, in_dims=(None, 0, 0))(weights, x, y)

    close(each(call), each(plain), "gradients")


@row(SECTION, "an ensemble, `vmap` over `stack_module_state`")
def ensemble(network: Network) -> None:
    modules = [network.make(), network.make()]
    with torch.no_grad():
        for value in modules[1].parameters():
            value.mul_(0.8)
    x, _ = data()
    weights, buffers = stack_module_state(modules)
    call = _call(modules[0])[0]
    got = torch.func.vmap(lambda w, b: call({**w, **b}, x))(weights, buffers)
    right = [network.plain(weights_of(module), x) for module in modules]
    close(got, torch.stack(right), "outputs")


@row(SECTION, "`register_full_backward_hook`, `retain_graph=True`, gradients added up")
def hooks(network: Network) -> None:
    module, seen = network.make(), []
    module.register_full_backward_hook(lambda *told: seen.append(told[2]))
    same_step(network, module)
    right = {name: 2.0 * value for name, value in gradients(module).items()}
    x, y = data()
    module.zero_grad()
    loss = loss_of(module(x), y)
    loss.backward(retain_graph=True)
    loss.backward()
    close(gradients(module), right, "gradients of two passes")
    assert len(seen) == 3
