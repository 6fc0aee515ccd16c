"""Write a bundle: fill in the hashes, read the draft back as a device would, then move it into place.

The same content gives the same bytes: the manifest has no time stamp, and archives (the bundle's own, and
the NPZ of golden vectors) are written with sorted names, no compression, and the earliest date ZIP knows.
What was at the destination stays intact until the new bundle is complete on the disk.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np

from edgeslim import schema
from edgeslim.atomic import replaced_directory, write_bytes
from edgeslim.errors import CertificateError, ExportError
from edgeslim.runtime.bundle import read_archive, read_bundle
from edgeslim.runtime.golden import GoldenCase, entry_name
from edgeslim.runtime.manifest import MANIFEST_NAME, SCHEMA, FileEntry, Manifest, SparseSpec, is_file_name
from edgeslim.runtime.variants import Variant

from .sparse import sparse_form

SPARSE = "model.sparse"
_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)


def write_bundle(
    path: str | os.PathLike[str],
    *,
    model: bytes,
    manifest: Manifest,
    files: Mapping[str, bytes] | None = None,
    archive: bool = False,
    sparse: bool = True,
) -> Path:
    """Write the bundle `path`, a directory or, with `archive`, a single file, and return that path.

    model: ONNX bytes with all weights inside.  manifest: its `schema`, `written_by`, `sparse` and `files` are
    filled in here.  files: the further files (golden vectors, report) by their path in the bundle.  sparse: leave
    the zeros of the weights out where that is smaller; the model comes back bit for bit.
    Raises CertificateError without a certificate that passed, ExportError where the parts do not fit
    together, something that is no bundle stands at `path`, or the disk is full; `path` is then untouched.
    """
    if not manifest.certificate.passed:
        failed = [stage.name for stage in manifest.certificate.stages if not stage.passed]
        raise CertificateError(
            f"bundle {manifest.name!r}: " + (f"the stages {failed} failed" if failed else "the certificate is empty"),
            "nothing is shipped without a proof of equality: see the certificate's errors",
        )
    content = _content(model, manifest, files or {}, sparse)
    try:
        target = Path(path).resolve()
    except (OSError, RuntimeError, ValueError, TypeError) as error:  # a loop of links, a NUL, no path at all
        raise ExportError(
            f"a bundle cannot be written to {path!r}: {error}", "give the path of a new folder"
        ) from error
    try:
        _check_target(target, archive)
        if archive:
            data = zip_bytes(content)
            read_archive(data, target)
            write_bytes(target, data)
        else:
            with replaced_directory(target) as draft:
                for name, part in content.items():
                    (draft / name).parent.mkdir(parents=True, exist_ok=True)
                    (draft / name).write_bytes(part)
                read_bundle(draft)
    except OSError as error:
        raise ExportError(
            f"bundle {target} could not be written: {error.strerror or error}",
            "free some space or choose another place; what was there before is intact",
        ) from error
    return Path(path)


def amend_bundle(
    path: str | os.PathLike[str],
    *,
    metrics: Mapping[str, float] | None = None,
    files: Mapping[str, bytes] | None = None,
    variants: tuple[Variant, ...] | None = None,
) -> Path:
    """Replace the metrics or variants of a bundle and add (or replace) files, all else staying as it is.

    Files of variants that are no more are left out.

    What can only be known by running the bundle, its scores and its report, gets into it this way.
    Raises BundleError if `path` is no intact bundle, ExportError as `write_bundle` does.
    """
    bundle = read_bundle(path)
    manifest = bundle.manifest
    if metrics is not None:
        manifest = dataclasses.replace(manifest, metrics=dict(metrics))
    gone = {manifest.model, MANIFEST_NAME}
    if variants is not None:
        gone |= {v.file for v in manifest.variants} - {v.file for v in variants}
        manifest = dataclasses.replace(manifest, variants=variants)
    kept = {name: data for name, data in bundle.files.items() if name not in gone}
    return write_bundle(
        path,
        model=bundle.model,
        manifest=manifest,
        files={**kept, **(files or {})},
        archive=Path(path).is_file(),
        sparse=manifest.sparse is not None,
    )


def golden_bytes(cases: Sequence[GoldenCase]) -> bytes:
    """The golden vectors as NPZ, the same bytes for the same arrays. Raises ExportError for object arrays."""
    members: dict[str, bytes] = {}
    for number, case in enumerate(cases):
        for kind, tensors in (("inputs", case.inputs), ("outputs", case.outputs)):
            for name, array in tensors.items():
                buffer = io.BytesIO()
                try:
                    np.lib.format.write_array(buffer, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
                except ValueError as error:
                    raise ExportError(
                        f"golden case {number}: {kind} {name!r} has dtype {array.dtype}: {error}",
                        "give number arrays",
                    ) from error
                members[entry_name(number, kind, name) + ".npy"] = buffer.getvalue()
    return zip_bytes(members)


def zip_bytes(members: Mapping[str, bytes]) -> bytes:
    """An archive of `members`: sorted, stored, dated 1980-01-01, with nothing of this machine in it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(members):
            info = zipfile.ZipInfo(name, date_time=_ZIP_EPOCH)
            info.create_system = 3  # Unix, on every system
            info.external_attr = 0o100644 << 16
            archive.writestr(info, members[name])
    return buffer.getvalue()


