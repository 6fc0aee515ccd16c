"""Batch norm over the batches of all ranks.

With means m_r and variances v_r of W batches of one size, those of all are

    m = mean over r of m_r          v = mean over r of v_r  +  mean over r of (m_r - m)^2

so that every rank normalises as one process with the whole batch would, and keeps the same running statistics. The
calls of `torch.nn.functional.batch_norm` are caught while the net runs: layers, names and hooks of the net stay what
they are, and layers of other packages that call it are served as well. torch's own SyncBatchNorm replaces modules, and
runs on GPUs alone. A net that normalises by other calls, or from compiled code, has other running statistics on every
rank, by which it is found out when weights are compared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from .group import Ranks


def shared_statistics(ranks: Ranks) -> AbstractContextManager[object]:
    """A context in which batch norms in training look at the batches of all ranks; every rank runs the same layers."""
    return nullcontext() if ranks.world == 1 else _SharedStatistics(ranks)


class _SharedStatistics(TorchFunctionMode):
    def __init__(self, ranks: Ranks) -> None:
        super().__init__()
        self._ranks = ranks

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is not F.batch_norm:
            return func(*args, **(kwargs or {}))
        return self._normalise(*args, **(kwargs or {}))

    def _normalise(
        self,
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        """`torch.nn.functional.batch_norm`, with its arguments by their names."""
        if not training:
            return F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
        return batch_norm(self._ranks, input, running_mean, running_var, weight, bias, momentum, eps)


def batch_norm(
    ranks: Ranks,
    given: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    momentum: float,
    eps: float,
) -> Tensor:
    """given: (N, C, ...) float, of one shape on all ranks -> the same, normalised; statistics are float32 (C,)."""
    wide = given if given.dtype == torch.float64 else given.float()
    axes, shape = [0, *range(2, given.ndim)], (1, -1, *(1,) * (given.ndim - 2))
    variances, means = torch.var_mean(wide, axes, correction=0)
    seen = wide.new_zeros((ranks.world, 2, given.shape[1]))
    seen[ranks.rank] = torch.stack([means, variances])
    means, variances = ranks.total(seen).unbind(1)  # one sum tells everybody everything
    mean = means.mean(0)
    variance = variances.mean(0) + (means - mean).square().mean(0)
    if running_mean is not None and running_var is not None:
        count = ranks.world * given.numel() // given.shape[1]
        with torch.no_grad():
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            running_var.lerp_((variance * (count / (count - 1))).to(running_var.dtype), momentum)
    scale = torch.rsqrt(variance + eps)
    normal = (wide - mean.view(shape)) * (scale if weight is None else scale * weight).view(shape)
    return (normal if bias is None else normal + bias.view(shape)).to(given.dtype)
