"""ONNX Runtime on the CPU.

One frame at a time: operators run in sequence, `threads` threads inside each of them, and no thread spins
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
_NOWHERE = os.devnull  # a file, so never a folder that could hold weights


class OnnxRuntimeBackend:
    """A model in an `onnxruntime.InferenceSession` on the CPU. `profile`: prefix of a trace to record."""

    name = "onnxruntime"
    version: str = ort.__version__

    def __init__(self, model: bytes, *, threads: int = 1, spin: bool = False, profile: Path | None = None) -> None:
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
        try:
            # The fallback would print on stdout and try other providers; there is only this one.
            session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"], enable_fallback=0)
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            raise EngineError(
                f"ONNX Runtime {ort.__version__} cannot load the model: {error}",
                "export it again; if it was made elsewhere, its operator set may be too new for this version",
            ) from error
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


def _spec(argument: ort.NodeArg) -> TensorSpec:
    kind = argument.type.removeprefix("tensor(").removesuffix(")")
    dtype = _DTYPES.get(kind, kind)
    if dtype not in DTYPES:
        raise EngineError(f"{argument.name} has the type {argument.type}, which edgeslim cannot feed", "export tensors")
    shape = tuple(size if isinstance(size, (int, str)) else "?" for size in argument.shape)
    return TensorSpec(name=argument.name, dtype=dtype, shape=shape)
