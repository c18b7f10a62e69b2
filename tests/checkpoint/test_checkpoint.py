"""Law: a run that was interrupted and one that was not end with the same bits."""

import hashlib
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import mgnet
from mgnet import Hierarchy, Jacobi, Level, Schedule, Smoother, Solver, cascade, gallery, parse, run
from mgnet.checkpoint.checkpoint import FILE, Checkpoint, Checkpoints
from mgnet.depth import ODENet
from mgnet.knots import KAN, FreeKnotKAN, knot_hierarchy
from mgnet.training import (
    LBFGS,
    AdaptiveBasis,
    Broyden,
    EarlyStop,
    LeastSquares,
    LevenbergMarquardt,
    Objective,
)
from mgnet.training import TorchOptimizer as Torch

X = torch.linspace(-1, 1, 40, dtype=torch.float64).unsqueeze(1)
Y = torch.sin(6 * X)
LM, ADAM = LevenbergMarquardt(), Torch(torch.optim.Adam, {"lr": 0.02})
TWO = KAN([1, 2, 1], intervals=2)
HELD_OUT = LeastSquares(TWO, (X[1::2], Y[1::2]))


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return a == b or (a != a and b != b)


class Batches(Objective):
    """Draws a batch of 10 samples for every gradient, from a generator of its own."""

    def __init__(self, network, generator):
        super().__init__(network, torch.nn.functional.mse_loss, (X, Y))
        self.generator = generator

    def with_network(self, network):
        return Batches(network, self.generator)

    def gradient(self, u):
        rows = torch.randint(len(X), (10,), generator=self.generator)
        return Objective(self.network, self.loss, (X[rows], Y[rows])).gradient(u)


def knots(smoother, levels=3, form="subspace", generator=None, kan=TWO, most=None):
    """A hierarchy made anew, as another process would."""
    kan = KAN(kan.widths, kan.intervals, kan.degree, linear=kan.linear is not None)
    problem = LeastSquares(kan, (X[::2], Y[::2]))
    objective = problem if generator is None else Batches(kan, generator)
    return knot_hierarchy(kan, objective, levels, smoother, form=form, most_intervals=most)


