"""Which engine runs a bundle on this machine, and why that one.

An engine that was built here and run on the golden vectors is first; then CUDA by ONNX Runtime; then the CPU. Every
candidate that was passed over says why, so that "it is slow" has an answer in `edgeslim inspect`.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path

from edgeslim.errors import ConfigError, DeviceError, EngineError

from .backends.protocol import Backend
from .backends.registry import BACKENDS, ENGINE_BACKENDS
from .bundle import Bundle
from .engines import EngineBackend, EngineStore, StoredEngine, engines_folder
from .engines.here import Here, look_here
from .variants import MODEL

AUTO = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What runs a bundle. passed_over: other candidates -> why not they."""

    backend: str
    reason: str
    engine: StoredEngine | None = None
    passed_over: dict[str, str]


def choose(
    bundle: Bundle,
    *,
    precision: str = MODEL,
    backend: str = AUTO,
    engines: str | os.PathLike[str] | None = None,
    here: Here | None = None,
) -> Choice:
    """Choose among what is installed and built; a named backend is taken, or refused with the reason.

    engines: the folder of engines, the one beside the bundle where None.  here: this machine's GPU, looked for where
    None. Raises ConfigError for an unknown name, EngineError where a named backend has no engine that fits.
    """
    store = EngineStore(engines_folder(bundle.path) if engines is None else Path(engines))
    if backend in ENGINE_BACKENDS:
        found, reason = _engine(store, bundle, precision, backend, here or look_here())
        if found is None:
            raise EngineError(
                f"{bundle.path} has no engine for {backend} in {precision} that fits here: {reason}",
                f"build one on this machine: edgeslim build {bundle.path} --backend {backend} --precision {precision}",
            )
        return Choice(backend=backend, reason="asked for", engine=found, passed_over={})
    if backend != AUTO:
        if backend not in BACKENDS:
            raise ConfigError(f"there is no backend {backend!r}", f"choose one of: {', '.join((AUTO, *BACKENDS))}")
        return Choice(backend=backend, reason="asked for", passed_over={})
    passed: dict[str, str] = {}
    if any(store.folder.glob("*.engine")):  # TensorRT is not imported for nothing
        here = here or look_here()
        for name in ENGINE_BACKENDS:
            found, reason = _engine(store, bundle, precision, name, here)
            if found is not None:
                return Choice(backend=name, reason=reason, engine=found, passed_over=passed)
            passed[name] = reason
    else:
        passed[ENGINE_BACKENDS[0]] = f"no engine has been built in {store.folder}"
    problem = _why_no_cuda()
    if problem is None:
        return Choice(backend="onnxruntime-cuda", reason="ONNX Runtime has CUDA here", passed_over=passed)
    passed["onnxruntime-cuda"] = problem
    return Choice(backend="onnxruntime", reason="the CPU is what is left", passed_over=passed)


def without_cuda(choice: Choice, why: str) -> Choice:
    """The CPU after all, for ONNX Runtime's CUDA was chosen and does not start."""
    return replace(
        choice,
        backend="onnxruntime",
        reason="the CPU is what is left",
        passed_over={**choice.passed_over, choice.backend: why},
    )


def open_engine(engine: StoredEngine, memory: str) -> Backend:
    """Load a stored engine into its TensorRT. Raises DeviceError without a GPU, EngineError where it does not load."""
    from .backends.tensorrt.backend import TensorRTBackend

    return TensorRTBackend(engine.read(), backend=engine.record.spec.backend, memory=memory, where=str(engine.path))


def _engine(
    store: EngineStore, bundle: Bundle, precision: str, backend: EngineBackend, here: Here
) -> tuple[StoredEngine | None, str]:
    """The engine that fits and why, or None and why not."""
    from .backends.tensorrt.module import import_tensorrt

    graph = hashlib.sha256(bundle.graph(precision)).hexdigest()
    own = [e for e in store.engines() if e.record.spec.backend == backend and e.record.spec.precision == precision]
    if not own:
        return None, f"no engine of {precision} in {store.folder}"
    try:
        version = str(import_tensorrt(backend).__version__)
    except DeviceError as error:
        return None, error.message
    misfits, fitting = list[str](), list[StoredEngine]()
    for engine in own:
        reason = why_unfit(engine, graph, version, here)
        if reason is None:
            fitting.append(engine)
        else:
            misfits.append(f"{engine.path.name}: {reason}")
    if not fitting:
        return None, "; ".join(misfits)
    best = max(fitting, key=lambda engine: (engine.record.checked, _built_at(engine), engine.path.name))
    checked = "run on the golden vectors" if best.record.checked else "never run on the golden vectors"
    among = "" if len(fitting) == 1 else f"; it is the newest such of {len(fitting)} that fit"
    return best, f"{best.path.name} was built for this GPU and was {checked}{among}"


def _built_at(engine: StoredEngine) -> int:
    try:
        return engine.path.stat().st_mtime_ns
    except OSError:  # removed since the folder was read: opening it will say so
        return 0


def why_unfit(engine: StoredEngine, onnx_sha256: str, version: str, here: Here) -> str | None:
    """Why an engine is not for this graph, this TensorRT or this GPU; None where it is."""
    spec = engine.record.spec
    if spec.onnx_sha256 != onnx_sha256:
        return "it was built from another model"
    if spec.version != version and "VERSION_COMPATIBLE" not in spec.flags:
        return f"it was built by TensorRT {spec.version}, here is {version}"
    if here.compute_capability is None:
        return here.problem or "there is no GPU"
    if spec.targets:
        wanted = here.compute_capability.replace(".", "")
        return None if wanted in spec.targets else f"it was built for {spec.where}, this GPU is sm{wanted}"
    compatible = "hardware_compatibility_level" in spec.settings
    if spec.compute_capability != here.compute_capability and not compatible:
        return f"it was built on compute capability {spec.compute_capability}, this GPU has {here.compute_capability}"
    if spec.gpu != here.gpu and not compatible:
        return f"it was built on {spec.gpu}, this GPU is {here.gpu}"
    return None


def _why_no_cuda() -> str | None:
    try:
        import onnxruntime
    except ImportError:
        return "ONNX Runtime is not installed"
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        return "this ONNX Runtime was built without CUDA"
    return look_here().problem
