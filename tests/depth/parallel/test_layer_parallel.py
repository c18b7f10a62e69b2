"""Laws: with enough cycles the serial network, values and gradients; and what goes wrong elsewhere.

The oracle is a plain loop over ordinary modules, differentiated by autograd.
"""

import copy
import math
import pickle
import warnings

import pytest
import torch
from torch import nn

from mgnet.depth.mgrit.coarse_kinds import COARSE
from mgnet.depth.mgrit.plan import plan
from mgnet.depth.network.ode_net import ODENet
from mgnet.depth.network.spline_weights import DepthSpline
from mgnet.depth.parallel import layer_parallel
from mgnet.depth.parallel.control import AdaptiveCycles, CyclesToTolerance, FixedCycles
from mgnet.depth.parallel.layer_parallel import LayerParallel

WIDTH, BATCH = 5, 7


class Block(nn.Module):
    """Two layers, so that there is something to save between them."""

    def __init__(self, width=WIDTH):
        super().__init__()
        self.inner = nn.Linear(width, 2 * width)
        self.outer = nn.Linear(2 * width, width)

    def forward(self, u):
        return self.outer(torch.tanh(self.inner(u)))


def made(layers=13, dtype=torch.float64, time=2.0, make=Block, **options):
    """A net, and the modules that it was made of."""
    torch.manual_seed(layers)
    blocks = [make().to(dtype) for _ in range(layers)]
    return ODENet(lambda n: copy.deepcopy(blocks[n]), layers, time, **options).to(dtype), blocks


def looped(blocks, x, time=2.0):
    for block in blocks:
        x = x + time / len(blocks) * block(x)
    return x


def batch(size=BATCH, dtype=torch.float64, seed=0):
    return torch.randn(size, WIDTH, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def exact(net, levels=2, coarsening=4, **options):
    return LayerParallel(net, levels, coarsening, control=FixedCycles(net.depth), **options)


def gradients_of(net, blocks):
    """Pairs: the net's stacked gradients, and those of the modules."""
    named = dict(net.named_parameters())
    for name, _ in blocks[0].named_parameters():
        (stacked,) = [p for key, p in named.items() if key.endswith(name)]
        yield stacked.grad, torch.stack([dict(b.named_parameters())[name].grad for b in blocks])


def same(net, blocks, tolerance=1e-13):
    for ours, theirs in gradients_of(net, blocks):
        assert (ours - theirs).norm() <= tolerance * theirs.norm()


@pytest.mark.parametrize(
    ("layers", "levels", "coarsening", "forward", "coarse"),
    [
        (13, 2, 4, "cascade + V", "mean"),
        (16, 2, 4, "V", "first"),
        (5, 2, 8, "cascade + V", "fused"),
        *((27, 3, 3, "cascade + V", each) for each in COARSE),
        *((26, 3, (2, 5), "cascade + F", each) for each in COARSE),
        (32, 4, 2, "cascade + W", "mean"),
    ],
)
def test_enough_cycles_give_the_serial_network(layers, levels, coarsening, forward, coarse):
    net, blocks = made(layers)
    parallel = exact(net, levels, coarsening, forward=forward, backward=forward, coarse=coarse)
    x, z = (batch().requires_grad_() for _ in range(2))
    out, reference = parallel(x), looped(blocks, z)
    assert (out - reference).norm() <= 1e-14 * layers * reference.norm()
    weight = batch(seed=1)
    (out * weight).sum().backward()
    (reference * weight).sum().backward()
    assert (x.grad - z.grad).norm() <= 1e-13 * z.grad.norm()
    same(net, blocks)


@pytest.mark.parametrize(
    "options",
    [
        {"learnable_steps": True},
        {"scheme": "heun", "learnable_steps": True},
        {"scheme": "rk4"},
        {"weights": "shared"},
        {"weights": DepthSpline(3, 2)},
    ],
)
@pytest.mark.parametrize("coarse", COARSE)
def test_schemes_gates_and_weights_of_other_kinds(options, coarse):
    """Against ordinary autograd through the serial form, whose own tests have other oracles."""
    torch.manual_seed(0)
    net = ODENet(nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh()), 9, 2.0, **options).double()
    if options.get("learnable_steps"):
        with torch.no_grad():
            net.learnable_steps.mul_(torch.rand(9, dtype=torch.float64) + 0.5)
    x = batch()
    expected = torch.autograd.grad(net(x).square().sum(), list(net.parameters()))
    parallel = exact(net, 3, 3, coarse=coarse)
    for _ in range(2):  # coarse layers follow what an optimizer does
        found = torch.autograd.grad(parallel(x).square().sum(), list(net.parameters()))
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-13)
        with torch.no_grad():
            for p in net.parameters():
                p.mul_(1.1)
        expected = torch.autograd.grad(net(x).square().sum(), list(net.parameters()))


