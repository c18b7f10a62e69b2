"""Law: with options, the solver is the one that a script would write by hand."""

import json

import numpy as np
import pytest

from mgnet import (
    Anderson,
    Direct,
    GaussSeidel,
    Hierarchy,
    Jacobi,
    LineRelaxation,
    Solver,
    cycle,
    gallery,
    parse,
)
from mgnet.options.reader import _helped
from mgnet.options.solver_options import solver_from_options

F = np.sin(np.arange(961.0))


def test_without_options_it_is_the_script_s():
    hierarchy = gallery.poisson((31, 31))
    solver = solver_from_options(hierarchy, prefix="none_", cycle="F(2,1)", rtol=1e-3)
    assert solver.hierarchy is hierarchy
    assert solver.schedule == parse("F(2,1)", 5)
    expected = Solver(hierarchy, "F(2,1)", 1e-3).solve(F).residual_norms
    assert solver.solve(F).residual_norms == expected


def test_options_make_the_same_solver(options):
    options(
        '-a_mgnet_cycle "nested V(1,2)" -a_mgnet_levels 3 -a_mgnet_sweeps 2 -a_mgnet_rtol 1e-5'
        " -a_mgnet_levels_1_sweeps 3 -a_mgnet_levels_2_sweeps 4 -a_mgnet_max_cycles 9"
        ' -a_mgnet_smoother "Jacobi(0.8)" -a_mgnet_levels_1_smoother "GaussSeidel(\'backward\')"'
    )
    solver = solver_from_options(gallery.poisson((31, 31), post_smoother=Jacobi(0.1)), prefix="a_")
    levels = list(solver.hierarchy)
    assert [level.smoother for level in levels] == [Jacobi(0.8), GaussSeidel("backward"), Direct()]
    assert all(level.post_smoother is None for level in levels)
    text = "start, solve 4, interpolate, pre 3, down, solve 4, up, post 3, interpolate, pre 2, "
    text += "down, pre 3, down, solve 4, up, post 3, up, post 2"
    assert solver.schedule == parse(text, 3)
    byhand = gallery.poisson((31, 31), levels=3, smoother=Jacobi(0.8))
    byhand = Hierarchy([byhand[0], levels[1], byhand[2]])
    expected = Solver(byhand, text, 1e-5, max_cycles=9).solve(F).residual_norms
    assert solver.solve(F).residual_norms == expected


def test_lines_for_all_levels(options):
    options(
        "-s_mgnet_smoother LineRelaxation(0) -s_mgnet_cycle V(1,1) "
        "-s_mgnet_post_smoother \"LineRelaxation(0, direction='backward')\""
    )
    solver = solver_from_options(gallery.poisson((31, 7)), prefix="s_")
    pair = LineRelaxation(0), LineRelaxation(0, direction="backward")
    byhand = Solver(gallery.poisson((31, 7), None, *pair), "V(1,1)")
    f = np.ones(31 * 7)
    np.testing.assert_array_equal(
        solver.solve(f).residual_norms, byhand.solve(f).require().residual_norms
    )


def test_smoothers_after_the_correction_and_on_the_coarsest_level(options):
    options("-b_mgnet_post_smoother GaussSeidel -b_mgnet_coarse_solver \"Direct('pinv')\"")
    hierarchy = gallery.poisson(7, levels=2, smoother=Jacobi(0.5))
    solver = solver_from_options(hierarchy, prefix="b_")
    parts = [(level.smoother, level.post_smoother) for level in solver.hierarchy]
    assert parts == [(Jacobi(0.5), GaussSeidel()), (Direct("pinv"), None)]


def test_recentred_levels_have_the_options_too(options):
    torch = pytest.importorskip("torch")
    from mgnet.knots import KAN, knot_hierarchy
    from mgnet.training import LBFGS, Broyden, LeastSquares, LevenbergMarquardt

    kan, x = KAN([1, 1], 2), torch.linspace(-1, 1, 20, dtype=torch.float64).unsqueeze(1)
    hierarchy = knot_hierarchy(kan, LeastSquares(kan, (x, x)), 4, LevenbergMarquardt())
    options("-e_mgnet_levels 3 -e_mgnet_levels_1_smoother mgnet.training.LBFGS")
    options("-e_mgnet_coarse_solver mgnet.training.Broyden")
    levels = solver_from_options(hierarchy, prefix="e_").hierarchy
    below = levels[0].recenter(levels[0].operator.start())
    coarsest = below.recenter(0.0 * levels[1].operator.start())
    assert [level.smoother for level in (*levels, below, coarsest)] == [
        LevenbergMarquardt(),
        *2 * [LBFGS(), Broyden()],
    ]
    assert levels[2].recenter is None


