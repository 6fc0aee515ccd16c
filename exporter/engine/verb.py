"""The verb: from a bundle to an engine on this machine, built once, run before it is kept, found again later.

    bundle -> typed graph -> parse, configure -> key -> in the store? -> build -> check -> store

Torch-free, and without ONNX Runtime: it runs on the camera's own board.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from edgeslim.errors import ConfigError, DeviceError, EngineError
from edgeslim.progress import Progress
from edgeslim.runtime import Bundle, FrameRange, read_bundle
from edgeslim.runtime.backends import Backend
from edgeslim.runtime.backends.tensorrt.backend import TensorRTBackend
from edgeslim.runtime.backends.tensorrt.log import Log
from edgeslim.runtime.backends.tensorrt.module import import_tensorrt
from edgeslim.runtime.engines import EngineRecord, EngineSpec, EngineStore, StoredEngine, engines_folder
from edgeslim.runtime.engines.here import Here, look_here
from edgeslim.runtime.manifest import FileEntry
from edgeslim.runtime.validation import ValidationSet

from .build import Serialized, build
from .check import MOST_LOSS, Checked, OpenEngine, check_engine
from .config import configure
from .diagnose import diagnose
from .frames import frames_of
from .network import Network, parse_network, stays_typed
from .options import BuildOptions
from .typed_graph import has_sparse_weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """An engine, and whether it had been built before.

    layers: of the network before fusion, None where it was reused.
    """

    stored: StoredEngine
    reused: bool
    layers: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """All that one build is about."""

    trt: ModuleType
    log: Log
    bundle: Bundle
    options: BuildOptions
    frames: FrameRange
    here: Here
    sparse: bool
    net: Network
    spec: EngineSpec
    notes: tuple[str, ...]


def build_engine(
    bundle: Path,
    options: BuildOptions,
    *,
    cache: Path | None = None,
    validation: ValidationSet | None = None,
    most_loss: float = MOST_LOSS,
    progress: Progress,
    open_engine: OpenEngine | None = None,
    here: Here | None = None,
) -> Built:
    """Build the engine of `bundle` that `options` ask for, or find it.

    cache: the folder of engines, the one beside the bundle where None.  validation, most_loss: see `check_engine`.
    open_engine, here: how engines are run and what GPU there is, found out where None.
    Raises BundleError, ConfigError, DeviceError without TensorRT, UnsupportedGraphError naming the node that TensorRT
    does not take, EngineError where the build fails, CertificateError for an engine that computes something else.
    """
    job = _prepare(read_bundle(bundle), options, here or look_here(), progress)
    store = EngineStore(engines_folder(bundle) if cache is None else cache.absolute())
    runs = open_engine or functools.partial(_open, job)
    found = _find(store, job, None)
    if found is None:
        with store.building(job.spec, functools.partial(_tell_waiting, progress)):
            found = _find(store, job, progress)
            if found is None:
                return _build_new(job, store, runs, validation, most_loss, progress)
    if found.record.golden is None or validation is not None:
        found = _check_again(job, store, found, runs, validation, most_loss, progress)
    return Built(stored=found, reused=True, layers=None)


def _prepare(bundle: Bundle, options: BuildOptions, here: Here, progress: Progress) -> _Job:
    """Parse the graph and find the key of the engine."""
    graph, where = bundle.graph(options.precision), f"{bundle.path} ({options.precision})"
    frames, remarks = frames_of(bundle, options.frames)
    variant = bundle.variant(options.precision)
    if variant is not None and variant.placement == "onnxruntime":
        raise ConfigError(
            f"{where}: its quantised values have zero points for ONNX Runtime's kernels, and TensorRT takes none",
            f"make one for TensorRT: edgeslim quantize {bundle.path} --precision int8",
        )
    if options.backend == "tensorrt-rtx" and not options.targets and here.compute_capability is None:
        raise DeviceError(
            f"there is no GPU to build for: {here.problem}", "name the GPUs with --sm, such as --sm 86,89"
        )
    trt = import_tensorrt(options.backend)
    log = Log(trt)
    progress.stage("parsing")
    net = parse_network(trt, log, graph, typed=stays_typed(trt, options.dla_core is not None), where=where)
    sparse = has_sparse_weights(graph)
    configured = configure(trt, net, options, frames, sparse=sparse)
    own = Here(board=here.board) if options.targets else here
    spec = EngineSpec(
        onnx_sha256=hashlib.sha256(graph).hexdigest(),
        backend=options.backend,
        version=str(trt.__version__),
        targets=options.targets,
        compute_capability=own.compute_capability,
        gpu=own.gpu,
        board=None if options.targets else own.board,
        driver=own.driver,
        precision=options.precision,
        frames=frames,
        dla_core=options.dla_core,
        flags=configured.flags,
        settings=configured.settings,
    )
    for remark in remarks:
        progress.note(remark)
    return _Job(
        trt=trt, log=log, bundle=bundle, options=options, frames=frames, here=here, sparse=sparse, net=net, spec=spec,
        notes=remarks,
    )  # fmt: skip


def _tell_waiting(progress: Progress) -> None:
    progress.note("another process builds this engine: waiting for it")


def _find(store: EngineStore, job: _Job, progress: Progress | None) -> StoredEngine | None:
    """The engine, whole; None where there is none, or a damaged one. progress: told of that, before it is replaced."""
    try:
        found = store.find(job.spec)
        if found is not None:
            found.read()
    except EngineError as error:
        if progress is not None:
            progress.note(f"{error.message}: it is built again")
        return None
    return found


def _build_new(
    job: _Job, store: EngineStore, runs: OpenEngine, data: ValidationSet | None, most_loss: float, progress: Progress
) -> Built:
    made = build(
        job.trt, job.log, job.net, job.options, job.frames,
        sparse=job.sparse, timings=_timings(job, store), progress=progress,
    )  # fmt: skip
    progress.stage("checking")
    checked = _check(job, made.engine, runs, data, most_loss, progress)
    stored = store.put(made.engine, _record(job, made, checked), layers=checked.layers)
    return Built(stored=stored, reused=False, layers=made.layers)


def _check_again(
    job: _Job,
    store: EngineStore,
    found: StoredEngine,
    runs: OpenEngine,
    data: ValidationSet | None,
    most_loss: float,
    progress: Progress,
) -> StoredEngine:
    """Run an engine that was found: one that was never run, or with another validation set."""
    progress.stage("checking")
    engine = found.read()
    checked = _check(job, engine, runs, data, most_loss, progress)
    if checked.golden is None:
        return found
    record = replace(
        found.record, golden=checked.golden, unchecked=None, validation=dict(checked.validation),
        notes=tuple(dict.fromkeys((*found.record.notes, *checked.notes))),
    )  # fmt: skip
    with store.building(job.spec, functools.partial(_tell_waiting, progress)):
        return store.put(engine, record, layers=checked.layers)


def _check(
    job: _Job, engine: bytes, runs: OpenEngine, data: ValidationSet | None, most_loss: float, progress: Progress
) -> Checked:
    targets, own = job.spec.targets, (job.here.compute_capability or "").replace(".", "")
    if targets and own not in targets:
        seen = f"this GPU is sm{own}" if own else job.here.problem or "there is no GPU here"
        return Checked(unchecked=f"it was built for {job.spec.where}; {seen}")
    precision = job.options.precision

    def worst_layers(frames: NDArray[np.uint8]) -> str:
        progress.stage("comparing layers")
        batch, height, width, _ = frames.shape
        size = (batch, height, width)  # no other: every layer gets buffers for the largest
        only = replace(job, frames=FrameRange(minimum=size, optimum=size, maximum=size))
        return diagnose(job.bundle, precision, functools.partial(_open_graph, only, runs, progress), frames)

    return check_engine(
        engine, job.bundle, precision, job.frames, runs,
        validation=data, most_loss=most_loss, diagnose=worst_layers,
    )  # fmt: skip


def _open_graph(job: _Job, runs: OpenEngine, progress: Progress, graph: bytes) -> Backend:
    """Another graph with the same inputs, built with the same options."""
    net = parse_network(job.trt, job.log, graph, typed=job.net.typed, where="the graph with its inner values given out")
    made = build(
        job.trt, job.log, net, job.options, job.frames, sparse=job.sparse, timings=None, progress=progress
    )  # fmt: skip
    return runs(made.engine)


def _open(job: _Job, engine: bytes) -> Backend:
    return TensorRTBackend(engine, backend=job.options.backend, where="the engine just built")


def _timings(job: _Job, store: EngineStore) -> Path | None:
    """The timing cache of this TensorRT and GPU. Without a GPU nothing is timed."""
    if not job.options.timing_cache or job.options.targets:
        return None
    store.folder.mkdir(parents=True, exist_ok=True)
    words = (job.spec.backend, job.spec.version, job.spec.where)
    return store.folder / ("timings-" + "-".join(words) + ".cache")


def _record(job: _Job, made: Serialized, checked: Checked) -> EngineRecord:
    notes = (*job.notes, *made.notes, *checked.notes)
    return EngineRecord(
        written_by=version("edgeslim"),
        key=job.spec.key,
        spec=job.spec,
        engine=FileEntry(sha256=hashlib.sha256(made.engine).hexdigest(), bytes=len(made.engine)),
        bundle=job.bundle.manifest.name,
        manifest_sha256=job.bundle.manifest_sha256,
        build_seconds=round(made.seconds, 3),
        golden=checked.golden,
        validation=dict(checked.validation),
        unchecked=checked.unchecked,
        on_gpu=made.configured.on_gpu,
        notes=tuple(dict.fromkeys(notes)),
    )
