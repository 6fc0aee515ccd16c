"""`edgeslim train`: the dense net alone."""

from __future__ import annotations

import json as json_module
from pathlib import Path

from .options import Fresh, Json, Overrides, RecipeFile, RunDirectory
from .run_directory import run_directory
from .screen import open_progress, out, print_json


def run(
    recipe: RecipeFile, set_: Overrides = None, out_: RunDirectory = None, fresh: Fresh = False, json: Json = False
) -> None:
    """Train the dense net of RECIPE; a later `compress` with the same --out continues from it."""
    from edgeslim.trainer.recipe_file import load_recipe
    from edgeslim.trainer.stages import train_dense
    from edgeslim.trainer.workspace import open_workspace

    parsed = load_recipe(recipe, set_ or ())
    with run_directory(out_ or Path("runs") / parsed.name, fresh) as directory, open_progress() as progress:
        workspace = open_workspace(parsed, directory, progress)
        _, result = train_dense(workspace, progress)
        workspace.save_recipe()
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
