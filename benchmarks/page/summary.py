"""The first eight rows of the benchmarks page, which are also in README.md."""

from typing import NamedTuple

from cells import Row, Rows, find, markdown, where
from standard import solved

HEADS = ["what", "mgnet", "compared with", "ratio", "command"]


class Headline(NamedTuple):
    """A row: `name` is the benchmark, `better` how many times mgnet is better, None for none."""

    name: str
    what: str
    mgnet: str
    other: str
    better: float | None


def rough(rows: Rows) -> Headline:
    own = where(rows, target="one sum, d = 6")
    ours = find(own, method="KAN, multilevel")["error_median"]
    other = find(own, method="Fourier features, network, Adam")["error_median"]
    what = "**Multilevel training**: rough functions of six inputs, held-out RMSE after 20 s"
    peer = f"{other:.1e}: a network on Fourier features, the best other general method"
    return Headline("rough_compositions", what, f"{ours:.1e}", peer, other / ours)


def regression(rows: Rows) -> Headline:
    ours = find(rows, method="KAN, cascade, LM", grid=80)["error_median"]
    other = find(rows, method="MLP, LM, equal seconds", grid=80)["error_median"]
    what = "Multilevel training: `exp(sin(pi x) + y^2)`, 80 knot intervals, held-out RMSE"
    peer = f"{other:.1e}: a tanh network with the same optimizer and as many seconds"
    return Headline("knots_regression", what, f"{ours:.1e}", peer, other / ours)


def tables(rows: Rows) -> Headline:
    def rank(method: str) -> float:
        own = where(rows, part="scores", method=method)
        return sum(row["rank"] for row in own) / len(own)

    ours, other = rank("mgnet fit"), rank("HistGradientBoosting")
    what = "Multilevel training: `mgnet fit` on 16 public tables, mean rank among six methods"
    peer = f"{other:.1f}: scikit-learn's boosting, also with default settings"
    return Headline("real_tables", what, f"{ours:.1f}", peer, other / ours)


def reliability(rows: Rows) -> Headline:
    def told(method: str) -> str:
        wrong = sum(row[method].count("!") for row in rows)
        return f"{solved(rows, method)} and {wrong}"

    starts = sum(len(row["mgnet"]) for row in rows)
    what = "**Reliable Levenberg-Marquardt**: standard problems solved, of "
    what += f"{starts}, and problems wrongly reported as converged"
    peer = f"{told('lm')}: SciPy's `lm` (`trf`: {told('trf')}; `dogbox`: {told('dogbox')})"
    better = solved(rows, "mgnet") / solved(rows, "lm")
    return Headline("standard_least_squares", what, told("mgnet"), peer, better)


def correctness(rows: Rows) -> Headline:
    worst = max(max(row["error_forward"], row["error_gradients"]) for row in rows)
    what = "**Correct layer-parallel solves**: recurrent networks at a tolerance of 1e-11, largest "
    what += "relative error of output and gradients"
    return Headline(
        "recurrent_iterations", what, f"{worst:.1e}", "PyTorch's `nn.GRU`, `nn.LSTM`", None
    )


def layers(rows: Rows) -> Headline:
    own = where(rows, case="width 16, 1024 layers, batch 32", threads=1, start="smooth")
    ours, script, eager = (
        find(own, method=method)["ms_least"]
        for method in ("mgnet, one level", "loop by hand, TorchScript", "eager loop")
    )
    what = "1024 layers of width 16, forward and backward, exact"
    peer = f"{script:.2f} ms: a hand-written TorchScript loop (a loop over modules: {eager:.2f} ms)"
    return Headline("depth_vs_serial", what, f"{ours:.2f} ms", peer, script / ours)


def steps(rows: Rows) -> Headline:
    own = where(rows, problem="Brusselator, 640 steps", cycle="3 levels, V")
    ours, other = (find(own, method=method)["seconds"] for method in ("mgnet", "pyMGRIT"))
    what = "MGRIT for the Brusselator, 640 steps, 3 levels, the same iterations in one process"
    return Headline(
        "mgrit_vs_pymgrit", what, f"{ours:.3f} s", f"{other:.3f} s: pyMGRIT", other / ours
    )


def linear(rows: Rows) -> Headline:
    ratios = []
    for row in where(rows, library="mgnet"):
        same = [r for r in where(rows, problem=row["problem"]) if r["converged"]]
        others = [r["total_median"] for r in same if r["library"] in ("PyAMG", "PETSc")]
        ratios.append(min(others) / row["total_median"])
    ahead = f"faster on {sum(ratio > 1 for ratio in ratios)} of {len(ratios)}"
    what = "**Linear problems**: fifteen systems solved to a residual of 1e-8, set-up included"
    peer = "the fastest of PyAMG, `gamg` and hypre with their own hierarchies (ratio: median)"
    return Headline("linear_zoo", what, ahead, peer, sorted(ratios)[len(ratios) // 2])


HEADLINES = {
    "rough_compositions": rough,
    "knots_regression": regression,
    "real_tables": tables,
    "standard_least_squares": reliability,
    "recurrent_iterations": correctness,
    "depth_vs_serial": layers,
    "mgrit_vs_pymgrit": steps,
    "linear_zoo": linear,
}
COMMANDS = {"recurrent_iterations": "recurrent"}


def headlines(found: dict[str, Row], mark: dict[str, str]) -> str:
    """The table; `mark` follows the rows of a benchmark, such as those of an older build."""
    lines = []
    for name, make in HEADLINES.items():
        row = make(found[name]["rows"])
        better = "-" if row.better is None else f"{row.better:.2g}"
        command = f"`python benchmarks/{COMMANDS.get(name, name)}.py`"
        lines.append([row.what + mark[name], row.mgnet, row.other, better, command])
    return markdown(HEADS, lines)
