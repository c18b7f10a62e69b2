"""The standard problems of least squares on the page: tables, lines of the summary, figure."""

from cells import Row, Rows, listed, markdown, where
from drawing import GREY, OURS, panels
from matplotlib.figure import Figure
from tables import Line, goal

METHODS = {"mgnet": "mgnet", "lm": "SciPy lm", "trf": "SciPy trf", "dogbox": "SciPy dogbox"}
OUTCOMES = {
    "G": "global minimum",
    "L": "local minimum",
    "I": "at infinity",
    "F": "flat elsewhere",
    "-": "missed",
    "!": "wrongly converged",
}
COLLECTIONS = {"MGH": "Moré, Garbow and Hillstrom", "NIST": "NIST"}


def letters(rows: Rows, method: str) -> str:
    return "".join(row[method] for row in rows)


def solved(rows: Rows, method: str) -> int:
    return sum(letter in "GgLl" for letter in letters(rows, method))


def standard_tables(rows: Rows) -> list[str]:
    told = []
    for collection, title in COLLECTIONS.items():
        own = where(rows, collection=collection)
        for method, name in METHODS.items():
            found = letters(own, method)
            counts = [str(found.upper().count(letter)) for letter in OUTCOMES]
            told.append([title, name, f"{solved(own, method)} of {len(found)}", *counts])
    heads = ["problems", "method", "solved", *OUTCOMES.values()]
    columns = {"problem": "{problem}", "n": "{n}", "m": "{m}"}
    columns |= {name: f"{{{method}}}" for method, name in METHODS.items()}
    columns |= {"evaluations": "{mgnet_evaluations}", "of lm": "{minpack_evaluations}"}
    columns |= {"Jacobians": "{mgnet_jacobians}", "of lm ": "{minpack_jacobians}"}
    digits = {"digits": "{mgnet_digits}", "of lm  ": "{minpack_digits}"}
    return [
        markdown(heads, told),
        "A letter for each start: (G)lobal or (L)ocal minimum, value at (I)nfinity, (F)lat, missed "
        "(-), wrongly converged (!). Lower case: the solver did not report convergence.",
        listed(where(rows, collection="MGH"), columns),
        "The numbers of correct digits are those of the worst parameter:",
        listed(where(rows, collection="NIST"), columns | digits),
    ]


def standard_lines(rows: Rows, targets: Rows) -> list[Line]:
    def line(what: str, name: str, rival: str, ratio: float | None) -> Line:
        ours = next(target["measured"] for target in targets if target["name"].startswith(name))
        return Line(what, ours, rival, ratio, *goal(targets, name))

    best = max(("lm", "trf", "dogbox"), key=lambda method: solved(rows, method))
    theirs, wrong = solved(rows, best), letters(rows, best).count("!")
    share = solved(rows, "mgnet") / theirs
    calls = next(t["measured"] for t in targets if t["name"].startswith("evaluations"))
    return [
        line("solved", "solved, best", f"{theirs} (SciPy {best})", share),
        line("wrongly converged", "wrongly", f"{wrong} (SciPy {best})", None),
        line("evaluations over those of lm, median", "evaluations", "1", 1.0 / float(calls)),
    ]


def ends(row: Row, method: str) -> list[tuple[int, bool]]:
    """Evaluations from each start, and whether it was solved."""
    counts = [int(count) for count in row[f"{method}_evaluations"].split()]
    return [(n, letter in "GgLl") for n, letter in zip(counts, row[method], strict=True)]


def standard_least_squares(rows: Rows) -> Figure:
    figure, axes = panels(len(COLLECTIONS), height=2.4)
    for ax, (collection, title) in zip(axes, COLLECTIONS.items(), strict=True):
        for method, name, colour in ("mgnet", "mgnet", OURS), ("minpack", "SciPy lm", GREY):
            told = [end for row in where(rows, collection=collection) for end in ends(row, method)]
            counts = sorted(max(n, 1) for n, is_solved in told if is_solved)
            shares = [(k + 1) / len(told) for k in range(len(counts))]
            ax.step(counts, shares, where="post", color=colour, label=name)
        ax.set(title=title, xlabel="evaluations of the residuals", ylabel="solved", ylim=(0, 1))
        ax.set_xscale("log")
        ax.legend()
    return figure
