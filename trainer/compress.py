"""The main job: from a recipe to a proven, measured bundle and its report.

data -> dense -> sparse -> round-k -> final     (stages)
dense.bundle, compact.bundle                    (export, each with its certificate)
further precisions of the compact net           (from training images, scored on validation images)
scores on the test images, by the bundles       (the only place that reads them)
latency and memory, side by side                (bench)
result.json, report.html
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from edgeslim.atomic import write_text
from edgeslim.bench import BenchResult, check_threads, measure
from edgeslim.bench.report.html import ReportData, render
from edgeslim.exporter.bundle import amend_bundle
from edgeslim.exporter.channels import Coverage
from edgeslim.exporter.export import export
from edgeslim.progress import Progress, Silent
from edgeslim.runtime import FrameRange, Manifest, Session, load, read_bundle

from .compact import shrink_state
from .evaluate import FrameRunner
from .kinds.protocol import Examples
from .outcome import Outcome, net_of
from .precisions import make_precisions, write_validation
from .pruned import PrunedModel
from .ranks import ALONE, Ranks
from .recipe import Recipe
from .stages import Trained, train_and_prune
from .workspace import Workspace, open_workspace

REPORT = "report.html"


@dataclass(frozen=True, slots=True, kw_only=True)
class Notebook:
    """Passes everything on to `progress` and keeps the notes for the report."""

    progress: Progress
    notes: list[str]

    def stage(self, name: str, total: int | None = None) -> None:
        """Pass on."""
        self.progress.stage(name, total)

    def step(self, done: int, values: Mapping[str, float]) -> None:
        """Pass on."""
        self.progress.step(done, values)

    def note(self, text: str) -> None:
        """Pass on and keep."""
        self.progress.note(text)
        self.notes.append(text)


def compress(recipe: Recipe, directory: Path, progress: Progress, command: str = "", ranks: Ranks = ALONE) -> Outcome:
    """Run the whole recipe in `directory`; stages that are finished there already are reused.

    command: what the user typed, for the report.  ranks: who trains together, where this is the first; the others
    call `assist`. Raises EdgeslimError for whatever can go wrong.
    """
    check_threads(recipe.bench.threads)  # now rather than after an hour of training
    log = Notebook(progress=progress, notes=[])
    if ranks.world > 1:
        log.note(f"{ranks.world} processes ({ranks.launch.strategy}): every batch is {ranks.world} times the recipe's")
    workspace = open_workspace(recipe, directory, log, ranks)
    trained = train_and_prune(workspace, log)
    workspace.save_recipe()
    bundles = export_both(workspace, trained, log)
    write_validation(workspace)
    make_precisions(workspace, bundles[1], log)
    manifests = [score_bundle(workspace, bundle, log) for bundle in bundles]
    result = _bench(recipe, bundles, log)
    if result.speedup is not None and result.speedup.low <= 1.0:
        log.note("the compact net is not measurably faster than the dense one on this machine")
    report = directory / REPORT
    data = ReportData(
        name=recipe.name,
        dense=manifests[0],
        compact=manifests[1],
        bench=result,
        stages=trained.scores,
        notes=tuple(log.notes),
        examples=_examples(workspace, bundles),
        command=command,
    )
    log.stage("report")
    html = render(data)
    write_text(report, html)
    amend_bundle(bundles[1], files={REPORT: html.encode()})
    write_text(directory / "bench.json", result.to_json())
    outcome = _outcome(recipe, trained, bundles, manifests, result, report, log)
    write_text(directory / "result.json", outcome.to_json())
    return outcome


def assist(recipe: Recipe, directory: Path, ranks: Ranks) -> None:
    """What all ranks but the first do of `compress`: they train along, and leave a quiet machine."""
    train_and_prune(open_workspace(recipe, directory, Silent(), ranks), Silent())


def export_both(workspace: Workspace, trained: Trained, progress: Progress) -> tuple[Path, Path]:
    """The dense and the compact bundle, each proven against its torch net."""
    # The dense net shares the pruned one's trace and analysis: they depend on the architecture alone.
    example = torch.from_numpy(workspace.calibration(1))
    dense = PrunedModel(copy.deepcopy(trained.dense), example, trained.pruned.channels)
    return (
        export_net(workspace, dense, "dense", progress),
        export_net(workspace, trained.pruned, "compact", progress),
    )


def export_net(
    workspace: Workspace,
    net: PrunedModel,
    kind: str,
    progress: Progress,
    path: Path | None = None,
    archive: bool = False,
) -> Path:
    """Write one bundle of this run, `path` or `<kind>.bundle` in the run's directory."""
    recipe = workspace.recipe
    progress.stage(f"export {kind}")
    return export(
        net,
        path or workspace.directory / f"{kind}.bundle",
        name=f"{recipe.name}-{kind}",
        mean=workspace.image.mean,
        std=workspace.image.std,
        size_multiple=workspace.image.multiple,
        size=workspace.frame_size,
        frame_range=_frame_range(recipe),
        frames=workspace.kind.frames(2, workspace.image.multiple),
        classes=workspace.kind.classes,
        task=workspace.kind.name,
        provenance=_provenance(workspace.whole_recipe, net),
        simplify_graph=recipe.export.simplify,
        archive=archive,
    )


