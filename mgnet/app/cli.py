"""The command `mgnet`: it parses arguments, prints and writes; other modules do the work.

Exit codes: 0 after success, 2 after bad input (one sentence on stderr), 128 + n after signal n
(130: Ctrl-C).
"""

from __future__ import annotations

import atexit
import gc
import os
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import click

from mgnet import __version__
from mgnet.app.columns.targets import TASKS
from mgnet.app.export_command import export
from mgnet.app.hold import Hold, Noted
from mgnet.app.setting_options import column_names, cycles, finite, settings_of, with_settings
from mgnet.options.reader import OptionReader, insert_options, split_options, unread

__all__ = ["command", "main"]

BAD_INPUT, INTERRUPTED = 2, 130
FILE = click.Path(path_type=Path)
LEVELS = click.IntRange(1, 64)
DECIMAL = click.option(
    "--decimal",
    type=click.Choice([".", ","]),
    help="Decimal mark of a text file, if unclear; the other mark may group digits.",
)
NO_TEXT = {".npz", ".parquet", ".pq", ".xlsx", ".gz", ".bz2", ".xz"}


def main(arguments: Sequence[str] | None = None) -> int:
    r"""Run the command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        Arguments; by default those of the process.

    Returns
    -------
    int
        Exit code of the command.

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
    """Run the command line as a process of its own, and skip the slow cleanup at exit."""
    noted = Noted()
    noted.__enter__()
    atexit.register(noted.end_process)  # registered first, so that it runs after all others
    code = _answer(sys.argv[1:], noted)
    noted.leave_to_system()
    # At exit Python would search all objects of torch and others for garbage, which takes seconds.
    gc.freeze()
    sys.exit(code)


@dataclass
class Session:
    """One call of the command: its text, its start time, and its current state."""

    typed: str = ""
    petsc: bool = False
    state: str = "nothing was written"
    began: float = field(default_factory=time.perf_counter)


def _answer(arguments: Sequence[str], noted: Noted) -> int:
    session, code = Session(), INTERRUPTED
    told = True
    try:
        # Waiting threads must not spin: on a busy machine that slows torch down tenfold.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        code = _run(*split_options(arguments), session, noted)
        told = code == INTERRUPTED
        noted.raising = False
    except KeyboardInterrupt:
        noted.raising, told = False, False
    except Exception:
        noted.raising, told = False, False
        if not noted.numbers:  # otherwise a library has caught a signal
            raise
    if code != INTERRUPTED and not noted.numbers:
        return code
    if not told:
        _say(f"interrupted; {session.state}")
    return 128 + noted.numbers[0] if noted.numbers else INTERRUPTED


def _run(own: list[str], petsc: list[str], session: Session, noted: Noted) -> int:
    session.typed, session.petsc = shlex.join([*own, *petsc]), bool(petsc)
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
    """Convert exceptions of the library to error messages of the command."""
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
@click.option(
    "--target",
    required=True,
    callback=column_names,
    help="Column to predict, numbers or labels; or several numeric columns.",
)
@click.option(
    "--inputs", callback=column_names, help="Columns to predict it from; default: all others."
)
@click.option("--exclude", callback=column_names, help="Columns that are not inputs.")
@click.option("--weights", help="Column with the weights of the rows.")
@click.option(
    "--task",
    type=click.Choice(TASKS),
    help="What the target is; needed for whole numbers of few values.",
)
@click.option(
    "--cyclic",
    callback=cycles,
    help="Cyclic inputs from dates, besides days: some of hour,weekday,month.",
)
@with_settings
@click.option("--out", type=FILE, default="mgnet-fit", show_default=True, help="Output folder.")
@click.option("--overwrite", is_flag=True, help="Replace an earlier model in the output folder.")
@DECIMAL
@click.option("--drop-missing", is_flag=True, help="Leave out rows with missing values.")
@click.option(
    "--compare", is_flag=True, help="Train other methods for the same time and report them."
)
@click.pass_context
def fit(
    context: click.Context,
    data: Path,
    target: list[str],
    inputs: list[str] | None,
    exclude: list[str] | None,
    weights: str | None,
    task: str | None,
    cyclic: list[str],
    out: Path,
    overwrite: bool,
    decimal: str | None,
    drop_missing: bool,
    compare: bool,
) -> int:
    """Train a network on the table DATA (text, .npz, Parquet, Excel; - is standard input).

    PETSc options control the training: -mgnet_cycle, -mgnet_smoother and others; -help lists them.
    """
    settings = settings_of(context, context.obj.petsc)
    # Signals are held back during imports and changes of folders, so that neither is left
    # unfinished.
    with _bad_input(), Hold() as hold:
        from mgnet import parse
        from mgnet.app.output_folder import claimed
        from mgnet.app.table import read_table

        if settings.cycle:
            parse(settings.cycle, OptionReader().get("levels", settings.levels))
        with claimed(out, overwrite) as remarks:
            with hold.interruptible():
                table = read_table(
                    data,
                    target,
                    inputs,
                    drop_missing,
                    exclude=exclude or (),
                    weights=weights,
                    task=task or "",
                    cycles=cyclic,
                    decimal=decimal,
                )
            # Imported late, since they load torch and scikit-learn: a bad table is refused at once.
            from mgnet.app.job import FitJob, run_job

            for remark in remarks:
                _say(remark)
            typed = f"mgnet {context.obj.typed}"
            job = FitJob(table, settings, out, compare, typed, context.obj.began)
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
@DECIMAL
@click.pass_obj
def predict(
    session: Session,
    model: Path,
    data: Path,
    out: Path | None,
    overwrite: bool,
    decimal: str | None,
) -> None:
    """Add the prediction of MODEL (an output folder or its model.json) to the table DATA."""
    with _bad_input():
        from mgnet.app.output_folder import whole_file
        from mgnet.app.prediction import predict_file

        if out is not None and (out.is_dir() or out.suffix.lower() in NO_TEXT):
            what = "is a folder"
            if not out.is_dir():
                what = f"ends in {out.suffix}, but text is written"
            raise click.UsageError(f"{out} {what}; name a file to write, such as new.csv")
        if out is not None and out.exists() and not overwrite:
            raise click.UsageError(f"{out} exists; replace it with --overwrite, or name another")
        lines, remarks = predict_file(model, data, decimal)
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
    help="Ratio of the costs of adjacent levels.",
)
def schedule(text: str, levels: int, ratio: float) -> None:
    """Draw the cycle TEXT, such as "F(2,1)", and count its work."""
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
    """Describe MODEL (an output folder or its model.json)."""
    with _bad_input():
        from mgnet.app.model import Model

        click.echo(str(Model.load(model)))
