"""What a newcomer does wrong is answered in one sentence; what is odd but right simply works.

Each row: what is tried, the error, and words that its message must have. Below: edge cases that
must work, with what they give.
"""

import re

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch import nn

from mgnet import (
    CG,
    Anderson,
    AxisTransfer,
    Backtracking,
    Chebyshev,
    Direct,
    GaussSeidel,
    Hierarchy,
    Injection,
    Jacobi,
    Krylov,
    Level,
    MatrixTransfer,
    Schedule,
    Solver,
    cascade,
    cycle,
    gallery,
    interpolation_matrix,
    nested,
    parse,
    run,
)
from mgnet.depth import (
    AdaptiveCycles,
    CyclesToTolerance,
    DepthSpline,
    FixedCycles,
    LayerParallel,
    Machine,
    ODENet,
    OneStep,
    ResidualBlock,
    TimeParallel,
    best_plan,
    dahlquist,
    depth_hierarchy,
    heat,
    mgrit,
    plan,
)
from mgnet.knots import KAN, FreeKnotKAN, knot_hierarchy
from mgnet.petsc import init, layer_parallel_from_options, parse_smoother, solver_from_options
from mgnet.training import (
    LBFGS,
    Collocation,
    LeastSquares,
    LevenbergMarquardt,
    Objective,
    Term,
    TorchOptimizer,
    box_init_,
    levenberg_marquardt,
    solve_last_layer_,
)

