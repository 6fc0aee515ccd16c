"""TensorRT tells the reason of a failure to its logger and returns None: keep what it says.

It keeps the first logger that a process gives it, warns of every other one, and in some versions never calls those. So
there is one logger for a process, which passes on what it hears to every `Log` that is alive.
"""

from __future__ import annotations

import weakref
from types import ModuleType
from typing import Any, TypeAlias

TrtObject: TypeAlias = Any
"""One of TensorRT's own objects. Their members differ from version to version; tests hold which ones are touched."""

_ERRORS = ("INTERNAL_ERROR", "ERROR")
_loggers: dict[ModuleType, TrtObject] = {}
_listening: dict[ModuleType, tuple[weakref.ref[Log], ...]] = {}


class Log:
    """What TensorRT said, by severity. `logger` is the object that TensorRT wants."""

    def __init__(self, trt: ModuleType) -> None:
        self.errors: list[str] = []
        self.warnings: list[str] = []
        alive = (listener for listener in _listening.get(trt, ()) if listener() is not None)
        _listening[trt] = (*alive, weakref.ref(self))  # a new tuple: TensorRT's threads may be walking the old one
        self.logger: TrtObject = _loggers.get(trt) or _loggers.setdefault(trt, _make_logger(trt))

    def add(self, severity: str, message: str) -> None:
        """Keep errors and warnings, each once."""
        kept = self.errors if severity in _ERRORS else self.warnings if severity == "WARNING" else None
        if kept is not None and message not in kept:
            kept.append(message)

    def reason(self, default: str) -> str:
        """The first error in one line: later ones are mostly its consequences."""
        return " ".join(self.errors[0].split()) if self.errors else default

    def says(self, *words: str) -> bool:
        """Whether an error has one of these words, whatever their case."""
        text = "\n".join(self.errors).lower()
        return any(word.lower() in text for word in words)


def _make_logger(trt: ModuleType) -> TrtObject:
    class _Logger(trt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)  # super() would skip the binding's own constructor

        def log(self, severity: TrtObject, message: str) -> None:
            for listener in _listening[trt]:
                log = listener()
                if log is not None:
                    log.add(severity.name, message)

    return _Logger()
