"""What a log shows of a training step."""

from __future__ import annotations

import pytest

from edgeslim.cli.screen import LogProgress


@pytest.mark.parametrize(
    ("scores", "shown"),
    [
        ({"dice": 0.5, "iou": 0.25}, "dice 0.5000"),
        ({"accuracy": 0.75, "accuracy_cat": 0.5}, "accuracy 0.7500"),
        ({}, ""),
    ],
)
def test_every_penalty_is_shown_beside_the_loss(
    scores: dict[str, float], shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with LogProgress() as progress:
        progress.stage("sparse", 10)
        progress.step(10, {"loss": 1.5, "l0": 2.5e-6, "l0#2": 0.125, "redundancy": 0.0, **scores})
    said = capsys.readouterr().err.splitlines()
    assert said == [
        "sparse: 10 steps",
        f"sparse 10/10  loss 1.5000  l0 2.5e-06  l0#2 0.125  redundancy 0  {shown}".rstrip(),
    ]
