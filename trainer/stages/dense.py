"""The dense net: trained from scratch or from given weights, or taken as those are."""

from __future__ import annotations

from torch import nn

from edgeslim.progress import Progress

from ..fit import FitResult, adopt
from ..workspace import Workspace
from .training import train_stage


def train_dense(workspace: Workspace, progress: Progress) -> tuple[nn.Module, FitResult]:
    """Train the recipe's net, or reuse the finished checkpoint of the same key; `train: null` takes it as it came."""
    module, section = workspace.fresh_module(), workspace.recipe.train
    if section is not None:
        return module, train_stage(workspace, module, section, "dense", progress)
    progress.note(
        "dense: the given weights are used as they are; if they were trained on the validation images too, their "
        "scores there are too high, while those on the test images are not affected"
    )
    key, directory = workspace.key("dense"), workspace.stage("dense")
    task, ranks = workspace.task, workspace.ranks
    return module, adopt(module, task, name="dense", key=key, directory=directory, progress=progress, ranks=ranks)
