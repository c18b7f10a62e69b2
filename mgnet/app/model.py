"""A trained network together with the scales of its table: predict, save, load."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mgnet.app.model_checks import DTYPES, EXTRA
from mgnet.app.model_file import read_model, write_model
from mgnet.checkpoint.architecture import to_config
from mgnet.estimators.scales import Scales, continued
from mgnet.knots import KAN
from mgnet.training.extra_state import check_options, decode

__all__ = ["Model"]


@dataclass(frozen=True, eq=False)
class Model:
    """A KAN on standardised data, with the scales that lead from and to the units of the table.

    Attributes
    ----------
    network : KAN
        On inputs mapped to its domain, for the standardised target.
    names : tuple of str
        Of the inputs.
    target : str
    scales : Scales
        The ranges of the inputs in the training rows, mean and deviation of the target.

    Examples
    --------
    >>> scales = Scales(ranges=((300.0, 500.0),), mean=(10.0,), scale=(2.0,))
    >>> model = Model(KAN([1, 1]), ("T",), "rho", scales)
    >>> model.predict(np.array([[400.0]])).shape
    (1,)
    """

    network: KAN
    names: tuple[str, ...]
    target: str
    scales: Scales

    def inputs(self, x: np.ndarray) -> torch.Tensor:
        """Rows of inputs as in the table, mapped to the domain of the network."""
        return self.scales.inputs(x).to(self.network.coefficients[0].dtype)

    def predict(self, x: np.ndarray) -> np.ndarray:
        """(rows, inputs) -> (rows,), in the units of the table.

        Beyond the ranges the tangent at the nearest point of the box continues the network.
        """
        return self.scales.values(continued(self.network, self.inputs(x)))[:, 0]

    def save(self, folder: str | Path) -> None:
        """Write model.safetensors and model.json into an existing folder, over a former pair.

        At every moment the folder has one whole model.

        Raises
        ------
        ValueError
            For numbers that are not finite, and names that are no line of text.
        OSError
            If the files cannot be written; a former pair is as it was.
        """
        told = {
            **to_config(self.network),
            "inputs": self.names,
            "target": self.target,
            "ranges": self.scales.ranges,
            "mean": self.scales.mean[0],
            "scale": self.scales.scale[0],
        }
        write_model(Path(folder), told, self.network.state_dict())

    @classmethod
    def load(cls, path: str | Path) -> Model:
        """Read a model from its folder, or from the model.json in it.

        Raises
        ------
        OSError, ValueError
            If there is no model, it is damaged, or a newer version wrote it.
        """
        told, state = read_model(Path(path))
        network = _network(told, state)
        if EXTRA in state:
            try:
                check_options("KAN", decode(state[EXTRA]), network.state_options())
            except (ValueError, RuntimeError, RecursionError) as error:
                reason = " ".join(str(error).split())[:120]
                raise ValueError(f"the model {path} is damaged ({reason}); fit it again") from None
        ranges = tuple((float(low), float(high)) for low, high in told["ranges"])
        mean, scale = (float(told["mean"]),), (float(told["scale"]),)
        scales = Scales(ranges, mean, scale, network.domain)
        return cls(network, tuple(told["inputs"]), told["target"], scales)

    def __str__(self) -> str:
        network, scales = self.network, self.scales
        count = sum(p.numel() for p in network.parameters())
        lines = [
            f"KAN {list(network.widths)}, degree {network.degree}, "
            f"{' and '.join(map(str, dict.fromkeys(network.intervals)))} intervals per edge, "
            f"{count} parameters",
            f"predicts {self.target}, about {scales.mean[0]:.6g} with standard deviation "
            f"{scales.scale[0]:.6g}, from",
        ]
        width = max(len(name) for name in self.names)
        for name, (low, high) in zip(self.names, scales.ranges, strict=True):
            lines.append(f"  {name:<{width}}  {low:g} to {high:g}")
        return "\n".join(lines)


def _network(told: Mapping[str, Any], state: Mapping[str, torch.Tensor]) -> KAN:
    """The KAN of a description and its tensors; no random start is drawn only to be lost."""
    widths, intervals, linear = told["widths"], told["intervals"], told["linear"]
    network = KAN(
        [1] * len(widths),
        [1] * len(intervals),
        told["degree"],
        linear=linear,
        domain=tuple(told["domain"]),
        hidden=told.get("hidden", "tanh"),
        dtype=DTYPES[told.get("dtype", "float64")][1],
        device="cpu",
    )
    network.widths, network.intervals = tuple(widths), tuple(intervals)
    network.coefficients = torch.nn.ParameterList(
        torch.nn.Parameter(state[f"coefficients.{number}"]) for number in range(len(intervals))
    )
    if network.linear is not None:
        network.linear.in_features, network.linear.out_features = widths[:2]
        network.linear.weight = torch.nn.Parameter(state["linear.weight"])
        network.linear.bias = torch.nn.Parameter(state["linear.bias"])
    return network
