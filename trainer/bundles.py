"""A run's nets as bundles: exported with their certificate, scored on the test images, shown side by side."""

from __future__ import annotations

import copy
import hashlib
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from edgeslim.exporter.bundle import amend_bundle
from edgeslim.exporter.channels import ChannelMap
from edgeslim.exporter.export import export
from edgeslim.progress import Progress
from edgeslim.runtime import FrameRange, Manifest, Session, load, read_bundle

from .compact import shrink_state
from .evaluate import FrameRunner
from .kinds.protocol import Examples
from .pruned import PrunedModel
from .recipe import Recipe
from .workspace import Workspace

DENSE, COMPACT = "dense", "compact"
"""The two kinds of nets of a run."""


def export_dense(workspace: Workspace, dense: nn.Module, channels: ChannelMap, progress: Progress) -> Path:
    """The dense bundle, proven against its torch net. channels: of the pruned net.

    The two share trace and analysis, which depend on the architecture alone.
    """
    example = torch.from_numpy(workspace.calibration(1))
    return export_net(workspace, PrunedModel(copy.deepcopy(dense), example, channels), DENSE, progress)


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


def examples(workspace: Workspace, bundles: tuple[Path, Path]) -> Examples:
    """Test images with what the dense and the compact bundle say of them."""
    with ExitStack() as stack:
        dense, compact = (session_runner(stack.enter_context(_load(bundle))) for bundle in bundles)
        return workspace.kind.examples(dense, compact, workspace.image)
