"""A planted fault writes nothing: no bundle without its proof."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch

from edgeslim.errors import (
    CertificateError,
)
from edgeslim.exporter import ChannelMap, Tolerance
from edgeslim.exporter.export import export as export_function
from edgeslim.exporter.passes.remove_channels import remove_channels
from edgeslim.exporter.passes.simplify import Simplified
from edgeslim.runtime import read_bundle

from .exports import MEAN, STD, left_over, pruned

module_of_export = sys.modules["edgeslim.exporter.export"]


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
