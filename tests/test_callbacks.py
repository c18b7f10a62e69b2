"""Law: whatever a function of the user does, the answer is the clean one or one sentence refuses.

A clean multigrid method, all of whose parts are functions of the user, gets one fault at a time:
(part) x (fault). The user's own arrays are as before in any case.
"""

import pickle
import re
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from mgnet import Hierarchy, Krylov, Level, Smoother, Solver, Transfer, gallery
from mgnet.callbacks import WATCHED_CALLS, Watched, ends, ours, real_function, unfit, watched_record

POINTS = 15
FINE = gallery.poisson(POINTS, levels=2)[0].matrix.toarray()
P = gallery.poisson(POINTS, levels=2)[0].transfer.P.toarray()
# The object, what it did or gave, what it must give or do instead.
SENTENCE = re.compile(
    r"(the level|level \d|Hierarchy|Solver|run|Linear|\w+ has)\b"
    r".*(edits its argument|returned|returns|gave|takes the state).*; (it must |make it )",
    re.DOTALL,
)
NUMPY = re.compile(r"broadcast|UFuncTypeError|ambiguous|size-1|has no attribute|not subscriptable")


def clean(function):
    return function


def faulty_by(change):
    """A fault that changes the result."""
    return lambda function: lambda *given: change(function(*given))


def in_place(result_too):
    """The argument that is edited is the first state; a scaling leaves the zeros of a start."""

    def fault(function):
        def edits(*given):
            state = next(part for part in given if isinstance(part, np.ndarray))
            result = function(*given)
            result = result.copy() if isinstance(result, np.ndarray) else result
            if result_too and isinstance(result, np.ndarray) and result.shape == state.shape:
                state[:] = result
                return state
            state *= 3.0
            return result

        return edits

    return fault


def edits_the_last(function):
    def edits(*given):
        result = function(*given)
        states = [part for part in given if isinstance(part, np.ndarray)]
        states[-1] += 1.0
        return result

    return edits


def one_array(count):
    """Gives one of so many arrays in turn, for each shape."""

    def fault(function):
        kept, calls = {}, [0]

        def reuses(*given):
            result = function(*given)
            if not isinstance(result, np.ndarray):
                return result
            arrays = kept.setdefault(result.shape, [np.empty_like(result) for _ in range(count)])
            calls[0] += 1
            out = arrays[calls[0] % count]
            out[:] = result
            return out

        return reuses

    return fault


def strided(result):
    twice = np.zeros((2 * len(result), *result.shape[1:]), result.dtype)
    twice[::2] = result
    return twice[::2]


class OwnError(Exception):
    pass


def raises(function):
    def fails(*given):
        next(part for part in given if isinstance(part, np.ndarray))[:] = 5.0
        raise OwnError

    return fails


FAULTS = {
    "none": clean,
    "edits and gives it": in_place(True),
    "edits and gives another": in_place(False),
    "edits its last argument": edits_the_last,
    "one array": one_array(1),
    "two arrays in turn": one_array(2),
    "raises after an edit": raises,
    "nothing": faulty_by(lambda r: None),
    "a number": faulty_by(lambda r: float(np.sum(r))),
    "a number of NumPy": faulty_by(np.sum),
    "one entry": faulty_by(lambda r: r[:1]),
    "a column": faulty_by(lambda r: r[:, None]),
    "a row": faulty_by(lambda r: r[None]),
    "a square": faulty_by(lambda r: r[:, None] + 0.0 * r),
    "one too few": faulty_by(lambda r: r[:-1]),
    "a list": faulty_by(lambda r: r.tolist()),
    "a pair": faulty_by(lambda r: (r, r)),
    "a tensor": faulty_by(lambda r: torch.from_numpy(np.array(r))),
    "a tensor with grad": faulty_by(lambda r: torch.tensor(r, requires_grad=True)),
    "integers": faulty_by(lambda r: r.astype(int)),
    "truths": faulty_by(lambda r: r > 0.0),
    "objects": faulty_by(lambda r: r.astype(object)),
    "texts": faulty_by(lambda r: r.astype(str)),
    "a matrix": faulty_by(np.matrix),
    "a masked array": faulty_by(np.ma.masked_array),
    "complex": faulty_by(lambda r: r + 0j),
    "single precision": faulty_by(lambda r: r.astype(np.float32)),
    "no number": faulty_by(lambda r: r * np.nan),
    "strided": faulty_by(strided),
}
NUMBER_FAULTS = {
    "none": clean,
    "edits": in_place(False),
    "edits its last argument": edits_the_last,
    "raises after an edit": raises,
    "nothing": faulty_by(lambda r: None),
    "an array of one": faulty_by(lambda r: np.array([float(r)])),
    "an array": faulty_by(lambda r: np.array([float(r), 0.0])),
    "a list": faulty_by(lambda r: [float(r)]),
    "a text": faulty_by(str),
    "complex": faulty_by(lambda r: complex(r)),
    "complex of NumPy": faulty_by(np.complex128),
    "a tensor": faulty_by(lambda r: torch.tensor(float(r))),
    "single precision": faulty_by(np.float32),
    "no number": faulty_by(lambda r: np.nan),
}


