"""What a user can get wrong: exit code 1, one message with a hint on stderr, no traceback, nothing half-written."""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from edgeslim.runtime import read_bundle

from .conftest import Run
from .tiny import Cli, call_edgeslim, folder_section, write_pictures, write_recipe

NETS = '''
import torch
from torch import nn


class Head(nn.Module):
    """One convolution from the image to the logits: no channel of it can go."""

    size_multiple = 2

    def __init__(self, classes, colours=3):
        super().__init__()
        self.head = nn.Conv2d(colours, classes, 3, padding=1)

    def forward(self, x):
        return self.head(x)


def four_colours(classes):
    return Head(classes, colours=4)


def wrong_size(classes):
    return nn.Sequential(Head(classes), nn.MaxPool2d(2))


def no_builder():
    raise RuntimeError("the weights are on another disk")
'''


@pytest.fixture
def cli() -> Cli:
    """In this process: every refusal in a process of its own would load torch two dozen times."""
    return call_edgeslim


def refused(done: subprocess.CompletedProcess[str], *words: str, code: int = 1) -> str:
    """Check the form of a refusal and return its message and hint."""
    assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    _, found, said = ("\n" + done.stderr).rpartition("\nerror: ")
    assert found, done.stderr
    message, _, hint = said.partition("\nhint: ")
    assert message.strip(), said
    assert hint.strip(), said
    for word in words:
        assert word in said, f"{word!r} is missing in: {said}"
    return said


