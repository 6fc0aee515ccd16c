"""`measure`: the latency and the memory of a bundle, alone or against another.

What is timed is `Session.run` on one frame, the call a camera program makes, through the same verified reader
and the same engine settings. Both bundles live in this process on thread pools that do not spin, for two
spinning pools on two cores slow each other ten-fold.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
from numpy.typing import NDArray

from edgeslim.errors import ConfigError, DataError
from edgeslim.runtime import MODEL, Bundle, Session, open_session, read_bundle

from .clock import Call, undisturbed
from .compare import MIN_SAMPLES, interleave, speedup
from .gpu import gpu_warnings, measure_gpu
from .machine import describe_machine, load_average
from .memory import measure_memory
from .result import BenchResult, Machine, Settings, Side, latency_from_samples
from .steady import warm_up

ReportProgress = Callable[[str, int, int], None]
"""Called as progress(stage, done, total), never inside a sample."""

SEED = 0
WARM_UP_SHARE = 0.25
"""Each side may warm up for at most this share of `seconds`, which counts the sampling alone."""
WIDE_SPREAD = 0.1
BUSY_LOAD = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class _Contender:
    """One bundle as it is to be run."""

    bundle: Bundle
    precision: str
    backend: str
    engines: str | None


def measure(
    path: str | os.PathLike[str],
    against: str | os.PathLike[str] | None = None,
    *,
    precision: str = MODEL,
    backend: str = "onnxruntime",
    against_precision: str | None = None,
    against_backend: str | None = None,
    engines: str | os.PathLike[str] | None = None,
    threads: int = 1,
    samples: int = 100,
    seconds: float = 20.0,
    frame_size: tuple[int, int] | None = None,
    progress: ReportProgress | None = None,
) -> BenchResult:
    """Measure the bundle at `path`, and where given how much faster it is than `against`.

    precision, backend: what is run, as in `edgeslim.runtime.load`.  against_precision, against_backend: the same of the
    other side, the subject's where None; with one of them and no `against`, the bundle runs against itself.  engines:
    the folder of built engines, the one beside each bundle where None.
    threads: threads within one operator.  samples: timed runs of each bundle, at least 20.  seconds: end
    sampling after this long, though never before 20 samples a side.  frame_size: (height, width) in pixels,
    the manifest's `bench_size` of `path` where absent.
    Raises ConfigError for an option, DataError for a frame size that a net does not take, and what
    `edgeslim.runtime.load` raises.
    """
    _check_options(samples, seconds, frame_size)
    check_threads(threads)
    folder = None if engines is None else os.fspath(engines)
    sides = [_Contender(bundle=read_bundle(path), precision=precision, backend=backend, engines=folder)]
    if against is not None or against_precision is not None or against_backend is not None:
        other = _Contender(
            bundle=sides[0].bundle if against is None else read_bundle(against),
            precision=against_precision or precision,
            backend=against_backend or backend,
            engines=folder,
        )
        sides.insert(0, other)
    return _measure(sides, threads, samples, seconds, frame_size, progress)[0]


def measure_each(
    paths: Sequence[str | os.PathLike[str]],
    against: str | os.PathLike[str],
    *,
    threads: int = 1,
    samples: int = 100,
    seconds: float = 20.0,
    progress: ReportProgress | None = None,
) -> tuple[BenchResult, ...]:
    """Measure the bundles at `paths` against one other, all in one interleaved run, so that any two can be compared.

    Returns a result for each of `paths`; the other's samples are the same in all. Options and errors are those of
    `measure`; `seconds` is for all bundles together, and the frame is of the size that the first one's manifest has.
    """
    _check_options(samples, seconds, None)
    check_threads(threads)
    sides = [
        _Contender(bundle=read_bundle(path), precision=MODEL, backend="onnxruntime", engines=None)
        for path in (against, *paths)
    ]
    return _measure(sides, threads, samples, seconds, None, progress)


def _measure(
    sides: Sequence[_Contender],
    threads: int,
    samples: int,
    seconds: float,
    frame_size: tuple[int, int] | None,
    progress: ReportProgress | None,
) -> tuple[BenchResult, ...]:
    """Measure all sides together. One result for each but the first, which they are against; one for one alone."""
    told = progress or (lambda stage, done, total: None)
    load_before = load_average()
    asked = sides[min(1, len(sides) - 1)].bundle.manifest
    size = frame_size or asked.bench_size
    frame = random_frame(size, asked.image.channels)
    with ExitStack() as stack:
        # What is opened first is up to 1 % slower, by where its memory lies: not the net that others are held against.
        sessions = [stack.enter_context(_session(side, threads)) for side in reversed(sides)][::-1]
        calls = [_checked_call(session, frame) for session in sessions]
        warm_ups = []
        for number, call in enumerate(calls):
            told("warm-up", number, len(calls))
            with undisturbed():
                warm_ups.append(warm_up(call, seconds=seconds * WARM_UP_SHARE))
        taken = interleave(
            calls, samples=samples, seconds=seconds, progress=lambda done, total: told("samples", done, total)
        )
        times = [measure_gpu(s, frame[np.newaxis], samples=samples, seconds=seconds) for s in sessions]
        backends = [(s.backend.name, None if s.choice is None else s.choice.reason) for s in sessions]
    machine = dataclasses.replace(describe_machine(), load_1min=load_before)
    measured = []
    for number, side in enumerate(sides):
        told("memory", number, len(sides))
        name, reason = backends[number]
        memory = measure_memory(
            side.bundle, size, threads=threads, spin=False, precision=side.precision, backend=name, engines=side.engines
        )
        measured.append(
            Side(
                name=side.bundle.manifest.name,
                manifest_sha256=side.bundle.manifest_sha256,
                parameters=side.bundle.manifest.sizes.parameters,
                macs=side.bundle.manifest.sizes.macs,
                warm_up=warm_ups[number],
                latency=latency_from_samples(taken[number]),
                memory=memory,
                precision=side.precision,
                backend=name,
                reason=reason,
                gpu=times[number],
            )
        )
    settings = Settings(
        backend=backends[-1][0],
        threads=threads,
        spin=False,
        samples=samples,
        seconds=float(seconds),
        frame_size=size,
        seed=SEED,
        order=_order(len(sides)),
    )

    def result(subject: int, against: int | None) -> BenchResult:
        compared = [measured[subject]] if against is None else [measured[against], measured[subject]]
        return BenchResult(
            written_by=version("edgeslim"),
            settings=settings,
            machine=machine,
            subject=measured[subject],
            against=None if against is None else measured[against],
            speedup=None if against is None else speedup(taken[against], taken[subject], seed=SEED),
            warnings=tuple(_warnings(machine, settings, compared)),
        )

    if len(sides) == 1:
        return (result(0, None),)
    return tuple(result(number, 0) for number in range(1, len(sides)))


def _order(sides: int) -> str:
    """Of samples, see `Settings.order`."""
    if sides > 2:
        return f"1 to {sides} in turn"
    return "A" if sides == 1 else "ABAB"


def check_threads(threads: int) -> None:
    """Raise ConfigError for more threads than this machine has cores: they would measure its scheduler."""
    cores = os.cpu_count()
    if threads < 1 or (cores is not None and threads > cores):
        raise ConfigError(
            f"threads is {threads}; this machine has {cores or 'an unknown number of'} cores",
            "give the threads that the camera program will use, or measure on the device",
        )


def _check_options(samples: int, seconds: float, frame_size: tuple[int, int] | None) -> None:
    if samples < MIN_SAMPLES:
        raise ConfigError(f"samples is {samples}, the least is {MIN_SAMPLES}", "a p99 needs 100 samples")
    if not 0.0 < seconds < math.inf:
        raise ConfigError(f"seconds is {seconds}; it must be a number above 0", "for example seconds=20")
    if frame_size is not None and (len(frame_size) != 2 or min(frame_size) < 1):
        raise ConfigError(f"frame_size is {frame_size}, not (height, width) from 1", "for example (192, 192)")


def random_frame(size: tuple[int, int], channels: int) -> NDArray[np.uint8]:
    """(H, W, C) uint8 from SEED. Raises ConfigError where it does not fit into memory."""
    try:
        return np.random.default_rng(SEED).integers(0, 256, (*size, channels), dtype=np.uint8)
    except (MemoryError, ValueError) as error:  # ValueError: more bytes than there are addresses
        raise ConfigError(
            f"frame_size is {size}: a frame of so many pixels does not fit into memory", "for example (192, 192)"
        ) from error


def _session(side: _Contender, threads: int) -> Session:
    return open_session(
        side.bundle, precision=side.precision, threads=threads, backend=side.backend, engines=side.engines
    )


def _checked_call(session: Session, frame: NDArray[np.uint8]) -> Call:
    """The call that is timed, run once. Raises DataError naming the net that does not take the frame."""
    try:
        session.run(frame)
    except DataError as error:
        raise DataError(f"{session.manifest.name}: {error.message}", error.hint) from error
    return lambda: session.run(frame)


def _warnings(machine: Machine, settings: Settings, sides: list[Side]) -> Iterator[str]:
    """What a reader must know before trusting the figures."""
    if machine.load_1min is not None and machine.load_1min > BUSY_LOAD:
        yield f"the machine was busy: load average {machine.load_1min:.2f} before the start"
    if machine.usable_cores is not None and settings.threads > machine.usable_cores:
        yield f"{settings.threads} threads share {machine.usable_cores} usable cores"
    for name, side in zip(_names(sides), sides):
        if not side.warm_up.settled:
            yield f"{name}: still changing after {side.warm_up.seconds:.1f} s of warm-up"
        if side.latency.spread > WIDE_SPREAD:
            yield f"{name}: spread {side.latency.spread:.0%}, the machine was not quiet"
        if side.latency.n < settings.samples:
            yield f"{name}: {side.latency.n} of {settings.samples} samples in {settings.seconds:g} s"
        if side.memory.problem is not None:
            yield f"{name}: {side.memory.problem}"
        yield from gpu_warnings(name, side.gpu)


def _names(sides: list[Side]) -> list[str]:
    """How each side is called: a bundle against itself, or of the same name, by what else it is."""
    if len({side.name for side in sides}) == len(sides):
        return [side.name for side in sides]
    names = [f"{side.name} in {side.precision} by {side.backend}" for side in sides]
    return names if len(set(names)) == len(names) else [f"{names[0]} (against)", *names[1:]]
