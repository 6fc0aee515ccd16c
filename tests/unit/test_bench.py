"""The benchmark's arithmetic and its refusals. No test looks at how long anything took."""

from __future__ import annotations

import dataclasses
import gc
import importlib
import io
import json
import os
import shutil
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from typer.testing import CliRunner

from edgeslim.bench import BenchResult, MemoryUse, latency_from_samples, measure, measure_each, percentile
from edgeslim.bench import memory as memory_module
from edgeslim.bench.arena import arena_from_profile
from edgeslim.bench.clock import time_ns, undisturbed
from edgeslim.bench.compare import MIN_SAMPLES, interleave, speedup
from edgeslim.bench.machine import describe_machine
from edgeslim.bench.memory import measure_memory
from edgeslim.bench.memory_probe import gpu_process_bytes
from edgeslim.bench.report.table import bench_table
from edgeslim.bench.result import GpuTimes, percentile_index
from edgeslim.bench.steady import is_steady, warm_up
from edgeslim.cli.app import app
from edgeslim.errors import BundleError, ConfigError, DataError
from edgeslim.runtime import read_bundle
from edgeslim.schema import dumps, loads

samples_ns = st.lists(st.integers(1, 10**9), min_size=1, max_size=60)


@pytest.mark.parametrize(
    ("n", "p", "index"),
    [(100, 50, 49), (100, 90, 89), (100, 99, 98), (20, 99, 19), (20, 90, 17), (1, 50, 0), (2, 50, 0), (1000, 99, 989)],
)
def test_percentiles_are_trtexecs(n: int, p: int, index: int) -> None:
    assert percentile_index(n, p) == index
    assert percentile(list(range(n)), p) == index


@given(samples_ns)
def test_percentiles_are_samples_in_order(samples: list[int]) -> None:
    values = [percentile(samples, p) for p in (50, 90, 99)]
    assert values == sorted(values)
    assert set(values) <= set(samples)


@given(samples_ns)
def test_a_latency_keeps_every_sample(samples: list[int]) -> None:
    latency = latency_from_samples(samples)
    assert latency.samples_ns == tuple(samples)
    assert latency.min_ms <= latency.p50_ms <= latency.p90_ms <= latency.p99_ms
    assert latency.spread >= 0.0
    assert loads(type(latency), dumps(latency)) == latency


def test_a_latency_counts_its_samples() -> None:
    with pytest.raises(ValueError, match="n is 3 for 2 samples"):
        dataclasses.replace(latency_from_samples([1, 2]), n=3)


def test_spread_is_the_middle_half() -> None:
    assert latency_from_samples(range(1, 101)).spread == pytest.approx((75 - 25) / 50)


def test_each_sample_follows_a_run_of_its_own() -> None:
    trace: list[str] = []
    taken = interleave([lambda: trace.append("A"), lambda: trace.append("B")], samples=3, seconds=60.0)
    assert [len(side) for side in taken] == [3, 3]
    assert "".join(trace) == "AABB" * 3


def test_a_single_side_is_primed_once() -> None:
    trace: list[str] = []
    (taken,) = interleave([lambda: trace.append("A")], samples=25, seconds=60.0)
    assert (len(taken), len(trace)) == (25, 26)


def test_time_over_keeps_the_least_number_of_samples() -> None:
    told: list[tuple[int, int]] = []
    taken = interleave([int, int], samples=1000, seconds=1e-9, progress=lambda done, total: told.append((done, total)))
    assert [len(side) for side in taken] == [MIN_SAMPLES, MIN_SAMPLES]
    assert told[-1] == (MIN_SAMPLES, 1000)


def test_the_garbage_collector_rests_while_sampling() -> None:
    states: list[bool] = []
    interleave([lambda: states.append(gc.isenabled())], samples=2, seconds=60.0)
    assert states == [False] * 3
    assert gc.isenabled()
    gc.disable()
    try:
        with undisturbed():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_time_is_counted_in_nanoseconds() -> None:
    assert time_ns(lambda: None) >= 0


def noisy(median: float, n: int, seed: int) -> list[int]:
    return [round(x) for x in np.random.default_rng(seed).normal(median, median / 50, n)]