def _content(model: bytes, manifest: Manifest, files: Mapping[str, bytes], sparse: bool) -> dict[str, bytes]:
    """All files of the bundle, sorted, and its manifest. Raises ExportError for parts that do not fit."""
    for name in (MANIFEST_NAME, manifest.model, SPARSE):
        if name in files:
            raise ExportError(f"bundle {manifest.name!r}: {name} is written here, not given in files", "rename yours")
    for name, data in files.items():
        if not isinstance(data, bytes):
            raise ExportError(f"bundle {manifest.name!r}: {name} is a {type(data).__name__}", "give bytes")
        if any(other.startswith(f"{name}/") for other in files):
            raise ExportError(f"bundle {manifest.name!r}: {name} is a file and a folder", "rename one of them")
        if not is_file_name(name):
            raise ExportError(
                f"bundle {manifest.name!r}: {name!r} is no plain path inside a bundle",
                "use letters, digits, and . _ + - in names; folders are separated by /",
            )
    if manifest.golden is not None and manifest.golden.file not in files:
        raise ExportError(
            f"bundle {manifest.name!r}: the manifest names {manifest.golden.file}, which is not in files",
            "give it, made by golden_bytes()",
        )
    form = sparse_form(model) if sparse else None
    stored = {manifest.model: model} if form is None else {SPARSE: form}
    content = {name: data for name, data in sorted({**files, **stored}.items())}
    filled = dataclasses.replace(
        manifest,
        schema=SCHEMA,
        written_by=version("edgeslim"),
        sparse=None if form is None else SparseSpec(file=SPARSE, model=_entry(model)),
        files={name: _entry(data) for name, data in content.items()},
    )
    return {**content, MANIFEST_NAME: schema.dumps(filled).encode()}


def _entry(data: bytes) -> FileEntry:
    return FileEntry(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))


def _check_target(target: Path, archive: bool) -> None:
    """Refuse to replace a folder that is no bundle, or a file by a folder. Raises ExportError, OSError."""
    hint = "choose another path, or move away what is there"
    inside = next((folder for folder in target.parents if _is_bundle(folder)), None)
    if inside is not None:
        raise ExportError(f"{target} lies inside the bundle {inside}, whose files are all listed and hashed", hint)
    if not target.exists():
        return
    if archive and not target.is_file():
        raise ExportError(f"{target} is a directory, an archive was to be written there", hint)
    if archive and not _is_archive(target):
        raise ExportError(f"{target} is a file that is no bundle, and would be replaced", hint)
    if not archive and not target.is_dir():
        raise ExportError(f"{target} is a file, a bundle's directory was to be written there", hint)
    if not archive and any(target.iterdir()) and not _is_bundle(target):
        raise ExportError(f"{target} is a folder with other content, and would be replaced as a whole", hint)


def _is_bundle(folder: Path) -> bool:
    """Whether a folder was written by edgeslim; other programs have a manifest.json too."""
    try:
        return _is_manifest((folder / MANIFEST_NAME).read_bytes())
    except OSError:
        return False


def _is_archive(file: Path) -> bool:
    """The same of an archive. An empty file is nobody's loss."""
    if not file.stat().st_size:
        return True
    try:
        with zipfile.ZipFile(file) as archive:
            return _is_manifest(archive.read(MANIFEST_NAME))
    except (zipfile.BadZipFile, KeyError, OSError, RuntimeError):
        return False


def _is_manifest(text: bytes) -> bool:
    try:
        table = json.loads(text)
    except ValueError:
        return False
    return isinstance(table, dict) and {"schema", "certificate", "bench_size", "files"} <= table.keys()
