"""What is refused as calibration data, in words; what is fed, image by image, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeslim.errors import DataError
from edgeslim.exporter.precision import open_calibration
from edgeslim.exporter.precision.observe import observe

from .precise import frames, graph, residual

REFUSED: dict[str, tuple[Callable[[], NDArray[np.generic]], str]] = {
    "scaled floats": (lambda: frames().astype(np.float32) / 255, "divided by 255"),
    "raw floats": (lambda: frames().astype(np.float32), "dtype float32, the net takes uint8"),
    "planes first": (lambda: frames().transpose(0, 3, 1, 2), "shape"),
    "grey": (lambda: frames()[..., :1], "shape (6, 12, 16, 1)"),
    "one colour": (lambda: np.full((4, 12, 16, 3), 128, np.uint8), "constant"),
    "zeros and ones": (lambda: frames() // 128, "0 and 1 only"),
    "nothing": (lambda: frames()[:0], "shape"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_frame_is_refused(name: str) -> None:
    make, words = REFUSED[name]
    with pytest.raises(DataError) as caught:
        open_calibration(residual(), [make()])
    assert words in str(caught.value)


def test_float_inputs_that_are_not_finite_are_refused() -> None:
    model = graph('<ir_version: 10, opset_import: ["" : 20]> g (float[n, 4] x) => (float[n, 4] y) { y = Relu (x) }', {})
    images = np.ones((3, 4), np.float32)
    images[1, 2] = np.nan
    with pytest.raises(DataError, match="NaN"):
        open_calibration(model, [images])
    with pytest.raises(DataError, match="takes float32"):
        open_calibration(model, [np.ones((3, 4))])


def test_fewer_images_than_asked_for_are_an_error_and_more_are_left() -> None:
    with pytest.raises(DataError, match="there are 6 calibration images, 7 were asked for"):
        open_calibration(residual(), [frames(6)], images=7)
    with pytest.raises(DataError, match="there are 0"):
        open_calibration(residual(), [])
    assert open_calibration(residual(), [frames(3), frames(6)], images=5).images == 5


def test_batches_of_several_sizes_and_single_frames_are_fed_one_by_one() -> None:
    opened = open_calibration(residual(), [frames(2), frames(1, (8, 8))[0], frames(3, (20, 8))])
    assert [f["frame"].shape[:3] for f in opened.feeds] == [(1, 12, 16)] * 2 + [(1, 8, 8)] + [(1, 20, 8)] * 3


def test_a_fixed_batch_is_filled() -> None:
    text = '<ir_version: 10, opset_import: ["" : 20]> g (float[2, 4] x) => (float[2, 4] y) { y = Relu (x) }'
    opened = open_calibration(graph(text, {}), [np.arange(20, dtype=np.float32).reshape(5, 4)])
    assert opened.images == 4 and [f["x"].shape for f in opened.feeds] == [(2, 4)] * 2


def test_inputs_by_name_must_be_complete() -> None:
    with pytest.raises(DataError, match=r"has the inputs \['other'\], the net takes \['frame'\]"):
        open_calibration(residual(), [{"other": frames()}])


@pytest.mark.parametrize("limit", [1, 20_000, 1 << 30])
def test_observed_values_do_not_depend_on_how_many_are_held(limit: int) -> None:
    model = residual()
    opened = open_calibration(model, [frames(3)])
    seen: dict[str, list[float]] = {}
    for name, array in observe(model, ["c1", "r1", "y"], opened, limit):
        seen.setdefault(name, []).append(float(array.sum()))
    whole: dict[str, list[float]] = {}
    for name, array in observe(model, ["c1", "r1", "y"], opened):
        whole.setdefault(name, []).append(float(array.sum()))
    assert seen == whole and {n: len(v) for n, v in seen.items()} == {"c1": 3, "r1": 3, "y": 3}


def test_a_net_that_is_not_finite_itself_is_named() -> None:
    text = '<ir_version: 10, opset_import: ["" : 20]> g (float[n, 4] x) => (float[n, 4] y) { z = Log (x) y = Relu (z) }'
    model = graph(text, {})
    opened = open_calibration(model, [np.array([[1, 2, 3, 4], [1, 2, -3, 4]], np.float32)])
    with pytest.raises(DataError, match="value z is NaN or infinite on calibration image 1"):
        list(observe(model, ["z"], opened))


def test_a_size_that_the_net_does_not_take_is_told_by_its_number() -> None:
    text = """<ir_version: 10, opset_import: ["" : 20]>
    g (float[n, 1, h, w] x) => (float[n, 1, h, w] y) <int64[2] two = {2, 8}>
    { f = Reshape (x, two) y = Reshape (f, back) }
    """
    model = graph(text, {"back": np.array([1, 1, 4, 4])})
    opened = open_calibration(model, [np.eye(4, dtype=np.float32)[None, None], np.ones((1, 1, 3, 5), np.float32)])
    with pytest.raises(DataError, match="calibration image 1"):
        list(observe(model, ["f"], opened))
