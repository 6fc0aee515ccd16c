"""The verb for ONNX files: what it writes, what it proves, what it refuses. No torch anywhere."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from numpy.typing import NDArray

import edgeslim
from edgeslim import schema
from edgeslim.errors import BudgetError, CertificateError, ConfigError, ExportError, UnsupportedGraphError
from edgeslim.exporter.dead import fold
from edgeslim.trainer.calibration import read_calibration
from edgeslim.trainer.recovery.patches import patches, window_of
from edgeslim.trainer.slim import slim_file

TEXT = """
<ir_version: 8, opset_import: ["" : {opset}]>
net (float[{n}, 3, {h}, {w}] image) => (float[{n}, 5] logits)
{{
  a = Conv <pads = [1, 1, 1, 1]> (image, stem)
  b = BatchNormalization (a, gamma, beta, mean, variance)
  c = Relu (b)
  d = Conv <pads = [1, 1, 1, 1], strides = [2, 2], dilations = [2, 2]> (c, middle, middle_b)
  e = Relu (d)
  f = Conv (e, point, point_b)
  g = Sigmoid (f)
  i = GlobalAveragePool (g)
  j = Flatten (i)
  logits = Gemm <transB = 1> (j, head, head_b)
}}
"""
DEAD = [0, 3, 5, 9]


def write_net(path: Path, *, opset: int = 17, dead: bool = True, n: str = "n", h: str = "h", w: str = "w") -> Path:
    """A small classifier whose stem has four dead channels, three of them constants above zero."""
    rng = np.random.default_rng(0)
    shapes = {
        "stem": (12, 3, 3, 3), "gamma": (12,), "beta": (12,), "mean": (12,), "variance": (12,),
        "middle": (16, 12, 3, 3), "middle_b": (16,), "point": (10, 16, 1, 1), "point_b": (10,), "head": (5, 10),
        "head_b": (5,),
    }  # fmt: skip
    arrays = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    arrays["variance"] = np.abs(arrays["variance"]) + 0.5
    if dead:
        arrays["stem"][DEAD] = 0
        arrays["mean"][DEAD] = 0
        arrays["beta"][DEAD] = [0.5, 1.5, -1.0, 0.25]
    proto = onnx.parser.parse_model(TEXT.format(opset=opset, n=n, h=h, w=w))
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(a, k) for k, a in arrays.items())
    path.write_bytes(proto.SerializeToString())
    return path


def images(count: int = 24, seed: int = 3) -> NDArray[np.float32]:
    """Smooth images, as photographs are."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((count, 3, 4, 5), np.float32).repeat(6, 2).repeat(6, 3)


def run(path: Path, batch: NDArray[np.float32]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"image": batch})[0])


def test_dead_channels_leave_the_file(tmp_path: Path) -> None:
    given, out = write_net(tmp_path / "in.onnx"), tmp_path / "out.onnx"
    before = given.read_bytes()
    report = edgeslim.slim_onnx(given, out)
    assert {layer.layer: layer.width_after for layer in report} == {"stem": 9, "middle": 16, "point": 10, "head": 5}
    np.testing.assert_allclose(run(out, images()), run(given, images()), rtol=1e-4, atol=1e-5)
    model = onnx.load(out)
    onnx.checker.check_model(model, full_check=True)
    assert [v.name for v in model.graph.input] == ["image"] and [v.name for v in model.graph.output] == ["logits"]
    assert {"stem", "gamma", "middle", "middle_b", "head"} <= {t.name for t in model.graph.initializer}
    assert given.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.onnx", "out.onnx"]


@pytest.mark.parametrize("opset", [9, 13, 18, 21])
def test_the_reference_is_the_file_as_given(tmp_path: Path, opset: int) -> None:
    report = slim_file(write_net(tmp_path / "in.onnx", opset=opset), tmp_path / "out.onnx")
    (stage,) = report.certificate.stages
    assert stage.reference == "in.onnx as given" and stage.passed
    assert stage.inputs == "random: 1, 2 x 3x64x96; 1, 2 x 3x96x144"
    assert report.dead == 3 and report.before.opset == opset and report.after.opset == max(opset, 18)
    assert report.after.parameters < report.before.parameters
    assert report.after.macs is not None and report.before.macs is not None and report.after.macs < report.before.macs
    json.loads(schema.dumps(report))


def write_half(path: Path) -> Path:
    """The net with 16-bit weights, inputs and outputs."""
    proto = onnx.load(write_net(path, opset=18))
    for tensor in proto.graph.initializer:
        tensor.CopyFrom(
            onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor).astype(np.float16), tensor.name)
        )
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    path.write_bytes(proto.SerializeToString())
    return path


