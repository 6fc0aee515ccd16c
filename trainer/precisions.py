"""Further precisions of a run's compact bundle, and the validation set that a device may score them with."""

from __future__ import annotations

from pathlib import Path

from edgeslim.atomic import write_bytes
from edgeslim.bench.precision import SearchOptions, search_precision
from edgeslim.errors import BudgetError, CertificateError
from edgeslim.exporter.bundle import amend_bundle
from edgeslim.exporter.precision.variants import add_variants
from edgeslim.progress import Progress
from edgeslim.runtime import Bundle, Variant
from edgeslim.runtime.validation import ValidationSet, make_validation, validation_bytes

from .recipe_precision import PrecisionSection
from .workspace import Workspace

VALIDATION = "validation.npz"


def make_precisions(workspace: Workspace, bundle: Path, progress: Progress) -> tuple[Variant, ...]:
    """Make every precision that the recipe names, in its order, and put it into the bundle.

    Raises CertificateError for one that loses too much, BudgetError for a search that finds nothing faster.
    """
    sections = workspace.recipe.precisions
    if not sections:
        return ()
    data = validation_set(workspace)
    made: list[Variant] = []
    for section in sections:
        try:
            made.append(_make(workspace, bundle, section, data, progress))
        except (CertificateError, BudgetError) as error:
            kept = "what was trained is kept: change or leave out this entry of precisions, and run it again"
            raise type(error)(error.message, f"{error.hint}; {kept}") from error
    return tuple(made)


def _make(
    workspace: Workspace, bundle: Path, section: PrecisionSection, data: ValidationSet, progress: Progress
) -> Variant:
    frames = workspace.kind.training_frames(section.images, workspace.image.multiple)
    request = section.request
    if len(frames) < section.images:
        progress.note(f"precision {request.name} asks for {section.images} images, there are {len(frames)}")
    if section.search:
        options = SearchOptions(groups=section.groups, threads=workspace.recipe.bench.threads)
        return search_precision(bundle, request, frames, data, options=options, progress=progress)
    return add_variants(bundle, [request], frames, validation=data, progress=progress)[0]


def take_precisions(workspace: Workspace, measured: Bundle, bundle: Path) -> bool:
    """Put the precisions that the recipe names into `bundle` as they are in `measured`, a bundle of the same model.

    A search is then not repeated on another machine. Returns False, and does nothing, where one is not there.
    """
    names = [section.request.name for section in workspace.recipe.precisions]
    there = {variant.name: variant for variant in measured.manifest.variants}
    if not set(names) <= there.keys():
        return False
    variants = tuple(there[name] for name in names)
    amend_bundle(bundle, variants=variants, files={v.file: measured.files[v.file] for v in variants})
    return True


def validation_set(workspace: Workspace) -> ValidationSet:
    """The validation images and their answers."""
    return make_validation(*workspace.kind.validation_set(workspace.image.multiple), "the recipe's validation images")


def write_validation(workspace: Workspace) -> None:
    """Write that set into the run's directory, where the recipe has precisions to score by it; else there is none."""
    path = workspace.directory / VALIDATION
    if workspace.recipe.precisions:
        write_bytes(path, validation_bytes(*workspace.kind.validation_set(workspace.image.multiple)))
    else:
        path.unlink(missing_ok=True)
