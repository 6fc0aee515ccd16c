"""CIFAR-10 records: planes to pixels, any number of files and records, and files that are something else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeslim.errors import DataError
from edgeslim.trainer.data import ClassificationData, build_data, image_statistics
from edgeslim.trainer.data.cifar10 import CLASSES, RECORD
from edgeslim.trainer.recipe_data import Cifar10Data


def records(count: int, first: int = 0) -> NDArray[np.uint8]:
    """Record i: class i % 10; red is i, green the row, blue the column."""
    rows, columns = np.mgrid[:32, :32]
    return np.stack(
        [
            np.concatenate([[i % 10], np.full(1024, i), rows.ravel(), columns.ravel()]).astype(np.uint8)
            for i in range(first, first + count)
        ]
    )


def write_set(root: Path, *counts: int) -> Path:
    root.mkdir(exist_ok=True, parents=True)
    first = 0
    for number, count in enumerate(counts):
        (root / f"data_batch_{number + 1}.bin").write_bytes(records(count, first).tobytes())
        first += count
    (root / "test_batch.bin").write_bytes(records(10).tobytes())
    return root


def build(root: Path) -> ClassificationData:
    data = build_data(Cifar10Data(name="cifar10", root=root), seed=0)
    assert isinstance(data, ClassificationData)
    return data


@pytest.mark.parametrize("counts", [(40,), (30, 11), (1, 2, 37, 20)])
def test_records_of_all_files_are_one_set(tmp_path: Path, counts: tuple[int, ...]) -> None:
    data = build(write_set(tmp_path / "cifar-10-batches-bin", *counts).parent)
    assert len(data.train) + len(data.validation) == sum(counts) and len(data.test) == 10
    assert data.classes == CLASSES and (data.size, data.channels) == ((32, 32), 3)
    seen = set()
    for labelled in (*data.train, *data.validation):
        image = labelled.image
        assert image.shape == (32, 32, 3) and image.flags.c_contiguous
        assert labelled.label == image[0, 0, 0] % 10
        assert (image[..., 1] == np.arange(32)[:, None]).all() and (image[..., 2] == np.arange(32)).all()
        seen.add(int(image[0, 0, 0]))
    assert seen == set(range(sum(counts)))


def test_statistics(tmp_path: Path) -> None:
    data = build(write_set(tmp_path, 40))
    mean, std = image_statistics(data.train, 3)
    pixels = np.stack([x.image for x in data.train]) / 255
    np.testing.assert_allclose(mean, pixels.mean((0, 1, 2)), rtol=1e-9)
    np.testing.assert_allclose(std, pixels.std((0, 1, 2)), rtol=1e-6)


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    def refused(expected: str) -> None:
        with pytest.raises(DataError, match=expected):
            build(tmp_path)

    refused(r"has no data_batch_\*\.bin")
    (tmp_path / "data_batch_1.bin").write_bytes(b"")
    refused(r"data_batch_1\.bin has 0 bytes; allowed is a whole number of records of 3073")
    whole = records(40).tobytes()
    for data in (whole[:-1], b"\0" + whole):  # cut off; CIFAR-100's second label
        (tmp_path / "data_batch_1.bin").write_bytes(data)
        refused(rf"data_batch_1\.bin has {len(data)} bytes")
    (tmp_path / "data_batch_1.bin").write_bytes(whole)
    refused(r"test_batch\.bin cannot be read")
    (tmp_path / "test_batch.bin").write_bytes(whole[: 3 * RECORD] + b"\x17" + whole[3 * RECORD + 1 : 5 * RECORD])
    refused(r"test_batch\.bin: label 23 in record 3; allowed are 0 to 9")
    (tmp_path / "test_batch.bin").write_bytes(whole)
    (tmp_path / "data_batch_1.bin").write_bytes(records(9).tobytes())
    refused("no training image of 1 of 10 classes: truck")
    (tmp_path / "data_batch_1.bin").write_bytes(records(10).tobytes())
    refused("10 images, one of each class at most, are too few to hold out 0.2 for validation")


def test_the_real_set(shared_data: Path) -> None:
    data = build(shared_data / "cifar10")
    assert len(data.test) == 10_000
    assert np.bincount(data.test.labels).tolist() == [1000] * 10
    assert set(np.bincount(data.validation.labels)) == {round(0.2 * (len(data.train) + len(data.validation)) / 10)}
