"""Building engines on a stand-in for TensorRT: found again, never twice at once, checked before they are kept."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeslim.errors import (
    BundleError,
    CertificateError,
    ConfigError,
    DeviceError,
    EngineError,
    UnsupportedGraphError,
)
from edgeslim.exporter.engine import BuildOptions, parse_bytes, parse_frames, parse_targets, trtexec_line
from edgeslim.exporter.engine.typed_graph import has_sparse_weights, is_two_of_four, low_precisions
from edgeslim.progress import Silent
from edgeslim.runtime import read_bundle
from edgeslim.runtime.engines import EngineStore, engines_folder
from edgeslim.runtime.engines.here import Here

from .bundles import FP16, float_model, half_model, serialised, write_tiny
from .conftest import ORIN, BuildOnOrin, UseTensorRT
from .fake_tensorrt import Plan


def test_an_engine_is_built_once_and_found_again(
    tiny: Path, use_tensorrt: UseTensorRT, build_on_orin: BuildOnOrin
) -> None:
    plan = Plan()
    use_tensorrt("103", plan)
    first, second = build_on_orin(tiny), build_on_orin(tiny)
    assert (first.reused, second.reused) == (False, True) and len(plan.built) == 1
    assert first.stored == second.stored
    assert first.stored.path.parent == engines_folder(tiny) == tiny.with_name("tiny.bundle.engines")
    record = first.stored.record
    assert record.golden is not None and record.golden.cases == 1
    assert "a warning of two lines" in record.notes
    read_bundle(tiny)  # the bundle itself is as it was


@pytest.mark.parametrize(
    "change",
    [
        {"options": BuildOptions(precision="fp16")},
        {"options": BuildOptions(level=1)},
        {"options": BuildOptions(tf32=True)},
        {"options": BuildOptions(workspace_bytes=2**20)},
        {"options": BuildOptions(frames=parse_frames("1x16x24:1x16x24:2x16x24"))},
        {"here": dataclasses.replace(ORIN, driver="541.0")},
        {"here": dataclasses.replace(ORIN, board="another board")},
        {"here": dataclasses.replace(ORIN, gpu="another GPU")},
    ],
)
def test_whatever_changes_the_engine_changes_its_key(
    change: Mapping[str, object], tiny: Path, use_tensorrt: UseTensorRT, build_on_orin: BuildOnOrin
) -> None:
    use_tensorrt("103")
    first = build_on_orin(tiny)
    other = build_on_orin(tiny, **change)
    assert not other.reused and other.stored.record.key != first.stored.record.key
    assert other.stored.path != first.stored.path and build_on_orin(tiny).reused


def test_another_version_or_another_model_is_another_engine(
    tmp_path: Path, use_tensorrt: UseTensorRT, build_on_orin: BuildOnOrin
) -> None:
    bundle, cache = write_tiny(tmp_path / "a.bundle"), tmp_path / "cache"
    other = write_tiny(tmp_path / "b.bundle", model=float_model(seed=1))
    use_tensorrt("103")
    keys = {build_on_orin(each, cache=cache).stored.record.key for each in (bundle, other)}
    use_tensorrt("107")
    keys.add(build_on_orin(bundle, cache=cache).stored.record.key)
    assert len(keys) == 3 and len(EngineStore(cache).engines()) == 3


@pytest.mark.parametrize(
    "damage", ["truncated", "swapped", "record", "record is newer", "no record", "pair of another engine"]
)
def test_a_damaged_engine_is_said_and_built_again(
    damage: str, tiny: Path, use_tensorrt: UseTensorRT, build_on_orin: BuildOnOrin, progress: Silent
) -> None:
    use_tensorrt("103")
    built = build_on_orin(tiny)
    place = built.stored.path
    whole = place.read_bytes()
    if damage == "truncated":
        place.write_bytes(whole[:-5])
    elif damage == "swapped":
        place.write_bytes(bytes(len(whole)))
    elif damage == "record":
        place.with_suffix(".json").write_text("{")
    elif damage == "record is newer":
        place.with_suffix(".json").write_text(json.dumps({"schema": 99, "new": 1}))
    elif damage == "pair of another engine":
        other = build_on_orin(tiny, BuildOptions(level=1)).stored.path
        for suffix in (".engine", ".json"):
            place.with_suffix(suffix).write_bytes(other.with_suffix(suffix).read_bytes())
    else:
        place.with_suffix(".json").unlink()
    if damage in ("truncated", "swapped"):
        with pytest.raises(EngineError, match=r"which are not the .* bytes that its record names"):
            built.stored.read()
    again = build_on_orin(tiny)
    assert not again.reused and again.stored.read() == whole
    assert sum("built again" in note for note in progress.notes) == (damage != "no record")


def test_an_engine_that_computes_something_else_is_not_kept(
    tiny: Path, use_tensorrt: UseTensorRT, build_on_orin: BuildOnOrin
) -> None:
    use_tensorrt("103", Plan(off_by=0.01))
    with pytest.raises(CertificateError, match="wrong, so it was not kept: golden case 0, output 'logits' differs"):
        build_on_orin(tiny)
    assert EngineStore(engines_folder(tiny)).engines() == ()


def test_a_variant_is_held_to_its_own_tolerance(
    tiny: Path, use_tensorrt: UseTensorRT, build_on_orin: BuildOnOrin
) -> None:
    use_tensorrt("103", Plan(off_by=2e-3))
    golden = build_on_orin(tiny, BuildOptions(precision="fp16")).stored.record.golden
    assert golden is not None and golden.atol == FP16.atol
    with pytest.raises(CertificateError):
        build_on_orin(tiny, BuildOptions(precision="fp32"))


def test_a_node_that_tensorrt_lacks_is_named(tiny: Path, use_tensorrt: UseTensorRT, build_on_orin: BuildOnOrin) -> None:
    use_tensorrt("103", Plan(unsupported=frozenset({"Add"})))
    with pytest.raises(UnsupportedGraphError, match=r"node island \(Add\): no importer for Add") as raised:
        build_on_orin(tiny, BuildOptions(precision="fp16"))
    assert "edgeslim bench --backend onnxruntime" in raised.value.hint
    use_tensorrt("86", Plan(unsupported=frozenset({"Add"})))
    with pytest.raises(UnsupportedGraphError, match="node number 4"):
        build_on_orin(tiny, BuildOptions(precision="fp16"))


def test_out_of_memory_is_tried_again_with_less(
    tiny: Path, use_tensorrt: UseTensorRT, build_on_orin: BuildOnOrin, progress: Silent
) -> None:
    plan = Plan(memory_bytes=300 * 2**20)
    use_tensorrt("103", plan)
    record = build_on_orin(tiny).stored.record
    assert [b["limits"].get("WORKSPACE", 0) >> 20 for b in plan.built] == [0, 1024, 512, 256]
    assert "out of memory: built again with a workspace of 256 MiB" in record.notes
    assert any("256 MiB" in note for note in progress.notes)
    assert build_on_orin(tiny).reused  # the key is of what was asked for
    use_tensorrt("103", Plan(memory_bytes=1))
    with pytest.raises(EngineError, match="ran out of memory, even with a workspace of 16 MiB"):
        build_on_orin(tiny, BuildOptions(level=1))


def test_the_builders_own_reason_is_passed_on(
    tiny: Path, use_tensorrt: UseTensorRT, build_on_orin: BuildOnOrin
) -> None:
    use_tensorrt("103", Plan(refuses="Could not find any implementation\nfor node {conv}"))
    with pytest.raises(EngineError, match="built no engine: Could not find any implementation for node"):
        build_on_orin(tiny)
    use_tensorrt("103", Plan(refuses="insufficient workspace for node {conv}"))
    with pytest.raises(EngineError) as raised:
        build_on_orin(tiny, BuildOptions(workspace_bytes=1))
    assert "--workspace" in raised.value.hint


def test_ctrl_c_during_a_build_ends_it(tiny: Path, use_tensorrt: UseTensorRT, build_on_orin: BuildOnOrin) -> None:
    class Impatient(Silent):
        def step(self, done: int, values: Mapping[str, float]) -> None:
            raise KeyboardInterrupt

    use_tensorrt("103")
    import edgeslim.progress

    patience, edgeslim.progress.PATIENCE_SECONDS = edgeslim.progress.PATIENCE_SECONDS, -1.0
    try:
        with pytest.raises(KeyboardInterrupt):
            build_on_orin(tiny, progress=Impatient())
    finally:
        edgeslim.progress.PATIENCE_SECONDS = patience
    assert list(engines_folder(tiny).glob("*")) == []


def test_two_builds_at_once_make_one_engine(tiny: Path, use_tensorrt: UseTensorRT, build_on_orin: BuildOnOrin) -> None:
    """The second waits for the lock, and then finds the engine of the first."""
    plan = Plan()
    use_tensorrt("103", plan)
    inside, notes = threading.Event(), Silent()
    spec = build_on_orin(tiny).stored.record.spec
    store = EngineStore(engines_folder(tiny))
    store.path(spec).with_suffix(".json").unlink()

    class Waiting(Silent):
        def note(self, text: str) -> None:
            super().note(text)
            if "another process builds this engine" in text:
                inside.set()

    waiting = Waiting()
    with store.building(spec, lambda: notes.note("taken")):
        late = threading.Thread(target=lambda: build_on_orin(tiny, progress=waiting))
        late.start()
        assert inside.wait(10)
        assert len(plan.built) == 1
    late.join(10)
    assert not late.is_alive() and len(plan.built) == 2 and notes.notes == []
    assert build_on_orin(tiny).reused


def test_a_killed_builder_locks_nobody_out(tiny: Path, use_tensorrt: UseTensorRT, build_on_orin: BuildOnOrin) -> None:
    folder = engines_folder(tiny)
    folder.mkdir()
    program = (
        "import os, sys, signal; from pathlib import Path; from edgeslim.lock import hold\n"
        "with hold(Path(sys.argv[1]), when_taken=lambda: None): os.kill(os.getpid(), signal.SIGKILL)"
    )
    use_tensorrt("103")
    spec = build_on_orin(tiny).stored.record.spec
    lock = folder / f".{spec.key[:16]}.lock"
    subprocess.run([sys.executable, "-c", program, str(lock)], check=False)
    assert lock.exists()
    half_written = [folder / f".{EngineStore(folder).path(spec).stem}{suffix}.x1y2" for suffix in (".engine", ".json")]
    others = folder / f".{EngineStore(folder).path(dataclasses.replace(spec, gpu='other')).stem}.engine.x1y2"
    for file in (*half_written, others):
        file.write_bytes(b"half")
    assert not build_on_orin(tiny, BuildOptions(level=2)).reused
    with EngineStore(folder).building(spec, lambda: pytest.fail("locked out")):
        pass
    assert not any(file.exists() for file in half_written) and others.exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_folder_that_cannot_be_written(tiny: Path, use_tensorrt: UseTensorRT, build_on_orin: BuildOnOrin) -> None:
    use_tensorrt("103")
    tiny.parent.chmod(0o500)
    try:
        with pytest.raises(EngineError, match="engines cannot be kept"):
            build_on_orin(tiny)
    finally:
        tiny.parent.chmod(0o700)


def test_a_cache_that_is_a_file(tiny: Path, use_tensorrt: UseTensorRT, build_on_orin: BuildOnOrin) -> None:
    use_tensorrt("103")
    with pytest.raises(EngineError, match="engines cannot be kept"):
        build_on_orin(tiny, cache=tiny / "manifest.json")


def test_timings_are_kept_for_the_next_build(tiny: Path, use_tensorrt: UseTensorRT, build_on_orin: BuildOnOrin) -> None:
    use_tensorrt("103")
    build_on_orin(tiny)
    (timings,) = engines_folder(tiny).glob("timings-*.cache")
    assert timings.name == "timings-tensorrt-10.3.0-sm87.cache" and timings.read_bytes() == b"+timed"
    build_on_orin(tiny, BuildOptions(level=1))
    assert timings.read_bytes() == b"+timed+timed"
    use_tensorrt("103", Plan(foreign_timings=True))
    record = build_on_orin(tiny, BuildOptions(level=2)).stored.record
    assert any("kernels were timed anew" in note for note in record.notes)
    before = timings.read_bytes()
    build_on_orin(tiny, BuildOptions(level=3, timing_cache=False))
    assert timings.read_bytes() == before


# --- options ----------------------------------------------------------------------------------------------------------


def test_options_are_checked_first(tiny: Path, use_tensorrt: UseTensorRT, build_on_orin: BuildOnOrin) -> None:
    for make, message in (
        (lambda: BuildOptions(level=6), "goes from 0 to 5"),
        (lambda: BuildOptions(workspace_bytes=0), "at least 1"),
        (lambda: BuildOptions(targets=("86",)), "builds for the GPU of the machine it runs on"),
        (lambda: BuildOptions(backend="tensorrt-rtx", targets=("ampere",)), "no compute capability"),
        (lambda: parse_frames("1x2"), "says no frames"),
        (lambda: parse_frames("2x8x8:1x8x8:1x8x8"), "batch is 2 <= 1 <= 1"),
        (lambda: parse_bytes("lots", "--workspace"), "--workspace 'lots' is no size"),
        (lambda: parse_bytes("0M", "--workspace"), "is no size"),
    ):
        with pytest.raises(ConfigError, match=message):
            make()
    assert parse_bytes("512M", "x") == 2**29 and parse_bytes("2GiB", "x") == 2**31 and parse_bytes("7", "x") == 7
    assert parse_targets("sm89, 8.6,120,86") == ("86", "89", "120") and parse_targets(None) == ()
    use_tensorrt("103")
    with pytest.raises(ConfigError, match="takes multiples of 8"):
        build_on_orin(tiny, BuildOptions(frames=parse_frames("1x9x8")))
    with pytest.raises(ConfigError, match="no precision 'int8'"):
        build_on_orin(tiny, BuildOptions(precision="int8"))
    with pytest.raises(ConfigError, match="sees 0 here"):
        build_on_orin(tiny, BuildOptions(precision="fp16", dla_core=0, frames=parse_frames("1x16x24")))
    with pytest.raises(ConfigError, match="computes in float16 and int8"):
        build_on_orin(tiny, BuildOptions(dla_core=0))
    use_tensorrt("103", Plan(dla_cores=2))
    with pytest.raises(ConfigError, match="is a range"):
        build_on_orin(tiny, BuildOptions(precision="fp16", dla_core=0, frames=parse_frames("1x16x24:1x16x24:2x16x24")))
    use_tensorrt("86")
    with pytest.raises(ConfigError, match="no hardware compatibility 'same-compute-capability'"):
        build_on_orin(tiny, BuildOptions(compatibility="same-compute-capability"))
    with pytest.raises(BundleError):
        build_on_orin(tiny / "nothing")


def test_a_graph_of_one_batch_size_takes_no_other(
    tmp_path: Path, use_tensorrt: UseTensorRT, build_on_orin: BuildOnOrin
) -> None:
    bundle = write_tiny(tmp_path / "a.bundle", batch=1, sizes=[(1, 16, 24)])
    use_tensorrt("103")
    assert build_on_orin(bundle).stored.record.checked
    with pytest.raises(ConfigError, match="a batch of exactly 1, an engine for 1 to 4 was asked for"):
        build_on_orin(bundle, BuildOptions(frames=parse_frames("1x16x24:1x16x24:4x16x24")))


def test_without_a_gpu_rtx_wants_to_know_for_which(tiny: Path, build_on_orin: BuildOnOrin) -> None:
    with pytest.raises(DeviceError, match="there is no GPU to build for: none") as raised:
        build_on_orin(tiny, BuildOptions(backend="tensorrt-rtx"), here=Here(problem="none"))
    assert "--sm" in raised.value.hint


def product_with_a_vector() -> bytes:
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in (("x", [2, 8]), ("y", [2]))]
    vector = numpy_helper.from_array(np.zeros(8, np.float32), "w")
    return serialised(
        helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "vector", values[:1], values[1:], [vector])
    )


def test_sparse_weights_are_seen() -> None:
    kernel = np.zeros((4, 8, 3, 3), np.float32)
    kernel[:, [0, 3, 5, 6]] = 1
    assert is_two_of_four(kernel)
    kernel[0, 1, 0, 0] = 1  # a third of four
    assert not is_two_of_four(kernel)
    assert not is_two_of_four(np.zeros((4, 8, 3, 3), np.float32)) and not is_two_of_four(kernel[:, :7])
    assert not has_sparse_weights(float_model()) and not has_sparse_weights(half_model())
    assert not has_sparse_weights(product_with_a_vector())
    assert low_precisions(float_model()) == frozenset() and low_precisions(half_model()) == {"fp16"}
    with pytest.raises(EngineError, match="no ONNX"):
        has_sparse_weights(b"nothing of the kind")


def test_the_line_for_trtexec(tiny: Path) -> None:
    options = BuildOptions(precision="fp16", dla_core=1, workspace_bytes=2**29, level=4)
    frames = parse_frames("1x16x24:1x16x24:4x16x24")
    assert trtexec_line(read_bundle(tiny), options, frames, typed=False) == (
        "trtexec --onnx=model.fp16.onnx --saveEngine=tiny-fp16.engine --minShapes=frame:1x16x24x3 "
        "--optShapes=frame:1x16x24x3 --maxShapes=frame:4x16x24x3 --fp16 --precisionConstraints=obey --noTF32 "
        "--memPoolSize=workspace:512 --builderOptimizationLevel=4 --useDLACore=1 --allowGPUFallback"
    )
    limited = BuildOptions(precision="fp16", max_tactics=3, sparse=True)
    line = trtexec_line(read_bundle(tiny), limited, frames, typed=True)
    assert "--maxTactics=3" in line and "--sparsity=enable" in line
    assert "--maxTactics" not in trtexec_line(read_bundle(tiny), limited, frames, typed=False)
    typed = trtexec_line(read_bundle(tiny), BuildOptions(precision="fp16"), frames, typed=True)
    assert "--stronglyTyped" in typed and "--fp16" not in typed
