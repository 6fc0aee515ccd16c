"""`edgeslim train`: the dense net alone."""

from __future__ import annotations

import json as json_module
import sys
from pathlib import Path

from .options import Devices, Fresh, Json, NumNodes, Overrides, RecipeFile, RunDirectory, StrategyName
from .processes import run_of_ranks
from .screen import out, print_json


def run(
    recipe: RecipeFile,
    set_: Overrides = None,
    out_: RunDirectory = None,
    fresh: Fresh = False,
    json: Json = False,
    devices: Devices = 1,
    num_nodes: NumNodes = 1,
    strategy: StrategyName = "ddp",
) -> None:
    """Train the dense net of RECIPE; a later `compress` with the same --out continues from it."""
    from edgeslim.trainer.ranks.launch import Launch
    from edgeslim.trainer.recipe_file import load_recipe
    from edgeslim.trainer.stages import train_dense
    from edgeslim.trainer.workspace import open_workspace

    launch = Launch(devices=devices, num_nodes=num_nodes, strategy=strategy)
    launch.check(sys.argv[1:])
    parsed = load_recipe(recipe, set_ or ())
    with run_of_ranks(launch, out_ or Path("runs") / parsed.name, fresh) as (ranks, directory, progress):
        workspace = open_workspace(parsed, directory, progress, ranks)
        _, result = train_dense(workspace, progress)
        workspace.save_recipe()
    if not ranks.first:
        return
    checkpoint = workspace.stage("dense")
    if json:
        content = {
            "checkpoint": str(checkpoint),
            "steps": result.step,
            "best_step": result.best_step,
            "validation": dict(result.scores),
        }
        print_json(json_module.dumps(content, indent=2))
        return
    scores = "  ".join(f"{name} {value:.4f}" for name, value in result.scores.items())
    out.print(f"validation at step {result.best_step}: {scores}", highlight=False)
    out.print(f"checkpoint  {checkpoint}", highlight=False, soft_wrap=True)
