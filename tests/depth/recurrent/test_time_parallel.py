"""Law: in parallel over time a recurrent network gives what PyTorch's own modules give."""

import copy
import pickle
import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence
from torch.utils._pytree import tree_leaves

from mgnet.depth import (
    AdaptiveCycles,
    CyclesToTolerance,
    FixedCycles,
    ImplicitGRUCell,
    TimeParallel,
)

TIGHT = CyclesToTolerance(1e-12, max_cycles=60)
KINDS = {"GRU": (nn.GRU, nn.GRUCell), "LSTM": (nn.LSTM, nn.LSTMCell)}


def tensors(values):
    """All of a result that has numbers, packed or not."""
    output, state = values
    data = output.data if isinstance(output, PackedSequence) else output
    return [data, *tree_leaves(state)]


def states(kind, *shape, generator):
    made = [
        torch.randn(shape, dtype=torch.float64, generator=generator).requires_grad_()
        for _ in range(1 + (kind == "LSTM"))
    ]
    return tuple(made) if len(made) > 1 else made[0]


def assert_alike(one, other, wanted, tolerance=1e-8):
    """Outputs and all gradients of two results."""
    a, b = tensors(one), tensors(other)
    assert [x.shape for x in a] == [x.shape for x in b]
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x, y, rtol=tolerance, atol=tolerance)
    weights = [torch.cos(torch.arange(x.numel(), dtype=x.dtype)).view(x.shape) for x in a]
    gradients = [
        torch.autograd.grad(
            sum((x * w).sum() for x, w in zip(xs, weights, strict=True)), wanted, retain_graph=True
        )
        for xs in (a, b)
    ]
    for x, y in zip(*gradients, strict=True):
        torch.testing.assert_close(x, y, rtol=tolerance, atol=tolerance * float(x.abs().max()))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(6))
def test_cells_as_modules_of_pytorch(kind, seed):
    generator = torch.Generator().manual_seed(seed)

    def draw(*among):
        return among[int(torch.randint(len(among), (), generator=generator))]

    steps, width, features = draw(1, 2, 7, 61, 250, 1000), draw(1, 2, 5, 17), draw(1, 3)
    module = KINDS[kind][0](features, width, bias=draw(True, False)).double()
    cell = KINDS[kind][1](features, width, bias=module.bias).double()
    cell.load_state_dict({k.removesuffix("_l0"): v for k, v in module.state_dict().items()})
    for parameter in module.parameters():  # the same tensors for both
        parameter.requires_grad_()
    x = torch.randn(steps, 3, features, dtype=torch.float64, generator=generator).requires_grad_()
    start = states(kind, 1, 3, width, generator=generator)
    levels = draw(2, 3)
    parallel = TimeParallel(cell, levels, draw(None, 4, 8), draw("F", "FCF"), TIGHT)
    for a, b in zip(module.parameters(), [*cell.parameters()], strict=True):
        b.data = a.data
    wanted = [x, *tree_leaves(start)]
    assert_alike(module(x, start), parallel(x, start), wanted)
    own = TimeParallel(module, levels, control=TIGHT)
    assert_alike(module(x, start), own(x, start), [*wanted, *module.parameters()])
    one, other = module(x, start)[0].square().sum(), parallel(x, start)[0].square().sum()
    of_cell = torch.autograd.grad(other, [*cell.parameters()])
    of_module = torch.autograd.grad(one, [*module.parameters()])
    for a, b in zip(of_module, of_cell, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8 * float(a.abs().max()))
    if steps > 100:
        assert 0 < parallel.last_forward.cycles < 60 and parallel.last_backward.cycles > 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_layers_directions_and_shapes(kind, bidirectional, batch_first):
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    module = KINDS[kind][0](
        3, 5, 2, bidirectional=bidirectional, batch_first=batch_first, dtype=torch.float64
    )
    parallel = TimeParallel.from_module(module, control=TIGHT)
    layers = 2 * (1 + bidirectional)
    x = torch.randn(4, 61, 3, dtype=torch.float64).requires_grad_()
    start = states(kind, layers, 4 if batch_first else 61, 5, generator=generator)
    wanted = [x, *tree_leaves(start), *module.parameters()]
    assert_alike(module(x, start), parallel(x, start), wanted)
    assert_alike(module(x), parallel(x), [x, *module.parameters()])
    one = x[:, 0].detach().requires_grad_()
    start = states(kind, layers, 5, generator=generator)
    wanted = [one, *tree_leaves(start), *module.parameters()]
    assert_alike(module(one, start), parallel(one, start), wanted)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("is_sorted", [False, True])
