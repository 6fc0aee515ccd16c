"""ONNX files from anywhere: read with suspicion, brought into the form that the analysis knows, run on any input."""

from .read import ForeignModel, read_foreign, read_onnx

__all__ = ["ForeignModel", "read_foreign", "read_onnx"]