def test_the_interval_holds_the_ratio() -> None:
    result = speedup(noisy(3e6, 100, 0), noisy(1e6, 100, 1))
    assert result.low <= result.ratio <= result.high
    assert result.low < 3.0 < result.high
    assert result.high - result.low < 0.2
    assert result == speedup(noisy(3e6, 100, 0), noisy(1e6, 100, 1))
    assert result != speedup(noisy(3e6, 100, 0), noisy(1e6, 100, 1), seed=1)


def test_the_ratio_is_that_of_the_medians_shown() -> None:
    against, subject = noisy(3e6, 33, 0), noisy(1e6, 33, 1)
    shown = latency_from_samples(against).p50_ms / latency_from_samples(subject).p50_ms
    assert speedup(against, subject).ratio == pytest.approx(shown, rel=1e-12)


def test_a_drift_that_both_sides_share_does_not_widen_the_interval() -> None:
    drift = np.linspace(1.0, 2.0, 100)
    against = [round(x) for x in 2e6 * drift]
    subject = [round(x) for x in 1e6 * drift]
    paired = speedup(against, subject)
    assert (paired.low, paired.high) == pytest.approx((2.0, 2.0), rel=1e-5)
    unpaired = speedup(against, list(np.random.default_rng(0).permutation(subject)))
    assert unpaired.high - unpaired.low > 0.1


@given(samples_ns)
def test_a_net_is_as_fast_as_itself(samples: list[int]) -> None:
    result = speedup(samples, samples, resamples=50)
    assert (result.ratio, result.low, result.high) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("medians", "steady"),
    [
        ([], False),
        ([100.0, 100.0], False),
        ([100.0, 100.0, 100.0], True),
        ([500.0, 100.0, 102.0, 101.0], True),
        ([100.0, 100.0, 104.0], False),
        ([104.0, 102.0, 100.0], False),
    ],
)
def test_steady_means_three_windows_agree(medians: list[float], steady: bool) -> None:
    assert is_steady(medians) is steady


def test_a_warm_up_that_does_not_settle_ends_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    growing = iter(range(1, 10**6))
    clock = {"now": 0}
    monkeypatch.setattr("edgeslim.bench.steady.now_ns", lambda: clock["now"])

    def sample(call: Callable[[], object]) -> int:
        taken = next(growing) * 10_000_000
        clock["now"] += taken
        return taken

    monkeypatch.setattr("edgeslim.bench.steady.time_ns", sample)
    result = warm_up(lambda: None, seconds=5.0)
    assert not result.settled
    assert result.calls > 0
    assert result.seconds >= 5.0


def test_a_warm_up_that_settles(monkeypatch: pytest.MonkeyPatch) -> None:
    first = iter([900, 500])
    monkeypatch.setattr("edgeslim.bench.steady.time_ns", lambda call: next(first, 100) * 1_000_000)
    result = warm_up(lambda: None, seconds=1e9)
    # Windows of three calls: (900, 500, 100), then three that agree.
    assert (result.settled, result.calls) == (True, 12)


def test_this_machine_is_described() -> None:
    machine = describe_machine()
    assert machine.architecture
    assert set(machine.versions) >= {"numpy", "onnxruntime"}
    assert loads(type(machine), dumps(machine)) == machine


def test_a_machine_that_tells_nothing_is_null_not_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable(path: Path, *arguments: object, **options: object) -> str:
        raise PermissionError(13, "denied")

    monkeypatch.setattr(Path, "read_text", unreadable)
    machine = describe_machine()
    assert machine.cpu is machine.frequency_mhz is machine.governor is machine.memory_bytes is machine.board is None


@pytest.mark.parametrize(
    ("text", "quota"), [("max 100000\n", None), ("150000 100000\n", 1.5), ("", None), ("5 0", None), ("x y", None)]
)
def test_the_share_of_a_control_group(text: str, quota: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda path, **options: text)
    assert describe_machine().cpu_quota == quota


def node(ts: int, held: int, peak: int, requested: int, delta: int) -> dict[str, object]:
    arguments = {
        "mem_arena_held": str(held),
        "mem_in_use_peak": str(peak),
        "mem_bytes_requested_in_use": str(requested),
        "mem_requested_in_use_delta": str(delta),
    }
    return {"cat": "Node", "ts": ts, "args": arguments}


