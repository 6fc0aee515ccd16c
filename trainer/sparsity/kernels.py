"""Which weights can be pruned one by one: the kernels of a module, by name, with what their axes mean.

Kernels are the weights of convolutions and linear layers. A kernel that two layers share is listed once, under its
first name, and counted once. Left out, with a note: frozen kernels (pruning would move them) and those that are
computed from other parameters (what is set to zero there is computed anew).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from edgeslim.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """One kernel. weight: (O, I/groups, ...) float, or (I, O/groups, ...) where `transposed`."""

    name: str
    weight: Tensor
    transposed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernels:
    """The kernels of a module in the order of its parameters, and why others are not among them."""

    found: tuple[Kernel, ...]
    notes: tuple[str, ...]

    @property
    def weights(self) -> int:
        """The number of weights in all kernels."""
        return sum(kernel.weight.numel() for kernel in self.found)


def find_kernels(module: nn.Module) -> Kernels:
    """The kernels of `module` that learn. Raises ConfigError for one that is not finite or no float."""
    found: dict[int, Kernel] = {}
    notes: list[str] = []
    for prefix, child in module.named_modules():
        if not isinstance(child, (nn.modules.conv._ConvNd, nn.Linear)):
            continue
        name = f"{prefix}.weight" if prefix else "weight"
        weight = child._parameters.get("weight")
        if weight is None:
            notes.append(f"{name} stays whole: it is computed from other parameters")
        elif not weight.requires_grad:
            notes.append(f"{name} stays whole: it is frozen")
        elif id(weight) not in found:
            _check(name, weight)
            transposed = isinstance(child, nn.modules.conv._ConvTransposeNd)
            found[id(weight)] = Kernel(name=name, weight=weight.detach(), transposed=transposed)
    return Kernels(found=tuple(found.values()), notes=tuple(notes))


def _check(name: str, weight: Tensor) -> None:
    if not weight.is_floating_point():
        raise ConfigError(f"{name} is {weight.dtype}; weights are pruned as floats", "prune before you quantise")
    if not bool(weight.isfinite().all()):
        raise ConfigError(f"{name} has weights that are not finite", "train again with a lower rate, or clip_norm")
