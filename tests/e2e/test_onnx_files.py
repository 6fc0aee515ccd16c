"""`edgeslim export --onnx` on files that other people made, and on those files damaged."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from edgeslim.trainer.slim import slim_file

from .test_bad_input import left_behind, refused
from .tiny import Cli, call_edgeslim

SQUEEZENET = "weights/cifar10_squeezenet/squeezenet_cifar10.onnx"


@pytest.fixture
def cli() -> Cli:
    return call_edgeslim


def pictures(shared_data: Path, file: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """CIFAR-10 as the file's net takes it: (N, 32, 32, 3) float32 in [0, 1], and the classes (N,)."""
    records = np.fromfile(shared_data / "cifar10" / "cifar-10-batches-bin" / file, np.uint8).reshape(-1, 3073)[:count]
    planes = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(planes, np.float32) / 255, records[:, 0]


def accuracy(path: Path, shared_data: Path) -> float:
    images, classes = pictures(shared_data, "test_batch.bin", 1000)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (said,) = session.run(None, {session.get_inputs()[0].name: images})
    return float((np.argmax(said, 1) == classes).mean())


def test_calibration_keeps_the_accuracy_that_weights_alone_lose(shared_data: Path, tmp_path: Path, cli: Cli) -> None:
    given = shared_data / SQUEEZENET
    np.savez(tmp_path / "frames.npz", pictures(shared_data, "data_batch_1.bin", 96)[0])
    out, plain = tmp_path / "out.onnx", tmp_path / "plain.onnx"
    words = ("--ratio", "0.125", "--calibration", tmp_path / "frames.npz", "--json")
    done = cli("export", "--onnx", given, out, *words)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert all(stage["passed"] for stage in report["certificate"]["stages"])
    assert report["after"]["macs"] < 0.8 * report["before"]["macs"]
    assert report["output_error"] < report["uncorrected_error"]
    assert cli("export", "--onnx", given, plain, "--ratio", "0.125").returncode == 0
    assert accuracy(out, shared_data) > accuracy(plain, shared_data) + 0.1
    assert accuracy(out, shared_data) > accuracy(given, shared_data) - 0.1


def test_a_table_for_people(shared_data: Path, tmp_path: Path, cli: Cli) -> None:
    done = cli("export", "--onnx", shared_data / SQUEEZENET, tmp_path / "out.onnx", "--target", "macs=0.5x")
    assert done.returncode == 0, done.stderr
    for words in ("MACs", "coverage", "certificate", "outputs differ from the uncut net", "passed"):
        assert words in done.stdout


def test_what_is_refused_leaves_nothing(tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "text.onnx").write_text("no model")
    out = tmp_path / "out.onnx"
    refused(cli("export", "--onnx", tmp_path / "text.onnx", out), "text.onnx is not an ONNX file")
    refused(cli("export", "--onnx", tmp_path / "absent.onnx", out), "absent.onnx cannot be read")
    refused(cli("export", "--onnx", tmp_path / "text.onnx", tmp_path / "text.onnx"), "the file that is read")
    refused(
        cli("export", "--onnx", tmp_path / "text.onnx", out, "--calibration", tmp_path / "absent.npz"), "absent.npz"
    )
    for words in (
        ("--ratio", "0.5"),
        ("--onnx", "--dense"),
        ("--onnx", "--archive"),
        ("--target", "macs=0.5x"),
        ("--min-share", "0"),
    ):
        assert cli("export", tmp_path / "text.onnx", out, *words).returncode == 2
    assert left_behind(tmp_path) == ["text.onnx"]


@pytest.mark.parametrize("name", ["cifar10_squeezenet/squeezenet_cifar10", "face_ultralight/version-RFB-320"])
def test_damaged_real_nets_lose_exactly_what_is_dead(shared_data: Path, tmp_path: Path, name: str) -> None:
    """Half of the kernels of every other layer are zeroed, their biases and batch norm shifts stay."""
    proto = onnx.load(shared_data / "weights" / f"{name}.onnx")
    weights = {t.name: t for t in proto.graph.initializer}
    rng = np.random.default_rng(0)
    for node in [n for n in proto.graph.node if n.op_type == "Conv"][::2]:
        array = onnx.numpy_helper.to_array(weights[node.input[1]]).copy()
        array[rng.permutation(len(array))[: len(array) // 2]] = 0
        weights[node.input[1]].CopyFrom(onnx.numpy_helper.from_array(array, node.input[1]))
    (tmp_path / "in.onnx").write_bytes(proto.SerializeToString())
    report = slim_file(tmp_path / "in.onnx", tmp_path / "out.onnx")
    assert report.dead > 100
    assert report.after.macs is not None and report.before.macs is not None
    assert report.after.macs < 0.7 * report.before.macs


@pytest.mark.parametrize("name", ["light_resnet50", "light_squeezenet"])
def test_a_ratio_on_graphs_of_an_old_opset(shared_data: Path, tmp_path: Path, name: str) -> None:
    report = slim_file(shared_data / "weights" / "onnx_light" / f"{name}.onnx", tmp_path / "out.onnx", ratio=0.5)
    assert report.after.macs is not None and report.before.macs is not None
    assert report.after.macs < 0.45 * report.before.macs