def test_fewer_cycles_are_near_and_each_comes_nearer():
    net, blocks = made(64, time=1.0)
    x, errors = batch(), []
    reference = looped(blocks, x, 1.0).detach()
    for cycles in range(4):
        parallel = LayerParallel(net, 2, 4, control=FixedCycles(cycles, tolerance=1.0))
        errors.append(float((parallel(x).detach() - reference).norm() / reference.norm()))
    assert errors[0] < 0.2
    assert all(b < 0.5 * a for a, b in zip(errors[:-1], errors[1:], strict=True))


@pytest.mark.parametrize("coarse", COARSE)
def test_a_coarse_layer_is_what_its_name_says(coarse):
    """The cascade alone is a march over coarse layers."""
    net, blocks = made(10, time=2.0)
    u, h = batch(), 2.0 / 10
    for first in range(0, 10, 4):
        part = blocks[first : first + 4]
        if coarse == "fused":
            slope = sum(block(u) for block in part)
        elif coarse == "identity":
            slope = torch.zeros_like(u)
        else:
            layer = copy.deepcopy(part[0])
            if coarse == "mean":
                with torch.no_grad():
                    for name, p in layer.named_parameters():
                        p.copy_(sum(dict(each.named_parameters())[name] for each in part))
                        p.div_(len(part))
            slope = len(part) * layer(u)
        u = u + h * slope
    control = FixedCycles(0, tolerance=9.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # errors are large: that is the point
        found = LayerParallel(net, 2, 4, control=control, coarse=coarse)(batch())
    torch.testing.assert_close(found, u, rtol=1e-12, atol=1e-14)


def test_fused_layers_are_right_where_weights_multiply_and_means_are_not():
    """Weights with signs at random: a mean of four shrinks both factors, a sum of slopes none."""

    def error(coarse):
        parallel = LayerParallel(net, 2, 4, control=FixedCycles(1, tolerance=9.0), coarse=coarse)
        return float((parallel(x) - reference).norm() / reference.norm())

    net, blocks = made(32, time=4.0)
    x = batch()
    with torch.no_grad():
        reference = looped(blocks, x, 4.0)
        errors = {coarse: error(coarse) for coarse in COARSE}
    assert errors["fused"] < 0.1 * min(errors[name] for name in COARSE if name != "fused")


def test_gradients_accumulate():
    net, blocks = made()
    parallel = exact(net)
    for seed in range(3):
        parallel(batch(seed=seed)).square().sum().backward()
        looped(blocks, batch(seed=seed)).square().sum().backward()
    same(net, blocks)


def test_used_twice_in_one_graph():
    net, blocks = made()
    parallel = exact(net)
    parallel(parallel(batch())).square().sum().backward()
    looped(blocks, looped(blocks, batch())).square().sum().backward()
    same(net, blocks)


def test_two_forwards_one_backward_in_the_other_order():
    net, blocks = made()
    parallel = exact(net)
    first, second = parallel(batch(seed=1)), parallel(batch(4, seed=2))
    (second.square().sum() * first.sum()).backward()
    first, second = looped(blocks, batch(seed=1)), looped(blocks, batch(4, seed=2))
    (second.square().sum() * first.sum()).backward()
    same(net, blocks)


def test_the_graph_can_be_kept():
    net, blocks = made()
    loss = exact(net)(batch()).square().sum()
    loss.backward(retain_graph=True)
    loss.backward()
    (2 * looped(blocks, batch()).square().sum()).backward()
    same(net, blocks)


@pytest.mark.parametrize("sizes", [(3, 9, 1), (9, 3, 9), (4, 0, 4)])
def test_batches_of_changing_size_leave_nothing_behind(sizes):
    net, blocks = made()
    parallel = LayerParallel(net, 2, 4, control=FixedCycles(1, tolerance=9.0))
    for size in sizes:
        alone = copy.deepcopy(parallel)(batch(size))
        assert torch.equal(parallel(batch(size)), alone)
    parallel(batch(sizes[-1])).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-13), (torch.bfloat16, 5e-2)]
)
def test_precisions(dtype, tolerance):
    net, blocks = made(dtype=dtype)
    out, reference = exact(net)(batch(dtype=dtype)), looped(blocks, batch(dtype=dtype))
    assert out.dtype == dtype
    assert (out - reference).norm() <= tolerance * reference.norm()
    out.square().sum().backward()
    reference.square().sum().backward()
    same(net, blocks, 4 * tolerance)


