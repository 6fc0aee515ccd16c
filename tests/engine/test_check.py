"""What is run before it is kept: golden vectors, validation sets, and what cannot be run where it is built."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from edgeslim.errors import (
    CertificateError,
    DeviceError,
)
from edgeslim.exporter.engine import BuildOptions, parse_frames
from edgeslim.runtime import FrameRange, load
from edgeslim.runtime.engines import EngineStore, engines_folder
from edgeslim.runtime.validation import make_validation

from .bundles import FP16, write_tiny
from .conftest import BuildOnOrin, UseTensorRT
from .fake_tensorrt import Plan


def validated(path: Path, recorded: float) -> tuple[Path, Path]:
    """A bundle whose variant records an accuracy on a validation set, and the set: what the net itself answers."""
    frames = np.random.default_rng(3).integers(0, 256, (3, 16, 24, 3), np.uint8)
    with load(write_tiny(path / "plain.bundle"), backend="onnxruntime") as session:
        targets = session.run_batch(frames)["logits"].argmax(axis=1)
    data = make_validation(frames, targets, "here")
    variant = dataclasses.replace(
        FP16, settings={"validation": data.sha256}, metrics={"dice": recorded}, model_metrics={"dice": recorded}
    )
    np.savez(path / "validation.npz", frames=frames, targets=targets)
    return write_tiny(path / "scored.bundle", variant=variant), path / "validation.npz"


def test_an_engine_is_scored_on_the_validation_set(
    tmp_path: Path, use_tensorrt: UseTensorRT, build_on_orin: BuildOnOrin
) -> None:
    from edgeslim.runtime.validation import read_validation

    bundle, file = validated(tmp_path, recorded=1.0)
    use_tensorrt("103")
    record = build_on_orin(bundle, validation=read_validation(file)).stored.record
    assert record.validation["dice"] == 1.0 and record.validation["accuracy"] == 1.0
    fixed = BuildOptions(frames=parse_frames("2x16x24"))  # three images do not divide by its batch
    assert build_on_orin(bundle, fixed, validation=read_validation(file)).stored.record.validation["dice"] == 1.0
    other = make_validation(np.zeros((1, 16, 24, 3), np.uint8), np.zeros((1, 16, 24), np.int64), "here")
    notes = build_on_orin(bundle, validation=other).stored.record.notes
    assert any("records no score on this validation set" in note for note in notes)


def test_an_engine_that_scores_worse_is_not_kept(
    tmp_path: Path, use_tensorrt: UseTensorRT, build_on_orin: BuildOnOrin
) -> None:
    from edgeslim.runtime.validation import read_validation

    bundle, file = validated(tmp_path, recorded=1.1)
    use_tensorrt("103")
    with pytest.raises(CertificateError, match=r"dice 1\.0000 on 3 validation images, the bundle records 1\.1000"):
        build_on_orin(bundle, validation=read_validation(file))
    assert EngineStore(engines_folder(bundle)).engines() == ()
    assert build_on_orin(bundle, validation=read_validation(file), most_loss=0.2).stored.record.checked


# --- what cannot be run here ------------------------------------------------------------------------------------------


def test_an_engine_that_cannot_be_run_is_marked_and_checked_later(
    tiny: Path, use_tensorrt: UseTensorRT, build_on_orin: BuildOnOrin
) -> None:
    def no_gpu(engine: bytes) -> object:
        raise DeviceError("there is no usable GPU", "none")

    use_tensorrt("103")
    first = build_on_orin(tiny, open_engine=no_gpu)
    assert first.stored.record.unchecked == "there is no usable GPU" and not first.stored.record.checked
    later = build_on_orin(tiny)
    assert later.reused and later.stored.record.checked
    use_tensorrt("103", Plan(off_by=1.0))
    build_on_orin(tiny, BuildOptions(level=1), open_engine=no_gpu)
    with pytest.raises(CertificateError):
        build_on_orin(tiny, BuildOptions(level=1))


def test_golden_vectors_of_another_size_are_computed_anew(
    tmp_path: Path, use_tensorrt: UseTensorRT, build_on_orin: BuildOnOrin
) -> None:
    bundle = write_tiny(tmp_path / "a.bundle")
    use_tensorrt("103")
    record = build_on_orin(bundle, BuildOptions(frames=parse_frames("1x32x40"))).stored.record
    assert record.golden is not None and record.golden.cases == 1
    assert any("ONNX Runtime" in note and "computed another" in note for note in record.notes)


def test_a_range_that_nobody_asked_for_holds_a_golden_vector(
    tmp_path: Path, use_tensorrt: UseTensorRT, build_on_orin: BuildOnOrin
) -> None:
    use_tensorrt("103")
    own = FrameRange(minimum=(1, 8, 8), optimum=(1, 16, 16), maximum=(2, 32, 32))
    ranged = write_tiny(tmp_path / "a.bundle", frame_range=own)
    assert build_on_orin(ranged).stored.record.spec.frames == own
    small = write_tiny(tmp_path / "b.bundle", sizes=[(2, 8, 8)])
    assert str(build_on_orin(small).stored.record.spec.frames) == "1x8x8:1x16x24:2x16x24"
