"""`edgeslim quantize` and recipes with precisions: made, shown, shipped, made again, and refused in words."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgeslim.runtime import load, read_bundle

from ..unit.precision_bundles import labelled, net, write_net
from .conftest import Run
from .tiny import Cli, call_edgeslim, write_pictures, write_recipe

SIDE = 64


@pytest.fixture
def cli() -> Cli:
    """In this process, as all but the first of these would load everything again."""
    return call_edgeslim


@pytest.fixture
def bundle(finished: Run, tmp_path: Path) -> Path:
    """The finished run's compact net, to be changed."""
    return Path(shutil.copytree(finished.directory / "compact.bundle", tmp_path / "net.bundle"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures"), side=SIDE) / "images"


@pytest.fixture
def validation(pictures: Path, tmp_path: Path) -> Path:
    """The pictures and their masks as a file."""
    files = sorted(pictures.iterdir())
    frames, masks = (
        np.stack([np.asarray(Image.open(root / file.name)) for file in files])
        for root in (pictures, pictures.with_name("masks"))
    )
    np.savez(tmp_path / "validation.npz", frames=frames, targets=masks)
    return tmp_path / "validation.npz"


def content(path: Path) -> dict[str, bytes]:
    return {str(f.relative_to(path)): f.read_bytes() for f in sorted(path.rglob("*")) if f.is_file()}


def refused(done: subprocess.CompletedProcess[str], *words: str, code: int = 1) -> None:
    assert done.returncode == code, done.stderr
    assert done.stdout == "" and "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr, done.stderr
    if code != 2:
        assert "hint: " in done.stderr


def test_both_precisions_by_default(bundle: Path, pictures: Path, validation: Path, cli: Cli) -> None:
    done = cli("quantize", bundle, "--calibration", pictures, "--validation", validation, "--max-loss", "0.5")
    assert done.returncode == 0, done.stderr
    assert "precision fp16" in done.stderr and "precision int8" in done.stderr
    assert "fp16" in done.stdout and "calibration images 8" in done.stdout and "dice" in done.stdout
    shown = cli("inspect", bundle)
    assert shown.returncode == 0 and "int8: made with" in shown.stdout
    assert [v.name for v in read_bundle(bundle).manifest.variants] == ["fp16", "int8"]
    for name in ("fp16", "int8"):
        with load(bundle, precision=name, backend="onnxruntime") as session:
            session.verify_golden()


def test_json_is_one_object(bundle: Path, pictures: Path, cli: Cli) -> None:
    arguments = ("--precision", "int8", "--name", "cpu", "--placement", "onnxruntime", "--images", "4", "--json")
    done = cli("quantize", bundle, "--calibration", pictures, *arguments)
    assert done.returncode == 0, done.stderr
    table = json.loads(done.stdout)
    assert table["bundle"] == str(bundle)
    (made,) = table["precisions"]
    assert (made["name"], made["precision"], made["placement"]) == ("cpu", "int8", "onnxruntime")
    assert made["settings"]["calibration images"] == "4" and made["metrics"] == {} and made["validation_images"] is None
    assert "what the precision costs in score is not known" in done.stderr


def test_an_archive_stays_one(bundle: Path, pictures: Path, finished: Run, tmp_path: Path, cli: Cli) -> None:
    archive = tmp_path / "net.zip"
    assert cli("export", finished.directory, archive, "--archive").returncode == 0
    done = cli("quantize", archive, "--calibration", pictures, "--precision", "fp16")
    assert done.returncode == 0, done.stderr
    assert archive.is_file() and [v.name for v in read_bundle(archive).manifest.variants] == ["fp16"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--name", "mine"), "--name belongs to a single --precision"),
        (("--search", "--precision", "int8"), "--search needs --precision int8 and --validation"),
        (("--search", "--validation", "v.npz"), "--search needs --precision int8 and --validation"),
        (("--half", "--precision", "fp16"), "--half and --equalize are for --precision int8"),
        (("--precision", "int4"), "int4"),
        (("--images", "0"), "--images"),
        (("--max-loss", "-1"), "--max-loss"),
    ],
)
def test_wrong_usage(bundle: Path, pictures: Path, arguments: tuple[str, ...], words: str, cli: Cli) -> None:
    refused(cli("quantize", bundle, "--calibration", pictures, *arguments), words, code=2)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--precision", "int8", "--name", "INT8"), "'INT8' is no name for a precision"),
        (("--precision", "int8", "--name", "fp32"), "'fp32' is no name for a precision"),
        (("--max-loss", "inf"), "the largest loss is inf"),
        (("--images", "9"), "has 8 images, 9 were asked for"),
        (("--percentile", "7", "--method", "percentile"), "percentile: 7.0"),
        (("--precision", "int8", "--keep", "nobody.weight"), "nobody.weight"),
        (("--validation", "none.npz"), "none.npz cannot be read: No such file"),
    ],
)
def test_what_can_be_mended(bundle: Path, pictures: Path, arguments: tuple[str, ...], words: str, cli: Cli) -> None:
    before = content(bundle)
    refused(cli("quantize", bundle, "--calibration", pictures, *arguments), words)
    assert content(bundle) == before