def test_double_copies_and_pickles():
    net, blocks = made(dtype=torch.float32)
    parallel = exact(net)
    parallel(batch(dtype=torch.float32)).sum().backward()
    for copied in (copy.deepcopy(parallel), pickle.loads(pickle.dumps(parallel))):
        assert torch.equal(copied(batch(dtype=torch.float32)), parallel(batch(dtype=torch.float32)))
    out = parallel.double()(batch())
    reference = looped([block.double() for block in blocks], batch())
    assert (out - reference).norm() <= 1e-12 * reference.norm()


def test_parameters_edited_before_backward_are_an_error():
    net, _ = made()
    loss = exact(net)(batch()).sum()
    with torch.no_grad():
        next(net.parameters()).add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_frozen_parameters_and_inputs():
    net, blocks = made()
    frozen = next(net.parameters()).requires_grad_(False)
    exact(net)(batch()).sum().backward()
    assert frozen.grad is None
    assert all(p.grad is not None for p in net.parameters() if p is not frozen)
    with torch.no_grad():
        assert not exact(net)(batch()).requires_grad


@pytest.mark.parametrize("kind", [nn.Dropout, nn.Dropout1d])
def test_dropout_has_one_mask_per_layer_and_call(kind):
    def make():
        return nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh(), kind(0.4))

    net, _ = made(11, make=make)
    parallel, x = exact(net, 3, 3).train(), batch()
    expected = []
    for _ in range(2):
        out = net(x)
        expected.append((out, torch.autograd.grad(out.square().sum(), list(net.parameters()))))
    net.calls = 0
    for out, gradients in expected:
        ours = parallel(x)
        assert (ours - out).norm() <= 1e-13 * out.norm()
        found = torch.autograd.grad(ours.square().sum(), list(net.parameters()))
        torch.testing.assert_close(found, gradients, rtol=1e-11, atol=1e-13)
    assert not torch.allclose(expected[0][0], expected[1][0])
    assert torch.equal(parallel.eval()(x), parallel(x))


def test_batch_norm_is_updated_once_by_the_closing_sweep():
    def make():
        return nn.Sequential(nn.Linear(WIDTH, WIDTH, bias=False), nn.BatchNorm1d(WIDTH), nn.Tanh())

    net, blocks = made(11, make=make)
    parallel = exact(net, 2, 4).train()
    for seed in range(3):
        parallel(batch(seed=seed)).square().sum().backward()
        looped([block.train() for block in blocks], batch(seed=seed)).square().sum().backward()
    same(net, blocks, 1e-11)
    ours = {name.rsplit(".", 1)[-1]: value for name, value in net.named_buffers()}
    for name, value in ours.items():
        theirs = torch.stack([dict(block.named_buffers())["1." + name] for block in blocks])
        torch.testing.assert_close(value, theirs, rtol=1e-12, atol=1e-13)
    out = parallel.eval()(batch())
    torch.testing.assert_close(out, looped([block.eval() for block in blocks], batch()))


def test_trials_of_auto_leave_the_statistics_alone():
    net, _ = made(8, make=lambda: nn.Sequential(nn.BatchNorm1d(WIDTH), nn.Tanh()))
    LayerParallel(net, 2, 4, mode="auto").train()(batch())
    (tracked,) = [b for name, b in net.named_buffers() if name.endswith("num_batches_tracked")]
    assert tracked.tolist() == [1] * 8


def test_trials_of_auto_leave_graphs_alone_that_are_still_to_be_differentiated():
    class Fixed(Block):
        def __init__(self):
            super().__init__()
            self.register_buffer("gain", torch.full((WIDTH,), 0.5))

        def forward(self, u):
            return self.gain * super().forward(u)

    parallel = LayerParallel(made(8, make=Fixed)[0], 2, 4, mode="auto")
    first, second = parallel(batch(2)), parallel(batch(3))  # a new shape is measured
    (first.sum() + second.sum()).backward()


def test_auto_goes_layer_by_layer_where_cycles_end_in_infinite_states():
    class Cubic(Block):  # steps of 1/8 are stable, those of coarse layers are not
        def forward(self, u):
            return -(u**3) + 0.0 * super().forward(u)

    net, _ = made(64, make=Cubic, time=8.0)
    u = 2.0 + batch().square().clamp(max=1.0)
    with pytest.raises(FloatingPointError):
        LayerParallel(net, 2, 16)(u)
    torch.testing.assert_close(LayerParallel(net, 2, 16, mode="auto")(u), net(u))


