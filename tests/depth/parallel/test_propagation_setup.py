"""Laws of what is kept between calls: it follows the weights, and holds nothing of a call."""

import copy
import gc
import pickle
import threading
import weakref

import pytest
import torch
from torch import nn

from mgnet.depth import CyclesToTolerance, FixedCycles, LayerParallel, ODENet
from mgnet.depth.batched.block import StackedBlock
from mgnet.depth.compiled.runs import LayerRuns
from mgnet.depth.mgrit.layer_equation import LayerEquation
from mgnet.depth.mgrit.marching import march_by_advance
from mgnet.depth.parallel import propagation
from mgnet.depth.parallel.adjoint import Adjoint
from mgnet.depth.parallel.method import MGRITMethod
from mgnet.depth.parallel.propagation import Propagation
from mgnet.depth.parallel.propagation_setup import PropagationSetup, detached
from mgnet.depth.parallel.turns import in_turn

WIDTH, LAYERS = 4, 13


def net_of(block=None, **options):
    torch.manual_seed(0)
    block = block or nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh())
    return ODENet(block, LAYERS, 2.0, **options).double()


def prepared_of(net, factors=(3, 2)):
    method = MGRITMethod.from_texts(factors, "cascade + V", "V", ("F", "FCF"))
    return PropagationSetup.of(net.kernel, detached(net.layers()), method)


def batch(size=5, seed=0, dtype=torch.float64):
    return torch.randn(size, WIDTH, generator=torch.Generator().manual_seed(seed)).to(dtype)


def both(parallel, x):
    """Output and gradients of a call."""
    out = parallel(x)
    return [out.detach(), *torch.autograd.grad(out.square().sum(), list(parallel.parameters()))]


def fresh(parallel, x):
    """The same of a module that never was called."""
    return both(copy.deepcopy(parallel), x)