def test_calibration_and_validation_that_do_not_fit(
    bundle: Path, pictures: Path, validation: Path, tmp_path: Path, cli: Cli
) -> None:
    before = content(bundle)
    (tmp_path / "empty").mkdir()
    refused(cli("quantize", bundle, "--calibration", tmp_path / "empty"), "empty has no images")
    np.savez(tmp_path / "floats.npz", frames=np.zeros((2, SIDE, SIDE, 3), np.float32))
    refused(cli("quantize", bundle, "--calibration", tmp_path / "floats.npz"), "frames are float32")
    np.savez(tmp_path / "pickle.npz", frames=np.array([object()]))
    refused(cli("quantize", bundle, "--calibration", tmp_path / "pickle.npz"), "pickle.npz cannot be read")
    np.savez(tmp_path / "grey.npz", frames=np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 1), np.uint8))
    refused(cli("quantize", bundle, "--calibration", tmp_path / "grey.npz"), "the net takes")
    with np.load(validation) as arrays:
        frames, masks = arrays["frames"], arrays["targets"]
    for targets, words in ((masks[:, 0, 0], "targets [8]"), (masks + 5, "a target is class"), (masks * 0.5, "float")):
        np.savez(tmp_path / "wrong.npz", frames=frames, targets=targets)
        refused(cli("quantize", bundle, "--calibration", pictures, "--validation", tmp_path / "wrong.npz"), words)
    refused(cli("quantize", tmp_path, "--calibration", pictures), "manifest.json")
    assert content(bundle) == before


def test_a_loss_above_the_limit_fails_the_check(tmp_path: Path, cli: Cli) -> None:
    """Targets are what fp32 answers, so any rounding that turns a pixel over is a loss."""
    bundle, data = write_net(tmp_path / "net.bundle"), labelled(net(), 8)
    np.savez(tmp_path / "v.npz", frames=data.frames, targets=data.targets)
    before = content(bundle)
    given = ("--calibration", tmp_path / "v.npz", "--validation", tmp_path / "v.npz", "--precision", "int8")
    refused(cli("quantize", bundle, *given, "--max-loss", "0"), "in int8 dice falls by", "loss of 0", code=3)
    assert content(bundle) == before
    assert cli("quantize", bundle, *given, "--max-loss", "0.2").returncode == 0


def test_a_search_prints_its_table_or_fails_the_check(tmp_path: Path, cli: Cli) -> None:
    """On this machine's own clock: whichever it is, it is said."""
    bundle, data = write_net(tmp_path / "net.bundle"), labelled(net(), 8)
    np.savez(tmp_path / "v.npz", frames=data.frames, targets=data.targets)
    given = ("--calibration", tmp_path / "v.npz", "--validation", tmp_path / "v.npz", "--precision", "int8")
    more = ("--placement", "onnxruntime", "--max-loss", "0.2", "--search", "--groups", "2")
    done = cli("quantize", bundle, *given, *more)
    assert "precision search: 2 steps" in done.stderr
    if done.returncode == 0:
        assert "int8: measured group by group" in done.stdout and "the whole net" in done.stdout
    else:
        refused(done, "does not make tiny faster here", code=3)
        assert not read_bundle(bundle).manifest.variants


