"""The experiments on CIFAR-10: cases that differ are told apart, and tables come from records alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.reproduce import EXPERIMENTS
from tests.reproduce.case import Case
from tests.reproduce.cifar_data import open_cifar
from tests.reproduce.one_cut import Cut, cut_case
from tests.reproduce.records import Record, Records


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("name", list(EXPERIMENTS))
def test_cases_are_told_apart(name: str, quick: bool) -> None:
    cases = EXPERIMENTS[name].cases(quick)
    assert len({case.name for case in cases}) == len({case.digest for case in cases}) == len(cases) > 0
    for case in cases:
        assert json.loads(json.dumps(case.settings)) is not None


def test_settings_of_training_count_only_where_something_is_trained() -> None:
    short = Cut.__dataclass_fields__["fit"].default.model_copy(update={"steps": 1})

    def digest(**settings: object) -> str:
        cut = Cut(criterion={"name": "l1"}, wish={"ratio": 0.5}, **settings)  # type: ignore[arg-type]
        return cut_case("a", cut).digest

    assert digest() != digest(fit=short)
    assert digest(trained=()) == digest(trained=(), fit=short)


@pytest.mark.parametrize("name", ["cifar", "depth-law"])
def test_tables_show_what_was_recorded_and_nothing_else(name: str, tmp_path: Path) -> None:
    experiment = EXPERIMENTS[name]
    records, first = Records(tmp_path / "records.jsonl"), experiment.cases(False)[0]
    for seed, value in enumerate((80.0, 82.0)):
        numbers = {n: value for n in ("cut", "cut, trained", "mended", "mended, trained")} | {"macs": 0.5}
        records.add(Record(case=first.name, digest=first.digest, seed=seed, numbers=numbers, seconds=1.0))
    other = Case(name=first.name, settings={}, run=first.run)
    records.add(Record(case=other.name, digest=other.digest, seed=0, numbers={"cut": 1.0}, seconds=1.0))
    found = experiment.tables(records, experiment.cases(False))
    assert "81.00 ± 1.41" in found and f"| {first.name} | 50.0" in found
    assert found.count(f"| {first.name} |") == 1


def test_a_seed_moves_the_calibration_images_and_training_never_sees_what_is_held(tmp_path: Path) -> None:
    folder = tmp_path / "cifar10"
    folder.mkdir()
    for name, count in (("data_batch_1", 20), ("test_batch", 10)):
        (folder / f"{name}.bin").write_bytes(b"".join(bytes([i % 10]) + bytes([10 * i]) * 3072 for i in range(count)))
    first, second = (open_cifar(tmp_path, seed).calibration(8)[0][0] for seed in (0, 1))
    assert first.shape == second.shape == (8, 3, 32, 32) and not first.equal(second)
    assert open_cifar(tmp_path, 0).calibration(8)[0][0].equal(first)
    held = open_cifar(tmp_path, 0, held=slice(15, None))
    assert [image.name for image in held.test] == [f"train-{i:05d}" for i in range(15, 20)]
    assert {int(held.task.draws[i][0].max()) // 10 for i in range(15)} == set(range(15))
    assert len(open_cifar(tmp_path, 0, tested=4).test) == 4
