"""Cards of a classification: the truth and both answers, in words, with how they were chosen."""

from __future__ import annotations

import base64
import dataclasses
import io

import numpy as np
import pytest
from PIL import Image

from edgeslim.bench.report.answers import AnswerExample, Guess, sheet
from edgeslim.bench.report.comparison import findings, metric_name
from edgeslim.bench.report.html import ReportData, render

from .planted import Page

CLASSES = ("cat", "dog", "<eel>")


def answer(
    name: str = "test-00007", channels: int = 3, truth: int = 0, dense: int = 0, compact: int = 1
) -> AnswerExample:
    frame = np.random.default_rng(0).integers(0, 256, (6, 8, channels), np.uint8)
    return AnswerExample(
        name=name,
        frame=frame,
        truth=truth,
        dense=Guess(label=dense, probability=0.974),
        compact=Guess(label=compact, probability=0.506),
        looked_at=500,
        disagreements=12,
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_a_card_says_what_both_nets_say(channels: int) -> None:
    example = answer(channels=channels)
    shown = sheet([example], CLASSES)
    assert "different classes of 12 of the first 500 test images (2.4\u00a0%)" in shown.caption
    (card,) = shown.cards
    assert (card.truth, card.width, card.height) == ("cat", 8, 6)
    assert [(line.net, line.text, line.right) for line in card.lines] == [
        ("dense", "cat (97\u00a0%)", True),
        ("compact", "dog (51\u00a0%)", False),
    ]
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(card.uri.partition(",")[2]))).convert("RGB"))
    assert np.array_equal(pixels, np.broadcast_to(example.frame, (6, 8, 3)))


def test_the_page_has_cards_instead_of_masks(data: ReportData) -> None:
    examples = [answer(f"test-{i:05d}", truth=i % 3, compact=2) for i in range(20)]
    manifests = [dataclasses.replace(m, classes=CLASSES) for m in (data.dense, data.compact)]
    page = Page(render(dataclasses.replace(data, dense=manifests[0], compact=manifests[1], examples=examples)))
    assert page.count("img") == 12 and "Masks" not in page.text
    assert "test-00011" in page.text and "test-00012" not in page.text
    assert "compact: <eel> (51 %) ✗" in page.text.replace("\u00a0", " ")
    assert all(attrs["alt"] for tag, attrs in page.tags if tag == "img")
    assert [a["id"] for t, a in page.tags if t == "section" and a.get("id") == "pictures"] == ["pictures"]


def test_a_class_without_a_name_has_a_number() -> None:
    assert sheet([answer(truth=7)], CLASSES).cards[0].truth == "class 7"


def test_a_frame_that_is_none() -> None:
    with pytest.raises(ValueError, match="not uint8"):
        dataclasses.replace(answer(), frame=np.zeros((3, 4, 2), np.uint8))


def test_classes_that_fell_are_told_one_by_one_or_together(data: ReportData) -> None:
    def warnings(fallen: int) -> str:
        before = {"accuracy": 0.9} | {f"accuracy_{i}": 0.9 for i in range(6)}
        after = before | {f"accuracy_{i}": 0.8 - i / 100 for i in range(fallen)}
        dense, compact = (dataclasses.replace(m, metrics=v) for m, v in ((data.dense, before), (data.compact, after)))
        return "\n".join(findings(dense, compact, data.bench))

    assert "accuracy of 2 fell from 0.9000 to 0.7800, by 0.1200" in warnings(3)
    together = "accuracy of a class fell by more than 0.01 in 5 of 6 classes, the most in 4, from 0.9000 to 0.7600"
    assert warnings(5).count("fell") == 1 and together in warnings(5)


def test_names_of_metrics() -> None:
    assert [metric_name(n) for n in ("top5", "accuracy", "accuracy_dog")] == [
        "top-5 accuracy",
        "accuracy",
        "accuracy of dog",
    ]
