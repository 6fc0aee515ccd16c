"""A bundle says what is in it, and runs as the torch net does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from edgeslim.errors import (
    DataError,
    ExportError,
)
from edgeslim.exporter import Tolerance
from edgeslim.exporter.cost import count_macs, count_parameters
from edgeslim.exporter.export import compile_graph, normalize
from edgeslim.exporter.export import export as export_function
from edgeslim.exporter.passes.remove_channels import remove_channels
from edgeslim.exporter.plan import PruningPlan
from edgeslim.runtime import load, read_bundle
from edgeslim.trainer.pruned import PrunedModel

from .exports import FRAMES, MEAN, STD, answers, left_over, pruned


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pruned U-Net with everything that an export may be given; tests must not change it."""
    path = tmp_path_factory.mktemp("export") / "vessels.bundle"
    returned = export_function(
        pruned(),
        path,
        name="vessels",
        mean=MEAN,
        std=STD,
        size_multiple=2,
        size=(64, 96),
        frames=FRAMES,
        classes=("background", "vessel"),
        metrics={"dice": 0.75},
        provenance={"recipe": "0" * 64},
        files={"report.html": b"<p>fine</p>"},
    )
    assert returned == path
    return path


@pytest.mark.parametrize("size", [(48, 64), (32, 32), (16, 80)])
def test_a_bundle_answers_as_the_torch_net_does(bundle: Path, size: tuple[int, int]) -> None:
    net = pruned()
    frames = np.random.default_rng(3).integers(0, 256, (3, *size, 3), np.uint8)
    with load(bundle) as session:
        batch = next(iter(session.run_batch(frames).values()))
        for frame, together in zip(frames, batch):
            (seen,) = session.run(frame).values()
            (wanted,) = answers(net, frame, MEAN, STD)
            limit = 2e-5 * float(wanted.abs().max())
            np.testing.assert_allclose(seen, wanted, rtol=1e-4, atol=limit)
            np.testing.assert_allclose(together, seen, rtol=1e-4, atol=limit)


def test_the_certificate_names_every_form_and_input(bundle: Path) -> None:
    certificate = read_bundle(bundle).manifest.certificate
    assert certificate.passed
    names = [
        "compact torch",
        "compact torch",
        "compact ONNX",
        "compact ONNX",
        "simplified ONNX",
        "simplified ONNX",
        "shipped ONNX on frames",
    ]
    assert [s.name for s in certificate.stages] == names
    assert {s.reference for s in certificate.stages} == {"masked torch"}
    assert [s.inputs.partition(" ")[0].rstrip(":") for s in certificate.stages] == ["random", "real"] * 3 + ["real"]
    for stage in certificate.stages:
        assert stage.max_abs is not None and 0 <= stage.max_abs <= stage.atol + 1e-3
        assert stage.rtol == Tolerance().rtol


def test_the_manifest_says_what_was_shipped(bundle: Path) -> None:
    manifest, net = read_bundle(bundle).manifest, pruned()
    (entry,), (output,) = manifest.inputs, manifest.outputs
    assert (entry.dtype, entry.shape, entry.layout) == ("uint8", ("batch", "height", "width", 3), "NHWC")
    assert (output.dtype, output.layout) == ("float32", "NCHW")
    assert output.shape[:2] == ("batch", 2)
    assert (manifest.name, manifest.bench_size, manifest.classes) == ("vessels", (64, 96), ("background", "vessel"))
    assert (manifest.image.mean, manifest.image.std, manifest.image.size_multiple) == (MEAN, STD, 2)
    assert manifest.metrics == {"dice": 0.75}
    assert manifest.provenance["recipe"] == "0" * 64 and manifest.provenance["simplifier"] == "onnxsim"
    assert [(e.layer, e.width_before, e.width_after, e.reason) for e in manifest.coverage] == [
        (e.layer, e.width_before, e.width_after, e.reason) for e in net.coverage
    ]
    small = net.compact()
    assert manifest.sizes.parameters == sum(p.numel() for p in small.parameters())
    compact = remove_channels(net.graph, net.channels, net.cut)
    assert manifest.sizes.macs_shape == (1, 64, 96, 3)
    assert manifest.sizes.macs == count_macs(compact, (1, 3, 64, 96)) < 0.4 * count_macs(net.graph, (1, 3, 64, 96))
    assert manifest.sizes.weight_bytes is not None
    assert 0 < manifest.sizes.weight_bytes < len(read_bundle(bundle).model)


def test_the_plan_and_the_golden_vectors_travel_along(bundle: Path) -> None:
    shipped = read_bundle(bundle)
    assert sorted(shipped.files) == ["golden.npz", "model.onnx", "plan.json", "report.html"]
    assert PruningPlan.from_json(shipped.files["plan.json"]) == pruned().plan
    with load(bundle) as session:
        report = session.verify_golden()
    assert report.cases == 3 and report.max_abs == 0.0  # the third has the size of a benchmark
    for case in shipped.golden_cases():
        (frames,) = case.inputs.values()
        assert frames.dtype == np.uint8 and frames.shape[0] in (1, 2)


def test_the_model_is_plain_onnx_and_says_nothing_of_this_machine(bundle: Path, tmp_path: Path) -> None:
    unsimplified = export_function(pruned(), tmp_path / "plain.bundle", simplify_graph=False)
    for path in (bundle, unsimplified):
        data = read_bundle(path).model
        onnx.checker.check_model(onnx.load_from_string(data), full_check=True)
        for word in (b"site-packages", str(Path(__file__).parents[2]).encode(), b"torch/nn"):
            assert word not in data
    assert read_bundle(unsimplified).manifest.provenance["simplifier"] == "off"


