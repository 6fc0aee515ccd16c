"""What a stage of several ranks is, as against one of a single process: the batch over all of them counts.

W ranks with batches of B take the steps of one process with batches of W B, so they have the same key, and either goes
on from the other's checkpoints. With another whole batch a stage is another one.
"""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel

from ..recipe import FitSection
from .group import Ranks

S = TypeVar("S", bound=BaseModel)


def with_whole_batches(section: S, ranks: Ranks) -> S:
    """A section of a recipe, or all of it, with every `batch_size` that of all ranks together."""
    if ranks.world == 1:
        return section
    changes: dict[str, object] = {
        name: with_whole_batches(value, ranks) for name, value in section if isinstance(value, BaseModel)
    }
    if isinstance(section, FitSection):
        changes["batch_size"] = section.batch_size * ranks.world
    return section.model_copy(update=changes)
