"""Checkpoints: what goes in comes out, nothing foreign is opened, and a failed write leaves the old one."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import pickle
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from edgeslim.errors import CheckpointError, TrainingError
from edgeslim.exporter.plan import AxisPlan, FamilyPlan, PruningPlan
from edgeslim.trainer.checkpoint import INDEX, PLAN, Checkpoint, load_checkpoint, save_checkpoint

PLANNED = PruningPlan(
    families=(FamilyPlan(name="a.weight", width=4, keep=(0, 2)),),
    initializers={"a.weight": (AxisPlan(axis=0, width=4, keep=(0, 2), masked=True),)},
)


def sample(step: int = 7) -> Checkpoint:
    generator = torch.Generator().manual_seed(step)
    weight = torch.randn(4, 3, 3, 3, generator=generator)
    return Checkpoint(
        key="ab12",
        step=step,
        finished=False,
        parts={
            "model": {
                "a.weight": weight,
                "a.last": weight.to(memory_format=torch.channels_last),
                "a.count": torch.tensor(3),
                "a.half": torch.arange(4, dtype=torch.bfloat16),
                "a.empty": torch.empty(0, 3),
            },
            "optimizer": {"0.step": torch.tensor(5.0), "0.exp_avg": weight[:, :1], "1.exp_avg": weight.mT},
        },
        numbers={"best_step": 3.0, "best.dice": 0.1 + 0.2},
        plan=PLANNED,
    )


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_checkpoint(tmp_path / "run", sample())
    return tmp_path / "run"


def content(directory: Path) -> dict[str, bytes]:
    return {f.name: f.read_bytes() for f in sorted(directory.iterdir())}


def left_over(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir())


def assert_equal(a: Checkpoint, b: Checkpoint) -> None:
    assert {name: set(part) for name, part in a.parts.items()} == {name: set(part) for name, part in b.parts.items()}
    for name, part in a.parts.items():
        for key, tensor in part.items():
            assert tensor.dtype == b.parts[name][key].dtype
            assert torch.equal(tensor, b.parts[name][key])
    assert dataclasses.replace(a, parts={}) == dataclasses.replace(b, parts={})


def reindexed(path: Path, **changes: object) -> None:
    """Edit the index of a checkpoint."""
    table = json.loads((path / INDEX).read_text())
    for key, value in changes.items():
        if value is ...:
            del table[key]
        else:
            table[key] = value
    (path / INDEX).write_text(json.dumps(table))


def refused(path: Path) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    assert caught.value.exit_code == 1 and caught.value.hint
    return caught.value


# --- there and back --------------------------------------------------------------------------------------------


def test_what_goes_in_comes_out(saved: Path) -> None:
    loaded = load_checkpoint(saved)
    assert_equal(loaded, sample())
    assert loaded.plan == PLANNED
    assert loaded.model is loaded.parts["model"]
    assert left_over(saved) == [INDEX, "model.safetensors", "optimizer.safetensors", PLAN]


def test_the_same_content_gives_the_same_bytes(saved: Path, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "again", sample())
    assert content(tmp_path / "again") == content(saved)
    save_checkpoint(tmp_path / "again", load_checkpoint(saved))
    assert content(tmp_path / "again") == content(saved)


def test_without_a_plan_there_is_none(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "run", dataclasses.replace(sample(), plan=None))
    assert load_checkpoint(tmp_path / "run").plan is None
    assert PLAN not in left_over(tmp_path / "run")


def test_a_checkpoint_is_replaced_as_a_whole(saved: Path) -> None:
    later = dataclasses.replace(sample(9), parts={"model": sample(9).model}, plan=None, finished=True)
    save_checkpoint(saved, later)
    assert_equal(load_checkpoint(saved), later)
    assert left_over(saved) == [INDEX, "model.safetensors"]
    assert left_over(saved.parent) == ["run"]


def test_a_loaded_tensor_is_the_callers_own(saved: Path) -> None:
    load_checkpoint(saved).model["a.weight"].zero_()
    assert load_checkpoint(saved).model["a.weight"].any()


def test_tensors_that_share_memory_are_saved(tmp_path: Path) -> None:
    tied = torch.randn(3, 3)
    parts: Mapping[str, Mapping[str, torch.Tensor]] = {"model": {"a": tied, "b": tied, "c": tied[1:]}}
    save_checkpoint(tmp_path / "run", dataclasses.replace(sample(), parts=parts))
    model = load_checkpoint(tmp_path / "run").model
    assert torch.equal(model["a"], tied) and torch.equal(model["b"], tied) and torch.equal(model["c"], tied[1:])


def test_a_checkpoint_may_be_moved_and_linked(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(saved)
    assert_equal(load_checkpoint(tmp_path / "link"), sample())
    saved.rename(tmp_path / "moved")
    assert_equal(load_checkpoint(tmp_path / "moved"), sample())


# --- pickles ---------------------------------------------------------------------------------------------------


class Attack:
    """Runs code in whoever unpickles it."""

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("attacked"),))


def torch_zip() -> bytes:
    buffer = io.BytesIO()
    torch.save({"weight": torch.zeros(2)}, buffer)
    return buffer.getvalue()


def torch_legacy() -> bytes:
    buffer = io.BytesIO()
    torch.save({"weight": torch.zeros(2)}, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


PICKLES = {"torch.save": torch_zip(), "torch.save, legacy": torch_legacy()} | {
    f"protocol {n}": pickle.dumps(Attack(), protocol=n) for n in range(2, pickle.HIGHEST_PROTOCOL + 1)
}


@pytest.mark.parametrize("kind", PICKLES)
def test_a_pickle_is_named_and_not_opened(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.pt").write_bytes(PICKLES[kind])
    error = refused(tmp_path / "net.pt")
    assert "is a pickle" in error.message and "weights_only=True" in error.hint
    assert left_over(tmp_path) == ["net.pt"]


@pytest.mark.parametrize("kind", PICKLES)
def test_a_pickle_in_safetensors_clothing(saved: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Listed under its true hash, so that only the format itself can refuse it."""
    monkeypatch.chdir(saved.parent)
    (saved / "model.safetensors").write_bytes(PICKLES[kind])
    digest = hashlib.sha256(PICKLES[kind]).hexdigest()
    reindexed(saved, files={"model.safetensors": digest})
    assert "is not a safetensors file" in refused(saved).message
    assert left_over(saved.parent) == ["run"]


