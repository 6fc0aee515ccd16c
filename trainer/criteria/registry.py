"""All criteria by name, and from a recipe's section to one of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from edgeslim.errors import ConfigError, InvariantError

from ..recipe_criteria import CriterionSection, CriterionSpec
from .bn_scale import BnScale
from .geometric_median import GeometricMedian
from .gradient_count import GradientCount
from .l1 import L1
from .l2 import L2
from .ln_norm import LnNorm
from .protocol import Criterion, Pooled
from .random import Random
from .reconstruction import Reconstruction
from .redundancy import Redundancy
from .taylor import Taylor


def register(*makers: Callable[..., Criterion]) -> dict[str, Callable[..., Criterion]]:
    """By the names that they give themselves. Raises InvariantError where two have the same."""
    named = [(make().name, make) for make in makers]
    if len(dict(named)) < len(named):
        raise InvariantError(f"two criteria of one name: {[name for name, _ in named]}")
    return dict(named)


CRITERIA = register(L1, L2, LnNorm, BnScale, Taylor, GeometricMedian, Redundancy, GradientCount, Random, Reconstruction)


def criterion(wanted: str | Criterion) -> Criterion:
    """The criterion of this name with its defaults, or the one that is given. Raises ConfigError for anything else."""
    if isinstance(wanted, str) and wanted in CRITERIA:
        return CRITERIA[wanted]()
    if isinstance(wanted, (str, type)) or not isinstance(wanted, Criterion):
        raise ConfigError(
            f"criterion {wanted!r} is unknown",
            f"choose one of {', '.join(CRITERIA)}, or give an object with name, looks_at and score(net, images)",
        )
    return wanted


def build_criterion(section: CriterionSpec) -> Criterion:
    """The criterion that a recipe asks for: its options have the names of the section's keys."""
    make = CRITERIA[section.name]
    usual = make()
    if not isinstance(section, CriterionSection) or not isinstance(usual, Pooled):  # it scores units as they are
        return make(**section.model_dump(exclude={"name", "images"}))
    pooling = set(CriterionSection.model_fields)
    given = {key: value for key, value in section.model_dump(include=pooling).items() if value is not None}
    options = section.model_dump(exclude={"name", "images", *pooling})
    return make(**options, pool=dataclasses.replace(usual.pool, **given))
