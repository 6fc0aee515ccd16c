"""What cannot be done to a net whose weights lie in shards, said before anything is trained."""

from __future__ import annotations

from edgeslim.errors import ConfigError

from ..recipe import Recipe
from .group import Ranks

_HINT = "use --strategy ddp, under which every process has the whole net"


def check_recipe(recipe: Recipe, ranks: Ranks) -> None:
    """Raise ConfigError for a recipe with stages that look at whole kernels, or write into them, in every step."""
    if ranks.launch.strategy != "fsdp":
        return
    if recipe.gradual is not None:
        raise ConfigError(
            "--strategy fsdp: a gradual schedule writes into whole kernels while it trains, and no rank has them", _HINT
        )
    if recipe.sparsify is not None and recipe.sparsify.regularizers:
        names = ", ".join(section.name for section in recipe.sparsify.regularizers)
        raise ConfigError(f"--strategy fsdp: sparsify ({names}) penalises whole kernels, and no rank has them", _HINT)
    if recipe.weights is not None:
        raise ConfigError("--strategy fsdp: weights are held at zero in whole kernels, and no rank has them", _HINT)


def check_masked(name: str, ranks: Ranks, reason: str) -> None:
    """Raise ConfigError for a net that trains masked in the stage `name`: its masks would be held in whole kernels."""
    if ranks.launch.strategy == "fsdp":
        raise ConfigError(
            f"--strategy fsdp: {name} would train masked ({reason}), and no rank has whole kernels", _HINT
        )