def test_packed_sequences(kind, bidirectional, is_sorted):
    generator = torch.Generator().manual_seed(1)
    torch.manual_seed(1)
    lengths = (90, 33, 7, 1) if is_sorted else (7, 90, 1, 33)
    rows = [torch.randn(n, 3, dtype=torch.float64).requires_grad_() for n in lengths]
    packed = pack_sequence(rows, enforce_sorted=is_sorted)
    module = KINDS[kind][0](3, 5, 2, bidirectional=bidirectional, dtype=torch.float64)
    parallel = TimeParallel(module, control=TIGHT)
    start = states(kind, 2 * (1 + bidirectional), 4, 5, generator=generator)
    wanted = [*rows, *tree_leaves(start), *module.parameters()]
    assert_alike(module(packed, start), parallel(packed, start), wanted)
    ours, theirs = parallel(packed)[0], module(packed)[0]
    for name in ("batch_sizes", "sorted_indices", "unsorted_indices"):
        one, other = getattr(ours, name), getattr(theirs, name)
        assert one is other or torch.equal(one, other)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("packed", [False, True])
def test_serial_mode_of_cells(kind, packed):
    torch.manual_seed(2)
    rows = [torch.randn(n, 3).requires_grad_() for n in (5, 9, 2)]
    x = pack_sequence(rows, enforce_sorted=False) if packed else torch.stack([rows[0][:2]] * 3, 1)
    module = KINDS[kind][0](3, 4)
    cell = KINDS[kind][1](3, 4)
    cell.load_state_dict({k.removesuffix("_l0"): v for k, v in module.state_dict().items()})
    serial = TimeParallel(cell, mode="serial")
    assert_alike(module(x), serial(x), rows[:1], 1e-6)
    derived = type("Derived", (KINDS[kind][1],), {})(3, 4)
    derived.load_state_dict(cell.state_dict())
    assert_alike(module(x), TimeParallel(derived, mode="serial")(x), rows[:1], 1e-6)
    assert serial.last_forward.cycles == 0


def test_dropout_between_layers_is_that_of_pytorch():
    torch.manual_seed(3)
    module = nn.GRU(3, 4, 3, dropout=0.5, dtype=torch.float64)
    parallel = TimeParallel(module, control=TIGHT)
    x = torch.randn(50, 2, 3, dtype=torch.float64)
    torch.manual_seed(4)
    theirs = module(x)
    torch.manual_seed(4)
    assert_alike(theirs, parallel(x), [*module.parameters()])
    assert not torch.allclose(parallel(x)[0], theirs[0])  # another draw
    assert_alike(module.eval()(x), parallel.eval()(x), [*module.parameters()])


@pytest.mark.parametrize("mode", ["mgrit", "serial", "auto"])
@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM])
def test_dropout_of_packed_sequences_is_that_of_pytorch(kind, mode):
    torch.manual_seed(3)
    module = kind(3, 4, 3, dropout=0.5, bidirectional=True, dtype=torch.float64)
    rows = [torch.randn(n, 3, dtype=torch.float64).requires_grad_() for n in (9, 40, 23, 40)]
    packed = pack_sequence(rows, enforce_sorted=False)
    parallel = TimeParallel(module, control=TIGHT, mode=mode)
    torch.manual_seed(4)
    theirs = module(packed)
    following = torch.rand(1)
    torch.manual_seed(4)
    assert_alike(theirs, parallel(packed), [*rows, *module.parameters()])
    assert torch.equal(torch.rand(1), following)  # as many numbers were drawn
    assert mode != "mgrit" or parallel.last_forward.cycles


