"""Which nets a front has: the recipe with its budget at other levels.

Of N points the k-th, k = 1 ... N, has its budget at k/N of the way from dense to the recipe's, on a logarithmic scale:
where that keeps the share b of the MACs, the points keep

    b^(1/N), b^(2/N), ..., b^(N/N) = b

so that each keeps the same fraction of what the one before it keeps. The last is the recipe itself; dense is none of
them. A front of 2N points has the N of a smaller one among them.

A point is a run of its own, in `front/<name>` of the parent run's directory, with a recipe that differs in its name and
its budget. What both have in common (the same stage key) lies with the parent, see `Workspace.stage`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from edgeslim.errors import ConfigError

from ..budget import level_name, with_level
from ..recipe import PruneSection, Recipe
from ..workspace import RECIPE

FRONT = "front"
"""The folder in a run's directory that holds the points."""
LEAST = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One level of a recipe's budget.

    name: of its folder.  number: from 1, the loosest.  share: of the way to the recipe's budget, in (0, 1].
    recipe, prune: the recipe at this level, and its section.
    """

    name: str
    number: int
    share: float
    recipe: Recipe
    prune: PruneSection

    def directory(self, run: Path) -> Path:
        """Where it lives in the directory of its parent run."""
        return run / FRONT / self.name


def level_points(recipe: Recipe, count: int) -> tuple[Point, ...]:
    """The points of a recipe's front, the loosest first. Raises ConfigError for what has none, or too few."""
    if count < LEAST:
        raise ConfigError(
            f"a front of {count} points is none; the least is {LEAST}",
            "the recipe's own net alone is what `edgeslim compress` without --pareto makes",
        )
    prune = recipe.prune
    if prune is None:
        raise ConfigError(
            "a front is of one budget at several levels, and the recipe has no section prune",
            "add prune.budget, or leave out --pareto",
        )
    points = []
    for number in range(1, count + 1):
        share = number / count
        budget = with_level(prune.budget, share)
        section, name = prune.model_copy(update={"budget": budget}), level_name(budget)
        # The last one is the recipe as it is: it has that run's stages, and its bundle the same name.
        own = (
            recipe if number == count else recipe.model_copy(update={"name": f"{recipe.name}-{name}", "prune": section})
        )
        points.append(Point(name=name, number=number, share=share, recipe=own, prune=section))
    name, times = Counter(point.name for point in points).most_common(1)[0]
    if times > 1:
        raise ConfigError(
            f"{count} points do not fit between the dense net and the recipe's budget: {times} of them are {name}",
            "ask for fewer points, or for a budget that is further from the dense net",
        )
    return tuple(points)


def parent_of(run: Path) -> Path | None:
    """The directory of the run that the run in `run` is a point of; None where it is none."""
    place = run.resolve()
    parent = place.parent.parent
    return parent if place.parent.name == FRONT and (parent / RECIPE).is_file() else None