def _frame_range(recipe: Recipe) -> FrameRange | None:
    asked = recipe.export.frame_range
    return None if asked is None else FrameRange(minimum=asked.minimum, optimum=asked.optimum, maximum=asked.maximum)


def _provenance(recipe: Recipe, net: PrunedModel) -> dict[str, str]:
    """What the net came from, by SHA-256, and what made it, by version. Of the weights, those that are shipped."""
    weights = hashlib.sha256()
    for name, tensor in sorted(shrink_state(net.module.state_dict(), net.plan).items()):
        weights.update(name.encode() + np.ascontiguousarray(tensor.cpu().numpy()).tobytes())
    return {
        "recipe": hashlib.sha256(recipe.model_dump_json().encode()).hexdigest(),
        "weights": weights.hexdigest(),
        "plan": hashlib.sha256(net.plan.to_json().encode()).hexdigest(),
        "torch": torch.__version__,
        "onnx": onnx.__version__,
    }


def score_bundle(workspace: Workspace, bundle: Path, progress: Progress) -> Manifest:
    """Score a bundle on the test images as a camera would run it, and write the scores into it."""
    progress.stage(f"test {bundle.stem}")
    with _load(bundle) as session:
        scores = workspace.kind.score_test(session_runner(session), workspace.image)
    amend_bundle(bundle, metrics={name: value for name, value in scores.items() if value is not None})
    return read_bundle(bundle).manifest


def _load(bundle: Path) -> Session:
    """On the CPU, whatever else this machine has: scores are those of the graph, not of a GPU's rounding."""
    return load(bundle, threads=torch.get_num_threads(), backend="onnxruntime")


def session_runner(session: Session) -> FrameRunner:
    """A bundle's session as a FrameRunner: its first output is the logits. A graph of one batch size gets its own."""
    name, batch = session.manifest.outputs[0].name, session.manifest.inputs[0].shape[0]

    def run(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        step = batch if isinstance(batch, int) else len(frames)
        parts = [session.run_batch(frames[i : i + step])[name] for i in range(0, len(frames), step)]
        return np.asarray(np.concatenate(parts), np.float32)

    return run


def _bench(recipe: Recipe, bundles: tuple[Path, Path], progress: Progress) -> BenchResult:
    progress.stage("bench", recipe.bench.samples)
    dense, compact = bundles

    def told(stage: str, done: int, total: int) -> None:
        if stage == "samples":
            progress.step(min(done, recipe.bench.samples), {})

    section = recipe.bench
    return measure(
        compact, dense, threads=section.threads, samples=section.samples, seconds=section.seconds, progress=told
    )


def _examples(workspace: Workspace, bundles: tuple[Path, Path]) -> Examples:
    """Test images with what both bundles say of them."""
    with ExitStack() as stack:
        dense, compact = (session_runner(stack.enter_context(_load(bundle))) for bundle in bundles)
        return workspace.kind.examples(dense, compact, workspace.image)


def _outcome(
    recipe: Recipe,
    trained: Trained,
    bundles: tuple[Path, Path],
    manifests: list[Manifest],
    result: BenchResult,
    report: Path,
    log: Notebook,
) -> Outcome:
    dense, compact = manifests
    return Outcome(
        name=recipe.name,
        dense=net_of(dense, result.against or result.subject, str(bundles[0])),
        compact=net_of(compact, result.subject, str(bundles[1])),
        speedup=result.speedup,
        certificate=compact.certificate,
        coverage=compact.coverage,
        coverage_summary=Coverage(compact.coverage).summary,
        precisions=compact.variants,
        bundle=str(bundles[1]),
        report=str(report),
        stages=trained.scores,
        notes=tuple(log.notes),
    )
