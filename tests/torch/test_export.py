"""Exporting: a bundle that runs as the torch net does, the same bytes every time, and none without its proof."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeslim.errors import (
    CertificateError,
    CheckpointError,
    ConfigError,
    DataError,
    ExportError,
)
from edgeslim.exporter import ChannelMap, Tolerance
from edgeslim.exporter import export as export_function
from edgeslim.exporter.bundle import amend_bundle
from edgeslim.exporter.cost import count_macs, count_parameters
from edgeslim.exporter.export import compile_graph, normalize
from edgeslim.exporter.passes.remove_channels import remove_channels
from edgeslim.exporter.passes.simplify import Simplified
from edgeslim.exporter.plan import PruningPlan
from edgeslim.runtime import load, read_bundle
from edgeslim.trainer.compress import export_net
from edgeslim.trainer.models.unet import UNet
from edgeslim.trainer.progress import Silent
from edgeslim.trainer.pruned import PrunedModel
from edgeslim.trainer.recipe_file import parse_recipe
from edgeslim.trainer.reexport import export_run
from edgeslim.trainer.stages import train_and_prune
from edgeslim.trainer.workspace import open_workspace

from . import nets

module_of_export = sys.modules["edgeslim.exporter.export"]
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
FRAMES = list(np.random.default_rng(0).integers(0, 256, (2, 48, 64, 3), np.uint8))


class TwoOutputs(nets.Plain):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        x = self.b(self.a(x))
        return self.head(x), x.mean((2, 3))


class Grey(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.head = nets.unit(1, 8), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.a(x))


BUILD: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "unet": (lambda: UNet(width=8, depth=1), (1, 3, 32, 32)),
    "fixed size": (nets.Flat, (1, 3, 16, 24)),
    "two outputs": (TwoOutputs, (1, 3, 16, 16)),
    "grey": (Grey, (1, 1, 16, 16)),
}


def built(name: str) -> nn.Module:
    torch.manual_seed(0)
    return nets.randomized(BUILD[name][0]())


@functools.cache
def analysed(name: str) -> PrunedModel:
    torch.manual_seed(0)
    return PrunedModel.from_module(built(name), torch.randn(BUILD[name][1]))


def pruned(name: str = "unet", cut: bool = True) -> PrunedModel:
    torch.manual_seed(0)
    net = PrunedModel(built(name), torch.randn(BUILD[name][1]), analysed(name).channels)
    if cut:
        net.apply_cut(u.label for f in net.channels.families for u in f.units[1::2])
        assert net.cut
    return net


def content(bundle: Path) -> dict[str, bytes]:
    return {str(f.relative_to(bundle)): f.read_bytes() for f in sorted(bundle.rglob("*")) if f.is_file()}


def left_over(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def answers(
    net: PrunedModel, frame: NDArray[np.uint8], mean: tuple[float, ...], std: tuple[float, ...]
) -> list[Tensor]:
    with torch.no_grad():
        outputs = net.module.eval()(torch.from_numpy(normalize(frame[None], mean, std)))
    return [o[0] for o in (outputs if isinstance(outputs, tuple) else (outputs,))]


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


# --- what is in a bundle ---------------------------------------------------------------------------------------


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
    assert report.cases == 2 and report.max_abs == 0.0
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
    assert [o.layout for o in read_bundle(path).manifest.outputs] == ["NCHW", ""]
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


def test_a_grey_net_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="a bundle holds nets on RGB images"):
        export_function(pruned("grey"), tmp_path / "net.bundle")
    assert left_over(tmp_path) == []


# --- the same bytes --------------------------------------------------------------------------------------------


def test_the_same_net_gives_the_same_bytes(tmp_path: Path) -> None:
    for simplify in (True, False):
        paths = [
            export_function(pruned(), tmp_path / f"{simplify}-{i}", name="net", frames=FRAMES, simplify_graph=simplify)
            for i in range(2)
        ]
        first, second = (content(path) for path in paths)
        assert first == second
        assert sorted(first) == ["golden.npz", "manifest.json", "model.onnx", "plan.json"]


FRESH = """
import hashlib, pathlib, sys
import torch
torch.set_num_threads(1)
import edgeslim
from edgeslim.trainer.models.unet import UNet
torch.manual_seed(0)
net = UNet(width=8, depth=2)
pruned = edgeslim.prune(net, torch.randn(1, 3, 32, 32), ratio=0.5)
edgeslim.export(pruned, "net.bundle")
for file in sorted(pathlib.Path("net.bundle").iterdir()):
    print(file.name, hashlib.sha256(file.read_bytes()).hexdigest())
