"""Engines: the real TensorRT-RTX builder, and what every TensorRT version offers."""
