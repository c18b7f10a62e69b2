"""Law: `-snes_type fas` on layers makes the cycles of MGRIT that `run` makes, bit for bit.

Until a residual on a coarse level is exactly zero: there PETSc leaves out what `run` repeats.
"""

import numpy as np
import pytest
import torch
from torch import nn

from mgnet import cycle, run, vector
from mgnet.depth import ODENet, dahlquist, heat
from mgnet.depth.mgrit.layer_hierarchy import layer_hierarchy
from mgnet.depth.parallel.method import MGRITMethod
from mgnet.depth.parallel.propagation_setup import PropagationSetup, detached

STEPS = 61  # the last interval of every level is short
SWEEPS = "snes_type python -{0}snes_python_type mgnet.petsc.Sweeps"
LINE = (
    "-snes_type fas -snes_fas_levels {levels} -fas_levels_"
    + SWEEPS.format("fas_levels_")
    + " -fas_up_levels_"
    + SWEEPS.format("fas_up_levels_")
    + " -fas_coarse_"
    + SWEEPS.format("fas_coarse_")
)


def network(block, shape, dtype):
    """The layers of an ODE net, states of this shape."""

    def made(levels, words, reverse):
        torch.manual_seed(0)
        net = ODENet(block(), STEPS, 2.0).to(dtype)
        method = MGRITMethod.from_texts((4,) * (levels - 1), "V", "V", words)
        layers = PropagationSetup.of(net.kernel, detached(net.layers()), method)
        u0 = torch.rand(shape, generator=torch.Generator().manual_seed(1)).to(dtype)
        hierarchy = layer_hierarchy(
            layers, STEPS, u0, levels=levels, relaxation=words, reverse=reverse
        )
        return hierarchy, u0.expand(STEPS + 1, *shape).clone()

    return made


def one_step(problem):
    def made(levels, words, reverse):
        assert not reverse
        return problem.hierarchy(levels, relaxation=words), problem.guess()

    return made


def dense():
    return nn.Sequential(nn.Linear(5, 5), nn.Tanh())


PROBLEMS = {
    "dahlquist": one_step(dahlquist(-3.0, STEPS)),
    "heat": one_step(heat(points=15, steps=STEPS)),
    "dense": network(dense, (3, 5), torch.float64),
    "dense, three axes, float32": network(dense, (3, 2, 5), torch.float32),
    "convolution": network(lambda: nn.Conv2d(2, 2, 3, padding=1), (2, 2, 4, 4), torch.float64),
}


@pytest.fixture
def fas(petsc, options):
    from mgnet.petsc import dmshell, separate_smoothers
    from mgnet.petsc.vectors import assign, copy_of

    def solve(hierarchy, f, u, cycles):
        options(LINE.format(levels=len(hierarchy)))
        snes = petsc.SNES().create(petsc.COMM_SELF)
        snes.setDM(dmshell(hierarchy, u))
        snes.setTolerances(rtol=0.0, atol=0.0, stol=0.0, max_it=cycles)
        snes.setFromOptions()
        separate_smoothers(snes)
        x = snes.getDM().createGlobalVec()
        b = x.duplicate()
        assign(x, u)
        assign(b, f)
        snes.solve(b, x)
        assert snes.getIterationNumber() == cycles
        return copy_of(x, u)

    return solve


CASES = [(name, False) for name in PROBLEMS] + [("dense", True)]


@pytest.mark.parametrize(("name", "reverse"), CASES)
@pytest.mark.parametrize(
    ("levels", "words"), [(2, ("F",)), (2, ("FCF",)), (3, ("FCF",)), (3, ("F", "FCF"))]
)
def test_the_bits_are_those_of_run(fas, name, reverse, words, levels):
    hierarchy, u = PROBLEMS[name](levels, words, reverse)
    start = -1 if reverse else 0
    f = vector.zeros_like(u)
    f[start] = u[start]
    seen = set()
    for cycles in (1, 2, 3):
        ours = [u, u]  # with f, and with None, which stands for the same
        for rhs in (0, 1):
            memory = None
            for _ in range(cycles):
                ours[rhs], memory = run(cycle(levels), hierarchy, ours[rhs], (f, None)[rhs], memory)
        theirs = bits(fas(hierarchy, f, u, cycles))
        assert [bits(each) for each in ours] == [theirs, theirs]
        seen.add(theirs)
    assert len(seen) == 3


def test_what_our_smoothers_did_not_make_is_added_as_it_is(petsc):
    from mgnet.petsc import dmshell
    from mgnet.petsc.vectors import as_vec

    problem = heat(points=2, steps=8)
    fine = dmshell(problem.hierarchy(), problem.guess())
    up, _ = fine.coarsen().createInterpolation(fine)
    u, w = np.random.default_rng(0).standard_normal((2, 9, 2))
    wanted = u.copy()
    wanted[::4] += w[:3]
    y = up.createVecLeft()
    up.multAdd(as_vec(w[:3].copy()), as_vec(u), y)
    np.testing.assert_array_equal(y.array.reshape(9, 2), wanted)
    up.mult(as_vec(w[:3].copy()), y)
    assert not y.array.reshape(9, 2)[1::4].any()
    x = up.createVecRight()
    up.multTranspose(as_vec(u), x)
    np.testing.assert_array_equal(x.array.reshape(3, 2), u[::4])


def bits(u):
    return vector.as_numpy(u).tobytes()
