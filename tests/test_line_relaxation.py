"""Lines are solved exactly, in the order of axes and colours; anisotropy does not slow a cycle."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp

from mgnet import Direct, Hierarchy, Level, LineRelaxation, Solver, gallery, interpolation_matrix
from mgnet.options import parse_smoother
from tests.smoother_laws import check_laws, swept


def lines_of(shape, axis):
    """List the unknowns of every line along an axis, with the other indices of the line."""
    grid = np.arange(np.prod(shape)).reshape(shape)
    others = [range(n) for k, n in enumerate(shape) if k != axis]
    for index in itertools.product(*others):
        yield index, grid[tuple(np.insert(np.array(index, object), axis, slice(None)))]


def by_hand(smoother, shape):
    """Make the sweep by dense solves, one line after the other."""
    axes = range(len(shape)) if smoother.axes == "alternating" else np.atleast_1d(smoother.axes)
    zebra = smoother.order == "zebra"
    omega = smoother.omega or (1.0 if zebra else 2 / 3)

    def colour(index):
        return sum((i + smoother.offset) % 2 for i in index) % 2

    stages = [(axis, c) for axis in axes for c in ((0, 1) if zebra else (None,))]
    orders = {"forward": stages, "backward": stages[::-1], "symmetric": stages + stages[::-1]}

    def sweep(A, u, f):
        for axis, wanted in orders[smoother.direction]:
            r, u = f - A @ u, u.copy()
            for index, line in lines_of(shape, axis):
                if wanted is None or colour(index) == wanted:
                    u[line] += omega * np.linalg.solve(A[np.ix_(line, line)], r[line])
        return u.astype(f.dtype if f.dtype.kind == "c" else u.dtype)

    return sweep


@pytest.mark.parametrize(
    ("smoother", "shape"),
    [
        (LineRelaxation(), (4, 5)),
        (LineRelaxation(offset=0, omega=0.9), (5, 4)),
        (LineRelaxation(1, "jacobi"), (3, 4)),
        (LineRelaxation(0, direction="backward"), (4, 5)),
        (LineRelaxation(direction="symmetric"), (2, 3, 3)),
        (LineRelaxation((2, 0)), (3, 2, 3)),
        (LineRelaxation(order="jacobi", omega=0.8), (3, 3, 2)),
        (LineRelaxation(), (7,)),
        (LineRelaxation(), (1, 6)),
        (LineRelaxation(), (1,)),
    ],
    ids=str,
)
def test_a_sweep_is_dense_solves_line_by_line(smoother, shape):
    n = int(np.prod(shape))
    check_laws(smoother, by_hand(smoother, shape), n, shape)
    own = replace(smoother, shape=shape)
    A, f = sp.random(n, n, 0.5, random_state=0) + 5 * sp.eye(n), np.ones(n)
    shaped = swept(smoother, Level(A.tocsr(), smoother, shape=shape), 0 * f, f)
    np.testing.assert_array_equal(swept(own, Level(A.tocsr(), own), 0 * f, f), shaped)


def second(n, periodic=False, wide=False):
    """Make minus the second difference, of second or of fourth order."""
    weights = {-2: 1 / 12, -1: -4 / 3, 0: 5 / 2, 1: -4 / 3, 2: 1 / 12}
    weights = weights if wide else {-1: -1.0, 0: 2.0, 1: -1.0}
    D = np.zeros((n, n))
    for i in range(n):
        for k, weight in weights.items():
            if periodic or 0 <= i + k < n:
                D[i, (i + k) % n] += weight
    return sp.csr_matrix(D)


def anisotropic(n, eps, periodic=False, wide=False):
    D, one = second(n, periodic, wide), sp.eye(n)
    return sp.csr_matrix(sp.kron(D, one) + eps * sp.kron(one, D))


@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("n", [6, 7])
def test_bands_of_any_width_and_periodic_ones(n, wide, periodic):
    A = sp.csr_matrix(anisotropic(n, 0.1, periodic, wide) + 0.1 * sp.eye(n * n))
    draw = np.random.default_rng(0)
    u, f = draw.standard_normal((2, n * n))
    for smoother in (LineRelaxation(), LineRelaxation(0, "jacobi")):
        result = swept(smoother, Level(A, smoother, shape=(n, n)), u, f)
        expected = by_hand(smoother, (n, n))(A.toarray(), u, f)
        np.testing.assert_allclose(result, expected, rtol=1e-12, atol=1e-12)


def test_periodic_lines_keep_a_narrow_band():
    """A line of 400 points that is closed to a ring takes little memory."""
    n = 400
    smoother = LineRelaxation(0)
    A = sp.csr_matrix(sp.kron(second(n, periodic=True), sp.eye(2)) + sp.eye(2 * n))
    stage, *_ = smoother.start(Level(A, smoother, shape=(n, 2)), np.zeros(2 * n))
    held = [cell.cell_contents for cell in stage.solve.args[0].__closure__]
    assert max(x.size for x in held if isinstance(x, np.ndarray)) <= 7 * n


def test_entries_in_several_parts_are_added():
    A = sp.csr_matrix(anisotropic(5, 0.3) + sp.eye(25))
    split = sp.csr_matrix((np.repeat(A.data, 2), np.repeat(A.indices, 2), 2 * A.indptr), A.shape)
    split.data *= 0.5
    smoother, f = LineRelaxation(), np.arange(25.0)
    result = swept(smoother, Level(split, smoother, shape=(5, 5)), 0 * f, f)
    expected = swept(smoother, Level(A, smoother, shape=(5, 5)), 0 * f, f)
    np.testing.assert_allclose(result, expected, rtol=1e-14)


@pytest.mark.parametrize("eps", [1.0, 0.1, 1e-3])
@pytest.mark.parametrize("omega", [1.0, 0.8])
def test_line_jacobi_has_the_factors_of_fourier_analysis(eps, omega):
    """On a periodic grid the symbol is exact: 1 - w + w eps cos(t) / (1 - cos(s) + eps)."""
    n, smoother = 8, LineRelaxation(0, "jacobi", omega=omega)
    A = sp.csr_matrix(anisotropic(n, eps, periodic=True))
    level = Level(A, smoother, shape=(n, n))
    x = 2 * np.pi * np.arange(n) / n
    for s, t in ((1, 3), (0, 4), (4, 1), (2, 2)):
        mode = np.exp(1j * (s * x[:, None] + t * x)).ravel()
        c, d = np.cos(2 * np.pi * s / n), np.cos(2 * np.pi * t / n)
        factor = 1 - omega + omega * eps * d / (1 - c + eps)
        np.testing.assert_allclose(swept(smoother, level, mode, None), factor * mode, atol=1e-12)


def hierarchy(n, eps, smoother, post=None):
    """Standard coarsening; the coarse operators are the same stencil."""
    sizes = [n]
    while sizes[-1] > 1:
        sizes.append((sizes[-1] - 1) // 2)
    P = [interpolation_matrix(m, degree=1) for m in sizes[1:]]
    return Hierarchy.from_matrices(
        [anisotropic(m, eps) for m in sizes],
        [sp.csr_matrix(sp.kron(p, p)) for p in P],
        smoother=smoother,
        post_smoother=post,
        shapes=[(m, m) for m in sizes],
    )


def factor(hierarchy, **options):
    f = np.random.default_rng(0).standard_normal(hierarchy[0].unknowns)
    norms = Solver(hierarchy, "V(1,1)", rtol=1e-9, max_cycles=40, **options).solve(f).residual_norms
    return (norms[-1] / norms[0]) ** (1 / (len(norms) - 1))


@pytest.mark.parametrize("eps", [1.0, 1e-1, 1e-2, 1e-3, 1e-6, 1e3])
def test_anisotropy_does_not_slow_a_cycle(eps):
    for n in (31, 127):
        forward, backward = LineRelaxation(), LineRelaxation(direction="backward")
        assert factor(hierarchy(n, eps, forward)) < 0.08
        assert factor(hierarchy(n, eps, forward, backward)) < 0.08
    if eps < 1:
        assert factor(hierarchy(63, eps, LineRelaxation(0))) < 0.08
        # The other lines do not help.
        assert eps > 0.05 or factor(hierarchy(63, eps, LineRelaxation(1))) > 0.5


def test_a_forward_and_a_backward_sweep_make_a_symmetric_cycle():
    forward, backward = LineRelaxation(), LineRelaxation(direction="backward")
    for pair in ((forward, backward), (LineRelaxation(order="jacobi"),) * 2):
        solver = Solver(hierarchy(7, 0.1, *pair), "V(1,1)")
        M = solver.as_preconditioner() @ np.eye(49)
        np.testing.assert_allclose(M, M.T, atol=1e-13)
        assert np.linalg.eigvalsh((M + M.T) / 2).min() > 0


def test_the_gallery_tells_its_shape():
    levels = gallery.poisson((15, 31), smoother=LineRelaxation(1))
    assert [level.shape for level in levels] == [(15, 31), (7, 15), (3, 7), (1, 3)]
    assert Solver(levels).solve(np.ones(15 * 31)).reason.name == "RTOL"
    cubic = gallery.reaction((15, 15), smoother=LineRelaxation())
    assert Solver(cubic).solve(np.ones(225)).reason.name == "RTOL"
    cube = gallery.poisson((15, 15, 15), smoother=LineRelaxation())
    assert factor(cube) < 0.08


@pytest.mark.parametrize(
    "smoother", [LineRelaxation(), LineRelaxation((1, 0), "jacobi", 0.5, "backward", (3, 4), 0)]
)
def test_text(smoother):
    assert parse_smoother(repr(smoother)) == smoother
    assert hash(smoother) == hash(replace(smoother))


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"axes": "x"}, "axes 'x'; give the number of an axis"),
        ({"axes": -1}, "axes -1; give the number of an axis"),
        ({"axes": ()}, r"axes \(\); give"),
        ({"axes": (0, 1.0)}, "give the number of an axis"),
        ({"order": "rows"}, "order 'rows'; it must be 'zebra' or 'jacobi'"),
        ({"omega": 0.0}, "omega 0.0; give a number above 0"),
        ({"direction": "up"}, "direction 'up'; it must be 'forward'"),
        ({"shape": (3, 0)}, r"shape \(3, 0\); give a tuple of positive integers"),
        ({"shape": 9}, "shape 9; give a tuple of positive integers"),
        ({"offset": 2}, "offset 2; it must be 0 or 1"),
    ],
)
def test_parameters_are_checked(arguments, why):
    with pytest.raises(ValueError, match=why):
        LineRelaxation(**arguments)


@pytest.mark.parametrize(
    ("smoother", "shape", "why"),
    [
        (LineRelaxation(), (), "level 1 has no shape of the grid; give Level.shape"),
        (LineRelaxation(shape=(3, 3)), (), "is 9 points, but the level has 12 unknowns"),
        (LineRelaxation(2), (3, 4), r"runs along axis 2, but .*\(3, 4\): its axes are 0 to 1"),
    ],
)
def test_grids_that_do_not_fit(smoother, shape, why):
    level = Level(sp.eye(12).tocsr(), smoother, shape=shape, name="level 1")
    for ask in (lambda: smoother.start(level, np.zeros(12)), lambda: smoother.work(level, 1)):
        with pytest.raises(ValueError, match=why):
            ask()


@pytest.mark.parametrize("shape", [(3, 5), (), [3, 4], (3, 4.0), (12, 0)])
def test_shapes_of_a_level(shape):
    if shape == ():
        assert Level(sp.eye(12), Direct()).shape == ()
        return
    with pytest.raises(ValueError, match="level 1 got shape"):
        Level(sp.eye(12), Direct(), shape=shape, name="level 1")


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
@pytest.mark.parametrize("wide", [False, True])
def test_a_singular_line_is_refused(dtype, wide):
    smoother, n = LineRelaxation(0), 5
    D = second(n).toarray()
    D[0, 0] = D[-1, -1] = 1.0  # Neumann
    A = np.kron(D, np.eye(3))
    A[1::3, 1::3] += np.eye(n)  # the second line is not
    A[2::3, 2::3] += np.eye(n)
    if wide:
        A[0, 6] = A[6, 0] = 1e-30
    level = Level(sp.csr_matrix(A.astype(dtype)), smoother, shape=(n, 3), name="level 3")
    with pytest.raises(
        ValueError, match="on level 3: the line along axis 0 through unknown (12|9)"
    ):
        smoother.start(level, np.zeros(15, dtype))


def test_from_matrices_takes_a_shape_for_each_level():
    with pytest.raises(ValueError, match="got 1 matrices and 2 shapes; give one for each level"):
        Hierarchy.from_matrices([sp.eye(4)], [], shapes=[(2, 2), (1, 1)])
