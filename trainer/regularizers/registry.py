"""All regularizers by name, and from a recipe's section to one of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from ..recipe_regularizers import RegularizerSpec
from .bn_scale import BnScale
from .gradient_count import GradientCount
from .group_lasso import GroupLasso
from .l0 import L0
from .l1 import L1
from .l2 import L2
from .redundancy import Redundancy
from .view import Seen, View


class Regularizer(Protocol):
    """A penalty that makes weights dispensable."""

    @property
    def name(self) -> str:
        """How a recipe and the log call it."""
        ...

    @property
    def looks_at(self) -> Seen:
        """Which tensors of a `View` it needs."""
        ...

    def penalty(self, view: View) -> Tensor:
        """The weighted penalty, a scalar with gradients."""
        ...


REGULARIZERS: dict[str, Callable[..., Regularizer]] = {
    "bn_scale": BnScale,
    "gradient_count": GradientCount,
    "group_lasso": GroupLasso,
    "l0": L0,
    "l1": L1,
    "l2": L2,
    "redundancy": Redundancy,
}

WHEN = frozenset({"warmup_steps", "ramp_steps", "decoupled"})
"""Keys of a section that say when and by which way a penalty acts, not what it is."""


def build_regularizer(section: RegularizerSpec) -> Regularizer:
    """The regularizer that a recipe asks for: its options have the names of the section's keys."""
    return REGULARIZERS[section.name](**section.model_dump(exclude=set(WHEN)))
