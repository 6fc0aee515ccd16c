"""Weights from elsewhere: every form they come in, and every reason to refuse them."""

from __future__ import annotations

import difflib
import gzip
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from edgeslim.errors import CheckpointError
from edgeslim.exporter.plan import PruningPlan
from edgeslim.trainer.checkpoint import Checkpoint, save_checkpoint
from edgeslim.trainer.models import build_model
from edgeslim.trainer.starting_weights import load_weights


def net(seed: int = 0, classes: int = 3) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        OrderedDict(conv=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm2d(4), head=nn.Conv2d(4, classes, 1)),
    )


def equal(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values()))


def prefixed(state: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {prefix + name: tensor for name, tensor in state.items()}


def test_every_form(tmp_path: Path) -> None:
    source = net(1)
    state = dict(source.state_dict())
    save_file(state, tmp_path / "net.safetensors")
    save_file(prefixed(state, "module."), tmp_path / "module.safetensors")
    save_checkpoint(tmp_path / "run", Checkpoint(key="k", step=3, finished=True, parts={"model": state}))
    torch.save(state, tmp_path / "plain.pt")
    torch.save({"state_dict": prefixed(state, "module."), "epoch": 3, "best": 0.5}, tmp_path / "wrapped.th")
    torch.save({"model": {"state_dict": prefixed(state, "module.net.")}}, tmp_path / "deep.pth")
    torch.save({"model_state_dict": state}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    digests = set()
    for path in sorted(tmp_path.iterdir()):
        target = net(2)
        digests.add(load_weights(target, path))
        assert equal(target, source), path
    assert len(digests) == 1  # the weights, and not the file, are what a run depends on


def test_a_prefix_that_the_net_has_is_put_on(tmp_path: Path) -> None:
    source, target = net(1), nn.ModuleDict({"inner": net(2)})
    torch.save(source.state_dict(), tmp_path / "net.pt")
    load_weights(target, tmp_path / "net.pt")
    assert equal(target, source)


def test_the_counter_of_batch_norm_may_be_missing_and_half_precision_is_widened(tmp_path: Path) -> None:
    source = net(1)
    state = {n: t.half() for n, t in source.state_dict().items() if "num_batches" not in n}
    torch.save(state, tmp_path / "net.pt")
    target = net(2)
    load_weights(target, tmp_path / "net.pt")
    assert target.conv.weight.dtype == torch.float32
    assert torch.equal(target.conv.weight, source.conv.weight.half().float())


def refused(path: Path, target: nn.Module | None = None) -> str:
    module = target or net()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        load_weights(module, path)
    assert all(torch.equal(t, before[n]) for n, t in module.state_dict().items()), "changed in spite of the refusal"
    assert str(path) in caught.value.message and caught.value.hint
    return caught.value.message


def test_names_that_differ_are_told_with_the_nearest(tmp_path: Path) -> None:
    state = dict(net().state_dict())
    state["convv.weight"] = state.pop("conv.weight")
    torch.save(state, tmp_path / "net.pt")
    message = refused(tmp_path / "net.pt")
    assert "do not fit Sequential: 1 missing: conv.weight (nearest: convv.weight)" in message
    assert "1 unexpected: convv.weight (nearest: conv.weight)" in message


def test_shapes_that_differ_are_told(tmp_path: Path) -> None:
    torch.save(net(classes=5).state_dict(), tmp_path / "net.pt")
    message = refused(tmp_path / "net.pt")
    assert "2 of another shape: head.weight is 5x4x1x1, the net has 3x4x1x1, head.bias is 5, the net has 3" in message


def test_long_lists_are_cut(tmp_path: Path) -> None:
    torch.save(net().state_dict(), tmp_path / "net.pt")
    message = refused(tmp_path / "net.pt", build_model("resnet20", {}, classes=3))
    assert "97 missing: " in message and " and 92 more" in message
    assert len(message) < 1500


def test_only_names_that_are_told_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(difflib, "get_close_matches", lambda name, others, **_: asked.append(name) or [])
    torch.save(net().state_dict(), tmp_path / "net.pt")
    refused(tmp_path / "net.pt", build_model("resnet20", {}, classes=3))
    assert len(asked) <= 10


class Opener:
    """What an attack looks like: unpickling it calls a function."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.path), "w")


def test_files_that_are_no_weights(tmp_path: Path) -> None:
    files = {
        "empty.pt": b"",
        "text.pt": b"weights, honestly",
        "cut.safetensors": b"\x40\x00\x00\x00\x00\x00\x00\x00{\"a\":",
        "packed.pt": gzip.compress(b"x"),
    }  # fmt: skip
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        refused(tmp_path / name)
    torch.save(net().state_dict(), tmp_path / "whole.pt")
    (tmp_path / "half.pt").write_bytes((tmp_path / "whole.pt").read_bytes()[:700])
    refused(tmp_path / "half.pt")
    (tmp_path / "folder").mkdir()
    for path, expected in ((tmp_path / "none.pt", "cannot be read"), (tmp_path / "folder", "holds no checkpoint")):
        assert expected in refused(path)
    for content in ({}, {"epoch": 3}, [1, 2], {"state_dict": {}}):
        torch.save(content, tmp_path / "none.pt")
        assert "hold no tensors" in refused(tmp_path / "none.pt")


def test_nothing_in_a_file_is_run(tmp_path: Path) -> None:
    attack = Opener(tmp_path / "opened")
    for content in (attack, {"state_dict": net().state_dict(), "args": attack}, net()):
        torch.save(content, tmp_path / "net.pt")
        said = refused(tmp_path / "net.pt")
        assert "hold more than tensors" in said
        assert "arbitrary code" not in said and "\x1b" not in said  # torch's own words, and its advice to run it
    assert "(torch.nn.modules.container.Sequential)" in said
    assert not attack.path.exists()


def test_numbers_that_are_not_finite(tmp_path: Path) -> None:
    state = net().state_dict()
    state["conv.bias"][1] = float("nan")
    torch.save(state, tmp_path / "net.pt")
    assert "conv.bias holds numbers that are not finite" in refused(tmp_path / "net.pt")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda w: (100 * w).to(torch.int8), r"conv.weight holds torch.int8; the net has torch.float32"),
        (lambda w: w.to(torch.complex64), "holds torch.complex64"),
        (lambda w: w.to_sparse(), "is stored as torch.sparse_coo"),
        (lambda w: w.to("meta"), "torch.float32 on meta"),
        (lambda w: w.double() + 1e300, "numbers that are not finite as torch.float32"),
    ],
)
def test_numbers_that_are_no_weights(tmp_path: Path, change: Callable[[Tensor], Tensor], said: str) -> None:
    state = dict(net().state_dict())
    state["conv.weight"] = change(state["conv.weight"])
    torch.save(state, tmp_path / "net.pt")
    assert said in refused(tmp_path / "net.pt")


def test_a_pruned_checkpoint_is_named_as_such(tmp_path: Path) -> None:
    plan = PruningPlan.from_json(_empty_plan())
    save_checkpoint(
        tmp_path / "run",
        Checkpoint(key="", step=0, finished=True, parts={"model": dict(net().state_dict())}, plan=plan),
    )
    assert "pruned net" in refused(tmp_path / "run")


def _empty_plan() -> str:
    from edgeslim.exporter.plan import plan_from_cut
    from edgeslim.trainer.pruned import PrunedModel

    return plan_from_cut(PrunedModel.from_module(net(), torch.rand(1, 3, 8, 8)).channels, ()).to_json()


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    ("name", "file", "right"),
    [("resnet20", "resnet20-12fca82f.th", 913), ("resnet56", "resnet56-4bfd9763.th", 923)],
)
def test_published_weights_classify(shared_data: Path, name: str, file: str, right: int) -> None:
    """The first 1,000 test images; of all 10,000 it is 91.73 and 93.39 %, the published figures."""
    weights = shared_data / "weights" / "cifar10_resnet" / file
    records = shared_data / "cifar10" / "cifar-10-batches-bin" / "test_batch.bin"
    if not weights.is_file() or not records.is_file():
        pytest.skip("weights or images are not there")
    model = build_model(name, {}, classes=10).eval()
    load_weights(model, weights)
    raw = np.fromfile(records, np.uint8, 1000 * 3073).reshape(-1, 3073)
    images, labels = torch.from_numpy(raw[:, 1:].reshape(-1, 3, 32, 32)), torch.from_numpy(raw[:, 0].astype(np.int64))
    mean, std = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    found = 0
    with torch.no_grad():
        for batch, truth in zip(images.split(250), labels.split(250)):
            found += int((model((batch.float() / 255 - mean) / std).argmax(1) == truth).sum())
    assert abs(found - right) <= 1
