"""Running bundles: on ONNX Runtime, on the fake backend, and without torch or pydantic in sight."""

from __future__ import annotations

import dataclasses
import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from edgeslim.errors import BundleError, CertificateError, ConfigError, DataError, DeviceError, EngineError
from edgeslim.exporter.bundle import golden_bytes, write_bundle
from edgeslim.runtime import GoldenCase, Manifest, Session, TensorSpec, load, read_bundle
from edgeslim.runtime.backends.fake import FakeBackend
from edgeslim.runtime.backends.onnxruntime import OnnxRuntimeBackend

FRAMES = np.random.default_rng(7).integers(0, 256, (3, 24, 32, 3), dtype=np.uint8)


def reference(model: bytes, frames: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"frame": frames})[0])


@pytest.mark.parametrize("threads", [1, 2])
def test_frames_come_out_as_the_engine_computes_them(
    intact_bundle: Path, tiny_model: Callable[..., bytes], threads: int
) -> None:
    expected = reference(tiny_model(), FRAMES)
    with load(intact_bundle, threads=threads) as session:
        single = session.run(FRAMES[0])
        batch = session.run_batch(FRAMES)
    assert list(single) == list(batch) == ["logits"]
    assert single["logits"].shape == (2, 24, 32)
    np.testing.assert_allclose(single["logits"], expected[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(batch["logits"], expected, rtol=1e-5, atol=1e-6)
    assert session.manifest.classes == ("background", "vessel")


def test_an_archive_runs_as_its_directory_does(intact_bundle: Path, intact_archive: Path) -> None:
    with load(intact_bundle) as one, load(str(intact_archive)) as other:
        np.testing.assert_array_equal(one.run(FRAMES[0])["logits"], other.run(FRAMES[0])["logits"])


def test_frames_need_not_be_contiguous(intact_bundle: Path) -> None:
    mirrored = FRAMES[0][::-1, ::-1, ::-1]
    with load(intact_bundle) as session:
        np.testing.assert_array_equal(
            session.run(mirrored)["logits"], session.run(np.ascontiguousarray(mirrored))["logits"]
        )


@pytest.mark.parametrize(
    ("frame", "said", "hint"),
    [
        (FRAMES[0].astype(np.float32), "dtype is float32, the net takes uint8", "8-bit pixels"),
        (FRAMES[0][:, :, 0], r"shape \[24, 32\] given, one frame is", "run_batch"),
        (FRAMES, r"shape \[3, 24, 32, 3\] given, one frame is", "run_batch"),
        (FRAMES[0].tolist(), "a list given", "run_batch"),
        (FRAMES[0][:, :, :2], r"2 channels \(RGB\) given, the net takes exactly 3", "shape"),
        (FRAMES[0][:17, :31], "24x32", "24x32"),
        (FRAMES[0][:0], "no pixels", "at least one frame"),
    ],
    ids=["dtype", "gray", "batch", "list", "colours", "multiple", "empty"],
)
def test_a_frame_that_does_not_fit(intact_bundle: Path, frame: object, said: str, hint: str) -> None:
    with load(intact_bundle) as session, pytest.raises(DataError) as caught:
        session.run(frame)  # type: ignore[arg-type]
    caught.match(said)
    assert hint in caught.value.hint


def test_a_frame_of_a_wrong_size_is_told_the_next_that_fits(intact_bundle: Path) -> None:
    with load(intact_bundle) as session, pytest.raises(DataError) as caught:
        session.run(np.zeros((17, 31, 3), np.uint8))
    assert caught.value.message == "a frame of 17x31 given, height and width must be multiples of 8"
    assert caught.value.hint == "resize or pad the frame, for example to 24x32"


def test_a_single_frame_is_no_batch(intact_bundle: Path) -> None:
    with load(intact_bundle) as session:
        with pytest.raises(DataError, match=r"a batch is \(frames, height, width, 3\)"):
            session.run_batch(FRAMES[0])
        with pytest.raises(DataError, match="no pixels"):
            session.run_batch(FRAMES[:0])


def test_a_net_of_a_fixed_size(
    tmp_path: Path, tiny_model: Callable[..., bytes], tiny_manifest: Callable[..., Manifest]
) -> None:
    entry = TensorSpec(name="frame", dtype="uint8", shape=(1, 16, 24, 3), layout="NHWC")
    manifest = dataclasses.replace(tiny_manifest(), inputs=(entry,))
    write_bundle(tmp_path / "net", model=tiny_model(batch=1), manifest=manifest)
    with load(tmp_path / "net") as session:
        assert session.run(FRAMES[0][:16, :24])["logits"].shape == (2, 16, 24)
        with pytest.raises(DataError, match=r"24 rows \(height\) given, the net takes exactly 16"):
            session.run(FRAMES[0])
        with pytest.raises(DataError, match=r"3 frames in a batch given, the net takes exactly 1"):
            session.run_batch(FRAMES[:, :16, :24])


def test_golden_vectors_hold(intact_bundle: Path) -> None:
    with load(intact_bundle) as session:
        report = session.verify_golden()
    assert (report.cases, report.atol, report.rtol) == (1, 1e-5, 1e-4)
    assert 0.0 <= report.max_abs <= 1e-5


def planted(
    tmp_path: Path, intact_bundle: Path, damage: Callable[[np.ndarray], np.ndarray], name: str = "logits"
) -> Path:
    """The intact bundle with its expected output changed, and hashes that fit."""
    bundle = read_bundle(intact_bundle)
    (case,) = bundle.golden_cases()
    golden = golden_bytes([GoldenCase(inputs=case.inputs, outputs={name: damage(case.outputs["logits"].copy())})])
    return write_bundle(
        tmp_path / "planted", model=bundle.model, manifest=bundle.manifest, files={"golden.npz": golden}
    )


def one_element_off(array: np.ndarray) -> np.ndarray:
    array[1, 0, 3, 5] += 0.01
    return array


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (one_element_off, r"output 'logits' differs at \[1, 0, 3, 5\]"),
        (lambda array: array[:, ::-1], "differs at"),
        (lambda array: array[:1], r"has shape \[2, 2, 16, 24\], expected \[1, 2, 16, 24\]"),
        (lambda array: np.full_like(array, np.nan), "is not finite"),
    ],
    ids=["one element", "channels swapped", "shape", "nan"],
)
def test_a_planted_difference_fails_the_golden_check(
    tmp_path: Path, intact_bundle: Path, damage: Callable[[np.ndarray], np.ndarray], said: str
) -> None:
    with load(planted(tmp_path, intact_bundle, damage)) as session, pytest.raises(CertificateError, match=said):
        session.verify_golden()


