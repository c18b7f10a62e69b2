"""`explain` accounts for all the work of a solve and shows which step reduces the residual."""

import re
from collections import Counter

import numpy as np
import pytest

from mgnet import Corrections, Hierarchy, Jacobi, Level, Reason, Solver, gallery, vector


def rows(text):
    """Read the table back: {(level, step): (visits, work, reduction)}, and the total."""
    table, total = {}, None
    for line in text.split("\n")[1:]:
        if line.startswith("total"):
            total = line.split()
            break
        found = re.match(
            r"\s*(\d*)\s+(\S+)\s+(\d+)\s+\S+\s+(-?\d+)%\s+(\S+)\s+(-?\d+)%\s+(.*)$", line
        )
        assert found, line
        level, step, visits, _, work, _, reduction = found.groups()
        table[level, step] = int(visits), float(work), reduction
    return table, total


@pytest.mark.parametrize("cycle", ["V(2,1)", "F(1,1)", "nested W(1,1)", "cascade 9,3,3,3"])
@pytest.mark.parametrize("make", [lambda: gallery.poisson(15), lambda: gallery.reaction(15)])
def test_the_work_column_sums_to_the_work(make, cycle):
    solution = Solver(make(), cycle, rtol=1e-4).solve(np.ones(15) / 16)
    table, total = rows(solution.explain())
    assert sum(work for _, work, _ in table.values()) == pytest.approx(solution.work, rel=2e-3)
    assert float(total[-1]) == pytest.approx(solution.work, rel=1e-3)
    assert int(total[1]) == solution.cycles
    visits = Counter((str(e.step.level), e.step.action[:6]) for e in solution.record)
    assert {key: row[0] for key, row in table.items() if key[1] != "checks"} == visits
    assert table["", "checks"][:2] == (solution.cycles + 1, solution.cycles + 1)


def test_reductions_are_those_of_the_last_cycle():
    # One level, Richardson with known factor 1/2 on every entry.
    hierarchy = Hierarchy([Level(np.eye(3), Jacobi(0.5))])
    table, _ = rows(Solver(hierarchy, "pre 1, post 2", max_cycles=3).solve(np.ones(3)).explain())
    assert table["0", "pre"][2] == "0.500"
    assert table["0", "post"][2] == "0.250"


def test_the_product_of_the_reductions_is_that_of_the_cycle():
    solution = Solver(gallery.poisson(31), "V(2,1)", max_cycles=3, rtol=0.0).solve(np.ones(31))
    table, _ = rows(solution.explain())
    product = np.prod([float(table["0", step][2]) for step in ("pre", "up", "post")])
    last = solution.residual_norms[-1] / solution.residual_norms[-2]
    assert product == pytest.approx(last, rel=0.02)


def test_explain_counts_no_work_and_changes_nothing():
    solution = Solver(gallery.reaction(15), "F(1,1)").solve(np.ones(15) / 16)
    work, value = solution.work, solution.value.copy()
    first, second = (rows(solution.explain())[0] for _ in range(2))
    assert first == second
    assert solution.work == work
    np.testing.assert_array_equal(solution.value, value)


def test_refused_corrections_are_listed():
    fine, coarse = gallery.poisson(15, levels=2)
    level = Level(fine.matrix, Jacobi(), fine.transfer, line_search=lambda level, u, d, f, r: 0.0)
    solution = Solver(Hierarchy([level, coarse]), max_cycles=4).solve(np.ones(15))
    table, _ = rows(solution.explain())
    assert table["0", "up"][2] == "1.000 (0 full, 0 shortened, 4 refused)"
    assert "refused" not in Solver(gallery.poisson(15)).solve(np.ones(15)).explain()


def test_corrections_are_counted_by_what_the_line_search_said():
    lengths = iter([1.0, 0.25, 0.0, 1.0, 0.5])
    levels = gallery.poisson(15, levels=3)
    guarded = Level(
        levels[1].matrix,
        Jacobi(),
        levels[1].transfer,
        line_search=lambda level, u, d, f, r: next(lengths),
    )
    hierarchy = Hierarchy([levels[0], guarded, levels[2]])
    solution = Solver(hierarchy, rtol=0.0, max_cycles=5).solve(np.ones(15))
    assert solution.corrections[0] == Corrections(5, 0, 0, (1.0,) * 5)
    assert solution.corrections[1] == Corrections(2, 2, 1, (1.0, 0.25, 0.0, 1.0, 0.5))
    lengths = iter([1.0])  # `explain` repeats a cycle
    assert "(2 full, 2 shortened, 1 refused)" in solution.explain()


def test_a_solve_without_cycles():
    solution = Solver(gallery.poisson(7)).solve(np.zeros(7))
    table, _ = rows(solution.explain())
    assert table == {("", "checks"): (1, 1.0, "-")}


@pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered")
@pytest.mark.parametrize(("cycle", "cycles"), [("V(200,200)", 0), ("V(20,20)", 1)])
def test_a_solve_that_broke_off(cycle, cycles):
    # Without a tolerance test: divergence to Inf in the first or in a later cycle.
    hierarchy = gallery.poisson(7, smoother=Jacobi(50.0))
    hierarchy = Hierarchy(hierarchy.levels, bind=lambda batch: hierarchy.levels)
    solution = Solver(hierarchy, cycle, batches=range(50)).solve(np.ones(7))
    assert solution.reason.name == "NOT_FINITE" and solution.cycles >= cycles
    table, _ = rows(solution.explain())
    assert sum(work for _, work, _ in table.values()) == pytest.approx(solution.work, rel=2e-3)


def test_reductions_are_measured_in_the_norm_of_the_hierarchy():
    level = Level(np.eye(3), Jacobi(0.5))
    hierarchy = Hierarchy([level], norm=lambda u: 100.0 * vector.norm(u))
    table, _ = rows(Solver(hierarchy, "pre 1", max_cycles=3).solve(np.ones(3)).explain())
    assert table["0", "pre"][2] == "0.500"


def test_an_equation_is_printed_in_one_line():
    solution = Solver(gallery.poisson(31)).solve(np.ones(31))
    first, last = solution.residual_norms[0], solution.residual_norms[-1]
    factor = (last / first) ** (1.0 / solution.cycles)
    assert str(solution) == (
        f"converged (RTOL) after {solution.cycles} cycles: residual norm {last:.3g} from "
        f"{first:.3g} (factor {factor:.3g} per cycle), {solution.work:.4g} work units, "
        f"{solution.seconds:.3g} s"
    )
    assert solution.values == ()
    capped = Solver(gallery.poisson(31), max_cycles=1).solve(np.ones(31))
    assert str(capped).startswith("not converged (MAX_CYCLES) after 1 cycles: ")
    assert str(capped).endswith(f" s; {Reason.MAX_CYCLES.value}")
