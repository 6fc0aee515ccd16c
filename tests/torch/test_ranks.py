"""Two processes compute what one does: each check runs in `ranks_worker`, under torchrun with gloo."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from edgeslim.exporter.plan import PruningPlan
from edgeslim.trainer.ranks import ALONE
from edgeslim.trainer.ranks.agree import check_same_plan, check_same_start, check_same_weights
from edgeslim.trainer.ranks.batch_norm import shared_statistics
from edgeslim.trainer.ranks.share import Draws, share_criterion, share_task
from edgeslim.trainer.workspace import Workspace

from .runs import recipe

ROOT = Path(__file__).parents[2]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each rank found."""
    out = tmp_path_factory.mktemp("ranks")
    done = subprocess.run(
        [*TORCHRUN, "-m", "tests.torch.ranks_worker", str(out)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads((out / f"{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.parametrize("rank", [0, 1])
def test_batch_norm_sees_the_whole_batch(found: list[dict[str, Any]], rank: int) -> None:
    seen = found[rank]["batch_norm"]
    for momentum in ("0.1", "None"):
        assert seen[momentum]["forward"] < 5e-6
        assert seen[momentum]["images"] < 1e-6
        assert seen[momentum]["weights"] < 1e-4
        assert seen[momentum]["running"] < 1e-6
    assert seen["eval"] == 0.0
    assert seen["bfloat16"] < 0.03 and seen["dtype"] == "torch.bfloat16"


@pytest.mark.parametrize("rank", [0, 1])
def test_losses_that_are_no_means_are_those_of_the_whole_batch(found: list[dict[str, Any]], rank: int) -> None:
    assert found[rank]["losses"]["value"] < 1e-6
    assert found[rank]["losses"]["gradient"] < 1e-7


@pytest.mark.parametrize("rank", [0, 1])
def test_augmentation_is_that_of_the_whole_batch(found: list[dict[str, Any]], rank: int) -> None:
    assert found[rank]["augment"] == {"worst": 0.0, "changed": True}


def test_each_rank_has_its_own_draws(found: list[dict[str, Any]]) -> None:
    first, second = (part["agreement"] for part in found)
    assert (first["draws"], second["draws"]) == ([4, 5, 8, 9], [6, 7, 10, 11])
    assert (first["own"], second["own"]) == ([0, 4], [4, 8])


@pytest.mark.parametrize("rank", [0, 1])
def test_what_ranks_tell_each_other(found: list[dict[str, Any]], rank: int) -> None:
    seen = found[rank]["agreement"]
    assert seen["from first"] == {"rank": 0, "array": [1.5]}
    assert seen["error of the first"] == "TrainingError: the disk is full"
    assert seen["mean"] == {"a": 0.5, "b": 2.0}
    assert seen["sums"] == [[[2.0], [2.0]], [1.0]]


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_differs_is_named_on_all(found: list[dict[str, Any]], rank: int) -> None:
    seen = found[rank]["agreement"]
    assert seen["same plan"] == seen["same weights"] == seen["same start"] == ""
    assert seen["other start"].startswith("ConfigError: rank 1 of 2 started with other images than rank 0 (SHA-256 by ")
    assert seen["other plan"].startswith("PlanError: rank 1 of 2 cut other channels than rank 0 (SHA-256 by rank 0: ")
    assert seen["other weights"].startswith("TrainingError: rank 1 of 2 trained other weights than rank 0 in dense")
    assert seen["digest"] is True


def test_scores_are_those_of_one_process_and_the_same_on_all_ranks(found: list[dict[str, Any]]) -> None:
    first, second = (part["criteria"] for part in found)
    assert {name for name, (same, _) in first.items() if not same} == set()
    assert first == second
    assert {"taylor", "ln_norm", "reconstruction", "one image"} < first.keys()


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_ranks_train_what_one_process_does_with_the_doubled_batch(
    found: list[dict[str, Any]], strategy: str
) -> None:
    first, second = (part["training"][strategy] for part in found)
    assert first["weights"] < 1e-5 < first["moved"]
    assert first["digest"] == second["digest"]
    assert first["saved"] is True and second["saved"] is None
    assert first["types"] == ["Parameter"], "the module comes back as it was"
    wanted = found[0]["training"]["wanted"]
    assert first["scores"] == second["scores"] == pytest.approx(wanted, abs=1e-3)


@pytest.mark.parametrize("rank", [0, 1])
def test_ranks_do_not_set_out_from_other_weights_or_recipes(found: list[dict[str, Any]], rank: int) -> None:
    seen = found[rank]["training"]
    assert seen["given"].startswith("TrainingError: rank 1 of 2 trained other weights than rank 0 in dense")
    assert seen["opened"].startswith("ConfigError: rank 1 of 2 started with other options in recipe or command than")


def test_validation_images_are_shared_out(found: list[dict[str, Any]]) -> None:
    for part in found:
        assert part["training"]["shared scores"] == part["training"]["wanted"]


def test_a_stage_goes_by_the_batch_of_all_ranks(found: list[dict[str, Any]]) -> None:
    for doubled, shared, alone in found[0]["training"]["keys"]:
        assert doubled == shared != alone


def test_one_process_is_left_as_it_is(workspace: Workspace) -> None:
    from edgeslim.trainer.criteria import CRITERIA
    from edgeslim.trainer.ranks.key import with_whole_batches

    rule, part = CRITERIA["taylor"](), torch.ones(2)
    assert share_task(workspace.task, ALONE) is workspace.task
    assert share_criterion(rule, ALONE) is rule
    assert ALONE.total(part) is part
    assert ALONE.gather("a") == ["a"] and ALONE.from_first(lambda: 3) == 3 and ALONE.mean({"a": 1.0}) == {"a": 1.0}
    assert with_whole_batches(recipe(), ALONE) == recipe()
    assert list(Draws(ALONE, 2, 4, 3)) == list(range(6, 12)) and len(Draws(ALONE, 2, 4, 3)) == 6
    module = workspace.fresh_module()
    with shared_statistics(ALONE):
        module(torch.rand(2, 3, 32, 32))
    check_same_weights(ALONE, "dense", module.state_dict())
    check_same_start(ALONE, {"options": ""})
    check_same_plan(ALONE, PruningPlan(families=(), initializers={}))