def same(found, wanted):
    assert len(found) == len(wanted)
    for ours, theirs in zip(found, wanted, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("rows", [False, True])
def test_a_march_has_the_bits_and_counts_of_single_steps(reverse, rows):
    net = net_of()
    setup = prepared_of(net)
    propagator = setup
    if reverse:
        propagation = Propagation(setup)
        propagation.forward(batch(), FixedCycles(1).limit("forward"), None, record=True)
        propagator = Adjoint.of(propagation)
        propagator.record_coarse()
    layers, start, kernel = len(setup.levels[1]), batch(seed=1)[None], net.kernel
    added = [batch(seed=k) for k in range(layers)] if rows else None
    before = kernel.evaluations, kernel.vjps
    fast = propagator.march(1, layers, start, added, reverse)
    between = kernel.evaluations, kernel.vjps
    plain = march_by_advance(propagator, 1, layers, start, added, reverse)
    after = kernel.evaluations, kernel.vjps
    same(fast, plain)
    counts = [b - a for a, b in zip(before, between, strict=True)]
    assert counts == [b - a for a, b in zip(between, after, strict=True)]
    assert sum(counts) == layers


def test_nothing_is_added_to_states_that_are_given():
    one, scale = torch.ones(1, 2), torch.ones(1, 1)
    rows = [torch.full((2,), 3.0)] * 2
    points = in_turn([torch.neg] * 2, [scale] * 2, one, rows)
    assert [point.tolist() for point in points] == [[[1.0, 1.0]], [[3.0, 3.0]], [[3.0, 3.0]]]
    assert one.tolist() == [[1.0, 1.0]] and rows[0].tolist() == [3.0, 3.0]


def test_hierarchies_are_built_once_for_each_direction():
    setup = prepared_of(net_of())
    propagation = Propagation(setup)
    propagation.forward(batch(), FixedCycles(1).limit("forward"), None, record=True)
    hierarchies = []
    for propagator in (setup, Adjoint.of(propagation)) * 2:
        with setup.hierarchy(propagator, batch()) as hierarchy:
            hierarchies.append(hierarchy)
    assert hierarchies[:2] == hierarchies[2:]
    assert [h[0].operator.reverse for h in hierarchies[:2]] == [False, True]
    assert [level.operator.layers for level in hierarchies[0]] == [13, 5, 3]


def test_calls_use_what_is_kept(monkeypatch):
    made = []
    init = LayerEquation.__init__
    monkeypatch.setattr(
        LayerEquation, "__init__", lambda self, *told: (made.append(self), init(self, *told))[1]
    )
    parallel = LayerParallel(net_of(), 3, 2, control=FixedCycles(2, tolerance=9.0))
    both(parallel, batch())
    assert len(made) == 6  # three levels in two directions
    for seed in range(3):
        both(parallel, batch(seed=seed))
    assert len(made) == 6


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("levels", [2, 3])
@pytest.mark.parametrize("text", ["cascade + V", "W"])
def test_nothing_of_a_call_outlives_it(levels, text, compiled, monkeypatch):
    """States, tapes, residuals, right-hand sides and propagators: gone without a collector."""
    if not compiled:
        monkeypatch.setattr(propagation, "compiled_cycles", lambda *_: "not now")
    parallel = LayerParallel(net_of(), levels, 2, text, text, FixedCycles(2, tolerance=9.0))
    both(parallel, batch())
    seen = []

    def watched(kind, name):
        method = getattr(kind, name)

        def watching(self, *told, **named):
            found = method(self, *told, **named)
            several = found if isinstance(found, list | tuple) else [found]
            seen.extend(weakref.ref(x) for x in several if isinstance(x, torch.Tensor))
            if isinstance(self, Propagation | Adjoint | LayerRuns):
                seen.append(weakref.ref(self))
            return found

        monkeypatch.setattr(kind, name, watching)

    for name in ("march", "residual", "trajectory", "relax_c", "arrivals", "__call__"):
        watched(LayerEquation, name)
    for kind, name in ((Propagation, "forward"), (Propagation, "backward"), (Adjoint, "march")):
        watched(kind, name)
    for name in ("forward", "backward"):
        watched(LayerRuns, name)
    record = StackedBlock.record

    def recording(self, layers, states):
        tape = record(self, layers, states)
        seen.extend(map(weakref.ref, (tape, tape.value)))
        return tape

    monkeypatch.setattr(StackedBlock, "record", recording)
    gc.collect()
    gc.disable()
    try:
        out = parallel(batch(seed=1))
        alive = [ref() for ref in seen]
        assert any(x is not None for x in alive)  # a backward pass may follow
        del alive
        out.square().sum().backward()
        del out
        assert len(seen) > 30
        assert all(ref() is None for ref in seen)
    finally:
        gc.enable()


def test_a_hierarchy_forgets_also_where_a_run_fails():
    setup, seen = prepared_of(net_of()), []
    with pytest.raises(ArithmeticError), setup.hierarchy(setup, batch()) as hierarchy:
        seen.append(weakref.ref(hierarchy[2].operator.march(None)))
        assert seen[0]() is not None
        raise ArithmeticError
    assert seen[0]() is None
    assert all(level.operator.propagator is None for level in hierarchy)
    assert all(level.operator.initial is None for level in hierarchy)


@pytest.mark.parametrize("order", ["first first", "last first"])
@pytest.mark.parametrize("sizes", [(5, 5), (5, 3)])
def test_two_calls_in_flight(order, sizes):
    """Forward, forward, backward, backward: each has its own states and tapes."""
    parallel = LayerParallel(net_of(), 3, 2, control=FixedCycles(1, tolerance=9.0))
    x, y = (batch(size, seed) for seed, size in enumerate(sizes))
    wanted = [fresh(parallel, x), fresh(parallel, y)]
    calls = [(k, parallel(z)) for k, z in enumerate((x, y))]
    for k, out in calls if order == "first first" else calls[::-1]:
        gradients = torch.autograd.grad(out.square().sum(), list(parallel.parameters()))
        same([out.detach(), *gradients], wanted[k])


def test_gradients_accumulate_over_calls_in_flight():
    parallel = LayerParallel(net_of(), 2, 4, control=FixedCycles(1, tolerance=9.0))
    wanted = [fresh(parallel, batch(seed=seed))[1:] for seed in range(3)]
    sum(parallel(batch(seed=seed)).square().sum() for seed in range(3)).backward()
    for parameter, *parts in zip(parallel.parameters(), *wanted, strict=True):
        torch.testing.assert_close(parameter.grad, sum(parts), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("backward", [False, True])
def test_a_call_in_another_thread_amid_a_pass(monkeypatch, backward):
    parallel = LayerParallel(net_of(), 3, 2, control=FixedCycles(1, tolerance=9.0))
    x, y = batch(seed=0), batch(seed=1)
    wanted, found, march = [fresh(parallel, x), fresh(parallel, y)], [], LayerEquation.march

    def interrupted(self, f):
        if not found and self.reverse == backward:
            found.append([])
            other = threading.Thread(target=lambda: found[0].extend(both(parallel, y)))
            other.start()
            other.join()
        return march(self, f)

    both(parallel, x)  # now a hierarchy is kept
    monkeypatch.setattr(LayerEquation, "march", interrupted)
    same(both(parallel, x), wanted[0])
    same(found[0], wanted[1])
    same(both(parallel, x), wanted[0])


@pytest.mark.parametrize("options", [{}, {"mode": "serial"}, {"warm_start": True}])
@pytest.mark.parametrize("training", [True, False])
def test_a_call_after_one_in_inference_mode(options, training):
    """Tensors made there can be neither edited nor saved for a backward pass."""
    parallel = LayerParallel(net_of(), 3, 2, **options, control=FixedCycles(20)).train(training)
    wanted = fresh(parallel, batch())
    with torch.inference_mode():
        inside = parallel(batch()).clone()
    for _ in range(2):
        found = both(parallel, batch())
        for ours, theirs in zip(found, wanted, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(inside, wanted[0], rtol=1e-9, atol=1e-11)


def stepped(parallel):
    optimizer = torch.optim.SGD(parallel.parameters(), 0.1)
    parallel(batch()).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()


def loaded(parallel):
    other = copy.deepcopy(parallel)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.5)
    parallel.load_state_dict(other.state_dict())


def assigned(parallel):
    state = {k: v * 0.5 if v.is_floating_point() else v for k, v in parallel.state_dict().items()}
    parallel.load_state_dict(state, assign=True)


def through_data(parallel):
    for parameter in parallel.parameters():
        parameter.data.mul_(1.5)


def longer(parallel):
    parallel.net.final_time = 3.0


CHANGES = [stepped, loaded, assigned, through_data, longer]


@pytest.mark.parametrize("learnable_steps", [False, True])
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_changed_weights_are_followed(change, learnable_steps):
    parallel = LayerParallel(
        net_of(learnable_steps=learnable_steps), 3, 2, control=FixedCycles(1, tolerance=9.0)
    )
    parallel.net.kernel.traced = not learnable_steps  # to see both; making traces takes seconds
    before = both(parallel, batch())
    change(parallel)
    found = both(parallel, batch())
    same(found, fresh(parallel, batch()))
    if not (learnable_steps and change is longer):  # the learnable_steps are steps of their own
        assert not torch.equal(found[0], before[0])


def test_another_precision_after_calls():
    parallel = LayerParallel(net_of().float(), 3, 2, control=FixedCycles(1, tolerance=9.0))
    both(parallel, batch(dtype=torch.float32))
    parallel.to(torch.float64)
    found = both(parallel, batch())
    assert found[0].dtype == torch.float64
    same(found, fresh(parallel, batch()))


def test_sizes_of_batches_alternate():
    parallel = LayerParallel(net_of(), 3, 2, control=FixedCycles(1, tolerance=9.0))
    for size in (5, 3, 5, 1, 3):
        same(both(parallel, batch(size)), fresh(parallel, batch(size)))


def normed():
    return nn.Sequential(nn.Linear(WIDTH, WIDTH, bias=False), nn.BatchNorm1d(WIDTH), nn.Tanh())


def test_running_statistics_reach_the_coarse_layers():
    parallel = LayerParallel(net_of(normed()), 2, 4, control=FixedCycles(1, tolerance=9.0))
    for seed in range(3):
        both(parallel.train(), batch(seed=seed))
        found = both(parallel.eval(), batch())
        same(found, fresh(parallel, batch()))


def test_a_switch_of_the_mode_is_seen():
    block = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Dropout(0.5), nn.Tanh())
    parallel = LayerParallel(net_of(block), 2, 4, control=FixedCycles(20, tolerance=9.0))
    for _ in range(2):
        calls = parallel.net.calls
        trained = parallel.train()(batch())
        parallel.net.calls = calls
        torch.testing.assert_close(trained, parallel.net(batch()), rtol=1e-12, atol=1e-13)
        still = parallel.eval()(batch())
        torch.testing.assert_close(still, parallel.net(batch()), rtol=1e-12, atol=1e-13)
        assert not torch.allclose(still, trained)


@pytest.mark.parametrize("mode", ["mgrit", "auto", "serial"])
@pytest.mark.parametrize("called", [False, True])
def test_autocast_is_that_of_the_forward_pass(mode, called):
    """Also after calls without it; the gradients are those of the serial network."""
    net = net_of().float()
    control = FixedCycles(LAYERS, tolerance=9.0)
    parallel = LayerParallel(net, 2, 4, control=control, mode=mode)
    x = batch(dtype=torch.float32)
    few = LayerParallel(net, 2, 4, control=FixedCycles(1, tolerance=9.0))
    untouched = copy.deepcopy(few)
    plain = [both(each, x)[0] for each in (parallel, few)] if called else None

    def cast(module):
        with torch.autocast("cpu", torch.bfloat16):
            out = module(x)
        gradients = torch.autograd.grad(out.float().square().sum(), list(module.parameters()))
        return [out.detach(), *gradients]

    same(cast(few), cast(copy.deepcopy(untouched)))
    same(both(few, x), both(untouched, x))
    for ours, theirs in zip(cast(parallel), cast(net), strict=True):
        assert ours.dtype == theirs.dtype
        assert (ours - theirs).norm() <= 1e-2 * theirs.norm()
    if plain is not None:
        assert not torch.equal(cast(parallel)[0], plain[0])


def test_copies_and_pickles_after_calls():
    parallel = LayerParallel(net_of(), 3, 2, control=FixedCycles(1, tolerance=9.0), warm_start=True)
    cold = both(parallel, batch())
    both(parallel, batch())
    for copied in (copy.deepcopy(parallel), pickle.loads(pickle.dumps(parallel))):
        same(both(copied, batch()), cold)
        assert list(copied.state_dict()) == list(parallel.state_dict())
    assert not any("prepared" in name or "starts" in name for name in parallel.state_dict())


def test_a_warm_start_goes_on_from_the_last_states_of_each_direction():
    parallel = LayerParallel(net_of(), 2, 4, control=CyclesToTolerance(1e-12), warm_start=True)
    both(parallel, batch())
    cold = parallel.last_forward.cycles, parallel.last_backward.cycles
    both(parallel, batch())
    assert parallel.last_forward.cycles < cold[0]
    assert parallel.last_backward.cycles < cold[1]


def test_trials_of_auto_leave_what_is_kept_as_it_was():
    parallel = LayerParallel(net_of(), 2, 4, control=FixedCycles(1, tolerance=9.0), warm_start=True)
    both(parallel, batch())
    kept, calls, last = dict(parallel._starts.kept), parallel.calls, parallel.last_forward
    parallel.settings["mode"] = "auto"
    assert parallel._mode(batch(seed=1), {}) in ("mgrit", "serial")
    assert parallel._starts.kept == kept and set(kept) == {"forward", "backward"}
    assert (parallel.calls, parallel.last_forward) == (calls, last)


def test_one_setup_serves_states_of_all_shapes():
    torch.manual_seed(0)
    net = ODENet(torch.nn.Linear(2, 2), 8)
    parallel = LayerParallel(net, levels=2, coarsening=4, control=FixedCycles(3))
    for size in range(2, 8):
        u = torch.randn(size, 2)
        torch.testing.assert_close(parallel(u), net(u), rtol=1e-5, atol=1e-6)
    ((_, setup),) = parallel._setups.values()
    kept = setup
    parallel(torch.randn(3, 2))
    ((_, setup),) = parallel._setups.values()
    assert setup is kept and len(setup._idle) == 6
