"""TensorRT engines: one execution context on one stream, its buffers made once.

    frame -> page-locked buffer -> (copy in) -> execute_async_v3, or its CUDA graph -> (copy out) -> arrays

What is queued for one size of frames is captured as a CUDA graph the second time that size runs, and launched as a
whole from then on: the small nets of cameras would otherwise wait for the CPU to queue their layers. Another size, or a
net or adapter that cannot be captured, is queued layer by layer as before; `graphs` says which.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from time import perf_counter_ns
from types import TracebackType

import numpy as np

from edgeslim.errors import EngineError

from ...engines.record import EngineBackend
from ..protocol import Array
from .log import Log
from .memory import DeviceMemory, open_memory
from .module import import_tensorrt
from .reasons import load_engine
from .resident import CudaArray, ResidentArray, locate
from .slots import Shape, make_slots, set_shapes

_NS_PER_MS = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTimes:
    """One run, in ms: by CUDA events on the stream, except `enqueue` and `host`, which are the CPU's.

    Defined as trtexec defines them: compute from before the enqueue to after it on the stream, enqueue the time of the
    call itself. host: from the arrays given to the arrays returned.  None: there was no copy.
    """

    copy_in_ms: float | None
    compute_ms: float
    copy_out_ms: float | None
    enqueue_ms: float
    host_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineMemory:
    """What an engine occupies, in bytes. None: this TensorRT does not tell."""

    activation_bytes: int | None
    weight_bytes: int | None
    io_bytes: int


class TensorRTBackend:
    """An engine, ready for frames.

    model: the serialised engine.  threads, spin: for engines of the CPU; of no effect here.  memory: the name of a way
    to CUDA, or an open one, which is closed with this.  cuda_graphs: capture what one size queues.
    Raises DeviceError without TensorRT or a GPU, EngineError with the reason where the engine does not load.
    """

    def __init__(
        self,
        model: bytes,
        *,
        threads: int = 1,
        spin: bool = False,
        backend: EngineBackend = "tensorrt",
        memory: str | DeviceMemory = "cuda-bindings",
        device: int = 0,
        cuda_graphs: bool = True,
        where: str = "the engine",
    ) -> None:
        self._trt = trt = import_tensorrt(backend)
        self.name: str = backend
        self.version: str = trt.__version__
        self.graphs = "wanted" if cuda_graphs else "off"
        """What became of CUDA graphs: "off", "wanted" (not captured yet), "used", or why there are none."""
        self._log = Log(trt)
        # The GPU first: without a driver its words are clearer than TensorRT's.
        self._memory = open_memory(memory, device) if isinstance(memory, str) else memory
        self._closed = False
        try:
            self._runtime, self._engine = load_engine(trt, self._log, model, where)
            self._context = self._engine.create_execution_context()
            if self._context is None:
                raise EngineError(
                    f"{where} loads but cannot be run: {self._log.reason('too little GPU memory, probably')}",
                    "end other programs; on a Jetson the CPU's memory is the GPU's",
                )
            self._inputs, self._outputs = make_slots(trt, self._engine, self._context, self._memory)
            self._events = [self._memory.make_event() for _ in range(4)]
        except BaseException:
            self.close()
            raise
        self.inputs = tuple(slot.spec for slot in self._inputs)
        self.outputs = tuple(slot.spec for slot in self._outputs)
        self._shapes: dict[str, Shape] = {}
        self._out_shapes: list[Shape] = []
        self._runs = 0
        self._graph: int | None = None

    @property
    def unified(self) -> bool:
        """Whether frames reach the GPU without a copy."""
        return not any(slot.copied for slot in (*self._inputs, *self._outputs))

    def run(self, feeds: dict[str, Array]) -> list[Array]:
        """See Backend.run. Raises EngineError for a shape that the engine was not built for."""
        self._fill(feeds)
        self._copy_in()
        self._compute()
        self._copy_out()
        self._memory.synchronize()
        return self._answers()

    def run_timed(self, feeds: dict[str, Array]) -> tuple[list[Array], RunTimes]:
        """The same run, with the times of its parts. Recording events costs some microseconds."""
        begin = perf_counter_ns()
        memory, (start, filled, computed, end) = self._memory, self._events
        self._fill(feeds)
        memory.record(start)
        self._copy_in()
        memory.record(filled)
        called = perf_counter_ns()
        self._compute()
        returned = perf_counter_ns()
        memory.record(computed)
        self._copy_out()
        memory.record(end)
        memory.synchronize()
        answers = self._answers()
        over = perf_counter_ns()
        copies_in, copies_out = (any(s.copied for s in slots) for slots in (self._inputs, self._outputs))
        return answers, RunTimes(
            copy_in_ms=memory.elapsed_ms(start, filled) if copies_in else None,
            compute_ms=memory.elapsed_ms(filled, computed),
            copy_out_ms=memory.elapsed_ms(computed, end) if copies_out else None,
            enqueue_ms=(returned - called) / _NS_PER_MS,
            host_ms=(over - begin) / _NS_PER_MS,
        )

    def run_resident(self, feeds: Mapping[str, CudaArray]) -> dict[str, ResidentArray]:
        """Run on arrays that are on the GPU, and leave the outputs there; it is over when this returns.

        feeds: every input by name, of its type, without gaps. What wrote them must be done, or have been queued on
        `stream`. The outputs are the engine's own buffers, until the next run.
        Raises EngineError for an array that does not fit.
        """
        self._check_open()
        found = {
            slot.spec.name: locate(feeds[slot.spec.name], slot.spec.name, slot.spec.dtype) for slot in self._inputs
        }
        self._set_shapes({name: shape for name, (_, shape) in found.items()})
        try:
            for name, (address, _) in found.items():
                self._context.set_tensor_address(name, address)
            self._enqueue()
            self._memory.synchronize()
        finally:  # the next frame may come from the CPU again
            for slot in self._inputs:
                self._context.set_tensor_address(slot.spec.name, slot.device)
        return {
            slot.spec.name: ResidentArray(
                address=slot.device, shape=shape, dtype=slot.spec.dtype, stream=self._memory.stream
            )
            for slot, shape in zip(self._outputs, self._out_shapes)
        }

    @property
    def stream(self) -> int:
        """The handle of the CUDA stream that everything is queued on."""
        return self._memory.stream

    def memory_use(self) -> EngineMemory:
        """What the engine says of itself, and the buffers made here."""
        engine = self._engine
        activations = next(
            (int(getattr(engine, n)) for n in ("device_memory_size_v2", "device_memory_size") if hasattr(engine, n)),
            None,
        )
        weights = (
            int(engine.get_engine_stat(self._trt.EngineStat.TOTAL_WEIGHTS_SIZE))
            if hasattr(engine, "get_engine_stat")
            else None
        )
        both = sum(len(slot.host.array) * (2 if slot.copied else 1) for slot in (*self._inputs, *self._outputs))
        return EngineMemory(activation_bytes=activations, weight_bytes=weights, io_bytes=both)

    def layers(self) -> str:
        """What TensorRT made of the graph: its layers after fusion, with their kernels and types, as JSON."""
        inspector = self._engine.create_engine_inspector()
        return str(inspector.get_engine_information(self._trt.LayerInformationFormat.JSON))

    def close(self) -> None:
        """See Backend.close. TensorRT's objects go before the memory they use."""
        self._closed = True
        for name in ("_context", "_engine", "_runtime"):
            setattr(self, name, None)
        self._memory.close()

    def __enter__(self) -> TensorRTBackend:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _fill(self, feeds: dict[str, Array]) -> None:
        """Put the arrays into page-locked memory; tell TensorRT where their shapes are new."""
        self._check_open()
        shapes = {slot.spec.name: feeds[slot.spec.name].shape for slot in self._inputs}
        self._set_shapes(shapes)
        for slot in self._inputs:
            array = feeds[slot.spec.name]
            if array.dtype != np.dtype(slot.spec.dtype):
                raise EngineError(
                    f"{slot.spec.name} is {array.dtype}, the engine takes {slot.spec.dtype}", "convert the frames first"
                )
            np.copyto(slot.view(shapes[slot.spec.name]), array)

    def _check_open(self) -> None:
        if self._closed:
            raise EngineError("the session is closed", "run inside its `with` block")

    def _set_shapes(self, shapes: dict[str, Shape]) -> None:
        """Tell TensorRT the inputs' shapes where they are new, and ask for those of the outputs."""
        if shapes == self._shapes:
            return
        self._forget_graph()
        self._shapes = {}  # until they all are accepted
        set_shapes(self._context, self._inputs, shapes)
        self._out_shapes = [tuple(self._context.get_tensor_shape(slot.spec.name)) for slot in self._outputs]
        self._shapes, self._runs = shapes, 0

    def _copy_in(self) -> None:
        for slot in self._inputs:
            if slot.copied:
                self._memory.copy_in(slot.device, slot.host, slot.nbytes(self._shapes[slot.spec.name]))

    def _copy_out(self) -> None:
        for slot, shape in zip(self._outputs, self._out_shapes):
            if slot.copied:
                self._memory.copy_out(slot.host, slot.device, slot.nbytes(shape))

    def _compute(self) -> None:
        """Queue the net, by its graph where there is one."""
        # The first run of a size lets TensorRT do what it does only once, which must not end up in a graph.
        if self._graph is None and self._runs == 1 and self.graphs in ("wanted", "used"):
            self._capture()
        self._runs += 1
        if self._graph is not None:
            self._memory.launch(self._graph)
        else:
            self._enqueue()

    def _enqueue(self) -> None:
        self._log.errors.clear()  # of what others in this process did, or of an earlier run
        if not self._context.execute_async_v3(self._memory.stream):
            raise EngineError(
                f"TensorRT {self.version} did not run the engine: {self._log.reason('it gives no reason')}",
                "build it again on this machine; `edgeslim doctor` tells what there is",
            )

    def _capture(self) -> None:
        try:
            self._graph = self._memory.capture(self._enqueue)
            self.graphs = "used" if self._graph is not None else f"{self._memory.name} captures none"
        except EngineError as error:  # some nets queue what cannot be captured; they run as they did before
            self.graphs = f"the net cannot be captured: {error.message}"

    def _forget_graph(self) -> None:
        if self._graph is not None:
            self._memory.free_graph(self._graph)
            self._graph = None

    def _answers(self) -> list[Array]:
        """Copies of the outputs: the buffers belong to the next run."""
        return [slot.view(shape).copy() for slot, shape in zip(self._outputs, self._out_shapes)]
