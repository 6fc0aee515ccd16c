"""CIFAR-10 for nets that others trained: all training images there are to learn from, none set aside.

Nothing is chosen in these runs, so nothing needs images of its own to be chosen by: the weights of the last step are
the result. The test images are looked at by `accuracy` alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeslim.trainer.data.augment import ImageAugment
from edgeslim.trainer.data.cifar10 import CLASSES, FOLDER, SIDE, RecordImages, read_records
from edgeslim.trainer.data.image_draws import ImageDraws
from edgeslim.trainer.data.labelled import LabelledImages
from edgeslim.trainer.evaluate import ImageFormat, module_runner, normalized
from edgeslim.trainer.losses import ClassificationLoss
from edgeslim.trainer.models.registry import build_model
from edgeslim.trainer.recipe import AugmentSection
from edgeslim.trainer.starting_weights import load_weights
from edgeslim.trainer.task import NO_CLASS, Task

FORMAT = ImageFormat(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), multiple=1)
"""That of the given weights."""
WEIGHTS = {"resnet20": "resnet20-12fca82f.th", "resnet56": "resnet56-4bfd9763.th"}
BATCH = 250
"""Images that are scored at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cifar:
    """task: 10,000 training images in an order of the seed's own.  test: images that nothing but `accuracy` sees."""

    task: Task
    test: LabelledImages

    def calibration(self, count: int) -> list[tuple[Tensor, Tensor]]:
        """The first `count` draws in batches of 64: normalised images (N, 3, 32, 32), labels (N,)."""
        images, labels = zip(*(self.task.draws[i] for i in range(count)))
        whole = normalized(torch.stack(images).float() / 255, FORMAT)
        return list(zip(torch.split(whole, 64), torch.split(torch.stack(labels), 64)))

    def accuracy(self, net: nn.Module) -> float:
        """Percent of the test images."""
        return accuracy(net, self.test)


def open_cifar(data: Path, seed: int, tested: int | None = None, held: slice | None = None) -> Cifar:
    """The files below `data`/cifar10. tested: score that many test images, all where None.

    held: training images that are set aside and scored in place of the test images, to choose settings by.
    """
    root = data / "cifar10"
    root = root / FOLDER if (root / FOLDER).is_dir() else root
    train, test = _labelled(root / "data_batch_1.bin", "train"), _labelled(root / "test_batch.bin", "test")
    if held is not None:
        aside = np.arange(len(train))[held]
        train, test = train.select(np.setdiff1d(np.arange(len(train)), aside)), train.select(aside)
    augment = ImageAugment(AugmentSection(padding=4, flip=True))
    task = Task(
        draws=ImageDraws(train, (SIDE, SIDE), padding=4, seed=seed),
        prepare=lambda images, labels: (normalized(augment(images.float() / 255), FORMAT), labels),
        loss=ClassificationLoss(1.0, len(CLASSES)),
        evaluate=lambda module: {"accuracy": 0.0},  # the last weights are kept, whatever they are worth
        score="accuracy",
        ignore_index=NO_CLASS,
    )
    return Cifar(task=task, test=test[:tested])


def given_net(data: Path, model: str) -> nn.Module:
    """ResNet-20 or ResNet-56 as it was given, in eval mode."""
    net = build_model(model, {}, classes=len(CLASSES)).eval()
    load_weights(net, data / "weights" / "cifar10_resnet" / WEIGHTS[model])
    return net


def accuracy(net: nn.Module, images: LabelledImages) -> float:
    """Percent."""
    run, right = module_runner(net, FORMAT), 0
    for start in range(0, len(images), BATCH):
        part = images[start : start + BATCH]
        answers = run(np.stack([labelled.image for labelled in part])).argmax(axis=1)
        right += int((answers == part.labels).sum())
    return 100.0 * right / len(images)


def _labelled(path: Path, prefix: str) -> LabelledImages:
    records = read_records(path)
    labels: NDArray[np.uint8] = np.array(records[:, 0])
    return LabelledImages(RecordImages(files=(records,), starts=np.zeros(1, np.int64), prefix=prefix), labels)
