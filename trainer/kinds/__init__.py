"""Kinds of tasks: all in which segmentation and classification differ, behind one protocol."""

from .protocol import Kind
from .registry import build_kind

__all__ = ["Kind", "build_kind"]
