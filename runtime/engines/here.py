"""The GPU of this machine, as far as an engine depends on it."""

from __future__ import annotations

from dataclasses import dataclass

from edgeslim.errors import first_line

from ..devices import Sources, kernel_driver, read_board
from ..devices.nvml import ask_nvml
from ..devices.probe import text_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Here:
    """None: not known. problem: why there is no GPU to be seen."""

    compute_capability: str | None = None
    """Such as "8.7"."""
    gpu: str | None = None
    board: str | None = None
    driver: str | None = None
    problem: str | None = None


def look_here(device: int = 0) -> Here:
    """Ask CUDA for the GPU, the kernel for the board. Never raises."""
    sources = Sources()
    board = read_board(sources)
    try:
        from cuda.bindings import runtime as cuda

        status, count = cuda.cudaGetDeviceCount()
    except (ImportError, OSError, RuntimeError) as error:  # without a library it raises any of these
        return Here(board=board, problem=f"cuda-bindings cannot be used: {first_line(error)}")
    if status != cuda.cudaError_t.cudaSuccess or device >= count:
        _, text = cuda.cudaGetErrorString(status)
        return Here(board=board, problem=f"CUDA sees no GPU {device}: {text.decode(errors='replace')}")
    status, properties = cuda.cudaGetDeviceProperties(device)
    if status != cuda.cudaError_t.cudaSuccess:
        _, text = cuda.cudaGetErrorString(status)
        return Here(board=board, problem=f"CUDA does not describe GPU {device}: {text.decode(errors='replace')}")
    _, driver = cuda.cudaDriverGetVersion()
    return Here(
        compute_capability=f"{properties.major}.{properties.minor}",
        gpu=properties.name.decode(errors="replace").strip("\0 "),
        board=board,
        driver=_driver_version(sources) or f"CUDA {driver // 1000}.{driver % 1000 // 10}",
    )


def _driver_version(sources: Sources) -> str | None:
    """The driver's own version, by NVML, which not every Jetson has, or by the kernel."""
    return ask_nvml(lambda nvml: text_of(nvml.nvmlSystemGetDriverVersion())) or kernel_driver(sources)
