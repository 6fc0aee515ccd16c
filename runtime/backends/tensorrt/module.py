"""Import TensorRT, or TensorRT for RTX, which speaks the same language; and only when it is asked for."""

from __future__ import annotations

import importlib
from types import ModuleType

from edgeslim.errors import DeviceError, first_line

from ...engines.record import EngineBackend

_MODULES = {"tensorrt": ("tensorrt",), "tensorrt-rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings")}
_INSTALL = {
    "tensorrt": "on a Jetson it comes with JetPack (python3-libnvinfer, and a virtual environment made with "
    "--system-site-packages); elsewhere: pip install tensorrt-cu13; `edgeslim doctor` says what is missing",
    "tensorrt-rtx": "pip install 'edgeslim[rtx]'",
}


def import_tensorrt(backend: EngineBackend) -> ModuleType:
    """The module of `backend`. Raises DeviceError where it is not installed, or its libraries do not load."""
    problems = []
    for name in _MODULES[backend]:
        try:
            return importlib.import_module(name)
        except (ImportError, OSError, RuntimeError) as error:  # its packages raise any of these without a library
            problems.append(f"{name}: {first_line(error)}")
    raise DeviceError(f"{backend} cannot be imported ({'; '.join(problems)})", _INSTALL[backend])