def test_golden_outputs_of_another_net(tmp_path: Path, intact_bundle: Path) -> None:
    path = planted(tmp_path, intact_bundle, lambda array: array, name="boxes")
    with load(path) as session, pytest.raises(BundleError, match=r"outputs \['boxes'\], the graph has \['logits'\]"):
        session.verify_golden()


def test_a_bundle_without_golden_vectors(
    tmp_path: Path, tiny_model: Callable[..., bytes], tiny_manifest: Callable[..., Manifest]
) -> None:
    write_bundle(tmp_path / "net", model=tiny_model(), manifest=tiny_manifest())
    with load(tmp_path / "net") as session, pytest.raises(BundleError, match="no golden vectors"):
        session.verify_golden()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"outputs": (TensorSpec(name="mask", dtype="float32", shape=("N",)),)}, "has the outputs mask float32"),
        (
            {"inputs": (TensorSpec(name="frame", dtype="float32", shape=("N", "H", "W", 3), layout="NHWC"),)},
            "has the inputs frame float32",
        ),
        (
            {"inputs": (TensorSpec(name="frame", dtype="uint8", shape=("N", 3, "H", "W"), layout="NCHW"),)},
            "not one batch of uint8 NHWC frames",
        ),
        (
            {"inputs": (TensorSpec(name="frame", dtype="uint8", shape=("N", "H", "W", 1), layout="NHWC"),)},
            "1 channels, RGB has 3",
        ),
    ],
)
def test_a_manifest_of_another_graph(
    tmp_path: Path,
    tiny_model: Callable[..., bytes],
    tiny_manifest: Callable[..., Manifest],
    change: dict[str, tuple[TensorSpec, ...]],
    said: str,
) -> None:
    manifest = dataclasses.replace(tiny_manifest(), **change)  # type: ignore[arg-type]
    write_bundle(tmp_path / "net", model=tiny_model(), manifest=manifest)
    with pytest.raises(BundleError, match=said):
        load(tmp_path / "net")