ONE, F = gallery.poisson(15), np.ones(15)
X = torch.rand(20, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = X[:, :1] * X[:, 1:]
KNOTS, MSE, LM = KAN([2, 3, 1], 4), nn.functional.mse_loss, LevenbergMarquardt()
START = LeastSquares(KNOTS, (X, Y)).start()


def solved(f, u=None, hierarchy=ONE):
    return Solver(hierarchy).solve(f, u)


def one_level(operator, smoother=None, **parts):
    return Hierarchy([Level(operator, smoother or Jacobi(), **parts)])


def mlp(width=2):
    return nn.Sequential(nn.Linear(width, 5), nn.Tanh(), nn.Linear(5, 1)).double()


def net(layers=4, **parts):
    return ODENet(nn.Sequential(nn.Linear(4, 4), nn.Tanh()), layers, **parts)


def layers(count=16, *how, **parts):
    return LayerParallel(net(count), *how, **parts)


def fitted(residual, module=None, **how):
    return levenberg_marquardt(residual, module or mlp(), **how)


def loss(data=(X, Y), of=LeastSquares):
    problem = of(KNOTS, data) if of is LeastSquares else Objective(KNOTS, of, data)
    return problem.value(START)


def collocated(residual, points=X, network=None, **parts):
    problem = Collocation(network or KNOTS, [Term(residual, points, **parts)])
    return problem.value(problem.start())


def gated():
    made = net(2, learnable_steps=True)
    x = torch.zeros(3, 4)
    return made, Objective(made, MSE, (x, x))


WRONG = {
    # The solver
    "a matrix": (lambda: Solver(np.eye(3)), TypeError, "ndarray; it takes a Hierarchy"),
    "a list of levels": (lambda: Solver(list(ONE)), TypeError, "list; it takes a Hierarchy"),
    "a step of one state": (
        lambda: OneStep(lambda t, dt, u: np.eye(3) @ u, np.ones(3), np.ones(9)).hierarchy(),
        ValueError,
        r"a function of one state in a loop: np.stack\(\[one\(.each\) for each in zip",
    ),
    "a matrix, with a remedy": (
        lambda: Solver(np.eye(3)),
        TypeError,
        r"from_pyamg\(.*mgnet.solve\(A, b\)$",
    ),
    "a problem in time": (
        lambda: Solver(OneStep(lambda t, dt, u: u, np.ones(2), np.ones(4))),
        TypeError,
        r"it takes a Hierarchy: call the method hierarchy\(",
    ),
    "a matrix as hierarchy": (
        lambda: Hierarchy(np.eye(3)),
        TypeError,
        "Level objects, finest first; for matrices use Hierarchy.from_pyamg",
    ),
    "a text as schedule": (
        lambda: Schedule("V(1,1)"),
        TypeError,
        r"the text 'V\(1,1\)'; give it to parse\(text, levels\)",
    ),
    "a class as smoother": (
        lambda: gallery.poisson(7, smoother=Jacobi),
        TypeError,
        "the class Jacobi as a smoother; give an instance",
    ),
    "a class as acceleration": (
        lambda: Solver(ONE, acceleration=CG),
        TypeError,
        r"the class CG as acceleration; it takes CG\(\)",
    ),
    "two right-hand sides": (
        lambda: solved(np.ones((15, 2))),
        ValueError,
        r"30 entries; .* 15 unknowns; give one right-hand side at a time, such as f\[:, 0\]",
    ),
    "an open bracket": (lambda: Solver(ONE, "V(1,1"), ValueError, "character 6: .*expected '"),
    "a small letter": (lambda: Solver(ONE, "v(1,1)"), ValueError, "got 'v.1,1.'; expected one of"),
    "no sweeps": (lambda: Solver(ONE, "V"), ValueError, "expected '.' and the sweeps"),
    "no cycle": (lambda: Solver(ONE, None), TypeError, "cycle of type NoneType; give a text"),
    "a list as cycle": (lambda: Solver(ONE, [("pre", 0)]), TypeError, "type list; give a text"),
    "rtol as text": (lambda: Solver(ONE, rtol="1e-8"), TypeError, "rtol '1e-8'; .* be a number"),
    "rtol nan": (lambda: Solver(ONE, rtol=np.nan), ValueError, "rtol nan.*not be negative"),
    "no cycles": (lambda: Solver(ONE, max_cycles=0), ValueError, "max_cycles 0.*at least 1"),
    "half a cycle": (lambda: Solver(ONE, max_cycles=1.5), TypeError, "max_cycles 1.5; .* integer"),
    "monitor=True": (lambda: Solver(ONE, monitor=True), TypeError, "monitor of type bool; give a"),
    "acceleration=5": (lambda: Solver(ONE, acceleration=5), TypeError, "type int; it takes CG"),
    "Anderson(2.5)": (lambda: Anderson(2.5), ValueError, "memory of 1, 2"),
    "too short": (lambda: solved(np.ones(14)), ValueError, "f with 14 entries; .* 15 unknowns"),
    "empty f": (lambda: solved(np.ones(0)), ValueError, "f with 0 entries; .* 15 unknowns"),
    "a grid as f": (
        lambda: solved(np.ones((7, 7)), hierarchy=gallery.poisson((7, 7))),
        ValueError,
        r"shape \(7, 7\).*f.ravel",
    ),
    "a number as f": (lambda: solved(1.0), TypeError, "type float; .* NumPy array"),
    "texts as f": (lambda: solved(np.array(["1"] * 15)), TypeError, "f of <U1; give float64"),
    "objects as f": (lambda: solved(F.astype(object)), TypeError, "f of object; give float64"),
    "a tensor as f": (lambda: solved(torch.ones(15)), TypeError, "Tensor .*matrix .* one kind"),
    "integers in torch": (
        lambda: solved(torch.ones(15, dtype=torch.int64)),
        TypeError,
        r"torch.int64; .*f.double\(\)",
    ),
    "torch in two precisions": (
        lambda: solved(torch.ones(3), hierarchy=one_level(torch.eye(3, dtype=torch.float64))),
        TypeError,
        "float32, but .*float64; give both of one kind and precision",
    ),
    "f and u of two kinds": (lambda: solved(F, torch.zeros(15)), TypeError, "both of one kind|one"),
    "f and u of two shapes": (
        lambda: solved(np.ones(2), np.ones(3), one_level(lambda u: u)),
        ValueError,
        r"shape \(2,\) and u of shape \(3,\)",
    ),
    "nothing to solve": (lambda: solved(None), ValueError, "neither f nor u"),
    "no batches": (lambda: Solver(ONE, batches=[]).solve(F), ValueError, "no batches"),
    "batches=3": (lambda: Solver(ONE, batches=3).solve(F), TypeError, "type int; give an iterable"),
    "batches of no data": (
        lambda: Solver(ONE, batches=[1]).solve(F),
        TypeError,
        "first give Hierarchy",
    ),
    "a text to run": (lambda: run("V(1,1)", ONE, None, F), TypeError, "type str; give a Schedule"),
    "another depth": (lambda: run(cycle(3), ONE, None, F), ValueError, "does not fit"),
    # Hierarchies
    "no levels": (lambda: Hierarchy([]), ValueError, "no levels; give at least one"),
    "one level bare": (lambda: Hierarchy(ONE[0]), TypeError, "takes a sequence"),
    "matrices": (lambda: Hierarchy([np.eye(3)]), TypeError, "level 0 is a ndarray; .*finest first"),
    "upside down": (lambda: Hierarchy(ONE[::-1]), TypeError, "level 0 has a transfer of type None"),
    "not square": (lambda: one_level(np.ones((3, 2))), ValueError, r"\(3, 2\); .*must be square"),
    "a smoother's class": (lambda: gallery.poisson(7, smoother=Jacobi), TypeError, "as Jacobi"),
    "a smoother's name": (lambda: gallery.poisson(7, smoother="jacobi"), TypeError, "type str; "),
    "a matrix too many": (
        lambda: Hierarchy.from_matrices([np.eye(3)], [np.eye(3)]),
        ValueError,
        "1 matrices, 1 prolongations",
    ),
    "P the other way": (
        lambda: Hierarchy.from_matrices([np.eye(3), np.eye(2)], [np.ones((2, 3))]),
        ValueError,
        r"shape \(2, 3\); .* must be \(3, 2\)",
    ),
    "P as lists": (
        lambda: Hierarchy.from_matrices([np.eye(2), np.eye(1)], [[[1.0], [1.0]]]),
        TypeError,
        "list as a matrix; give numpy.array",
    ),
    "no PyAMG": (lambda: Hierarchy.from_pyamg(np.eye(3)), TypeError, "give PyAMG's solver"),
    "a check too short": (lambda: ONE.check(np.zeros(3)), ValueError, "3 entries; .* 15 unknowns"),
    "an operator that cuts": (
        lambda: solved(np.ones(3), hierarchy=one_level(lambda u: u[:-1])),
        TypeError,
        r"ndarray \(3,\).* to ndarray \(2,\).*keep kind and shape",
    ),
    "an operator without return": (
        lambda: solved(np.ones(3), hierarchy=one_level(lambda u: None)),
        TypeError,
        "to NoneType; it must keep",
    ),
    "an operator without matrix": (
        lambda: solved(np.ones(2), hierarchy=one_level(lambda u: u, GaussSeidel())),
        TypeError,
        "give Level.linearize=",
    ),
    "a zero on the diagonal": (
        lambda: solved(np.ones(2), hierarchy=one_level(np.eye(2)[::-1].copy())),
        ValueError,
        "zeros on its diagonal",
    ),
    "a singular matrix": (
        lambda: solved(np.ones(2), hierarchy=one_level(np.ones((2, 2)), Direct())),
        ValueError,
        r"singular .*use Direct\('pinv'\)",
    ),
    # Parts
    "points that do not halve": (lambda: gallery.poisson(16), ValueError, "no coarser grid"),
    "no points": (lambda: gallery.poisson(0), ValueError, "positive integers"),
    "15.0 points": (lambda: gallery.poisson(15.0), ValueError, "positive integers"),
    "points as text": (lambda: gallery.sine("15"), ValueError, "positive integers"),
    "four directions": (lambda: gallery.poisson((3,) * 4), ValueError, "1 to 3 positive"),
    "too many levels": (lambda: gallery.poisson(15, levels=9), ValueError, "largest .* is 4"),
    "2.0 levels": (lambda: gallery.poisson(15, levels=2.0), ValueError, "got 2.0 levels"),
    "strength as text": (lambda: gallery.reaction(7, "1"), ValueError, "strength '1'"),
    "10.5 samples": (lambda: gallery.peaks(10.5), ValueError, "peaks got 10.5 samples"),
    "omega as text": (lambda: Jacobi("0.8"), ValueError, "omega '0.8'; give a number above 0"),
    "omega 0": (lambda: Jacobi(0.0), ValueError, "omega 0.0; give a number above 0"),
    "an order of rows": (lambda: GaussSeidel("backwards"), ValueError, "'forward', 'backward'"),
    "degree 2.5": (
        lambda: Chebyshev(2.5),
        ValueError,
        "degree and steps of at least 1",
    ),
    "GMRES": (lambda: Krylov("GMRES"), ValueError, "'GMRES'; it must be 'cg', 'gmres'"),
    "qr": (lambda: Direct("qr"), ValueError, "'qr'; it must be 'lu' or 'pinv'"),
    "decrease 2": (lambda: Backtracking(2.0), ValueError, "between 0 and 1"),
    "cycle of 0": (lambda: cycle(0), ValueError, "levels = 0; .*at least 1"),
    "half a sweep": (lambda: cycle(3, pre=0.5), ValueError, "pre = 0.5; .*integer"),
    "cascade of a number": (lambda: cascade(3), ValueError, "counts 3; .*one integer per level"),
    "nested 0 cycles": (lambda: nested(3, cycles=0), ValueError, "cycles = 0"),
    "a number to parse": (lambda: parse(3, 3), TypeError, "got a int; give a text"),
    "points as text in 1-D": (lambda: interpolation_matrix("3"), TypeError, "must be integers"),
    "a size as text": (lambda: Injection("8"), ValueError, "give integers"),
    "a state of another level": (
        lambda: AxisTransfer(np.ones((3, 2)), axis=0).prolong(np.ones(5)),
        ValueError,
        "axis 0 must have length 2",
    ),
    # Knots
    "one width": (lambda: KAN([2]), ValueError, r"widths \[2\]; .*positive integers"),
    "a width": (lambda: KAN(2), ValueError, "widths 2; .*positive integers"),
    "width 0": (lambda: KAN([2, 0, 1]), ValueError, "positive integers"),
    "width 3.0": (lambda: KAN([2, 3.0, 1]), ValueError, "positive integers"),
    "linear alone": (lambda: KAN([2, 1], linear=True), ValueError, r"\[2, 5, 1\] is the least"),
    "0 intervals": (lambda: KAN([2, 1], 0), ValueError, "intervals 0 .*positive integer"),
    "4.0 intervals": (lambda: KAN([2, 1], 4.0), ValueError, "intervals 4.0 .*positive integer"),
    "intervals per layer": (lambda: KAN([2, 3, 1], [4]), ValueError, "for 2 spline layers"),
    "degree 6": (lambda: KAN([2, 1], 4, 6), ValueError, "degree 6; it must be 1, 2"),
    "degree 2.5 of a KAN": (lambda: KAN([2, 1], 4, 2.5), ValueError, "degree 2.5; it must be 1, 2"),
    "a domain backwards": (lambda: KAN([2, 1], domain=(1, -1)), ValueError, "increasing order"),
    "a domain of one": (lambda: KAN([2, 1], domain=3), ValueError, "two numbers in increasing"),
    "Tanh": (lambda: KAN([2, 1], hidden="Tanh"), ValueError, "'tanh' or 'identity'"),
    "dtype as text": (lambda: KAN([2, 1], dtype="float32"), TypeError, "give torch.float64"),
    "dtype of integers": (lambda: KAN([2, 1], dtype=torch.int32), TypeError, "give torch.float64"),
    "a seed": (lambda: KAN([2, 1], generator=0), TypeError, "torch.Generator.*manual_seed"),
    "free knots": (lambda: FreeKnotKAN([2]), ValueError, "widths"),
    "three inputs": (lambda: KNOTS(X[:, [0, 0, 1]]), ValueError, r"\(20, 3\); it needs \(..., 2\)"),
    "three inputs to a linear": (
        lambda: KAN([2, 3, 1], linear=True)(X[:, [0, 0, 1]]),
        ValueError,
        r"it needs \(..., 2\)",
    ),
    "a number to a KAN": (lambda: KNOTS(X[0, 0]), ValueError, r"shape \(\); it needs"),
    "float32 to a KAN": (lambda: KNOTS(X.float()), TypeError, r"float32.*x.to\(torch.float64\)"),
    "integers to a KAN": (lambda: KNOTS(X.long()), TypeError, r"int64.*x.to\(torch.float64\)"),
    "an array to a KAN": (lambda: KNOTS(X.numpy()), TypeError, "type ndarray; give a tensor"),
    "another device": (lambda: KNOTS(X.to("meta")), ValueError, "on meta, .* on cpu; move one"),
    "one sample to linearize": (lambda: KNOTS.linearize(X[0]), ValueError, r"\(samples, 2\)"),
    "float32 to jacobian": (lambda: KNOTS.jacobian(X.float()), TypeError, "float32"),
    "refine(1)": (lambda: KNOTS.refine(1), ValueError, "factor 1; .*at least 2"),
    "refine(1.5)": (lambda: KNOTS.refine(1.5), ValueError, "factor 1.5; .*integer of at least 2"),
    "layer 2 of two": (lambda: KNOTS.refine(layers=[2]), ValueError, "some of the numbers -2 to 1"),
    "coarsen by 3": (lambda: KNOTS.coarsen(3), ValueError, "divide all"),
    "nothing to compare": (lambda: KNOTS.nesting_defect(X[:0]), ValueError, "no samples"),
    "0 levels of knots": (
        lambda: knot_hierarchy(KNOTS, LeastSquares(KNOTS, (X, Y)), 0, LM),
        ValueError,
        "0 levels; .*at least 1",
    ),
    "no KAN": (
        lambda: knot_hierarchy(mlp(), LeastSquares(mlp(), (X, Y)), 2, LM),
        TypeError,
        "0 KANs in it",
    ),
    "a loss by name": (lambda: knot_hierarchy(KNOTS, "mse", 2, LM), TypeError, "type str; give an"),
    "Adam's class": (
        lambda: knot_hierarchy(KNOTS, LeastSquares(KNOTS, (X, Y)), 2, torch.optim.Adam),
        TypeError,
        r"the class Adam as a smoother; give TorchOptimizer\(torch.optim.Adam, ",
    ),
    "the coarse start": (
        lambda: solved(None, START, knot_hierarchy(KNOTS, LeastSquares(KNOTS, (X, Y)), 2, LM)),
        ValueError,
        "63 entries; level 0 has 99",
    ),
    # Training
    "x alone": (lambda: loss(X), TypeError, r"LeastSquares got data of Tensor; .*\(inputs, targ"),
    "arrays": (lambda: loss((X.numpy(), Y.numpy())), TypeError, "ndarray, ndarray; give two tens"),
    "a target too few": (lambda: loss((X, Y[1:])), ValueError, "20 inputs and 19 targets"),
    "no samples": (lambda: loss((X[:0], Y[:0])), ValueError, "without samples"),
    "flat targets": (lambda: loss((X, Y[:, 0])), ValueError, r"\(20,\) for outputs .*\(20, 1\)"),
    "two targets": (lambda: loss((X, X)), ValueError, r"\(20, 2\) for outputs .*\(20, 1\)"),
    "one parameter": (
        lambda: LeastSquares(KNOTS, (X, Y)).value(START[:1]),
        ValueError,
        "flat tensor of 63 numbers",
    ),
    "a function as a network": (
        lambda: LeastSquares(lambda x: x, (X, Y)),
        TypeError,
        "is a function; give a torch.nn.Module",
    ),
    "nothing to train": (lambda: LeastSquares(nn.Tanh(), (X, Y)), ValueError, "nothing to train"),
    "loss by name": (lambda: loss(of="mse"), TypeError, "loss of type str; give a function"),
    "loss per sample": (
        lambda: loss(of=lambda o, t: (o - t) ** 2),
        TypeError,
        r"returned shape \(20, 1\); .*one number",
    ),
    "loss as a float": (lambda: loss(of=lambda o, t: 1.0), TypeError, "returned 1.0; .*one number"),
    "loss without the module": (
        lambda: Objective.from_torch(KNOTS, lambda m: torch.ones(())).gradient(START),
        ValueError,
        "does not depend on the parameters",
    ),
    "module first": (lambda: fitted(mlp(), lambda m: m(X) - Y), TypeError, "function first, then"),
    "no module": (
        lambda: levenberg_marquardt(lambda m: m(X) - Y, None),
        TypeError,
        "without a module; give the module to train",
    ),
    "a tensor as residual": (lambda: fitted(Y), TypeError, "type Tensor; give a function"),
    "the loss as residual": (
        lambda: fitted(lambda m: (m(X) - Y).square().mean()),
        ValueError,
        "returned one number; it must return all residuals",
    ),
    "an array as residual": (
        lambda: fitted(lambda m: (m(X) - Y).detach().numpy()),
        TypeError,
        "returned ndarray",
    ),
    "detached": (lambda: fitted(lambda m: (m(X) - Y).detach()), ValueError, "does not depend on"),
    "no residuals": (lambda: fitted(lambda m: m(X[:0]) - Y[:0]), ValueError, "no residuals"),
    "nan": (lambda: fitted(lambda m: m(X) * np.nan), ValueError, "check what else the loss"),
    "dropout": (
        lambda: fitted(lambda m: m(X) - Y, nn.Sequential(mlp(), nn.Dropout())),
        ValueError,
        r"not be random: call module.eval\(\)",
    ),
    "frozen": (
        lambda: fitted(lambda m: m(X) - Y, mlp().requires_grad_(False)),
        ValueError,
        "nothing to train",
    ),
    "no steps": (lambda: fitted(lambda m: m(X) - Y, max_cycles=0), ValueError, "max_cycles 0"),
    "Adam by name": (lambda: TorchOptimizer("Adam"), TypeError, "'Adam'; give a class"),
    "an Adam with its parameters": (
        lambda: TorchOptimizer(torch.optim.Adam(mlp().parameters())),
        TypeError,
        "got an instance of Adam; give a class",
    ),
    "an Adam as the smoother": (
        lambda: knot_hierarchy(
            KNOTS, LeastSquares(KNOTS, (X, Y)), 2, torch.optim.Adam(KNOTS.parameters())
        ),
        TypeError,
        r"smoother of type Adam; give TorchOptimizer\(torch.optim.Adam, ",
    ),
    "a misspelt option of Adam": (
        lambda: TorchOptimizer(torch.optim.Adam, {"weight_decai": 0.1}),
        ValueError,
        "which Adam does not have; the nearest is 'weight_decay'",
    ),
    "points as a list": (lambda: Term(lambda u: u.value, [0.0]), ValueError, "tensor of shape"),
    "flat points": (lambda: Term(lambda u: u.value, X[:, 0]), ValueError, r"x.unsqueeze\(1\)"),
    "no points of a term": (lambda: Term(lambda u: u.value, X[:0]), ValueError, "at least one"),
    "points for another network": (
        lambda: collocated(lambda u: u.value, X[:, :1]),
        ValueError,
        r"\(20, 1\); it needs \(samples, 2\)",
    ),
    "points of float32": (lambda: collocated(lambda u: u.value, X.float()), TypeError, "float32"),
    "a third axis": (lambda: collocated(lambda u: u.d(2)), ValueError, "points, 0 to 1"),
    "five derivatives": (
        lambda: collocated(lambda u: u.d(*[0] * 5)),
        ValueError,
        "give one or two",
    ),
    "a mean as residual": (
        lambda: collocated(lambda u: u.value.mean()),
        ValueError,
        r"\(\) for 20",
    ),
    "an outer product": (
        lambda: collocated(lambda u: u.value - u.points[:, 0]),
        ValueError,
        r"\(20, 20\) for 20 points",
    ),
    "a negative weight": (
        lambda: collocated(lambda u: u.value, weight=-1.0),
        ValueError,
        "weight -1.0; it must be finite and not negative",
    ),
    "attention to 3": (
        lambda: collocated(lambda u: u.value, attention=torch.ones(3)),
        ValueError,
        r"shape \(3,\) for 20 points",
    ),
    "coefficients of nothing": (
        lambda: collocated(lambda u: u.coefficients["c"] * u.value),
        AttributeError,
        "needs an Ansatz; give Ansatz",
    ),
    "no terms": (lambda: Collocation(KNOTS, []), ValueError, "no terms"),
    "a term alone": (lambda: Collocation(KNOTS, Term(lambda u: u.value, X)), TypeError, "give .Te"),
    "x and y for batches": (
        lambda: solve_last_layer_(mlp(), (X, Y)),
        TypeError,
        "solve_last_layer_ got data of Tensor; give two tensors",
    ),
    "no batches for the last": (lambda: solve_last_layer_(mlp(), []), ValueError, "no batches"),
    "an empty batch": (
        lambda: solve_last_layer_(mlp(), [(X[:0], Y[:0])]),
        ValueError,
        "without samples",
    ),
    "no last layer": (
        lambda: solve_last_layer_(nn.Sequential(mlp(), nn.Tanh()), [(X, Y)]),
        ValueError,
        "must be a Linear",
    ),
    "no box": (lambda: box_init_(nn.Tanh(), (-1.0, 1.0)), ValueError, "without a Linear"),
    "mu": (lambda: LevenbergMarquardt(mu=-1.0), ValueError, "needs a positive mu"),
    "two targets for the last": (
        lambda: solve_last_layer_(mlp(), [(X, X)]),
        ValueError,
        r"shape \(20, 2\) and .* outputs of shape \(20, 1\)",
    ),
    "complex targets for the last": (
        lambda: solve_last_layer_(mlp(), [(X, 1j * Y)]),
        ValueError,
        "complex128 for real",
    ),
    "float32 for the last": (
        lambda: solve_last_layer_(mlp(), [(X.float(), Y)]),
        TypeError,
        r"inputs of torch.float32 .*x.to\(torch.float64\)",
    ),
    # Depth
    "0 layers": (lambda: net(0), ValueError, "0 layers; it needs at least 1, an int"),
    "layers as text": (lambda: net("8"), ValueError, "'8' layers; it needs at least 1"),
    "T as text": (
        lambda: net(4, final_time="1"),
        ValueError,
        "'1'; it must be positive, a fin",
    ),
    "Euler": (lambda: net(4, scheme="Euler"), ValueError, "did you mean euler"),
    "per_layer": (lambda: net(4, weights="per_layer"), ValueError, "give 'per layer', 'shared'"),
    "a buffer layer": (lambda: net(4, boundary_layers=2), ValueError, "give two numbers"),
    "a class as block": (lambda: ODENet(nn.Linear, 4), TypeError, "Linear as a block; give a mod"),
    "no block": (lambda: ODENet(None, 4), TypeError, "NoneType as a block; give a module"),
    "a block that cuts": (
        lambda: ODENet(nn.Linear(4, 3), 4)(torch.zeros(5, 4)),
        ValueError,
        "must keep the shape",
    ),
    "three columns": (lambda: net()(torch.zeros(5, 3)), ValueError, "takes 4 numbers on the last"),
    "float64 to float32": (lambda: net()(torch.zeros(5, 4).double()), TypeError, r"x.to\(torch.fl"),
    "a time beyond": (lambda: net().trajectory(torch.zeros(1, 4), [2.0]), ValueError, r"in \[0, 1"),
    "no Sequential": (
        lambda: ODENet.from_sequential(nn.Linear(2, 2)),
        TypeError,
        "nn.Sequential, a",
    ),
    "refine layers by 1": (lambda: net().refine(1), ValueError, "factor 1; .*at least 2"),
    "refine by const": (lambda: net().refine(2, "const"), ValueError, "one of steps, constant"),
    "learnable_steps that are not": (
        lambda: net().refine(2, "steps"),
        ValueError,
        "learnable_steps=True, or give",
    ),
    "a plain RNN over time": (
        lambda: TimeParallel(nn.RNN(2, 3)),
        TypeError,
        "plain nn.GRU or nn.LSTM, or a cell",
    ),
    "a time series without features": (
        lambda: TimeParallel(nn.GRUCell(1, 3))(torch.zeros(9)),
        ValueError,
        "give .T, batch, features.",
    ),
    "h0 without its layer": (
        lambda: TimeParallel(nn.GRUCell(1, 3))(torch.zeros(9, 2, 1), torch.zeros(2, 3)),
        ValueError,
        "of shape .1, 2, 3.",
    ),
    "no ODENet": (lambda: LayerParallel(mlp()), TypeError, "give an ODENet"),
    "too many levels of layers": (lambda: layers(16, 9), ValueError, "largest .* is 3"),
    "one layer, two levels": (lambda: layers(1, 2), ValueError, "largest .* is 1"),
    "coarsening 1": (lambda: layers(16, 2, 1), ValueError, "integer of at least 2"),
    "coarsening 4.0": (lambda: layers(16, 2, 4.0), ValueError, "integer of at least 2"),
    "cascade+X": (lambda: layers(forward="cascade+X"), ValueError, "expected V, F or W"),
    "control=2": (lambda: layers(control=2), TypeError, r"control 2; give FixedCycles\(2\)"),
    "control by name": (
        lambda: layers(control="fixed"),
        TypeError,
        r"control 'fixed'; give FixedCycles",
    ),
    "MGRIT": (lambda: layers(mode="MGRIT"), ValueError, "use one of mgrit, serial, auto"),
    "1.5 cycles": (lambda: FixedCycles(1.5), ValueError, "integer of at least 0"),
    "tolerance 0": (lambda: CyclesToTolerance(0.0), ValueError, "above 0"),
    "tolerance as text": (lambda: CyclesToTolerance("0.1"), ValueError, "above 0"),
    "adaptive -1": (lambda: AdaptiveCycles(-1), ValueError, "integer of at least 0"),
    "a plan of 0": (lambda: plan(0), ValueError, "layers = 0"),
    "no ranks": (lambda: plan(8, 0), ValueError, "ranks = 0; give an integer"),
    "a plan too deep": (lambda: plan(8, 2, 4, levels=5), ValueError, "largest .* is 3"),
    "negative seconds": (lambda: Machine(layer_seconds=-1.0), ValueError, "must be positive"),
    "bandwidth 0": (lambda: Machine(bandwidth=0.0), ValueError, "must be positive"),
    "a machine of seconds": (
        lambda: plan(8, 2, 4, "V", 1e-3),
        TypeError,
        r"machine 0.001; give, for example, Machine\(",
    ),
    "cycles=3": (lambda: plan(64, 4, cycles=3), ValueError, r"as \(2, 1\)"),
    "a best plan of 0": (lambda: best_plan(0, 1), ValueError, "layers = 0"),
    "mgrit backwards": (lambda: mgrit("V", 3), TypeError, "got a int; give a text"),
    "0 steps": (lambda: heat(7, 0), ValueError, "0 steps; give an integer"),
    "0 points of a rod": (lambda: heat(0, 4), ValueError, "0 points; give an integer"),
    "0 steps of Dahlquist": (lambda: dahlquist(-1.0, 0), ValueError, "0 steps"),
    "one dt": (lambda: OneStep(1, 2, 3), ValueError, "one dt per step"),
    "0 levels of depth": (lambda: depth_hierarchy(*gated(), 0, LBFGS()), ValueError, "at least 1"),
    "no net to refine": (
        lambda: depth_hierarchy(mlp(), gated()[1], 2, LBFGS()),
        TypeError,
        "Sequential; it refines an ODENet",
    ),
    "an objective by name": (
        lambda: depth_hierarchy(gated()[0], "mse", 2, LBFGS()),
        TypeError,
        "type str; give an Objective",
    ),
    "no control points": (lambda: DepthSpline(0), ValueError, "0 control points"),
    "no residual block": (lambda: ResidualBlock(None), TypeError, "NoneType; give a torch.nn.Mod"),
    # Options
    "no command line": (lambda: init(None), TypeError, "init got None; give a list of texts"),
    "a text as command line": (lambda: init("prog"), TypeError, "got 'prog'; .*as sys.argv"),
    "a number in a command line": (lambda: init(["prog", 3]), TypeError, "list of texts"),
    "levels for options": (
        lambda: solver_from_options([ONE[0]]),
        TypeError,
        "list; it takes a Hier",
    ),
    "a cycle for options": (lambda: solver_from_options(ONE, cycle="X"), ValueError, "got 'X'"),
    "Jacoby": (lambda: parse_smoother("Jacoby(1)", "o"), ValueError, "the nearest is Jacobi"),
    "a smoother cut off": (lambda: parse_smoother("Jacobi(1", "o"), ValueError, "expected a smoo"),
    "no net for options": (lambda: layer_parallel_from_options(mlp()), TypeError, "give an ODENet"),
}


@pytest.mark.parametrize("name", WRONG)
def test_the_answer_is_one_sentence(name):
    call, kind, words = WRONG[name]
    with pytest.raises(kind) as told:
        call()
    message = str(told.value)
    assert re.search(words, message.replace("\n", " ")), message
    assert "mat1" not in message and not re.search(r"\.\s+[A-Z]", message), message


def test_edge_cases_of_the_core_work():
    for points in (1, 2, 3):
        u = solved(np.ones(points), hierarchy=gallery.poisson(points)).require().value
        A = gallery.poisson(points)[0].matrix.toarray()
        np.testing.assert_allclose(u, np.linalg.solve(A, np.ones(points)), rtol=1e-7)
    column = solved(np.ones((15, 1))).value
    np.testing.assert_allclose(column[:, 0], solved(F).value, rtol=1e-12)
    for f in (F.astype(int), F.astype(bool), F.astype(np.float32)):
        np.testing.assert_allclose(solved(f).value, solved(F).value, rtol=1e-4)
    assert solved(np.full(15, np.inf)).reason.name == "NOT_FINITE"
    assert len(gallery.poisson(np.int64(15))) == len(gallery.poisson([15])) == 4
    assert interpolation_matrix(1).shape == (3, 1)
    assert Solver(one_level(sp.eye(4).tocsr(), Direct())).solve(np.ones(4)).reason.converged
    transfer = MatrixTransfer(np.ones((2, 1)))
    assert transfer.prolong(np.ones(1)).shape == (2,)


def test_edge_cases_of_knots_work():
    for samples in (0, 1):
        assert KNOTS(X[:samples]).shape == (samples, 1)
        assert KNOTS.linearize(X[:samples])[0].shape == (samples, 1)
        KNOTS(X[:samples]).sum().backward()
    assert KNOTS(X[0]).shape == (1,)
    one = KAN([2, 1], 1)  # one interval: a cubic
    assert (one.refine()(X) - one(X)).abs().max() < 1e-14
    assert KAN([2, 1], np.int64(4)).intervals == (4,)
    first = 0.5 * (KNOTS(X[:1]) - Y[:1]).detach().square().item()
    assert loss((X[:1], Y[:1])) == pytest.approx(first)
    hierarchy = knot_hierarchy(KNOTS, LeastSquares(KNOTS, (X, Y)), 1, LM)
    value = hierarchy[0].operator.value
    trained = Solver(hierarchy, "V(1,1)", max_cycles=2).solve(u=START).value
    assert value(trained) < value(START)


def test_edge_cases_of_training_work():
    module = mlp()
    fitted(lambda m: m(X[:1]) - Y[:1], module)  # one sample
    assert float((module(X[:1]) - Y[:1]).abs()) < 1e-8
    module = solve_last_layer_(mlp(), [(X[:1], Y[:1])])
    assert float((module(X[:1]) - Y[:1]).abs()) < 1e-12
    flat, column = (solve_last_layer_(mlp_like(module), [(X, y)]) for y in (Y[:, 0], Y))
    torch.testing.assert_close(flat(X), column(X))


def mlp_like(module):
    made = mlp()
    made.load_state_dict(module.state_dict())
    return made


def test_edge_cases_of_depth_work():
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    one = net(np.int64(1))
    assert type(one.depth) is int and type(net(np.int32(3)).refine().depth) is int
    torch.testing.assert_close(one(x), x + one.layer(0).block(x))
    for made in (LayerParallel(one, 1), layers(5, 3, 2)):
        made.control = FixedCycles(8)
        torch.testing.assert_close(made(x), made.net(x))
        assert made(x[:0]).shape == (0, 4)
        torch.testing.assert_close(made(x[0]), made.net(x[0]))
    word, words = (layers(16, relaxation=given) for given in ("FCF", ("FCF",)))
    words.load_state_dict(word.state_dict())
    torch.testing.assert_close(word(x), words(x), rtol=0.0, atol=0.0)
    assert heat(1, 1).serial().shape == (2, 1)
    assert plan(1, 1, levels=1).speedup == best_plan(1, 1).speedup == 1.0
    assert plan(8, 100, 4).ranks == 100
    assert init(["script.py"]) == ["script.py"]


def test_integers_of_numpy_count_as_integers(tmp_path):
    """As `np.arange` gives them to a loop or a grid search."""
    two, four, many = np.int64(2), np.int32(4), np.uint8(16)
    for made, plain in (
        (cycle(four, pre=two), cycle(4, pre=2)),
        (parse("V(1,1)", four), parse("V(1,1)", 4)),
        (cascade([four, two]), cascade([4, 2])),
        (nested(four), nested(4)),
        (plan(many, two, four), plan(16, 2, 4)),
    ):
        assert str(made) == str(plain) and made == plain
    assert heat(many, four).serial().shape == (5, 16)
    assert dahlquist(steps=many).serial().shape[0] == 17 and len(mgrit(two)) == 2
    assert LayerParallel(net(many), two, four, control=FixedCycles(two)).method.strides == [1, 4]
    kan = KAN([two, four, 1], four, degree=two)
    assert kan.refine(two).intervals == (8, 8)
    assert len(knot_hierarchy(kan, LeastSquares(kan, (X, Y)), two, LevenbergMarquardt())) == 2
    assert net(many, learnable_steps=True).refine(two).depth == 32
