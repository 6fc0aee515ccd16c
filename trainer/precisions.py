"""Further precisions of a run's compact bundle, and the validation set that a device may score them with."""

from __future__ import annotations

from pathlib import Path

from edgeslim.atomic import write_bytes
from edgeslim.bench.precision import SearchOptions, search_precision
from edgeslim.exporter.precision.variants import add_variants
from edgeslim.progress import Progress
from edgeslim.runtime import Variant
from edgeslim.runtime.validation import ValidationSet, make_validation, validation_bytes

from .workspace import Workspace

VALIDATION = "validation.npz"


def make_precisions(workspace: Workspace, bundle: Path, progress: Progress) -> tuple[Variant, ...]:
    """Make every precision that the recipe names, in its order, and put it into the bundle.

    Raises CertificateError for one that loses too much, BudgetError for a search that finds nothing faster.
    """
    sections = workspace.recipe.precisions
    if not sections:
        return ()
    data = write_validation(workspace)
    made = []
    for section in sections:
        frames = workspace.kind.training_frames(section.images, workspace.image.multiple)
        if len(frames) < section.images:
            progress.note(
                f"precision {section.name or section.kind}: {len(frames)} of {section.images} images are there"
            )
        if section.search:
            options = SearchOptions(groups=section.groups, threads=workspace.recipe.bench.threads)
            made.append(search_precision(bundle, section.request, frames, data, options=options, progress=progress))
        else:
            made += add_variants(bundle, [section.request], frames, validation=data, progress=progress)
    return tuple(made)


def write_validation(workspace: Workspace) -> ValidationSet:
    """The validation images and their answers, as a set that is also written into the run's directory."""
    frames, targets = workspace.kind.validation_set(workspace.image.multiple)
    write_bytes(workspace.directory / VALIDATION, validation_bytes(frames, targets))
    return make_validation(frames, targets, str(workspace.directory / VALIDATION))