def test_the_arena_is_read_from_the_last_run() -> None:
    events = [
        {"cat": "Session", "name": "model_run", "ts": 10},
        node(11, 1000, 600, 150, 50),
        node(12, 2000, 900, 800, 650),
        {"cat": "Session", "name": "model_run", "ts": 20},
        node(21, 4000, 900, 500, 0),
    ]
    arena = arena_from_profile(events)
    assert arena is not None
    assert (arena.held_bytes, arena.peak_bytes) == (4000, 900)
    assert (arena.packed_weight_bytes, arena.activation_bytes) == (100, 400)


@pytest.mark.parametrize("events", [[], [{"cat": "Node", "name": "Conv", "ts": 1, "args": {"output_size": "4"}}]])
def test_a_profile_without_memory_is_unmeasured(events: list[dict[str, object]]) -> None:
    assert arena_from_profile(events) is None


def test_memory_of_a_fresh_process(intact_bundle: Path) -> None:
    bundle = read_bundle(intact_bundle)
    use = measure_memory(bundle, (64, 64), threads=1, spin=False)
    assert use.file_bytes == len(bundle.model)
    assert use.weight_bytes == 216
    assert use.peak_rss_bytes is not None
    assert use.peak_rss_bytes > 0
    if use.arena is None:  # older engines' profiles have no memory statistics, and that is said
        assert use.problem is not None
        assert "no memory statistics" in use.problem
        return
    assert use.problem is None
    # planes uint8, pixels float32 and logits float32 for 64x64 pixels; the engine may reuse some of it.
    assert 2 * 4 * 64 * 64 <= use.arena.activation_bytes <= use.arena.held_bytes


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import sys; sys.exit('planted fault')", "ended with 1: planted fault"),
        ("print('no json')", "printed something else"),
        ("import os; os.kill(os.getpid(), 9)", "ended with -9"),
    ],
)
def test_memory_that_cannot_be_measured_is_null_with_a_reason(
    intact_bundle: Path, code: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = subprocess.run
    monkeypatch.setattr(
        memory_module.subprocess, "run", lambda command, **options: run([sys.executable, "-c", code], **options)
    )
    use = measure_memory(read_bundle(intact_bundle), (64, 64), threads=1, spin=False)
    assert use.peak_rss_bytes is use.arena is None
    assert use.problem is not None
    assert said in use.problem


OLD_MEMORY = ("file_bytes", "weight_bytes", "arena", "peak_rss_bytes", "problem")
NO_MEMORY = MemoryUse(file_bytes=1, weight_bytes=None, arena=None, peak_rss_bytes=None, problem="not measured here")


@pytest.fixture
def no_memory_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the fresh processes out: they take a second each and have their own test."""
    module = importlib.import_module("edgeslim.bench.measure")  # the package's attribute is the function
    monkeypatch.setattr(module, "measure_memory", lambda *arguments, **options: NO_MEMORY)


@pytest.fixture
def wider(tmp_path: Path, write_tiny_bundle: Callable[..., Path]) -> Path:
    return write_tiny_bundle(tmp_path / "wide.zip", archive=True, width=8)


@pytest.mark.usefixtures("no_memory_probe")
def test_measure_against_another(intact_bundle: Path, wider: Path) -> None:
    told: list[str] = []
    result = measure(
        intact_bundle, wider, samples=20, seconds=0.4, progress=lambda stage, done, total: told.append(stage)
    )
    assert result.against is not None
    assert result.speedup is not None
    assert result.speedup.low <= result.speedup.ratio <= result.speedup.high
    assert result.speedup.ratio == pytest.approx(
        result.against.latency.p50_ms / result.subject.latency.p50_ms, rel=1e-12
    )
    assert result.settings.frame_size == (16, 24)
    assert (result.settings.order, result.settings.spin) == ("ABAB", False)
    assert result.subject.latency.n == result.against.latency.n == 20
    assert result.subject.manifest_sha256 == read_bundle(intact_bundle).manifest_sha256
    assert result.against.manifest_sha256 == read_bundle(wider).manifest_sha256
    assert list(dict.fromkeys(told)) == ["warm-up", "samples", "memory"]
    assert any("not measured here" in warning for warning in result.warnings)


@pytest.mark.usefixtures("no_memory_probe")
def test_measure_several_against_one(intact_bundle: Path, wider: Path, write_tiny_bundle: Callable[..., Path]) -> None:
    """In one run: the samples of the one are the same in all results."""
    other = write_tiny_bundle(wider.parent / "other.bundle", width=4)
    first, second = measure_each([intact_bundle, other], wider, samples=20, seconds=0.4)
    assert first.against is not None and second.against is not None
    assert first.against == second.against
    assert first.settings == second.settings and first.settings.order == "1 to 3 in turn"
    for result, bundle in ((first, intact_bundle), (second, other)):
        assert result.subject.manifest_sha256 == read_bundle(bundle).manifest_sha256
        assert result.subject.latency.n == 20
        assert result.speedup == speedup(
            first.against.latency.samples_ns, result.subject.latency.samples_ns, seed=result.settings.seed
        )
        assert BenchResult.from_json(result.to_json()) == result
    with pytest.raises(ConfigError, match="samples is 19"):
        measure_each([intact_bundle], wider, samples=19)


@pytest.mark.usefixtures("no_memory_probe")
def test_a_result_survives_its_json(intact_bundle: Path) -> None:
    result = measure(intact_bundle, samples=20, seconds=0.2, frame_size=(8, 8))
    assert result.against is result.speedup is None
    assert result.settings.order == "A"
    assert BenchResult.from_json(result.to_json()) == result
    assert json.loads(result.to_json())["subject"]["memory"]["peak_rss_bytes"] is None


@pytest.mark.usefixtures("no_memory_probe")
def test_tables_show_a_dash_for_what_was_not_measured(intact_bundle: Path, wider: Path) -> None:
    for against in (None, wider):
        result = measure(intact_bundle, against, samples=20, seconds=0.2)
        console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
        console.print(bench_table(result))
        console.file.close()
        text = console.export_text()
        (row,) = [line for line in text.splitlines() if "peak RSS" in line]
        assert " - " in row
        assert "latency p99" in text
        assert ("as fast" in text) == (against is not None)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"samples": 19}, "samples is 19, the least is 20"),
        ({"seconds": 0.0}, "seconds is 0.0"),
        ({"seconds": float("nan")}, "seconds is nan"),
        ({"seconds": float("inf")}, "seconds is inf"),
        ({"frame_size": (9_999_999, 9_999_999)}, "does not fit into memory"),
        ({"frame_size": (1 << 40, 1 << 40)}, "does not fit into memory"),
        ({"threads": 0}, "threads is 0"),
        ({"frame_size": (0, 8)}, "frame_size"),
    ],
)
def test_options_out_of_range(intact_bundle: Path, options: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        measure(intact_bundle, **options)  # type: ignore[arg-type]


def test_a_frame_size_that_the_net_does_not_take(intact_bundle: Path) -> None:
    with pytest.raises(DataError, match="tiny: a frame of 17x31 given, height and width must be multiples of 8"):
        measure(intact_bundle, frame_size=(17, 31))


def test_a_damaged_bundle_is_not_measured(bundle_copy: Path) -> None:
    (bundle_copy / "model.onnx").write_bytes(b"x")
    with pytest.raises(BundleError, match="bytes"):
        measure(bundle_copy)


@pytest.mark.parametrize("size", ["\u00b2x3", "1x", "x", "1x2x3", "-1x8", "9" * 5000 + "x1", "8 x 8", ""])
def test_a_size_that_is_none(size: str, intact_bundle: Path) -> None:
    done = CliRunner().invoke(app, ["bench", str(intact_bundle), "--size", size])
    assert done.exit_code == 2 and "HEIGHTxWIDTH" in done.output


@pytest.mark.usefixtures("no_memory_probe")
def test_a_bundle_against_itself_is_told_apart_in_warnings(intact_bundle: Path) -> None:
    result = measure(intact_bundle, against_precision="fp32", samples=20, seconds=0.2)
    assert result.against is not None and result.against.name == result.subject.name
    named = [warning for warning in result.warnings if "not measured here" in warning]
    assert len(named) == len(set(named)) == 2
    assert sum("(against)" in warning for warning in named) == 1


def shown(result: BenchResult) -> str:
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(bench_table(result))
    return console.export_text()


@pytest.mark.usefixtures("no_memory_probe")
def test_a_table_shows_names_as_they_are_and_more_throughput_as_better(intact_bundle: Path) -> None:
    result = measure(intact_bundle, against_precision="fp32", samples=20, seconds=0.2)
    assert result.against is not None
    times = GpuTimes(
        compute=result.subject.latency,
        enqueue=result.subject.latency,
        copy_in=None,
        copy_out=None,
        sum_ms=1.0,
        throughput_hz=300.0,
        cuda_graphs="off",
    )
    subject = dataclasses.replace(result.subject, name="net [/b] [red]x", gpu=times)
    against = dataclasses.replace(result.against, gpu=dataclasses.replace(times, throughput_hz=100.0))
    text = shown(dataclasses.replace(result, subject=subject, against=against, warnings=("[/oops] busy",)))
    assert "net [/b] [red]x" in text and "[/oops] busy" in text
    (row,) = [line for line in text.splitlines() if "throughput" in line]
    assert "3.00x" in row


@pytest.mark.usefixtures("no_memory_probe")
def test_a_result_of_schema_1_is_read_and_shown(intact_bundle: Path) -> None:
    """As version 1 wrote it: without what engines of GPUs brought."""
    table = json.loads(measure(intact_bundle, samples=20, seconds=0.2).to_json())
    table["schema"] = 1
    for name in ("precision", "backend", "reason", "gpu"):
        del table["subject"][name]
    for name in ("gpu", "driver", "power_mode", "l4t", "jetpack"):
        table["machine"].pop(name)
    for name in [name for name in table["subject"]["memory"] if name not in OLD_MEMORY]:
        del table["subject"]["memory"][name]
    result = BenchResult.from_json(json.dumps(table))
    assert (result.schema, result.subject.precision, result.subject.gpu) == (1, "fp32", None)
    assert "latency p99" in shown(result) and "GPU compute" not in shown(result)


def test_what_a_process_holds_is_looked_for_on_every_gpu() -> None:
    """A fake NVML: this process works on the second GPU, as CUDA_VISIBLE_DEVICES=1 has it."""
    own = types.SimpleNamespace(pid=os.getpid(), usedGpuMemory=5 << 20)
    other = types.SimpleNamespace(pid=-1, usedGpuMemory=None)
    running = [[other], [other, own]]
    fake = types.ModuleType("fake_pynvml")
    fake.nvmlDeviceGetCount = lambda: 2  # type: ignore[attr-defined]
    fake.nvmlDeviceGetHandleByIndex = lambda number: number  # type: ignore[attr-defined]
    fake.nvmlDeviceGetComputeRunningProcesses_v3 = lambda handle: running[handle]  # type: ignore[attr-defined]
    assert gpu_process_bytes(fake) == 5 << 20
    own.usedGpuMemory = None
    assert gpu_process_bytes(fake) is None
    running[1] = [other]
    assert gpu_process_bytes(fake) is None


@pytest.mark.parametrize("name", ["a\nb", "[/b]", "\udcff", "\"'$(x)", "%s"])
def test_a_bundle_of_an_odd_name_has_its_memory_measured(name: str, intact_bundle: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(intact_bundle, tmp_path / f"{name}.bundle")
    assert measure_memory(read_bundle(copy), (16, 24), threads=1, spin=False).peak_rss_bytes


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"schema": 1}', "9" * 10_000])
def test_text_that_is_no_result(text: str) -> None:
    with pytest.raises(DataError, match="no benchmark result"):
        BenchResult.from_json(text)


def test_a_newer_result_is_refused() -> None:
    with pytest.raises(DataError, match="has schema 3, this edgeslim reads up to 2"):
        BenchResult.from_json('{"schema": 3, "new": 1}')


def test_the_bench_imports_no_heavy_package() -> None:
    code = (
        "import sys, edgeslim.bench; "
        "print(sorted({'torch', 'jinja2', 'matplotlib', 'onnx', 'onnxruntime', 'rich'} & set(sys.modules)))"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert child.stdout.strip() == "[]", child.stderr
