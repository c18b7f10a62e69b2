"""Law: training over layers and batches has the same bits on any grid of ranks.

Losses, norms of gradients, weights, moments, random numbers and numbers of cycles; with dropout,
states loaded and resumed, nested training in depth.
"""

import json
from typing import Any

import pytest

CASES = ["trained, fixed", "trained, tolerance", "trained, adaptive", "loaded", "resumed"]


@pytest.fixture(scope="module")
def told(mpiexec, tmp_path_factory) -> dict[str, dict[str, Any]]:
    """What rank 0 prints of each grid."""
    found = {}
    for ranks in (1, 2, 4):
        folder = str(tmp_path_factory.mktemp("grid"))
        found |= json.loads(mpiexec("layer_grid.py", ranks, folder, timeout=300.0))
    return found


GRIDS = ["2 x 1", "1 x 2", "2 x 2"]
IN_SHORT = ["4 x 1", "1 x 4"]


@pytest.mark.mpi
@pytest.mark.parametrize(
    ("grid", "case"),
    [(grid, case) for grid in GRIDS for case in CASES]
    + [(grid, case) for grid in IN_SHORT for case in ("trained, tolerance", "resumed")],
)
def test_bits_are_those_of_one_rank(told, grid, case):
    assert told[grid][case] == told["1 x 1"][case]


@pytest.mark.mpi
@pytest.mark.parametrize("grid", GRIDS)
def test_a_gradient_that_is_not_finite_is_so_on_all_ranks(told, grid):
    assert told[grid]["failed"]


@pytest.mark.mpi
def test_cases_differ(told):
    assert len({json.dumps(told["1 x 1"][case]) for case in CASES}) == len(CASES)


@pytest.mark.mpi
@pytest.mark.parametrize("grid", GRIDS)
def test_all_ranks_end_with_the_same_cycles(told, grid):
    for case in CASES[:3]:
        _, equal, _ = told[grid][case]
        assert equal
    control, calls, passes = told[grid]["trained, adaptive"][2]
    assert control.startswith("AdaptiveCycles(forward=2, backward=1")  # it began with 1 and 1
    assert (calls, passes) == (4, 4)


@pytest.mark.mpi
@pytest.mark.parametrize(
    ("grid", "case"), [("2 x 1", "nested"), ("2 x 1", "nested, trials"), ("4 x 1", "nested")]
)
def test_nested_training_over_layers_has_the_bits_of_one_rank(told, grid, case):
    assert told[grid][case] == told["1 x 1"][case]
    assert told[grid][case][1]  # whole on every rank


@pytest.mark.mpi
@pytest.mark.parametrize("case", ["nested", "nested, trials"])
def test_nested_training_over_batches_depends_on_their_number_alone(told, case):
    assert told["2 x 2"][case] == told["1 x 2"][case]
    one, two = told["1 x 1"][case][0], told["1 x 2"][case][0]
    assert one[1:3] == two[1:3] and one[3] == pytest.approx(two[3], rel=1e-4)


@pytest.mark.mpi
def test_faults_are_refused_on_all_ranks_and_an_error_of_one_rank_ends_all(mpiexec, tmp_path):
    kinds = {
        "weights": "distribute got a module on rank 1 with other weights",
        "batch": "accumulate_gradients got different batches on the ranks",
        "seed": "accumulate_gradients got different random numbers on the ranks",
        "loss": "train_in_depth got an optimizer of parameters outside the module",
    }
    with pytest.raises(AssertionError, match="ranks ended with") as error:
        mpiexec("layer_grid.py", 2, str(tmp_path), *kinds, "raise", timeout=120.0)
    text = str(error.value)
    for kind, said in kinds.items():
        assert text.count(f"{kind}: {said}") == 2
    assert text.count("ArithmeticError: a fault of one rank") == 1


@pytest.mark.mpi
def test_a_rank_that_leaves_ends_all(mpiexec, tmp_path):
    with pytest.raises(AssertionError, match="rank 2, which"):
        mpiexec("layer_grid.py", 3, str(tmp_path), "leave", timeout=60.0)
