"""The steps of `mgnet fit` after parsing: train, print, compare, write."""

from __future__ import annotations

import math
import shutil
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mgnet import Hierarchy, Schedule
from mgnet.app.comparison import baselines
from mgnet.app.data import Data, Settings, Trained, parameters
from mgnet.app.files.columns import listed, shown
from mgnet.app.fit import Fitted, fit, without_constants
from mgnet.app.hold import Hold
from mgnet.app.model_checks import check_names
from mgnet.app.output_folder import filled
from mgnet.app.table import Table, split
from mgnet.app.terminal import progress_bar, result_table
from mgnet.app.units import Units, labelled
from mgnet.limits import written

__all__ = ["FitJob", "run_job"]

DPI = 150
PART = ".part"
LEAST_SECONDS = 2.0  # smallest time limit of the other methods
ENDING = 0.6  # seconds for predictions, report and pictures, per second before the training
NO_TIME = 1e-3  # seconds; one member is trained, as briefly as possible
MOST_PARAMETERS = 1_000_000
MEANING = {
    "MSE": "MSE: mean squared error over the variance of the target",
    "log loss": "log loss: mean of -log of the probability of the true class",
}
Say = Callable[[str], None]


@dataclass(frozen=True)
class FitJob:
    """Data, settings and output folder of a fit.

    Attributes
    ----------
    table : Table
        Rows of the file.
    settings : Settings
        Settings of the training.
    out : Path
        Output folder, already checked.
    compare : bool
        Whether other methods are trained for the same time.
    command : str
        The typed command, for the report.
    began : float, optional
        Start of the command, from `time.perf_counter`. If it is given, the time limit of an
        ensemble covers all work since then, except comparisons.
    """

    table: Table
    settings: Settings
    out: Path
    compare: bool = False
    command: str = ""
    began: float | None = None


def run_job(job: FitJob, say: Say, show: Say, hold: Hold | None = None) -> bool:
    """Train, print and write; return whether Ctrl-C or SIGTERM ended it early.

    The best model so far is written in that case. If there is no model yet, nothing is written, and
    KeyboardInterrupt is raised.

    Parameters
    ----------
    job : FitJob
        Fit to run.
    say : callable
        Function for remarks and warnings.
    show : callable
        Function for results.
    hold : Hold, optional
        A `Hold` that is already active.

    Raises
    ------
    OSError
        If files cannot be written; also, after they have been written, if `show` failed.
    ValueError
        If the settings do not fit the table.
    """
    settings, show = job.settings, _Shown(show)
    remarks: list[str] = []

    def remark(sentence: str) -> None:
        remarks.append(sentence)
        say(sentence)

    def announce(hierarchy: Hierarchy | None, schedule: Schedule | None) -> None:
        for sentence in remarks:  # printed only now, since a refusal must be one sentence
            say(sentence)
        if hierarchy is not None:
            show(f"{hierarchy}\n\n{schedule}\n")

    with Hold() if hold is None else nullcontext(hold) as hold:
        with hold.interruptible():
            data = split(job.table, settings.held_out, settings.seed)
            data = _check(job.table, data, settings, remarks.append)
        with progress_bar() as progress:
            watched = _checking(progress, hold)
            limited = _limited(job)
            fitted = fit(data, limited, watched, announce, interruptible=hold.interruptible)
        interrupted = bool(fitted.interrupted)
        if settings.ensemble > 1:
            show(f"{fitted.summary}\n")
        trained: list[Trained] = [fitted.trained]
        if interrupted:
            remark(f"interrupted after {trained[0].seconds:.1f} s; this is the best model so far")
        elif fitted.ensembles and fitted.trained.seconds >= limited.seconds:
            remark(_cut_short(fitted, settings))
        if job.compare and not interrupted:
            try:
                with hold.interruptible():
                    _add_baselines(trained, data, settings, say)
            except KeyboardInterrupt:
                interrupted = True
                remark("interrupted while other methods were trained; unfinished ones are omitted")
        show(result_table(trained, data))
        work = "" if settings.ensemble > 1 else "; work: gradient evaluations"
        show(f"({MEANING[data.loss_name]}{work})")
        if interrupted:
            hold.pending = False  # launchers send a signal several times
        names, whole = _write(job, fitted, trained, data, remarks, hold)
        if not whole:
            say("interrupted while the report was written; only the model is complete")
        show("\n".join(["", *(f"wrote {job.out / name}" for name in names)]))
        show.check(job.out)
        return interrupted or not whole or hold.pending


def _limited(job: FitJob) -> Settings:
    """The settings, with the time that the training has left if the whole command is limited."""
    settings = job.settings
    if settings.ensemble == 1 or job.began is None or math.isinf(settings.seconds):
        return settings
    gone = time.perf_counter() - job.began
    return replace(settings, seconds=max(settings.seconds - (1.0 + ENDING) * gone, NO_TIME))


def _cut_short(fitted: Fitted, settings: Settings) -> str:
    members = min(len(own.fitted) for own in fitted.ensembles)
    return (
        f"--seconds {settings.seconds:g}, which includes reading and pictures, ended the training "
        f"after {fitted.trained.seconds:.1f} s with {members} of {settings.ensemble} members; more "
        "seconds, or none given, improve the predictions"
    )


class _Shown:
    """Wraps `show` so that the model is written even if the disk is full or the pipe closed."""

    def __init__(self, show: Say):
        self.show = show
        self.lost: OSError | None = None

    def __call__(self, text: str) -> None:
        if self.lost is None:
            try:
                self.show(text)
            except OSError as error:
                self.lost = error

    def check(self, out: Path) -> None:
        """Raise the error that occurred, if any."""
        if isinstance(self.lost, BrokenPipeError):  # the reader closed the pipe
            raise self.lost
        if self.lost is not None:
            raise OSError(
                f"the model is in {out}, but the results cannot be printed ({self.lost.strerror})"
            )


