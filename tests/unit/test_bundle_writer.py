"""Writing bundles: the same bytes every time, never half of one, and never without a certificate."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from edgeslim.errors import BundleError, CertificateError, ExportError
from edgeslim.exporter import bundle as writer
from edgeslim.exporter.bundle import golden_bytes, write_bundle, zip_bytes
from edgeslim.runtime import Certificate, GoldenCase, GoldenSpec, Manifest, read_bundle

Build = Callable[..., Manifest]


def content(bundle: Path) -> dict[str, bytes]:
    return {str(f.relative_to(bundle)): f.read_bytes() for f in sorted(bundle.rglob("*")) if f.is_file()}


def left_over(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_the_same_input_gives_the_same_bytes(
    tmp_path: Path, intact_bundle: Path, intact_archive: Path, write_tiny_bundle: Callable[..., Path]
) -> None:
    assert content(write_tiny_bundle(tmp_path / "other")) == content(intact_bundle)
    archive = write_tiny_bundle(tmp_path / "other.zip", archive=True)
    assert archive.read_bytes() == intact_archive.read_bytes()


def test_the_writer_fills_in_version_and_hashes(intact_bundle: Path, tiny_manifest: Build) -> None:
    manifest = read_bundle(intact_bundle).manifest
    assert manifest.written_by
    assert list(manifest.files) == ["docs/report.html", "golden.npz", "model.onnx"]
    draft = tiny_manifest(2, GoldenSpec(atol=1e-5, rtol=1e-4))
    assert dataclasses.replace(manifest, written_by="", files={}) == draft


def test_a_bundle_is_replaced(tmp_path: Path, write_tiny_bundle: Callable[..., Path]) -> None:
    for seed in (0, 1):
        assert write_tiny_bundle(tmp_path / "net.bundle", seed=seed) == tmp_path / "net.bundle"
        assert write_tiny_bundle(tmp_path / "net.zip", seed=seed, archive=True) == tmp_path / "net.zip"
    assert read_bundle(tmp_path / "net.bundle").files == read_bundle(tmp_path / "net.zip").files
    assert left_over(tmp_path) == ["net.bundle", "net.zip"]


def test_no_bundle_without_a_certificate_that_passed(tmp_path: Path, tiny_manifest: Build) -> None:
    manifest = tiny_manifest()
    failed = dataclasses.replace(manifest.certificate.stages[0], max_abs=None, passed=False)
    for stages, said in (((), "the certificate is empty"), ((failed,), r"stages \['compact torch'\] failed")):
        unproven = dataclasses.replace(manifest, certificate=Certificate(stages=stages))
        with pytest.raises(CertificateError, match=said):
            write_bundle(tmp_path / "net", model=b"", manifest=unproven)
    assert left_over(tmp_path) == []


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"model.onnx": b""}, "is written here"),
        ({"manifest.json": b""}, "is written here"),
        ({"../evil": b""}, "no plain path"),
        ({"/evil": b""}, "no plain path"),
        ({}, "names golden.npz, which is not in files"),
    ],
)
def test_files_that_do_not_fit(tmp_path: Path, tiny_manifest: Build, files: dict[str, bytes], said: str) -> None:
    manifest = tiny_manifest(2, GoldenSpec(atol=0.0, rtol=0.0))
    with pytest.raises(ExportError, match=said):
        write_bundle(tmp_path / "net", model=b"", manifest=manifest, files=files)
    assert left_over(tmp_path) == []


def test_a_file_inside_a_file_is_refused(tmp_path: Path, tiny_manifest: Build) -> None:
    with pytest.raises(ExportError, match="a is a file and a folder"):
        write_bundle(tmp_path / "net", model=b"", manifest=tiny_manifest(), files={"a": b"", "a/b": b""})
    assert left_over(tmp_path) == []


def test_what_is_no_bundle_is_not_replaced(tmp_path: Path, tiny_manifest: Build) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "holiday.jpg").write_bytes(b"jpg")
    (tmp_path / "file").write_bytes(b"file")
    for name, archive, said in (
        ("photos", False, "a folder with other content"),
        ("photos", True, "is a directory"),
        ("file", False, "is a file"),
    ):
        with pytest.raises(ExportError, match=said):
            write_bundle(tmp_path / name, model=b"m", manifest=tiny_manifest(), archive=archive)
    assert content(tmp_path) == {"file": b"file", "photos/holiday.jpg": b"jpg"}


def test_an_empty_folder_is_taken(tmp_path: Path, tiny_manifest: Build) -> None:
    (tmp_path / "net").mkdir()
    assert read_bundle(write_bundle(tmp_path / "net", model=b"m", manifest=tiny_manifest())).model == b"m"


def test_a_link_to_a_bundle_is_followed(tmp_path: Path, tiny_manifest: Build) -> None:
    write_bundle(tmp_path / "v1", model=b"old", manifest=tiny_manifest())
    (tmp_path / "current").symlink_to("v1")
    write_bundle(tmp_path / "current", model=b"new", manifest=tiny_manifest())
    assert read_bundle(tmp_path / "v1").model == b"new"
    assert left_over(tmp_path) == ["current", "v1"]


def test_a_draft_that_does_not_read_back_is_not_shipped(
    tmp_path: Path, tiny_manifest: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bundle(tmp_path / "net", model=b"old", manifest=tiny_manifest())

    def damaged(path: Path) -> None:
        raise BundleError("planted fault", "none")

    monkeypatch.setattr(writer, "read_bundle", damaged)
    with pytest.raises(BundleError, match="planted fault"):
        write_bundle(tmp_path / "net", model=b"new", manifest=tiny_manifest())
    assert read_bundle(tmp_path / "net").model == b"old"
    assert left_over(tmp_path) == ["net"]


FULL_DISK = """
import resource, sys
from edgeslim.errors import ExportError
from edgeslim.exporter.bundle import write_bundle
from edgeslim.runtime import read_bundle
for name, archive in (("net.bundle", False), ("net.zip", True)):
    old = read_bundle(name)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
    try:
        write_bundle(name, model=bytes(200_000), manifest=old.manifest, files={"golden.npz": b""}, archive=archive)
    except ExportError as error:
        print(error.message, "|", error.hint)
    else:
        sys.exit("the write did not fail")
