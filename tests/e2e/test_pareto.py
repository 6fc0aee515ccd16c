"""Several nets from one command: what it prints and writes, and what a killed one leaves for the next."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from edgeslim.bench.front import Front
from edgeslim.runtime import read_bundle

from .tiny import FIT, Cli, call_edgeslim, command_line, write_recipe

POINTS = ("macs-0.7937", "macs-0.63", "macs-0.5")


@pytest.mark.slow
def test_a_killed_front_goes_on_and_prints_one_object(tmp_path: Path, cli: Cli) -> None:
    """SIGKILL when the first point is done, and the second under way."""
    recipe, run = write_recipe(tmp_path / "tiny.yaml"), tmp_path / "run"
    first, second = run / "front" / POINTS[0], run / "front" / POINTS[1]
    with subprocess.Popen(
        command_line(["compress", recipe, "--out", run, "--pareto", "3"]),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        deadline = time.monotonic() + 120.0
        while not (second / "stages").exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        process.kill()
    assert read_bundle(first / "compact.bundle").manifest.certificate.passed
    assert not (run / "front.json").exists()
    (second / ".recipe.json.draft").write_text("half")  # what a kill may leave behind
    (second / "stages" / ".final.draft").mkdir(parents=True, exist_ok=True)

    done = cli("compress", recipe, "--out", run, "--pareto", "3", "--json")
    assert done.returncode == 0, done.stderr
    front = Front.from_json(done.stdout)
    assert done.stdout == (run / "front.json").read_text()
    assert tuple(point.name for point in front.points) == POINTS
    for stage in ("dense", "sparse", f"1/3 {POINTS[0]}: round-1", f"1/3 {POINTS[0]}: final"):
        assert f"{stage}: reused the finished checkpoint" in done.stderr
    assert f"3/3 {POINTS[2]}: final: 2 steps" in done.stderr
    assert not [path for path in run.rglob(".*") if path.name != ".lock"], "a draft was left behind"
    for point in front.points:
        assert read_bundle(point.net.bundle).manifest.certificate.passed
        assert Path(str(point.report)).is_file()

    # A plain run of the same recipe in the same place has nothing left to train; and it is the last point's net.
    done = cli("compress", recipe, "--out", run)
    assert done.returncode == 0, done.stderr
    for stage in ("dense", "sparse", "round-1", "final"):
        assert f"{stage}: reused the finished checkpoint" in done.stderr
    plain, own = (read_bundle(place / "compact.bundle") for place in (run, run / "front" / POINTS[2]))
    assert plain.model == own.model
    assert (run / "front.json").exists()

    exported = cli("export", run / "front" / POINTS[1], tmp_path / "net.bundle", "--json")
    assert exported.returncode == 0, exported.stderr
    assert read_bundle(tmp_path / "net.bundle").model == read_bundle(second / "compact.bundle").model

    short = ("--set", "prune.schedule.rounds=1", "--set", "bench.seconds=0.2")
    done = cli("compress", recipe, "--out", run, "--pareto", "2", "--fresh", *short)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (run / "front").iterdir()} == {"macs-0.7071", "macs-0.5"}
    for words in (
        "pruned nets on the front",
        "macs-0.7071",
        "dense",
        f"bundle  {run / 'front/macs-0.5/compact.bundle'}",
    ):
        assert words in done.stdout


@pytest.mark.parametrize(
    ("arguments", "sections", "code", "said"),
    [
        (("--pareto", "1"), {}, 2, "--pareto"),
        (("--pareto", "many"), {}, 2, "--pareto"),
        (("--pareto", "2", "--devices", "2"), {}, 1, "--pareto trains in one process"),
        (("--pareto", "2", "--num-nodes", "3"), {}, 1, "ask for 3"),
        (
            ("--pareto", "2"),
            {"prune": None, "weights": {"fraction": 0.5, "finetune": FIT}},
            1,
            "a front is of one budget at several levels, and the recipe has no section prune",
        ),
        (("--pareto", "9000"), {}, 1, "9000 points do not fit"),
    ],
)
def test_fronts_that_cannot_be(
    tmp_path: Path, arguments: tuple[str, ...], sections: dict[str, object], code: int, said: str
) -> None:
    recipe = write_recipe(tmp_path / "tiny.yaml", **sections)
    done = call_edgeslim("compress", recipe, "--out", tmp_path / "run", *arguments)
    assert done.returncode == code
    assert said in " ".join(done.stderr.split())
    assert not (tmp_path / "run").exists()
    if code == 1:
        assert "hint: " in done.stderr


def test_a_front_that_is_out_of_reach_says_which_point(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "tiny.yaml")
    done = call_edgeslim(
        "compress", recipe, "--out", tmp_path / "run", "--pareto", "2", "--set", "prune.budget.keep=0.01"
    )
    assert done.returncode == 3
    assert "error: point 2/2 macs-0.01: 0.01 of the dense net's MACs cannot be reached" in done.stderr


def test_somebody_elses_folder_is_not_emptied(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "front").mkdir(parents=True)
    (run / "photos").mkdir()
    recipe = write_recipe(tmp_path / "tiny.yaml")
    done = call_edgeslim("compress", recipe, "--out", run, "--pareto", "2", "--fresh")
    assert done.returncode == 1
    assert "photos, which is no part of a run" in done.stderr
    assert (run / "photos").is_dir()