def test_a_graph_of_one_size_under_a_manifest_of_any(
    tmp_path: Path, tiny_model: Callable[..., bytes], tiny_manifest: Callable[..., Manifest]
) -> None:
    write_bundle(tmp_path / "net", model=tiny_model(batch=4), manifest=tiny_manifest())
    with pytest.raises(BundleError, match=r"frames of shape \['N', 'H', 'W', 3\], the graph \[4, 'H', 'W', 3\]"):
        load(tmp_path / "net")


@pytest.mark.parametrize("model", [b"", b"garbage", b"\x08\x0a"])
def test_a_model_that_the_engine_refuses(
    tmp_path: Path, tiny_manifest: Callable[..., Manifest], model: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    write_bundle(tmp_path / "net", model=model, manifest=tiny_manifest())
    with pytest.raises(EngineError, match=r"ONNX Runtime .* cannot load the model"):
        load(tmp_path / "net")
    assert capfd.readouterr() == ("", "")


def test_weights_outside_the_bundle_are_never_read(
    tmp_path: Path, tiny_model: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = onnx.load_from_string(tiny_model())
    onnx.save(model, tmp_path / "net.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EngineError, match="cannot load the model"):
        OnnxRuntimeBackend((tmp_path / "net.onnx").read_bytes())


def test_a_closed_session_says_so(intact_bundle: Path) -> None:
    with load(intact_bundle) as session:
        pass
    session.close()
    with pytest.raises(EngineError, match="the session is closed"):
        session.run(FRAMES[0])


def test_an_engine_failure_names_the_shape(tiny_model: Callable[..., bytes]) -> None:
    with OnnxRuntimeBackend(tiny_model()) as backend, pytest.raises(EngineError, match=r"'frame': \[1, 8, 8, 5\]"):
        backend.run({"frame": np.zeros((1, 8, 8, 5), np.uint8)})


@pytest.mark.parametrize("threads", [0, -1, 1.5, True, "2"])
def test_a_thread_count_that_is_none(intact_bundle: Path, threads: object) -> None:
    with pytest.raises(ConfigError, match="threads is"):
        load(intact_bundle, threads=threads)  # type: ignore[arg-type]


def test_an_unknown_backend(intact_bundle: Path) -> None:
    with pytest.raises(ConfigError, match="no backend 'tensorflow'"):
        load(intact_bundle, backend="tensorflow")


def test_settings_reach_the_engine(intact_bundle: Path) -> None:
    for spin in (False, True):
        with load(intact_bundle, threads=2, spin=spin) as session:
            options = session.backend._session.get_session_options()  # type: ignore[attr-defined]
        assert (options.intra_op_num_threads, options.inter_op_num_threads) == (2, 1)
        assert options.get_session_config_entry("session.intra_op.allow_spinning") == str(int(spin))
        assert options.get_session_config_entry("session.inter_op.allow_spinning") == str(int(spin))


def test_the_fake_backend_stands_in_for_an_engine(intact_bundle: Path) -> None:
    manifest = read_bundle(intact_bundle).manifest
    fakes: list[FakeBackend] = []

    def make(model: bytes, *, threads: int, spin: bool) -> FakeBackend:
        factory = FakeBackend.answering(
            manifest.inputs, manifest.outputs, lambda feeds: [np.zeros((1, 2, 24, 32), np.float32)]
        )
        fakes.append(factory(model, threads=threads, spin=spin))
        return fakes[-1]

    with load(intact_bundle, threads=3, spin=True, backend=make) as session:
        assert session.run(FRAMES[0])["logits"].shape == (2, 24, 32)
    (fake,) = fakes
    assert (fake.threads, fake.spin, fake.closed) == (3, True, True)
    np.testing.assert_array_equal(fake.runs[0]["frame"], FRAMES[:1])
    with pytest.raises(EngineError, match="closed"):
        session.run(FRAMES[0])


@pytest.mark.parametrize(
    ("shape", "layout", "kept"), [(("N", 2), "NC", (2,)), (("N", 2), "", (2,)), (("boxes", 7), "", (5, 7))]
)
def test_only_a_batch_axis_is_dropped(
    intact_bundle: Path, shape: tuple[int | str, ...], layout: str, kept: tuple[int, ...]
) -> None:
    bundle = read_bundle(intact_bundle)
    outputs = (TensorSpec(name="out", dtype="float32", shape=shape, layout=layout),)
    manifest = dataclasses.replace(bundle.manifest, outputs=outputs)
    answer = np.zeros((1, 2) if shape[0] == "N" else (5, 7), np.float32)
    fake = FakeBackend(b"", inputs=manifest.inputs, outputs=outputs, answer=lambda feeds: [answer])
    with Session(dataclasses.replace(bundle, manifest=manifest), fake) as session:
        assert session.run(FRAMES[0])["out"].shape == kept
        assert session.run_batch(FRAMES[:1])["out"].shape == answer.shape


def test_a_refused_backend_is_closed(intact_bundle: Path) -> None:
    fakes: list[FakeBackend] = []

    def make(model: bytes, *, threads: int, spin: bool) -> FakeBackend:
        fakes.append(FakeBackend(model, inputs=(), outputs=(), answer=lambda feeds: []))
        return fakes[-1]

    with pytest.raises(BundleError, match="the manifest has the inputs"):
        load(intact_bundle, backend=make)
    assert fakes[0].closed


BLOCKED = """
import sys
from importlib.abc import MetaPathFinder

class Block(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "pydantic", "onnx", "onnx_ir", "yaml", "rich", "psutil"}:
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Block())
import numpy as np
import edgeslim.runtime
assert "onnxruntime" not in sys.modules, "the engine was imported before it was needed"
with edgeslim.runtime.load(sys.argv[1]) as session:
    session.verify_golden()
    print(session.run(np.zeros((16, 24, 3), np.uint8))["logits"].shape)
"""


def test_the_runtime_needs_numpy_and_one_engine_only(intact_bundle: Path) -> None:
    child = subprocess.run(
        [sys.executable, "-W", "error", "-c", BLOCKED, os.fspath(intact_bundle)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    assert child.stdout.strip() == "(2, 16, 24)"


NO_ENGINE = """
import sys
sys.modules["onnxruntime"] = None
import edgeslim.runtime
from edgeslim.errors import DeviceError
try:
    edgeslim.runtime.open_backend("onnxruntime", b"")
except DeviceError as error:
    print(error.hint)
"""


def test_a_missing_engine_names_the_command_that_installs_it() -> None:
    child = subprocess.run([sys.executable, "-c", NO_ENGINE], capture_output=True, text=True, timeout=60, check=False)
    assert child.stdout.strip() == "pip install 'edgeslim[runtime]'", child.stderr


def test_cuda_that_does_not_start_is_passed_over_with_the_reason(
    intact_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a machine that lacks CUDA's libraries: here ONNX Runtime has not even the provider."""
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    monkeypatch.setattr(importlib.import_module("edgeslim.runtime.choose"), "_why_no_cuda", lambda: None)
    with load(intact_bundle) as session:
        assert session.backend.name == "onnxruntime" and session.choice is not None
        assert session.choice.backend == "onnxruntime"
        assert "has no CUDAExecutionProvider" in session.choice.passed_over["onnxruntime-cuda"]
    with pytest.raises(DeviceError, match="has no CUDAExecutionProvider"):
        load(intact_bundle, backend="onnxruntime-cuda")
