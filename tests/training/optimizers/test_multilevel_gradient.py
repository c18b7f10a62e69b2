"""Law: the steps are those of the plain optimizer on v, where u = sum_l P_l v_l."""

import copy
import io
import pickle
import warnings

import numpy as np
import pytest
import torch

from mgnet.depth import DepthSpline, ODENet
from mgnet.knots import KAN
from mgnet.training import Ansatz, MultilevelGradient
from mgnet.transfer import AxisTransfer

OPTIMIZERS = [
    (torch.optim.Adam, {"lr": 1e-2, "amsgrad": True}),
    (torch.optim.Adam, {"lr": 1e-2, "foreach": True}),
    (torch.optim.AdamW, {"lr": 1e-2, "weight_decay": 0.1, "fused": True}),
    (torch.optim.SGD, {"lr": 1e-2, "momentum": 0.9, "weight_decay": 0.1}),
    (torch.optim.SGD, {"lr": 1e-2, "momentum": 0.9, "nesterov": True}),
    (torch.optim.RMSprop, {"lr": 1e-2, "centered": True, "momentum": 0.5}),
    (torch.optim.Adagrad, {"lr": 1e-1, "initial_accumulator_value": 0.1}),
    (torch.optim.NAdam, {"lr": 1e-2, "weight_decay": 0.1}),
    (torch.optim.RAdam, {"lr": 1e-2, "decoupled_weight_decay": True, "weight_decay": 0.1}),
    (torch.optim.Adamax, {"lr": 1e-2, "weight_decay": 0.1, "maximize": True}),
]


class Lion(torch.optim.Optimizer):
    """A class of a user's own, which counts its steps in the group."""

    def __init__(self, params, lr, weight_decay=0.0):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "count": 0})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            group["count"] += 1
            for p in group["params"]:
                if p.grad is not None:
                    m = self.state[p].setdefault("exp_avg", torch.zeros_like(p))
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                    p.sub_(group["lr"] / group["count"] * (0.9 * m + 0.1 * p.grad).sign())
                    m.mul_(0.99).add_(p.grad, alpha=0.01)


OPTIMIZERS.append((Lion, {"lr": 1e-2, "weight_decay": 0.1}))
IDS = {"ids": lambda v: getattr(v, "__name__", "")}


def rows(inputs=2, dtype=torch.float64):
    x = 2.0 * torch.rand(50, inputs, generator=torch.Generator().manual_seed(0)) - 1.0
    return x.to(dtype), torch.sin(9.0 * x.sum(1, keepdim=True)).to(dtype)


