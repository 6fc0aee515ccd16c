"""A CIFAR-10 that a small net can learn: every class a colour of its own, under noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np

TRAIN, TEST = 200, 40


def write_records(root: Path, seed: int = 0) -> Path:
    """data_batch_1.bin and test_batch.bin in the true format."""
    root.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    colours = np.array([[c * 77 % 256, c * 131 % 256, c * 199 % 256] for c in range(10)])
    for name, count in (("data_batch_1", TRAIN), ("test_batch", TEST)):
        labels = np.arange(count) % 10
        pixels = np.clip(colours[labels][:, :, None] + rng.normal(0, 12, (count, 3, 1024)), 0, 255)
        records = np.concatenate([labels[:, None], pixels.reshape(count, -1)], axis=1).astype(np.uint8)
        (root / f"{name}.bin").write_bytes(records.tobytes())
    return root