def _checking(progress: Callable[..., None], hold: Hold) -> Callable[..., None]:
    """Wrap `progress` so that no interrupt is lost, even if other code catches it."""

    def checked(seconds: float, fraction: float, loss: float, level: int) -> None:
        progress(seconds, fraction, loss, level)
        hold.check()

    return checked


def _write(
    job: FitJob,
    fitted: Fitted,
    trained: Sequence[Trained],
    data: Data,
    remarks: Sequence[str],
    hold: Hold,
) -> tuple[list[str], bool]:
    """Fill the folder; return the names of the files, and whether the report is among them."""
    whole = True
    with filled(job.out) as stage:
        fitted.model.save(stage)
        try:
            with hold.interruptible():
                _report(stage, job, fitted, trained, data, remarks)
        except KeyboardInterrupt:
            whole = False
            for path in stage.glob(f"*{PART}*"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        return sorted(file.name for file in stage.iterdir()), whole


def _check(table: Table, data: Data, settings: Settings, say: Say) -> Data:
    """The rows, without inputs that do not vary; these are reported to the user."""
    if table.dropped:
        one = table.dropped == 1
        what = "row with missing values was" if one else "rows with missing values were"
        say(f"{table.dropped} {what} left out")
    for sentence in table.remarks:
        say(sentence)
    if data.targets.classes and settings.optimizer == "lm":
        raise ValueError(
            f"--optimizer lm is for numbers, but target '{shown(data.targets.title)}' is one of "
            f"{len(data.targets.classes)} classes; use lbfgs or adam, or leave it out"
        )
    check_names(data.names, data.targets.names)
    data, constant = without_constants(data, settings)
    if constant:
        say(
            f"warning: {'input' if len(constant) == 1 else 'inputs'} {listed(constant)} left "
            "out: the same value in all training rows, so predictions cannot depend on "
            f"{'it' if len(constant) == 1 else 'them'}"
        )
    if settings.ensemble > 1:  # the limit on its work bounds its size
        return data
    count = parameters(len(data.names), settings, len(data.targets.outputs))
    if count > MOST_PARAMETERS:
        raise ValueError(
            f"the finest network has {written(count)} parameters; more than {MOST_PARAMETERS} are "
            "not trained here, use fewer --levels, --intervals or --hidden"
        )
    if len(data.y) < count:
        say(
            f"warning: {len(data.y)} training rows for {count} parameters; expect a poor held-out "
            "error, or use fewer --levels, --intervals or --hidden"
        )
    return data


def _add_baselines(trained: list[Trained], data: Data, settings: Settings, say: Say) -> None:
    seconds = max(trained[0].seconds, LEAST_SECONDS)
    say(f"training other methods for {seconds:.1f} s each")
    for baseline in baselines(data, settings, seconds):
        trained.append(baseline)
        loss = f"held-out {data.loss_name} {baseline.held_loss:.1e}"
        say(f"{baseline.name}: {loss} after {baseline.seconds:.1f} s")


def _report(
    stage: Path,
    job: FitJob,
    fitted: Fitted,
    trained: Sequence[Trained],
    data: Data,
    remarks: Sequence[str],
) -> None:
    from mgnet.app.report import write_report

    pictures = _pictures(stage, fitted, trained, data)
    part = stage / f"report{PART}"  # an interrupt must not leave an incomplete report
    part.mkdir()
    write_report(
        part,
        data,
        job.settings if job.settings.ensemble > 1 else fitted.settings,
        trained,
        summary=fitted.summary,
        pictures=pictures,
        command=job.command,
        remarks=[f"Note: {remark.removeprefix('warning: ')}." for remark in remarks],
    )
    (part / "report.md").rename(stage / "report.md")
    part.rmdir()


def _pictures(
    stage: Path, fitted: Fitted, trained: Sequence[Trained], data: Data
) -> list[tuple[str, str]]:
    """Draw pictures; return names and captions. An ensemble has too many edges to draw."""
    from mgnet.app.dependence import plot_dependence
    from mgnet.app.pictures import as_label, influential, plot_fit, plot_training
    from mgnet.plot.edges import plot_edges

    units, single = Units.of(data), fitted.hierarchy is not None
    drawn, predict = labelled(units.data(data)), units.of_units(trained[0].predict)
    # This takes seconds for wide tables.
    order = influential(drawn, predict) if len(data.names) > 2 else None
    made = [("fit.png", "Data, fit and error", plot_fit(drawn, predict, order))]
    caption = "Mean prediction as one column changes"
    made.append(("inputs.png", caption, plot_dependence(drawn, predict, order)))
    if single or len(trained) > 1:
        figure = plot_training(trained, data.loss_name)
        made.append(("convergence.png", "Training error over time", figure))
    if single:
        model, names = fitted.model, [as_label(n) for n in (*data.names, *data.targets.outputs)]
        x, ranges = model.inputs(data.x), model.scales.ranges
        figure = plot_edges(model.network, x, names=names, ranges=ranges)
        made.append(("edges.png", "Edge functions, knots and data density", figure))
    for name, _, figure in made:
        _save(figure, stage / name)
    return [(name, caption) for name, caption, _ in made]


def _save(figure: Any, path: Path) -> None:
    part = path.with_name(f"{path.stem}{PART}{path.suffix}")
    with warnings.catch_warnings():
        # A character that the font lacks is drawn as a box; a warning would not help the user.
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from", UserWarning)
        figure.savefig(part, dpi=DPI)
    part.rename(path)
