"""A `LayerParallel` whose levels, cycles and control come from PETSc's options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mgnet.options.reader import OptionReader, check_names

if TYPE_CHECKING:
    from mgnet.depth import AdaptiveCycles, CyclesToTolerance, FixedCycles, LayerParallel, ODENet

__all__ = [
    "control_from_options",
    "factors_from_options",
    "layer_parallel_from_options",
    "named",
]


def layer_parallel_from_options(
    net: ODENet,
    *,
    prefix: str = "",
    levels: int = 2,
    coarsening: int | Sequence[int] = 4,
    forward: str = "cascade + V",
    backward: str = "cascade + V",
    control: FixedCycles | CyclesToTolerance | AdaptiveCycles | None = None,
    relaxation: Sequence[str] = ("F", "FCF"),
    mode: str = "mgrit",
    coarse: str = "mean",
) -> LayerParallel:
    """Build the layer-parallel module that the script specifies, modified by the options.

    Call `init(sys.argv)` first.

    Parameters
    ----------
    net : ODENet
        The network whose layers are propagated in parallel.
    prefix : str
        Prefix of the option names: with "net_", the options are `-net_mgnet_forward_cycle` and so
        on.
    levels, coarsening, forward, backward, control, relaxation, mode, coarse
        The settings of `LayerParallel`, used where no option is given; an option takes precedence.

    Returns
    -------
    LayerParallel
        The module with the settings of the script and of the options.

    Raises
    ------
    ValueError
        If an `mgnet` option is unknown or has an invalid value.

    Examples
    --------
    >>> import torch
    >>> from mgnet.depth import ODENet
    >>> net = ODENet(torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Tanh()), layers=64)
    >>> layer_parallel_from_options(net, coarsening=8).settings["forward"]
    'cascade + V'
    """
    from mgnet.depth import FixedCycles, LayerParallel  # loads torch

    check_names()
    values = OptionReader(prefix, "layers")
    factors = factors_from_options(coarsening, values)
    relaxation = values.get("relaxation", tuple(relaxation))
    levels = values.get("levels", levels)
    texts = values.get("forward_cycle", forward), values.get("backward_cycle", backward)
    control = control_from_options(FixedCycles() if control is None else control, values)
    mode, coarse = values.get("mode", mode), values.get("coarse", coarse)
    values.help()
    try:
        return LayerParallel(
            net,
            levels,
            factors,
            *texts,
            control,
            relaxation=relaxation,
            mode=mode,
            coarse=coarse,
        )
    except ValueError as error:
        raise named(
            error, values, ("levels", "coarsening", "forward_cycle", "backward_cycle")
        ) from None


def factors_from_options(coarsening: Any, values: OptionReader) -> Any:
    """Return the coarsening from the options or the script; a single factor becomes a number.

    Examples
    --------
    >>> factors_from_options([8], OptionReader("unused_"))
    8
    """
    given: Any = tuple(coarsening) if isinstance(coarsening, Sequence) else coarsening
    factors = values.get("coarsening", given)
    return factors[0] if isinstance(factors, tuple) and len(factors) == 1 else factors


def named(error: ValueError, values: OptionReader, names: Sequence[str]) -> ValueError:
    """Return the error, preceded by the names of those of the options that were given.

    Examples
    --------
    >>> named(ValueError("too many levels"), OptionReader("unused_"), ["levels"])
    ValueError('too many levels')
    """
    shown = [values.shown(n) for n in names if values.text(f"mgnet_{n}") is not None]
    return ValueError(f"option {', '.join(shown)}: {error}") if shown else error


def control_from_options(control: Any, values: OptionReader) -> Any:
    """Return the control that the options specify; other settings keep the script's values.

    Parameters
    ----------
    control : FixedCycles, CyclesToTolerance or AdaptiveCycles
        The control that the script specifies.
    values : OptionReader
        Reader of the options with one prefix.

    Examples
    --------
    >>> from mgnet.depth import FixedCycles
    >>> control_from_options(FixedCycles(2), OptionReader("unused_"))
    FixedCycles(cycles=2, backward=None, tolerance=0.1)
    """
    from mgnet.depth import AdaptiveCycles, CyclesToTolerance, FixedCycles

    kinds = {"fixed": FixedCycles, "tolerance": CyclesToTolerance, "adaptive": AdaptiveCycles}
    own = next(name for name, kind in kinds.items() if type(control) is kind)
    name = values.get("control", own)
    if name != own:
        control = kinds[name](tolerance=control.tolerance)
    control = replace(control, tolerance=values.get("tolerance", control.tolerance))
    if name == "tolerance":
        forward = values.get("forward_max_cycles", control.max_cycles)
        backward = values.get("backward_max_cycles", forward)
        return replace(control, max_cycles=max(forward, backward))
    forward = values.get(
        "forward_max_cycles", control.cycles if name == "fixed" else control.forward
    )
    backward = values.get("backward_max_cycles", control.backward)
    if name == "fixed":
        return replace(control, cycles=forward, backward=backward)
    return replace(control, forward=forward, backward=backward)