def test_half_precision_has_its_own_tolerance(tmp_path: Path) -> None:
    report = slim_file(write_half(tmp_path / "in.onnx"), tmp_path / "out.onnx")
    assert report.dead == 3 and report.certificate.stages[0].rtol == 1e-2


@pytest.mark.parametrize("fault", ["carried to the wrong input", "not carried", "one bias off by one channel"])
def test_a_wrong_fold_is_noticed_in_half_precision_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """The wider tolerance of 16-bit weights is still far below what a wrong channel does."""
    carry, bias = fold.__globals__["_carry"], fold.__globals__["_add_to_conv"]
    given = write_half(tmp_path / "in.onnx")
    if fault == "carried to the wrong input":
        monkeypatch.setitem(fold.__globals__, "_carry", lambda *given: np.roll(carry(*given), 1, 1))
    elif fault == "not carried":
        monkeypatch.setitem(fold.__globals__, "_carry", lambda weight, *others: weight)
    else:
        proto = onnx.load(given)
        pads = next(a for n in proto.graph.node if n.output[0] == "d" for a in n.attribute if a.name == "pads")
        pads.ints[:] = [0, 0, 0, 0]  # then the constants go into the bias
        given.write_bytes(proto.SerializeToString())
        monkeypatch.setitem(
            fold.__globals__, "_add_to_conv", lambda model, node, added: bias(model, node, np.roll(added, 1))
        )
    with pytest.raises(CertificateError, match="differs"):
        slim_file(given, tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()


def test_fixed_sizes(tmp_path: Path) -> None:
    given = write_net(tmp_path / "in.onnx", n="1", h="20", w="24")
    assert slim_file(given, tmp_path / "out.onnx").certificate.stages[0].inputs == "random: 1, 1 x 3x20x24"


def test_a_live_net_is_copied_to_the_byte(tmp_path: Path) -> None:
    given, out = write_net(tmp_path / "in.onnx", opset=11, dead=False), tmp_path / "out.onnx"
    assert slim_file(given, out).dead == 0
    assert onnx.load(out) == onnx.load(given)


def test_slimming_twice_is_slimming_once(tmp_path: Path) -> None:
    slim_file(write_net(tmp_path / "in.onnx"), tmp_path / "a.onnx")
    assert slim_file(tmp_path / "a.onnx", tmp_path / "b.onnx").dead == 0
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_a_ratio_cuts_more_and_compact_equals_masked(tmp_path: Path) -> None:
    given, out = write_net(tmp_path / "in.onnx"), tmp_path / "out.onnx"
    report = slim_file(given, out, ratio=0.5)
    assert {c.layer: c.width_after for c in report.coverage} == {"stem": 5, "middle": 8, "point": 10, "head": 5}
    stages = [(s.name, s.reference) for s in report.certificate.stages]
    assert stages == [("without dead channels", "in.onnx as given"), ("written file", "masked net")]
    assert report.corrections == () and report.output_error == report.uncorrected_error
    assert report.output_error is not None and report.output_error > 0


def test_a_target_is_met(tmp_path: Path) -> None:
    report = slim_file(write_net(tmp_path / "in.onnx"), tmp_path / "out.onnx", target="macs=0.4x")
    assert report.before.macs is not None and report.after.macs is not None
    assert report.after.macs <= 0.4 * report.before.macs
    with pytest.raises(BudgetError):
        slim_file(tmp_path / "in.onnx", tmp_path / "no.onnx", target="macs=0.0001x")
    assert not (tmp_path / "no.onnx").exists()


def test_correction_brings_the_outputs_nearer_also_on_images_it_has_not_seen(tmp_path: Path) -> None:
    given = write_net(tmp_path / "in.onnx", dead=False)
    report = slim_file(given, tmp_path / "out.onnx", ratio=0.25, calibration=images())
    assert {c.layer for c in report.corrections} == {"middle", "point", "head"}
    for c in report.corrections:
        assert c.error_before is not None and c.error_after is not None and c.error_after < c.error_before
    assert report.output_error is not None and report.uncorrected_error is not None
    assert report.output_error < report.uncorrected_error
    assert [s.inputs.partition(":")[0] for s in report.certificate.stages] == ["random", "calibration"] * 2
    unseen = images(seed=11)
    slim_file(given, tmp_path / "plain.onnx", ratio=0.25)
    wanted = run(given, unseen)
    errors = [float(np.linalg.norm(run(tmp_path / f, unseen) - wanted)) for f in ("out.onnx", "plain.onnx")]
    assert errors[0] < errors[1]


def test_what_is_reported_on_decides_nothing(tmp_path: Path) -> None:
    """Every fifth input is kept aside: other numbers in it, and the same file is written with another error."""
    given, frames = write_net(tmp_path / "in.onnx", dead=False), images(10)
    first = slim_file(given, tmp_path / "first.onnx", ratio=0.25, calibration=frames)
    frames[3::5] = np.random.default_rng(5).standard_normal(frames[3::5].shape, np.float32)
    second = slim_file(given, tmp_path / "second.onnx", ratio=0.25, calibration=frames)
    assert (tmp_path / "first.onnx").read_bytes() == (tmp_path / "second.onnx").read_bytes()
    assert first.unseen_inputs == second.unseen_inputs == 2
    assert first.output_error != second.output_error
    assert all(a.error_after != b.error_after for a, b in zip(first.corrections, second.corrections))
    assert slim_file(given, tmp_path / "few.onnx", ratio=0.25, calibration=frames[:4]).unseen_inputs == 0


def test_the_summary_says_what_was_asked(tmp_path: Path) -> None:
    """Without a ratio no plan keeps layers whole; why dead channels stay is counted by kind, not by node."""
    given = write_net(tmp_path / "in.onnx", dead=False)
    assert "3 without dead channels" in edgeslim.slim_onnx(given, tmp_path / "a.onnx").summary
    dense = edgeslim.slim_onnx(given, tmp_path / "b.onnx", ratio=0.5, min_width=16).summary
    assert "without dead" not in dense and "kept whole by the plan" in dense
    dead = edgeslim.slim_onnx(write_net(given), tmp_path / "c.onnx")
    assert [layer.kind for layer in dead if layer.layer == "stem"] == [
        "carries the constants of dead channels into Conv"
    ]


def test_both_verbs_take_the_same(tmp_path: Path) -> None:
    short, whole = inspect.signature(edgeslim.slim_onnx), inspect.signature(slim_file)
    assert short.parameters == whole.parameters and edgeslim.slim_onnx.__name__ == "slim_onnx"


def test_patches_are_what_a_convolution_multiplies() -> None:
    text = """<ir_version: 8, opset_import: ["" : 18]>
    net (float[2, 3, 9, 11] x) => (float[2, 4, h, w] y)
    { y = Conv <pads = [1, 2, 0, 1], strides = [2, 1], dilations = [1, 2]> (x, k) }"""
    proto = onnx.parser.parse_model(text)
    rng = np.random.default_rng(0)
    kernel = rng.standard_normal((4, 3, 3, 2), np.float32)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(kernel, "k"))
    x = rng.standard_normal((2, 3, 9, 11), np.float32)
    (y,) = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, {"x": x})
    window = window_of(ir.from_proto(proto).graph.node(0))
    assert window is not None
    seen, said = patches(x, y, window, 200, rng)
    np.testing.assert_allclose(seen @ kernel.reshape(4, -1).T, said, rtol=1e-4, atol=1e-5)
    assert len(seen) < 200 and len(np.unique(said, axis=0)) == len(said)  # all positions, none of them twice