class Pair(nn.Module):
    """A cell whose state is two tensors of different widths."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Linear(3 + 4 + 2, 6)

    def forward(self, x, state):
        new = self.mix(torch.cat([x, *state], -1)).tanh()
        return 0.5 * (state[0] + new[:, :4]), 0.9 * state[1] + 0.1 * new[:, 4:]


def looped(cell, x, state):
    outputs = []
    for row in x:
        state = cell(row, state)
        outputs.append(state[0] if isinstance(state, tuple) else state)
    last = tuple(s[None] for s in state) if isinstance(state, tuple) else state[None]
    return torch.stack(outputs), last


@pytest.mark.parametrize(
    "cell",
    [nn.RNNCell(3, 4), ImplicitGRUCell(3, 4), Pair(), type("Own", (nn.LSTMCell,), {})(3, 4)],
    ids=lambda cell: type(cell).__name__,
)
@pytest.mark.parametrize("steps", [1, 7, 300])
def test_any_cell_as_its_loop(cell, steps):
    torch.manual_seed(5)
    cell = copy.deepcopy(cell).double()
    widths = {Pair: (4, 2)}.get(type(cell), (4, 4) if isinstance(cell, nn.LSTMCell) else (4,))
    parts = [torch.randn(2, w, dtype=torch.float64).requires_grad_() for w in widths]
    x = torch.randn(steps, 2, 3, dtype=torch.float64).requires_grad_()
    state = tuple(parts) if len(parts) > 1 else parts[0]
    h0 = tuple(p[None] for p in parts) if len(parts) > 1 else parts[0][None]
    parallel = TimeParallel(cell, control=TIGHT)
    wanted = [x, *parts, *cell.parameters()]
    assert_alike(looped(cell, x, state), parallel(x, h0), wanted)


def test_a_function_as_a_cell():
    x = torch.randn(40, 2, 3, dtype=torch.float64).requires_grad_()
    h0 = torch.zeros(1, 2, 3, dtype=torch.float64)

    def decay(x, h):
        return 0.9 * h + 0.1 * x.sin()

    assert_alike(looped(decay, x, h0[0]), TimeParallel(decay, control=TIGHT)(x, h0), [x])


def test_coarse_steps_of_the_user_are_taken():
    seen = []

    class Own(nn.RNNCell):
        def coarse(self, x, h, k):
            seen.append(k.unique().tolist())
            return self(x, h)

    x = torch.randn(21, 2, 3, dtype=torch.float64)
    own = Own(3, 4, dtype=torch.float64)
    y, _ = TimeParallel(own, coarsening=4, control=TIGHT)(x)
    assert set(map(tuple, seen)) <= {(2.0,), (4.0,), (1.0,), (1.0, 4.0)} and seen
    torch.testing.assert_close(y, looped(own, x, x.new_zeros(2, 4))[0])
    count = len(seen)
    gru = nn.GRUCell(3, 4, dtype=torch.float64)
    parallel = TimeParallel(
        gru, coarsening=4, control=TIGHT, coarse=lambda x, h, k: own.coarse(x, h, k)
    )
    torch.testing.assert_close(parallel(x)[0], looped(gru, x, x.new_zeros(2, 4))[0])
    assert len(seen) > count


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_default_tolerance_is_met(dtype):
    torch.manual_seed(6)
    for seed in range(5):
        torch.manual_seed(seed)
        module = nn.GRU(2, 4, dtype=dtype)
        with torch.no_grad():
            module.weight_hh_l0 *= 1.5
        x = torch.randn(400, 3, 2, dtype=dtype)
        theirs, ours = module(x)[0], TimeParallel(module)(x)[0]
        assert ours.dtype == dtype
        assert (theirs - ours).norm() < 1e-5 * theirs.norm()


def test_what_cycles_do_not_solve_is_solved_step_by_step():
    torch.manual_seed(7)
    module = nn.GRU(2, 3, dtype=torch.float64)
    x = torch.randn(300, 2, 2, dtype=torch.float64).requires_grad_()
    parallel = TimeParallel(module, control=CyclesToTolerance(1e-12, max_cycles=1))
    with pytest.warns(UserWarning, match="was then solved step by step"):
        result = parallel(x)
    assert_alike(module(x), result, [x, *module.parameters()])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parallel(x)  # told once

    def grows(x, h, k):
        return 100.0 * k * h

    wild = TimeParallel(nn.RNNCell(2, 3).double(), coarse=grows)
    with pytest.warns(UserWarning):
        found = wild(x)[0]
    torch.testing.assert_close(found, looped(wild.cell, x, x.new_zeros(2, 3))[0])


def test_corrections_below_rounding_do_not_stall_the_cycles():
    """The sums of coarse steps are much larger than states: their rounding errors are, too."""
    torch.manual_seed(0)
    module = nn.LSTM(2, 2)
    with torch.no_grad():
        module.get_parameter("bias_hh_l0")[2:4] += 3.0
    x = torch.randn(10_000, 16, 2)
    parallel = TimeParallel(module)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        y, _ = parallel(x)
        y.square().mean().backward()
    assert (y - module(x)[0]).norm() < 1e-5 * y.norm()
    assert max(parallel.last_forward.cycles, parallel.last_backward.cycles) < 10


def test_fixed_cycles_are_taken_and_watched():
    torch.manual_seed(8)
    module = nn.GRU(2, 3)
    with torch.no_grad():
        module.get_parameter("bias_hh_l0")[3:6] += 3.0  # a long memory
    x = torch.randn(300, 2, 2)
    parallel = TimeParallel(module, coarsening=4, control=FixedCycles(2, 3, tolerance=1e-7))
    with pytest.warns(UserWarning, match="estimated relative error"):
        parallel(x)[0].sum().backward()
    assert (parallel.last_forward.cycles, parallel.last_backward.cycles) == (2, 3)


@pytest.mark.parametrize("cycle", ["V", "newton(diagonal)"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_warm_starts_need_fewer_cycles_for_the_same_numbers(cycle, bidirectional):
    torch.manual_seed(0)
    module = nn.GRU(3, 4, 2, bidirectional=bidirectional, dtype=torch.float64)
    control = CyclesToTolerance(1e-10, max_cycles=60)
    parallel = TimeParallel(module, coarsening=4, control=control, cycle=cycle, warm_start=True)
    x = torch.randn(150, 2, 3, dtype=torch.float64).requires_grad_()
    wanted = [x, *module.parameters()]
    reports = []
    for rows in (x, x + 1e-7):
        assert_alike(module(rows), parallel(rows), wanted)
        reports.append((parallel.last_forward.cycles, parallel.last_backward.cycles))
    assert reports[1][0] < reports[0][0] and reports[1][1] < reports[0][1]
    start = torch.randn(2 * (1 + bidirectional), 2, 4, dtype=torch.float64)
    assert_alike(module(-x, start), parallel(-x, start), wanted)  # begins elsewhere


def test_warm_starts_begin_cold_for_another_length_batch_or_precision():
    torch.manual_seed(0)
    module = nn.GRU(3, 4)
    x = torch.randn(90, 2, 3)
    warm = TimeParallel(module, warm_start=True, control=FixedCycles(1, tolerance=9.0))
    cold = TimeParallel(module, control=FixedCycles(1, tolerance=9.0))
    for other in (x[:89], x[:, :1], torch.cat([x, x], 1)):
        warm(x)
        assert torch.equal(warm(other)[0], cold(other)[0])
    warm(x)
    for module in (warm, cold):
        module.double()
    assert torch.equal(warm(x.double())[0], cold(x.double())[0])
    assert not torch.equal(warm(x.double())[0], cold(x.double())[0])
    again = pickle.loads(pickle.dumps(copy.deepcopy(warm)))
    assert torch.equal(again(x.double())[0], cold(x.double())[0])  # states are not carried along


def test_trials_of_auto_leave_no_warm_starts(monkeypatch):
    from mgnet.depth.recurrent import measured

    def seconds(run, *given, fastest=measured.fastest):
        fastest(run, *given, 1)
        return 1.0 if run.keywords["mode"] == "mgrit" else 2.0

    monkeypatch.setattr(measured, "fastest", seconds)
    module, x = nn.GRU(3, 4), torch.randn(90, 2, 3)
    control = FixedCycles(1, tolerance=9.0)
    auto = TimeParallel(module, mode="auto", warm_start=True, control=control)
    cold = TimeParallel(module, control=control)
    assert torch.equal(auto(x)[0], cold(x)[0])
    assert not torch.equal(auto(x)[0], cold(x)[0])


def test_auto_keeps_what_is_faster(monkeypatch):
    from mgnet.depth.recurrent import measured

    module, x = nn.GRU(2, 3), torch.randn(50, 2, 2).requires_grad_()
    for faster in ("mgrit", "serial"):
        taken = []

        def seconds(run, *given, faster=faster, taken=taken):
            run(*given[:1], side=given[1])
            taken.append(run.keywords["mode"])
            return 1.0 if run.keywords["mode"] == faster else 2.0

        monkeypatch.setattr(measured, "fastest", seconds)
        parallel = TimeParallel(module, mode="auto", control=CyclesToTolerance(1e-6))
        for _ in range(2):
            assert_alike(module(x), parallel(x), [x, *module.parameters()], 1e-4)
        assert taken == ["serial", "mgrit"]
        assert (parallel.last_forward.cycles > 0) is (faster == "mgrit")
        parallel(pack_sequence([x[:30, 0], x[:20, 1]]))
        assert len(taken) == 4
        for wrong, error in (([1.0], TypeError), (x[:0], RuntimeError), (x[0, 0], ValueError)):
            with pytest.raises(error):
                parallel(wrong)


def test_auto_measures_again_when_cycles_have_grown(monkeypatch):
    from mgnet.depth.recurrent import measured

    taken, fastest = [], measured.fastest

    def seconds(run, *given):
        fastest(run, *given, 1)
        taken.append(run.keywords["mode"])
        return 1.0 if run.keywords["mode"] == "mgrit" else 2.0

    monkeypatch.setattr(measured, "fastest", seconds)
    torch.manual_seed(0)
    module, x = nn.GRU(2, 3), torch.randn(300, 2, 2)
    parallel = TimeParallel(module, coarsening=16, mode="auto")
    for _ in range(3):
        parallel(x)
    assert len(taken) == 2
    with torch.no_grad():
        module.get_parameter("bias_hh_l0")[3:6] += 4.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            parallel(x)
    assert len(taken) == 4
    half = TimeParallel(nn.GRU(2, 3).bfloat16(), mode="auto")
    assert half(x.bfloat16())[0].dtype == torch.bfloat16


def test_weights_keep_their_names_there_and_back():
    for kind in KINDS:
        module, cell = (made(3, 4) for made in KINDS[kind])
        for given in (module, cell):
            names = {f"cell.{name}" for name in given.state_dict()}
            assert {*TimeParallel(given).state_dict()} == names | {"_extra_state"}
        back = TimeParallel.from_module(module).to_module()
        x = torch.randn(9, 2, 3)
        assert torch.equal(back(x)[0], module(x)[0])
        assert back is not module and [*back.state_dict()] == [*module.state_dict()]
        made = TimeParallel(cell, batch_first=True).to_module()
        assert made.batch_first and isinstance(made, KINDS[kind][0])
        ours = TimeParallel(cell, mode="serial")(x)[0]
        torch.testing.assert_close(made(x.transpose(0, 1))[0].transpose(0, 1), ours)
    parallel = TimeParallel(nn.GRUCell(3, 4))
    again = pickle.loads(pickle.dumps(copy.deepcopy(parallel)))
    assert torch.equal(again(x)[0], parallel(x)[0])
    assert "control=" in repr(parallel)


def test_second_derivatives_are_refused_and_serial_ones_are_there():
    x = torch.randn(30, 2, 3, dtype=torch.float64).requires_grad_()
    parallel = TimeParallel(nn.GRUCell(3, 4).double())
    (gradient,) = torch.autograd.grad(parallel(x)[0].square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="derivative of its gradient"):
        gradient.square().sum().backward()
    serial = TimeParallel(nn.GRUCell(3, 4).double(), mode="serial")
    (gradient,) = torch.autograd.grad(serial(x)[0].square().sum(), x, create_graph=True)
    gradient.square().sum().backward()
    assert x.grad.abs().max() > 0


def test_an_edited_weight_is_seen_before_backward():
    parallel = TimeParallel(nn.GRUCell(3, 4))
    y, _ = parallel(torch.randn(30, 2, 3))
    with torch.no_grad():
        parallel.cell.weight_hh += 1.0
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_transforms_get_the_steps_or_are_refused():
    cell, x = nn.RNNCell(3, 4).double(), torch.randn(5, 9, 2, 3, dtype=torch.float64)
    parallel = TimeParallel(cell)
    many = torch.func.vmap(lambda x: parallel(x)[0])(x)
    torch.testing.assert_close(many[3], looped(cell, x[3], x.new_zeros(2, 4))[0])
    with pytest.raises(RuntimeError, match="fixed number of cycles"):
        torch.func.vmap(lambda x: TimeParallel(cell, control=FixedCycles(2))(x)[0])(x)


def test_without_gradients_and_under_autocast():
    module, x = nn.GRU(3, 4), torch.randn(60, 2, 3)
    parallel = TimeParallel(module)
    with torch.no_grad():
        assert not parallel(x)[0].requires_grad
    with torch.inference_mode():
        torch.testing.assert_close(parallel(x)[0], module(x)[0], atol=1e-4, rtol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        y, _ = parallel(x)
    y.sum().backward()
    gradient = module.weight_hh_l0.grad.clone()
    y = parallel(x)[0]
    module.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        y.sum().backward()
        lower = parallel(x.bfloat16(), torch.zeros(1, 2, 4, dtype=torch.bfloat16))[0]
    torch.testing.assert_close(module.weight_hh_l0.grad, gradient)
    torch.testing.assert_close(lower, parallel(x.bfloat16().float())[0])
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, module(x)[0], atol=1e-4, rtol=1e-4)


class Noisy(nn.GRUCell):
    def forward(self, x, h):
        return super().forward(nn.functional.dropout(x, 0.5), h)


class Editing(nn.GRUCell):
    def forward(self, x, h):
        return h.mul_(0.5)


HIDDEN = torch.ones(4, requires_grad=True)
WRONG = [
    (lambda: TimeParallel(3), TypeError, "got a int; give a cell"),
    (lambda: TimeParallel(nn.RNN(3, 4)), TypeError, "got a RNN"),
    (lambda: TimeParallel(nn.LSTM(3, 4, proj_size=2)), ValueError, "proj_size = 2"),
    (lambda: TimeParallel(nn.GRU(3, 4), batch_first=True), ValueError, "a module has its own"),
    (lambda: TimeParallel(nn.GRU(3, 4), coarse=max), ValueError, "coarse for a whole module"),
    (lambda: TimeParallel(nn.GRUCell(3, 4), coarse=3), TypeError, "coarse of type int"),
    (lambda: TimeParallel(nn.GRUCell(3, 4), mode="fast"), ValueError, "mode 'fast'"),
    (lambda: TimeParallel(nn.GRUCell(3, 4), batch_first="no"), TypeError, "batch_first 'no'"),
    (lambda: TimeParallel(nn.GRUCell(3, 4), coarsening=4.0), ValueError, "coarsening 4.0"),
    (lambda: TimeParallel(nn.GRUCell(3, 4), levels=0), ValueError, "levels = 0"),
    (lambda: TimeParallel(nn.GRUCell(3, 4), coarsening=1), ValueError, "coarsening 1"),
    (lambda: TimeParallel(nn.GRUCell(3, 4), relaxation="FX"), ValueError, "'FX'"),
    (lambda: TimeParallel(nn.GRUCell(3, 4), cycle="X"), ValueError, "'X'"),
    (
        lambda: TimeParallel(nn.GRUCell(3, 4), control=AdaptiveCycles()),
        TypeError,
        "CyclesToTolerance",
    ),
    (lambda: TimeParallel.from_module(nn.GRUCell(3, 4)), TypeError, "from_module got a GRUCell"),
    (lambda: TimeParallel(nn.RNNCell(3, 4)).to_module(), TypeError, "to_module got a RNNCell"),
]
CALLS = [
    (nn.GRUCell(3, 4), (torch.zeros(0, 2, 3),), RuntimeError, "without steps"),
    (nn.GRUCell(3, 4), (torch.zeros(9, 2, 2),), ValueError, "2 features"),
    (nn.GRUCell(3, 4), (torch.zeros(9, 2, 3).double(),), ValueError, "torch.float64"),
    (nn.GRUCell(3, 4), (torch.zeros(9),), ValueError, "shape (9,)"),
    (nn.GRUCell(3, 4), ([1.0],), TypeError, "type list"),
    (nn.GRUCell(3, 4), (torch.zeros(9, 2, 3), torch.zeros(2, 4)), ValueError, "(1, 2, 4)"),
    (nn.GRUCell(3, 4), (torch.zeros(9, 2, 3), torch.zeros(1, 2, 5)), ValueError, "(1, 2, 4)"),
    (nn.LSTMCell(3, 4), (torch.zeros(9, 2, 3), torch.zeros(1, 2, 4)), ValueError, "2 part(s)"),
    (nn.GRUCell(3, 4).bfloat16(), (torch.zeros(9, 2, 3).bfloat16(),), TypeError, "bfloat16"),
    (torch.add, (torch.zeros(9, 2, 3),), ValueError, "no h0"),
    (Noisy(3, 4), (torch.ones(9, 2, 3),), ValueError, "random numbers"),
    (Editing(3, 4), (torch.ones(9, 2, 3),), ValueError, "in place"),
    (
        lambda x, h: HIDDEN * h,
        (torch.zeros(9, 2, 3), torch.zeros(1, 2, 4)),
        ValueError,
        "not among its parameters",
    ),
    (
        lambda x, h: h - h.mean(0),
        (torch.zeros(9, 2, 3), torch.ones(1, 2, 4)),
        ValueError,
        "each row on its own",
    ),
    (
        lambda x, h: h[:, :2],
        (torch.zeros(9, 2, 3), torch.ones(1, 2, 4)),
        TypeError,
        "a state like the one",
    ),
]


@pytest.mark.parametrize(("wrong", "error", "words"), WRONG, ids=lambda x: str(x)[:20])
def test_malformed_arguments_are_refused(wrong, error, words):
    with pytest.raises(error) as caught:
        wrong()
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(("cell", "given", "error", "words"), CALLS, ids=lambda x: str(x)[:20])
def test_wrong_calls_are_refused(cell, given, error, words):
    with pytest.raises(error) as caught:
        TimeParallel(cell)(*given)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_hooks_on_a_cell_are_heard():
    cell = nn.GRUCell(3, 4).double()
    cell.register_forward_hook(lambda module, given, found: 0.5 * found)
    x = torch.randn(40, 2, 3, dtype=torch.float64)
    y, _ = TimeParallel(cell, control=TIGHT)(x)
    torch.testing.assert_close(y, looped(cell, x, x.new_zeros(2, 4))[0])
    module = nn.GRU(3, 4)
    module.register_forward_pre_hook(lambda module, given: None)
    with pytest.raises(TypeError, match="hooks"):
        TimeParallel(module)
    parallel = TimeParallel(nn.GRU(3, 4))
    parallel.cell.register_forward_pre_hook(lambda module, given: None)
    with pytest.raises(TypeError, match="hooks"):
        parallel(x.float())


@pytest.mark.parametrize("cycle", ["V", "newton(diagonal)"])
def test_what_comes_after_the_end_of_a_sequence_is_no_input(cycle):
    """A cell that zero is no input of, and whose states would grow without bound."""

    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.rate = nn.Parameter(torch.tensor(0.5, dtype=torch.float64))

        def forward(self, x, h):
            flag, value = x[:, :1], x[:, 1:]
            unit = value / value.norm(dim=-1, keepdim=True)
            return self.rate * torch.sin(3.0 * h) + unit.sum(-1, keepdim=True) + flag * 1e6

    cell, rows = Scaled(), [torch.randn(n, 3, dtype=torch.float64) for n in (90, 20, 1)]
    for row in rows:
        row[:, 0] = 0.0
    rows[1][-1, 0] = 1.0  # after it all would be large
    packed, start = pack_sequence(rows), torch.zeros(1, 3, 1, dtype=torch.float64)
    found = []
    for mode in ("mgrit", "serial"):
        parallel = TimeParallel(cell, control=TIGHT, mode=mode, cycle=cycle)
        output, last = parallel(packed, start)
        loss = output.data.square().mean() + last.sum()
        found.append((output.data, last, *torch.autograd.grad(loss, [cell.rate])))
    apart = torch.zeros(1, 1, dtype=torch.float64)
    for row in rows[1]:
        apart = cell(row[None], apart)
    torch.testing.assert_close(found[0][1][0, 1], apart[0])
    for one, other in zip(*found, strict=True):
        assert one.isfinite().all()
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("module", [nn.GRU(3, 6).double(), nn.LSTM(3, 6).double()])
@pytest.mark.parametrize("cycle", ["V", "newton", "newton(diagonal)", "newton(identity)"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_in_its_sequence(module, cycle, value):
    x = torch.randn(60, 3, 3, dtype=torch.float64)
    x[20, 1, 0] = value
    x.requires_grad_()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        y, _ = TimeParallel(module, cycle=cycle, control=TIGHT)(x)
        (found,) = torch.autograd.grad(y[:, 0].sum(), x)
    wanted, _ = module(x)
    assert torch.equal(y.isnan(), wanted.isnan())
    torch.testing.assert_close(y, wanted, equal_nan=True)
    (other,) = torch.autograd.grad(wanted[:, 0].sum(), x)
    torch.testing.assert_close(found[:, 0], other[:, 0])


@pytest.mark.parametrize("cell", [nn.GRUCell(3, 4), nn.LSTMCell(3, 4), nn.GRU(3, 4), nn.LSTM(3, 4)])
@pytest.mark.parametrize("mode", ["mgrit", "serial"])
def test_transforms_of_cells_and_modules_of_pytorch(cell, mode):
    x, parallel = torch.randn(2, 12, 2, 3), TimeParallel(cell, mode=mode)
    plain = TimeParallel(cell, mode="serial")
    mapped = torch.func.vmap(lambda z: parallel(z)[0])(x)
    torch.testing.assert_close(mapped, torch.stack([plain(z)[0] for z in x]))
    along = torch.func.jvp(lambda z: parallel(z)[0], (x[0],), (x[1],))[1]
    double = TimeParallel(copy.deepcopy(cell).double(), mode="serial")
    step, one, other = 1e-6, *x.double()
    wanted = (double(one + step * other)[0] - double(one - step * other)[0]) / (2.0 * step)
    torch.testing.assert_close(along, wanted.float(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("cell", [nn.RNNCell(3, 4), nn.LSTMCell(3, 4), nn.LSTM(3, 4), nn.GRU(3, 4)])
def test_under_autocast_all_modes_give_the_same(cell):
    x = torch.randn(50, 2, 3)
    wanted = TimeParallel(cell, mode="serial")(x)[0]
    for mode in ("mgrit", "serial", "auto"):
        with torch.autocast("cpu", torch.bfloat16):
            y, state = TimeParallel(cell, mode=mode)(x)
        assert {part.dtype for part in tree_leaves(state)} == {torch.float32}
        torch.testing.assert_close(y, wanted, rtol=1e-4, atol=1e-5)


def test_gradients_by_the_batch_are_refused():
    x = torch.randn(60, 1, 3, requires_grad=True)
    y = TimeParallel(nn.GRU(3, 4))(x)[0][-1, 0]
    with pytest.raises(RuntimeError, match="mode='serial'"):
        torch.autograd.grad(y, x, torch.eye(4), is_grads_batched=True)


def test_odd_cells_are_solved_or_told():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.count = nn.Parameter(torch.tensor(2), requires_grad=False)
            self.hidden_size = 4
            self.coarse = nn.LSTMCell(3, 4)

        def forward(self, x, state):
            h, c = self.coarse(x, state)
            return h / self.count, c

    x, odd, zeros = torch.randn(60, 2, 3), Odd(), torch.zeros(1, 2, 4)
    one, other = [
        TimeParallel(odd, mode=mode)(x, (zeros, zeros))[0] for mode in ("mgrit", "serial")
    ]
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    one.sum().backward()
    normed = nn.Sequential(nn.BatchNorm1d(3))
    normed.forward = lambda x, h: normed[0](x) + h
    with pytest.raises(ValueError, match="its buffers in place"):
        TimeParallel(normed, mode="auto")(x, torch.zeros(1, 2, 3))
    assert int(normed[0].num_batches_tracked) == 0
    hidden = torch.ones(4, requires_grad=True)
    with pytest.raises(ValueError, match="not among its parameters"):
        TimeParallel(lambda x, h: hidden * h, mode="auto")(x, zeros)
    with pytest.raises(TypeError, match="got cycle = 3; give V"):
        TimeParallel(nn.GRU(3, 4), cycle=3)
    with torch.inference_mode():
        y, _ = TimeParallel(nn.RNNCell(3, 4))(x)
    assert y.isfinite().all()
    meta = TimeParallel(nn.GRU(3, 4, device="meta"))(torch.randn(60, 2, 3, device="meta"))
    assert meta[0].shape == (60, 2, 4)


def test_a_fixed_number_of_sweeps_leaves_other_sequences_right_and_says_what_is_not_finite():
    gru, x = nn.GRU(3, 6).double(), torch.randn(60, 3, 3, dtype=torch.float64)
    x[20, 1, 0] = float("nan")
    parallel = TimeParallel(gru, cycle="newton", control=FixedCycles(8))
    with pytest.warns(UserWarning, match="relative error of inf"):
        y, _ = parallel(x)
    torch.testing.assert_close(y[:, ::2], gru(x)[0][:, ::2], rtol=1e-9, atol=1e-9)
