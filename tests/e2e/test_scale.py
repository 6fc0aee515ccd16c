"""One recipe in two processes, under torchrun as a person would start it; and what becomes of it when one fails.

Faults are planted by a script that changes one rank's edgeslim and then is the command.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from edgeslim.trainer.checkpoint import load_checkpoint

from .tiny import command_line, write_recipe

pytestmark = pytest.mark.slow

TIMEOUT_S = 300
STAGES = ("dense", "sparse", "round-1", "final")
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
TWO = [*TORCHRUN, "--standalone", "--nproc-per-node", "2"]

PLANTED = """
import contextlib, os, signal, sys
from edgeslim.cli import main
from edgeslim.errors import TrainingError
import edgeslim.trainer.fit as fit
from edgeslim.trainer.schedules.scoring import Scoring

fault, at = os.environ["FAULT"], os.environ["AT"]
steps = 0

def die(optimizer, rate, set_rate=fit.set_rate):
    global steps
    steps += 1
    if steps == int(os.environ.get("STEP", "6")):
        os.kill(os.getpid(), signal.SIGKILL)
    set_rate(optimizer, rate)

def tampered(*given, scores=Scoring.scores):
    return scores(*given)[::-1].copy()

def full(*given, **named):
    raise TrainingError("checkpoint could not be written: No space left on device", "free some space")

if fault == "norms":
    fit.shared_statistics = lambda ranks: contextlib.nullcontext()
if os.environ["RANK"] == at:
    if fault == "die":
        fit.set_rate = die
    elif fault == "scores":
        Scoring.scores = tampered
    elif fault == "disk":
        fit.save_fit = full
main()
"""


def fit_section(batch: int, **more: object) -> dict[str, object]:
    # SGD: Adam divides by the size of gradients, and makes much of rounding where they are nearly 0.
    return {"steps": 4, "batch_size": batch, "evaluate_every": 2, "warmup_steps": 0, "optimizer": "sgd"} | more


def recipe_of(path: Path, batch: int, schedule: dict[str, object] | None = None) -> Path:
    """The tiny recipe with scores and recovery from enough images to be shared out, and some augmentation."""
    fit = fit_section(batch)
    return write_recipe(
        path,
        augment={"crop": [32, 32], "rotate_degrees": 10.0, "brightness": 0.2},
        train=fit_section(batch, steps=8),
        sparsify={"fit": fit},
        prune={
            "criterion": {"name": "ln_norm", "images": 20},
            "budget": {"name": "macs", "keep": 0.5},
            "width_multiple": 2,
            "min_width": 2,
            "schedule": schedule or {"rounds": 2, "between": fit},
        },
        finetune={"fit": fit},
    )


def run(command: Sequence[str | Path], **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [os.fspath(part) for part in command],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", **variables},
    )


def planted(folder: Path, fault: str, at: int, *arguments: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
    script = folder / "planted.py"
    script.write_text(PLANTED)
    return run([*TWO, script, *arguments, "--devices", "2"], FAULT=fault, AT=str(at), **more)


def own_traceback(stderr: str) -> bool:
    """torchrun shows one of its own when a process has failed; edgeslim must not."""
    return bool(re.search(r'File "[^"]*edgeslim|File "[^"]*/trainer/', stderr))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with run/, computed by two processes with batches of 2. Tests must not change it."""
    folder = tmp_path_factory.mktemp("pair")
    recipe = recipe_of(folder / "two.yaml", 2)
    done = run([*TWO, "-m", "edgeslim", "compress", recipe, "--out", folder / "run", "--devices", "2", "--json"])
    assert done.returncode == 0, done.stderr
    (folder / "stdout.json").write_text(done.stdout)
    return folder


def test_two_processes_compute_what_one_does_with_their_batches(pair: Path, tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path / "one.yaml", 4)
    alone = run(command_line(["compress", recipe, "--out", tmp_path / "run", "--json"]))
    assert alone.returncode == 0, alone.stderr
    for stage in STAGES:
        one, two = (load_checkpoint(place / "stages" / stage) for place in (tmp_path / "run", pair / "run"))
        assert (one.key, one.step, one.plan) == (two.key, two.step, two.plan)
        for name, tensor in one.model.items():
            torch.testing.assert_close(two.model[name], tensor, rtol=1e-3, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}")
    first, second = ((place / "recipe.json").read_text() for place in (tmp_path / "run", pair / "run"))
    assert first == second, "it says what one process would need"
    outcome: dict[str, Any] = json.loads((pair / "stdout.json").read_text())
    assert outcome["coverage"] == json.loads(alone.stdout)["coverage"]
    assert "2 processes (ddp): every batch is 2 times the recipe's" in outcome["notes"]
    assert "torchrun --standalone --nproc-per-node 2 -m edgeslim compress" in (pair / "run/report.html").read_text()