def train(network, optimizer, steps, data, sign=1.0):
    for _ in range(steps):
        optimizer.zero_grad()
        (sign * (network(data[0]) - data[1]).square().mean()).backward()
        optimizer.step()
    return [p.detach().clone() for p in network.parameters()]


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(("kind", "options"), OPTIMIZERS, **IDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_with_one_level_it_is_the_plain_optimizer(kind, options, dtype):
    kans = [KAN([2, 3, 1], 8, linear=True, dtype=dtype) for _ in range(2)]
    plain = kind(kans[0].parameters(), **options)
    one = MultilevelGradient(kind, kans[1], options, levels=1)
    assert not one.systems
    data = rows(dtype=dtype)
    assert same(train(kans[0], plain, 8, data), train(kans[1], one, 8, data))
    assert str(plain.state_dict()) == str(one.state_dict())


def on_levels(kan, kind, options, steps, data):
    """The oracle: levels as tensors of their own, differentiated by autograd."""
    start = [u.detach().clone() for u in kan.coefficients]
    chains = [[t.P.toarray() for t in chain] for _, chain in kan.coarser_transfers()]
    products = []
    for u, chain in zip(start, chains, strict=True):
        products.append([np.eye(u.shape[1])])
        for P in chain:
            products[-1].append(products[-1][-1] @ P)
    products = [[torch.from_numpy(P) for P in Ps] for Ps in products]
    v = [
        [torch.zeros(u.shape[0], P.shape[1], u.shape[2], dtype=u.dtype) for P in Ps]
        for u, Ps in zip(start, products, strict=True)
    ]
    v = [[each.requires_grad_() for each in levels] for levels in v]
    options = dict(options)
    decay = options.pop("weight_decay", 0.0)
    decoupled = kind in (torch.optim.AdamW, Lion) or options.get("decoupled_weight_decay")
    sign = -1.0 if options.get("maximize") else 1.0
    extra = {"weight_decay": 0.0} if kind is torch.optim.AdamW else {}
    optimizer = kind([each for levels in v for each in levels], **options, **extra)

    def built():
        return [
            u + sum(torch.einsum("ij,pjq->piq", P, each) for P, each in zip(Ps, own, strict=True))
            for u, Ps, own in zip(start, products, v, strict=True)
        ]

    for _ in range(steps):
        optimizer.zero_grad()
        us = built()
        named = {f"coefficients.{k}": u for k, u in enumerate(us)}
        loss = (torch.func.functional_call(kan, named, data[0]) - data[1]).square().mean()
        if not decoupled:
            loss = loss + sign * 0.5 * decay * sum(u.square().sum() for u in us)
        loss.backward()
        optimizer.step()
        if decoupled:  # of u before the step: what is missing goes into the start
            start = [s - options["lr"] * decay * u.detach() for s, u in zip(start, us, strict=True)]
    return [u.detach() for u in built()]


@pytest.mark.parametrize(("kind", "options"), OPTIMIZERS, **IDS)
def test_levels_of_their_own_end_at_the_same_parameters(kind, options):
    data = rows()
    kan = KAN([2, 3, 1], [32, 24], degree=2)
    expected = on_levels(copy.deepcopy(kan), kind, options, 6, data)
    optimizer = MultilevelGradient(kind, kan, options)
    assert [s.sizes for s in optimizer.systems.values()] == [(34, 18, 10, 6), (26, 14, 8, 5)]
    before = [p.detach().clone() for p in kan.parameters()]
    found = train(kan, optimizer, 6, data)
    for a, b, c in zip(found, expected, before, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)
        assert (a - c).abs().max() > 1e-3


@pytest.mark.parametrize(("kind", "options"), OPTIMIZERS, **IDS)
@pytest.mark.parametrize("form", ["state", "deepcopy", "pickle"])
def test_a_run_goes_on_bit_for_bit(kind, options, form):
    # In float32: PyTorch loads the number that NAdam keeps in float32 in the parameters' precision.
    data, kan = rows(dtype=torch.float32), KAN([2, 3, 1], 16, linear=True, dtype=torch.float32)
    optimizer = MultilevelGradient(kind, kan, options, levels=3)
    train(kan, optimizer, 3, data)
    if form == "state":
        file = io.BytesIO()
        torch.save((kan.state_dict(), optimizer.state_dict()), file)
        file.seek(0)
        states = torch.load(file, weights_only=True)
        again = KAN([2, 3, 1], 16, linear=True, dtype=torch.float32)
        again.load_state_dict(states[0])
        other = MultilevelGradient(kind, again, options, levels=3)
        other.load_state_dict(states[1])
    elif form == "deepcopy":
        again, other = copy.deepcopy((kan, optimizer))
    else:
        again, other = pickle.loads(pickle.dumps((kan, optimizer)))
    assert all(a is not b for a in other.systems for b in optimizer.systems)
    assert same(train(kan, optimizer, 4, data), train(again, other, 4, data))


def test_groups_have_rates_and_schedules_of_their_own():
    data, kan = rows(), KAN([2, 3, 1], 16)
    first, second = kan.coefficients
    optimizer = MultilevelGradient(
        torch.optim.Adam, kan, {"lr": 1e-2}, groups=[{"params": [first], "lr": 1e-3}]
    )
    with pytest.raises(ValueError, match="more than one parameter group"):
        optimizer.add_param_group({"params": [first]})
    extra = torch.nn.Parameter(torch.ones(3))
    optimizer.add_param_group({"params": [second, extra], "lr": 0.0})
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, [lambda k: 0.5**k, lambda k: k])
    expected = copy.deepcopy((kan, optimizer))
    train(kan, optimizer, 1, data)
    assert torch.equal(second, expected[0].coefficients[1])
    assert set(optimizer.state) == {first, second}
    schedule.step()
    assert [group["lr"] for group in optimizer.param_groups] == [5e-4, 0.0]
    kan, optimizer = expected
    optimizer.param_groups[1]["lr"] = 1e-2
    train(kan, optimizer, 1, data)
    assert not torch.equal(second, kan.coefficients[1])
    step = optimizer.param_groups[0]["lr"] * 3  # Adam's first step is lr on each of 3 levels
    moved = (kan.coefficients[0] - first).abs().max()
    assert moved < step * (1 + 1e-9)


