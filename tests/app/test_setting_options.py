"""Values of options: lists of names and counts, finite numbers, fields of the settings."""

import click
import numpy as np
import pytest

from mgnet.app.setting_options import SETTINGS, column_names, counts, finite, kept, setting_option

OPTION = click.Option(["--most-intervals"])


@pytest.mark.parametrize("seed", range(5))
def test_counts_that_are_written_are_read(seed):
    drawn = tuple(np.random.default_rng(seed).integers(1, 2000, 1 + seed).tolist())
    assert counts(None, OPTION, ",".join(map(str, drawn))) == drawn
    assert counts(None, OPTION, None) is None


@pytest.mark.parametrize("text", ["", "8,", "8;8", "0", "8,-1", "2.5", "x"])
def test_what_are_no_counts(text):
    with pytest.raises(click.BadParameter, match="expected one number, or one for each layer"):
        counts(None, OPTION, text)
    with pytest.raises(click.BadParameter, match="expected widths"):
        counts(None, click.Option(["--hidden"]), text)


def test_names_and_numbers():
    assert column_names(None, None, 'a,"b,c"') == ["a", "b,c"]
    assert finite(None, None, None) is None
    for number in (np.inf, -np.inf, np.nan):
        with pytest.raises(click.BadParameter, match="finite"):
            finite(None, None, number)


def test_options_that_were_given_are_kept():
    @click.command()
    @setting_option("--hidden", callback=kept(counts))
    @setting_option("--levels", type=int)
    @click.pass_context
    def command(context):
        return context.meta.get(SETTINGS)

    assert command.main(["--hidden", "4,2"], standalone_mode=False) == {"hidden": (4, 2)}
    assert command.main([], standalone_mode=False) is None