# --- damage ----------------------------------------------------------------------------------------------------


def test_a_flipped_byte_anywhere_is_seen(saved: Path) -> None:
    for name, data in content(saved).items():
        if name == INDEX:
            continue
        for place in {0, len(data) // 3, len(data) - 1}:
            flipped = bytearray(data)
            flipped[place] ^= 1
            (saved / name).write_bytes(flipped)
            assert f"{saved / name} is damaged: SHA-256 " in refused(saved).message
        (saved / name).write_bytes(data[:-1])
        assert f"{saved / name} is damaged" in refused(saved).message
        (saved / name).write_bytes(data)
    assert_equal(load_checkpoint(saved), sample())


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", PLAN])
def test_a_missing_file_is_named(saved: Path, name: str) -> None:
    (saved / name).unlink()
    assert refused(saved).message == f"{saved / name} cannot be read: No such file or directory"


def test_a_folder_where_a_file_belongs(saved: Path) -> None:
    (saved / PLAN).unlink()
    (saved / PLAN).mkdir()
    assert f"{saved / PLAN} cannot be read" in refused(saved).message


def test_what_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("empty", "absent"):
        assert refused(tmp_path / name).message == f"{tmp_path / name} holds no checkpoint ({INDEX} is missing)"
    (tmp_path / "notes.txt").write_text("not a checkpoint")
    assert "is a file, a checkpoint is a directory" in refused(tmp_path / "notes.txt").message
    (tmp_path / "nothing").write_bytes(b"")
    assert "is a file, a checkpoint is a directory" in refused(tmp_path / "nothing").message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "cannot be read"),
        (b"[]", "cannot be read"),
        (b"null", "cannot be read"),
        (b"\xff\xfe", "cannot be read"),
        (b"[" * 100_000, "cannot be read"),
        (b'{"schema": 1}', r"$.key: missing"),
        (b'{"schema": "1", "key": "", "step": 1, "finished": true}', "$.schema: str where int belongs"),
        (b'{"key": "", "step": 1.5, "finished": true}', "$.step: float where int belongs"),
        (b'{"key": "", "step": 1, "finished": true, "numbers": {"a": NaN}}', "cannot be read"),
        (b'{"key": "", "step": 1, "finished": true, "files": {}}', "lists no model.safetensors"),
    ],
)
def test_an_index_that_is_none(saved: Path, text: bytes, said: str) -> None:
    (saved / INDEX).write_bytes(text)
    error = refused(saved)
    assert said in error.message and str(saved / INDEX) in error.message