def test_a_disk_that_fills_up(bundle: Path, pictures: Path, cli: Cli) -> None:
    before = content(bundle)
    largest = max(map(len, before.values()))
    done = cli("quantize", bundle, "--calibration", pictures, "--precision", "fp16", file_bytes=largest // 2)
    refused(done, "could not be written: File too large", "what was there before is intact")
    assert content(bundle) == before
    assert [p.name for p in bundle.parent.iterdir() if p.name.startswith(".")] == []


PRECISIONS = [
    {"kind": "fp16", "images": 4, "max_loss": 0.5},
    {"kind": "int8", "images": 9, "max_loss": 0.5},
    {"kind": "int8", "name": "cpu", "placement": "onnxruntime", "images": 4, "max_loss": 0.5},
]


def test_a_precision_that_loses_too_much_stops_the_job_and_keeps_what_was_trained(
    finished: Run, run_copy: Path, cli: Cli
) -> None:
    """Noise for calibration would be a fault of data; ranges cut at the median are a fault that a recipe can hold."""
    low = {"kind": "int8", "images": 4, "method": "percentile", "percentile": 50.1, "bias_correction": False}
    recipe = write_recipe(run_copy.parent / "low.yaml", precisions=[low])
    stages = content(run_copy / "stages")
    refused(cli("compress", recipe, "--out", run_copy), "in int8", "what was trained is kept", code=3)
    assert content(run_copy / "stages") == stages
    assert not read_bundle(run_copy / "compact.bundle").manifest.variants


@pytest.fixture
def with_precisions(finished: Run, run_copy: Path, cli: Cli) -> tuple[Path, dict[str, Any], str]:
    """The finished run with precisions in its recipe: nothing is trained again."""
    recipe = write_recipe(run_copy.parent / "more.yaml", precisions=PRECISIONS)
    stages = content(run_copy / "stages")
    done = cli("compress", recipe, "--out", run_copy, "--json")
    assert done.returncode == 0, done.stderr
    assert content(run_copy / "stages") == stages
    return run_copy, json.loads(done.stdout), done.stderr


def test_a_recipe_with_precisions(
    with_precisions: tuple[Path, dict[str, Any], str], finished: Run, tmp_path: Path, cli: Cli
) -> None:
    run, outcome, stderr = with_precisions
    variants = read_bundle(run / "compact.bundle").manifest.variants
    assert [p["name"] for p in outcome["precisions"]] == [v.name for v in variants] == ["fp16", "int8", "cpu"]
    assert outcome["schema"] == 3 and json.loads((run / "result.json").read_text()) == outcome
    assert finished.outcome["precisions"] == [] and not (finished.directory / "validation.npz").exists()
    assert "precision int8 asks for 9 images, there are" in stderr
    assert "Precisions of the compact net" in (run / "report.html").read_text()
    assert not read_bundle(run / "dense.bundle").manifest.variants
    # The score of fp32 is the one that training saw of the same net.
    trained = outcome["stages"]["final"]["dice"]
    assert all(v.model_metrics["dice"] == pytest.approx(trained, abs=1e-4) for v in variants)
    # The set that was scored is there for a device.
    done = cli("quantize", run / "compact.bundle", "--calibration", run / "validation.npz", "--validation",
               run / "validation.npz", "--precision", "fp16", "--name", "again", "--max-loss", "0.5")  # fmt: skip
    assert done.returncode == 0, done.stderr
    again = read_bundle(run / "compact.bundle").manifest.variants[-1]
    assert again.settings["validation"] == variants[0].settings["validation"]
    assert again.model_metrics == variants[0].model_metrics
    # Without precisions in the recipe there are none left, in the bundle or beside it.
    assert cli("compress", finished.recipe, "--out", run).returncode == 0
    assert not read_bundle(run / "compact.bundle").manifest.variants and not (run / "validation.npz").exists()


def test_a_repeated_export_has_the_precisions(
    with_precisions: tuple[Path, dict[str, Any], str], tmp_path: Path, cli: Cli
) -> None:
    run, _, _ = with_precisions
    measured = read_bundle(run / "compact.bundle")
    done = cli("export", run, tmp_path / "again.zip", "--archive")
    assert done.returncode == 0, done.stderr
    again = read_bundle(tmp_path / "again.zip")
    assert again.manifest.variants == measured.manifest.variants
    assert all(again.files[v.file] == measured.files[v.file] for v in again.manifest.variants)
    assert "precision" not in done.stderr  # they were taken over, not made again
    done = cli("export", run, tmp_path / "plain.bundle", "--no-simplify")
    assert done.returncode == 0, done.stderr
    assert [v.name for v in read_bundle(tmp_path / "plain.bundle").manifest.variants] == ["fp16", "int8", "cpu"]
    assert "precision int8" in done.stderr
    assert cli("export", run, tmp_path / "dense.bundle", "--dense").returncode == 0
    assert not read_bundle(tmp_path / "dense.bundle").manifest.variants
    # Written over itself, a run's bundle keeps them, and its report.
    assert cli("export", run, run / "compact.bundle").returncode == 0
    kept = read_bundle(run / "compact.bundle")
    assert kept.manifest.variants == measured.manifest.variants and "report.html" in kept.files
