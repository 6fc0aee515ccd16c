"""A tiny classification from files in their true format to bundles and a report, and what the bundles answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgeslim.runtime import classify, load, read_bundle
from edgeslim.trainer.models import build_model
from tests.torch.records import TEST, write_records
from tests.unit.test_data_mnist import write_set

from .tiny import FIT, Cli, call_edgeslim, write_recipe

MODEL = {"name": "vgg16-bn", "args": {"width": 0.07}}
PRUNE = {"criterion": {"name": "ln_norm", "images": 8}, "budget": {"name": "ratio", "ratio": 0.5}}
SECTIONS: dict[str, Any] = {
    "model": MODEL,
    "augment": {"padding": 2},
    "train": {**FIT, "steps": 30, "batch_size": 16, "evaluate_every": 15, "lr": 5e-3},
    "sparsify": None,
    "prune": {**PRUNE, "width_multiple": 2, "min_width": 2, "schedule": {"rounds": 1}},
    "finetune": {"fit": {**FIT, "steps": 20, "batch_size": 16, "evaluate_every": 10}},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classification")
    data = {"name": "cifar10", "root": str(write_records(folder / "cifar"))}
    recipe = write_recipe(folder / "tiny.yaml", data=data, **SECTIONS)
    done = call_edgeslim("compress", recipe, "--out", folder / "run", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads((folder / "run" / "result.json").read_text())
    return folder / "run"


def test_the_result_has_scores_of_a_classification(run: Path) -> None:
    outcome = json.loads((run / "result.json").read_text())
    for kind in ("dense", "compact"):
        metrics = outcome[kind]["metrics"]
        assert {"accuracy", "accuracy_cat", "accuracy_truck"} <= set(metrics) and "dice" not in metrics
        assert metrics["accuracy"] > 0.3  # chance is 0.1
    assert all(stage["passed"] for stage in outcome["certificate"]["stages"])
    assert {"compact torch", "shipped ONNX on frames"} <= {s["name"] for s in outcome["certificate"]["stages"]}
    assert outcome["compact"]["parameters"] < 0.6 * outcome["dense"]["parameters"]
    assert set(outcome["stages"]) >= {"dense", "pruned, just cut", "final"}


def test_the_bundle_answers_as_it_was_scored(run: Path) -> None:
    bundle = read_bundle(run / "compact.bundle")
    manifest = bundle.manifest
    assert (manifest.task, manifest.schema, manifest.classes[3]) == ("classification", 3, "cat")
    assert [o.layout for o in manifest.outputs] == ["NC"]
    raw = np.fromfile(run.parent / "cifar" / "test_batch.bin", np.uint8).reshape(TEST, -1)
    frames = np.ascontiguousarray(raw[:, 1:].reshape(TEST, 3, 32, 32).transpose(0, 2, 3, 1))
    with load(run / "compact.bundle") as session:
        session.verify_golden()
        said = [classify(session, frame, most=1)[0].label for frame in frames]
        assert session.run(frames[0])[manifest.outputs[0].name].shape == (10,)
    assert np.mean(said == raw[:, 0]) == pytest.approx(manifest.metrics["accuracy"])


def test_the_report_shows_classes(run: Path) -> None:
    text = (run / "report.html").read_text()
    for words in ("Dense and compact say different classes", "test-00", "accuracy of cat", "classification"):
        assert words in text
    assert text.count("<figure>") >= 12 and "Difference" not in text
    assert read_bundle(run / "compact.bundle").files["report.html"].decode() == text


def test_another_export_of_the_run_is_the_same(run: Path, tmp_path: Path, cli: Cli) -> None:
    done = call_edgeslim("export", run, tmp_path / "net.zip", "--archive", "--json")
    assert done.returncode == 0, done.stderr
    first, again = read_bundle(run / "compact.bundle"), read_bundle(tmp_path / "net.zip")
    assert again.manifest.metrics == first.manifest.metrics and again.manifest.task == "classification"
    done = call_edgeslim("inspect", tmp_path / "net.zip")
    assert "classification" in done.stdout and "truck" in done.stdout


def test_grey_images_from_given_weights(tmp_path: Path) -> None:
    """MNIST's format and LeNet-5: nothing is trained dense, frames are (28, 28, 1)."""
    torch.manual_seed(0)
    torch.save(build_model("lenet-5", {}, classes=10, in_channels=1).state_dict(), tmp_path / "lenet.pt")
    data = {"name": "mnist", "root": str(write_set(tmp_path / "mnist", count=40))}
    model = {"name": "lenet-5", "weights": str(tmp_path / "lenet.pt")}
    recipe = write_recipe(tmp_path / "tiny.yaml", **{**SECTIONS, "data": data, "model": model, "train": None})
    done = call_edgeslim("compress", recipe, "--out", tmp_path / "run", "--json")
    assert done.returncode == 0, done.stderr
    assert "dense: the given weights are used as they are" in done.stderr and "dense 1/" not in done.stderr
    manifest = read_bundle(tmp_path / "run" / "compact.bundle").manifest
    assert manifest.image.colour == "grey" and manifest.inputs[0].shape[1:] == (28, 28, 1)
    assert json.loads(done.stdout)["compact"]["parameters"] < 431_080
    with load(tmp_path / "run" / "compact.bundle") as session:
        session.verify_golden()
        assert len(classify(session, np.zeros((28, 28, 1), np.uint8))) == 5
    again = call_edgeslim("compress", recipe, "--out", tmp_path / "run", "--json")
    assert again.returncode == 0 and "final: reused the finished checkpoint" in again.stderr
    done = call_edgeslim("train", recipe, "--out", tmp_path / "run")
    assert done.returncode == 0 and "validation at step 0: accuracy" in done.stdout


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"train": None}, "train is missing, and so is model.weights"),
        ({"model": {**MODEL, "weights": "none.pt"}}, "weights none.pt cannot be read"),
        ({"loss": {"dice": 1.0}}, "loss.dice is for masks"),
        ({"model": {"name": "timm:resnet18"}}, "pip install timm"),
        ({"data": {"name": "cifar10", "root": "nowhere"}}, "nowhere has no data_batch_*.bin"),
    ],
)
def test_mistakes_end_with_1_and_a_hint(tmp_path: Path, sections: dict[str, Any], words: str) -> None:
    data = {"name": "cifar10", "root": str(write_records(tmp_path / "cifar"))}
    recipe = write_recipe(tmp_path / "tiny.yaml", **{**SECTIONS, "data": data, **sections})
    done = call_edgeslim("compress", recipe, "--out", tmp_path / "run")
    assert done.returncode == 1
    assert words in " ".join(done.stderr.split()) and "hint:" in done.stderr
