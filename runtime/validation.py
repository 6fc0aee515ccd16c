"""Images with their answers, to score a bundle where it runs: NumPy alone, so that a camera board can do it.

The file is an NPZ with `frames` (N, H, W, C) uint8 and `targets`: (N, H, W) class ids of pixels, 255 where there is no
answer, or (N,) class ids of images. Scores are counted over all answers of the set at once:

    accuracy = right / all     dice = 2 TP / (2 TP + FP + FN)     miou = mean over classes of TP / (TP + FP + FN)

With two classes dice is that of class 1, with more the mean over the classes that occur; they are the training's own.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeslim.errors import DataError

UNLABELLED = 255
Run = Callable[[NDArray[np.uint8]], NDArray[np.generic]]
"""Frames (N, H, W, C) uint8 -> logits (N, classes, H, W) or (N, classes)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationSet:
    """frames: (N, H, W, C) uint8.  targets: (N, H, W) or (N,) int64, `UNLABELLED` where there is none."""

    frames: NDArray[np.uint8]
    targets: NDArray[np.int64]
    sha256: str
    """Of frames and targets: two files of the same content are the same set."""

    def __len__(self) -> int:
        return len(self.frames)


def make_validation(frames: NDArray[np.uint8], targets: NDArray[np.integer], where: str) -> ValidationSet:
    """Check that frames and targets fit together. Raises DataError naming `where`."""
    hint = "give frames (N, H, W, C) uint8 and targets (N, H, W) or (N,) of whole numbers"
    if frames.ndim != 4 or frames.dtype != np.uint8 or not frames.size:
        raise DataError(f"{where}: frames are {frames.dtype} {list(frames.shape)}", hint)
    if targets.dtype.kind not in "iu" or targets.shape not in (frames.shape[:1], frames.shape[:3]):
        raise DataError(
            f"{where}: targets are {targets.dtype} {list(targets.shape)} for frames {list(frames.shape)}", hint
        )
    digest = hashlib.sha256(repr((frames.shape, targets.shape)).encode())
    digest.update(np.ascontiguousarray(frames).tobytes())
    digest.update(np.ascontiguousarray(targets.astype(np.int64)).tobytes())
    return ValidationSet(frames=frames, targets=targets.astype(np.int64), sha256=digest.hexdigest())


def read_validation(path: Path) -> ValidationSet:
    """Read the set from an NPZ file. Raises DataError for anything else."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            missing = {"frames", "targets"} - set(arrays.files)
            if missing:
                raise DataError(f"{path} has no {sorted(missing)[0]}", "write it with frames= and targets=")
            frames, targets = arrays["frames"], arrays["targets"]
    except DataError:
        raise
    except Exception as error:  # foreign bytes: what NumPy and zipfile raise on them is an open set
        raise DataError(
            f"{path} is no validation set: {error}", "write it with numpy.savez(frames=, targets=)"
        ) from error
    return make_validation(frames, targets, str(path))


def validation_bytes(frames: NDArray[np.uint8], targets: NDArray[np.integer]) -> bytes:
    """The file of a validation set, compressed."""
    buffer = io.BytesIO()
    small = targets.astype(np.uint8) if not targets.size or 0 <= targets.min() <= targets.max() <= 255 else targets
    np.savez_compressed(buffer, frames=frames, targets=small)
    return buffer.getvalue()


def score(run: Run, data: ValidationSet, *, batch: int = 1) -> Mapping[str, float]:
    """Score what `run` answers, `batch` frames at a time.

    accuracy; of segmentation also dice and miou. What has nothing to be scored by is left out. Raises DataError where
    logits and targets do not fit together.
    """
    counts: NDArray[np.int64] | None = None
    for start in range(0, len(data), batch):
        logits = run(data.frames[start : start + batch])
        targets = data.targets[start : start + batch]
        if logits.shape[:1] + logits.shape[2:] != targets.shape:
            raise DataError(
                f"the net answers {list(logits.shape)} to targets {list(targets.shape)}",
                "give targets (N, H, W) to a net that segments, (N,) to one that classifies",
            )
        classes = logits.shape[1]
        labelled = targets != UNLABELLED
        truth, found = targets[labelled], logits.argmax(axis=1)[labelled]
        if truth.size and not 0 <= truth.min() <= truth.max() < classes:
            raise DataError(f"a target is class {int(truth.max())}, the net has {classes}", "classes count from 0")
        counted = np.bincount(truth * classes + found, minlength=classes**2).reshape(classes, classes)
        counts = counted if counts is None else counts + counted
    return {} if counts is None else _scores(counts, segmentation=data.targets.ndim > 1)


def _scores(counts: NDArray[np.int64], segmentation: bool) -> dict[str, float]:
    """counts: (truth, found)."""
    total, right = counts.sum(), counts.diagonal()
    if not total:
        return {}
    scores = {"accuracy": float(right.sum() / total)}
    if segmentation:
        truth, found = counts.sum(axis=1), counts.sum(axis=0)
        occurs = truth > 0
        dice = 2 * right[occurs] / (truth + found)[occurs]
        miou = right[occurs] / (truth + found - right)[occurs]
        if len(counts) > 2:
            scores["dice"] = float(dice.mean())
        elif truth[1] + found[1]:
            scores["dice"] = float(2 * right[1] / (truth[1] + found[1]))
        scores["miou"] = float(miou.mean())
    return scores


def main_score(scores: Mapping[str, float]) -> str | None:
    """The name of the score that a net is judged by: dice of segmentation, accuracy of classification."""
    return next((name for name in ("dice", "accuracy") if name in scores), None)