"""


def test_a_full_disk_leaves_the_old_bundle(tmp_path: Path, write_tiny_bundle: Callable[..., Path]) -> None:
    write_tiny_bundle(tmp_path / "net.bundle")
    write_tiny_bundle(tmp_path / "net.zip", archive=True)
    before = read_bundle(tmp_path / "net.bundle").files
    child = subprocess.run(
        [sys.executable, "-c", FULL_DISK], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert child.returncode == 0, child.stderr
    assert child.stdout.count("could not be written: File too large | free some space") == 2
    assert left_over(tmp_path) == ["net.bundle", "net.zip"]
    assert read_bundle(tmp_path / "net.bundle").files == before == read_bundle(tmp_path / "net.zip").files


KILLED = """
import os, pathlib, signal
from edgeslim.exporter.bundle import write_bundle
from edgeslim.runtime import read_bundle
old = read_bundle("net.bundle")
write, count = pathlib.Path.write_bytes, 0
def killed(path, data):
    global count
    count += 1
    if count == 2:
        write(path, data[: len(data) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
    return write(path, data)
pathlib.Path.write_bytes = killed
write_bundle("net.bundle", model=b"new", manifest=old.manifest, files={"golden.npz": b"new"})
"""


def test_a_killed_process_leaves_the_old_bundle(tmp_path: Path, write_tiny_bundle: Callable[..., Path]) -> None:
    before = read_bundle(write_tiny_bundle(tmp_path / "net.bundle"))
    child = subprocess.run([sys.executable, "-c", KILLED], cwd=tmp_path, timeout=60, check=False)
    assert child.returncode == -9
    assert read_bundle(tmp_path / "net.bundle") == before


def test_golden_bytes_are_plain_npz() -> None:
    frames = np.arange(24, dtype=np.uint8).reshape(1, 2, 4, 3)[:, :, ::-1]
    cases = [GoldenCase(inputs={"frame": frames}, outputs={"y": np.float32([1.5])})] * 2
    data = golden_bytes(cases)
    assert data == golden_bytes(cases)
    with np.load(BytesIO(data), allow_pickle=False) as arrays:
        assert sorted(arrays.files) == ["0/inputs/frame", "0/outputs/y", "1/inputs/frame", "1/outputs/y"]
        np.testing.assert_array_equal(arrays["0/inputs/frame"], frames)
    with pytest.raises(ExportError, match="'frame' has dtype object"):
        golden_bytes([GoldenCase(inputs={"frame": np.array([None])}, outputs={})])


def test_archives_have_no_date_and_no_compression() -> None:
    data = zip_bytes({"b": b"2", "a": b"1"})
    assert data == zip_bytes({"a": b"1", "b": b"2"})
    with zipfile.ZipFile(BytesIO(data)) as archive:
        assert archive.namelist() == ["a", "b"]
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
