"""Law: the text that a smoother or an acceleration prints makes it again."""

import pytest

from mgnet import Anderson, Chebyshev, Direct, GaussSeidel, Jacobi, Krylov
from mgnet.options.smoother_text import parse_acceleration, parse_smoother
from mgnet.training import LBFGS


@pytest.mark.parametrize(
    "smoother",
    [
        Jacobi(0.8),
        GaussSeidel("backward"),
        Chebyshev(2),
        Chebyshev(4, kind="fourth"),
        Direct("pinv"),
        Krylov(),
    ],
)
def test_round_trip(smoother):
    assert parse_smoother(repr(smoother)) == smoother
    assert parse_smoother(type(smoother).__name__) == type(smoother)()


def test_with_or_without_the_package():
    for text in ("mgnet.training.LBFGS(history=3)", " LBFGS ( history = 3 ) "):
        assert parse_smoother(text) == LBFGS(history=3)
    assert parse_smoother("mgnet.Jacobi") == Jacobi()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("jacobi", "not a smoother; the nearest is Jacobi; if it is one of your own"),
        ("KspSmother", "the nearest is KSPSmoother; "),
        ("Jacobi(omga=1)", "unexpected keyword argument 'omga'"),
        ("GaussSeidel('up')", "must be 'forward', 'backward'"),
        ("Jacobi(", "expected a smoother and plain values"),
        ("Jacobi(open('x'))", "expected a smoother and plain values"),
        ("math.sqrt", "may not import; in the script, allow it by mgnet.options.register_smoother"),
        ("no.such.Thing", "may not import"),
        ("mgnet.Jacoby", "the nearest is Jacobi; "),
        (
            "Richardson(0.1)",
            "not a smoother; for matrices there are .*GaussSeidel.*; if it is .* by "
            "mgnet.options.register_smoother$",
        ),
        ("Jacobi(0.8, 0.9)", r"expected Jacobi\(omega=.*\)$"),
        ("Jacobi(size=1)", r"expected Jacobi\(omega=.*\)$"),
        ("TorchOptimizer", r"expected TorchOptimizer\(\w+"),
        ("mgnet.app.cli.main", "is not a smoother"),
        ("Jacobi(omega=1, omega=2)", "expected a smoother and plain values"),
        ("Jacobi(1)(2)", "expected a smoother and plain values"),
        ("Jacobi({[]: 1})", "expected a smoother and plain values"),
        ("Jacobi(" + 300 * "[" + 300 * "]" + ")", "expected a smoother and plain values"),
        ("Jacobi(" + 400 * "-" + "1)", "expected a smoother and plain values"),
        ("Jacobi(9**9**9)", "expected a smoother and plain values"),
        ("Jacobi(1" + 900 * "0" + ")", "give a number above 0"),
        ("Jacobi(1e999)", "give a number above 0"),
        ("Jacobi.Jacobi" + 300 * ".a", "may not import"),
        ("Jacobi(0.8)" + 1000 * " ", "of 1011 characters, more than 1000"),
        ("\u00e9(1)", "expected a smoother and plain values"),
        ("Jacobi\0", "expected a smoother and plain values"),
    ],
)
def test_refusals(text, complaint):
    with pytest.raises(ValueError, match=f"^option -x got .*{complaint}"):
        parse_smoother(text, "option -x")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Anderson", Anderson()),
        (repr(Anderson(8, 0.5)), Anderson(8, 0.5)),
        ("none", None),
    ],
)
def test_accelerations(text, expected):
    assert parse_acceleration(text) == expected


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (
            "anderson",
            "expected CG, GMRES, FGMRES or Anderson and plain values, such as GMRES",
        ),
        ("Jacobi(0.8)", "expected CG, GMRES, FGMRES or Anderson"),
        ("Anderson(", "expected CG, GMRES, FGMRES or Anderson"),
        ("Anderson(0)", "memory of 1, 2"),
        ("Anderson(depth=5)", "unexpected keyword argument 'depth'"),
    ],
)
def test_refused_accelerations(text, complaint):
    with pytest.raises(ValueError, match=f"^option -x got .*{complaint}"):
        parse_acceleration(text, "option -x")
