"""One network, one configuration, one serialised engine; with less memory where there was too little.

    typed ONNX -> parse_network -> configure -> build_serialized_network -> bytes

TensorRT returns None where it fails and says why to its logger. Out of memory is tried again with half the workspace,
down to 16 MiB; every other reason goes to the person.
"""

from __future__ import annotations

import re
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

from edgeslim.atomic import write_bytes
from edgeslim.errors import EngineError
from edgeslim.progress import Progress
from edgeslim.runtime.backends.tensorrt.log import Log, TrtObject
from edgeslim.runtime.variants import FrameRange

from .config import Configured, configure
from .monitor import Watch
from .network import Network
from .options import BuildOptions

LEAST_WORKSPACE = 16 * 2**20
FIRST_WORKSPACE = 1024 * 2**20
"""What is tried after TensorRT's own choice, which is all memory there is."""
_NO_MEMORY = ("out of memory", "outofmemory", "insufficient memory", "cudaerrormemoryallocation", "failed to allocate")
_NO_WORKSPACE = ("insufficient workspace", "not enough workspace", "increase workspace", "workspace size")
_NO_NEWS = ("has int64 binding",)
"""Warnings for those who write down the types of outputs by hand; the runtime here asks the engine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Serialized:
    """An engine's bytes and how they came to be. layers: how many the network has before fusion."""

    engine: bytes
    seconds: float
    configured: Configured
    layers: int
    notes: tuple[str, ...]


def build(
    trt: ModuleType,
    log: Log,
    net: Network,
    options: BuildOptions,
    frames: FrameRange,
    *,
    sparse: bool,
    timings: Path | None,
    progress: Progress,
) -> Serialized:
    """Build the engine. sparse: the graph's weights are 2:4.  timings: the file of the timing cache.

    Raises ConfigError as `configure` does, EngineError with TensorRT's reason, and whatever stopped the build from
    within `progress`.
    """
    start, notes = time.monotonic(), list[str]()
    while True:
        configured = configure(trt, net, options, frames, sparse=sparse)
        cache = _load_timings(configured.config, timings, notes)
        watch = Watch(trt, configured.config, progress)
        log.errors.clear()
        memory = net.builder.build_serialized_network(net.network, configured.config)
        if watch.stopped is not None:
            raise watch.stopped
        if memory is not None:
            break
        options = _with_less(trt, log, options, notes, progress)
    _save_timings(cache, timings, notes)
    told = (text for text in map(_one_line, log.warnings) if not any(word in text.lower() for word in _NO_NEWS))
    notes += [*configured.notes, *told]
    reasons = {name: _said_of(name, log) or reason for name, reason in configured.on_gpu.items()}
    return Serialized(
        engine=bytes(memory),
        seconds=time.monotonic() - start,
        configured=replace(configured, on_gpu=reasons),
        layers=net.network.num_layers,
        notes=tuple(dict.fromkeys(notes)),
    )


def _with_less(trt: ModuleType, log: Log, options: BuildOptions, notes: list[str], progress: Progress) -> BuildOptions:
    """The same options with half the workspace. Raises EngineError where that is not what was missing."""
    reason = log.reason("it gives no reason")
    if not log.says(*_NO_MEMORY):
        raise EngineError(f"TensorRT {trt.__version__} built no engine: {reason}", _hint(log, options))
    asked = options.workspace_bytes
    less = FIRST_WORKSPACE if asked is None else asked // 2
    if less < LEAST_WORKSPACE:
        raise EngineError(
            f"TensorRT {trt.__version__} ran out of memory, even with a workspace of {_mib(asked or 0)}: {reason}",
            "end other programs (on a Jetson the CPU's memory is the GPU's), add swap, or build with --level 1",
        )
    notes.append(f"out of memory: built again with a workspace of {_mib(less)}")
    progress.note(notes[-1])
    log.errors.clear()
    return replace(options, workspace_bytes=less)


def _hint(log: Log, options: BuildOptions) -> str:
    if log.says(*_NO_WORKSPACE):
        return "give more with --workspace"
    if options.version_compatible and log.says("nvinfer_lean"):
        return "leave out --version-compatible: the lean runtime that such an engine brings along is not installed"
    if log.says("turing") and "75" in options.targets:
        return "leave 75 out of --sm, or choose a precision without products of float32 matrices, such as fp16"
    return "the reason above is TensorRT's own"


def _load_timings(config: TrtObject, timings: Path | None, notes: list[str]) -> TrtObject:
    """Give the configuration its timing cache, empty where the file has none for this GPU."""
    if timings is None:
        return None
    data = b""
    with suppress(OSError):
        data = timings.read_bytes()
    cache = config.create_timing_cache(data)
    if cache is None or not config.set_timing_cache(cache, False):
        if data:
            notes.append("the timing cache is another TensorRT's or GPU's: kernels were timed anew")
        cache = config.create_timing_cache(b"")
        if cache is not None:
            config.set_timing_cache(cache, False)
    return cache


def _save_timings(cache: TrtObject, timings: Path | None, notes: list[str]) -> None:
    if cache is None or timings is None:
        return
    try:
        write_bytes(timings, bytes(cache.serialize()))
    except OSError as error:  # the engine itself is there
        notes.append(f"the timing cache {timings} could not be written: {error.strerror}")


def _said_of(layer: str, log: Log) -> str | None:
    """TensorRT's own words about a layer that the DLA does not take; None where its log has none."""
    whole = re.compile(rf"(?<![\w./]){re.escape(layer)}(?![\w/]|\.\w)")
    return next((_one_line(text) for text in log.warnings if whole.search(text) and "dla" in text.lower()), None)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _mib(size: int) -> str:
    return f"{size / 2**20:.0f} MiB"
