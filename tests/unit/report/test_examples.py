"""Pictures show where the nets disagree, pixel for pixel."""

from __future__ import annotations

import base64
import dataclasses
import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from edgeslim.bench.report import examples
from edgeslim.bench.report.html import Example

from .planted import example


def test_the_window_shows_where_the_nets_disagree() -> None:
    shape = (300, 400)
    blank = np.zeros(shape, np.uint8)
    compact = blank.copy()
    compact[250:260, 330:345] = 1
    frame = np.zeros((*shape, 3), np.uint8)
    whole = Example(name="x", frame=frame, mask=blank, dense=blank, compact=compact, ignore_index=255)
    part = examples.window(whole)
    assert part.mask.shape == (examples.WINDOW, examples.WINDOW) and part.frame.shape[:2] == part.mask.shape
    assert int(part.compact.sum()) == 150


def test_a_small_or_uniform_image_is_shown_whole() -> None:
    blank = np.zeros((5, 7), np.uint8)
    whole = Example(
        name="x", frame=np.zeros((5, 7, 3), np.uint8), mask=blank, dense=blank, compact=blank, ignore_index=-1
    )
    assert examples.window(whole).mask.shape == (5, 7)
    assert len(examples.gallery([whole], ()).strips) == 1


def test_differences_are_counted_on_labelled_pixels_only() -> None:
    mask = np.array([[1, 1, 0, 0, 255]], np.uint8)
    compact = np.array([[1, 0, 1, 0, 1]], np.uint8)
    frame = np.zeros((1, 5, 3), np.uint8)
    one = Example(name="x", frame=frame, mask=mask, dense=mask.clip(0, 1), compact=compact, ignore_index=255)
    found = {name: kind.astype(int).tolist()[0] for name, kind in examples.differences(one, True).items()}
    assert found == {
        "found (true positive)": [1, 0, 0, 0, 0],
        "false positive": [0, 0, 1, 0, 0],
        "false negative": [0, 1, 0, 0, 0],
    }
    caption = examples.gallery([one], ("background", "vessel")).strips[0].caption
    assert "in it 1 false positive, 1 false negative" in caption
    assert "Dice dense 1.0000, compact 0.5000; dense and compact disagree on 50.00" in caption


def test_more_classes_show_who_was_wrong() -> None:
    shown = examples.gallery([example(classes=5)], ("a", "b", "c", "d"))
    assert [key.text for key in shown.classes] == ["a", "b", "c", "d", "class 4", "not labelled, not counted"]
    assert [key.text for key in shown.differences][1:] == [
        "wrong only in compact",
        "wrong only in dense",
        "wrong in both",
    ]


@pytest.mark.parametrize("colours", [2, 5000])
def test_a_png_keeps_every_pixel(colours: int) -> None:
    flat = np.random.default_rng(0).integers(0, 1 << 24, colours)
    rgb: NDArray[np.uint8] = np.stack([flat >> 16 & 255, flat >> 8 & 255, flat & 255], axis=-1).astype(np.uint8)
    rgb = np.resize(rgb, (75, 80, 3))
    data = base64.b64decode(examples.png_uri(rgb).partition(",")[2])
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data)).convert("RGB")), rgb)


@pytest.mark.parametrize("field", ["frame", "mask", "dense", "compact"])
def test_an_example_that_does_not_fit_is_refused(field: str) -> None:
    good = example()
    with pytest.raises(ValueError, match="'test-00001'"):
        dataclasses.replace(good, **{field: getattr(good, field)[:-1]})
    with pytest.raises(ValueError, match="'test-00001'"):
        dataclasses.replace(good, **{field: getattr(good, field).astype(np.int64)})
