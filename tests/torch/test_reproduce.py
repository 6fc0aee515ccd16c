"""The frame of the reproductions: what is recorded is not run again, and tables say what the records say."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from edgeslim.trainer.recipe import Recipe
from edgeslim.trainer.recipe_file import load_recipe

from ..reproduce import EXPERIMENTS, __main__
from ..reproduce.case import Case, Experiment, Place
from ..reproduce.mnist import MNIST
from ..reproduce.records import Record, Records
from ..reproduce.runs import RECIPES, recipe_case
from ..reproduce.tables import number, spread, table


def record(case: Case, seed: int = 0, **numbers: float) -> Record:
    named = {name.replace("__", "."): value for name, value in numbers.items()}
    return Record(case=case.name, digest=case.digest, seed=seed, numbers=named, seconds=1.0)


def counted(name: str, runs: list[int], setting: int = 0) -> Case:
    def run(seed: int, place: Place) -> dict[str, float]:
        runs.append(seed)
        return {"x": 10.0 * seed}

    return Case(name=name, settings={"setting": setting}, run=run)


# --- records -----------------------------------------------------------------------------------------------------


def test_what_was_recorded_is_read_back(tmp_path: Path) -> None:
    case = counted("a", [])
    path = tmp_path / "deep" / "records.jsonl"
    for seed in (1, 0):
        Records(path).add(record(case, seed, x=seed + 0.5))
    found = Records(path).find("a", case.digest)
    assert [(r.seed, r.numbers) for r in found] == [(0, {"x": 0.5}), (1, {"x": 1.5})]
    assert found[0].versions["torch"] and found[0].threads >= 1
    assert [set(json.loads(line)) for line in path.read_text().splitlines()] == 2 * [set(record(case).__slots__)]
    assert Records(path).find("a", case.digest, seed=2) == Records(path).find("b", case.digest) == []


def test_a_changed_setting_is_another_case() -> None:
    case = counted("a", [])
    assert case.digest == counted("a", [1]).digest != counted("a", [], setting=1).digest
    recipe = recipe_case("a", "l0-mnist-lenet-5")
    assert recipe.digest == recipe_case("b", "l0-mnist-lenet-5").digest
    assert recipe.digest != recipe_case("a", "l0-mnist-lenet-5", ["seed=1"]).digest
    assert recipe.digest != recipe_case("a", "l0-mnist-lenet-300-100").digest


def test_only_what_has_no_record_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs: list[int] = []
    setting = 0
    experiment = Experiment(
        name="counting",
        about="Counting",
        cases=lambda quick: [counted("a", runs, setting)],
        tables=lambda records, cases: table(records, cases, "case", [("x", number("x"), ".1f")]),
    )
    monkeypatch.setitem(EXPERIMENTS, "counting", experiment)
    monkeypatch.setattr("torch.set_num_threads", lambda count: None)

    def reproduce(*more: str) -> str:
        given = ["reproduce", "counting", "--data", str(tmp_path), "--out", str(tmp_path / "out"), *more]
        monkeypatch.setattr(sys, "argv", given)
        __main__.main()
        return capsys.readouterr().out

    assert "| a | 5.0 ± 7.1 | 2 |" in reproduce("--seeds", "2")
    assert runs == [0, 1]
    assert "| a | 10.0 ± 10.0 | 3 |" in reproduce()
    assert runs == [0, 1, 2]
    assert "| a | 10.0 ± 10.0 | 3 |" in reproduce("--tables")
    setting = 1
    assert "| a |" not in reproduce("--tables") and runs == [0, 1, 2]
    assert "| a | 0.0 | 1 |" in reproduce("--seeds", "1") and runs == [0, 1, 2, 0]
    reproduce("--only", "b", "--seeds", "2")
    assert runs == [0, 1, 2, 0]


def test_mean_and_spread() -> None:
    assert spread([1.0], ".2f") == spread([1.0, 1.0], ".2f") == "1.00"
    assert spread([1.0, 2.0, 3.0], ".2f") == "2.00 ± 1.00"  # the sample's deviation
    assert spread([1.0, 3.0], ".1f") == "2.0 ± 1.4"


_LATER = {"name": "", "sparsify": None, "weights": None, "prune": None, "finetune": None}
"""What comes after the dense net."""


# --- MNIST -------------------------------------------------------------------------------------------------------


def loaded(case: Case) -> Recipe:
    """What a case runs, with the folder that a user names."""
    texts = {path.read_text(encoding="utf-8"): path for path in RECIPES.glob("*.yaml")}
    overrides = [value.replace("{data}", "/data") for value in case.settings["overrides"]]
    return load_recipe(texts[case.settings["recipe"]], [*overrides, "seed=2"])


@pytest.mark.parametrize("quick", [False, True])
def test_the_cases_of_mnist_are_recipes_that_load(quick: bool) -> None:
    cases = MNIST.cases(quick)
    assert len({case.name for case in cases}) == len({case.digest for case in cases}) == len(cases)
    for case in cases:
        recipe = loaded(case)
        assert recipe.seed == 2 and recipe.data.root == Path("/data/mnist")


@pytest.mark.parametrize("title", ["LeNet-300-100, ", "LeNet-5, "])
def test_cases_of_one_net_start_from_one_dense_net(title: str) -> None:
    own = [case for case in MNIST.cases(False) if case.name.startswith(title) and not case.name.endswith("channels")]
    recipes = [loaded(case) for case in own]
    assert len(recipes) >= 4
    first = recipes[0]
    for recipe in recipes:
        assert recipe.model_copy(update=_LATER) == first.model_copy(update=_LATER)


def test_tables_of_mnist(tmp_path: Path) -> None:
    records, cases = Records(tmp_path / "r.jsonl"), MNIST.cases(False)
    numbers = {"dense__accuracy": 0.99, "compact__dense_weights": 430500.0, "compact__nonzero_weights": 1435.0}
    widths = {f"width__{name}__weight": width for name, width in (("conv1", 3.0), ("conv2", 12.0), ("fc1", 70.0))}
    for case in cases:
        for seed, accuracy in enumerate((0.991, 0.993)):
            records.add(record(case, seed, compact__accuracy=accuracy, **numbers, **widths))
    records.add(replace(record(cases[0], 2, compact__accuracy=0.1, **numbers, **widths), digest="older"))
    lines = MNIST.tables(records, cases).splitlines()
    assert "| LeNet-5, l0 | 0.80 ± 0.14 | 300.0 | 1,435 | 2 |" in lines
    assert "| LeNet-5, dense | 1.00 | 1 | 430,500 | 2 |" in lines
    assert "| LeNet-5, channels | 0.80 ± 0.14 | 3 | 12 | 192 | 70 | 2 |" in lines
    assert len([line for line in lines if line.startswith("| LeNet")]) == len(cases) + 2 + 3
