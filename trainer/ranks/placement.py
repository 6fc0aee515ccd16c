"""Where the net of a training run lies, and what Lightning Fabric makes of it.

    one process     the module itself
    ddp             the module itself, its gradients averaged over the ranks while they arise
    fsdp            a copy in shards: every rank keeps a part of each weight, of its gradient and of the optimiser's
                    entries, and gets the others' parts of the weights for as long as a step runs; the module itself
                    takes part in evaluations alone

Whatever the strategy, a checkpoint holds whole tensors, so that any number of ranks can go on from it.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from lightning_fabric.strategies.model_parallel import ModelParallelStrategy
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from ..checkpoint import load_state
from ..optimizer import build_optimizer
from ..recipe import FitSection
from .group import Ranks

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.tensor import DTensor


def fabric_options(ranks: Ranks) -> dict[str, Any]:
    """The keyword arguments that tell Fabric about devices."""
    if ranks.world == 1:
        return {"accelerator": "auto", "devices": 1}
    # static_graph: parameters that no forward reads are allowed, as they are with one process.
    strategy = (
        DDPStrategy(static_graph=True)
        if ranks.launch.strategy == "ddp"
        else ModelParallelStrategy(_shard, data_parallel_size=ranks.world, tensor_parallel_size=1)
    )
    return {
        "accelerator": "cuda" if torch.cuda.is_available() else "cpu",
        "devices": ranks.launch.devices,
        "num_nodes": ranks.launch.num_nodes,
        "strategy": strategy,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A net in training. whole: the module that the run was given.  trained: the one whose weights learn, the same
    but for shards.  net: what is called for logits.
    """

    whole: nn.Module
    trained: nn.Module
    net: nn.Module
    optimizer: Optimizer
    ranks: Ranks

    def settle(self) -> None:
        """Bring the present weights into `whole`, and the first rank's buffers to all.

        But for batch norms: their statistics are the same everywhere, unless they were not shared, which must show.
        """
        if self.trained is not self.whole:
            load_state(self.whole, {name: _whole(tensor) for name, tensor in self.trained.state_dict().items()})
        if self.ranks.world > 1:
            for module in self.whole.modules():  # one may count what it likes, of its own images
                for buffer in () if isinstance(module, _BatchNorm) else module.buffers(recurse=False):
                    dist.broadcast(buffer, src=0)

    def entries(self) -> dict[int, dict[str, Tensor]]:
        """The optimiser's tensors, whole: parameter's index -> name -> tensor."""
        return {
            index: {name: _whole(torch.as_tensor(value)) for name, value in entries.items() if value is not None}
            for index, entries in self.optimizer.state_dict()["state"].items()
        }

    def restore_entries(self, entries: dict[int, dict[str, Any]]) -> None:
        """Give the optimiser what `entries` once returned. Raises ValueError or RuntimeError for what does not fit."""
        groups = self.optimizer.state_dict()["param_groups"]
        parameters = dict(enumerate(p for group in self.optimizer.param_groups for p in group["params"]))
        placed = {
            index: {name: _like(value, parameters.get(index)) for name, value in given.items()}
            for index, given in entries.items()
        }
        self.optimizer.load_state_dict({"state": placed, "param_groups": groups})


def place(fabric: Fabric, module: nn.Module, section: FitSection, ranks: Ranks) -> Placed:
    """Put `module` where it is trained, with its optimiser."""
    if ranks.launch.strategy == "ddp":
        net, optimizer = fabric.setup(module, build_optimizer(module, section))
        return Placed(whole=module, trained=module, net=net, optimizer=cast(Optimizer, optimizer), ranks=ranks)
    # Shards are rows, and cannot be taken of channels_last.
    shards = copy.deepcopy(module).to(fabric.device, memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    module.to(fabric.device)
    net = fabric.setup_module(shards)
    optimizer = fabric.setup_optimizers(build_optimizer(shards, section))
    return Placed(whole=module, trained=shards, net=net, optimizer=cast(Optimizer, optimizer), ranks=ranks)


def _shard(module: nn.Module, mesh: DeviceMesh) -> nn.Module:
    from torch.distributed.fsdp import fully_shard  # here, for most runs never need it

    return cast(nn.Module, fully_shard(module, mesh=mesh["data_parallel"]))


def _whole(tensor: Tensor) -> Tensor:
    """All of a tensor that may be in shards; collective."""
    return cast("DTensor", tensor).full_tensor() if hasattr(tensor, "full_tensor") else tensor


def _like(value: Any, parameter: Tensor | None) -> Any:
    """An entry in shards, as its parameter is; a step count is no such entry."""
    if not hasattr(parameter, "placements") or not isinstance(value, Tensor):
        return value
    from torch.distributed.tensor import distribute_tensor

    shards = cast("DTensor", parameter)
    if value.shape != shards.shape:
        return value
    return distribute_tensor(value.to(shards.device), shards.device_mesh, shards.placements)
