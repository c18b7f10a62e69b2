"""A trained network together with the scales of its table: predict, save, load."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mgnet.app.columns.encoding import Encoding
from mgnet.app.columns.targets import Targets
from mgnet.app.files.columns import listed
from mgnet.app.model_checks import DTYPES, EXTRA, as_list, columns_of
from mgnet.app.model_file import read_model, write_model
from mgnet.checkpoint.architecture import to_config
from mgnet.estimators.scales import Scales, continued
from mgnet.knots import KAN
from mgnet.training.extra_state import check_options, decode

__all__ = ["Model"]


@dataclass(frozen=True, eq=False)
class Model:
    """A KAN on scaled data, with the conversion from and to the columns of the table.

    Attributes
    ----------
    network : KAN
        Network on inputs mapped to its domain, for standardized targets or the logits of classes.
    encoding : Encoding
        Encoding from the columns of a table to the inputs.
    targets : Targets
        Names of the targets, and the classes.
    scales : Scales
        Ranges of the inputs in the training rows, and means and deviations of the targets.

    Examples
    --------
    >>> scales = Scales(ranges=((300.0, 500.0),), mean=(10.0,), scale=(2.0,))
    >>> model = Model(KAN([1, 1]), Encoding.of_numbers(["T"]), Targets(("rho",)), scales)
    >>> model.predict(np.array([[400.0]])).shape
    (1,)
    """

    network: KAN
    encoding: Encoding
    targets: Targets
    scales: Scales

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the inputs of the network."""
        return self.encoding.names

    def inputs(self, x: np.ndarray) -> torch.Tensor:
        """Rows of inputs in the units of the table, mapped to the domain of the network."""
        return self.scales.inputs(x).to(self.network.coefficients[0].dtype)

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Predictions of shape (rows,) or (rows, targets), in the table's units, or probabilities.

        Beyond the training ranges, the network is extended by its tangent at the nearest point of
        the box; probabilities, of shape (rows, classes), are those of the nearest point.
        """
        z = self.inputs(x)
        if self.targets.classes:
            with torch.no_grad():
                return torch.softmax(self.network(z.clamp(*self.network.domain)), 1).numpy()
        values = self.scales.values(continued(self.network, z))
        return values[:, 0] if len(self.targets.names) == 1 else values

    def save(self, folder: str | Path) -> None:
        """Write model.safetensors and model.json into a folder, replacing an earlier pair.

        At every moment, the folder has one complete model.

        Raises
        ------
        ValueError
            If a number is not finite, or a name is not a single line of text.
        OSError
            If the files cannot be written; an earlier pair is not changed.
        """
        told = {
            **to_config(self.network),
            "inputs": self.names,
            "targets": self.targets.names,
            "classes": self.targets.classes,
            "ranges": self.scales.ranges,
            "mean": self.scales.mean,
            "scale": self.scales.scale,
            **self.encoding.described(),
        }
        write_model(Path(folder), told, self.network.state_dict())

    @classmethod
    def load(cls, path: str | Path) -> Model:
        """Read a model from its folder, or from the model.json in it.

        Raises
        ------
        OSError, ValueError
            If there is no model, or if it is damaged or was written by a newer version.
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
        mean, scale = (tuple(map(float, as_list(told[key]))) for key in ("mean", "scale"))
        scales = Scales(ranges, mean, scale, network.domain)
        targets, encoding = columns_of(told)
        return cls(network, encoding, targets, scales)

    def __str__(self) -> str:
        network, scales = self.network, self.scales
        count = sum(p.numel() for p in network.parameters())
        lines = [
            f"KAN {list(network.widths)}, degree {network.degree}, "
            f"{' and '.join(map(str, dict.fromkeys(network.intervals)))} intervals per edge, "
            f"{count} parameters",
            f"predicts {self._predicts()}, from",
        ]
        width = max(len(name) for name in self.names)
        for name, (low, high) in zip(self.names, scales.ranges, strict=True):
            low, high = (self.encoding.told(name, end) for end in (low, high))
            lines.append(f"  {name:<{width}}  {low} to {high}")
        return "\n".join(lines)

    def _predicts(self) -> str:
        targets, scales = self.targets, self.scales
        if targets.classes:
            return f"{targets.title}, one of {listed(targets.classes)}"
        return " and ".join(
            f"{name}, about {mean:.6g} with standard deviation {scale:.6g}"
            for name, mean, scale in zip(targets.names, scales.mean, scales.scale, strict=True)
        )


def _network(told: Mapping[str, Any], state: Mapping[str, torch.Tensor]) -> KAN:
    """Build the KAN from its description and its tensors, without drawing random initial values."""
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