def test_two_processes_cut_alike_while_they_train(tmp_path: Path) -> None:
    """A gradual schedule: scores, cuts and mending within a training; one process goes on where a rank has died."""
    for name, batch in (("one", 4), ("two", 2)):
        recipe_of(tmp_path / f"{name}.yaml", batch, schedule={"name": "gradual", "cuts": 2, "end": 1.0})
    alone = run(command_line(["compress", tmp_path / "one.yaml", "--out", tmp_path / "one", "--json"]))
    assert alone.returncode == 0, alone.stderr
    command = [*TWO, "-m", "edgeslim", "compress", tmp_path / "two.yaml", "--out", tmp_path / "two", "--devices", "2"]
    # In the last step of the stage, when one cut has been made and the next one's candidates are chosen.
    compressed = ["compress", tmp_path / "two.yaml", "--out", tmp_path / "died"]
    assert planted(tmp_path, "die", 1, *compressed, STEP="12").returncode != 0
    later = run(command_line(["compress", tmp_path / "one.yaml", "--out", tmp_path / "died"]))
    assert later.returncode == 0 and "sparse: continued at step 2" in later.stderr, later.stderr
    pair = run([*command, "--json"])
    assert pair.returncode == 0, pair.stderr
    assert {"cut-1, mended", "cut-2, mended"} <= set(json.loads(pair.stdout)["stages"])
    for stage in ("sparse", "final"):
        one, *others = (load_checkpoint(tmp_path / name / "stages" / stage) for name in ("one", "two", "died"))
        for two in others:
            assert (one.key, one.step, one.plan) == (two.key, two.step, two.plan)
            for name, tensor in one.model.items():
                torch.testing.assert_close(
                    two.model[name], tensor, rtol=1e-3, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}"
                )
    again = run([*command, "--json"])
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["stages"] == json.loads(pair.stdout)["stages"]
    refused = run([*command, "--strategy", "fsdp", "--set", "sparsify.regularizers=[]"])
    assert refused.returncode != 0
    assert "error: --strategy fsdp: a gradual schedule writes into whole kernels" in refused.stderr


def test_what_two_have_trained_one_goes_on_with(run_of_pair: Path, tmp_path: Path) -> None:
    again = run(command_line(["train", recipe_of(tmp_path / "one.yaml", 4), "--out", run_of_pair]))
    assert again.returncode == 0, again.stderr
    assert "dense: reused the finished checkpoint" in again.stderr
    exported = run(command_line(["export", run_of_pair, tmp_path / "again.bundle"]))
    assert exported.returncode == 0, exported.stderr
    other = run(command_line(["train", recipe_of(tmp_path / "two.yaml", 2), "--out", run_of_pair]))
    assert other.returncode == 1 and "belongs to another run" in other.stderr


@pytest.fixture
def run_of_pair(pair: Path, tmp_path: Path) -> Path:
    """The run of two processes, for a test to change."""
    return Path(shutil.copytree(pair / "run", tmp_path / "run"))


