"""The main job: from a recipe to a proven, measured bundle and its report.

data -> dense -> sparse -> round-k -> final     (stages)
dense.bundle, compact.bundle                    (export, each with its certificate)
further precisions of the compact net           (from training images, scored on validation images)
scores on the test images, by the bundles       (the only place that reads them)
latency and memory, side by side                (bench)
result.json, report.html
"""

from __future__ import annotations

from pathlib import Path

from edgeslim.bench import check_threads
from edgeslim.progress import Progress, Silent

from .bundles import COMPACT, export_dense, export_net, score_bundle
from .notebook import Notebook
from .outcome import Outcome
from .precisions import make_precisions, write_validation
from .ranks import ALONE, Ranks
from .recipe import Recipe
from .results import measure_nets, write_results
from .stages import train_and_prune
from .workspace import open_workspace


def compress(recipe: Recipe, directory: Path, progress: Progress, command: str = "", ranks: Ranks = ALONE) -> Outcome:
    """Run the whole recipe in `directory`; stages that are finished there already are reused.

    command: what the user typed, for the report.  ranks: who trains together, where this is the first; the others
    call `assist`. Raises EdgeslimError for whatever can go wrong.
    """
    check_threads(recipe.bench.threads)  # now rather than after an hour of training
    log = Notebook(progress=progress)
    if ranks.world > 1:
        log.note(f"{ranks.world} processes ({ranks.launch.strategy}): every batch is {ranks.world} times the recipe's")
    workspace = open_workspace(recipe, directory, log, ranks)
    trained = train_and_prune(workspace, log)
    workspace.save_recipe()
    dense = export_dense(workspace, trained.dense, trained.pruned.channels, log)
    compact = export_net(workspace, trained.pruned, COMPACT, log)
    write_validation(workspace)
    make_precisions(workspace, compact, log)
    manifests = (score_bundle(workspace, dense, log), score_bundle(workspace, compact, log))
    (result,) = measure_nets(recipe.bench, dense, [compact], log)
    return write_results(
        workspace, (dense, compact), manifests, result, trained.scores, trained.pruned.reached, command, log
    )


def assist(recipe: Recipe, directory: Path, ranks: Ranks) -> None:
    """What all ranks but the first do of `compress`: they train along, and leave a quiet machine."""
    train_and_prune(open_workspace(recipe, directory, Silent(), ranks), Silent())
