"""What a benchmark found, as frozen dataclasses with one JSON form. Unmeasured is null, never 0.

Raw samples are kept, so that a later reader can compute what this one did not think of. Every figure that is
derived from samples is defined here. A percentile is trtexec's: with n sorted samples, the p-th is
sorted[max(n - 1 - floor((100 - p) n / 100), 0)], a sample that really occurred.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from edgeslim.errors import DataError
from edgeslim.schema import SchemaError, dumps, from_json

from .clock import NS_PER_MS

T = TypeVar("T")

SCHEMA = 2
"""The newest result this edgeslim reads, and the one it writes; older ones are read as ever.

2: engines of GPUs: `Side.precision`, `backend`, `gpu`, and their memory.
"""


def percentile_index(n: int, p: int) -> int:
    """Where the p-th percentile stands among n sorted samples."""
    return max(n - 1 - (100 - p) * n // 100, 0)


def percentile(samples: Sequence[int], p: int) -> int:
    """The p-th percentile of at least one sample, in the samples' unit."""
    return sorted(samples)[percentile_index(len(samples), p)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Samples of one duration, as a rule wall time of `Session.run` on one frame. `latency_from_samples` makes it."""

    n: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    mean_ms: float
    min_ms: float
    spread: float
    """(75th - 25th percentile) / 50th: the width of the middle half, as a share of the median."""
    samples_ns: tuple[int, ...]
    """Every sample in the order in which it was taken."""

    def __post_init__(self) -> None:
        if self.n != len(self.samples_ns) or self.n < 1:
            raise ValueError(f"n is {self.n} for {len(self.samples_ns)} samples; they must agree, from 1")


def latency_from_samples(samples_ns: Sequence[int]) -> Latency:
    """Summarise at least one sample, in nanoseconds."""
    p25, p50, p75, p90, p99 = (percentile(samples_ns, p) for p in (25, 50, 75, 90, 99))
    return Latency(
        n=len(samples_ns),
        p50_ms=p50 / NS_PER_MS,
        p90_ms=p90 / NS_PER_MS,
        p99_ms=p99 / NS_PER_MS,
        mean_ms=sum(samples_ns) / len(samples_ns) / NS_PER_MS,
        min_ms=min(samples_ns) / NS_PER_MS,
        spread=(p75 - p25) / max(p50, 1),
        samples_ns=tuple(samples_ns),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuTimes:
    """The parts of a run on a GPU, each defined as trtexec defines it, from runs of their own with CUDA events.

    The camera's latency is `Side.latency`, from array to array on the host; these say where it goes.
    """

    compute: Latency
    """From the event before the enqueue to the one after it, on the stream."""
    enqueue: Latency
    """Host time of the call that queues the net."""
    copy_in: Latency | None
    """None: the GPU works in the host's memory, and nothing is copied."""
    copy_out: Latency | None
    sum_ms: float
    """copy_in + compute + copy_out, medians: what trtexec calls latency."""
    throughput_hz: float
    """Frames a second of the wall time of these runs, one after the other."""
    cuda_graphs: str
    """"used", "off", or why there are none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmUp:
    """What ran before the first sample; `settled` tells whether the latency had stopped changing."""

    calls: int
    seconds: float
    settled: bool
    tolerance: float
    """The medians of the last three windows lay within this share of the smallest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArenaUse:
    """What ONNX Runtime's own allocator says of one session, after its runs."""

    held_bytes: int
    """Reserved from the system, in steps that double; pages that were never touched cost no real memory."""
    peak_bytes: int
    """The most that was in use at once: activations, packed weights, kernels' scratch, rounding."""
    activation_bytes: int
    """The most that tensors between the layers needed at once, as asked for, without rounding."""
    packed_weight_bytes: int
    """Weights that the engine keeps a second time, rearranged for its kernels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryUse:
    """Memory, each kind for itself; they overlap and must not be added up."""

    file_bytes: int
    """The model file of the bundle."""
    weight_bytes: int | None
    """All initializers of the graph, as the manifest counts them."""
    arena: ArenaUse | None
    peak_rss_bytes: int | None
    """Growth of the resident set of a fresh process, from its imports to its peak over load and runs."""
    engine_bytes: int | None = None
    """The serialised engine, where one is run."""
    engine_weight_bytes: int | None = None
    """Weights in the engine, where TensorRT tells (from 10.16)."""
    engine_activation_bytes: int | None = None
    """Scratch and activation memory that an execution context takes."""
    io_bytes: int | None = None
    """Buffers of inputs and outputs, on both sides where both have their own."""
    gpu_process_bytes: int | None = None
    """Growth of the process on the GPU, by NVML, in the fresh process; a desktop GPU's own memory."""
    system_bytes: int | None = None
    """Shrinkage of the system's available memory, where CPU and GPU share it, in the fresh process."""
    problem: str | None = None
    """Why something above could not be measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Speedup:
    """Latency of `against` / latency of the subject, medians, with a bootstrap interval."""

    ratio: float
    low: float
    high: float
    confidence: float
    resamples: int
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Where it was measured. None: this machine does not tell."""

    board: str | None
    cpu: str | None
    architecture: str
    logical_cores: int | None
    usable_cores: int | None
    """Cores that this process may run on."""
    cpu_quota: float | None
    """Cores' worth of time that the control group grants; None: no limit."""
    frequency_mhz: float | None
    """Of the first usable core, after the samples were taken."""
    governor: str | None
    load_1min: float | None
    """Load average before the benchmark; well above 0, and others were at work."""
    memory_bytes: int | None
    os: str
    python: str
    versions: Mapping[str, str] = field(default_factory=dict)
    gpu: str | None = None
    """The first GPU's name; the benchmark need not have run on it."""
    driver: str | None = None
    """Version of NVIDIA's driver."""
    power_mode: str | None = None
    """Of a Jetson, as nvpmodel names it."""
    l4t: str | None = None
    jetpack: str | None = None
    """Of a Jetson: its release of Jetson Linux, and the JetPack that this is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How it was measured."""

    backend: str
    threads: int
    spin: bool
    samples: int
    """Asked for, each side; fewer were taken where `seconds` ended the sampling."""
    seconds: float
    frame_size: tuple[int, int]
    """(height, width) in pixels; the frame is uniform random uint8 from `seed`."""
    seed: int
    order: str
    """The order of samples: "A" alone, "ABAB" with `against` as A, or of more bundles "1 to 4 in turn" with it as 1;
    each after an untimed run of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One bundle's figures."""

    name: str
    manifest_sha256: str
    parameters: int
    macs: int | None
    """Multiply-accumulates at `macs_shape` of the manifest, which need not be the frame measured here."""
    warm_up: WarmUp
    latency: Latency
    memory: MemoryUse
    precision: str = "fp32"
    """Which graph of the bundle."""
    backend: str | None = None
    """What ran it, and why that; None in results of schema 1, see `Settings.backend`."""
    reason: str | None = None
    gpu: GpuTimes | None = None
    """None: nothing here ran on a GPU whose events could be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchResult:
    """One benchmark: a bundle, and possibly another it was measured against."""

    schema: int = SCHEMA
    written_by: str
    settings: Settings
    machine: Machine
    subject: Side
    against: Side | None
    speedup: Speedup | None
    warnings: tuple[str, ...] = ()
    """What makes these figures less than trustworthy, in words."""

    def __post_init__(self) -> None:
        if (self.against is None) != (self.speedup is None):
            raise ValueError("against and speedup belong together")

    def to_json(self) -> str:
        """The result as JSON text."""
        return dumps(self)

    @classmethod
    def from_json(cls, text: str | bytes) -> BenchResult:
        """Read what `to_json` wrote. Raises DataError for anything else, or for a newer schema."""
        return read_result(cls, text, SCHEMA, "benchmark result", "give a file written by `edgeslim bench --json`")


def read_result(cls: type[T], text: str | bytes, newest: int, what: str, hint: str) -> T:
    """A dataclass with a `schema` from its JSON. Raises DataError for what is not `what`, or newer than `newest`."""
    try:
        table = json.loads(text)
        seen = table.get("schema") if isinstance(table, dict) else None
        if isinstance(seen, int) and seen > newest:
            raise DataError(f"the {what} has schema {seen}, this edgeslim reads up to {newest}", "upgrade edgeslim")
        return from_json(cls, table)
    except (SchemaError, ValueError, OverflowError, RecursionError) as error:
        raise DataError(f"this is no {what}: {error}", hint) from error
