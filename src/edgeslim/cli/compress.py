"""`edgeslim compress`: the main job, from a recipe to a proven, measured bundle."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from . import tables
from .options import Fresh, Json, Overrides, RecipeFile, RunDirectory
from .run_directory import run_directory
from .screen import open_progress, out, print_json


def run(
    recipe: RecipeFile, set_: Overrides = None, out_: RunDirectory = None, fresh: Fresh = False, json: Json = False
) -> None:
    """Train, prune, prove, export and measure what RECIPE describes.

    Stages that an earlier run of the same recipe finished in --out are reused.
    """
    from edgeslim.trainer.compress import compress
    from edgeslim.trainer.recipe_file import load_recipe

    parsed = load_recipe(recipe, set_ or ())
    command = shlex.join(["edgeslim", *sys.argv[1:]])
    with run_directory(out_ or Path("runs") / parsed.name, fresh) as directory, open_progress() as progress:
        outcome = compress(parsed, directory, progress, command)
    if json:
        print_json(outcome.to_json())
        return
    out.print(tables.outcome_table(outcome))
    out.print(tables.stages_table(outcome))
    out.print(outcome.coverage_summary, highlight=False)
    out.print(tables.certificate_line(outcome.certificate), highlight=False)
    out.print(f"bundle  {outcome.bundle}\nreport  {outcome.report}", highlight=False, soft_wrap=True)
