"""Frames in, named arrays out: a verified bundle on an inference engine.

The graph inside a bundle takes uint8 frames and normalises them itself, so a frame goes to the engine as it
came from the camera. What is added to the engine's own run is a handful of comparisons on the frame's shape.
"""

from __future__ import annotations

import dataclasses
import os
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from edgeslim.errors import BundleError, DataError, DeviceError, EngineError

from .backends.protocol import Array, Backend, BackendFactory
from .backends.registry import open_backend
from .bundle import Bundle, read_bundle
from .choose import AUTO, Choice, choose, open_engine, without_cuda
from .golden import GoldenReport, parse_golden, verify_cases
from .manifest import Manifest, TensorSpec
from .variants import MODEL, FrameRange, Variant

_UINT8 = np.dtype(np.uint8)


def load(
    path: str | os.PathLike[str],
    *,
    precision: str = MODEL,
    threads: int = 1,
    spin: bool = False,
    backend: str | BackendFactory = AUTO,
    engines: str | os.PathLike[str] | None = None,
    memory: str = "cuda-bindings",
) -> Session:
    """Verify the bundle at `path` and make it ready to run.

    precision: "fp32", or the name of one of the bundle's variants.  threads: threads within one operator.  spin:
    waiting threads poll instead of sleeping, which is faster alone and ruinous beside another busy process.  backend:
    an engine's name, a factory of one's own, or "auto": an engine built for this GPU, else ONNX Runtime with CUDA, else
    on the CPU; `Session.choice` says why.  engines: the folder of built engines, the one beside the bundle where None.
    memory: the way to a GPU's memory for those, "cuda-bindings", "pycuda" or "torch".
    An engine that was built elsewhere and never run is run on the golden vectors first; `edgeslim build` on this
    machine notes that it was, and saves that time.
    Raises BundleError for a bundle that is not intact, ConfigError for an option, DeviceError where the
    engine is not installed, EngineError where it refuses the model, CertificateError for such an engine that is wrong.
    """
    return open_session(
        read_bundle(path),
        precision=precision,
        threads=threads,
        spin=spin,
        backend=backend,
        engines=engines,
        memory=memory,
    )


def open_session(
    bundle: Bundle,
    *,
    precision: str = MODEL,
    threads: int = 1,
    spin: bool = False,
    backend: str | BackendFactory = AUTO,
    engines: str | os.PathLike[str] | None = None,
    memory: str = "cuda-bindings",
) -> Session:
    """`load` for a bundle that has been read."""
    variant = bundle.variant(precision)  # an unknown name is the first thing to say
    choice = choose(bundle, precision=precision, backend=backend, engines=engines) if isinstance(backend, str) else None
    if choice is not None and choice.engine is None and variant is not None and not variant.onnxruntime:
        raise EngineError(
            f"{bundle.path}: {precision} is for TensorRT: ONNX Runtime's own fusions do not reproduce it",
            f"edgeslim build {bundle.path} --precision {precision} on the GPU, or choose another precision",
        )
    engine: Backend
    if choice is not None and choice.engine is not None:
        engine = open_engine(choice.engine, memory)
    else:
        name, graph = backend if choice is None else choice.backend, bundle.graph(precision)
        try:
            engine = open_backend(name, graph, threads=threads, spin=spin)
        except (DeviceError, EngineError) as error:
            if backend != AUTO or choice is None or choice.backend != "onnxruntime-cuda":
                raise
            choice = without_cuda(choice, error.message)  # nobody asked for a GPU: CUDA's libraries may well be missing
            engine = open_backend(choice.backend, graph, threads=threads, spin=spin)
    try:
        frames = None if choice is None or choice.engine is None else choice.engine.record.spec.frames
        session = Session(bundle, engine, precision=precision, choice=choice, frames=frames)
        if choice is not None and choice.engine is not None and not choice.engine.record.checked:
            session.verify_golden()  # built for this GPU elsewhere: until now nobody could run it
        return session
    except BaseException:
        engine.close()
        raise