class Linear(Transfer):
    """Linear interpolation by functions; `faults` replaces some of them."""

    adjoint = False

    def __init__(self, injects, faults):
        self.changed = {name: fault(getattr(self, f"_{name}")) for name, fault in faults.items()}
        if injects:
            self.inject = self.changed.get("inject", self._inject)

    def _prolong(self, w):
        return P @ w

    def _restrict(self, r):
        return P.T @ r

    def _inject(self, u):
        return u[1::2].copy()

    def prolong(self, correction):
        return self.changed.get("prolong", self._prolong)(correction)

    def restrict(self, residual):
        return self.changed.get("restrict", self._restrict)(residual)

    def interpolate(self, state):
        return self.changed.get("interpolate", self._prolong)(state)

    def _interpolate(self, state):
        return P @ state


@dataclass(frozen=True)
class Richardson(Smoother):
    fault: object

    def smooth(self, level, u, f, sweeps, memory):
        def sweep(u, f):
            for _ in range(sweeps):
                u = u + 0.5 / FINE[0, 0] * level.residual_at(u, f)
            return u

        return self.fault(sweep)(u, f), memory


def fine(u):
    return FINE @ u + 0.01 * u**3


def coarse(w):
    return P.T @ fine(P @ w)


def derivative(w):
    return P.T @ (FINE + np.diag(0.03 * (P @ w) ** 2)) @ P


def method(part, fault, injects=True, own_residual=False):
    """The two levels, with a fault in one part."""

    def of(name, function):
        return fault(function) if part == name else function

    residual = (lambda u, f: f - fine(u)) if own_residual or part == "residual" else None
    names = ("prolong", "restrict", "inject", "interpolate")
    transfer = Linear(injects, {part: fault} if part in names else {})
    search = of("line search", lambda level, u, d, f, r: 1.0)
    levels = [
        Level(
            of("operator", fine),
            Richardson(fault if part == "smoother" else clean),
            transfer,
            residual=None if residual is None else of("residual", residual),
            objective=of("objective", lambda u: float(u @ u)) if part == "objective" else None,
            line_search=(lambda level, *given: search(level, *given))
            if part == "line search"
            else None,
            size=POINTS,
            name="level 0",
        ),
        Level(
            of("coarse operator", coarse),
            Krylov("gmres", iterations=12),
            linearize=of("linearize", derivative),
            size=P.shape[1],
        ),
    ]
    own = {}
    if part == "norm":
        own["norm"] = of("norm", lambda u: float(np.linalg.norm(u)))
    return Hierarchy(levels, **own)


def solve(part, fault, f, u=None, injects=True):
    hierarchy = method(part, fault, injects)
    own = {
        "monitor": lambda entry, u: bool(np.sum(u) > 1e9),
        "merit": lambda u: float(u @ u),
        "record": lambda step, data: None,
    }
    more = {part: fault(own[part])} if part in own else {}
    if part == "record":
        more["record"] = lambda step, data: fault(lambda u: None)(data.state)
    text = "nested V(1,1)" if part == "interpolate" else "V(1,1)"
    return Solver(hierarchy, text, rtol=1e-9, max_cycles=100, **more).solve(f, u)