"""


@pytest.mark.slow
def test_another_process_gives_the_same_bytes(tmp_path: Path) -> None:
    """With another seed of Python's string hashes: nothing may come in the order of a set."""
    seen = []
    for seed in ("1", "2"):
        (tmp_path / seed).mkdir()
        child = subprocess.run(
            [sys.executable, "-c", FRESH],
            cwd=tmp_path / seed,
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert child.returncode == 0, child.stderr
        seen.append(child.stdout)
    assert seen[0] == seen[1]
    assert len(seen[0].splitlines()) == 4


# --- archives and later additions ------------------------------------------------------------------------------


def test_an_archive_holds_the_same(tmp_path: Path) -> None:
    folder = export_function(pruned(), tmp_path / "net.bundle", name="net", frames=FRAMES)
    archive = export_function(pruned(), tmp_path / "net.zip", name="net", frames=FRAMES, archive=True)
    assert archive.is_file()
    assert read_bundle(archive).files == read_bundle(folder).files
    with load(archive) as session:
        assert session.verify_golden().max_abs == 0.0
        assert session.run(FRAMES[0]).keys() == {o.name for o in session.manifest.outputs}


@pytest.mark.parametrize("archive", [False, True])
def test_scores_and_a_report_are_added_later(tmp_path: Path, archive: bool) -> None:
    path = export_function(pruned(), tmp_path / "net", frames=FRAMES, metrics={"dice": 0.5}, archive=archive)
    before = read_bundle(path)
    assert amend_bundle(path, metrics={"iou": 0.25}, files={"report.html": b"<p>new</p>"}) == path
    after = read_bundle(path)
    assert after.manifest.metrics == {"iou": 0.25}
    assert after.files == {**before.files, "report.html": b"<p>new</p>"}
    for field in ("certificate", "coverage", "sizes", "golden", "provenance", "image", "inputs", "outputs", "name"):
        assert getattr(after.manifest, field) == getattr(before.manifest, field)
    amend_bundle(path, files={"report.html": b"<p>newer</p>"})
    assert read_bundle(path).manifest.metrics == {"iou": 0.25}
    assert read_bundle(path).files["report.html"] == b"<p>newer</p>"
    with pytest.raises(ExportError, match="is written here"):
        amend_bundle(path, files={"model.onnx": b""})
    assert read_bundle(path).files["report.html"] == b"<p>newer</p>"
    assert left_over(tmp_path) == ["net"]


# --- planted faults --------------------------------------------------------------------------------------------


def rolled(model: ir.Model, name: str = "head.weight") -> ir.Model:
    """One channel off: the weight's input axis turned by one."""
    value = model.graph.initializers[name]
    assert value.const_value is not None
    value.const_value = ir.tensor(np.roll(value.const_value.numpy(), 1, axis=1), name=name)
    return model


def faulty_removal(model: ir.Model, channels: ChannelMap, cut: Collection[int]) -> ir.Model:
    return rolled(remove_channels(model, channels, cut))


def doubled_scale(model: ir.Model, channels: ChannelMap, cut: Collection[int]) -> ir.Model:
    compact = remove_channels(model, channels, cut)
    value = compact.graph.initializers["stem.1.weight"]
    assert value.const_value is not None
    value.const_value = ir.tensor(2 * value.const_value.numpy(), name="stem.1.weight")
    return compact


def faulty_simplification(model: ir.Model) -> Simplified:
    return Simplified(model=rolled(model.clone()), tool="planted")


def shifted_colours(model: ir.Model, mean: tuple[float, ...], std: tuple[float, ...]) -> ir.Model:
    from edgeslim.exporter.passes.embed_preprocess import embed_preprocess

    return embed_preprocess(model, (*mean[1:], mean[0]), std)


FAULTS: dict[str, tuple[str, Callable[..., object], str]] = {
    "one channel off": ("remove_channels", faulty_removal, "compact ONNX differs from masked torch on random"),
    "batch norm doubled": ("remove_channels", doubled_scale, "compact ONNX differs from masked torch on random"),
    "simplification": ("simplify", faulty_simplification, "simplified ONNX differs from masked torch on random"),
    "preprocessing": ("embed_preprocess", shifted_colours, "shipped ONNX on frames differs from masked torch on r"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("archive", [False, True])
def test_a_planted_fault_writes_nothing(
    tmp_path: Path, fault: str, archive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, replacement, said = FAULTS[fault]
    good = export_function(pruned(), tmp_path / "net", mean=MEAN, std=STD, archive=archive)
    before = read_bundle(good)
    monkeypatch.setattr(module_of_export, stage, replacement)
    for name in ("net", "fresh"):
        with pytest.raises(CertificateError, match=said) as caught:
            export_function(pruned(), tmp_path / name, mean=MEAN, std=STD, archive=archive)
        assert caught.value.exit_code == 3 and "nothing was written" in caught.value.hint
    assert read_bundle(good) == before
    assert left_over(tmp_path) == ["net"]


def test_a_mask_that_was_not_held_fails_the_proof(tmp_path: Path) -> None:
    """The most likely mistake of a training loop: a cut channel that learnt again."""
    net = pruned()
    with torch.no_grad():
        axis = next(a for a in net.plan.initializers["stem.1.bias"] if a.masked)
        net.module.get_parameter("stem.1.bias")[axis.cut[0]] = 1.0
    learnt = {name: t.clone() for name, t in net.module.state_dict().items()}
    with pytest.raises(CertificateError, match=r"compact \w+ differs from masked torch"):
        export_function(net, tmp_path / "net.bundle")
    assert left_over(tmp_path) == []
    assert all(torch.equal(t, learnt[name]) for name, t in net.module.state_dict().items())  # nor was it repaired
    net.hold_masks()
    assert export_function(net, tmp_path / "net.bundle").is_dir()


def test_a_tolerance_of_ones_own(tmp_path: Path) -> None:
    with pytest.raises(CertificateError, match=r"allowed 0 \+ 0 \* \|reference\|"):
        export_function(pruned(), tmp_path / "net.bundle", tolerance=Tolerance(relative_atol=0.0, rtol=0.0))
    assert left_over(tmp_path) == []


def test_a_net_that_is_not_finite_is_not_shipped(tmp_path: Path) -> None:
    net = pruned()
    with torch.no_grad():
        net.module.get_parameter("head.bias")[0] = float("nan")
    with pytest.raises(CertificateError, match="masked torch itself gives values that are not finite") as caught:
        export_function(net, tmp_path / "net.bundle")
    assert "weights" in caught.value.hint
    assert left_over(tmp_path) == []


# --- in between ------------------------------------------------------------------------------------------------


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


# --- a run's checkpoints ---------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("net", ["HardCoded", "Plain"])
def test_a_finished_run_is_exported_again(tmp_path: Path, net: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trained compact or, where the class hard-codes its widths, masked: the checkpoint is all it takes."""
    shutil.copy(nets.__file__, tmp_path / "own_nets.py")
    monkeypatch.syspath_prepend(tmp_path)
    step = {"steps": 2, "batch_size": 2, "evaluate_every": 2}
    recipe = parse_recipe(
        {
            "name": "again",
            "model": {"name": f"own_nets:{net}"},
            "data": {"name": "vessels", "train": 4, "validation": 0.25, "test": 1, "size": [64, 64]},
            "augment": {"crop": [32, 32]},
            "train": step,
            "prune": {
                "criterion": {"name": "l1"},
                "budget": {"name": "ratio", "ratio": 0.5},
                "width_multiple": 1,
                "min_width": 1,
                "schedule": {"steps": 2, "between": step},
            },
            "finetune": {"fit": step},
        }
    )
    run, progress = tmp_path / "run", Silent()
    workspace = open_workspace(recipe, run, progress)
    trained = train_and_prune(workspace, progress)
    (run / "recipe.json").write_text(recipe.model_dump_json())
    masked = any("trains masked" in note for note in progress.notes)
    assert masked == (net == "HardCoded")
    first = export_net(workspace, trained.pruned, "compact", progress)
    again = export_run(run, tmp_path / "again.bundle", progress)
    assert content(again).keys() == content(first).keys()  # no report: none was written
    assert read_bundle(again).model == read_bundle(first).model
    assert read_bundle(again).manifest.provenance == read_bundle(first).manifest.provenance
    assert set(read_bundle(again).manifest.metrics) >= {"dice", "auc"}  # scored anew
    for place in (run / "mine.bundle", run / "dense.bundle", run / "stages" / "x"):
        with pytest.raises(ConfigError, match="lies inside the run"):
            export_run(run, place, progress)
    dense = read_bundle(export_run(run, tmp_path / "dense.bundle", progress, dense=True)).manifest
    assert dense.sizes.parameters > read_bundle(again).manifest.sizes.parameters
    table = json.loads((run / "recipe.json").read_text())
    table["prune"]["min_width"] = 2
    (run / "recipe.json").write_text(json.dumps(table))
    with pytest.raises(CheckpointError, match="belongs to another run"):
        export_run(run, tmp_path / "edited.bundle", progress)
    if net == "HardCoded":
        return
    source = (
        (tmp_path / "own_nets.py").read_text().replace("unit(3, 8)", "unit(3, 6)").replace("unit(8, 8)", "unit(6, 8)")
    )
    (tmp_path / "own_nets.py").write_text(source)
    monkeypatch.delitem(sys.modules, "own_nets")
    with pytest.raises(CheckpointError, match="does not fit this model"):
        export_run(run, tmp_path / "changed.bundle", progress, dense=True)
    assert not (tmp_path / "edited.bundle").exists() and not (tmp_path / "changed.bundle").exists()
