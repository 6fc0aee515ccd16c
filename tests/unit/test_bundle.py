"""Reading bundles: an intact one is handed on as its verified bytes, every planted fault is refused by name."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import stat
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeslim.errors import BundleError
from edgeslim.exporter.bundle import zip_bytes
from edgeslim.runtime import Bundle, read_archive, read_bundle


def members(bundle: Path) -> dict[str, bytes]:
    """All files of a bundle's directory, by their relative path."""
    return {str(file.relative_to(bundle)): file.read_bytes() for file in sorted(bundle.rglob("*")) if file.is_file()}


def refuse(path: Path, said: str) -> None:
    with pytest.raises(BundleError, match=said) as caught:
        read_bundle(path)
    assert str(path) in caught.value.message
    assert caught.value.hint


def test_directory_and_archive_hold_the_same(intact_bundle: Path, intact_archive: Path) -> None:
    directory, archive = read_bundle(intact_bundle), read_bundle(str(intact_archive))
    assert dataclasses.replace(archive, path=intact_bundle) == directory
    assert directory.manifest_sha256 == hashlib.sha256((intact_bundle / "manifest.json").read_bytes()).hexdigest()
    assert sorted(directory.files) == ["docs/report.html", "golden.npz", "model.onnx"]
    assert directory.model == (intact_bundle / "model.onnx").read_bytes()


def test_golden_vectors_are_read(intact_bundle: Path) -> None:
    (case,) = read_bundle(intact_bundle).golden_cases()
    assert case.inputs["frame"].shape == (2, 16, 24, 3)
    assert case.outputs["logits"].shape == (2, 2, 16, 24)


def test_what_is_read_is_not_read_again(bundle_copy: Path) -> None:
    bundle = read_bundle(bundle_copy)
    before = bundle.model
    shutil.rmtree(bundle_copy)
    assert bundle.model == before


