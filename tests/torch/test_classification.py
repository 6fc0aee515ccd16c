"""What classification trains on and is scored by: draws, augmentation, loss, metrics, and the whole as a task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torchmetrics.functional.classification import multiclass_accuracy

from edgeslim.errors import ConfigError, InvariantError
from edgeslim.progress import Silent
from edgeslim.trainer.classification_metrics import ClassificationMetrics
from edgeslim.trainer.data.augment import ImageAugment
from edgeslim.trainer.data.image_draws import ImageDraws
from edgeslim.trainer.data.labelled import ArrayImages, LabelledImages
from edgeslim.trainer.fit import fit
from edgeslim.trainer.losses import ClassificationLoss, distillation
from edgeslim.trainer.recipe import AugmentSection, FitSection
from edgeslim.trainer.recipe_file import parse_recipe
from edgeslim.trainer.workspace import Workspace, open_workspace

from .records import write_records


def images(count: int = 7, channels: int = 3) -> LabelledImages:
    """Image i: everything i + 1, its class i % 3; 10 x 12."""
    pixels = np.empty((count, 10, 12, channels), np.uint8)
    pixels[:] = np.arange(1, count + 1)[:, None, None, None]
    return LabelledImages(ArrayImages(pixels=pixels, prefix="x"), np.arange(count) % 3)


# --- draws and augmentation --------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
def test_draws_follow_seed_and_number(channels: int) -> None:
    draws = ImageDraws(images(channels=channels), (10, 12), padding=2, seed=5)
    whole = [draws[i] for i in range(21)]
    for image, label in whole:
        assert image.shape == (channels, 10, 12) and image.dtype == torch.uint8
        assert label.shape == () and label.dtype == torch.int64
        assert int(label) == (int(image.max()) - 1) % 3
    again = ImageDraws(images(channels=channels), (10, 12), padding=2, seed=5)
    for number in (17, 3, 20):
        assert all(torch.equal(a, b) for a, b in zip(again[number], whole[number]))
    for epoch in range(3):
        assert sorted(int(image.max()) for image, _ in whole[7 * epoch : 7 * epoch + 7]) == list(range(1, 8))
    with pytest.raises(IndexError, match="count from 0"):
        draws[-1]


def test_padding_shifts_by_at_most_so_many_pixels() -> None:
    draws = ImageDraws(images(), (10, 12), padding=3, seed=0)
    shifts = set()
    for number in range(200):
        inside = draws[number][0][0] > 0
        rows, columns = inside.any(1).nonzero().flatten(), inside.any(0).nonzero().flatten()
        assert (
            len(rows) >= 7 and len(columns) >= 9 and inside[rows[0] :, columns[0] :][: len(rows), : len(columns)].all()
        )
        shifts.add((10 - len(rows), 12 - len(columns)))
    assert {rows for rows, _ in shifts} == {columns for _, columns in shifts} == {0, 1, 2, 3}
    still = ImageDraws(images(), (10, 12), padding=0, seed=0)
    assert all((still[i][0] > 0).all() for i in range(20))


def test_crops_smaller_and_larger_than_the_image() -> None:
    assert (ImageDraws(images(), (4, 5), 0, 0)[3][0] > 0).all()
    large = ImageDraws(images(), (16, 16), 0, 0)[3][0]
    assert large.shape == (3, 16, 16) and int((large[0] > 0).sum()) == 120


@pytest.mark.parametrize("channels", [1, 3])
def test_augmentation_keeps_shape_and_follows_torch_seed(channels: int) -> None:
    batch = torch.rand(4, channels, 16, 16)
    step = ImageAugment(AugmentSection(rotate_degrees=20.0, scale=0.2, brightness=0.3, contrast=0.3))
    results = []
    for _ in range(2):
        torch.manual_seed(3)
        results.append(step(batch))
    assert results[0].shape == batch.shape and torch.equal(*results) and not torch.equal(results[0], batch)
    assert ImageAugment(AugmentSection(flip=False))(batch) is batch
    flipped = ImageAugment(AugmentSection())(batch)
    assert all(torch.equal(a, b) or torch.equal(a, b.flip(-1)) for a, b in zip(flipped, batch))


# --- loss and metrics --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_the_formula(smoothing: float) -> None:
    logits, target = torch.randn(5, 4), torch.tensor([0, 1, 2, 3, 1])
    wanted = (1 - smoothing) * F.one_hot(target, 4) + smoothing / 4
    expected = -(wanted * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(ClassificationLoss(2.0, 4, smoothing)(logits, target), 2 * expected)
    with pytest.raises(InvariantError, match="logits have shape"):
        ClassificationLoss(1.0, 3)(logits, target)


def test_distillation_of_images_is_the_formula() -> None:
    student, teacher = torch.randn(6, 5), torch.randn(6, 5)
    wanted, given_ = (teacher / 2).softmax(1), (student / 2).log_softmax(1)
    expected = 4 * (wanted * (wanted.log() - given_)).sum(1).mean()
    torch.testing.assert_close(distillation(student, teacher, 2.0), expected)
    torch.testing.assert_close(distillation(student, teacher, 2.0, torch.ones(6, dtype=torch.bool)), expected)
    assert float(distillation(student, student, 2.0)) == pytest.approx(0, abs=1e-6)


@settings(max_examples=30)
@given(st.integers(2, 14), st.integers(1, 40), st.integers(0, 2**31 - 1))
def test_metrics_agree_with_torchmetrics(classes: int, count: int, seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    logits, labels = torch.randn(count, classes, generator=rng), torch.randint(classes, (count,), generator=rng)
    metrics = ClassificationMetrics([str(i) for i in range(classes)])
    for start in range(0, count, 7):
        metrics.update(logits[start : start + 7], labels[start : start + 7])
    scores = metrics.compute()
    accuracy = multiclass_accuracy(logits, labels, num_classes=classes, average="micro")
    assert scores["accuracy"] == pytest.approx(float(accuracy))
    assert ("top5" in scores) == (classes > 10)
    if classes > 10:
        near = multiclass_accuracy(logits, labels, num_classes=classes, average="micro", top_k=5)
        assert scores["top5"] == pytest.approx(float(near))
    for label in range(classes):
        own = labels == label
        right = float((logits.argmax(1) == label)[own].float().mean()) if own.any() else None
        assert scores[f"accuracy_{label}"] == pytest.approx(right)


def test_a_net_that_says_nothing_is_wrong() -> None:
    for logits in (torch.zeros(4, 3), torch.full((4, 3), torch.nan)):
        metrics = ClassificationMetrics("abc")
        metrics.update(logits, torch.tensor([0, 1, 2, 0]))
        assert metrics.compute()["accuracy"] == 0
    assert set(ClassificationMetrics("abc").compute().values()) == {None}
    many = ClassificationMetrics([str(i) for i in range(101)])
    assert set(many.compute()) == {"accuracy", "top5"}
    with pytest.raises(InvariantError, match="logits have shape"):
        many.update(torch.zeros(2, 3), torch.tensor([0, 1]))


# --- the whole ---------------------------------------------------------------------------------------------------


def recipe(root: Path, **sections: Any) -> Any:
    return parse_recipe(
        {
            "name": "tiny",
            "model": {"name": "vgg16-bn", "args": {"width": 0.07}},
            "data": {"name": "cifar10", "root": str(root)},
            "augment": {"padding": 2},
            "train": {"steps": 30, "batch_size": 16, "evaluate_every": 10, "lr": 5e-3},
            "prune": {"budget": {"name": "ratio", "ratio": 0.5}},
            "finetune": {"fit": {"steps": 1}},
            **sections,
        }
    )


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_records(tmp_path_factory.mktemp("cifar"))


def opened(records: Path, directory: Path, **sections: Any) -> Workspace:
    return open_workspace(recipe(records, **sections), directory, Silent())


@pytest.mark.usefixtures("one_thread")
def test_a_net_learns_to_tell_classes(records: Path, tmp_path: Path) -> None:
    workspace = opened(records, tmp_path)
    assert workspace.kind.name == "classification" and workspace.frame_size == (32, 32)
    assert workspace.calibration(3).shape == (3, 3, 32, 32)
    section = workspace.recipe.train
    assert isinstance(section, FitSection)
    result = fit(workspace.fresh_module(), workspace.task, section, name="dense", seed=0)
    assert result.scores["accuracy"] > 0.5  # chance is 0.1


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({"model": {"name": "unet", "args": {"width": 4, "depth": 1}}}, r"wanted are logits \(2, 10\)"),
        ({"model": {"name": "lenet-5"}}, "forward fails on images of shape"),
        ({"model": {"name": "lenet-5", "args": {"side": 32}}, "export": {"size": [64, 64]}}, r"\(1, 3, 64, 64\)"),
        ({"augment": {"crop": [40, 40]}}, r"augment\.crop is 40 x 40; vgg16-bn needs sides divisible by 32"),
        ({"export": {"size": [33, 32]}}, r"export\.size is 33 x 32; sides must be divisible by 32"),
    ],
)
def test_nets_and_sizes_that_do_not_fit(records: Path, tmp_path: Path, sections: Any, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        opened(records, tmp_path, **sections)


def test_images_that_do_not_fit_the_net(tmp_path: Path, records: Path) -> None:
    from PIL import Image

    for name in ("a", "b"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for number in range(6):
            Image.new("RGB", (30, 30), (number, 0, 0)).save(tmp_path / "set" / name / f"{number}.png")
    data = {"name": "image-folder", "root": str(tmp_path / "set"), "size": [30, 30]}
    with pytest.raises(ConfigError, match="the images are 30 x 30; vgg16-bn needs sides divisible by 32") as caught:
        opened(records, tmp_path, data=data)
    assert "data.size" in caught.value.hint


def test_a_key_depends_on_pixels_labels_and_weights(records: Path, tmp_path: Path) -> None:
    first = opened(records, tmp_path)
    assert first.key("dense") == opened(records, tmp_path / "elsewhere").key("dense")
    weights = tmp_path / "w.pt"
    torch.save(first.module.state_dict(), weights)
    model = {"name": "vgg16-bn", "args": {"width": 0.07}, "weights": str(weights)}
    given_ = opened(records, tmp_path, model=model, train=None)
    weights.rename(tmp_path / "moved.pt")
    moved = opened(records, tmp_path, model={**model, "weights": str(tmp_path / "moved.pt")}, train=None)
    assert given_.key("dense") == moved.key("dense") != first.key("dense")
    other = write_records(tmp_path / "other", seed=1)
    changed = opened(other, tmp_path, data={"name": "cifar10", "root": str(other)})
    assert changed.data_digest != first.data_digest
    assert isinstance(given_.module, nn.Module)
