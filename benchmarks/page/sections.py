"""The benchmarks on the page: title, what is compared, tables, figure, lines of the summary."""

from collections.abc import Callable
from dataclasses import dataclass

import depth_tables
import equations
import figures
import gpu_tables
import grid_tables
import knot_tables
import recurrent_tables
import score_tables
import standard
import tables
import transformer_tables
import zoo_tables
from cells import Rows
from matplotlib.figure import Figure
from tables import Line


@dataclass(frozen=True)
class Section:
    """One benchmark on the page."""

    title: str
    compared: str
    tables: Callable[[Rows], list[str]]
    caption: str
    summary: Callable[[Rows, Rows], list[Line]]
    draw: Callable[[Rows], Figure]
    absent: str = ""  # what the page says where nothing was measured; else it leaves it out


def nothing(rows: Rows, targets: Rows) -> list[Line]:
    return []


SECTIONS = {
    "poisson_vs_pyamg": Section(
        "Poisson beside PyAMG and PETSc",
        "Time per cycle with the same matrices, transfers, smoothers and coarse solver in all "
        "three libraries.",
        tables.poisson_tables,
        "Time per V(1,1)-cycle.",
        tables.poisson_lines,
        figures.poisson_vs_pyamg,
    ),
    "small_solves": Section(
        "Small solves",
        "Time per cycle of `Solver` from 15 x 15 unknowns on, compared with PyAMG on the same "
        "hierarchy and with mgnet before its overhead was reduced (commit cb918c4).",
        tables.small_tables,
        "Time per V(1,1)-cycle with `fast`, Gauss-Seidel, on one hierarchy.",
        tables.small_lines,
        figures.small_solves,
    ),
    "knots_speed": Section(
        "Spline layers",
        "Forward and backward pass of spline layers, compared with efficient-kan, FastKAN and "
        "pykan, and with Linear + SiLU.",
        tables.speed_tables,
        "Milliseconds over the number of knot intervals, one thread.",
        tables.speed_lines,
        figures.knots_speed,
    ),
    "knots_regression": Section(
        "A KAN from grid 5 to grid 80",
        "Held-out error on pykan's standard example: mgnet's cascade, a tanh network with the "
        "same optimizer and as many weights, and pykan's own training.",
        tables.regression_tables,
        "Held-out error over knots and over seconds.",
        tables.regression_lines,
        figures.knots_regression,
    ),
    "fit_co2": Section(
        "Fit of the density of carbon dioxide",
        "`mgnet fit --compare`: a KAN trained by multigrid and five other methods, each trained "
        "for the same time.",
        tables.co2_tables,
        "Held-out error.",
        tables.co2_lines,
        figures.fit_co2,
    ),
    "estimators": Section(
        "Estimators of scikit-learn",
        "`KANRegressor` and `KANClassifier` compared with scikit-learn's own estimators, all with "
        "default settings.",
        tables.estimators_tables,
        "Scores on the test rows.",
        tables.estimators_lines,
        figures.estimators,
    ),
    "real_tables": Section(
        "Public tables",
        '`KANRegressor` or `KANClassifier` ("KAN estimator") and `mgnet fit` compared with '
        "boosting, support vectors, a spline GAM and a linear model on real tables, without "
        "tuning.",
        score_tables.score_tables,
        "Scores over the best of the six, medians of the splits.",
        score_tables.score_lines,
        score_tables.score_figure,
    ),
    "pinn": Section(
        "Differential equations",
        "Errors of u against reference solutions that were computed without networks: the KAN by "
        "nested iteration, the same KAN on the finest level at once, and tanh networks, each "
        "trained for the same time.",
        tables.pinn_tables,
        "Errors with their spread over the seeds, at the longest time with all seeds.",
        tables.pinn_lines,
        figures.pinn,
    ),
    "pinn_accuracy": Section(
        "How far networks get",
        "Levenberg-Marquardt for tanh networks and networks of sines, with one change after "
        "another; processor seconds of one thread.",
        equations.accuracy_tables,
        "Errors with their spread over the seeds.",
        equations.accuracy_lines,
        equations.accuracy,
    ),
    "step_rules": Section(
        "Step rules",
        "Objectives that Levenberg-Marquardt reaches with different damping rules, after the same "
        "number of cycles and after the same processor time.",
        equations.rule_tables,
        "Objectives over cycles, medians.",
        nothing,
        equations.rules,
    ),
    "newton_multigrid": Section(
        "Linear systems of Newton's method",
        "Conjugate gradients for damped Gauss-Newton systems of a PINN: a V-cycle over the knots "
        "with three smoothers, other preconditioners, and dense factorizations.",
        tables.newton_tables,
        "Iterations over knots, and seconds over parameters.",
        tables.newton_lines,
        figures.newton_multigrid,
    ),
    "knot_solvers": Section(
        "Linear systems with many knots",
        "Conjugate gradients for least squares of u'', additive fits with a roughness penalty and "
        "a PINN, with up to 4096 intervals: preconditioners and direct solvers.",
        knot_tables.solver_tables,
        "Iterations and seconds over knots.",
        knot_tables.solver_lines,
        knot_tables.solver_figure,
    ),
    "guarded_cycles": Section(
        "Guarded cycles after a cascade",
        "V- and F-cycles with a line search compared with more sweeps on the fine level, after "
        "the same cascade and for the same time.",
        tables.guarded_tables,
        "Gain of the cycles over fine sweeps, with its spread.",
        tables.guarded_lines,
        figures.guarded_cycles,
    ),
    "adaptive_basis": Section(
        "The adaptive basis",
        "An exact last layer and steps on the hidden layers, from box initialization, compared "
        "with the best of nine training runs by Adam, each for the same time.",
        tables.basis_tables,
        "Gain over the best Adam.",
        tables.basis_lines,
        figures.adaptive_basis,
    ),
    "ngd": Section(
        "Newton on the last layer of classifiers",
        "Adam compared with NGD (arXiv 2006.10123) and with Adam plus a Newton solve of the last "
        "layer after each epoch, for the same number of epochs and for the same time.",
        tables.ngd_tables,
        "Held-out accuracy over epochs.",
        tables.ngd_lines,
        figures.ngd,
    ),
    "depth_vs_serial": Section(
        "Layers in parallel, beside serial PyTorch",
        "Forward and backward pass of deep residual networks in one process: cycles over the "
        "layers compared with a loop over modules, `torch.compile` and hand-written loops.",
        depth_tables.depth_tables,
        "Time over that of the eager loop, one thread, smooth weights.",
        depth_tables.depth_lines,
        figures.depth_vs_serial,
    ),
    "layer_parallel_calls": Section(
        "Calls of LayerParallel",
        "Narrow networks, for which calls cost more than tensor operations: the present "
        "version compared with commit cb918c4 and with an eager loop.",
        depth_tables.calls_tables,
        "Time of cb918c4 over that of a call, with its quartiles.",
        depth_tables.calls_lines,
        figures.layer_parallel_calls,
    ),
    "mgrit_vs_pymgrit": Section(
        "MGRIT beside pyMGRIT",
        "Iterations and seconds for the same problems, cycles and tolerance, in one process.",
        depth_tables.pymgrit_tables,
        "Seconds to the tolerance.",
        depth_tables.pymgrit_lines,
        figures.mgrit_vs_pymgrit,
    ),
    "recurrent": Section(
        "Recurrent networks over time",
        "`TimeParallel` compared with `torch.nn.GRU` and `torch.nn.LSTM`, and with a Python loop "
        "over cells: one layer, forward and backward, on one core.",
        depth_tables.recurrent_tables,
        "Seconds of nn.GRU over those of mgnet, with the smallest and the largest over the seeds.",
        depth_tables.recurrent_lines,
        figures.recurrent,
    ),
    "recurrent_iterations": Section(
        "Iterations over time",
        "Cycles of MGRIT and sweeps of Newton's method for all time steps at once, to a tolerance "
        "of 1e-6, forward and backward; and the largest relative errors of output and gradients "
        "against PyTorch at a tolerance of 1e-11.",
        recurrent_tables.iterations_tables,
        "Iterations to 1e-6, forward.",
        recurrent_tables.target_lines,
        recurrent_tables.iterations_figure,
    ),
    "recurrent_refusals": Section(
        "Chaotic recurrences",
        "Cells with increasing recurrent weights: the share that `TimeParallel` refuses, and the "
        "cost of a refusal compared with the steps themselves and with all cycles.",
        recurrent_tables.refusals_tables,
        "Percentage of stable and chaotic cells that are refused.",
        recurrent_tables.target_lines,
        recurrent_tables.refusals_figure,
    ),
    "sequence_classification": Section(
        "Sequence classification",
        "A GRU trained by cycles over time and step by step, from the same weights and batches, "
        "and evaluated both ways.",
        recurrent_tables.classification_tables,
        "Accuracy on people who are not in the training data, over the seeds.",
        recurrent_tables.target_lines,
        recurrent_tables.classification_figure,
    ),
    "ode_march": Section(
        "Neural ODEs, step by step",
        "A network with one hidden layer as the right-hand side, forward and backward, on one "
        "core: `LayerParallel(net, levels=1)` (mgnet) and `odeint` compared with torchdiffeq, "
        "torchode, diffrax and a scan in JAX.",
        depth_tables.ode_march_tables,
        "Milliseconds of a forward and a backward pass.",
        depth_tables.ode_march_lines,
        figures.ode_march,
    ),
    "serial_memory": Section(
        "Very many layers, step by step",
        "Serial propagation with all states stored, and from checkpoints; width 16, batch 32.",
        depth_tables.serial_memory_tables,
        "Growth of memory, and time, over the number of layers.",
        depth_tables.serial_memory_lines,
        figures.serial_memory,
    ),
    "recurrent_ranks": Section(
        "Recurrent networks over ranks",
        "Time steps of a GRU over two MPI ranks compared with `torch.nn.GRU` on one core, and the "
        "prediction for more ranks.",
        depth_tables.recurrent_ranks_tables,
        "Speedup over nn.GRU on one core, planned.",
        depth_tables.recurrent_ranks_lines,
        figures.recurrent_ranks,
    ),
    "time_grids": Section(
        "Time grids",
        "Adaptive time grids compared with uniform ones, and the published figures of XBraid and "
        "pyMGRIT for refinement, Richardson extrapolation, BDF2 and coarsening in space.",
        grid_tables.grid_tables,
        "Error of van der Pol's oscillator over the steps of the grid.",
        grid_tables.grid_lines,
        grid_tables.time_grids,
    ),
    "layer_ranks": Section(
        "Layers over ranks",
        "`LayerParallel` on two MPI ranks compared with serial PyTorch, and the prediction for "
        "more ranks.",
        depth_tables.ranks_tables,
        "Speedups, measured on two ranks and planned for more.",
        depth_tables.ranks_lines,
        figures.layer_ranks,
    ),
    "sample_parallel": Section(
        "Samples over ranks",
        "Gauss-Newton steps and exact last layers with samples distributed over two MPI ranks, in "
        "fixed blocks, so that the bits do not depend on the number of ranks.",
        tables.samples_tables,
        "Seconds of a solve.",
        tables.samples_lines,
        figures.sample_parallel,
    ),
    "depth_training": Section(
        "Training with inexact propagation",
        "Networks trained by serial propagation and by cycles, all evaluated serially.",
        depth_tables.training_tables,
        "Held-out accuracy, evaluated serially.",
        depth_tables.training_lines,
        figures.depth_training,
    ),
    "depth_refinement": Section(
        "Refinement in depth",
        "4, 8, 16 and then 32 layers compared with 32 from the start, at equal work.",
        depth_tables.refinement_tables,
        "Cross entropy on the training points.",
        depth_tables.refinement_lines,
        figures.depth_refinement,
    ),
    "nested_text": Section(
        "A GPT nested in depth",
        "A byte-level GPT with 2, 4, 8, 16 and then 32 layers, compared with 32 layers from the "
        "start and with every smaller number, for the same processor time.",
        transformer_tables.nested_tables,
        "Held-out loss over time; dashed: fixed numbers of layers.",
        transformer_tables.nested_lines,
        transformer_tables.nested_figure,
    ),
    "nested_carry": Section(
        "A task that needs depth",
        "The same comparison for a task in which a layer sees one token back and the relevant "
        "token is up to 32 tokens back.",
        transformer_tables.nested_tables,
        "Held-out loss over time; dashed: fixed numbers of layers.",
        transformer_tables.nested_lines,
        transformer_tables.nested_figure,
    ),
    "character_model": Section(
        "A character model at published settings",
        "The 64 layers of a GPT, solved by the cycles of a published training run that failed, "
        "with several kinds of coarse layers and controls, compared with serial training.",
        transformer_tables.character_tables,
        "Held-out loss, evaluated serially, and errors of gradients.",
        transformer_tables.character_lines,
        transformer_tables.character_figure,
    ),
    "standard_least_squares": Section(
        "Standard problems of least squares",
        "`levenberg_marquardt` compared with SciPy's `least_squares` with exact Jacobians: 35 "
        "problems of Moré, Garbow and Hillstrom from x0, 10 x0 and 100 x0, and NIST's 27 "
        "nonlinear regressions.",
        standard.standard_tables,
        "Share of the starts that are solved, over evaluations.",
        standard.standard_lines,
        standard.standard_least_squares,
    ),
    "poisson_convergence": Section(
        "Convergence of textbook cycles",
        "Convergence factors per cycle on finer meshes, and the error of one nested cycle.",
        tables.convergence_tables,
        "Factors over the mesh, and the error of a nested cycle over that of the mesh.",
        nothing,
        figures.poisson_convergence,
    ),
    "line_smoothers": Section(
        "Anisotropy and line smoothers",
        "Factors per V(1,1)-cycle for anisotropies from 1 to 1e-6, by point and line smoothers.",
        tables.line_tables,
        "Factors over the mesh, for each anisotropy.",
        nothing,
        figures.line_smoothers,
    ),
    "poisson_ranks": Section(
        "Matrices over ranks",
        "3-D Poisson on one rank and on two: mgnet's cycle on PETSc's matrices compared with PCMG "
        "with the same parts, and the gain for one product with the finest matrix.",
        tables.ranks_tables,
        "Gains of a second rank.",
        tables.ranks_lines,
        figures.poisson_ranks,
    ),
    "linear_zoo": Section(
        "Fifteen linear problems",
        "Seconds from the matrix to a residual of 1e-8, which is recomputed: the fastest of the "
        "usual solvers of PyAMG and PETSc, and mgnet's choice for the class of problem.",
        zoo_tables.zoo_tables,
        "Seconds, set-up included.",
        zoo_tables.zoo_lines,
        zoo_tables.linear_zoo,
    ),
    "hierarchy_memory": Section(
        "Memory of a hierarchy",
        "MiB at the peak of set-up and solve for Poisson's equation on 1023 x 1023 unknowns, "
        "compared with PyAMG.",
        zoo_tables.memory_tables,
        "MiB at the peak.",
        zoo_tables.memory_lines,
        zoo_tables.hierarchy_memory,
    ),
    "gpu": Section(
        "On a GPU",
        "Spline layers, layers in parallel, a Gauss-Newton step, a V-cycle and Burgers' equation "
        "on one GPU, compared with other libraries and with the limits of memory and arithmetic.",
        gpu_tables.gpu_tables,
        "Milliseconds of a spline layer 64 -> 64, batch 65 536.",
        gpu_tables.gpu_lines,
        gpu_tables.gpu_figure,
        gpu_tables.ABSENT,
    ),
}
