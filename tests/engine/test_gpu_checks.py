"""The checks that tests/gpu makes on real GPUs, made on stand-ins: they pass there, and they find planted faults."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgeslim.exporter.engine import BuildOptions, parse_frames
from edgeslim.runtime.backends.tensorrt.backend import TensorRTBackend
from edgeslim.runtime.backends.tensorrt.memory import DeviceMemory, HostBuffer

from ..gpu import checks
from .conftest import BuildOnOrin, UseTensorRT
from .fake_memory import FakeMemory
from .fake_tensorrt import Plan

RANGE = BuildOptions(frames=parse_frames("1x8x8:1x16x24:2x16x24"))
ENOUGH = 2**40


@pytest.mark.parametrize("unified", [False, True])
@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("check", checks.MEMORY_CHECKS, ids=lambda check: check.__name__)
def test_a_stand_in_passes(check: Callable[[DeviceMemory], None], graphs: bool, unified: bool) -> None:
    check(FakeMemory(unified=unified, graphs=graphs, total=ENOUGH))


class CopiesNothing(FakeMemory):
    def copy_out(self, host: HostBuffer, device: int, size: int) -> None:
        pass


class CopiesTooMuch(FakeMemory):
    def copy_out(self, host: HostBuffer, device: int, size: int) -> None:
        super().copy_out(host, device, len(host.array))


class RunsWhileCapturing(FakeMemory):
    def capture(self, work: Callable[[], None]) -> int | None:
        work()
        return super().capture(work)


class LaunchesNothing(FakeMemory):
    def launch(self, graph: int) -> None:
        pass


class HasNoClock(FakeMemory):
    def elapsed_ms(self, start: int, end: int) -> float:
        return 0.0


class MapsNothing(FakeMemory):
    def allocate_host(self, size: int) -> HostBuffer:
        buffer = super().allocate_host(size)
        return HostBuffer(array=buffer.array, address=buffer.address, device_address=None)


class HasAnyAmount(FakeMemory):
    def allocate(self, size: int) -> int:
        return super().allocate(min(size, checks.SIZE))


@pytest.mark.parametrize(
    ("kind", "check"),
    [
        (CopiesNothing, checks.copies_arrive),
        (CopiesTooMuch, checks.copies_arrive),
        (RunsWhileCapturing, checks.a_graph_runs_when_launched),
        (LaunchesNothing, checks.a_graph_runs_when_launched),
        (HasNoClock, checks.events_tell_times),
        (MapsNothing, checks.mapped_where_shared),
        (HasAnyAmount, checks.too_much_is_an_error),
    ],
)
def test_a_planted_fault_is_found(kind: type[FakeMemory], check: Callable[[DeviceMemory], None]) -> None:
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        check(kind(unified=kind is MapsNothing, total=ENOUGH))


@pytest.mark.parametrize(("precision", "atol"), [("fp32", 1e-6), ("fp16", 5e-3)])
def test_an_engine_on_a_stand_in(
    precision: str, atol: float, tiny: Path, use_tensorrt: UseTensorRT, build_on_orin: BuildOnOrin
) -> None:
    plan = Plan()
    use_tensorrt("103", plan)
    data = build_on_orin(tiny, BuildOptions(precision=precision, frames=RANGE.frames)).stored.read()

    def opened(graphs: bool) -> TensorRTBackend:
        return TensorRTBackend(data, memory=FakeMemory(), cuda_graphs=graphs)

    checks.engine_equals_onnxruntime(tiny, precision, opened, atol)
    checks.parts_are_timed(opened)
    checks.damaged_engines_are_named(data, lambda broken: TensorRTBackend(broken, memory=FakeMemory()))
    plan.off_by = 0.01
    with pytest.raises(AssertionError):
        checks.engine_equals_onnxruntime(tiny, precision, opened, atol)
