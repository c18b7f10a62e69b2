"""`mgnet export`: convert a model to the content of one file."""

from __future__ import annotations

from pathlib import Path

from mgnet.app.exports.formula import Formula
from mgnet.app.exports.onnx_file import onnx_bytes
from mgnet.app.exports.python_file import python_text
from mgnet.app.model import Model

__all__ = ["default_name", "export_model"]


NAMES = {"onnx": "model.onnx", "python": "model.py"}


def default_name(to: str) -> str:
    """The default name of the file.

    Parameters
    ----------
    to : "onnx" or "python"
        Format of the file.

    Examples
    --------
    >>> default_name("python")
    'model.py'
    """
    return NAMES[to]


def export_model(model: str | Path, to: str, module: str = "model") -> bytes:
    """The content of a file that makes the predictions of a model without mgnet.

    Parameters
    ----------
    model : str or Path
        An output folder of `mgnet fit`, or the model.json in it.
    to : "onnx" or "python"
        Format of the file.
    module : str
        Module name in a Python file.

    Raises
    ------
    OSError, ValueError
        If there is no model, or if it is damaged, or if the format cannot represent it.
    ImportError
        If the packages for ONNX are not installed.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from mgnet.app.columns.encoding import Encoding
    >>> from mgnet.app.columns.targets import Targets
    >>> from mgnet.estimators.scales import Scales
    >>> from mgnet.knots import KAN
    >>> scales = Scales(((300.0, 500.0),), (10.0,), (2.0,))
    >>> with TemporaryDirectory() as folder:
    ...     Model(KAN([1, 1]), Encoding.of_numbers(["T"]), Targets(("rho",)), scales).save(folder)
    ...     text = export_model(folder, "python")
    >>> names = {"__name__": "rho"}
    >>> exec(text, names)
    >>> names["predict"]([[400.0], [450.0]]).shape
    (2,)
    """
    if to not in NAMES:
        raise ValueError(f"export_model got to={to!r}; it must be 'onnx' or 'python'")
    formula = Formula.of(Model.load(model))
    return onnx_bytes(formula) if to == "onnx" else python_text(formula, module).encode()