def on_two_machines(folder: Path, *recipes: Path) -> tuple[list[int], list[str]]:
    """Train a recipe on each of two machines, both of them this one. Returns exit codes, and what they said."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    meeting = ["--nnodes", "2", "--master-addr", "127.0.0.1", "--master-port", str(port), "--nproc-per-node", "1"]
    started = []
    for node, recipe in enumerate(recipes):
        verb = ["-m", "edgeslim", "train", str(recipe), "--num-nodes", "2", "--out", str(folder / f"machine-{node}")]
        command = [*TORCHRUN, *meeting, "--node-rank", str(node), *verb]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
        started.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
    try:
        said = [process.communicate(timeout=TIMEOUT_S)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    return [process.returncode for process in started], said


def test_two_machines_need_no_folder_in_common(pair: Path, tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path / "two.yaml", 2)
    codes, said = on_two_machines(tmp_path, recipe, recipe)
    assert codes == [0, 0], "\n".join(said)
    assert not (tmp_path / "machine-1").exists()
    seen, wanted = (load_checkpoint(place / "stages/dense").model for place in (tmp_path / "machine-0", pair / "run"))
    assert all(torch.equal(seen[name], wanted[name]) for name in wanted)


def test_machines_with_other_recipes_do_not_wait_for_each_other(tmp_path: Path) -> None:
    """One would evaluate while the other takes a step, and each wait for a call that the other never makes."""
    recipe = recipe_of(tmp_path / "two.yaml", 2)
    other = write_recipe(tmp_path / "other.yaml", **{**yaml.safe_load(recipe.read_text()), "train": fit_section(2)})
    codes, said = on_two_machines(tmp_path, recipe, other)
    assert 0 not in codes
    for words in said:
        assert "error: rank 1 of 2 started with other options in recipe or command than rank 0" in words


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_dies_ends_the_others_and_the_run_goes_on_later(pair: Path, tmp_path: Path, rank: int) -> None:
    recipe = recipe_of(tmp_path / "two.yaml", 2)
    dead = planted(tmp_path, "die", rank, "train", recipe, "--out", tmp_path / "run")
    assert dead.returncode != 0
    assert f"rank {1 - rank} stops because another of the 2 processes has died" in dead.stderr
    assert f"the last good checkpoint is {tmp_path / 'run/stages/dense'}" in dead.stderr
    assert not own_traceback(dead.stderr), dead.stderr
    saved = load_checkpoint(tmp_path / "run/stages/dense")
    assert not saved.finished and saved.step == 4
    later = run([*TWO, "-m", "edgeslim", "train", recipe, "--out", tmp_path / "run", "--devices", "2"])
    assert later.returncode == 0, later.stderr
    assert "dense: continued at step 4" in later.stderr
    seen, wanted = (load_checkpoint(place / "stages/dense") for place in (tmp_path / "run", pair / "run"))
    assert seen.numbers == wanted.numbers
    assert all(torch.equal(seen.model[name], wanted.model[name]) for name in wanted.model)


def test_ranks_that_would_cut_other_channels_stop(run_of_pair: Path, tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path / "two.yaml", 2)
    done = planted(tmp_path, "scores", 1, "compress", recipe, "--out", run_of_pair)
    assert done.returncode != 0
    assert "error: rank 1 of 2 cut other channels than rank 0 (SHA-256 by rank 0: " in done.stderr
    assert not own_traceback(done.stderr), done.stderr


def test_batch_norms_that_are_not_shared_are_found_out(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path / "two.yaml", 2)
    done = planted(tmp_path, "norms", 0, "train", recipe, "--out", tmp_path / "run")
    assert done.returncode != 0
    assert "error: rank 1 of 2 trained other weights than rank 0 in dense" in done.stderr


def test_an_error_on_one_rank_is_told_on_the_other(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path / "two.yaml", 2)
    done = planted(tmp_path, "disk", 0, "train", recipe, "--out", tmp_path / "run")
    assert done.returncode != 0
    assert "error: checkpoint could not be written: No space left on device" in done.stderr
    assert "rank 1 stops because rank 0 has stopped: checkpoint could not be written" in done.stderr
    assert "the last good checkpoint is none that this machine has" in done.stderr
    assert not own_traceback(done.stderr), done.stderr


def test_shards_give_the_same_plan(pair: Path, tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path / "two.yaml", 2)
    command = [*TWO, "-m", "edgeslim", "train", recipe, "--out", tmp_path / "run", "--devices", "2"]
    done = run([*command, "--strategy", "fsdp"])
    assert done.returncode == 0, done.stderr
    seen, wanted = (load_checkpoint(place / "stages/dense") for place in (tmp_path / "run", pair / "run"))
    assert (seen.key, seen.step) == (wanted.key, wanted.step)
    for name, tensor in wanted.model.items():
        torch.testing.assert_close(seen.model[name], tensor, rtol=1e-3, atol=1e-4)
    command[command.index("train")] = "compress"
    refused = run([*command, "--strategy", "fsdp"])
    assert refused.returncode != 0
    assert "error: --strategy fsdp: sparsify (l0) penalises whole kernels" in refused.stderr


@pytest.mark.parametrize("verb", ["train", "compress"])
def test_processes_that_nobody_started(tmp_path: Path, verb: str) -> None:
    recipe = recipe_of(tmp_path / "two.yaml", 2)
    done = run(command_line([verb, recipe, "--out", tmp_path / "run", "--devices", "2"]))
    assert done.returncode == 1
    assert "error: --devices 2 --num-nodes 1 asks for 2 processes, and this is the only one" in done.stderr
    assert f"hint: start it as: torchrun --standalone --nproc-per-node 2 -m edgeslim {verb} " in done.stderr
    assert not (tmp_path / "run").exists()
