"""Load a bundle and run frames: NumPy and one inference engine, nothing else."""

from .backends import Backend, BackendFactory, open_backend
from .bundle import Bundle, read_archive, read_bundle
from .certificate import Certificate, Stage
from .choose import AUTO, Choice, choose
from .classify import Answer, classify
from .engines import StoredEngine, engines_in
from .golden import GoldenCase, GoldenReport
from .manifest import (
    MANIFEST_NAME,
    SCHEMA,
    FileEntry,
    GoldenSpec,
    ImageSpec,
    LayerCoverage,
    Manifest,
    Sizes,
    SparseSpec,
    TensorSpec,
    parse_manifest,
)
from .session import Session, load, open_session
from .variants import MODEL, Deviation, FrameRange, GroupChoice, Precision, Variant

__all__ = [
    "AUTO",
    "MANIFEST_NAME",
    "MODEL",
    "SCHEMA",
    "Answer",
    "Backend",
    "BackendFactory",
    "Bundle",
    "Certificate",
    "Choice",
    "Deviation",
    "FileEntry",
    "FrameRange",
    "GoldenCase",
    "GoldenReport",
    "GoldenSpec",
    "GroupChoice",
    "ImageSpec",
    "LayerCoverage",
    "Manifest",
    "Precision",
    "Session",
    "Sizes",
    "SparseSpec",
    "Stage",
    "StoredEngine",
    "TensorSpec",
    "Variant",
    "choose",
    "classify",
    "engines_in",
    "load",
    "open_backend",
    "open_session",
    "parse_manifest",
    "read_archive",
    "read_bundle",
]
