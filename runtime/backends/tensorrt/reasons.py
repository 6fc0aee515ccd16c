"""Why an engine does not load: TensorRT returns None and tells its logger why, each version in its own words."""

from __future__ import annotations

from types import ModuleType

from edgeslim.errors import EngineError, first_line

from .log import Log, TrtObject

_CAUSES = (
    (
        (
            "cuda driver version is insufficient",
            "cudaerrorinsufficientdriver",
            "no cuda-capable device",
            "cudaerror 35",
            "cuda initialization failure",
        ),
        "there is no NVIDIA driver here, or it is older than this TensorRT's CUDA",
        "`edgeslim doctor` tells what driver and GPU there are",
    ),
    (
        ("magictag", "magic tag"),  # the words of 11 and RTX go on about versions, whatever the first bytes are
        "it is truncated or damaged, or comes from another TensorRT",
        "run `edgeslim build` again on this machine",
    ),
    (
        (
            "compute capability",
            "different device",
            "generated on a different",
            "target gpu",
            "unsupported_cc",
            "sm version",
        ),
        "it was built for another GPU",
        "engines belong to the GPU they were built on: run `edgeslim build` on this machine",
    ),
    (
        (
            "version tag",
            "version mismatch",
            "different version",
            "serialization version",
            "stdversion",
            "engine version",
        ),
        "it was built by another version of TensorRT",
        "run `edgeslim build` again with this version, or build with --version-compatible",
    ),
    (
        ("lean runtime", "engine_host_code_allowed", "host code"),
        "it is version-compatible and brings a runtime of its own, which could not be loaded",
        "run `edgeslim build` again on this machine",
    ),
    (
        ("out of memory", "outofmemory", "cudaerrormemoryallocation"),
        "the GPU has too little free memory for it",
        "end other programs; on a Jetson the CPU's memory is the GPU's",
    ),
    (
        ("corrupt", "truncat", "header", "malformed", "unexpected end", "checksum", "deserializ"),
        "it is truncated or damaged, or no engine at all",
        "run `edgeslim build` again",
    ),
)


def why_not_loaded(trt: ModuleType, log: Log, where: str) -> EngineError:
    """The error for an engine that TensorRT did not load. where: what the engine is, for the message."""
    text = "\n".join(log.errors).lower()
    said = log.reason("it gives no reason")
    for words, cause, hint in _CAUSES:
        if any(word in text for word in words):
            return EngineError(f"{where} cannot be loaded: {cause} (TensorRT {trt.__version__}: {said})", hint)
    return EngineError(
        f"{where} cannot be loaded by TensorRT {trt.__version__}: {said}", "run `edgeslim build` again on this machine"
    )


def load_engine(trt: ModuleType, log: Log, data: bytes, where: str) -> tuple[TrtObject, TrtObject]:
    """The runtime and the engine, which must live equally long. Raises EngineError with the reason."""
    log.errors.clear()  # of what others in this process did
    try:
        runtime = trt.Runtime(log.logger)
    except TypeError as error:  # what its bindings raise where a constructor fails
        log.add("ERROR", first_line(error))
        raise why_not_loaded(trt, log, where) from error
    # A version-compatible engine brings code of its own; whoever loads an engine file trusts it anyway.
    runtime.engine_host_code_allowed = True
    engine = runtime.deserialize_cuda_engine(data) if data else None
    if engine is None:
        if not data:
            log.add("ERROR", "the engine file is empty: truncated")
        raise why_not_loaded(trt, log, where)
    return runtime, engine