def test_a_wrong_fold_is_never_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = fold.__globals__["_carry"]
    monkeypatch.setitem(fold.__globals__, "_carry", lambda *arguments: np.roll(right(*arguments), 1, 0))
    (tmp_path / "out.onnx").write_bytes(b"what was there before")
    with pytest.raises(CertificateError, match=r"in.onnx as given"):
        slim_file(write_net(tmp_path / "in.onnx"), tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx").read_bytes() == b"what was there before"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.onnx", "out.onnx"]


def test_it_works_without_torch_and_scipy(tmp_path: Path) -> None:
    write_net(tmp_path / "in.onnx")
    np.savez(tmp_path / "frames.npz", image=images())
    code = """
import sys
for name in ("torch", "torchvision", "lightning_fabric", "safetensors", "kornia", "torchmetrics", "PIL", "scipy"):
    sys.modules[name] = None
import edgeslim
from edgeslim.trainer.calibration import read_calibration
print(edgeslim.slim_onnx("in.onnx", "a.onnx").summary)
print(edgeslim.slim_onnx("in.onnx", "b.onnx", ratio=0.3, calibration=read_calibration("frames.npz")).summary)
print(edgeslim.slim_onnx("in.onnx", "c.onnx", target="macs=0.6x").summary)
try:
    edgeslim.slim_onnx("in.onnx", "d.onnx", target="file=0.6x")
except edgeslim.errors.DeviceError as error:
    print(error.hint)
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("pruned 1 of 4 layers")
    assert done.stdout.endswith("pip install 'edgeslim[profile]'\n")


# --- what is refused -----------------------------------------------------------------------------------------------


def test_the_same_file_and_a_folder(tmp_path: Path) -> None:
    given = write_net(tmp_path / "in.onnx")
    (tmp_path / "link.onnx").symlink_to(given)
    for out in (given, tmp_path / "link.onnx", tmp_path):
        with pytest.raises(ConfigError):
            slim_file(given, out)


def test_a_net_that_does_not_run(tmp_path: Path) -> None:
    proto = onnx.load(write_net(tmp_path / "in.onnx"))
    proto.graph.initializer.remove(next(t for t in proto.graph.initializer if t.name == "middle"))
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((16, 11, 3, 3), np.float32), "middle"))
    (tmp_path / "in.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises((ExportError, UnsupportedGraphError)):
        slim_file(tmp_path / "in.onnx", tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()


@pytest.mark.parametrize(
    "options",
    [
        {"ratio": 0.5, "target": "macs=0.5x"},
        {"ratio": 1.5},
        {"ratio": 0.0},
        {"target": "latency=3"},
        {"ratio": 0.5, "width_multiple": 0},
        {"ratio": 0.5, "calibration": np.ones((4, 4, 24, 30), np.float32)},
        {"ratio": 0.5, "calibration": np.ones((0, 3, 24, 30), np.float32)},
        {"ratio": 0.5, "calibration": np.full((4, 3, 24, 30), np.nan, np.float32)},
        {"ratio": 0.5, "calibration": {"image": images(2), "other": images(2)}},
        {"ratio": 0.5, "calibration": {}},
    ],
)
def test_options_that_make_no_sense(tmp_path: Path, options: dict[str, object]) -> None:
    given = write_net(tmp_path / "in.onnx")
    with pytest.raises(ConfigError) as caught:
        slim_file(given, tmp_path / "out.onnx", **options)  # type: ignore[arg-type]
    assert caught.value.hint
    assert not (tmp_path / "out.onnx").exists()


def test_calibration_files(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "good.npz", image=images(2))
    assert read_calibration(tmp_path / "good.npz")["image"].shape == (2, 3, 24, 30)
    np.save(tmp_path / "pickled.npy", np.array([object()]), allow_pickle=True)
    (tmp_path / "text.npz").write_text("frames")
    whole = (tmp_path / "good.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "flipped.npz").write_bytes(whole[:300] + bytes([whole[300] ^ 255]) + whole[301:])
    for name in ("pickled.npy", "text.npz", "cut.npz", "flipped.npz", "absent.npz"):
        with pytest.raises(ConfigError, match="cannot be read"):
            read_calibration(tmp_path / name)


def test_no_piece_of_a_split_is_left_without_a_channel(tmp_path: Path) -> None:
    """Both channels of the first piece matter least: one of them is kept."""
    proto = onnx.parser.parse_model(
        """
        <ir_version: 8, opset_import: ["" : 18]>
        net (float[n, 3, 8, 8] image) => (float[n, 2, 8, 8] y)
        <int64[2] sizes = {2, 6}>
        {
          a = Conv (image, stem)
          p, q = Split <axis = 1> (a, sizes)
          m = MaxPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (p)
          e = Concat <axis = 1> (m, q)
          y = Conv (e, head)
        }
        """
    )
    rng = np.random.default_rng(0)
    for name, shape in {"stem": (8, 3, 1, 1), "head": (2, 8, 1, 1)}.items():
        weight = rng.standard_normal(shape).astype(np.float32)
        weight[:2] *= 1e-3 if name == "stem" else 1.0
        proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, name))
    onnx.save(proto, tmp_path / "in.onnx")
    report = edgeslim.slim_onnx(tmp_path / "in.onnx", tmp_path / "out.onnx", ratio=0.5)
    assert {layer.layer: layer.width_after for layer in report}["stem"] == 5
    (split,) = (node for node in onnx.load(tmp_path / "out.onnx").graph.node if node.op_type == "Split")
    assert (
        run(tmp_path / "out.onnx", np.zeros((1, 3, 8, 8), np.float32)).shape == (1, 2, 8, 8) and len(split.output) == 2
    )
