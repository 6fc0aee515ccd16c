"""What is pruned stays zero: in a loop of one's own, in the one of the project, and across an interruption."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from edgeslim.errors import CheckpointError
from edgeslim.progress import Progress, Silent
from edgeslim.trainer.checkpoint import load_checkpoint
from edgeslim.trainer.fit import FitResult, fit
from edgeslim.trainer.sparsity import (
    Pattern,
    apply_pattern,
    clear_momenta,
    holding,
    magnitude_pattern,
    two_of_four_pattern,
)
from edgeslim.trainer.workspace import Workspace

from . import nets
from .runs import STEPS, Interrupted, StopAt, content, identical, section

pytestmark = pytest.mark.usefixtures("one_thread")

OPTIMIZERS: dict[str, Callable[[nn.Module], torch.optim.Optimizer]] = {
    "sgd": lambda net: torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-2),
    "adam": lambda net: torch.optim.Adam(net.parameters(), lr=0.1, weight_decay=1e-2),
    "adamw": lambda net: torch.optim.AdamW(net.parameters(), lr=0.1, weight_decay=1e-1, amsgrad=True),
    "rmsprop": lambda net: torch.optim.RMSprop(net.parameters(), lr=0.01, momentum=0.9, centered=True),
}


def silent(net: nn.Module, pattern: Pattern) -> bool:
    """Every pruned weight is +0.0, and some of the others are not."""
    own = dict(net.named_parameters())
    gone = [own[name].detach()[~keep] for name, keep in pattern.keep.items()]
    left = [own[name].detach()[keep] for name, keep in pattern.keep.items()]
    return not any(bool(w.any()) or bool(torch.signbit(w).any()) for w in gone) and all(bool(w.any()) for w in left)


def step(net: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    images = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(seed))
    optimizer.zero_grad()
    net(images).square().mean().backward()
    optimizer.step()


def test_a_layer_that_was_frozen_since_is_held_too() -> None:
    net = nets.Bare()
    pattern = magnitude_pattern(net, 0.5)
    for parameter in net.a.parameters():
        parameter.requires_grad_(False)
    apply_pattern(net, pattern)
    with holding(net, pattern) as hold:
        step(net, torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.1), 0)
        hold()
    assert silent(net, pattern)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("kind", ["magnitude", "two of four"])
def test_masks_hold_through_momentum(optimizer: str, kind: str) -> None:
    torch.manual_seed(0)
    net = nets.Plain()
    pattern = magnitude_pattern(net, 0.7) if kind == "magnitude" else two_of_four_pattern(net)
    apply_pattern(net, pattern)
    stepper = OPTIMIZERS[optimizer](net)
    with holding(net, pattern) as hold:
        for seed in range(5):
            step(net, stepper, seed)
            assert silent(net, pattern)  # the gradients alone see to it
            hold()
            assert silent(net, pattern)
    for name, keep in pattern.keep.items():
        for value in stepper.state[dict(net.named_parameters())[name]].values():
            assert value.shape != keep.shape or not bool(value[~keep].any())
    step(net, stepper, 9)
    assert not silent(net, pattern)  # nothing is left behind on the net


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_an_optimiser_with_momenta_of_its_own(optimizer: str) -> None:
    """It goes on moving what was pruned: the call after the step holds it, and clearing it ends it."""
    torch.manual_seed(0)
    net = nets.Plain()
    stepper = OPTIMIZERS[optimizer](net)
    for seed in range(3):
        step(net, stepper, seed)
    pattern = magnitude_pattern(net, 0.7)
    apply_pattern(net, pattern)
    with holding(net, pattern) as hold:
        step(net, stepper, 3)
        assert not silent(net, pattern)
        hold()
        assert silent(net, pattern)
        clear_momenta(stepper, net, pattern)
        step(net, stepper, 4)
        assert silent(net, pattern)


def test_a_shared_kernel_is_held_once() -> None:
    from .test_compact import Tied

    net = Tied()
    pattern = magnitude_pattern(net, 0.5)
    apply_pattern(net, pattern)
    optimizer = OPTIMIZERS["sgd"](net)
    with holding(net, pattern):
        for seed in range(3):
            step(net, optimizer, seed)
    assert silent(net, pattern) and net.c.weight is net.b.weight


def trained(
    workspace: Workspace,
    pattern: Pattern,
    directory: Path | None = None,
    progress: Progress | None = None,
    optimizer: str = "adamw",
) -> tuple[FitResult, nn.Module]:
    module = workspace.fresh_module()
    apply_pattern(module, pattern)
    with holding(module, pattern) as hold:
        result = fit(
            module,
            workspace.task,
            section(optimizer=optimizer, weight_decay=1e-3, lr=1e-2),
            name="stage",
            seed=0,
            key="key",
            after_step=[lambda step: hold()],
            pattern=pattern.keep,
            directory=directory,
            progress=progress,
        )
    return result, module


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize("at", [5, 8])
def test_a_run_is_resumed_with_its_pattern(workspace: Workspace, tmp_path: Path, optimizer: str, at: int) -> None:
    pattern = magnitude_pattern(workspace.module, 0.8)
    wanted, whole = trained(workspace, pattern, tmp_path / "whole", optimizer=optimizer)
    with pytest.raises(Interrupted):
        trained(workspace, pattern, tmp_path / "stopped", StopAt(at), optimizer)
    saved = load_checkpoint(tmp_path / "stopped")
    assert saved.parts["pattern"].keys() == pattern.keep.keys()
    assert all(torch.equal(saved.parts["pattern"][name], keep) for name, keep in pattern.keep.items())
    seen, resumed = trained(workspace, pattern, tmp_path / "stopped", optimizer=optimizer)
    assert seen == wanted
    assert identical(resumed, whole) and silent(resumed, pattern)
    assert content(tmp_path / "stopped") == content(tmp_path / "whole")


def test_every_step_of_a_run_is_silent_where_it_is_pruned(workspace: Workspace) -> None:
    pattern = magnitude_pattern(workspace.module, 0.8)
    module = workspace.fresh_module()
    apply_pattern(module, pattern)
    seen: list[int] = []

    class Watching(Silent):
        def step(self, done: int, values: Mapping[str, float]) -> None:
            assert silent(module, pattern)
            seen.append(done)

    with holding(module, pattern) as hold:
        fit(
            module,
            workspace.task,
            section(optimizer="sgd", lr=1e-2),
            name="stage",
            seed=0,
            after_step=[lambda step: hold()],
            progress=Watching(),
        )
    assert set(seen) == set(range(1, STEPS + 1))
    assert silent(module, pattern)


@pytest.mark.parametrize("finished", [False, True])
def test_a_checkpoint_with_another_pattern(workspace: Workspace, tmp_path: Path, finished: bool) -> None:
    pattern = magnitude_pattern(workspace.module, 0.8)
    if finished:
        trained(workspace, pattern, tmp_path / "run")
    else:
        with pytest.raises(Interrupted):
            trained(workspace, pattern, tmp_path / "run", StopAt(5))
    other = copy.deepcopy(pattern)
    next(iter(other.keep.values())).logical_not_()
    nothing = Pattern(keep=dict[str, Tensor]())
    for wrong in (other, nothing):
        with pytest.raises(CheckpointError, match="prunes other weights") as caught:
            trained(workspace, wrong, tmp_path / "run")
        assert "--fresh" in caught.value.hint
