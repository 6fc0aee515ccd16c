"""Which single weights stay: a pattern, one boolean tensor for every kernel.

    w <- w * keep          once the pattern is chosen, and after every step
    g <- g * keep          in every backward pass, so that momenta of pruned weights stay zero

With the second line the first would hold by itself for an optimiser that starts fresh: its momenta of pruned weights
are 0, so are its steps, and weight decay of 0 is 0. It also keeps what is pruned out of a clipped gradient's norm.
(Others call this a mask, which is a picture here.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgeslim.errors import ConfigError
from edgeslim.exporter.plan import PruningPlan
from edgeslim.exporter.shrink import shrink_tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """keep: kernel's name -> bool tensor of its shape, False where the weight is pruned.

    A kernel that is not named stays whole. notes: what a person should know, sentence by sentence.
    """

    keep: Mapping[str, Tensor]
    notes: tuple[str, ...] = ()

    @property
    def weights(self) -> int:
        """The number of weights that the pattern speaks of."""
        return sum(keep.numel() for keep in self.keep.values())

    @property
    def pruned(self) -> int:
        """How many of them go."""
        return sum(int((~keep).sum()) for keep in self.keep.values())

    @property
    def summary(self) -> str:
        """One line for a person."""
        share = self.pruned / self.weights if self.weights else 0.0
        return f"{self.pruned:,} of {self.weights:,} weights pruned ({share:.1%})"

    def shrink(self, plan: PruningPlan) -> Pattern:
        """The same pattern for the net without the channels that `plan` cuts."""
        small = {name: shrink_tensor(keep, plan.initializers.get(name, ())) for name, keep in self.keep.items()}
        return Pattern(keep=small)


def apply_pattern(module: nn.Module, pattern: Pattern) -> None:
    """Set the pruned weights of `module` to +0.0, in place. Raises ConfigError if the pattern is another net's."""
    with torch.no_grad():
        for weight, gone in _pruned(module, pattern):
            weight.masked_fill_(gone, 0.0)


@contextmanager
def holding(module: nn.Module, pattern: Pattern) -> Iterator[Callable[[], None]]:
    """Train inside the block and the pattern holds: gradients of pruned weights are zero.

    Yields a function to be called after every optimiser step, which sets the pruned weights to zero again; an
    optimiser that was made before, and has momenta of them, moves them otherwise.

        apply_pattern(net, pattern)
        with holding(net, pattern) as hold:
            for images, labels in batches:
                loss(net(images), labels).backward()
                optimizer.step(), optimizer.zero_grad(), hold()

    Raises ConfigError if the pattern is another net's.
    """
    silencers = [_Silencer(weight, gone) for weight, gone in _pruned(module, pattern)]
    learning = [s for s in silencers if s.weight.requires_grad]  # a layer may have been frozen since
    hooks = [s.weight.register_hook(s.silence) for s in learning]  # type: ignore[no-untyped-call]

    def hold() -> None:
        for silencer in silencers:
            silencer.hold()

    try:
        yield hold
    finally:
        for hook in hooks:
            hook.remove()


def clear_momenta(optimizer: torch.optim.Optimizer, module: nn.Module, pattern: Pattern) -> None:
    """Let an optimiser that has trained `module` before forget the momenta of pruned weights, in place."""
    with torch.no_grad():
        for weight, gone in _pruned(module, pattern):
            for value in optimizer.state.get(weight, {}).values():
                if isinstance(value, Tensor) and value.shape == weight.shape:
                    value.masked_fill_(gone.to(value.device), 0.0)


def _pruned(module: nn.Module, pattern: Pattern) -> list[tuple[nn.Parameter, Tensor]]:
    """(kernel, where it is pruned), on the kernel's device."""
    parameters = dict(module.named_parameters(remove_duplicate=False))
    found = []
    for name, keep in pattern.keep.items():
        weight = parameters.get(name)
        if weight is None or weight.shape != keep.shape or keep.dtype != torch.bool:
            seen = "lacks it" if weight is None else f"has {tuple(weight.shape)}"
            raise ConfigError(
                f"the pattern has {name} {tuple(keep.shape)} {keep.dtype}, the net {seen}", "use the net's own pattern"
            )
        found.append((weight, ~keep.to(weight.device)))
    return found


class _Silencer:
    """Keeps one kernel pruned, on whichever device it is trained."""

    def __init__(self, weight: nn.Parameter, gone: Tensor) -> None:
        self.weight = weight
        self._gone = gone

    def silence(self, gradient: Tensor) -> Tensor:
        """The gradient without what is pruned."""
        return gradient.masked_fill(self._on(gradient.device), 0.0)

    def hold(self) -> None:
        """Zero what an optimiser has moved."""
        with torch.no_grad():
            self.weight.masked_fill_(self._on(self.weight.device), 0.0)

    def _on(self, device: torch.device) -> Tensor:
        if self._gone.device != device:  # once: a module moves when its training begins
            self._gone = self._gone.to(device)
        return self._gone