STATES = ("operator", "residual", "coarse operator", "smoother", "prolong", "restrict", "inject")
STATES += ("interpolate",)
NUMBERS = ("norm", "objective", "line search", "monitor", "merit")


@pytest.fixture(scope="module")
def problem():
    f = 0.1 + np.random.default_rng(0).random(POINTS)
    return f, solve("", clean, f).require().value


CASES = [(p, n) for p in STATES for n in FAULTS] + [(p, n) for p in NUMBERS for n in NUMBER_FAULTS]
CASES += [("record", n) for n in NUMBER_FAULTS if "edit" in n]


@pytest.mark.parametrize(("part", "name"), CASES)
@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
@pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("start", ["zero", "random"])
def test_the_answer_is_right_or_one_sentence_refuses(part, name, start, problem):
    f, expected = problem
    fault = (FAULTS if part in STATES else NUMBER_FAULTS)[name]
    u = None if start == "zero" else np.random.default_rng(1).standard_normal(POINTS)
    kept = f.copy(), None if u is None else u.copy()
    try:
        solution = solve(part, fault, f, u)
    except OwnError:
        assert name == "raises after an edit"
    except (TypeError, ValueError) as error:
        assert name != "none", error
        assert SENTENCE.match(str(error)) and not NUMPY.search(str(error)), error
    else:
        if solution.reason.name == "MONITOR":
            assert name in ("a list", "a text", "no number")  # true ones
        elif name == "no number":
            assert part not in STATES or solution.reason.name == "NOT_FINITE"
        elif name == "single precision" and solution.reason.name in ("MAX_CYCLES", "ROUNDING"):
            assert abs(solution.value - expected).max() < 1e-4
        else:
            assert solution.require() and abs(solution.value - expected).max() < 1e-6
    assert np.array_equal(f, kept[0]) and (u is None or np.array_equal(u, kept[1]))


EDITS = [name for name in FAULTS if "edits" in name and "raises" not in name]


@pytest.mark.parametrize("part", STATES[:-1])
@pytest.mark.parametrize("name", ["none", *EDITS, *list(FAULTS)[7:25]])
@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
def test_check_finds_it(part, name):
    u = np.random.default_rng(2).standard_normal(POINTS)
    kept = u.copy()
    hierarchy = method(part, FAULTS[name])
    if name == "none":
        assert "arguments stay as they are" in hierarchy.check(u)
    else:
        with pytest.raises((TypeError, ValueError)) as caught:
            hierarchy.check(u)
        assert SENTENCE.match(str(caught.value)), caught.value
    assert np.array_equal(u, kept)


@pytest.mark.parametrize("part", ["operator", "residual"])
@pytest.mark.parametrize("name", ["one array", "two arrays in turn"])
def test_check_is_not_deceived_by_arrays_that_are_used_again(part, name):
    hierarchy = method(part, FAULTS[name])
    assert "arguments stay" in hierarchy.check(np.random.default_rng(2).standard_normal(POINTS))


def test_only_the_first_calls_are_watched():
    """The sum of a state is taken in every call, an edit is looked for in a few."""
    watched, u = Watched(lambda u: u.sum(), "a function"), np.ones(2)
    assert [watched("level 0", u) for _ in range(WATCHED_CALLS + 1)] == [2.0] * (WATCHED_CALLS + 1)
    watched.part = lambda u: u.fill(0.0)
    watched("level 0", u)
    assert u.sum() == 0.0


@pytest.mark.parametrize(
    "state",
    [
        np.array([1.0, np.nan]),
        np.ones((2, 3))[:, ::2],
        np.asfortranarray(np.ones((2, 3))),
        torch.ones(2, dtype=torch.float64),
        torch.tensor([np.nan, 1.0]),
        torch.ones(2, requires_grad=True),
        torch.ones(2, dtype=torch.bfloat16),
    ],
    ids=str,
)
def test_edits_of_any_state_are_seen_and_undone(state):
    def edit(u):
        (u.detach() if isinstance(u, torch.Tensor) else u)[...] = 2.0

    kept = state.copy() if isinstance(state, np.ndarray) else state.detach().clone()
    watched = Watched(lambda u: None, "a function")
    watched("level 0", state)  # NaN is not unequal to itself
    watched.part = edit
    with pytest.raises(ValueError, match=r"level 0 has a function that edits .*u = u.(copy|clone)"):
        watched("level 0", state)
    as_array = state.detach().float().numpy() if isinstance(state, torch.Tensor) else state
    np.testing.assert_array_equal(
        as_array, np.asarray(kept.float() if as_array is not state else kept)
    )


