"""The libraries that read and rewrite graphs log what they cannot do, with tracebacks; here that is no news."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

_TALKATIVE = ("onnx_ir", "onnxscript")


@contextmanager
def quiet() -> Iterator[None]:
    """Within the block only what is fatal is logged: a file that is refused is refused by an exception."""
    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)