def test_a_schedule_of_weight_decay():
    data, kans = rows(), [KAN([2, 3, 1], 16) for _ in range(2)]
    options = {"lr": 1e-2, "weight_decay": 0.0}
    late = MultilevelGradient(torch.optim.AdamW, kans[0], options)
    early = MultilevelGradient(torch.optim.AdamW, kans[1], {**options, "weight_decay": 0.5})
    early.param_groups[0]["weight_decay"] = 0.0
    train(kans[0], late, 2, data)
    assert same(kans[0].parameters(), train(kans[1], early, 2, data))
    for optimizer in (late, early):
        optimizer.param_groups[0]["weight_decay"] = 0.3
    assert same(train(kans[0], late, 1, data), train(kans[1], early, 1, data))


def test_closures_hooks_and_scaler():
    x, y = rows(dtype=torch.float32)
    kan = KAN([2, 3, 1], 16, dtype=torch.float32)
    optimizer = MultilevelGradient(torch.optim.Adam, kan, {"lr": 1e-2})
    calls = []
    optimizer.register_step_pre_hook(lambda *_: calls.append("pre"))
    optimizer.register_step_post_hook(lambda *_: calls.append("post"))

    def closure():
        calls.append("loss")
        optimizer.zero_grad()
        loss = (kan(x) - y).square().mean()
        loss.backward()
        return loss

    first = optimizer.step(closure)
    assert float(optimizer.step(closure).detach()) < float(first.detach())
    assert calls == ["pre", "loss", "post"] * 2
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    other = copy.deepcopy((kan, optimizer))
    optimizer.zero_grad()
    scaler.scale((kan(x) - y).square().mean()).backward()
    scaler.step(optimizer)
    scaler.update()
    found = train(other[0], other[1], 1, (x, y))
    for a, b in zip(kan.parameters(), found, strict=True):
        torch.testing.assert_close(a.detach(), b, rtol=1e-4, atol=1e-6)
    before = [p.detach().clone() for p in kan.parameters()]
    optimizer.zero_grad()
    scaler.scale((kan(x) - y).square().mean() * float("inf")).backward()
    scaler.step(optimizer)  # found_inf: no step
    assert same(before, kan.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_precisions(dtype):
    data = rows(dtype=dtype)
    kan = KAN([2, 3, 1], 16, dtype=torch.float32).to(dtype)
    optimizer = MultilevelGradient(torch.optim.Adam, kan, {"lr": 1e-2})
    loss = [(kan(data[0]) - data[1]).square().mean() for _ in (0, train(kan, optimizer, 20, data))]
    kan.double()  # before the next step, as a move to a device
    assert optimizer.state[kan.coefficients[0]]["exp_avg"].dtype == dtype
    assert loss[1] <= loss[0]


def test_a_cleared_state_begins_anew():
    data, kan = rows(), KAN([2, 3, 1], 16, linear=True)
    optimizer = MultilevelGradient(torch.optim.Adam, kan, {"lr": 1e-2})
    train(kan, optimizer, 3, data)
    other = copy.deepcopy(kan)
    optimizer.state.clear()
    fresh = MultilevelGradient(torch.optim.Adam, other, {"lr": 1e-2})
    assert same(train(kan, optimizer, 3, data), train(other, fresh, 3, data))


def test_what_has_no_gradient_stays():
    data, kan = rows(), KAN([2, 3, 1], 16)
    kan.coefficients[1].requires_grad_(False)
    kan.coefficients[1].grad = None
    before = kan.coefficients[1].detach().clone()
    optimizer = MultilevelGradient(
        torch.optim.AdamW, kan, {"weight_decay": 1.0, "lr": 0.1, "maximize": True}
    )
    train(kan, optimizer, 2, data)
    assert torch.equal(before, kan.coefficients[1])
    assert list(optimizer.state) == [kan.coefficients[0]]


def test_networks_with_levels_are_found_wherever_they_stand():
    kan, other = KAN([2, 3, 1], [8, 5]), KAN([1, 1], 64)
    both = torch.nn.Sequential(kan, torch.nn.Linear(1, 1).double(), other)
    optimizer = MultilevelGradient(torch.optim.Adam, both)
    assert [s.sizes for s in optimizer.systems.values()] == [(11, 7), (67, 35, 19, 11, 7)]
    held = MultilevelGradient(torch.optim.Adam, Ansatz(other), levels=2)
    assert [s.sizes for s in held.systems.values()] == [(67, 35)]
    tied = KAN([1, 1, 1], 8)
    tied.coefficients[1] = tied.coefficients[0]
    assert len(MultilevelGradient(torch.optim.Adam, tied).systems) == 1
    train(both, optimizer, 2, rows())


@pytest.mark.parametrize(
    ("weights", "sizes"),
    [("per layer", (16, 8, 4)), ("shared", None), (DepthSpline(11, 3), (11, 7))],
)
@pytest.mark.parametrize("learnable", [False, True])
def test_layers(weights, sizes, learnable):
    torch.manual_seed(0)
    block = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Tanh())
    net = ODENet(
        block, 16, weights=weights, learnable_steps=learnable, before=torch.nn.Linear(2, 3)
    ).double()
    optimizer = MultilevelGradient(torch.optim.SGD, net, {"lr": 0.1})
    named = {net.get_parameter(name): name for name, _ in net.named_parameters()}
    found = {named[p]: s.sizes for p, s in optimizer.systems.items()}
    expected = dict.fromkeys(("block.0.weight", "block.0.bias"), sizes) if sizes else {}
    if learnable:
        expected["learnable_steps"] = (16, 8, 4)
    assert found == expected
    x, _ = rows()
    (net(x) ** 2).mean().backward()
    chains = dict(net.coarser_transfers())
    for p, name in named.items():  # one step of SGD: lr sum_l P_l P_l^T g
        product, total = np.eye(len(p)), p.grad.numpy().copy()
        for transfer in chains.get(p, []):
            product = product @ transfer.P
            total += np.tensordot(product @ product.T, p.grad.numpy(), 1)
        p.expected = p.detach().clone() - 0.1 * torch.from_numpy(total)
        assert name
    optimizer.step()
    for p in named:
        torch.testing.assert_close(p.detach(), p.expected)


