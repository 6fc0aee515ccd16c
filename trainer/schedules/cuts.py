"""Gradual pruning under way: what the training loop calls after every step, and saves with the run.

Scores, cuts and mending happen on a `PrunedModel` of its own, which takes the weights of the moment over from the net
in training and hands them back; the net in training stays one object, in dense shapes, and so does its optimiser.
What is cut is zero from then on, with the weights that read it: in the net after every step, in the gradients always,
so that momenta fade, a clipped gradient's norm is that of the compact net, and penalties see no weights that no longer
count.

A resumed run takes the steps that it would have taken: when to cut follows from the step's number, and all that does
not (the plan, the candidates, what the cuts did to the scores) is in the checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from contextlib import ExitStack

import onnx_ir as ir
import torch
from torch import nn

from edgeslim.errors import InvariantError
from edgeslim.exporter.plan import PruningPlan, plan_from_cut

from ..budget import Budget
from ..checkpoint import State, load_state
from ..compact import weaken
from ..pruned import PrunedModel
from ..recovery import Gain
from ..sparsity import Pattern, apply_pattern, holding
from ..task import Numbers, Step
from .gradual import Gradual
from .scoring import Scoring

Mend = Callable[[PrunedModel, ir.Model], Iterable[Gain]]
"""Makes up for the last cut of a net, given its graph before, and says what each method bought."""


class GradualCuts:
    """A `Cutter` for `fit`. Close it when the training is over: until then it holds what is cut at zero."""

    def __init__(
        self,
        net: PrunedModel,
        schedule: Gradual,
        scoring: Scoring,
        budget: Budget,
        *,
        evaluate: Callable[[nn.Module], Numbers],
        mend: Mend | None = None,
    ) -> None:
        """Of the net that trains, `net` has the analysis; its plan is what is cut so far."""
        self._net, self._schedule, self._scoring, self._budget = net, schedule, scoring, budget
        self._evaluate, self._mend = evaluate, mend
        self._candidates: frozenset[int] | None = None  # None: not chosen yet
        self._leaving: PruningPlan | None = None
        self._silence = ExitStack()
        self._hold: Callable[[], None] = lambda: None
        self.scores: dict[str, Numbers] = {}
        """What each cut did: "cut-k, before", "cut-k, just cut", "cut-k, mended"."""
        self.unkept: list[tuple[str, str]] = []
        """(cut, method) of mending that was not kept."""

    @property
    def last(self) -> int:
        """With this step the net has its final width."""
        return self._schedule.last

    @property
    def plan(self) -> PruningPlan:
        """What is cut so far."""
        return self._net.plan

    def __call__(self, step: Step) -> None:
        """Hold what is cut; in an interval press on the candidates, at its end cut them."""
        self._hold()
        taken = step.number + 1
        number = self._schedule.interval(taken)
        if number is None:
            return
        if self._schedule.pressure:
            if self._candidates is None:
                self._nominate(self._choose(number, step.module))
            if self._leaving is not None:
                weaken(step.module, self._leaving, self._schedule.factor(taken))
        if taken == self._schedule.at[number]:
            self._cut(number, step.module)

    def memory(self) -> tuple[State, Numbers]:
        """What a resumed run needs beside the plan: tensors and numbers, by name."""
        tensors = {} if self._candidates is None else {"candidates": torch.tensor(sorted(self._candidates))}
        numbers = {f"{cut}/{name}": value for cut, scores in self.scores.items() for name, value in scores.items()}
        return tensors, numbers | {f"unkept/{cut}/{method}": 1.0 for cut, method in self.unkept}

    def recall(self, module: nn.Module, plan: PruningPlan | None, tensors: State, numbers: Numbers) -> None:
        """Go on where a run stood whose weights are in `module`. Raises PlanError for the plan of another net."""
        self._net.apply(plan or self._net.plan)
        if "candidates" in tensors:
            self._nominate(tensors["candidates"].tolist())
        found: dict[str, dict[str, float]] = {}
        for key, value in numbers.items():
            first, _, rest = key.partition("/")
            if first == "unkept":
                cut, _, method = rest.partition("/")
                self.unkept.append((cut, method))
            else:
                found.setdefault(first, {})[rest] = value
        self.scores.update(found)
        self._keep_silent(module)

    def check(self, module: nn.Module, best_step: int) -> None:
        """Raise InvariantError unless `module` holds weights of the final width, those of step `best_step`."""
        if best_step < self.last:
            raise InvariantError(f"weights of step {best_step} were kept, the final width came with step {self.last}")
        gone = _pattern(module, self.plan)
        state = module.state_dict()
        loud = [name for name, keep in gone.keep.items() if bool(state[name].cpu()[~keep].any())]
        if loud:
            raise InvariantError(f"cut channels are not zero in {', '.join(loud[:3])}")

    def close(self) -> None:
        """Let go of the net in training."""
        self._silence.close()
        self._hold = lambda: None

    def _choose(self, number: int, module: nn.Module) -> frozenset[int]:
        """What is to be gone after cut `number` beside what is gone, by the weights of the moment."""
        self._take_over(module)
        return self._scoring.choose(self._net, self._budget, self._schedule.share(number)) - self._net.cut

    def _nominate(self, candidates: Collection[int]) -> None:
        self._candidates = frozenset(candidates)
        # Not the net's own plan: that names a shared tensor twice, and it would be weakened twice.
        self._leaving = plan_from_cut(self._net.channels, self._candidates) if candidates else None

    def _cut(self, number: int, module: nn.Module) -> None:
        leaving = self._choose(number, module) if self._candidates is None else self._candidates
        self._candidates = self._leaving = None
        if not leaving:  # no narrower width is allowed yet
            return
        name = f"cut-{number}"
        self.scores[f"{name}, before"] = self._evaluate(module)
        self._take_over(module)
        former = self._net.graph
        self._net.apply_cut(self._net.cut | leaving)
        self._hand_back(module)
        self.scores[f"{name}, just cut"] = self._evaluate(module)
        if self._mend is not None:
            self.unkept += [(name, gain.method) for gain in self._mend(self._net, former) if not gain.kept]
            self._hand_back(module)
            self.scores[f"{name}, mended"] = self._evaluate(module)

    def _take_over(self, module: nn.Module) -> None:
        """The weights of the moment, on the CPU, where criteria and recovery work."""
        self._net.load_dense_state({name: tensor.cpu() for name, tensor in module.state_dict().items()})

    def _hand_back(self, module: nn.Module) -> None:
        load_state(module, self._net.module.state_dict())
        self._keep_silent(module)

    def _keep_silent(self, module: nn.Module) -> None:
        self._silence.close()
        gone = _pattern(module, self.plan)
        apply_pattern(module, gone)
        self._hold = self._silence.enter_context(holding(module, gone))


def _pattern(module: nn.Module, plan: PruningPlan) -> Pattern:
    """The trained weights of a cut net: what made a cut channel, and what read it, where nothing arrives any more."""
    keep = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        axes = plan.initializers.get(name, ())
        if axes:
            stays = torch.ones(parameter.shape, dtype=torch.bool)
            for axis in axes:
                stays.index_fill_(axis.axis, torch.tensor(axis.cut, dtype=torch.long), False)
            keep[name] = stays
    return Pattern(keep=keep)
