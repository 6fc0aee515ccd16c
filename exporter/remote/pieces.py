"""The files of a bundle as they go over the wire: every one checked against the manifest before it is sent.

A directory and an archive of the same bundle give the same pieces, so the board keeps one copy, named by the hash of
the manifest, which in turn names every file by its hash. The manifest goes last: a folder that has it is complete.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgeslim.errors import BundleError
from edgeslim.runtime.manifest import MANIFEST_NAME, Manifest, parse_manifest
from edgeslim.runtime.sources import open_source

_MANIFEST_LIMIT = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One file of a bundle; `load` reads it and raises BundleError where it is not what the manifest says."""

    name: str
    sha256: str
    size: int
    """Bytes."""
    load: Callable[[], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pieces:
    """A bundle's files, the manifest last."""

    manifest: Manifest
    manifest_sha256: str
    files: tuple[Piece, ...]

    @property
    def model_bytes(self) -> int:
        """Size of the ONNX file that the engine is built from."""
        spec = self.manifest.sparse
        return spec.model.bytes if spec is not None else self.manifest.files[self.manifest.model].bytes


def read_pieces(path: Path) -> Pieces:
    """What a bundle consists of. Raises BundleError where its manifest is damaged or missing."""
    with open_source(path) as source:
        text = source.read(MANIFEST_NAME, _MANIFEST_LIMIT)
    if len(text) > _MANIFEST_LIMIT:
        raise BundleError(f"{path}: {MANIFEST_NAME} is longer than {_MANIFEST_LIMIT} bytes", "export the bundle again")
    manifest = parse_manifest(text, str(path))
    digest = hashlib.sha256(text).hexdigest()
    files = [
        Piece(name=name, sha256=entry.sha256, size=entry.bytes, load=_loader(path, name, entry.sha256, entry.bytes))
        for name, entry in manifest.files.items()
    ]
    last = Piece(name=MANIFEST_NAME, sha256=digest, size=len(text), load=lambda: text)
    return Pieces(manifest=manifest, manifest_sha256=digest, files=(*files, last))


def _loader(path: Path, name: str, sha256: str, size: int) -> Callable[[], bytes]:
    def load() -> bytes:
        with open_source(path) as source:
            data = source.read(name, size)
        seen = hashlib.sha256(data).hexdigest()
        if seen != sha256:
            raise BundleError(
                f"{path}: {name} has SHA-256 {seen}, the manifest says {sha256}; nothing of it was sent",
                "the file was changed or damaged: copy the bundle again, or export it again",
            )
        return data

    return load
