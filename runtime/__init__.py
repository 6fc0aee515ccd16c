"""Load a bundle and run frames: NumPy and one inference engine, nothing else."""

from .backends import Backend, BackendFactory, open_backend
from .bundle import Bundle, read_archive, read_bundle
from .certificate import Certificate, Stage
from .classify import Answer, classify
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
from .session import Session, load
from .variants import MODEL, Deviation, FrameRange, GroupChoice, Precision, Variant

__all__ = [
    "MANIFEST_NAME",
    "MODEL",
    "SCHEMA",
    "Answer",
    "Backend",
    "BackendFactory",
    "Bundle",
    "Certificate",
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
    "TensorSpec",
    "Variant",
    "classify",
    "load",
    "open_backend",
    "parse_manifest",
    "read_archive",
    "read_bundle",
]
