"""A one-sentence explanation of how a `LayerParallel` module processes a batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mgnet.depth.parallel.compiled_cycles import compiled_cycles
from mgnet.depth.parallel.compiled_serial import compiled_march
from mgnet.depth.parallel.evaluation import unchanged
from mgnet.depth.parallel.method import SERIAL_METHOD

if TYPE_CHECKING:
    from mgnet.depth.network.ode_net import ODENet

__all__ = ["Explained"]


class Explained(nn.Module):
    """A module that reports whether its propagation is compiled."""

    net: ODENet
    control: Any
    settings: dict[str, Any]

    method: Any

    def _prepare(self, u: Tensor, method: Any, side: Mapping[str, Any]) -> tuple[Any, ...]:
        raise NotImplementedError

    def explain(self, x: Tensor, **side: Any) -> str:
        """Describe the propagation of a batch x: serial or cycles, in compiled loops or not.

        Parameters
        ----------
        x : Tensor
            A batch, as for a call; all processes must pass the same batch.
        side : Tensor
            Side inputs, as for a call.

        Returns
        -------
        str
            One sentence.

        Examples
        --------
        >>> from mgnet.depth import LayerParallel, ODENet
        >>> x = torch.ones(5, 2, 3)
        >>> net = ODENet(nn.Conv1d(2, 2, 1), layers=8)
        >>> print(LayerParallel(net, levels=1).explain(x))
        Serial propagation, without compiled loops: Conv1d is not among the supported modules.
        >>> print(LayerParallel(ODENet(nn.Linear(3, 3), layers=8)).explain(x))
        Cycles over the layers, in compiled loops; serial propagation would be in a compiled loop.
        """
        mode = self.settings["mode"] if self.settings["factors"] else "serial"
        with torch.no_grad(), unchanged(self.net):
            u = self.net.encode(x, **side)
            found = compiled_march(self._prepare(u, SERIAL_METHOD, side)[0], u)
            cycles: Any = ""
            if mode != "serial":
                cycles = compiled_cycles(self._prepare(u, self.method, side)[0], u)
        how = f"without compiled loops: {found}" if isinstance(found, str) else "in a compiled loop"
        if mode == "serial" or self.control is None:
            few = " from checkpoints" * (self.settings["memory"] == "checkpoints")
            return f"Serial propagation{few}, {how}."
        same = isinstance(found, str) and found == cycles
        loops = f"without compiled loops{'' if same else f': {cycles}'}"
        if not isinstance(cycles, str):
            fused = self.method.coarse == "fused"
            loops = f"in compiled loops{' on the finest level' * fused}"
        if mode == "auto":
            return f"Cycles, {loops}, or serial propagation, if it is faster; the latter is {how}."
        return f"Cycles over the layers, {loops}; serial propagation would be {how}."
