"""Law: a distributed `LayerParallel` has the same bits on any number of ranks.

Outputs, gradients and parameters after training, dense blocks: 2 and 3 levels, F and FCF, float32
and float64, Fixed and CyclesToTolerance, more ranks than intervals, dropout, batch norm, serial
mode.
"""

import json
import re
from typing import Any

import pytest

from mgnet.depth.mgrit.plan import plan

RUNS = ["alone", 1, 2, 3, 4]
CASES = [
    "two levels",
    "three levels, float32",
    "in turn",
    "in turn, three levels",
    "shared weights",
    "spline weights",
    "shared weights, serial",
    "no cascade",
    "fewer intervals than ranks",
    "many",
    "FCF, Heun",
    "side inputs",
    "side inputs, fused",
    "side inputs, serial",
    "layer inputs",
    "layer inputs, shared weights",
    "layer inputs, serial",
    "first",
    "fused",
    "fused, three levels",
    "identity",
    "identity, in turn",
    "serial",
    "dropout",
    "dropout by a function",
    "batch norm",
    "a buffer kept once",
    "resumed",
]


@pytest.fixture(scope="module")
def told(mpiexec, tmp_path_factory) -> dict[Any, dict[str, Any]]:
    """What rank 0 prints, from each run; 3 ranks write the checkpoint that the others read."""
    file = str(tmp_path_factory.mktemp("ranks") / "state.pt")
    found: dict[Any, dict[str, Any]] = {}
    for run in (3, 1, 2, 4):
        found[run], *alone = json.loads(mpiexec("layer_training.py", run, file, timeout=300.0))
        if run == 1:  # the same process also goes without `distribute_layers`
            (found["alone"],) = alone
    return found


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", RUNS[1:])
@pytest.mark.parametrize("case", CASES)
def test_bits_are_those_of_one_process(told, case, ranks):
    expected = told["alone"][case]
    assert json.dumps(told[ranks][case]) == json.dumps(expected)


@pytest.mark.mpi
def test_cases_differ(told):
    """So that the digests see something."""
    digests = {json.dumps(told["alone"][case]) for case in CASES}
    assert len(digests) == len(CASES)


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", RUNS)
def test_many_cycles_give_the_gradients_of_a_loop_over_the_layers(told, ranks):
    assert told[ranks]["error"] < 1e-13


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", RUNS[1:])
@pytest.mark.parametrize("gathered", [True, False])
def test_evaluations_are_those_of_the_plan(told, ranks, gathered):
    forward = plan(48, ranks, 4, cycles=(1,), record=True, gathered=gathered).forward
    both = plan(48, ranks, 4, cycles=(1, 1), record=True, gathered=gathered)
    assert both.backward is not None
    assert told[ranks]["gathered" if gathered else "in turns"] == [
        forward.evaluations,
        forward.critical,
        both.forward.evaluations,
        both.backward.evaluations,
    ]


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", RUNS[1:])
def test_all_ranks_make_the_same_calls(told, ranks):
    """By their number a rank knows whether one that left the script is missed."""
    assert len(set(told[ranks]["calls"])) == 1 and told[ranks]["calls"][0] > 10


@pytest.mark.mpi
def test_the_demo_ends_with_the_same_line_on_any_number_of_ranks(mpiexec, tmp_path):
    pytest.importorskip("matplotlib")
    demo = "../../demos/layer_parallel.py"
    lines = [mpiexec(demo, n, str(tmp_path), "4", timeout=300.0).splitlines() for n in (1, 2)]
    assert lines[0] == lines[1]
    assert re.fullmatch(r"final loss \d\.\d{15}e[+-]\d\d", lines[0][-1])