@pytest.mark.parametrize("name", ["model.onnx", "golden.npz", "docs/report.html"])
def test_a_flipped_byte(bundle_copy: Path, name: str) -> None:
    data = bytearray((bundle_copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (bundle_copy / name).write_bytes(data)
    refuse(bundle_copy, f"{name} has SHA-256 [0-9a-f]{{64}}, the manifest says [0-9a-f]{{64}}")


@given(st.data())
def test_a_flipped_bit_of_an_archive(intact_archive: Path, data: st.DataObject) -> None:
    content = bytearray(intact_archive.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    try:
        bundle = read_archive(bytes(content), "here")
    except BundleError:
        return
    # ZIP has fields that mean nothing here, such as dates; what was handed on must be the intact content.
    intact = read_bundle(intact_archive)
    assert (bundle.manifest, dict(bundle.files)) == (intact.manifest, dict(intact.files))


@given(st.binary(max_size=200))
def test_bytes_that_are_no_archive(data: bytes) -> None:
    with pytest.raises(BundleError):
        read_archive(data, "here")
    with pytest.raises(BundleError):
        read_archive(b"PK\x03\x04" + data, "here")


@given(st.floats(0, 1, exclude_max=True))
def test_a_truncated_archive(intact_archive: Path, share: float) -> None:
    content = intact_archive.read_bytes()
    with pytest.raises(BundleError):
        read_archive(content[: int(len(content) * share)], "here")


def test_a_missing_file(bundle_copy: Path) -> None:
    (bundle_copy / "docs/report.html").unlink()
    refuse(bundle_copy, r"the file docs/report\.html is missing")
    shutil.rmtree(bundle_copy / "docs")
    refuse(bundle_copy, r"the file docs/report\.html is missing")


def test_a_missing_manifest(bundle_copy: Path) -> None:
    (bundle_copy / "manifest.json").unlink()
    refuse(bundle_copy, "is not a bundle: it has no manifest.json")


@pytest.mark.parametrize(("change", "said"), [(b"x", "has more bytes"), (None, r"has \d+ bytes, the manifest says")])
def test_another_size(bundle_copy: Path, change: bytes | None, said: str) -> None:
    model = bundle_copy / "model.onnx"
    model.write_bytes(model.read_bytes()[:-1] if change is None else model.read_bytes() + change)
    refuse(bundle_copy, said)


@pytest.mark.parametrize("claim", [10**15, 10**30])
def test_a_size_that_no_machine_can_hold(bundle_copy: Path, tmp_path: Path, claim: int) -> None:
    table = json.loads((bundle_copy / "manifest.json").read_text())
    table["files"]["model.onnx"]["bytes"] = claim
    (bundle_copy / "manifest.json").write_text(json.dumps(table))
    refuse(bundle_copy, rf"model\.onnx has \d+ bytes, the manifest says {claim}")
    (tmp_path / "claim.zip").write_bytes(zip_bytes(members(bundle_copy)))
    refuse(tmp_path / "claim.zip", rf"model\.onnx has \d+ bytes, the manifest says {claim}")


def test_a_manifest_without_a_hash_for_the_model(bundle_copy: Path) -> None:
    table = json.loads((bundle_copy / "manifest.json").read_text())
    del table["files"]["model.onnx"]
    (bundle_copy / "manifest.json").write_text(json.dumps(table))
    refuse(bundle_copy, r"names model\.onnx but lists no hash")


def test_a_newer_schema(bundle_copy: Path) -> None:
    (bundle_copy / "manifest.json").write_text('{"schema": 7, "written_by": "7.0.0", "new": []}')
    refuse(bundle_copy, r"schema 7, written by edgeslim 7\.0\.0")


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a\\..\\secret", "docs/../../secret"])
def test_a_path_that_leads_out_of_the_bundle(bundle_copy: Path, name: str) -> None:
    secret = bundle_copy.parent / "secret"
    secret.write_bytes(b"secret")
    table = json.loads((bundle_copy / "manifest.json").read_text())
    table["files"][name] = {"sha256": hashlib.sha256(b"secret").hexdigest(), "bytes": 6}
    (bundle_copy / "manifest.json").write_text(json.dumps(table))
    refuse(bundle_copy, "is not a plain relative path inside the bundle")


def test_a_symbolic_link_out_of_the_bundle(bundle_copy: Path) -> None:
    outside = bundle_copy.parent / "outside.onnx"
    (bundle_copy / "model.onnx").rename(outside)
    (bundle_copy / "model.onnx").symlink_to(outside)
    refuse(bundle_copy, r"'model\.onnx' on the way to model\.onnx is a symbolic link")


def test_a_folder_that_is_a_symbolic_link(bundle_copy: Path) -> None:
    outside = bundle_copy.parent / "outside"
    (bundle_copy / "docs").rename(outside)
    (bundle_copy / "docs").symlink_to(outside)
    refuse(bundle_copy, r"'docs' on the way to docs/report\.html is a symbolic link")


def test_a_bundle_reached_by_a_symbolic_link(intact_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to(intact_bundle)
    assert read_bundle(tmp_path / "current").manifest.name == "tiny"


def test_a_fifo_does_not_block(bundle_copy: Path) -> None:
    (bundle_copy / "model.onnx").unlink()
    os.mkfifo(bundle_copy / "model.onnx")
    refuse(bundle_copy, r"model\.onnx is not a regular file")
    os.mkfifo(bundle_copy.parent / "pipe")
    refuse(bundle_copy.parent / "pipe", "neither a directory nor a regular file")


def test_a_folder_in_place_of_a_file(bundle_copy: Path) -> None:
    (bundle_copy / "model.onnx").unlink()
    (bundle_copy / "model.onnx").mkdir()
    refuse(bundle_copy, r"model\.onnx is not a regular file")


def test_an_unreadable_manifest_size(bundle_copy: Path) -> None:
    with (bundle_copy / "manifest.json").open("ab") as file:
        file.truncate(2**24 + 1)
    refuse(bundle_copy, "manifest.json is longer than")


def test_nothing_there(tmp_path: Path) -> None:
    refuse(tmp_path / "none", "no bundle at")
    (tmp_path / "net.onnx").write_bytes(b"\x08\x0a")
    refuse(tmp_path / "net.onnx", "neither a directory nor a readable ZIP")


def test_built_engines_may_stand_beside_the_listed_files(bundle_copy: Path) -> None:
    (bundle_copy / "engines").mkdir()
    (bundle_copy / "engines" / "here.plan").write_bytes(b"built on this device")
    assert "engines/here.plan" not in read_bundle(bundle_copy).files


def write_zip(path: Path, entries: list[tuple[zipfile.ZipInfo | str, bytes]], method: int = zipfile.ZIP_STORED) -> Path:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for entry, data in entries:
            archive.writestr(entry, data)
    path.write_bytes(buffer.getvalue())
    return path


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a\\evil", "C:/evil", "./evil", "a//evil", "évil"])
def test_an_archive_entry_that_escapes(intact_bundle: Path, tmp_path: Path, name: str) -> None:
    entries = [*members(intact_bundle).items(), (name, b"evil")]
    refuse(write_zip(tmp_path / "evil.zip", list(entries)), "is no plain path inside a bundle")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_archive_entry_twice(intact_bundle: Path, tmp_path: Path) -> None:
    entries = [*members(intact_bundle).items(), ("model.onnx", b"another")]
    refuse(write_zip(tmp_path / "twice.zip", list(entries)), r"has 'model\.onnx' twice")


def test_an_archive_entry_that_is_a_link(intact_bundle: Path, tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    entries = [*members(intact_bundle).items(), (link, b"/etc/passwd")]
    refuse(write_zip(tmp_path / "link.zip", list(entries)), "'link' is a symbolic link")


def test_an_archive_entry_that_the_manifest_does_not_list(intact_bundle: Path, tmp_path: Path) -> None:
    entries = [*members(intact_bundle).items(), ("extra.bin", b"extra")]
    refuse(write_zip(tmp_path / "extra.zip", list(entries)), r"holds extra\.bin, which its manifest does not list")


def test_an_archive_entry_that_is_missing(intact_bundle: Path, tmp_path: Path) -> None:
    content = members(intact_bundle)
    del content["golden.npz"]
    (tmp_path / "less.zip").write_bytes(zip_bytes(content))
    refuse(tmp_path / "less.zip", r"the file golden\.npz is missing")


def test_a_compressed_archive_cannot_be_a_bomb(intact_bundle: Path, tmp_path: Path) -> None:
    entries = [*members(intact_bundle).items(), ("bomb", bytes(2**20))]
    path = write_zip(tmp_path / "bomb.zip", list(entries), zipfile.ZIP_DEFLATED)
    refuse(path, "is compressed .*; a bundle's archive stores its files as they are")


def test_entries_that_overlap_cannot_claim_more_than_there_is(intact_bundle: Path, tmp_path: Path) -> None:
    # Ten directory records that all point at one stored entry: 10 MB out of 1 MB, as in "A better zip bomb".
    data = bytearray(zip_bytes({f"file{number}": bytes(2**20 if number == 0 else 0) for number in range(10)}))
    for number in range(1, 10):
        record = data.index(b"PK\x01\x02", data.index(f"file{number}".encode(), 2**20 + 100) - 46 - 4)
        first = data.index(b"PK\x01\x02")
        data[record + 16 : record + 28] = data[first + 16 : first + 28]
    (tmp_path / "overlap.zip").write_bytes(data)
    refuse(tmp_path / "overlap.zip", r"the entries claim \d+ bytes, the archive has \d+")


def test_an_entry_longer_than_the_manifest_says(intact_bundle: Path, tmp_path: Path) -> None:
    content = members(intact_bundle)
    content["docs/report.html"] += b"more"
    (tmp_path / "long.zip").write_bytes(zip_bytes(content))
    refuse(tmp_path / "long.zip", r"docs/report\.html has more bytes, the manifest says 11")


def test_an_archive_packed_by_hand(intact_bundle: Path, tmp_path: Path) -> None:
    entries = [("docs/", b""), *members(intact_bundle).items()]
    assert read_bundle(write_zip(tmp_path / "hand.zip", list(entries))).files == read_bundle(intact_bundle).files


def with_golden(bundle: Bundle, data: bytes) -> Bundle:
    return dataclasses.replace(bundle, files={**bundle.files, "golden.npz": data})


def test_golden_vectors_are_never_unpickled(intact_bundle: Path) -> None:
    buffer = BytesIO()
    np.savez(buffer, **{"0/inputs/frame": np.array([{"a": 1}], dtype=object)})
    bundle = with_golden(read_bundle(intact_bundle), buffer.getvalue())
    with pytest.raises(BundleError, match="is not a file of golden vectors: Object arrays cannot be loaded"):
        bundle.golden_cases()


@pytest.mark.parametrize("key", ["frame", "0/frame", "zero/inputs/frame", "1/inputs/frame", "0/between/frame"])
def test_golden_vectors_with_other_names(intact_bundle: Path, key: str) -> None:
    buffer = BytesIO()
    np.savez(buffer, **{key: np.zeros(1)})
    with pytest.raises(BundleError, match="golden"):
        with_golden(read_bundle(intact_bundle), buffer.getvalue()).golden_cases()


def test_a_bundle_without_golden_vectors_says_so(intact_bundle: Path) -> None:
    bundle = read_bundle(intact_bundle)
    bundle = dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, golden=None))
    with pytest.raises(BundleError, match="no golden vectors"):
        bundle.golden_cases()
