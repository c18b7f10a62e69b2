"""The command `mgnet export`."""

from __future__ import annotations

from pathlib import Path

import click

from mgnet.app.hold import Hold

__all__ = ["export"]

FILE = click.Path(path_type=Path)


@click.command()
@click.argument("model", type=FILE)
@click.option("--to", type=click.Choice(["onnx", "python"]), required=True, help="Kind of file.")
@click.option("--out", type=FILE, help="File to write; default: model.onnx or model.py.")
@click.option("--overwrite", is_flag=True, help="Replace the file.")
@click.pass_context
def export(context: click.Context, model: Path, to: str, out: Path | None, overwrite: bool) -> None:
    """Write MODEL (an output folder or its model.json) as one file that predicts without mgnet.

    Either form takes columns in the units of the table, and predicts the same as `mgnet predict`.
    """
    try:
        from mgnet.app.exports import default_name, export_model
        from mgnet.app.output_folder import whole_file

        out = Path(default_name(to)) if out is None else out
        if out.is_dir():
            raise click.UsageError(f"{out} is a folder; name a file to write")
        if out.exists() and not overwrite:
            raise click.UsageError(f"{out} exists; replace it with --overwrite, or name another")
        content = export_model(model, to, out.stem)
        with Hold() as hold:
            with whole_file(out) as unfinished, hold.interruptible():
                unfinished.write_bytes(content)
            context.obj.state = f"{out} is complete"
    except (ValueError, OSError, ImportError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"wrote {out}")
