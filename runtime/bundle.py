"""A verified bundle in memory: every file was read once, hashed, and is handed on as those very bytes.

Nothing is loaded from disk after the check, so there is no moment in which a file could be exchanged between
being verified and being used. A hash proves that the bundle is the one that was written, not who wrote it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgeslim.errors import BundleError, ConfigError

from .golden import GoldenCase, parse_golden
from .manifest import MANIFEST_NAME, FileEntry, GoldenSpec, Manifest, SparseSpec, parse_manifest
from .sources import ArchiveSource, Source, open_source
from .sparse import restore
from .variants import MODEL, Variant

_MANIFEST_LIMIT = 16 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A manifest and the bytes of every file it lists. Made by `read_bundle`, which verifies them.

    A model that is stored without its zeros is here as it was before, in the place of its sparse form.
    """

    path: Path
    manifest: Manifest
    manifest_sha256: str
    """SHA-256 of the manifest's text, which names the whole content by its hashes."""
    files: Mapping[str, bytes]

    @property
    def model(self) -> bytes:
        """The graph, as ONNX bytes."""
        return self.files[self.manifest.model]

    def variant(self, name: str) -> Variant | None:
        """The variant `name`, or None for the model itself ("fp32"). Raises ConfigError where there is none."""
        if name == MODEL:
            return None
        for variant in self.manifest.variants:
            if variant.name == name:
                return variant
        names = ", ".join((MODEL, *(variant.name for variant in self.manifest.variants)))
        raise ConfigError(
            f"{self.path} has no precision {name!r}; it has: {names}",
            f"make it with `edgeslim quantize {self.path} --precision {name}`, or choose one of these",
        )

    def graph(self, name: str = MODEL) -> bytes:
        """The ONNX bytes of the model in precision `name`. Raises ConfigError where there is none."""
        variant = self.variant(name)
        return self.model if variant is None else self.files[variant.file]

    def golden_spec(self, name: str = MODEL) -> GoldenSpec:
        """How closely precision `name` must reproduce the golden vectors. Raises BundleError, ConfigError."""
        golden, variant = self.manifest.golden, self.variant(name)
        if golden is None:
            raise BundleError(f"{self.path}: the bundle has no golden vectors", "export it again with golden inputs")
        return golden if variant is None else dataclasses.replace(golden, atol=variant.atol, rtol=variant.rtol)

    def golden_cases(self) -> tuple[GoldenCase, ...]:
        """The golden vectors. Raises BundleError where the bundle has none or they are malformed."""
        file = self.golden_spec().file
        return parse_golden(self.files[file], f"{self.path}: {file}")


def read_bundle(path: str | os.PathLike[str]) -> Bundle:
    """Read and verify a bundle, a directory or a single-file archive.

    Raises BundleError for anything but an intact bundle: see the message and its hint.
    """
    place = Path(path)
    with open_source(place) as source:
        return _verified(place, source)


def read_archive(data: bytes, path: str | os.PathLike[str]) -> Bundle:
    """Read and verify an archive that is already in memory; `path` only names it. Raises BundleError."""
    place = Path(path)
    with ArchiveSource(place, io.BytesIO(data)) as source:
        return _verified(place, source)


def _verified(path: Path, source: Source) -> Bundle:
    text = source.read(MANIFEST_NAME, _MANIFEST_LIMIT)
    if len(text) > _MANIFEST_LIMIT:
        raise BundleError(
            f"{path}: {MANIFEST_NAME} is longer than {_MANIFEST_LIMIT} bytes",
            "this is no manifest: export again",
        )
    manifest = parse_manifest(text, str(path))
    needed = {manifest.stored_model, *(variant.file for variant in manifest.variants)}
    needed |= {manifest.golden.file} if manifest.golden else set()
    for name in sorted(needed - manifest.files.keys()):
        raise BundleError(
            f"{path}: the manifest names {name} but lists no hash for it",
            "the manifest was edited: export it again",
        )
    for name in source.unlisted({MANIFEST_NAME, *manifest.files}):
        raise BundleError(
            f"{path}: the archive holds {name}, which its manifest does not list", "write the archive again"
        )
    files = {name: _checked(path, source, name, entry) for name, entry in manifest.files.items()}
    if manifest.sparse is not None:
        files[manifest.model] = _restored(path, manifest.sparse, files.pop(manifest.sparse.file))
    return Bundle(path=path, manifest=manifest, manifest_sha256=hashlib.sha256(text).hexdigest(), files=files)


def _checked(path: Path, source: Source, name: str, entry: FileEntry) -> bytes:
    data = source.read(name, entry.bytes)
    if len(data) != entry.bytes:
        seen = "more" if len(data) > entry.bytes else str(len(data))
        raise BundleError(
            f"{path}: {name} has {seen} bytes, the manifest says {entry.bytes}",
            "the copy is incomplete or was changed: copy the bundle again",
        )
    digest = hashlib.sha256(data).hexdigest()
    if digest != entry.sha256:
        raise BundleError(
            f"{path}: {name} has SHA-256 {digest}, the manifest says {entry.sha256}",
            "the file was changed or damaged: copy the bundle again, or export it again",
        )
    return data


def _restored(path: Path, spec: SparseSpec, data: bytes) -> bytes:
    model = restore(data, spec.model.bytes, f"{path}: {spec.file}")
    digest = hashlib.sha256(model).hexdigest()
    if digest != spec.model.sha256:
        raise BundleError(
            f"{path}: {spec.file} restores a model with SHA-256 {digest}, the manifest says {spec.model.sha256}",
            "the file was changed or damaged: copy the bundle again, or export it again",
        )
    return model
