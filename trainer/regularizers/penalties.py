"""Regularizers in a training run: when each acts, how strongly, and by which way.

    strength   0 during `warmup_steps`, then rising evenly to 1 over `ramp_steps`
    share      how far annealing has come: from 0 when the penalty sets in to 1 at the last step of the stage

Coupled, a penalty is a term of the loss and its gradient goes through the optimiser. Decoupled, the term only shows its
value, and once the optimiser has moved the weights they take a step of their own,

    w <- w - rate * dR/dw,     stopped at zero where it would change the sign of w

which, unlike an adaptive optimiser, keeps the penalty's proportions between weights, and makes exact zeros.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgeslim.errors import ConfigError

from ..options import check_count
from ..recipe_regularizers import RegularizerSpec
from ..task import AfterStep, Step, Term
from .feature_maps import caught_maps, nonlinearities
from .registry import WHEN, Regularizer, build_regularizer
from .view import view_of

_KINDS = {
    "kernels": "weights of convolutions and linear layers",
    "parameters": "trained parameters",
    "scales": "scales of batch norms",
    "maps": "feature maps behind modules that are non-linearities",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheduled:
    """A regularizer and when it acts; see the module docstring."""

    rule: Regularizer
    warmup_steps: int = 0
    ramp_steps: int = 0
    decoupled: bool = False

    def __post_init__(self) -> None:
        check_count(self.rule.name, "warmup_steps", self.warmup_steps, low=0)
        check_count(self.rule.name, "ramp_steps", self.ramp_steps, low=0)
        if self.decoupled and self.rule.looks_at == "maps":
            raise ConfigError(
                f"{self.rule.name}: decoupled, it has no feature maps to look at: they belong to the step before",
                "leave it in the loss",
            )

    def strength(self, step: int) -> float:
        """In [0, 1], what the penalty is multiplied by in this step."""
        past = step - self.warmup_steps
        if past < 0:
            return 0.0
        return min(1.0, (past + 1) / self.ramp_steps) if self.ramp_steps else 1.0

    def share(self, step: int, steps: int) -> float:
        """In [0, 1], how far annealing has come in this step of a stage of `steps`."""
        return min(1.0, max(0.0, (step - self.warmup_steps) / max(1, steps - 1 - self.warmup_steps)))


def schedule(section: RegularizerSpec) -> Scheduled:
    """The regularizer that a recipe asks for, and when."""
    return Scheduled(rule=build_regularizer(section), **section.model_dump(include=set(WHEN)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Penalties:
    """What the regularizers of a run give to `fit`. terms: by the regularizers' names, with #2 if repeated."""

    terms: Mapping[str, Term]
    after_step: Sequence[AfterStep]


def check_penalties(module: nn.Module, scheduled: Sequence[Scheduled]) -> None:
    """Raise ConfigError for a regularizer that finds nothing in `module` to look at."""
    view = view_of(module)
    for one in scheduled:
        kind = one.rule.looks_at
        if not (nonlinearities(module) if kind == "maps" else getattr(view, kind)):
            raise ConfigError(
                f"regularizer {one.rule.name} looks at {_KINDS[kind]}, and {type(module).__name__} has none",
                "take it out of sparsify.regularizers, or choose another",
            )


@contextmanager
def penalties(module: nn.Module, scheduled: Sequence[Scheduled], steps: int) -> Iterator[Penalties]:
    """What a stage of `steps` steps that trains `module` needs of them. Raises ConfigError as `check_penalties`."""
    check_penalties(module, scheduled)
    terms, calls = dict[str, Term](), list[AfterStep]()
    catching = any(one.rule.looks_at == "maps" for one in scheduled)
    with caught_maps(module) if catching else nullcontext(list[Tensor]()) as maps:
        for one in scheduled:
            same = sum(name.partition("#")[0] == one.rule.name for name in terms)
            terms[f"{one.rule.name}#{same + 1}" if same else one.rule.name] = _term(one, steps, maps)
            if one.decoupled:
                calls.append(_settle(one, steps))
        yield Penalties(terms=terms, after_step=calls)


def _term(one: Scheduled, steps: int, maps: list[Tensor]) -> Term:
    def term(step: Step) -> Tensor:
        strength = one.strength(step.number)
        if strength == 0.0:
            return torch.zeros((), device=step.images.device)
        value = strength * one.rule.penalty(view_of(step.module, maps, one.share(step.number, steps)))
        return value.detach() if one.decoupled else value

    return term


def _settle(one: Scheduled, steps: int) -> AfterStep:
    def call(step: Step) -> None:
        strength = one.strength(step.number)
        if strength == 0.0:
            return
        view = view_of(step.module, share=one.share(step.number, steps))
        weights = [w for w in step.module.parameters() if w.requires_grad]
        with torch.enable_grad():
            value = strength * one.rule.penalty(view)
        if not value.requires_grad:  # nothing was penalised
            return
        gradients = torch.autograd.grad(value, weights, allow_unused=True)
        with torch.no_grad():
            for weight, gradient in zip(weights, gradients):
                if gradient is not None:
                    moved = weight - step.rate * gradient
                    weight.copy_(torch.where(moved * weight < 0, 0.0, moved))

    return call