class Session:
    """A bundle on an engine: use it in a `with` block, or call `close`."""

    def __init__(
        self,
        bundle: Bundle,
        backend: Backend,
        *,
        precision: str = MODEL,
        choice: Choice | None = None,
        frames: FrameRange | None = None,
    ) -> None:
        """Take over `backend`, loaded with the bundle's model in `precision`. Raises BundleError if the two disagree.

        frames: the batches that the backend takes, where it is an engine built for some.
        """
        manifest = bundle.manifest
        _check_agreement(bundle, backend, bundle.variant(precision))
        self.manifest: Manifest = manifest
        self.backend = backend
        self.precision = precision
        self.choice = choice
        """Why this backend; None where it was handed over."""
        self._frames = frames
        self._path = bundle.path
        # Of the bundle only the golden file is needed again: the engine has the model, and memory is short.
        self._golden = bundle.files[manifest.golden.file] if manifest.golden else b""
        self._spec = bundle.golden_spec(precision) if manifest.golden else None
        self._entry = manifest.inputs[0].name
        self._fixed = tuple((axis, n) for axis, n in enumerate(manifest.inputs[0].shape) if isinstance(n, int))
        self._multiple = manifest.image.size_multiple
        batched = {spec.name for spec in manifest.outputs if _has_batch_axis(spec, manifest.inputs[0])}
        rank = {spec.name: len(spec.shape) for spec in manifest.outputs}
        self._outputs = tuple((spec.name, rank[spec.name] if spec.name in batched else 0) for spec in backend.outputs)

    def run(self, frame: NDArray[np.uint8]) -> dict[str, Array]:
        """Run one frame.

        frame: (H, W, 3) uint8 RGB, or (H, W, 1) of a net on grey images; H and W multiples of the manifest's
        `image.size_multiple` -> output name -> array, without the batch axis where the output has one.
        Raises DataError for another type, dtype or size, EngineError where the engine fails.
        """
        if not isinstance(frame, np.ndarray) or frame.ndim != 3:
            raise self._no_frame(frame, "one frame is (height, width, {})", "run_batch takes several frames at once")
        arrays = self._run(frame[np.newaxis])
        # A forward that squeezes its output has taken the batch axis of a single frame away already.
        return {name: array[0] if array.ndim == rank else array for (name, rank), array in zip(self._outputs, arrays)}

    def run_batch(self, frames: NDArray[np.uint8]) -> dict[str, Array]:
        """Run N frames of one size at once.

        frames: (N, H, W, 3) uint8 RGB, or (N, H, W, 1) grey, N at least 1 -> output name -> array, with its batch axis.
        Raises DataError for another type, dtype or size, EngineError where the engine fails.
        """
        if not isinstance(frames, np.ndarray) or frames.ndim != 4:
            raise self._no_frame(frames, "a batch is (frames, height, width, {})", "run takes a single frame")
        return {name: array for (name, _), array in zip(self._outputs, self._run(frames))}

    def _run(self, frames: NDArray[np.uint8]) -> list[Array]:
        shape = frames.shape
        multiple = self._multiple
        if frames.dtype != _UINT8 or shape[1] % multiple or shape[2] % multiple or 0 in shape:
            raise self._misfit(frames)
        for axis, size in self._fixed:
            if shape[axis] != size:
                raise self._misfit(frames)
        return self.backend.run({self._entry: frames})

    def _no_frame(self, value: object, wanted: str, hint: str) -> DataError:
        seen = f"shape {list(value.shape)}" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"
        image = self.manifest.image
        return DataError(
            f"{seen} given, {wanted.format(image.channels)} of uint8 {image.colour} in a NumPy array", hint
        )

    def _misfit(self, frames: NDArray[np.uint8]) -> DataError:
        """The error that says why `frames`, (N, H, W, C), is not what the net takes."""
        if frames.dtype != _UINT8:
            return DataError(
                f"the frame's dtype is {frames.dtype}, the net takes uint8",
                "give the camera's 8-bit pixels: the net normalises them itself",
            )
        count, height, width, _ = frames.shape
        colour = self.manifest.image.colour
        for axis, size in self._fixed:
            if frames.shape[axis] != size:
                what = ("frames in a batch", "rows (height)", "columns (width)", f"channels ({colour})")[axis]
                return DataError(
                    f"{frames.shape[axis]} {what} given, the net takes exactly {size}",
                    f"give frames of shape {list(self.manifest.inputs[0].shape)}",
                )
        if 0 in (count, height, width):
            return DataError(f"an array of shape {list(frames.shape)} has no pixels", "give at least one frame")
        up = [max(1, -(-size // self._multiple)) * self._multiple for size in (height, width)]
        return DataError(
            f"a frame of {height}x{width} given, height and width must be multiples of {self._multiple}",
            f"resize or pad the frame, for example to {up[0]}x{up[1]}",
        )

    def verify_golden(self) -> GoldenReport:
        """Run the bundle's golden vectors and compare with the outputs that the exporter saw of the fp32 model.

        An engine that takes only some sizes is asked those; `GoldenReport.cases` counts them.
        Raises CertificateError where one output is out of tolerance, BundleError where there are none.
        """
        spec = self._spec
        if spec is None:
            raise BundleError(f"{self._path}: the bundle has no golden vectors", "export it again with golden inputs")
        cases = parse_golden(self._golden, f"{self._path}: {spec.file}")
        if self._frames is not None:
            cases = tuple(case for case in cases if case.inputs[self._entry].shape[:3] in self._frames)
            if not cases:
                raise BundleError(
                    f"{self._path}: none of the golden vectors is a batch that the engine takes ({self._frames})",
                    "run `edgeslim build` on this machine, which makes another, or build for a range that holds one",
                )
        return verify_cases(cases, spec, self.backend)

    def close(self) -> None:
        """Free the engine; harmless when repeated."""
        self.backend.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _has_batch_axis(output: TensorSpec, entry: TensorSpec) -> bool:
    """Whether axis 0 of an output counts frames; a detector's list of boxes, for one, has no such axis."""
    if output.layout:
        return output.layout[0] == "N"
    return output.shape[:1] == entry.shape[:1]


def _check_agreement(bundle: Bundle, backend: Backend, variant: Variant | None) -> None:
    """Raises BundleError unless the graph has the manifest's tensors and takes frames."""
    manifest, outputs = bundle.manifest, bundle.manifest.outputs
    if variant is not None:
        floats = ("float32", "float16")
        outputs = tuple(dataclasses.replace(o, dtype=variant.output_dtype) if o.dtype in floats else o for o in outputs)
    for kind, stated, found in (("input", manifest.inputs, backend.inputs), ("output", outputs, backend.outputs)):
        if {(spec.name, spec.dtype) for spec in stated} != {(spec.name, spec.dtype) for spec in found}:
            raise BundleError(
                f"{bundle.path}: the manifest has the {kind}s {_words(stated)}, the graph {_words(found)}",
                "the manifest was written for another graph: export the bundle again",
            )
    entry = manifest.inputs[0]
    if len(manifest.inputs) != 1 or (entry.dtype, entry.layout) != ("uint8", "NHWC") or not manifest.image.embedded:
        raise BundleError(
            f"{bundle.path}: the inputs {_words(manifest.inputs)} are not one batch of uint8 NHWC frames",
            "export the net with its preprocessing embedded",
        )
    if entry.shape[3] != manifest.image.channels:
        image = manifest.image
        raise BundleError(
            f"{bundle.path}: frames of {entry.shape[3]} channels, {image.colour} has {image.channels}",
            "export the bundle again",
        )
    graph = backend.inputs[0].shape
    if len(graph) != 4 or any(isinstance(n, int) and n != stated for n, stated in zip(graph, entry.shape)):
        raise BundleError(
            f"{bundle.path}: the manifest has frames of shape {list(entry.shape)}, the graph {list(graph)}",
            "the manifest was written for another graph: export the bundle again",
        )


def _words(specs: tuple[TensorSpec, ...]) -> str:
    return ", ".join(f"{spec.name} {spec.dtype} {list(spec.shape)}" for spec in specs)
