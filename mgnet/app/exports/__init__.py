"""A fitted model as one file for programs without mgnet: ONNX, or Python with NumPy only."""

from mgnet.app.exports.export import default_name, export_model

__all__ = ["default_name", "export_model"]