def test_a_newer_schema_is_said_to_be_newer(saved: Path) -> None:
    """Whatever else is in it: of a newer index an unknown key would be the wrong complaint."""
    for changes in ({}, {"compression": "zstd"}, {"key": ...}, {"files": []}):
        reindexed(saved, schema=2, **changes)
        error = refused(saved)
        assert error.message == f"{saved} has schema 2, this edgeslim reads up to 1"
        assert error.hint == "upgrade edgeslim"


def test_no_path_leads_out_of_a_checkpoint(saved: Path) -> None:
    outside = saved.parent / "outside.safetensors"
    data = (saved / "model.safetensors").read_bytes()
    outside.write_bytes(data)
    (saved / "deep").mkdir()
    (saved / "deep" / "inside.safetensors").write_bytes(data)
    (saved / "link.safetensors").symlink_to(outside)
    digest = hashlib.sha256(data).hexdigest()
    names = ("../outside.safetensors", str(outside), "link.safetensors", "deep/../../outside.safetensors", "..", ".")
    for name in (*names, "deep/inside.safetensors"):
        reindexed(saved, files={"model.safetensors": digest, name: digest})
        assert "lies outside its checkpoint" in refused(saved).message, name
    reindexed(saved, files={"model.safetensors": digest})
    assert load_checkpoint(saved).plan is None


# --- writes that fail ------------------------------------------------------------------------------------------

FULL_DISK = """
import pathlib, resource
import torch
from edgeslim.errors import TrainingError
from edgeslim.trainer.checkpoint import Checkpoint, save_checkpoint
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
new = Checkpoint(key="new", step=8, finished=True, parts={"first": {"a": torch.zeros(10)},
                 "model": {"a": torch.zeros(50_000)}})
for name in ("run", "fresh"):
    try:
        save_checkpoint(pathlib.Path(name), new)
    except TrainingError as error:
        print(error.message, "|", error.hint)
"""


def test_a_full_disk_leaves_the_old_checkpoint(saved: Path) -> None:
    before = content(saved)
    child = subprocess.run(
        [sys.executable, "-c", FULL_DISK], cwd=saved.parent, capture_output=True, text=True, timeout=120, check=False
    )
    assert child.returncode == 0, child.stderr
    assert child.stdout.splitlines() == [
        f"checkpoint {name} could not be written: File too large | "
        "free some space; the checkpoint before this one is intact and the run continues from it"
        for name in ("run", "fresh")
    ]
    assert content(saved) == before
    assert left_over(saved.parent) == ["run"]


def test_a_place_that_cannot_be_written(saved: Path) -> None:
    with pytest.raises(TrainingError, match="could not be written: "):
        save_checkpoint(saved / INDEX / "deeper", sample())
    assert_equal(load_checkpoint(saved), sample())
    assert left_over(saved.parent) == ["run"]
