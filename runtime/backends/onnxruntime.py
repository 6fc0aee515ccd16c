"""ONNX Runtime, on the CPU or through one of its providers for GPUs.

On the CPU: one frame at a time: operators run in sequence, `threads` threads inside each of them, and no thread spins
unless asked to (two spinning pools on two cores slow each other ten-fold).
"""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType

from edgeslim.errors import DeviceError, EngineError

from ..manifest import DTYPES, TensorSpec
from .protocol import Array

try:
    import onnxruntime as ort
except ImportError as error:
    raise DeviceError(f"ONNX Runtime cannot be imported: {error}", "pip install 'edgeslim[runtime]'") from error

_DTYPES = {"float": "float32", "double": "float64"}
_CPU = "CPUExecutionProvider"
_NOWHERE = os.devnull  # a file, so never a folder that could hold weights


class OnnxRuntimeBackend:
    """A model in an `onnxruntime.InferenceSession` on the CPU.

    profile: prefix of a trace to record.  optimized: where to write the graph as it is run.
    """

    name = "onnxruntime"
    version: str = ort.__version__
    provider = _CPU
    """Where the layers run; those that a GPU's provider does not know run on the CPU."""

    def __init__(
        self,
        model: bytes,
        *,
        threads: int = 1,
        spin: bool = False,
        profile: Path | None = None,
        optimized: Path | None = None,
    ) -> None:
        options = ort.SessionOptions()
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spin)))
        options.add_session_config_entry("session.inter_op.allow_spinning", str(int(spin)))
        # Weights that a graph keeps in another file would bypass the bundle's hashes: point them nowhere.
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", _NOWHERE)
        options.log_severity_level = 4  # what fails is raised; a second copy on stderr helps nobody
        if profile is not None:
            options.enable_profiling = True
            options.profile_file_prefix = str(profile)
        if optimized is not None:
            options.optimized_model_filepath = str(optimized)
        _require_provider(self.provider)
        providers = [self.provider] if self.provider == _CPU else [self.provider, _CPU]
        try:
            # The fallback would print on stdout and try other providers; there are only these.
            session = ort.InferenceSession(model, options, providers=providers, enable_fallback=0)
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            raise EngineError(
                f"ONNX Runtime {ort.__version__} cannot load the model: {error}",
                "export it again; if it was made elsewhere, its operator set may be too new for this version",
            ) from error
        if session.get_providers()[0] != self.provider:
            raise EngineError(
                f"{self.provider} did not start, ONNX Runtime would use {session.get_providers()[0]} without a word",
                "its CUDA, cuDNN or TensorRT libraries are missing or of another version: see `edgeslim doctor`",
            )
        self._session: ort.InferenceSession | None = session
        self.inputs = tuple(map(_spec, session.get_inputs()))
        self.outputs = tuple(map(_spec, session.get_outputs()))
        self._output_names = [spec.name for spec in self.outputs]

    def run(self, feeds: dict[str, Array]) -> list[Array]:
        """See Backend.run."""
        try:
            outputs: list[Array] = self._session.run(self._output_names, feeds)  # type: ignore[union-attr]
        except Exception as error:
            if self._session is None:
                raise EngineError("the session is closed", "run inside its `with` block") from error
            shapes = {name: list(array.shape) for name, array in feeds.items()}
            raise EngineError(f"ONNX Runtime failed on {shapes}: {error}", "check the input's size") from error
        return outputs

    def end_profile(self) -> Path:
        """Finish the trace that `profile` asked for and return its path (JSON, Chrome's trace events)."""
        if self._session is None:
            raise EngineError("the session is closed", "end the profile before closing it")
        return Path(self._session.end_profiling())

    def close(self) -> None:
        """See Backend.close."""
        self._session = None

    def __enter__(self) -> OnnxRuntimeBackend:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class OnnxRuntimeCudaBackend(OnnxRuntimeBackend):
    """The same on an NVIDIA GPU by CUDA and cuDNN."""

    name = "onnxruntime-cuda"
    provider = "CUDAExecutionProvider"


class OnnxRuntimeTensorrtBackend(OnnxRuntimeBackend):
    """The same by ONNX Runtime's own TensorRT provider, which builds engines while it loads."""

    name = "onnxruntime-tensorrt"
    provider = "TensorrtExecutionProvider"


def _require_provider(provider: str) -> None:
    """Raises DeviceError where this ONNX Runtime was built without it."""
    known = ort.get_available_providers()
    if provider not in known:
        raise DeviceError(
            f"ONNX Runtime {ort.__version__} here has no {provider}, only {', '.join(known)}",
            "install the package that has it, in place of onnxruntime: onnxruntime-gpu",
        )


def _spec(argument: ort.NodeArg) -> TensorSpec:
    kind = argument.type.removeprefix("tensor(").removesuffix(")")
    dtype = _DTYPES.get(kind, kind)
    if dtype not in DTYPES:
        raise EngineError(f"{argument.name} has the type {argument.type}, which edgeslim cannot feed", "export tensors")
    shape = tuple(size if isinstance(size, (int, str)) else "?" for size in argument.shape)
    return TensorSpec(name=argument.name, dtype=dtype, shape=shape)
