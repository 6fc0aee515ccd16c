"""Engines of TensorRT, built from bundles on the machine that will run them."""

from .options import BuildOptions, parse_bytes, parse_frames, parse_targets
from .trtexec import trtexec_line
from .verb import Built, build_engine

__all__ = ["BuildOptions", "Built", "build_engine", "parse_bytes", "parse_frames", "parse_targets", "trtexec_line"]
