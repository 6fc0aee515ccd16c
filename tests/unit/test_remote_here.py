"""This side of a remote build, without a board: a bundle's pieces, and what is remembered between two calls."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import onnx
import pytest

from edgeslim.errors import BundleError
from edgeslim.exporter.bundle import write_bundle
from edgeslim.exporter.remote.pieces import read_pieces
from edgeslim.exporter.remote.refusals import is_encrypted
from edgeslim.exporter.remote.workstation import state_folder, taking_turns, workstation_id
from edgeslim.runtime import read_bundle

from .conftest import build_manifest, build_model


def test_a_directory_and_its_archive_have_the_same_pieces(intact_bundle: Path, intact_archive: Path) -> None:
    one, other = read_pieces(intact_bundle), read_pieces(intact_archive)
    assert one.manifest_sha256 == other.manifest_sha256 == read_bundle(intact_bundle).manifest_sha256
    assert [piece.name for piece in one.files] == [piece.name for piece in other.files]
    assert one.files[-1].name == "manifest.json"
    for a, b in zip(one.files, other.files):
        assert a.load() == b.load()
        assert (hashlib.sha256(a.load()).hexdigest(), len(a.load())) == (a.sha256, a.size)


def test_a_model_without_its_zeros_needs_an_engine_of_its_full_size(tmp_path: Path) -> None:
    model = build_model(width=64)
    zeros = onnx.load_model_from_string(model)
    weights = onnx.numpy_helper.to_array(zeros.graph.initializer[0]).copy()
    weights[8:] = 0
    zeros.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weights, "weights"))
    model = zeros.SerializeToString()
    pieces = read_pieces(write_bundle(tmp_path / "zeros.bundle", model=model, manifest=build_manifest(64)))
    assert "model.sparse" in [piece.name for piece in pieces.files]
    assert pieces.model_bytes == len(model)


def test_a_damaged_file_is_found_when_it_is_to_be_sent(bundle_copy: Path) -> None:
    (bundle_copy / "golden.npz").write_bytes(b"?" * (bundle_copy / "golden.npz").stat().st_size)
    pieces = {piece.name: piece for piece in read_pieces(bundle_copy).files}
    with pytest.raises(BundleError, match="nothing of it was sent"):
        pieces["golden.npz"].load()
    assert pieces["model.onnx"].load()


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return state_folder()


def test_a_workstation_keeps_its_number(state: Path) -> None:
    first = workstation_id()
    assert len(first) == 12
    assert workstation_id() == first
    (state / "workstation").write_text("../../etc")
    assert workstation_id() not in (first, "../../etc")


class Notes:
    """A progress that keeps notes, and says when it hears one."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.heard = threading.Event()

    def stage(self, name: str, total: int | None = None) -> None:
        """Nothing to show."""

    def step(self, done: int, values: object) -> None:
        """Nothing to show."""

    def note(self, text: str) -> None:
        """Keep it."""
        self.texts.append(text)
        self.heard.set()


def test_the_second_process_waits_and_says_so(state: Path) -> None:
    notes, order = Notes(), []

    def second() -> None:
        with taking_turns("copying", notes):
            order.append("second")

    thread = threading.Thread(target=second)
    with taking_turns("copying", None):
        thread.start()
        assert notes.heard.wait(30)
        order.append("first")
        with taking_turns("something else", None):
            pass
    thread.join()
    assert order == ["first", "second"]
    assert "copying" in notes.texts[0]


@pytest.mark.parametrize(
    ("text", "locked"),
    [
        ("", False),
        ("hello", False),
        ("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n", True),
        ("-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END RSA PRIVATE KEY-----\n", True),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\n!!!\n-----END OPENSSH PRIVATE KEY-----\n", False),
    ],
)
def test_which_keys_are_locked(tmp_path: Path, text: str, locked: bool) -> None:
    (tmp_path / "key").write_text(text)
    assert is_encrypted(tmp_path / "key") == locked
    assert not is_encrypted(tmp_path / "none")
