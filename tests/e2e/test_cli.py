"""Every verb as a user types it, on real files: what is printed where, what is written, what a rerun does."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from edgeslim.bench import BenchResult
from edgeslim.runtime import load, read_bundle

from .conftest import Run
from .tiny import Cli, command_line, write_recipe

NET_KEYS = {"metrics", "parameters", "macs", "file_bytes", "latency_ms", "peak_memory_bytes", "bundle"}


def test_compress_prints_one_object_with_all_that_is_promised(finished: Run) -> None:
    outcome = finished.outcome
    assert set(outcome) >= {"dense", "compact", "speedup", "certificate", "coverage", "bundle", "report"}
    for kind in ("dense", "compact"):
        net = outcome[kind]
        assert set(net) == NET_KEYS
        assert {"dice", "miou"} <= set(net["metrics"])
        assert all(0.0 <= value <= 1.0 for value in net["metrics"].values())
        assert {"p50", "p90", "p99"} <= set(net["latency_ms"])
        assert 0.0 < net["latency_ms"]["p50"] <= net["latency_ms"]["p90"] <= net["latency_ms"]["p99"]
        assert min(net["parameters"], net["macs"], net["file_bytes"], net["peak_memory_bytes"]) > 0
    for figure in ("parameters", "macs", "file_bytes"):
        assert outcome["compact"][figure] < outcome["dense"][figure], figure
    assert set(outcome["speedup"]) >= {"ratio", "low", "high"}
    assert 0.0 < outcome["speedup"]["low"] <= outcome["speedup"]["high"]
    stages = outcome["certificate"]["stages"]
    assert stages
    assert all(stage["passed"] for stage in stages)
    assert {"compact torch", "compact ONNX", "shipped ONNX on frames"} <= {stage["name"] for stage in stages}
    assert any(layer["width_after"] < layer["width_before"] for layer in outcome["coverage"])
    assert all(layer["family"] or layer["reason"] for layer in outcome["coverage"])


def test_compress_writes_what_it_names(finished: Run) -> None:
    report = Path(finished.outcome["report"])
    assert report.read_text().lower().startswith("<!doctype html>")
    bundle = read_bundle(finished.outcome["bundle"])
    assert bundle.files["report.html"] == report.read_bytes()
    assert bundle.manifest.metrics == finished.outcome["compact"]["metrics"]
    assert json.loads((finished.directory / "result.json").read_text()) == finished.outcome
    BenchResult.from_json((finished.directory / "bench.json").read_text())
    assert not [path for path in finished.directory.rglob(".*")], "a draft was left behind"


def test_progress_goes_to_stderr_alone(finished: Run) -> None:
    for stage in ("data", "dense", "sparse", "round-1", "final", "bench"):
        assert stage in finished.stderr
    assert finished.stdout.startswith("{")
    assert finished.stdout.endswith("}\n")


def test_compress_for_a_person(finished: Run, run_copy: Path, cli: Cli) -> None:
    """The rerun: a table, every training stage reused, and the same plan, weights and graph as before."""
    done = cli("compress", finished.recipe, "--out", run_copy)
    assert done.returncode == 0, done.stderr
    for stage in ("dense", "sparse", "round-1", "final"):
        assert f"{stage}: reused the finished checkpoint" in done.stderr
    for words in ("dice", "MACs", "latency p99, ms", "round-1, mended", "certificate passed", "pruned", "report.html"):
        assert words in done.stdout
    before, after = (read_bundle(place / "compact.bundle") for place in (finished.directory, run_copy))
    for name in ("plan.json", "model.onnx", "golden.npz"):
        assert after.files[name] == before.files[name], name


def test_a_killed_run_continues_to_the_same_result(finished: Run, tmp_path: Path, cli: Cli) -> None:
    """SIGKILL after the first checkpoint: every file is whole, and the rerun ends where an undisturbed one does."""
    run, checkpoint = tmp_path / "run", tmp_path / "run" / "stages" / "dense" / "checkpoint.json"
    with subprocess.Popen(
        command_line(["compress", finished.recipe, "--out", run]), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        deadline = time.monotonic() + 120.0
        while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        process.kill()
    assert checkpoint.exists()
    json.loads(checkpoint.read_text())
    assert not (run / "result.json").exists()
    done = cli("compress", finished.recipe, "--out", run, "--json")
    assert done.returncode == 0, done.stderr
    before, after = (read_bundle(place / "compact.bundle") for place in (finished.directory, run))
    for name in ("plan.json", "model.onnx"):
        assert after.files[name] == before.files[name], name
    assert json.loads(done.stdout)["stages"] == finished.outcome["stages"]


def test_train_then_compress_with_an_override(tmp_path: Path, cli: Cli) -> None:
    recipe = write_recipe(tmp_path / "tiny.yaml")
    run = tmp_path / "run"
    done = cli("train", recipe, "--set", "train.steps=2", "--out", run, "--json")
    assert done.returncode == 0, done.stderr
    content = json.loads(done.stdout)
    assert set(content) == {"checkpoint", "steps", "best_step", "validation"}
    assert content["steps"] == 2
    assert "dice" in content["validation"]
    assert (Path(content["checkpoint"]) / "model.safetensors").is_file()
    # Another recipe must not continue in this directory, unless told to start over.
    done = cli("train", recipe, "--out", run)
    assert done.returncode == 1
    assert "--fresh" in done.stderr
    done = cli("train", recipe, "--out", run, "--fresh")
    assert done.returncode == 0, done.stderr
    assert "validation at step" in done.stdout


@pytest.fixture(scope="module")
def archive(finished: Run, tmp_path_factory: pytest.TempPathFactory, cli: Cli) -> Path:
    path = tmp_path_factory.mktemp("export") / "net.bundle"
    done = cli("export", finished.directory, path, "--archive", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"bundle": str(path), "certificate": {"passed": True}}
    return path


def test_export_as_an_archive_ships_the_same_net(finished: Run, archive: Path) -> None:
    assert zipfile.is_zipfile(archive)
    first, again = read_bundle(finished.outcome["bundle"]), read_bundle(archive)
    assert again.files["plan.json"] == first.files["plan.json"]
    frame = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    with load(archive) as a, load(finished.outcome["bundle"]) as b:
        for name, logits in a.run(frame).items():
            assert np.array_equal(logits, b.run(frame)[name])
        a.verify_golden()
    assert again.manifest.metrics == first.manifest.metrics
    assert again.manifest.provenance == first.manifest.provenance
    assert again.files["report.html"] == first.files["report.html"]  # it is the model that the report measured


def test_export_of_the_dense_net_without_simplification(finished: Run, tmp_path: Path, cli: Cli) -> None:
    done = cli("export", finished.directory, tmp_path / "dense.bundle", "--dense", "--no-simplify")
    assert done.returncode == 0, done.stderr
    assert "certificate passed" in done.stdout
    manifest = read_bundle(tmp_path / "dense.bundle").manifest
    assert manifest.sizes.parameters == finished.outcome["dense"]["parameters"]
    assert manifest.provenance["simplifier"] == "off"
    assert manifest.metrics["dice"] == pytest.approx(finished.outcome["dense"]["metrics"]["dice"], abs=1e-3)
    assert "report.html" not in manifest.files


def test_bench_alone_and_against_another(finished: Run, archive: Path, cli: Cli) -> None:
    done = cli("bench", archive, "--samples", "20", "--seconds", "1", "--json")
    assert done.returncode == 0, done.stderr
    alone = BenchResult.from_json(done.stdout)
    assert alone.against is None
    assert alone.subject.latency.n == 20
    dense = finished.outcome["dense"]["bundle"]
    done = cli("bench", archive, "--against", dense, "--samples", "20", "--seconds", "1", "--size", "32x64")
    assert done.returncode == 0, done.stderr
    for words in ("tiny-compact", "tiny-dense", "p99"):
        assert words in done.stdout


def test_inspect(finished: Run, archive: Path, cli: Cli) -> None:
    done = cli("inspect", archive)
    assert done.returncode == 0, done.stderr
    for words in (
        "tiny-compact",
        "frame uint8 NHWC",
        "certificate passed",
        "coverage",
        "graph output",
        "background",
        "alive at once",
    ):
        assert words in done.stdout
    done = cli("inspect", finished.outcome["bundle"], "--json")
    manifest = json.loads(done.stdout)
    assert manifest["certificate"] == finished.outcome["certificate"]
    assert manifest["coverage"] == finished.outcome["coverage"]
    assert {"recipe", "weights", "plan"} <= set(manifest["provenance"])
    memory = manifest["here"]["memory"]
    assert memory["shape"] == [1, *manifest["bench_size"], 3]
    assert memory["arena_bytes"] >= memory["live_bytes"] == memory["peak"]["bytes"] > 0


def test_version(cli: Cli) -> None:
    done = cli("--version")
    assert (done.returncode, done.stdout) == (0, f"edgeslim {importlib.metadata.version('edgeslim')}\n")


def test_doctor(cli: Cli) -> None:
    done = cli("doctor", "--json")
    assert done.returncode == 0, done.stderr
    content = json.loads(done.stdout)
    assert set(content) == {"edgeslim", "machine", "abilities", "accelerators", "device", "warnings"}
    needs_gpu = {"build engines", "run engines", "run bundles on a GPU"}
    assert {ability["name"] for ability in content["abilities"] if not ability["ready"]} <= needs_gpu
    assert all(ability["ready"] or ability["install"] for ability in content["abilities"])
    done = cli("doctor")
    assert done.returncode == 0, done.stderr
    assert "run bundles" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("compress",), "Missing argument"),
        (("compress", "recipe.yaml", "--stes", "train.steps=2"), "No such option"),
        (("bench", "net.bundle", "--size", "wide"), "not HEIGHTxWIDTH"),
        (("bench", "net.bundle", "--threads", "0"), "Invalid value"),
        (("unknown",), "No such command"),
    ],
)
def test_wrong_usage_exits_with_2(arguments: tuple[str, ...], words: str, cli: Cli) -> None:
    done = cli(*arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert not done.stdout
