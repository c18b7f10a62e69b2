"""`TimeParallel`: a recurrent network that solves for all time steps at once."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.utils._pytree import tree_map_only

from mgnet.depth.mgrit.communicator import SERIAL_COMMUNICATOR, Communicator
from mgnet.depth.parallel.control import SERIAL, Control, CyclesToTolerance, FixedCycles, PassReport
from mgnet.depth.parallel.solve import WarmStarts
from mgnet.depth.parallel.transforms import not_compiled, transform_of
from mgnet.depth.recurrent.cell_call import KeptCell
from mgnet.depth.recurrent.cell_checks import check_arguments, check_cell
from mgnet.depth.recurrent.cell_steps import Cell, CellState, CoarseStep
from mgnet.depth.recurrent.chaos import ChaoticRecurrenceError
from mgnet.depth.recurrent.compiled_cells import (
    formula_states,
    march_states,
    march_together,
    takes_formulas,
)
from mgnet.depth.recurrent.cycles import TimeCycles
from mgnet.depth.recurrent.initial_state import InitialState, state_widths
from mgnet.depth.recurrent.measured import faster, mode_for, seconds_of_modes, widened
from mgnet.depth.recurrent.recurrence import (
    Recurrence,
    check_module,
    is_known,
    module_of,
    recurrence_of,
    recurrences_of,
)
from mgnet.depth.recurrent.saved_settings import settings_from_state, settings_to_state
from mgnet.depth.recurrent.sequences import TimeSequence, rows_of, size_of
from mgnet.depth.recurrent.serial import march_module
from mgnet.depth.recurrent.shared_solve import solve_shared
from mgnet.depth.recurrent.solve import TimeCall
from mgnet.depth.recurrent.time_share import Shares, told_of_call
from mgnet.training.extra_state import allow_without_extra_state

__all__ = ["TimeParallel"]

MEASURED = 1024  # largest number of shapes for which "auto" keeps its choice
Sequences = Tensor | PackedSequence


class TimeParallel(nn.Module):
    """A recurrent network that solves for all time steps at once by multigrid (MGRIT).

    It is called like `torch.nn.GRU` or `torch.nn.LSTM`, with the same results up to a tolerance.
    Weights are shared over time, so steps computed together are one call of the cell, with time in
    the batch. For autograd, it is one function, whose backward pass solves the adjoint recurrence
    by the same cycles. If cycles do not reach the tolerance, steps are computed one by one, with a
    single warning. Chaotic recurrences, for which cycles would fail, are refused in the first call.

    Parameters
    ----------
    cell : GRUCell, LSTMCell, ImplicitGRUCell, GRU, LSTM, or callable
        A PyTorch cell or module, or any other cell `(x, h) -> h`, with x of shape (rows, features),
        and h of shape (rows, S) or a tuple of such states, the first of which is the output.
    levels : int
        Largest number of levels in time; short sequences have fewer.
    coarsening : int or sequence of int, optional
        Number of steps per step of the next level; by default T^(1 / levels).
    relaxation : str or sequence of str
        A word such as `F` or `FCF` for all levels, or one word per level, finest first.
    control : CyclesToTolerance or FixedCycles, optional
        Number of cycles; by default as many as needed for an error of 1e-6, or rounding if larger.
    mode : {"mgrit", "serial", "auto"}
        "serial" is exact: a compiled loop for narrow GRUs (and LSTMs in double precision) on a CPU
        with numba, else PyTorch's own loop over time, if available. "auto" measures both in the
        first call of each size (within a factor of two) and then uses the faster mode.
    coarse : callable, optional
        A coarse step `(x, h, k) -> h` over k steps, with k of shape (rows, 1) and x the mean of the
        inputs. By default, a GRU or LSTM keeps its gates, and another cell uses its method
        `coarse`, or `extrapolated`.
    cycle : {"V", "F", "W", "newton", "newton(diagonal)", "newton(identity)"}
        A multigrid cycle; or Newton's method for all steps at once, on one level, with dense
        Jacobians (for narrow states), their diagonals, or the identity: see `NewtonSweep`.
    batch_first : bool
        Whether the batch is on axis 0, as in `torch.nn.GRU`; a module keeps its own setting.
    warm_start : bool
        Whether cycles start from the states (in the backward pass, the adjoints) of the last call
        with the same numbers of steps and rows, if there is one, instead of a coarse solution.

    Attributes
    ----------
    last_forward, last_backward : PassReport
        Reports on the last call, from the layer with the most cycles.

    Raises
    ------
    TypeError, ValueError
        If an argument is invalid.
    RuntimeError
        In the first call with a tolerance in mode "mgrit", if errors grow along the steps. Mode
        "auto" then computes exact steps, and so do modules that become chaotic in training.

    Notes
    -----
    Source: Moon, Cyr, "Parallel training of GRU networks with a multi-grid solver for long
    sequences", ICLR 2022.

    Examples
    --------
    >>> generator = torch.manual_seed(0)
    >>> gru = nn.GRU(4, 8)
    >>> parallel, x = TimeParallel(gru), torch.randn(500, 2, 4)
    >>> torch.allclose(parallel(x)[0], gru(x)[0], atol=1e-4), parallel.last_forward.cycles
    (True, 2)
    """

    __call__: Callable[..., tuple[Any, CellState]]

    def __init__(
        self,
        cell: Cell,
        levels: int = 2,
        coarsening: int | Sequence[int] | None = None,
        relaxation: str | Sequence[str] = ("FCF",),
        control: Control | None = None,
        *,
        mode: str = "mgrit",
        coarse: CoarseStep | None = None,
        cycle: str = "V",
        batch_first: bool = False,
        warm_start: bool = False,
    ):
        super().__init__()
        check_arguments(cell, control, mode, coarse, batch_first, warm_start)
        self.cell = cell
        self.coarse = coarse
        self.batch_first = cell.batch_first if isinstance(cell, nn.RNNBase) else batch_first
        self.communicator: Communicator = SERIAL_COMMUNICATOR
        self.shares: Shares | None = None  # set if several processes share the steps
        self.last_forward = self.last_backward = SERIAL
        control = CyclesToTolerance(1e-6) if control is None else control
        cycles = TimeCycles(levels, coarsening, relaxation, cycle)
        self._set(cycles, control, mode, warm_start)

    def _set(self, cycles: TimeCycles, control: Control, mode: str, warm_start: bool) -> None:
        self.cycles, self.control = cycles, control
        self.mode, self.warm_start = mode, warm_start
        self._faster: dict[tuple, tuple[str, float]] = {}  # choices of "auto"; number of cycles
        self._size: tuple = ()  # of the current call, in mode "auto"
        self._starts = WarmStarts()
        self._warned = self._has_solved = False

    def take_part(self, shares: Shares, communicator: Communicator) -> None:
        """Share the steps of all calls with other processes, which make the same calls.

        Each process has the whole module, gets the whole input, and returns the whole output and
        all gradients. Use `mgnet.petsc.distribute_time`, which calls this.

        Parameters
        ----------
        shares : callable
            The distribution of the steps.
        communicator : Communicator
            The processes; the first one is rank 0.
        """
        self.shares, self.communicator = shares, communicator
        self._set(self.cycles, self.control, self.mode, self.warm_start)

    def get_extra_state(self) -> Tensor:
        """Save the settings, as `LayerParallel` does; the function `coarse` cannot be saved."""
        settings = self.cycles, self.control, self.mode, self.warm_start
        return settings_to_state(*settings, self.batch_first)

    def set_extra_state(self, state: Any) -> None:
        """Restore the settings of the saved module, independent of the current ones."""
        self._set(*settings_from_state(state, self.batch_first))
        self._has_solved = True  # training continues even if the recurrence is chaotic

    def _load_from_state_dict(
        self, state: Any, prefix: str, told: Any, strict: bool, missing: list[str], *rest: Any
    ) -> None:
        if (saved := state.get(f"{prefix}_extra_state")) is not None:
            settings_from_state(saved, self.batch_first)  # before anything is changed
        super()._load_from_state_dict(state, prefix, told, strict, missing, *rest)
        allow_without_extra_state(prefix, missing)

    def forward(self, input: Sequences, h0: CellState | None = None) -> tuple[Sequences, CellState]:
        """Compute output and last state, in the shapes of `torch.nn.GRU`, padded or packed.

        Parameters
        ----------
        input : Tensor or PackedSequence
            Input (T, batch, features), (batch, T, features) with `batch_first`, or (T, features).
        h0 : Tensor or tuple of Tensor, optional
            Each part of a state has the shape (layers * directions, batch, S), or (layers *
            directions, S) for input without a batch; zeros by default.
        """
        data = input.data if isinstance(input, PackedSequence) else input
        found: Any = not_compiled(partial(self._forward, input, h0), data)
        return found

    def _forward(self, input: Sequences, h0: CellState | None, data: Tensor) -> Any:
        device = data.device.type if isinstance(data, Tensor) else "cpu"
        if not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):
            return self._plain(input, h0)
        widen = partial(widened, next(self.parameters(), None))
        input, h0 = widen(input), tree_map_only(Tensor, widen, h0)
        with torch.autocast(device, enabled=False):  # so that all modes have the same result
            return self._plain(input, h0)

    def _plain(self, input: Sequences, h0: CellState | None) -> Any:
        if self.shares is not None:
            self.shares.check_same("forward", told_of_call(self, input, h0))
        if self._is_left_to_pytorch(input, h0):
            self.__dict__["last_forward"] = self.__dict__["last_backward"] = SERIAL
            return self.cell(input, h0)  # type: ignore[arg-type]
        sequence = TimeSequence.of(input, self.batch_first)
        start = InitialState.of(self.cell, sequence, h0)
        mode = self._mode(sequence, start)
        if mode == "auto":
            mode = self._measured(sequence, start, self._key(input, h0))
        return self._run(sequence, start, mode)

    def _is_left_to_pytorch(self, input: Sequences, h0: CellState | None) -> bool:
        """Whether a PyTorch module handles this call unchanged, without overhead."""
        if not isinstance(self.cell, nn.RNNBase) or self.mode == "mgrit":
            return False
        if not isinstance(input, Tensor | PackedSequence):
            return self.mode == "serial"
        if self.mode == "auto":
            known = self._faster.get(self._key(input, h0)) if self._faster else None
            if known is None or known[0] != "serial":
                return False
        x = input.data if isinstance(input, PackedSequence) else input
        return not self._marches(input, h0) and not takes_formulas(self, self.cell, x, h0)

    def _key(self, input: Sequences, h0: CellState | None) -> tuple:
        return *size_of(input, h0), self.training, torch.is_grad_enabled()

    def _mode(self, sequence: TimeSequence, start: InitialState) -> str:
        if isinstance(self.cell, nn.RNNBase):
            check_module(self.cell)  # hooks may have been added
        transform = transform_of(self, sequence.x, {"h0": start.states})
        few = self.cycles.are_serial(len(sequence.x))
        return mode_for(sequence.x, self.mode, self.control, transform, few)

    def _run(self, sequence: TimeSequence, start: InitialState, mode: str) -> Any:
        if mode == "serial":
            if takes_formulas(self, self.cell, sequence.x, start.states):
                mode = "formulas"
            elif not self._marches(sequence.output(sequence.x), start.states):
                self.last_forward = self.last_backward = SERIAL
                return march_module(self.cell, sequence, start)
        y, last = self._layered(sequence, start, mode)
        return sequence.output(y), start.given(torch.stack(last))

    def _marches(self, input: Sequences, h0: Any) -> bool:
        """Whether the compiled loop handles all layers of a call."""
        if not is_known(self.cell):
            return False
        layers = self._recurrences(state_widths(self.cell) or (), None)
        return march_together(self, layers, input, h0, rows_of(input, self.batch_first))

    def _recurrences(
        self, widths: tuple[int, ...], coarse: CoarseStep | None, kept: KeptCell | None = None
    ) -> list[list[Recurrence]]:
        """The recurrences of every layer, for each direction."""
        if isinstance(self.cell, nn.GRU | nn.LSTM):
            return recurrences_of(self.cell)
        return [[recurrence_of(self.cell, coarse, widths, kept)]]

    def _checked(self, sequence: TimeSequence, start: InitialState) -> KeptCell | None:
        """What a user's cell depends on, provided that it can be solved in parallel over time."""
        if is_known(self.cell) and self.coarse is None:
            return None
        return check_cell(self.cell, self.coarse, sequence.x, start.states[0], start.widths)

    def _layered(
        self, sequence: TimeSequence, start: InitialState, mode: str
    ) -> tuple[Tensor, list[Tensor]]:
        cell, x, last = self.cell, sequence.x, list[Tensor]()
        given = (self.coarse, self._checked(sequence, start)) if mode == "mgrit" else (None, None)
        layers = self._recurrences(start.widths, *given)
        dropout = cell.dropout if isinstance(cell, nn.RNNBase) and cell.training else 0.0
        self.last_forward = self.last_backward = SERIAL
        for number, directions in enumerate(layers):
            if number and dropout:
                x = sequence.dropout(x, dropout)
            ends = []
            for reverse, recurrence in enumerate(directions):
                inputs, state = sequence.reversed(x) if reverse else x, start.states[len(last)]
                if mode != "mgrit":
                    march = march_states if mode == "serial" else formula_states
                    points = march(recurrence, state, recurrence.inputs(inputs))
                else:
                    call = self._call(recurrence, len(last), sequence.running)
                    points = self._points(call, recurrence, state, inputs)
                y = points[1:, :, : recurrence.widths[0]]
                ends.append(sequence.reversed(y) if reverse else y)
                last.append(sequence.last(points))
            x = ends[0] if len(ends) == 1 else torch.cat(ends, -1)
        self._has_solved = self._has_solved or mode == "mgrit"
        return x, last

    def _call(self, recurrence: Recurrence, number: int, running: Tensor | None) -> TimeCall:
        starts = self._starts if self.warm_start else None
        given = recurrence.steps, self.cycles, self.control, self._report, number, starts, running
        return TimeCall(*given)

    def _points(self, call: TimeCall, *given: Any) -> Tensor:
        """The states from cycles, or from exact steps if a chaotic recurrence is accepted."""
        try:
            return solve_shared(call, self.shares, *given)
        except ChaoticRecurrenceError as found:
            if self.mode == "auto":
                self._faster[self._size] = "serial", math.inf
            elif not self._has_solved:
                raise
            elif not self._warned:  # during training
                self._warned = True
                warnings.warn(f"{found}; now steps are computed exactly", stacklevel=2)
        return solve_shared(call.in_steps(), self.shares, *given)

    def _report(self, direction: str, made: PassReport, solved: bool) -> None:
        name, control = f"last_{direction}", self.control
        if made.cycles >= getattr(self, name).cycles:
            self.__dict__[name] = made
        told = "and was then solved step by step"
        _, measured = self._faster.get(self._size, ("", math.inf))
        if not solved or made.cycles > 1.5 * measured:
            self._faster.pop(self._size, None)  # measure again
        if isinstance(control, FixedCycles) and not made.estimate <= control.tolerance:
            told = f"with an estimated relative error of {made.estimate:.1g}"
        elif solved or self.mode == "auto":
            return
        if not self._warned and self.communicator.rank == 0:
            self._warned = True
            warnings.warn(
                f"TimeParallel took {made.cycles} cycles in the {direction} pass {told}; take more "
                "cycles, another coarsening, a larger tolerance, or mode='serial'",
                stacklevel=2,
            )

    def _measured(self, sequence: TimeSequence, start: InitialState, key: tuple) -> str:
        """The faster mode for sequences like these, including the backward pass in training."""
        if key not in self._faster:
            self._checked(sequence, start)  # before it is called many times
            if len(self._faster) >= MEASURED:
                self._faster.clear()
            kept, starts = (self.last_forward, self.last_backward), dict(self._starts.kept)
            warned, self._warned = self._warned, True  # these results are not returned
            seconds = seconds_of_modes(self._run, sequence, start, [*self.parameters()])
            made = self.last_forward, self.last_backward
            self.last_forward, self.last_backward = kept
            self._warned, self._starts = warned, WarmStarts(starts)
            mode = self.communicator.broadcast(faster(seconds, made, self.control))
            self._faster[key] = mode, max(each.cycles for each in made)
        self._size = key
        return self._faster[key][0]

    @classmethod
    def from_module(
        cls,
        module: nn.GRU | nn.LSTM,
        levels: int = 2,
        coarsening: int | Sequence[int] | None = None,
        relaxation: str | Sequence[str] = ("FCF",),
        control: Control | None = None,
        *,
        mode: str = "mgrit",
    ) -> TimeParallel:
        """Wrap a GRU or LSTM of any number of layers and directions, and share its weights.

        The other arguments are those of `TimeParallel`.

        Raises
        ------
        TypeError
            If `module` is not a GRU or LSTM.
        """
        if not isinstance(module, nn.GRU | nn.LSTM):
            raise TypeError(
                f"TimeParallel.from_module got a {type(module).__name__}; give an nn.GRU or an "
                "nn.LSTM, or a cell to TimeParallel"
            )
        return cls(module, levels, coarsening, relaxation, control, mode=mode)

    def to_module(self) -> nn.GRU | nn.LSTM:
        """Create a PyTorch module with a copy of the weights, under PyTorch's names."""
        return module_of(self.cell, self.batch_first, self.training)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_faster": {}, "_size": (), "_starts": WarmStarts()}

    def extra_repr(self) -> str:
        return f"{self.cycles}, control={self.control}, mode={self.mode}"
