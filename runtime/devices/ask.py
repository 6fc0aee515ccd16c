"""Puts a question to `probe.py` in a process of its own and checks the answer."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import TypeVar

from edgeslim.schema import SchemaError, loads

from .sources import Sources

T = TypeVar("T")
_PROBE = Path(__file__).with_name("probe.py")
_TIMEOUT_S = 30.0
"""A first import of TensorRT and CUDA from a board's SD card can take many seconds."""


def ask(sources: Sources, kind: type[T], question: str, *arguments: str) -> T | str:
    """The answer as a dataclass of type `kind`, or in one line why there is none.

    The child searches the modules where this process does, so that it finds what an import here would find.
    """
    command = [sys.executable, str(_PROBE), json.dumps(sys.path), question, *arguments]
    done = sources.run(command, _TIMEOUT_S)
    if done.problem is not None:
        return done.problem
    try:
        return loads(kind, done.stdout)
    except SchemaError as error:
        return f"the answer has another form: {error}"


def is_installed(module: str) -> bool:
    """Whether Python would find a top-level module here; nothing is imported."""
    return find_folder(module) is not None


def find_folder(module: str) -> str | None:
    """The folder from which Python would import a top-level package or module; nothing is imported."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):  # ValueError: the module was blocked or is half made
        return None
    if spec is None:
        return None
    places = [*(spec.submodule_search_locations or []), *([str(Path(spec.origin).parent)] if spec.origin else [])]
    return places[0] if places else None