def test_edits_of_vecs_are_seen_and_undone(petsc):
    vec = petsc.Vec().createWithArray(np.arange(3.0))
    watched = Watched(lambda u: u.scale(2.0), "a function")
    with pytest.raises(ValueError, match="level 0 has a function that edits its argument"):
        watched("level 0", vec)
    np.testing.assert_array_equal(vec.getArray(), np.arange(3.0))
    assert not unfit(vec, vec) and unfit(np.ones(3), vec)


def test_what_is_ours():
    class Around:
        inner = None

    Around.__module__ = "mgnet.options.log"
    around = Around()
    assert ours(around) and ours(gallery.poisson) and ours(Krylov())
    around.inner = Richardson(clean)
    assert not ours(around) and not ours(print) and not ours(np.linalg.norm)


@pytest.mark.parametrize(
    ("result", "expected", "wrong"),
    [
        (torch.ones(2), torch.zeros(2), False),
        (torch.ones(2, dtype=torch.float64), torch.zeros(2), False),
        (torch.ones(2, dtype=torch.cfloat), torch.zeros(2), True),
        (torch.ones(2), torch.zeros(2, dtype=torch.cfloat), False),
        (torch.ones(2, dtype=torch.int64), torch.zeros(2), True),
        (torch.ones(2, 1), torch.zeros(2), True),
        (torch.nn.Parameter(torch.ones(2)), torch.zeros(2), False),
        (np.ones(2).view(np.memmap), np.zeros(2), False),
        (np.ones(2, np.float16), np.zeros(2), True),
        (np.ones(2, int), np.zeros(2, int), False),
    ],
)
def test_unfit(result, expected, wrong):
    assert unfit(result, expected) is wrong


def test_a_norm_is_not_negative():
    """A solve would have met any tolerance."""
    hierarchy = Hierarchy(list(gallery.poisson(7)), norm=lambda u: -1.0)
    with pytest.raises(
        TypeError, match="Hierarchy has a norm that returned -1.0; it must return one"
    ):
        Solver(hierarchy).solve(np.ones(7))
    with pytest.raises(TypeError, match="Hierarchy got a dot of type int"):
        Hierarchy(list(gallery.poisson(7)), dot=3)
    assert real_function("Hierarchy", "a norm", hierarchy.norm) is hierarchy.norm


def test_a_monitor_is_watched_in_every_call():
    def late(entry, u):
        if entry.cycle == 6:
            u[:] = 0.0

    with pytest.raises(ValueError, match="Solver has a monitor that edits its argument in place"):
        Solver(gallery.poisson(63), rtol=1e-12, monitor=late).solve(np.ones(63))
    with pytest.raises(
        TypeError, match="Solver has a monitor that returned ndarray .*; it must return"
    ):
        Solver(gallery.poisson(7), monitor=lambda entry, u: u > 0).solve(np.ones(7))
    assert ends("Solver", lambda entry, u: np.True_, None, np.ones(2))


def test_a_record_is_told_every_step():
    told = []
    record = watched_record(lambda step, data: told.append(str(step)))
    solver = Solver(gallery.poisson(7, levels=2), rtol=0.5, max_cycles=3, record=record)
    solution = solver.solve(np.ones(7))
    assert len(told) == 5 * solution.cycles


def test_a_hierarchy_with_a_norm_of_its_own_is_pickled():
    hierarchy = Hierarchy(list(gallery.poisson(7)), norm=np.linalg.norm)
    again = pickle.loads(pickle.dumps(hierarchy))
    assert again.norm(np.array([3.0, 4.0])) == 5.0
