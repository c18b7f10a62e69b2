"""The command `mgnet`: it parses, shows and writes; the work is done by functions elsewhere.

Exit codes: 0, 2 after bad input (one sentence on stderr), 128 + n after signal n (130: Ctrl-C).
"""

from __future__ import annotations

import atexit
import gc
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import click

from mgnet import __version__
from mgnet.app.data import Settings
from mgnet.app.export_command import export
from mgnet.app.hold import Hold, Noted
from mgnet.app.setting_options import SETTINGS, column_names, counts, finite, kept, setting_option
from mgnet.options.reader import OptionReader, insert_options, split_options, unread

__all__ = ["command", "main"]

BAD_INPUT, INTERRUPTED = 2, 130
FILE = click.Path(path_type=Path)
AT_LEAST_1, LEVELS = click.IntRange(min=1), click.IntRange(1, 64)


def main(arguments: Sequence[str] | None = None) -> int:
    r"""Run the command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        Those of the process by default.

    Returns
    -------
    int
        Exit code.

    Examples
    --------
    >>> main(["schedule", "V(1,1)", "--levels", "2"])
    level 0  o   o
              \ /
    level 1    #
    work: 3.5 work units
    ...
    """
    noted = Noted()
    with noted:
        return _answer(sys.argv[1:] if arguments is None else arguments, noted)


def command() -> NoReturn:
    """Run the command line as a process of its own, with a quick end."""
    noted = Noted()
    noted.__enter__()
    atexit.register(noted.end_process)  # the first, so that it runs when all others have run
    code = _answer(sys.argv[1:], noted)
    noted.leave_to_system()
    # As Python ends it searches all objects of torch and others for garbage, for seconds.
    gc.freeze()
    sys.exit(code)


@dataclass
class Session:
    """One call of the command: what was typed, and what there is if a signal ends it now."""

    typed: str = ""
    state: str = "nothing was written"


def _answer(arguments: Sequence[str], noted: Noted) -> int:
    session, code = Session(), INTERRUPTED
    told = True
    try:
        # Threads that wait must not spin: beside other work that slows torch tenfold.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        code = _run(*split_options(arguments), session, noted)
        told = code == INTERRUPTED
        noted.raising = False
    except KeyboardInterrupt:
        noted.raising, told = False, False
    except Exception:
        noted.raising, told = False, False
        if not noted.numbers:  # else a library has met a signal
            raise
    if code != INTERRUPTED and not noted.numbers:
        return code
    if not told:
        _say(f"interrupted; {session.state}")
    return 128 + noted.numbers[0] if noted.numbers else INTERRUPTED


def _run(own: list[str], petsc: list[str], session: Session, noted: Noted) -> int:
    session.typed = shlex.join([*own, *petsc])
    try:
        with _bad_input():
            if petsc:
                insert_options(petsc)
        code = cli.main(own, prog_name="mgnet", standalone_mode=False, obj=session) or 0
        if names := unread():
            _say(f"warning: this command does not read {', '.join(names)}")
        return code
    except click.ClickException as error:
        if noted.numbers:
            raise KeyboardInterrupt from None
        sentence = " ".join(error.format_message().split())
        if petsc and isinstance(error, click.MissingParameter):
            sentence += f" PETSc gets '{shlex.join(petsc)}'; options with one dash come last."
        _say(sentence)
        return BAD_INPUT
    except click.Abort:  # click's word for KeyboardInterrupt
        raise KeyboardInterrupt from None


@contextmanager
def _bad_input() -> Iterator[None]:
    """Turn the library's refusals into one sentence."""
    try:
        yield
    except BrokenPipeError:
        raise
    except (ValueError, OSError, ImportError) as error:
        raise click.ClickException(str(error)) from error


def _say(sentence: str) -> None:
    click.echo(f"mgnet: {sentence}", err=True)


