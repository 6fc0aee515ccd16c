"""The whole way on a board that is well: copied, built there, brought back; again, and from two sides at once."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import threading
import time
from pathlib import Path

import pytest

from edgeslim.runtime import read_bundle

from .conftest import Bench

BOTH_WAYS = pytest.mark.parametrize("way", ["sftp", "exec"], indirect=True)


@BOTH_WAYS
def test_an_engine_is_built_there_and_brought_back(bench: Bench, bundle: Path, way: str) -> None:
    done = bench.build(bundle, "--precision", "fp16")
    (engine,) = done.engines
    assert engine.precision == "fp16"
    assert engine.engine.parent == bench.cache
    data = engine.engine.read_bytes()
    assert (hashlib.sha256(data).hexdigest(), len(data)) == (engine.sha256, engine.bytes)
    assert json.loads(engine.sidecar.read_text())["sha256"] == engine.sha256
    assert done.report == {"board": "stand-in"}
    assert json.loads(done.report_path.read_text())["doctor"] == done.report
    copy = bench.folder / "bundles" / read_bundle(bundle).manifest_sha256
    assert read_bundle(copy).files == read_bundle(bundle).files
    assert bench.calls() == [f"{copy} --cache {bench.folder}/engines --json --precision fp16"]
    assert done.sent.way == way
    assert done.sent.moved_bytes == sum(path.stat().st_size for path in bundle.rglob("*") if path.is_file())
    assert f"{bench.address().shown}: reading the bundle" in bench.heard.notes
    assert any("no SFTP" in note for note in bench.heard.notes) == (way == "exec")
    assert sorted(path.name for path in bench.cache.iterdir()) == sorted(
        [engine.engine.name, engine.sidecar.name, done.report_path.name]
    )


def test_names_that_shells_trip_over_are_only_names(bench: Bench, bundle: Path) -> None:
    bench.build(bundle)
    assert bench.folder.is_dir()
    assert not list(bench.folder.parent.rglob("trap"))
    assert not (Path.home() / "trap").exists()


def test_the_second_call_copies_nothing(bench: Bench, bundle: Path) -> None:
    first = bench.build(bundle)
    again = bench.build(bundle)
    assert (again.sent.moved_bytes, again.sent.there_bytes) == (0, first.sent.moved_bytes)
    assert [one.moved_bytes for one in again.fetched] == [0, 0]
    assert any("was there already" in note for note in bench.heard.notes)


def test_an_archive_and_its_directory_share_one_copy(bench: Bench, bundle: Path, tmp_path: Path) -> None:
    from edgeslim.exporter.bundle import write_bundle

    from ..unit.conftest import build_manifest, build_model

    archive = write_bundle(
        tmp_path / "tiny.zip",
        model=build_model(),
        manifest=build_manifest(),
        files={"docs/report.html": b"<p>fine</p>"},
        archive=True,
    )
    bench.build(bundle)
    assert bench.build(archive).sent.moved_bytes == 0


def test_a_file_that_was_changed_there_is_copied_again(bench: Bench, bundle: Path) -> None:
    bench.build(bundle)
    (model,) = bench.folder.glob("bundles/*/model.onnx")
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 1
    model.write_bytes(data)
    assert bench.build(bundle).sent.moved_bytes == len(data)
    assert model.read_bytes() != data


def test_parts_that_nobody_went_on_with_are_removed(bench: Bench, bundle: Path) -> None:
    bench.build(bundle)
    (copy,) = (bench.folder / "bundles").iterdir()
    for name, days in (("old", 15), ("new", 1)):
        part = copy / f"{name}.part"
        part.touch()
        then = time.time() - days * 24 * 3600
        os.utime(part, (then, then))
    bench.build(bundle)
    assert [name for name in bench.stored() if name.endswith(".part")] == ["new.part"]


def test_permissions_follow_the_umask_there(bench: Bench, bundle: Path) -> None:
    bench.build(bundle)
    (model,) = bench.folder.glob("bundles/*/model.onnx")
    (other := bench.folder / "other").touch()
    assert stat.S_IMODE(model.stat().st_mode) == stat.S_IMODE(other.stat().st_mode) & 0o666


def test_the_usual_folder_is_that_of_a_cache(
    bench: Bench, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache there"
    text = bench.python.read_text()
    bench.python.write_text(text.replace("#!/bin/sh\n", f"#!/bin/sh\nexport XDG_CACHE_HOME='{cache}'\n"))
    done = bench.build(bundle, directory=None)
    assert done.folder == str(cache / "edgeslim")
    assert list(cache.glob("edgeslim/bundles/*/manifest.json"))


@BOTH_WAYS
def test_two_workstations_at_once(
    bench: Bench, large_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has its own parts; whoever is second finds the first one's files, or replaces them by the same."""
    from edgeslim.exporter.remote import build

    names = iter(["aaaaaaaaaaaa", "bbbbbbbbbbbb"])
    monkeypatch.setattr(build, "workstation_id", lambda: next(names))
    # As if they were two machines, they do not wait for each other.
    turns = iter(["one", "two"])
    real = build.taking_turns
    monkeypatch.setattr(build, "taking_turns", lambda what, progress: real(what + next(turns), progress))
    failures: list[BaseException] = []

    def work() -> None:
        try:
            bench.build(large_bundle)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures
    (copy,) = (bench.folder / "bundles").iterdir()
    assert read_bundle(copy).files == read_bundle(large_bundle).files
    assert not [name for name in bench.stored() if name.endswith(".part")]
    (engine,) = bench.cache.glob("*.engine")
    assert engine.name.startswith(hashlib.sha256(engine.read_bytes()).hexdigest()[:16])
