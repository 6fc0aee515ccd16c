"""Images with their answers, to score a bundle where it runs: NumPy alone, so that a camera board can do it.

The file is an NPZ with `frames` (N, H, W, C) uint8 and `targets`: (N, H, W) class ids of pixels, 255 where there is no
answer, or (N,) class ids of images, of which every one has its answer. Scores are counted over all answers at once:

    accuracy = right / all     dice = 2 TP / (2 TP + FP + FN)     miou = mean over classes of TP / (TP + FP + FN)

With two classes dice is that of class 1, with more the mean over the classes that occur. They are the training's own
scores, to the last answer: an image whose class has a rival just as likely counts as wrong, which matters in int8,
where ties are frequent.
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

from .manifest import Manifest
from .npz import read_npz

UNLABELLED = 255
"""Of pixels. Images may well have 1,000 classes."""
_MOST_BYTES = 1 << 35
"""Validation sets are large: 1,000 frames in full HD are 8 GB with their masks."""
Run = Callable[[NDArray[np.uint8]], NDArray[np.generic]]
"""Frames (N, H, W, C) uint8 -> logits (N, classes, H, W) or (N, classes)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationSet:
    """frames: (N, H, W, C) uint8.  targets: (N, H, W) int64, `UNLABELLED` where there is none, or (N,) int64."""

    frames: NDArray[np.uint8]
    targets: NDArray[np.int64]
    sha256: str
    """Of frames and targets: two files of the same content are the same set."""

    def __len__(self) -> int:
        return len(self.frames)


def make_validation(frames: NDArray[np.generic], targets: NDArray[np.generic], where: str) -> ValidationSet:
    """Check that frames and targets fit together. Raises DataError naming `where`."""
    hint = "give frames (N, H, W, C) uint8 and targets (N, H, W) or (N,) of whole numbers"
    if frames.ndim != 4 or frames.dtype != np.uint8 or not frames.size:
        raise DataError(f"{where}: frames are {frames.dtype} {list(frames.shape)}", hint)
    if targets.dtype.kind not in "iu" or targets.shape not in (frames.shape[:1], frames.shape[:3]):
        raise DataError(
            f"{where}: targets are {targets.dtype} {list(targets.shape)} for frames {list(frames.shape)}", hint
        )
    answers = targets.astype(np.int64)
    digest = hashlib.sha256(repr((frames.shape, targets.shape)).encode())
    for array in (frames, answers):
        digest.update(np.ascontiguousarray(array).data)
    return ValidationSet(frames=frames.astype(np.uint8, copy=False), targets=answers, sha256=digest.hexdigest())


def check_validation(data: ValidationSet, manifest: Manifest, where: str) -> None:
    """Raise DataError where the net of `manifest` cannot be scored on a set: before anything is computed for it.

    where: the bundle, for the message.
    """
    entry, answer = manifest.inputs[0].shape, manifest.outputs[0].shape
    _, height, width, channels = data.frames.shape
    multiple = manifest.image.size_multiple
    fits = all(not isinstance(n, int) or n == seen for n, seen in zip(entry[1:], (height, width, channels)))
    if channels != manifest.image.channels or not fits or height % multiple or width % multiple:
        raise DataError(
            f"{where} takes frames {list(entry)}, sides in multiples of {multiple}; the validation set has "
            f"{list(data.frames.shape)}",
            "give frames as the camera delivers them to this net",
        )
    if len(answer) != data.targets.ndim + 1:
        raise DataError(
            f"{where} answers {list(answer)}; the validation set has targets {list(data.targets.shape)}",
            "give targets (N, H, W) to a net that segments, (N,) to one that classifies",
        )
    _check_classes(_answers(data), answer[1] if isinstance(answer[1], int) else None)


def _answers(data: ValidationSet) -> NDArray[np.int64]:
    """The targets that there are. Raises DataError where there is none."""
    answers = data.targets if data.targets.ndim == 1 else data.targets[data.targets != UNLABELLED]
    if not answers.size:
        raise DataError("the validation set has no answer to score by", "give targets that are not all unlabelled")
    return answers


def _check_classes(answers: NDArray[np.int64], classes: int | None) -> None:
    low, high = int(answers.min(initial=0)), int(answers.max(initial=0))
    if low < 0 or (classes is not None and high >= classes):
        wrong = low if low < 0 else high
        raise DataError(
            f"a target is class {wrong}, the net has {classes or 'only known ones'}", "classes count from 0"
        )


def read_validation(path: Path) -> ValidationSet:
    """Read the set from an NPZ file. Raises DataError for anything else."""
    arrays = read_npz(
        path,
        ("frames", "targets"),
        error=DataError,
        hint="write a validation set with numpy.savez(path, frames=, targets=)",
        most_bytes=_MOST_BYTES,
    )
    return make_validation(arrays["frames"], arrays["targets"], str(path))


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
        if logits.ndim < 2 or logits.shape[:1] + logits.shape[2:] != targets.shape:
            raise DataError(
                f"the net answers {list(logits.shape)} to targets {list(targets.shape)}",
                "give targets (N, H, W) to a net that segments, (N,) to one that classifies",
            )
        classes = logits.shape[1]
        if targets.ndim == 1:
            _check_classes(targets, classes)
            truth, found = targets, _likeliest(logits, targets)
        else:
            labelled = targets != UNLABELLED
            truth, found = targets[labelled], logits.argmax(axis=1)[labelled]
            _check_classes(truth, classes)
        counted = np.bincount(truth * classes + found, minlength=classes**2).reshape(classes, classes)
        counts = counted if counts is None else counts + counted
    return {} if counts is None else _scores(counts, segmentation=data.targets.ndim > 1)


def _likeliest(logits: NDArray[np.generic], truth: NDArray[np.int64]) -> NDArray[np.int64]:
    """The class of every image: (N, classes) -> (N,). Its own only if nothing is as likely, and not where it is nan."""
    values = logits.astype(np.float64)
    own = np.take_along_axis(values, truth[:, np.newaxis], axis=1)[:, 0]
    np.put_along_axis(values, truth[:, np.newaxis], -np.inf, axis=1)
    rival = values.argmax(axis=1)
    beaten = ~(own > np.take_along_axis(values, rival[:, np.newaxis], axis=1)[:, 0])
    return np.where(beaten, rival, truth).astype(np.int64)


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
        elif len(counts) == 2 and truth[1] + found[1]:
            scores["dice"] = float(2 * right[1] / (truth[1] + found[1]))
        scores["miou"] = float(miou.mean())
    return scores


def main_score(scores: Mapping[str, float]) -> str | None:
    """The name of the score that a net is judged by: dice of segmentation, accuracy of classification."""
    return next((name for name in ("dice", "accuracy") if name in scores), None)