def test_a_mapping_gives_levels_to_any_tensor():
    table = torch.nn.Parameter(torch.zeros(4, 3))
    P = AxisTransfer(np.repeat(np.eye(2), 2, axis=0))
    optimizer = MultilevelGradient(torch.optim.SGD, {table: [P]}, {"lr": 1.0})
    table.grad = torch.ones(4, 3)
    optimizer.step()
    assert torch.equal(table.detach(), -3.0 * torch.ones(4, 3))  # 1, and 2 from the pair


def test_compiled_networks_take_the_same_steps():
    data, kans = rows(), [KAN([2, 3, 1], 16) for _ in range(2)]
    optimizers = [MultilevelGradient(torch.optim.Adam, kan) for kan in kans]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled = torch.compile(kans[1], backend="eager")
        found = train(compiled, optimizers[1], 2, data)
    assert same(train(kans[0], optimizers[0], 2, data), found)


def test_refusals():
    kan = KAN([2, 3, 1], 16)
    with pytest.raises(TypeError, match="give a class of optimizers and its options"):
        MultilevelGradient(torch.optim.Adam(kan.parameters()), kan)
    with pytest.raises(ValueError, match=r"got the option 'rate', which Adam does not have"):
        MultilevelGradient(torch.optim.Adam, kan, {"rate": 1.0})
    for options in (None, ["lr"], 1e-3):
        with pytest.raises(TypeError, match=r"got options of type \w+; give a mapping of keyword"):
            MultilevelGradient(torch.optim.Adam, kan, options)
    with pytest.raises(ValueError, match="Invalid learning rate"):
        MultilevelGradient(torch.optim.Adam, kan, {"lr": -1.0})
    with pytest.raises(ValueError, match="got 0 levels; give at least 1"):
        MultilevelGradient(torch.optim.Adam, kan, levels=0)
    with pytest.raises(ValueError, match="differentiable=True"):
        MultilevelGradient(torch.optim.Adam, kan, {"differentiable": True})
    with pytest.raises(TypeError, match="Linear without a KAN, an ODENet"):
        MultilevelGradient(torch.optim.Adam, torch.nn.Linear(1, 1))
    with pytest.raises(TypeError, match="got a network of type list; give a module"):
        MultilevelGradient(torch.optim.Adam, [*kan.parameters()])
    with pytest.raises(TypeError, match="LBFGS, which takes no step by the gradient"):
        MultilevelGradient(torch.optim.LBFGS, kan)
    P = AxisTransfer(np.eye(2))
    wrong = torch.zeros(2, dtype=torch.complex128)
    with pytest.raises(TypeError, match="it must be a plain real tensor"):
        MultilevelGradient(torch.optim.Adam, {wrong: [P]})
    saved = MultilevelGradient(torch.optim.Adam, kan, levels=3)
    train(kan, saved, 1, rows())
    with pytest.raises(ValueError, match="create the optimizer with the levels that"):
        MultilevelGradient(torch.optim.Adam, kan, levels=2).load_state_dict(saved.state_dict())
    with pytest.raises(ValueError, match=r"whose one level has \(2, 19, 3\); create the optimizer"):
        MultilevelGradient(torch.optim.Adam, kan, levels=1).load_state_dict(saved.state_dict())
    kan.coefficients[0].grad = torch.zeros_like(kan.coefficients[0]).to_sparse()
    with pytest.raises(TypeError, match="sparse gradient of a parameter of shape"):
        saved.step()


