"""A net with its analysis and its plan: what `prune` returns and `export` takes.

The dense module gives the shapes; the weights live in one of two places. Until `compact()` is called they are the
masked module's. From then on the compact module is the net: what is trained there is what `module` shows (put back
into dense shapes) and what is exported.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch
from torch import nn

from edgeslim.errors import CheckpointError, UnsupportedGraphError, first_line
from edgeslim.exporter.certificate import References
from edgeslim.exporter.channels import ChannelMap, Coverage, analyze
from edgeslim.exporter.channels.coverage import coverage
from edgeslim.exporter.foreign.feeds import Arrays
from edgeslim.exporter.plan import PruningPlan, cut_of_plan, plan_from_cut
from edgeslim.exporter.shrink import carry_optimizer, with_tied_names
from edgeslim.exporter.trace import check_precision, runner_from_module, trace
from edgeslim.exporter.weights import with_weights

from .budget.reached import Reached
from .checkpoint import Checkpoint, copy_state, load_checkpoint, load_state, save_checkpoint
from .compact import compact_module, expand_state, hold_masks
from .recovery import Recovery, recover, settle


class PrunedModel:
    """A module under a pruning plan (at first the empty one). Made by `PrunedModel.from_module`."""

    def __init__(self, module: nn.Module, example: torch.Tensor, channels: ChannelMap) -> None:
        """Take over `module` (dense shapes) and the analysis of its trace. example: (N, C, H, W) float."""
        self.channels = channels
        self._masked = module
        self._example = example
        self._dense_state = copy_state(module.state_dict())
        self._compact: nn.Module | None = None
        self.plan = plan_from_cut(channels, ())
        self.recovery: Recovery | None = None
        """What was done to make up for the last cut without training, and what that bought; None for nothing."""
        self.reached: Reached | None = None
        """What the plan takes on the device that it was made for; None where it was made for none."""
        self.after_cut: Callable[[PruningPlan], None] = lambda plan: None
        """Called with every plan that is applied; what it raises ends the run."""

    @classmethod
    def from_module(cls, module: nn.Module, example: torch.Tensor) -> PrunedModel:
        """Trace and analyse a copy of `module`. Raises UnsupportedGraphError if it cannot be copied, run or traced."""
        try:
            module = copy.deepcopy(module).eval()
        except Exception as error:  # a module may hold anything
            raise UnsupportedGraphError(
                f"{type(module).__name__} cannot be copied: {first_line(error)}",
                "if it uses torch.nn.utils.weight_norm or spectral_norm, call their remove_... functions first",
            ) from error
        return cls(module, example, analyze(trace(module, example), set(module.state_dict())))

    def __deepcopy__(self, memo: dict[int, object]) -> PrunedModel:
        """With weights of its own. The analysis is shared: nothing changes it."""
        twin = copy.copy(self)
        memo[id(self)] = twin
        twin._masked, twin._compact, twin._dense_state = copy.deepcopy(
            (self._masked, self._compact, self._dense_state), memo
        )
        return twin

    @property
    def module(self) -> nn.Module:
        """The masked net in dense shapes, with the newest weights."""
        if self._compact is not None:
            state = expand_state(self._compact.state_dict(), self._dense_state, self.plan)
            load_state(self._masked, state)
        return self._masked

    @property
    def coverage(self) -> Coverage:
        """Per layer the width before and after, or why it stayed."""
        return coverage(self.channels, self.cut)

    @property
    def cut(self) -> frozenset[int]:
        """Labels of the units that the plan cuts."""
        return cut_of_plan(self.channels, self.plan)

    @property
    def graph(self) -> ir.Model:
        """The traced graph with the masked net's weights. Raises UnsupportedGraphError if those are float32 no more."""
        check_precision(self._masked if self._compact is None else self._compact, self._example)
        state = {name: t.detach().cpu().numpy() for name, t in self.module.state_dict().items()}
        return with_weights(self.channels.model, state)

    @property
    def origin(self) -> Mapping[str, str]:
        """For the manifest: what the plan was made for, and whether that was measured."""
        return {} if self.reached is None else self.reached.origin

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(N, C, H, W) of the example."""
        return tuple(self._example.shape)

    def load_dense_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take over other weights of the same dense shapes; what is cut becomes zero in them."""
        load_state(self._masked, state)
        hold_masks(self._masked, self.plan)
        self._dense_state = copy_state(state)
        self._compact = None

    def apply(self, plan: PruningPlan) -> None:
        """Cut further: `plan` replaces the present one. Raises PlanError if it belongs to another model."""
        cut_of_plan(self.channels, plan)
        module = self.module
        self._dense_state = copy_state(module.state_dict())
        self._compact = None
        self.plan = with_tied_names(plan, module)
        self.recovery = None
        self.reached = None if self.reached is None else replace(self.reached, narrowed=True)
        hold_masks(module, self.plan)
        self.after_cut(self.plan)

    def recover(self, dense: ir.Model, inputs: Sequence[Arrays], methods: Sequence[str]) -> Recovery:
        """Make up for the present cut without training, see `recovery`; the weights of `module` change.

        dense: `graph` as it was before the cut. inputs: real graph inputs. Raises ConfigError, ExportError.
        """
        return self.take(self.find_recovery(dense, inputs, methods))

    def find_recovery(self, dense: ir.Model, inputs: Sequence[Arrays], methods: Sequence[str]) -> Recovery:
        """What `recover` would change, without changing it."""
        present = self.graph
        found = recover(dense, present, self.channels, self.cut, inputs, methods)
        if not found.changes:
            return found
        # So that a fine-tuning starts from the corrected net.
        settled = settle(with_weights(present, found.changes), self.channels, self.cut, inputs)
        return replace(found, changes={**found.changes, **settled})

    def take(self, recovery: Recovery) -> Recovery:
        """Give `module` the weights that `find_recovery` has found for this net, here or in another process."""
        self.recovery = recovery
        state = self.module.state_dict()
        changes = {n: torch.from_numpy(np.array(a)) for n, a in recovery.changes.items() if n in state}
        load_state(self._masked, {**state, **changes})
        self._dense_state = copy_state(self._masked.state_dict())
        self._compact = None
        return self.recovery

    def apply_cut(self, cut: Collection[int]) -> None:
        """Cut the units with these labels (all of them, not only the new ones). Raises PlanError."""
        self.apply(plan_from_cut(self.channels, cut))

    def compact(self, optimizer: torch.optim.Optimizer | None = None) -> nn.Module:
        """The physically smaller net, the same object each time; train it and export this PrunedModel.

        optimizer: one that trained `module`; it goes on with the smaller net and keeps its momenta.
        Raises UnsupportedGraphError where the class hard-codes its widths; train `module` under `hold_masks` then.
        """
        if self._compact is None:
            # The masked net's own weights, not those it was cut from: it may have been trained since.
            compact = compact_module(self._masked, self.plan, self._example)
            self._dense_state = copy_state(self._masked.state_dict())
            self._compact = compact
        if optimizer is not None:
            carry_optimizer(optimizer, self._masked, self._compact, self.plan)
        return self._compact

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write plan and weights, compact where the class can be, as a checkpoint directory: JSON and safetensors.

        `load_compact(path, Net())` brings the net back. Raises TrainingError if the disk does not take it,
        UnsupportedGraphError where the class hard-codes its widths.
        """
        parts = {"model": self.compact().state_dict()}
        save_checkpoint(Path(path), Checkpoint(key="", step=0, finished=True, parts=parts, plan=self.plan))

    def hold_masks(self) -> None:
        """Set the masked weights of `module` to zero again, after an optimiser step has moved them."""
        hold_masks(self._masked, self.plan)

    def references(self) -> References:
        """The torch forms that an export must equal; a class that hard-codes its widths has no compact one."""
        masked, form = runner_from_module(self.module), "compact torch"
        try:
            # Not self.compact(): from then on `module` would show held masks, also where training did not hold them.
            compact = self._compact or compact_module(self._masked, self.plan, self._example)
        except UnsupportedGraphError as error:
            return References(masked=masked, missing={form: error.message})
        return References(masked=masked, others={form: runner_from_module(compact)})


def load_compact(path: str | os.PathLike[str], module: nn.Module) -> nn.Module:
    """Shrink a fresh instance of the net's class, in place, to what `PrunedModel.save` wrote, with its weights.

    Raises CheckpointError for anything but such a checkpoint, PlanError for that of another net.
    """
    saved = load_checkpoint(Path(path))
    if saved.plan is None:
        raise CheckpointError(f"{path} has no plan: it is no pruned net", "load its model.safetensors as it is")
    small = saved.plan.apply(module)
    try:
        load_state(small, saved.model)
    except RuntimeError as error:
        raise CheckpointError(
            f"{path} does not fit {type(module).__name__}: {first_line(error)}", "build the net with the same arguments"
        ) from error
    return small