@click.group(invoke_without_command=True)
@click.version_option(__version__, message="mgnet %(version)s")
@click.pass_context
def cli(context: click.Context) -> None:
    """Multigrid for neural networks.

    Options with a single dash go to PETSc, with their values; give them last.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@cli.command()
@click.argument("data", type=FILE)
@click.option("--target", required=True, help="Column to predict.")
@click.option(
    "--inputs", callback=column_names, help="Columns to predict it from; default: all others."
)
@setting_option(
    "--hidden",
    callback=kept(counts),
    default=",".join(map(str, Settings.hidden)),
    show_default=True,
    help="Widths of the hidden layers.",
)
@setting_option(
    "--intervals",
    type=AT_LEAST_1,
    default=Settings.intervals,
    show_default=True,
    help="Of the splines, coarsest level.",
)
@setting_option(
    "--degree",
    type=click.IntRange(1, 5),
    default=Settings.degree,
    show_default=True,
    help="Of the splines.",
)
@setting_option(
    "--levels",
    type=LEVELS,
    default=Settings.levels,
    show_default=True,
    help="Each doubles the intervals.",
)
@setting_option(
    "--most-intervals",
    callback=kept(counts),
    help="That each layer is refined to, as '256,16'; default: no limit.",
)
@setting_option(
    "--starts",
    type=AT_LEAST_1,
    help="Networks on the coarsest level, the best go on; default: 8 for many rows, else 1.",
)
@setting_option(
    "--cycle",
    default=Settings.cycle,
    help="Schedule, as 'cascade 32,16,8,4'; default: by budget.",
)
@setting_option(
    "--optimizer",
    type=click.Choice(["lm", "lbfgs", "adam"]),
    default=Settings.optimizer,
    show_default=True,
    help="What a sweep is.",
)
@setting_option(
    "--seconds",
    type=click.FloatRange(0.0, min_open=True),
    callback=kept(finite),
    help=f"Budget; default: {Settings.seconds:g}.",
)
@setting_option(
    "--evaluations",
    type=AT_LEAST_1,
    help="Budget in gradients of the finest network.",
)
@setting_option(
    "--seed",
    type=click.IntRange(min=0),
    default=Settings.seed,
    show_default=True,
    help="Of the split and of the initial network.",
)
@setting_option(
    "--held-out",
    type=float,
    default=Settings.held_out,
    show_default=True,
    help="Fraction of rows kept for the test.",
)
@setting_option(
    "--validation",
    type=click.FloatRange(0.0, 1.0, max_open=True),
    default=Settings.validation,
    show_default=True,
    help="Fraction of the training rows that decides when to stop; 0: none.",
)
@setting_option(
    "--roughness",
    type=click.FloatRange(0.0),
    callback=kept(finite),
    default=Settings.roughness,
    show_default=True,
    help="Penalty on bending splines; the more noise, the larger.",
)
@click.option("--out", type=FILE, default="mgnet-fit", show_default=True, help="Output folder.")
@click.option("--overwrite", is_flag=True, help="Replace a former model in the output folder.")
@click.option("--drop-missing", is_flag=True, help="Leave out rows with missing values.")
@click.option("--compare", is_flag=True, help="Train other methods for as long, and report them.")
@click.pass_context
def fit(
    context: click.Context,
    data: Path,
    target: str,
    inputs: list[str] | None,
    out: Path,
    overwrite: bool,
    drop_missing: bool,
    compare: bool,
) -> int:
    """Train a network on the table DATA (CSV or .npz).

    PETSc options steer the training: -mgnet_cycle, -mgnet_smoother and others; -help lists them.
    """
    told = context.meta[SETTINGS]
    if {"seconds", "evaluations"} <= told.keys():
        raise click.UsageError("--seconds and --evaluations are two budgets; give one of them")
    # Signals wait for imports and folders: half of either must not be left.
    with _bad_input(), Hold() as hold:
        from mgnet import parse
        from mgnet.app.output_folder import claimed
        from mgnet.app.table import read_table

        settings = Settings(**told)
        if settings.cycle:
            parse(settings.cycle, OptionReader().get("levels", settings.levels))
        with claimed(out, overwrite) as remarks:
            with hold.interruptible():
                table = read_table(data, target, inputs, drop_missing)
            # Only now, since they load torch and scikit-learn: a bad table is answered at once.
            from mgnet.app.job import FitJob, run_job

            for remark in remarks:
                _say(remark)
            job = FitJob(table, settings, out, compare, f"mgnet {context.obj.typed}")
            interrupted = run_job(job, _say, click.echo, hold)
            context.obj.state = f"the model is in {out}"
    if interrupted:
        _say(context.obj.state)
    return INTERRUPTED if interrupted else 0


@cli.command()
@click.argument("model", type=FILE)
@click.argument("data", type=FILE)
@click.option("--out", type=FILE, help="File to write; default: stdout.")
@click.option("--overwrite", is_flag=True, help="Replace the file.")
@click.pass_obj
def predict(session: Session, model: Path, data: Path, out: Path | None, overwrite: bool) -> None:
    """Add the prediction of MODEL (an output folder or its model.json) to the table DATA."""
    with _bad_input():
        from mgnet.app.output_folder import whole_file
        from mgnet.app.prediction import predict_file

        if out is not None and (out.is_dir() or out.suffix.lower() == ".npz"):
            what = "is a folder" if out.is_dir() else "ends in .npz, but text is written"
            raise click.UsageError(f"{out} {what}; name a file to write, such as new.csv")
        if out is not None and out.exists() and not overwrite:
            raise click.UsageError(f"{out} exists; replace it with --overwrite, or name another")
        lines, remarks = predict_file(model, data)
        rows = (f"{line}\n" for line in lines)
        if out is None:
            session.state = "the table on stdout is not complete"
            sys.stdout.writelines(rows)
            sys.stdout.flush()
            session.state = "the table on stdout is complete"
        else:
            with Hold() as hold:
                with whole_file(out) as unfinished, hold.interruptible():
                    with unfinished.open("w", encoding="utf-8") as file:
                        file.writelines(rows)
                session.state = f"{out} is complete"
    for remark in remarks:
        _say(remark)


cli.add_command(export)


@cli.command()
@click.argument("text")
@click.option("--levels", type=LEVELS, default=4, show_default=True)
@click.option(
    "--ratio",
    type=click.FloatRange(1.0),
    callback=finite,
    default=2.0,
    show_default=True,
    help="Of cost, level to level.",
)
def schedule(text: str, levels: int, ratio: float) -> None:
    """Draw the cycle TEXT, as "F(2,1)", and count its work."""
    with _bad_input():
        from mgnet import parse
        from mgnet.app.cost_model import cost_model

        steps = parse(text, levels)
        click.echo(str(steps))
        click.echo(f"work: {steps.work(cost_model(levels, ratio))}")
    click.echo(
        "(1 unit: one evaluation on level 0; a sweep, a coarse solve and a residual cost one "
        f"evaluation of\ntheir level, and a level costs 1/{ratio:g} of the next finer one: --ratio)"
    )


@cli.command()
@click.argument("model", type=FILE)
def info(model: Path) -> None:
    """Say what MODEL (an output folder or its model.json) is."""
    with _bad_input():
        from mgnet.app.model import Model

        click.echo(str(Model.load(model)))
