"""What is left of a CIFAR-10 net right after half of its MACs are gone, by criterion, with recovery and without.

    python -m tests.benchmarks.recovery resnet20 PATH/TO/resnet20.th PATH/TO/cifar10 [criterion ...]

Nothing is trained. Calibration: the first 1,024 images of the training file. Accuracy: all 10,000 test images, which
nothing else looks at.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import edgeslim
from edgeslim.trainer.criteria import CRITERIA
from edgeslim.trainer.data.cifar10 import CLASSES, FOLDER, SIDE, read_records
from edgeslim.trainer.models.registry import build_model
from edgeslim.trainer.starting_weights import load_weights

IMAGES, BATCH = 1024, 64
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RECOVERIES: dict[str, Sequence[str]] = {
    "bare": (), "batch_norm": ("batch_norm",), "twins": ("twins",), "least_squares": ("least_squares",),
}  # fmt: skip


def main() -> None:
    """Print one row a criterion: accuracy in percent after each recovery, seconds of the last."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.recovery", description=__doc__)
    parser.add_argument("model")
    parser.add_argument("weights", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("criteria", nargs="*", default=list(CRITERIA))
    given = parser.parse_args()
    warnings.simplefilter("ignore")  # torch's exporter warns about itself
    net = build_model(given.model, {}, classes=len(CLASSES)).eval()
    load_weights(net, given.weights)
    folder = given.data / FOLDER if (given.data / FOLDER).is_dir() else given.data
    calibration, _ = _images(read_records(folder / "data_batch_1.bin")[:IMAGES])
    test = _images(read_records(folder / "test_batch.bin"))
    print(f"dense: {_accuracy(net, *test):.2f} %, {torch.get_num_threads()} threads\n")
    print(f"| criterion | {' | '.join(RECOVERIES)} | seconds |\n|---{'|---:' * (len(RECOVERIES) + 1)}|")
    for name in given.criteria:
        cells, seconds = [], 0.0
        for methods in RECOVERIES.values():
            started = time.perf_counter()
            pruned = edgeslim.prune(
                net, calibration[:2], target="macs=0.5x", criterion=name,
                calibration=calibration.split(BATCH), recovery=methods,
            )  # fmt: skip
            seconds = time.perf_counter() - started
            cells.append(f"{_accuracy(pruned.compact(), *test):.2f}")
        print(f"| {name} | {' | '.join(cells)} | {seconds:.0f} |", flush=True)


def _images(records: NDArray[np.uint8]) -> tuple[Tensor, Tensor]:
    planes = torch.from_numpy(records[:, 1:].reshape(-1, 3, SIDE, SIDE).copy()).float() / 255
    mean, std = (torch.tensor(v)[:, None, None] for v in (MEAN, STD))
    return (planes - mean) / std, torch.from_numpy(records[:, 0].astype(np.int64))


def _accuracy(net: nn.Module, images: Tensor, labels: Tensor) -> float:
    with torch.no_grad():
        found = torch.cat([net(batch).argmax(1) for batch in images.split(500)])
    return 100 * float((found == labels).float().mean())


if __name__ == "__main__":
    main()
