"""What a caller of `export` may give it, and what it makes of nets that are a little odd."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgeslim.errors import ExportError, UnsupportedGraphError
from edgeslim.exporter.export import export as export_function
from edgeslim.runtime import load, read_bundle
from edgeslim.trainer.pruned import PrunedModel

from . import nets
from .exports import built, content, left_over, pruned


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"mean": (0.5, 0.5)}, "give three numbers"),
        ({"mean": (0.5,)}, "give three numbers"),
        ({"mean": 0.5}, "give three numbers"),
        ({"std": (1.0, 0.0, 1.0)}, "it must be above 0"),
        ({"mean": (float("nan"), 0.0, 0.0)}, "give finite numbers, three numbers"),
        ({"size": (30, 32), "size_multiple": 4}, "frames of 30 x 32 do not fit size_multiple 4"),
        ({"size_multiple": 0}, "do not fit size_multiple 0"),
        ({"frames": [np.zeros((32, 32, 3), np.float32)]}, r"a frame of float32 \(32, 32, 3\)"),
        ({"frames": [np.zeros((32, 32), np.uint8)]}, r"a frame of uint8 \(32, 32\)"),
        ({"frames": ["a.png"]}, "a frame is a str"),
        ({"frames": [np.zeros((0, 0, 3), np.uint8)]}, r"a frame of uint8 \(0, 0, 3\)"),
        ({"metrics": {"dice": float("nan")}}, "metric dice is nan"),
        ({"metrics": {"dice": None}}, "metric dice is None"),
        ({"classes": "vessel"}, "classes is 'vessel'"),
        ({"provenance": {"run": 1}}, "provenance run is 1"),
        ({"files": {"a": b"", "a/b": b""}}, "a is a file and a folder"),
        ({"files": {"a": "text"}}, "a is a str"),
        ({"files": {"plan.json": b"{}"}}, "plan.json is written by export"),
        ({"files": {"golden.npz": b""}}, "golden.npz is written by export"),
        ({"files": {"../report.html": b""}}, "no plain path inside a bundle"),
    ],
)
def test_an_argument_that_is_wrong(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ExportError, match=said):
        export_function(pruned(), tmp_path / "net.bundle", **options)
    assert left_over(tmp_path) == []


def test_only_image_nets_are_shipped(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="was given a UNet") as caught:
        export_function(built("unet"), tmp_path / "net.bundle")  # type: ignore[arg-type]
    assert "prune()" in caught.value.hint
    line = nn.Sequential(nn.Conv1d(3, 8, 3), nn.ReLU(), nn.Conv1d(8, 2, 1))
    with pytest.raises(ExportError, match=r"was traced on \(1, 3, 64\)"):
        export_function(PrunedModel.from_module(line, torch.randn(1, 3, 64)), tmp_path / "net.bundle")
    assert left_over(tmp_path) == []


def test_an_archive_replaces_no_other_file(tmp_path: Path) -> None:
    thesis = tmp_path / "thesis.zip"
    with zipfile.ZipFile(thesis, "w") as archive:
        archive.writestr("chapter.txt", "precious")
    for place in (thesis, tmp_path / "notes.txt"):
        place.exists() or place.write_text("precious")
        before = place.read_bytes()
        with pytest.raises(ExportError, match="is a file that is no bundle"):
            export_function(pruned(), place, archive=True)
        assert place.read_bytes() == before
    (tmp_path / "empty").touch()
    for _ in range(2):
        assert read_bundle(export_function(pruned(), tmp_path / "empty", archive=True))


def test_only_the_batch_axis_is_taken_away(tmp_path: Path) -> None:
    """A forward that squeezes, and one that returns a kernel beside its answer."""

    class Odd(nets.Plain):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
            return super().forward(x).mean((2, 3)).squeeze(), self.a[0].weight

    net = PrunedModel.from_module(nets.randomized(Odd()), torch.randn(1, 3, 16, 16))
    with load(export_function(net, tmp_path / "net.bundle")) as session:
        logits, kernel = session.run(np.zeros((16, 16, 3), np.uint8)).values()
    assert logits.shape == (2,)
    assert kernel.shape == (8, 3, 3, 3)


def test_a_net_of_one_batch(tmp_path: Path) -> None:
    class Pair(nets.Plain):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).view(2, 2, 16, 16)

    manifest = read_bundle(
        export_function(PrunedModel.from_module(Pair(), torch.randn(2, 3, 16, 16)), tmp_path / "net.bundle")
    ).manifest
    assert manifest.inputs[0].shape == (2, 16, 16, 3) and manifest.sizes.macs_shape == (2, 16, 16, 3)


def test_single_numbers_may_be_parameters(tmp_path: Path) -> None:
    """A learnt temperature; a gate that starts at zero and does not stay there."""

    class Gated(nets.Plain):
        def __init__(self) -> None:
            super().__init__()
            self.temperature = nn.Parameter(torch.tensor(2.0))
            self.gate = nn.Parameter(torch.zeros(1, 1, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.sigmoid(self.b(self.a(x))) * self.gate) / self.temperature

    net = PrunedModel.from_module(nets.randomized(Gated()), torch.randn(1, 3, 16, 16))
    net.apply_cut(u.label for f in net.channels.families for u in f.units[1::2])
    small = net.compact()
    with torch.no_grad():
        small.get_parameter("gate").fill_(0.7)
    assert read_bundle(export_function(net, tmp_path / "net.bundle")).manifest.certificate.passed


def test_weights_that_are_float32_no_more(tmp_path: Path) -> None:
    for change in (lambda net: net.compact().half(), lambda net: net.module.half()):
        net = pruned()
        change(net)
        with pytest.raises(UnsupportedGraphError, match="is float16"):
            export_function(net, tmp_path / "net.bundle")
    assert left_over(tmp_path) == []


def test_a_bundle_is_not_put_into_another(tmp_path: Path) -> None:
    outer = export_function(pruned(), tmp_path / "net.bundle")
    before = content(outer)
    for archive in (False, True):
        with pytest.raises(ExportError, match="lies inside the bundle"):
            export_function(pruned(), outer / "engines" / "inner.bundle", archive=archive)
    assert content(outer) == before


def test_a_form_that_there_is_none_of_is_named(tmp_path: Path) -> None:
    net = PrunedModel.from_module(nets.randomized(nets.HardCoded()), torch.randn(1, 3, 16, 16))
    net.apply_cut(u.label for f in net.channels.families for u in f.units[1::2])
    certificate = read_bundle(export_function(net, tmp_path / "net.bundle")).manifest.certificate
    assert certificate.passed
    assert {stage.name for stage in certificate.stages} == {
        "compact ONNX",
        "simplified ONNX",
        "shipped ONNX on frames",
    }
    assert certificate.missing["compact torch"].startswith("HardCoded does not run with fewer channels")
