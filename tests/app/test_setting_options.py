"""Values of options: lists of names and counts, finite numbers, fields of the settings."""

import click
import numpy as np
import pytest

from mgnet.app.data import Settings
from mgnet.app.setting_options import (
    SETTINGS,
    column_names,
    counts,
    cycles,
    finite,
    with_settings,
)

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
    @with_settings
    @click.pass_context
    def command(context):
        return Settings(**context.meta.get(SETTINGS))

    own = command.main(["--hidden", "4,2", "--starts", "3"], standalone_mode=False)
    assert own == Settings(hidden=(4, 2), starts=3)
    assert command.main([], standalone_mode=False) == Settings()


def test_cycles_of_dates():
    assert cycles(None, None, None) == []
    assert cycles(None, None, "month, hour") == ["month", "hour"]
    for text in ("day", "hour,hour", ""):
        with pytest.raises(click.BadParameter, match="expected some of hour,weekday,month"):
            cycles(None, None, text)