def test_batches_get_the_same_smoothers(options):
    model = gallery.poisson(7)
    hierarchy = Hierarchy(list(model), bind=lambda batch: list(model))
    options("-c_mgnet_smoother GaussSeidel")
    bound = solver_from_options(hierarchy, prefix="c_").hierarchy.with_data(None)
    assert bound[0].smoother == GaussSeidel()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", Anderson(3)),
        ("-k_mgnet_acceleration Anderson(8,0.5)", Anderson(8, 0.5)),
        ("-k_mgnet_acceleration none", None),
    ],
)
def test_the_acceleration_of_the_cycles(options, capfd, line, expected):
    options(f"{line} -k_mgnet_view ascii")
    hierarchy = gallery.poisson((31, 7))
    solver = solver_from_options(hierarchy, prefix="k_", acceleration=Anderson(3))
    assert ("acceleration: Anderson(memory=" in capfd.readouterr().out) == (expected is not None)
    byhand = Solver(hierarchy, acceleration=expected).solve(F[:217])
    assert solver.solve(F[:217]).residual_norms == byhand.residual_norms


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (
            "-mgnet_acceleration BiCGStab",
            "option -mgnet_acceleration got 'BiCGStab'; expected CG, GMRES",
        ),
        ("-mgnet_cycel V", "option -mgnet_cycel is unknown; the nearest is -mgnet_cycle "),
        ("-mgnet_cycle V", "option -mgnet_cycle: cycle 'V', character 2: .*expected '\\('"),
        ("-mgnet_levels 9", "option -mgnet_levels got '9'; this hierarchy has 3 levels"),
        ("-mgnet_levels_3_sweeps 2", "option -mgnet_levels_3_sweeps is for no level; .* 0 to 2"),
        ("-mgnet_levels_1_sweeps x", "option -mgnet_levels_1_sweeps got 'x'; .* integer"),
        ("-mgnet_smoother Jacoby", "option -mgnet_smoother got 'Jacoby', .* Jacobi"),
        ("-mgnet_levels_0_smoother Jacoby", "option -mgnet_levels_0_smoother got"),
    ],
)
def test_errors(options, line, complaint):
    options(line)
    with pytest.raises(ValueError, match=f"^{complaint}"):
        solver_from_options(gallery.poisson(7))


def test_the_script_s_own_error_is_not_blamed_on_an_option():
    with pytest.raises(ValueError, match="^cycle 'V', character 2"):
        solver_from_options(gallery.poisson(7), prefix="d_", cycle="V")


def test_monitor_in_the_form_of_petsc(options, capfd):
    seen = []
    options("-train_mgnet_monitor -train_mgnet_max_cycles 1")
    hierarchy = gallery.poisson(7)
    solver = solver_from_options(
        hierarchy, prefix="train_", monitor=lambda entry, state: seen.append(entry)
    )
    solution = solver.solve(np.ones(7))
    norms = solution.residual_norms
    lines = capfd.readouterr().out.splitlines()
    assert lines == [
        "  Residual norms for train_ solve.",
        f"  0 mgnet Residual norm {norms[0]:14.12e}",
        f"  1 mgnet Residual norm {norms[1]:14.12e}",
    ]
    assert seen == list(solution.history)


@pytest.mark.parametrize("kind", ["", "table", "ascii", "json"])
def test_views(options, capfd, kind):
    hierarchy = gallery.poisson(7, post_smoother=GaussSeidel())
    options(f"-v_mgnet_view {kind}")
    solver_from_options(hierarchy, prefix="v_", cycle="F(1,1)")
    text = capfd.readouterr().out
    if kind in ("", "table"):
        assert text == f"{hierarchy}\n\ncycle F(1,1)\n{cycle(3, 2)}\n"
    elif kind == "ascii":
        assert "mgnet Solver Object:\n  cycle: F(1,1)\n" in text
        assert "post-smoother: GaussSeidel('forward')" in text
    else:
        told = json.loads(text)
        assert told["acceleration"] is None
        assert told["steps"] == cycle(3, 2).text
        assert [level["unknowns"] for level in told["levels"]] == [7, 3, 1]


def test_help_shows_current_values_once(options, capfd):
    _helped.discard(("h_", "solver"))
    options("-help -h_mgnet_cycle F(1,1) -h_mgnet_levels_1_sweeps 3")
    for _ in range(2):
        solver_from_options(gallery.poisson(7), prefix="h_", rtol=1e-5)
    text = capfd.readouterr().out
    assert text.count("mgnet (solver) options:") == 1
    for line in (
        "-h_mgnet_cycle <now F(1,1) : formerly V(1,1)>: Cycle, cascade",
        "-h_mgnet_rtol <1e-05 : 1e-05>: ",
        "-h_mgnet_levels_1_sweeps <now 3 : formerly none>: ",
        "on one level: -h_mgnet_levels_<n>_smoother",
        "(one of) table ascii json",
    ):
        assert line in text
