"""Inference engines behind one small protocol; each engine is imported only when it is opened."""

from .protocol import Array, Backend, BackendFactory
from .registry import BACKENDS, open_backend

__all__ = ["BACKENDS", "Array", "Backend", "BackendFactory", "open_backend"]