CASES = {
    "cascade LM": (LM, "cascade 2,2,3", "subspace", "every"),
    "cascade L-BFGS": (LBFGS(), "cascade 3,3,3", "subspace", "every"),
    "cascade Broyden": (Broyden(), "cascade 3,3,3", "subspace", "every"),
    "V Broyden": (Broyden(), "V(2,2)", "subspace", "every"),
    "cascade batches, Adam": (ADAM, "cascade 3,2,3", "subspace", "batches"),
    "cascade early stop": (EarlyStop(LBFGS(), HELD_OUT, 2), "cascade 4,4,4", "subspace", "every"),
    "cascade LSGD": (AdaptiveBasis(ADAM), "cascade 2,2,3", "subspace", "every"),
    "V LM": (LM, "V(1,1,2)", "subspace", "every"),
    "cascade LM by layer": (LM, "cascade 2,2,2", "subspace", "every"),
    "V LM by layer": (LM, "V(1,1,2)", "injected", "every"),
    "F L-BFGS injected": (LBFGS(), "F(1,1)", "injected", "every"),
    "nested V Adam": (ADAM, "nested V(1,1)", "subspace", "every"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_run_resumes_from_files_after_any_step(case, tmp_path):
    smoother, text, form, data = CASES[case]
    schedule = parse(text, 3)
    schedule = schedule.split() if "cascade" in text else schedule

    def make():
        generators = {"rows": torch.Generator().manual_seed(7)} if data == "batches" else {}
        most = (None, 2 * TWO.intervals[1]) if "by layer" in case else None
        return knots(smoother, 3, form, generators.get("rows"), most=most), generators

    hierarchy, generators = make()

    def save(step, data):
        taken = Checkpoint.of(data.progress, hierarchy, generators)
        taken.save(tmp_path / str(data.progress.position))

    u, memory = run(schedule, hierarchy, hierarchy[0].operator.start(), None, record=save)
    for position in range(1, len(schedule) + 1):
        saved = Checkpoint.load(tmp_path / str(position))
        hierarchy, generators = make()
        saved.restore(generators)
        resume = saved.resume_on(schedule, hierarchy)
        again, remembered = run(schedule, hierarchy, None, None, resume=resume)
        assert torch.equal(again, u), position
        assert same(remembered, memory), position


SCRIPT = """
import sys, hashlib, torch
sys.path.insert(0, {folder!r})
from test_checkpoint import LM, Checkpoint, cascade, knots, run
hierarchy, schedule = knots(LM), cascade([2, 2, 4]).split()
resume = Checkpoint.load({saved!r}).resume_on(schedule, hierarchy)
u, _ = run(schedule, hierarchy, None, None, resume=resume)
print(hashlib.sha256(u.numpy().tobytes()).hexdigest())
"""


def test_another_process_ends_with_the_same_bits(tmp_path):
    hierarchy, schedule = knots(LM), cascade([2, 2, 4]).split()
    checkpoints = Checkpoints(tmp_path, hierarchy, every=6)  # 10 steps: once, in the last but one
    u, _ = run(schedule, hierarchy, hierarchy[0].operator.start(), None, record=checkpoints)
    assert Checkpoint.load(tmp_path).progress.position == 6
    code = SCRIPT.format(folder=str(Path(__file__).parent), saved=str(tmp_path))
    root = str(Path(mgnet.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip() == hashlib.sha256(u.numpy().tobytes()).hexdigest(), done.stderr


# On another number of levels


@pytest.mark.parametrize("levels", [2, 3, 5])
@pytest.mark.parametrize("smoother", [LM, LBFGS(), ADAM], ids=str)
def test_a_cascade_goes_on_with_more_or_fewer_levels_than_planned(smoother, levels, tmp_path):
    """Saved on 4 levels with 4 intervals; the longer run passes where the shorter ones end."""
    plan, ends = cascade([3] * 4).split(), {}
    hierarchy = knots(smoother, 4)

    def save(step, data):
        ends[len(data.state)] = data.state
        if data.progress.position == 7:  # start 3 interpolate 3 is 8: in the middle of level 2
            Checkpoint.of(data.progress, hierarchy).save(tmp_path)

    run(plan, hierarchy, hierarchy[0].operator.start(), None, record=save)
    schedule, other = cascade([3] * levels).split(), knots(smoother, levels)
    kept = {}
    resume = Checkpoint.load(tmp_path).resume_on(schedule, other)
    u, _ = run(
        schedule,
        other,
        None,
        None,
        resume=resume,
        record=lambda step, data: kept.update({len(data.state): data.state}),
    )
    common = ends.keys() & kept.keys()
    assert len(common) == min(levels, 4) - 1
    assert all(torch.equal(ends[size], kept[size]) for size in common)
    assert len(u) == len(other[0].operator.start())


def test_a_finished_cascade_goes_on_with_finer_levels(tmp_path):
    hierarchy = knots(LM, 2)
    u, _ = run(
        cascade([5, 5]),
        hierarchy,
        hierarchy[0].operator.start(),
        None,
        record=Checkpoints(tmp_path, hierarchy),
    )
    finer = knots(LM, 4)
    resume = Checkpoint.load(tmp_path).resume_on(cascade([5, 5, 5, 5]), finer)
    assert resume.us[2] is not None and torch.equal(resume.us[2], u)
    v, _ = run(cascade([5, 5, 5, 5]), finer, None, None, resume=resume)
    assert finer[0].operator.value(v) < hierarchy[0].operator.value(u)


# What is in the files


@pytest.mark.parametrize("kind", [KAN, FreeKnotKAN])
@pytest.mark.parametrize("linear", [False, True])
def test_another_tool_finds_every_edge(kind, linear, tmp_path):
    kan = kind([2, 3, 1], [2] if linear else [2, 3], linear=linear, domain=(-2.0, 2.0))
    x = torch.rand(30, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    problem = Objective(kan, torch.nn.functional.mse_loss, (x, x.prod(1, keepdim=True)))
    hierarchy = Hierarchy([Level(problem, ADAM, objective=problem.value)])
    checkpoints = Checkpoints(tmp_path, hierarchy)
    u, memory = run(cascade([4]), hierarchy, problem.start(), None, record=checkpoints)
    torch.nn.utils.vector_to_parameters(u, kan.parameters())

    told, tensors = by_safetensors(tmp_path)
    for k, coefficients in enumerate(kan.coefficients):
        inputs, _, outputs = coefficients.shape
        for p in range(inputs):
            for q in range(outputs):
                edge = tensors[f"level0.layer{k}.edge.{p}.{q}"]
                assert torch.equal(edge, coefficients[p, :, q].detach())
    for name, value in kan.state_dict().items():
        if not name.startswith("coefficients"):
            assert torch.equal(tensors[f"level0.{name}"], value)
    assert told["networks"][0]["widths"] == [2, 3, 1] and told["networks"][0]["degree"] == 3
    assert told["networks"][0]["intervals"] == list(kan.intervals)
    assert (told["schedule"], told["position"], told["level"]) == ("start, solve 4", 2, 0)
    assert (told["mgnet"], told["format"], told["kind"]) == (mgnet.__version__, 2, "Checkpoint")

    saved = Checkpoint.load(tmp_path)
    again = saved.network()
    assert same(again.state_dict(), kan.state_dict())
    # The same tensors at another place in memory: products of matrices may round in another way.
    torch.testing.assert_close(again(x), kan(x), rtol=1e-13, atol=1e-14)
    assert same(saved.progress.memory, memory) and torch.equal(saved.progress.us[0], u)


def by_safetensors(folder):
    """What the tools of the format read, without mgnet."""
    file = folder / FILE
    with safe_open(file, "pt") as opened:
        return json.loads(opened.metadata()["mgnet"]), load_file(file)


def plain():
    """A module with everything: a frozen layer, a buffer, tied parameters, two precisions."""
    torch.manual_seed(5)
    module = torch.nn.Sequential(
        torch.nn.Linear(1, 4), torch.nn.Tanh(), torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)
    )
    module.append(torch.nn.Linear(4, 1)).register_buffer("offset", torch.tensor(3.0))
    module[3].weight = module[2].weight
    module[0].requires_grad_(False)
    return module


@dataclass(frozen=True)
class Double(Smoother):
    """Works in float64 on a module in float32."""

    def smooth(self, level, u, f, sweeps, memory):
        memory = (memory or 0) + sweeps
        return u.double() + 1e-9 * level.residual_at(u.double(), f), memory


@pytest.mark.parametrize("smoother", [ADAM, LM, Double()], ids=lambda s: type(s).__name__)
def test_a_plain_module_is_stored_by_its_names(smoother, tmp_path):
    def make():
        problem = LeastSquares(plain(), (X.float(), Y.float()))
        return Hierarchy([Level(problem, smoother, objective=problem.value)])

    schedule, hierarchy = cascade([5]).split(), make()
    checkpoints = Checkpoints(tmp_path, hierarchy, every=3)
    u, _ = run(schedule, hierarchy, hierarchy[0].operator.start(), None, record=checkpoints)
    saved = Checkpoint.load(tmp_path)
    resume = saved.resume_on(schedule, make())
    again, _ = run(schedule, make(), None, None, resume=resume)
    assert torch.equal(again, u) and again.dtype == u.dtype

    other = plain()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    other.load_state_dict(saved.state_dict())
    flat = hierarchy[0].operator.flat
    flat.write(saved.progress.us[0])
    assert same(dict(other.state_dict()), dict(flat.module.state_dict()))
    names = set(by_safetensors(tmp_path)[1])
    assert {f"level0.{n}" for n in flat.module.state_dict() if n != "3.weight"} <= names
    with pytest.raises(ValueError, match="kind Sequential cannot be built"):
        saved.network()


def test_a_correction_is_not_taken_for_a_network(tmp_path):
    """On the way down a V in subspace form the network is that of level 0."""
    hierarchy, states = knots(LM), []

    def record(step, data):
        states.append(data.state)
        if len(states) == 4:  # pre, down, pre, down
            Checkpoint.of(data.progress, hierarchy).save(tmp_path)

    run(parse("V(1,1)", 3), hierarchy, hierarchy[0].operator.start(), None, record=record)
    saved = Checkpoint.load(tmp_path)
    assert saved.level == 0
    assert torch.equal(saved.network()(X), hierarchy.network(0, states[0])(X))


# With Solver


@pytest.mark.parametrize("kind", ["torch", "numpy"])
def test_cycles_with_batches_go_on(kind, tmp_path):
    def make():
        seeded = torch.Generator().manual_seed(3) if kind == "torch" else np.random.default_rng(3)
        kan = KAN([1, 2, 1], intervals=2)

        def bind(rows):
            return list(knot_hierarchy(kan, LeastSquares(kan, (X[rows], Y[rows])), 2, ADAM))

        def batches():
            while True:
                if isinstance(seeded, torch.Generator):
                    yield torch.randperm(40, generator=seeded)[:12]
                else:
                    yield torch.from_numpy(seeded.permutation(40)[:12])

        return Hierarchy(bind(slice(None)), bind=bind), batches, {"batches": seeded}

    hierarchy, batches, generators = make()
    cycle = parse("V(2,1)", 2)
    checkpoints = Checkpoints(tmp_path, hierarchy, every=3 * len(cycle), generators=generators)
    start = hierarchy[0].operator.start()
    whole = Solver(hierarchy, cycle, max_cycles=5, batches=batches(), record=checkpoints)
    expected = whole.solve(u=start)

    saved = Checkpoint.load(tmp_path)
    hierarchy, batches, generators = make()
    saved.restore(generators)
    resume = saved.resume_on(cycle, hierarchy)
    u, memory = run(cycle, hierarchy, None, None, resume=resume)  # the rest of the third cycle
    rest = Solver(hierarchy, cycle, max_cycles=2, batches=batches())
    solution = rest.solve(u=u, memory=memory)
    assert torch.equal(solution.value, expected.value)
    assert same(solution.memory, expected.memory)


def test_linear_multigrid_is_stored_too(tmp_path):
    hierarchy, f = gallery.poisson(15, coarse_solver=Jacobi()), np.ones(15)
    jacobi = [Level(a.matrix.toarray(), a.smoother, a.transfer) for a in hierarchy]
    hierarchy, schedule = Hierarchy(jacobi), parse("nested F(1,1)", 4)

    def save(step, data):
        Checkpoint.of(data.progress, hierarchy).save(tmp_path / str(data.progress.position))

    u, _ = run(schedule, hierarchy, None, f, record=save)
    for position in range(1, len(schedule) + 1):
        saved = Checkpoint.load(tmp_path / str(position))
        resume = saved.resume_on(schedule, hierarchy)
        np.testing.assert_array_equal(run(schedule, hierarchy, None, None, resume=resume)[0], u)
    with pytest.raises(ValueError, match="has no network: the operator .* is not an Objective"):
        saved.state_dict()
    with pytest.raises(ValueError, match="right-hand sides on 4 levels; .* resumed on 5"):
        five = Hierarchy([Level(np.eye(31), Jacobi(), gallery.poisson(31)[0].transfer), *jacobi])
        steps = [("start", 4, 1), ("solve", 4, 1), *(("interpolate", k, 1) for k in (3, 2, 1, 0))]
        Checkpoint.load(tmp_path / "2").resume_on(Schedule(steps), five)


# Refusals


def saved_in(folder):
    hierarchy = knots(LM, 2)
    schedule = cascade([2, 2])
    checkpoints = Checkpoints(folder, hierarchy)
    run(schedule, hierarchy, hierarchy[0].operator.start(), None, record=checkpoints)
    return Checkpoint.load(folder)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no checkpoint.safetensors"):
        Checkpoint.load(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("schedule", "hierarchy", "words"),
    [
        (cascade([2, 3]), lambda: knots(LM, 2), "made after 4 steps.*does not begin with them"),
        (cascade([2]), lambda: knots(LM, 1), "made after 4 steps, and the schedule on 1 levels"),
        (cascade([2, 2]), lambda: knots(ADAM, 2), "the smoother LevenbergMarquardt, .* Torch"),
        (
            cascade([2, 2]),
            lambda: knots(LM, 2, kan=KAN([1, 2, 1], intervals=3)),
            "on level 0 the network .*'intervals': .4, 4.*'intervals': .6, 6.* build the same",
        ),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, schedule, hierarchy, words):
    with pytest.raises(ValueError, match=words):
        saved_in(tmp_path).resume_on(schedule, hierarchy())


def test_another_frozen_layer_is_refused(tmp_path):
    module = plain()
    problem = LeastSquares(module, (X.float(), Y.float()))
    hierarchy = Hierarchy([Level(problem, ADAM, objective=problem.value)])
    checkpoints = Checkpoints(tmp_path, hierarchy)
    run(cascade([1]), hierarchy, problem.start(), None, record=checkpoints)
    module[0].bias.data += 1.0
    with pytest.raises(ValueError, match="on level 0 another 0.bias, which is not trained"):
        Checkpoint.load(tmp_path).resume_on(cascade([1]), hierarchy)


def of_steps(kan):
    module = torch.nn.Sequential(kan, torch.nn.Linear(1, 1, dtype=torch.float64))
    problem = LeastSquares(module, (X, Y))
    return Hierarchy([Level(problem, ADAM, objective=problem.value)]), problem.start()


def test_options_inside_another_module_are_compared(tmp_path):
    hierarchy, start = of_steps(KAN([1, 2, 1], domain=(0.0, 1.0)))
    checkpoints = Checkpoints(tmp_path, hierarchy)
    run(cascade([1]), hierarchy, start, None, record=checkpoints)
    saved = Checkpoint.load(tmp_path)
    saved.resume_on(cascade([1]), of_steps(KAN([1, 2, 1], domain=(0.0, 1.0)))[0])
    with pytest.raises(ValueError, match=r"domain=\[0.0, 1.0\], but this one has domain=\[-1.0, 1"):
        saved.resume_on(cascade([1]), of_steps(KAN([1, 2, 1]))[0])


@pytest.mark.parametrize("inside", [False, True])
def test_files_from_before_options_were_in_the_state(tmp_path, inside):
    kan = KAN([1, 2, 1], domain=(0.0, 1.0))
    hierarchy, start = of_steps(kan)
    if not inside:
        problem = LeastSquares(kan, (X, Y))
        hierarchy = Hierarchy([Level(problem, ADAM, objective=problem.value)])
        start = problem.start()
    run(cascade([1]), hierarchy, start, None, record=Checkpoints(tmp_path, hierarchy))
    saved = Checkpoint.load(tmp_path)
    (name,) = (name for name in saved.fixed[0] if name.endswith("_extra_state"))
    del saved.fixed[0][name]
    saved.save(tmp_path / "old")
    old = Checkpoint.load(tmp_path / "old")
    old.resume_on(cascade([1]), hierarchy)
    network = hierarchy[0].operator.network
    network.load_state_dict(old.state_dict())
    if not inside:
        assert torch.equal(old.network()(X), network(X))


def test_files_of_ode_nets_with_two_numbers_of_extra_state(tmp_path):
    """Seed and number of masks; the description listed them among the shapes."""

    def of_layers(final_time):
        net = ODENet(torch.nn.Linear(1, 1), 4, final_time).double()
        problem = LeastSquares(net, (X, Y))
        return Hierarchy([Level(problem, ADAM, objective=problem.value)]), problem.start()

    hierarchy, start = of_layers(1.0)
    run(cascade([1]), hierarchy, start, None, record=Checkpoints(tmp_path, hierarchy))
    saved = Checkpoint.load(tmp_path)
    with pytest.raises(ValueError, match="final_time=1.0, but this one has .*final_time=2.0"):
        saved.resume_on(cascade([1]), of_layers(2.0)[0])
    saved.fixed[0]["_extra_state"] = torch.tensor([5, 0])
    saved.networks[0]["shapes"]["_extra_state"] = [2]
    saved.save(tmp_path / "old")
    Checkpoint.load(tmp_path / "old").resume_on(cascade([1]), hierarchy)


def test_generators_must_be_those_that_were_saved(tmp_path):
    hierarchy, generators = knots(LM, 1), {"a": torch.Generator(), "b": np.random.default_rng(0)}
    checkpoints = Checkpoints(tmp_path, hierarchy, generators=generators)
    run(cascade([1]), hierarchy, hierarchy[0].operator.start(), None, record=checkpoints)
    saved = Checkpoint.load(tmp_path)
    with pytest.raises(ValueError, match=r"got generators \['a'\]; .* \['a', 'b'\]"):
        saved.restore({"a": torch.Generator()})
    with pytest.raises(TypeError, match="for 'b'; the checkpoint has one of numpy"):
        saved.restore({"a": torch.Generator(), "b": torch.Generator()})
    with pytest.raises(TypeError, match="generator 'c' of type int"):
        checkpoints.generators = {"c": 3}
        run(cascade([1]), hierarchy, hierarchy[0].operator.start(), None, record=checkpoints)


def test_factors_cannot_be_stored(tmp_path):
    hierarchy = gallery.poisson(7, levels=2)
    record = Checkpoints(tmp_path, hierarchy)
    with pytest.raises(TypeError, match=r"a checkpoint got memory.1.pre.* of type .*; it stores"):
        run(parse("V(1,1)", 2), hierarchy, None, np.ones(7), record=record)
    with pytest.raises(ValueError, match="every = 0; it must be at least 1"):
        Checkpoints(tmp_path, hierarchy, every=0)