def left_behind(folder: Path) -> list[str]:
    """Everything in a run's directory, drafts included."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*")) if folder.exists() else []


# --- data -----------------------------------------------------------------------------------------------------


def remove_everything(root: Path) -> str:
    shutil.rmtree(root)
    return "cannot be read"


def empty_the_folders(root: Path) -> str:
    for path in root.glob("*/*"):
        path.unlink()
    return "has no images"


def lose_a_mask(root: Path) -> str:
    (root / "masks" / "03.png").unlink()
    return "1 images without mask: 03.png"


def shrink_a_mask(root: Path) -> str:
    Image.new("L", (32, 64)).save(root / "masks" / "05.png")
    return "05.png is 32x64"


def use_a_class_too_many(root: Path) -> str:
    mask = np.asarray(Image.open(root / "masks" / "02.png")).copy()
    mask[7, 9] = 6
    Image.fromarray(mask).save(root / "masks" / "02.png")
    return "02.png: mask value 6 at row 7, column 9"


def cut_a_picture(root: Path) -> str:
    path = root / "images" / "04.png"
    path.write_bytes(path.read_bytes()[:600])
    return "04.png is damaged"


@pytest.mark.parametrize(
    "spoil",
    [remove_everything, empty_the_folders, lose_a_mask, shrink_a_mask, use_a_class_too_many, cut_a_picture],
)
def test_data_that_does_not_fit(spoil: Callable[[Path], str], tmp_path: Path, cli: Cli) -> None:
    root = write_pictures(tmp_path / "data")
    words = spoil(root)
    recipe = write_recipe(tmp_path / "tiny.yaml", data=folder_section(root))
    refused(cli("compress", recipe, "--out", tmp_path / "run"), words)
    assert not (tmp_path / "run").exists()


def test_a_class_that_no_picture_shows_is_told(tmp_path: Path, cli: Cli) -> None:
    data = folder_section(write_pictures(tmp_path / "data"), classes=["background", "vessel", "optic disc"])
    recipe = write_recipe(tmp_path / "tiny.yaml", data=data)
    done = cli("train", recipe, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert "no training image shows optic disc: the net cannot learn what it never sees" in done.stderr


def test_a_corrupt_picture_is_skipped_only_on_request(tmp_path: Path, cli: Cli) -> None:
    root = write_pictures(tmp_path / "data", count=10)
    cut_a_picture(root)
    (root / "masks" / "07.png").write_bytes(b"not a picture at all")
    recipe = write_recipe(tmp_path / "tiny.yaml", data=folder_section(root, on_error="skip"))
    done = cli("train", recipe, "--out", tmp_path / "run", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps"] == 4
    (said,) = (line for line in done.stderr.splitlines() if "skipped" in line)
    assert "skipped 2 that cannot be decoded" in said
    assert "04.png" in said
    assert "07.png" in said


# --- recipe ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.stpes=3", "train.stpes: unknown key"),
        ("prune.budget={name: ratio, ratio: 1.0}", "prune.budget.ratio: input should be less than 1"),
        ("train.lr=fast", "train.lr"),
        ("model.args.widht=3", "widht"),
        ("model.name=resnet9000", "resnet9000"),
        ("augment.crop=[33, 32]", "augment.crop is 33 x 32"),
        ("train.steps", "not key.path=value"),
    ],
)
def test_a_recipe_that_asks_for_the_impossible(override: str, words: str, tmp_path: Path, cli: Cli) -> None:
    recipe = write_recipe(tmp_path / "tiny.yaml")
    refused(cli("compress", recipe, "--set", override, "--out", tmp_path / "run"), words)
    assert not (tmp_path / "run").exists()


def test_a_budget_that_cannot_be_met_is_a_failed_check(tmp_path: Path, cli: Cli) -> None:
    recipe = write_recipe(tmp_path / "tiny.yaml")
    done = cli("compress", recipe, "--set", "prune.budget.keep=0.001", "--out", tmp_path / "run")
    refused(done, "0.001 of the dense net's MACs cannot be reached", code=3)


def test_a_recipe_that_is_not_there(tmp_path: Path, cli: Cli) -> None:
    refused(cli("compress", tmp_path / "none.yaml"), "none.yaml cannot be read")
    (tmp_path / "list.yaml").write_text("- a\n- b\n")
    refused(cli("compress", tmp_path / "list.yaml"), "a recipe is a mapping")


def test_an_output_that_is_somebody_elses_folder(tmp_path: Path, cli: Cli) -> None:
    recipe = write_recipe(tmp_path / "tiny.yaml")
    (tmp_path / "thesis").mkdir()
    for name in ("chapter.txt", ".gitignore"):
        (tmp_path / "thesis" / name).write_text("precious")
        refused(cli("compress", recipe, "--out", tmp_path / "thesis", "--fresh"), f"holds {name}")
        assert left_behind(tmp_path / "thesis") == [name]
        (tmp_path / "thesis" / name).unlink()
    refused(cli("compress", recipe, "--out", recipe), "is a file")


def test_a_run_that_another_process_works_on(run_copy: Path, finished: Run, cli: Cli) -> None:
    before = left_behind(run_copy)
    with (run_copy / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for verb in ("compress", "train"):
            refused(cli(verb, finished.recipe, "--out", run_copy, "--fresh"), "another edgeslim works in it")
        assert left_behind(run_copy) == sorted([*before, ".lock"])
    done = cli("train", finished.recipe, "--out", run_copy)
    assert done.returncode == 0, done.stderr
    assert left_behind(run_copy) == before


def test_more_threads_than_cores(tmp_path: Path, finished: Run, cli: Cli) -> None:
    refused(
        cli("compress", finished.recipe, "--set", "bench.threads=100000", "--out", tmp_path / "run"),
        "threads is 100000; this machine has",
    )
    assert not (tmp_path / "run").exists()
    refused(cli("bench", finished.outcome["bundle"], "--threads", "100000"), "threads is 100000; this machine has")


# --- model ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nets:four_colours", "forward fails on images of shape (2, 3, 32, 32)"),
        ("nets:wrong_size", "wanted are logits (2, 2, 32, 32)"),
        ("nets:no_builder", "the weights are on another disk"),
        ("nets:missing", "has no 'missing'"),
        ("no_such_package:build", "No module named 'no_such_package'"),
    ],
)
def test_a_model_that_does_not_work(name: str, words: str, tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "nets.py").write_text(NETS)
    recipe = write_recipe(tmp_path / "tiny.yaml", model={"name": name})
    refused(cli("compress", recipe, "--out", "run", cwd=tmp_path), words)
    assert not (tmp_path / "run").exists()


def test_a_model_with_nothing_to_prune_is_exported_dense(tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "nets.py").write_text(NETS)
    recipe = write_recipe(tmp_path / "tiny.yaml", model={"name": "nets:Head"})
    done = cli("compress", recipe, "--out", "run", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "nothing to prune" in done.stderr
    outcome = json.loads(done.stdout)
    assert any("nothing to prune" in note for note in outcome["notes"])
    assert outcome["compact"]["parameters"] == outcome["dense"]["parameters"]
    assert outcome["compact"]["metrics"] == outcome["dense"]["metrics"]
    assert [layer["reason"] for layer in outcome["coverage"]] == ["graph output conv2d"]
    assert read_bundle(tmp_path / outcome["bundle"]).manifest.certificate.passed


def test_a_loss_that_is_not_finite(tmp_path: Path, cli: Cli) -> None:
    recipe = write_recipe(tmp_path / "tiny.yaml")
    explode = ("--set", "train.lr=1e30", "--set", "train.evaluate_every=1")
    said = refused(cli("compress", recipe, *explode, "--out", tmp_path / "run"), "at step 1", "last good checkpoint is")
    checkpoint = Path(said.partition("last good checkpoint is ")[2].splitlines()[0])
    assert checkpoint == tmp_path / "run" / "stages" / "dense"
    assert json.loads((checkpoint / "checkpoint.json").read_text())["step"] == 1
    files = ("checkpoint.json", "current.safetensors", "model.safetensors", "optimizer.safetensors")
    assert left_behind(tmp_path / "run" / "stages") == ["dense", *(f"dense/{name}" for name in files)]
    said = refused(cli("compress", recipe, "--set", "train.lr=1e30", "--out", tmp_path / "other"), "at step 1")
    assert "no checkpoint had been written yet" in said


# --- writing --------------------------------------------------------------------------------------------------


def test_a_disk_that_is_full_leaves_the_old_files(finished: Run, run_copy: Path, tmp_path: Path, cli: Cli) -> None:
    refused(
        cli("compress", finished.recipe, "--out", tmp_path / "new", file_bytes=8192),
        "could not be written: File too large",
    )
    assert left_behind(tmp_path / "new" / "stages") == []
    before = read_bundle(run_copy / "compact.bundle")
    for target in (run_copy / "compact.bundle", tmp_path / "fresh.bundle"):
        refused(
            cli("export", run_copy, target, file_bytes=8192),
            f"{target.name} could not be written: File too large",
        )
    after = read_bundle(run_copy / "compact.bundle")
    assert after.files == before.files
    assert left_behind(run_copy) == left_behind(finished.directory)


def test_a_disk_that_fills_up_at_the_very_end(finished: Run, run_copy: Path, cli: Cli) -> None:
    """Just too small for the report, the largest file of the run and the last but two."""
    sizes = {path: path.stat().st_size for path in run_copy.rglob("*") if path.is_file()}
    report = sizes.pop(run_copy / "report.html")
    rest = max(size for path, size in sizes.items() if path.name != "report.html")
    assert report > 1.1 * rest  # 1.19 was seen on a busy machine
    before = [(run_copy / name).read_bytes() for name in ("report.html", "result.json", "bench.json")]
    refused(
        cli("compress", finished.recipe, "--out", run_copy, file_bytes=(report + rest) // 2),
        "report.html cannot be read or written: File too large",
    )
    assert [(run_copy / name).read_bytes() for name in ("report.html", "result.json", "bench.json")] == before
    assert read_bundle(run_copy / "compact.bundle").manifest.certificate.passed
    assert not [name for name in left_behind(run_copy) if name.startswith(".")]


def test_what_a_killed_write_left_is_swept_up(finished: Run, run_copy: Path, cli: Cli) -> None:
    parked = run_copy / ".compact.bundle.old"  # left by a kill after an exchange
    (run_copy / "dense.bundle").rename(run_copy / ".dense.bundle.old")  # and by one in the middle of it
    for draft in (run_copy / ".compact.bundle.x1y2", run_copy / "stages" / ".final.x1y2", parked):
        draft.mkdir()
        (draft / "half").write_text("written")
    (run_copy / ".report.html.x1y2").write_text("<html>")
    done = cli("train", finished.recipe, "--out", run_copy)
    assert done.returncode == 0, done.stderr
    assert left_behind(run_copy) == left_behind(finished.directory)


def test_a_path_that_cannot_be(finished: Run, tmp_path: Path, cli: Cli) -> None:
    refused(cli("train", finished.recipe, "--out", tmp_path / ("a" * 300)), "File name too long")
    refused(cli("export", tmp_path / ("a" * 300), tmp_path / "b"), "File name too long")
    (tmp_path / "loop").symlink_to("loop")
    refused(cli("export", finished.directory, tmp_path / "loop" / "net.bundle"), "loop")
    recipe = finished.directory / "recipe.json"
    before = recipe.read_bytes()
    refused(cli("export", finished.directory, recipe, "--archive"), "lies inside the run")
    assert recipe.read_bytes() == before


# --- bundles --------------------------------------------------------------------------------------------------


def flip_a_byte(bundle: Path) -> str:
    data = bytearray((bundle / "model.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (bundle / "model.onnx").write_bytes(data)
    return "model.onnx has SHA-256"


def lose_a_file(bundle: Path) -> str:
    (bundle / "golden.npz").unlink()
    return "golden.npz is missing"


def come_from_the_future(bundle: Path) -> str:
    edit_manifest(bundle, lambda manifest: manifest.update(schema=99, written_by="7.3.0"))
    return "edgeslim>=7.3.0"


def point_outside(bundle: Path) -> str:
    def escape(manifest: dict[str, object]) -> None:
        manifest["model"] = "../model.onnx"

    edit_manifest(bundle, escape)
    return "'../model.onnx' is not a plain relative path"


def link_outside(bundle: Path) -> str:
    shutil.move(bundle / "model.onnx", bundle.parent / "elsewhere.onnx")
    (bundle / "model.onnx").symlink_to("../elsewhere.onnx")
    return "symbolic link"


def be_no_bundle(bundle: Path) -> str:
    (bundle / "manifest.json").unlink()
    return "is not a bundle"


def edit_manifest(bundle: Path, edit: Callable[[dict[str, object]], object]) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    edit(manifest)
    (bundle / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    "damage", [flip_a_byte, lose_a_file, come_from_the_future, point_outside, link_outside, be_no_bundle]
)
def test_a_bundle_that_is_not_intact(damage: Callable[[Path], str], run_copy: Path, cli: Cli) -> None:
    bundle = run_copy / "compact.bundle"
    words = damage(bundle)
    for verb in ("inspect", "bench"):
        refused(cli(verb, bundle), words)


# --- checkpoints ----------------------------------------------------------------------------------------------


def test_a_pickle_is_never_loaded(run_copy: Path, tmp_path: Path, cli: Cli) -> None:
    stage = run_copy / "stages" / "final"
    state = stage / "model.safetensors"
    torch.save({"weight": torch.zeros(1)}, state)
    refused(cli("export", run_copy, tmp_path / "a.bundle"), "model.safetensors is damaged")
    index = json.loads((stage / "checkpoint.json").read_text())
    index["files"]["model.safetensors"] = hashlib.sha256(state.read_bytes()).hexdigest()
    (stage / "checkpoint.json").write_text(json.dumps(index))
    refused(cli("export", run_copy, tmp_path / "a.bundle"), "is not a safetensors file")
    shutil.rmtree(stage)
    torch.save({"weight": torch.zeros(1)}, stage)
    refused(cli("export", run_copy, tmp_path / "a.bundle"), "is a pickle, which can run any code")
    assert not (tmp_path / "a.bundle").exists()


def test_training_refuses_a_pickle_in_the_place_of_its_checkpoint(finished: Run, tmp_path: Path, cli: Cli) -> None:
    pickle = tmp_path / "run" / "stages" / "dense"
    pickle.parent.mkdir(parents=True)
    torch.save({"weight": torch.zeros(1)}, pickle)
    before = pickle.read_bytes()
    refused(cli("train", finished.recipe, "--out", tmp_path / "run"), "is a pickle, which can run any code")
    assert pickle.read_bytes() == before


def test_export_of_what_is_no_finished_run(run_copy: Path, tmp_path: Path, cli: Cli) -> None:
    refused(cli("export", tmp_path, tmp_path / "a.bundle"), "has no recipe.json")
    shutil.rmtree(run_copy / "stages" / "final")
    refused(cli("export", run_copy, tmp_path / "a.bundle"), "holds no checkpoint")
    assert not (tmp_path / "a.bundle").exists()