class DrawsByItself(Block):
    def forward(self, u):
        return super().forward(u) + torch.randn_like(u)


def test_random_numbers_without_a_key_are_refused():
    net, _ = made(make=DrawsByItself)
    with pytest.raises(ValueError, match="random"):
        LayerParallel(net, 2, 4).train()(batch())


class Fails(Block):
    broken = False

    def forward(self, u):
        if self.broken:
            raise ArithmeticError("this block is broken")
        return super().forward(u)


def test_an_exception_in_a_block_reaches_the_caller_and_nothing_stays():
    net, _ = made(make=Fails)
    parallel = LayerParallel(net, 2, 4)
    before = parallel(batch())
    for module in net.modules():
        if isinstance(module, Fails):
            module.broken = True
    with pytest.raises(ArithmeticError, match="this block is broken"):
        parallel(batch())
    for module in net.modules():
        if isinstance(module, Fails):
            module.broken = False
    assert torch.equal(parallel(batch()), before)


def test_no_call_depends_on_the_one_before_unless_asked():
    net, _ = made(64)
    cold, warm = LayerParallel(net, 2, 4), LayerParallel(net, 2, 4, warm_start=True)
    first = cold(batch())
    cold(batch(seed=3))
    assert torch.equal(cold(batch()), first)
    reference, errors = net(batch()).detach(), []
    for _ in range(3):
        errors.append(float((warm(batch()).detach() - reference).norm()))
    assert errors[2] < 0.1 * errors[1] < 0.01 * errors[0]
    warm(batch(3))  # another shape: a cold start


def test_training_above_the_tolerance_warns_once():
    net, _ = made(16, time=16.0)
    parallel = LayerParallel(net, 2, 4, control=FixedCycles(1))
    with pytest.warns(UserWarning, match=r"estimated relative error of .* above the tolerance 0.1"):
        parallel(batch())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parallel(batch()).sum().backward()


def test_a_tolerance_is_kept_or_said():
    net, blocks = made(64, time=2.0)
    parallel = LayerParallel(net, 2, 4, control=CyclesToTolerance(1e-6))
    out, reference = parallel(batch()), looped(blocks, batch())
    assert (out - reference).norm() <= 1e-5 * reference.norm()
    assert 1 < parallel.last_forward.cycles < 16
    out.square().sum().backward()
    reference.square().sum().backward()
    same(net, blocks, 1e-5)
    assert parallel.last_backward.estimate <= 1e-6


