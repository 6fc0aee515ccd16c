"""Plans that a run wrote down: asked the same, the answer is the same, whatever the device is like by then."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from edgeslim.bench.profile import open_profile
from edgeslim.progress import Silent
from edgeslim.trainer.budget import WidthLimits
from edgeslim.trainer.budget.memo import FileMemo
from edgeslim.trainer.budget.reached import Reached

from .fake_device import FakeObserver, fingerprint, net, without_pauses
from .targets_on_paper import random_scores, target_of


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    without_pauses(monkeypatch)


def test_a_run_that_is_resumed_has_the_same_plan(tmp_path: Path) -> None:
    """Though its profile is lost and the device another day is another one: nothing is measured for a plan that is."""
    memo, plans = FileMemo(tmp_path / "plans.json"), []
    first = FakeObserver(noise=0.02, seed=1)
    for number, observer in enumerate((first, FakeObserver(noise=0.3, seed=9, block=8, settles=False))):
        with open_profile(tmp_path / f"{number}.sqlite") as profile:
            target = target_of(profile, "latency=0.5x", observer=observer, memo=memo)
            plans.append((target.select(target.channels, random_scores(target.channels)), target.reached))
    assert plans[0] == plans[1] and plans[0][1] is not None
    assert (observer.observed, observer.races) == (0, 0)
    cut, size = plans[0][0], plans[0][1].size
    assert memo.of_cut(cut, "latency=0.5x", size) == plans[0][1]
    assert memo.of_cut(frozenset({-1}), "latency=0.5x", size) is None
    assert memo.of_cut(cut, "latency=0.4x", size) is None and memo.of_cut(cut, "latency=0.5x", (8, 8)) is None
    further = memo.of_cut(cut | {-1}, "latency=0.5x", size)  # dead filters, for one, leave later
    assert further is not None and further.narrowed and "more was cut since" in str(further)
    assert further.origin["device_profile"] == plans[0][1].device_digest


def test_a_plan_is_another_of_another_input_or_other_widths(tmp_path: Path) -> None:
    for number, change in enumerate(
        (
            {},
            {"min_share": 0.5},
            {"takes_frames": False},
            {"widths": WidthLimits(multiple=2, minimum=1)},
            {"widths": WidthLimits(multiple=1, minimum=9)},
            {"text": "macs=0.5x,file=1GB"},
        )
    ):
        made = target_of(None, "macs=0.5x,file=2GB", memo=FileMemo(tmp_path / "plans.json"))
        target = replace(made, **change)  # type: ignore[arg-type]
        target.select(target.channels, random_scores(target.channels))
        assert len(json.loads((tmp_path / "plans.json").read_text())["plans"]) == number + 1


def test_a_plan_of_units_that_are_not_there_is_made_anew(tmp_path: Path) -> None:
    """Planted: a damaged file, of which the key is right."""
    memo, profile = FileMemo(tmp_path / "plans.json"), open_profile(tmp_path / "profile.sqlite")
    target = target_of(profile, "latency=0.5x", memo=memo)
    scores = random_scores(target.channels)
    cut = target.select(target.channels, scores)
    text = (tmp_path / "plans.json").read_text()
    (tmp_path / "plans.json").write_text(text.replace(f"{max(cut)}", "999999"))
    assert "999999" in (tmp_path / "plans.json").read_text()
    assert target_of(profile, "latency=0.5x", memo=memo).select(target.channels, scores) == cut


@pytest.mark.slow
def test_other_questions_have_other_answers(tmp_path: Path) -> None:
    memo = FileMemo(tmp_path / "plans.json")
    asked = 0
    with open_profile(tmp_path / "p.sqlite") as profile:
        for options in ({}, {"part": 0.5}, {"min_share": 0.5}, {"foreign": True}, {"channels": net("chain")},
                        {"observer": FakeObserver(fingerprint=fingerprint("9"))}):  # fmt: skip
            for text in ("latency=0.6x", "latency=0.7x"):
                target = target_of(profile, text, memo=memo, **options)  # type: ignore[arg-type]
                target.select(target.channels, random_scores(target.channels))
                asked += 1
                assert len(json.loads((tmp_path / "plans.json").read_text())["plans"]) == asked
        target = target_of(profile, "latency=0.6x", memo=memo)
        target.select(target.channels, random_scores(target.channels, seed=5))
        target.select(target.channels, random_scores(target.channels), share=0.5)
    assert len(json.loads((tmp_path / "plans.json").read_text())["plans"]) == asked + 1  # 0.5 is the level above


@pytest.mark.parametrize("text", ["", "{", '{"schema": 1, "plans": {"k": {"cut": ["a"], "reached": null}}}', "\0"])
def test_a_memory_that_cannot_be_read_is_as_good_as_none(tmp_path: Path, text: str) -> None:
    told = Silent()
    memo = FileMemo(tmp_path / "runs" / "plans.json", told)
    memo.path.parent.mkdir()
    memo.path.write_text(text)
    assert memo.recall("k") is None
    reached = Reached(target="latency=1x", device="", device_digest="", foreign=False)
    memo.keep("k", frozenset({3, 1}), reached)
    assert memo.recall("k") == (frozenset({1, 3}), reached)
    assert len(told.notes) == 2 and "cannot be read, so plans are made anew" in told.notes[0]  # asked, and kept


def test_of_the_same_cut_for_several_devices_the_last_counts(tmp_path: Path) -> None:
    """A run that goes back to the first device has that one's word again."""
    memo, cut = FileMemo(tmp_path / "plans.json"), frozenset({1, 2})
    there, here = (
        Reached(target="macs=1x", device=d, device_digest=d, foreign=d == "there") for d in ("there", "here")
    )
    memo.keep("a", cut, there)
    memo.keep("b", cut, here)
    assert memo.of_cut(cut, "macs=1x", None) == here
    memo.keep("a", cut, there)
    assert memo.of_cut(cut, "macs=1x", None) == there
