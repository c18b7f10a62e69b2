"""A trained network together with the scales of its table: predict, save, load."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from mgnet import __version__
from mgnet.checkpoint.architecture import from_config, to_config
from mgnet.estimators.scales import Scales, continued
from mgnet.knots import KAN

__all__ = ["Model"]

FORMAT = 1


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
        """Write model.safetensors and model.json into an existing folder."""
        folder = Path(folder)
        state = {name: value.contiguous() for name, value in self.network.state_dict().items()}
        # Not by `save_file`: it makes a temporary file, which nobody else may read.
        (folder / "model.safetensors").write_bytes(save(state))
        told = {
            "mgnet": __version__,
            "format": FORMAT,
            **to_config(self.network),
            "inputs": self.names,
            "target": self.target,
            "ranges": self.scales.ranges,
            "mean": self.scales.mean[0],
            "scale": self.scales.scale[0],
        }
        text = json.dumps(told, indent=2, ensure_ascii=False)
        (folder / "model.json").write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Model:
        """Read a model from its folder, or from the model.json in it.

        Raises
        ------
        OSError, ValueError
            If there is no model, it is damaged, or a newer version wrote it.
        """
        path = Path(path)
        file = path / "model.json" if path.is_dir() else path
        if not file.is_file():
            raise FileNotFoundError(
                f"{path} holds no model.json; give a folder that fit has written"
            )
        try:
            told = json.loads(file.read_text(encoding="utf-8"))
            if int(told["format"]) > FORMAT:
                raise NewerFormatError(
                    f"{file} has format {told['format']}, written by mgnet {told['mgnet']}; "
                    f"this mgnet {__version__} reads up to {FORMAT}: upgrade it"
                )
            network = from_config(told)
            if not isinstance(network, KAN):
                raise ValueError("its kind is not KAN")
            network.load_state_dict(load_file(file.with_name("model.safetensors")))
            ranges = tuple((float(low), float(high)) for low, high in told["ranges"])
            if len(ranges) != network.widths[0] or len(told["inputs"]) != network.widths[0]:
                raise ValueError("inputs and widths differ")
            mean, scale = (float(told["mean"]),), (float(told["scale"]),)
            scales = Scales(ranges, mean, scale, network.domain)
            return cls(network, tuple(told["inputs"]), str(told["target"]), scales)
        except NewerFormatError:
            raise
        except FileNotFoundError:
            raise FileNotFoundError(
                f"{file.with_name('model.safetensors')} is missing; it belongs to {file}"
            ) from None
        except (KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
            reason = " ".join(str(error).split())[:120]
            raise ValueError(f"the model {file} is damaged ({reason}); fit it again") from None

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


class NewerFormatError(ValueError):
    """The model was written by a newer version."""