def test_adaptive_takes_more_cycles_or_goes_serial():
    net, _ = made(64, time=12.0)
    parallel = LayerParallel(net, 2, 8, control=AdaptiveCycles(every=2, max_cycles=6))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(8):
            parallel(batch()).sum().backward()
    grown = parallel.control
    assert grown is None or max(grown.forward, grown.backward) > 1
    parallel = LayerParallel(
        net, 2, 8, control=AdaptiveCycles(every=1, max_cycles=1, tolerance=1e-12)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parallel(batch()).sum().backward()
    assert parallel.control is None
    torch.testing.assert_close(parallel(batch()), net(batch()), rtol=1e-14, atol=1e-14)


def test_the_setting_is_saved_with_the_model():
    net, _ = made(32)
    control = CyclesToTolerance(1e-3)
    parallel = LayerParallel(net, 3, 2, "cascade + F", control=control, coarse="fused")
    other = LayerParallel(made(32)[0])
    other.load_state_dict(parallel.state_dict())
    assert other.settings == parallel.settings
    assert other.control == CyclesToTolerance(1e-3)
    assert torch.equal(other(batch()), parallel(batch()))
    assert other.settings["coarse"] == "fused"


def test_evaluate_reports_both_propagations():
    net, blocks = made(16, time=4.0)
    parallel = LayerParallel(net, 2, 4, control=FixedCycles(0)).train()
    data = [(batch(3), batch(3, seed=1)), (batch(5, seed=2), batch(5, seed=3))]
    found = parallel.evaluate(nn.functional.mse_loss, data)
    x, y = (torch.cat(parts) for parts in zip(*data, strict=True))
    serial = float(nn.functional.mse_loss(looped(blocks, x, 4.0), y))
    own = float(nn.functional.mse_loss(parallel(x), y))
    assert found == pytest.approx({"serial": serial, "mgrit": own}, rel=1e-12)
    assert abs(serial - own) > 1e-6
    assert parallel.training
    assert list(parallel.evaluate(nn.functional.mse_loss, data, "serial")) == ["serial"]
    with pytest.raises(ValueError, match="use 'serial' or 'mgrit'"):
        parallel.evaluate(nn.functional.mse_loss, data, "fast")


def test_evaluate_leaves_every_mode_as_it_was():
    parallel = LayerParallel(made(8)[0]).train()
    parallel.net.block.eval()  # a part that is frozen
    modes = [part.training for part in parallel.modules()]
    data = [(batch(3), batch(3))]
    parallel.evaluate(nn.functional.mse_loss, data)
    assert [part.training for part in parallel.modules()] == modes
    with pytest.raises(ZeroDivisionError):
        parallel.evaluate(lambda output, target: 1 / 0, data)
    assert [part.training for part in parallel.modules()] == modes


def test_auto_keeps_one_of_the_two():
    net, _ = made(32)
    parallel = LayerParallel(net, 2, 4, mode="auto")
    ways = [LayerParallel(net, 2, 4, mode=mode)(batch()) for mode in ("mgrit", "serial")]
    assert any(torch.equal(parallel(batch()), way) for way in ways)
    assert parallel.calls == 1 or parallel.last_forward.cycles == 0


@pytest.mark.parametrize("faster", ["mgrit", "serial"])
def test_auto_measures_once_for_each_shape_and_number_of_threads(faster, monkeypatch):
    asked = []

    def measured(runs, *given):
        asked.append(sorted(runs))
        return {name: 1.0 + (name != faster) for name in runs}

    monkeypatch.setattr(layer_parallel, "least_seconds", measured)
    parallel, threads = LayerParallel(made(32)[0], 2, 4, mode="auto"), torch.get_num_threads()
    try:
        for count in (1, 2, 1):
            torch.set_num_threads(count)
            parallel(batch())
            assert parallel.last_forward.cycles == (faster == "mgrit")
    finally:
        torch.set_num_threads(threads)
    parallel(batch(3))
    assert asked == [["mgrit", "serial"]] * 3


def counted(net, levels, cycles, coarsening=4, coarse="mean"):
    """Layer evaluations of inference; evaluations and products of training; all per layer."""
    control = FixedCycles(cycles, tolerance=math.inf)
    parallel = LayerParallel(net, levels, coarsening, control=control, coarse=coarse)
    kernel, depth = net.kernel, net.depth
    before = kernel.evaluations
    with torch.no_grad():
        parallel(batch())
    inference, before = kernel.evaluations - before, (kernel.evaluations, kernel.vjps)
    parallel(batch()).sum().backward()
    training = kernel.evaluations - before[0], kernel.vjps - before[1]
    return inference / depth, training[0] / depth, training[1] / depth


def test_evaluations_of_a_cold_start_and_of_a_further_cycle():
    """The bounds of the issue: one V on two levels, factor 4."""
    net, _ = made(64)
    first, second = (counted(net, 2, cycles) for cycles in (1, 2))
    assert first[0] <= 2.5
    assert first[1] <= 3.0
    assert first[2] <= 2.5
    further = [b - a for a, b in zip(first, second, strict=True)]
    assert further[0] <= 1.5
    assert max(further) <= 2.0


@pytest.mark.parametrize(
    ("layers", "levels", "coarsening", "cycles"),
    [(64, 2, 4, 1), (33, 2, 4, 2), (64, 3, 4, 1), (26, 3, 3, 2), (33, 2, 8, 0)],
)
@pytest.mark.parametrize("coarse", COARSE)
def test_the_plan_counts_what_is_counted(layers, levels, coarsening, cycles, coarse):
    net, _ = made(layers)
    found = counted(net, levels, cycles, coarsening, coarse)
    given = {"levels": levels, "cycles": (cycles, cycles), "record": True, "coarse": coarse}
    planned = plan(layers, 1, coarsening, **given)
    assert planned.backward is not None
    assert found[1:] == (
        planned.forward.evaluations / layers,
        planned.backward.evaluations / layers,
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"levels": 4, "coarsening": 4}, "13 layers .* largest possible number of levels is 3"),
        ({"levels": 0}, "at least 1"),
        ({"coarsening": 1}, "at least 2"),
        ({"coarsening": (4, 4)}, "1 of them"),
        ({"mode": "fast"}, "use one of mgrit"),
        ({"coarse": "median"}, "coarse 'median'; it must be one of mean, first, fused, identity"),
        ({"forward": "cascade + Q"}, "Q"),
    ],
)
def test_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        LayerParallel(made()[0], **arguments)


def test_a_plain_network_is_refused_with_the_way_out():
    with pytest.raises(TypeError, match="from_sequential"):
        LayerParallel(nn.Sequential(nn.Linear(2, 2)))  # type: ignore[arg-type]