def test_frames_of_any_size_serve_as_proof(tmp_path: Path) -> None:
    """Smaller than the net's input they are mirrored, larger ones are cropped; one is enough."""
    for number, shape in enumerate([(5, 7, 3), (200, 20, 3)]):
        frame = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        path = export_function(pruned(), tmp_path / f"{number}.bundle", frames=[frame])
        assert read_bundle(path).manifest.certificate.passed


def test_what_was_trained_compact_is_proven_too(tmp_path: Path) -> None:
    net = pruned()
    with torch.no_grad():
        for parameter in net.compact().parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    path = export_function(net, tmp_path / "net.bundle", mean=MEAN, std=STD)
    stages = [s.name for s in read_bundle(path).manifest.certificate.stages]
    assert stages[:2] == ["compact torch", "compact torch"]
    with load(path) as session, torch.no_grad():
        (seen,) = session.run(FRAMES[0]).values()
        wanted = net.compact().eval()(torch.from_numpy(normalize(FRAMES[0][None], MEAN, STD)))[0]
    np.testing.assert_allclose(seen, wanted, rtol=1e-4, atol=2e-5 * float(wanted.abs().max()))


def test_a_dense_net_is_exported_as_it_is(tmp_path: Path) -> None:
    net = pruned(cut=False)
    manifest = read_bundle(export_function(net, tmp_path / "dense.bundle")).manifest
    assert manifest.name == "dense"
    assert all(e.width_before == e.width_after for e in manifest.coverage)
    assert manifest.sizes.parameters == sum(p.numel() for p in net.module.parameters())


def test_several_outputs(tmp_path: Path) -> None:
    net = pruned("two outputs")
    path = export_function(net, tmp_path / "net.bundle")
    assert [o.layout for o in read_bundle(path).manifest.outputs] == ["NCHW", "NC"]
    with load(path) as session:
        seen = session.run(FRAMES[0])
    for a, b in zip(seen.values(), answers(net, FRAMES[0], (0.0,) * 3, (1.0,) * 3), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5 * float(b.abs().max()))


def test_a_net_of_one_size(tmp_path: Path) -> None:
    net = pruned("fixed size")
    path = export_function(net, tmp_path / "net.bundle", frames=FRAMES)
    manifest = read_bundle(path).manifest
    assert manifest.inputs[0].shape == ("batch", 16, 24, 3)
    assert manifest.bench_size == (16, 24)
    assert "16x24" in manifest.certificate.stages[0].inputs.replace(" ", "")
    with load(path) as session:
        (seen,) = session.run(FRAMES[0][:16, :24]).values()
        (wanted,) = answers(net, FRAMES[0][:16, :24], (0.0,) * 3, (1.0,) * 3)
        np.testing.assert_allclose(seen, wanted, rtol=1e-4, atol=2e-5 * float(wanted.abs().max()))
        with pytest.raises(DataError, match=r"32 rows \(height\) given, the net takes exactly 16"):
            session.run(FRAMES[0][:32, :24])
    with pytest.raises(ExportError):
        export_function(net, tmp_path / "other.bundle", size=(32, 32))
    assert left_over(tmp_path) == ["net.bundle"]


def test_a_net_on_grey_images(tmp_path: Path) -> None:
    net = pruned("grey")
    path = export_function(net, tmp_path / "net.bundle", mean=(0.25,), std=(0.5,))
    manifest = read_bundle(path).manifest
    assert (manifest.image.colour, manifest.image.mean, manifest.inputs[0].shape[3]) == ("grey", (0.25,), 1)
    frame = FRAMES[0][:, :, :1]
    with load(path) as session:
        session.verify_golden()
        (seen,) = session.run(frame).values()
        with pytest.raises(DataError, match=r"3 channels \(grey\) given, the net takes exactly 1"):
            session.run(FRAMES[0])
    (wanted,) = answers(net, frame, (0.25,), (0.5,))
    np.testing.assert_allclose(seen, wanted, rtol=1e-4, atol=2e-5 * float(wanted.abs().max()))


def test_a_net_on_five_channels_is_refused(tmp_path: Path) -> None:
    wide = PrunedModel.from_module(nn.Conv2d(5, 2, 1), torch.rand(1, 5, 16, 16))
    with pytest.raises(ExportError, match="a bundle holds nets on RGB images"):
        export_function(wide, tmp_path / "net.bundle", mean=(0.0,) * 3, std=(1.0,) * 3)
    assert left_over(tmp_path) == []


def test_a_task_is_stated_and_must_fit_the_output(tmp_path: Path) -> None:
    path = export_function(pruned(), tmp_path / "net.bundle", task="segmentation")
    assert read_bundle(path).manifest.task == "segmentation"


def test_all_forms_of_the_net_are_at_hand() -> None:
    net = pruned()
    compiled = compile_graph(net, MEAN, STD)
    assert compiled.simplifier == "onnxsim"
    operators = [[n.op_type for n in m.graph] for m in (compiled.compact, compiled.simplified, compiled.shipped)]
    assert "BatchNormalization" in operators[0] and "BatchNormalization" not in operators[1]
    assert operators[2][:4] == ["Cast", "Mul", "Add", "Transpose"]
    assert count_parameters(compiled.compact, net.channels.parameters) == sum(
        p.numel() for p in net.compact().parameters()
    )
    plain = compile_graph(net, MEAN, STD, simplify_graph=False)
    assert plain.simplifier == "off" and plain.simplified is plain.compact
