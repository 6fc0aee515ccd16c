"""`edgeslim compress`: the main job, from a recipe to a proven, measured bundle."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from edgeslim.errors import ConfigError

from . import front_tables, tables, variant_tables
from .options import (
    AllowForeignProfile,
    Devices,
    Fresh,
    Json,
    NumNodes,
    Overrides,
    RecipeFile,
    RunDirectory,
    StrategyName,
)
from .processes import run_of_ranks
from .run_directory import run_directory
from .screen import open_progress, out, print_json


def run(
    recipe: RecipeFile,
    set_: Overrides = None,
    out_: RunDirectory = None,
    fresh: Fresh = False,
    allow_foreign_profile: AllowForeignProfile = False,
    json: Json = False,
    devices: Devices = 1,
    num_nodes: NumNodes = 1,
    strategy: StrategyName = "ddp",
    pareto: Annotated[
        int | None,
        typer.Option(min=2, metavar="N", help="N nets between the dense one and the recipe's budget, and their front."),
    ] = None,
) -> None:
    """Train, prune, prove, export and measure what RECIPE describes.

    Stages that an earlier run of the same recipe finished in --out are reused.
    """
    overrides = [*(set_ or ()), *(["prune.budget.allow_foreign_profile=true"] if allow_foreign_profile else ())]
    if pareto is not None:
        return _front(recipe, overrides, out_, fresh, json, devices * num_nodes, pareto)
    from edgeslim.trainer.compress import assist, compress
    from edgeslim.trainer.ranks.launch import Launch
    from edgeslim.trainer.recipe_file import load_recipe

    launch = Launch(devices=devices, num_nodes=num_nodes, strategy=strategy)
    launch.check(sys.argv[1:])
    parsed = load_recipe(recipe, overrides)
    command = launch.line(sys.argv[1:]) if launch.processes > 1 else shlex.join(["edgeslim", *sys.argv[1:]])
    with run_of_ranks(launch, out_ or Path("runs") / parsed.name, fresh) as (ranks, directory, progress):
        if not ranks.first:
            return assist(parsed, directory, ranks)
        outcome = compress(parsed, directory, progress, command, ranks)
    if json:
        print_json(outcome.to_json())
        return
    out.print(tables.outcome_table(outcome))
    out.print(tables.stages_table(outcome))
    if outcome.precisions:
        out.print(variant_tables.variants_table(outcome.precisions))
        for variant in outcome.precisions:
            if variant.search:
                out.print(variant_tables.search_table(variant.name, variant.search))
    out.print(outcome.coverage_summary, highlight=False)
    if outcome.reached is not None:
        out.print(str(outcome.reached), highlight=False)
    out.print(tables.certificate_line(outcome.certificate), highlight=False)
    out.print(f"bundle  {outcome.bundle}\nreport  {outcome.report}", highlight=False, soft_wrap=True)


def _front(
    recipe: Path, overrides: list[str], out_: Path | None, fresh: bool, json: bool, processes: int, points: int
) -> None:
    """The same at several levels of the recipe's budget."""
    if processes > 1:
        raise ConfigError(
            f"--pareto trains in one process, and --devices and --num-nodes ask for {processes}",
            "leave them out, or run every level of prune.budget for itself",
        )
    from edgeslim.trainer.front import compress_front
    from edgeslim.trainer.recipe_file import load_recipe

    parsed = load_recipe(recipe, overrides)
    command = shlex.join(["edgeslim", *sys.argv[1:]])
    with run_directory(out_ or Path("runs") / parsed.name, fresh) as directory, open_progress() as progress:
        front = compress_front(parsed, directory, points, progress, command)
    if json:
        print_json(front.to_json())
        return
    out.print(front_tables.front_table(front))
    for point in front.points:
        out.print(f"bundle  {point.net.bundle}", highlight=False, soft_wrap=True)
    out.print(f"report  {front.report}", highlight=False, soft_wrap=True)