def test_a_state_that_was_loaded_is_a_copy():
    """PyTorch's optimizers share the tensors of a live optimizer's state."""
    x = torch.linspace(-1.0, 1.0, 60).reshape(30, 2)

    def steps(kan, optimizer):
        for _ in range(5):
            optimizer.zero_grad()
            (kan(x) - x[:, :1]).square().mean().backward()
            optimizer.step()

    def forked(copied):
        kan = KAN([2, 2, 1], 16, dtype=torch.float32)
        optimizer = MultilevelGradient(torch.optim.Adam, kan, {"lr": 1e-2})
        steps(kan, optimizer)
        other = copy.deepcopy(kan)
        second = MultilevelGradient(torch.optim.Adam, other, {"lr": 1e-2})
        state = optimizer.state_dict()
        second.load_state_dict(copy.deepcopy(state) if copied else state)
        steps(other, second)
        steps(kan, optimizer)
        return kan.coefficients[0].detach()

    torch.testing.assert_close(forked(False), forked(True), rtol=0, atol=0)


def test_groups_of_another_network_are_refused():
    kan = KAN([1, 2, 1], intervals=16)
    with pytest.raises(ValueError, match="without any parameter of the KAN"):
        MultilevelGradient(torch.optim.Adam, kan, groups=copy.deepcopy(kan).parameters())
    head = torch.nn.Parameter(torch.zeros(1))
    groups = [{"params": [head]}, {"params": [kan.coefficients[1]]}]
    assert len(MultilevelGradient(torch.optim.Adam, kan, groups=groups).param_groups) == 2
