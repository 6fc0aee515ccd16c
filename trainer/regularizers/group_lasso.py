"""The group lasso, a group being all that makes one output channel.

    R = weight * sum_l sqrt(K_l) * sum_f |W_lf|_2        dR/dW_lf = weight * sqrt(K_l) * W_lf / |W_lf|_2, 0 at 0

W_lf holds the K_l weights of filter f of layer l. The pull on a filter is the same however small it is, so whole
filters reach zero together; sqrt(K_l) makes the pull on one weight the same in small and large filters.

Source: Yuan and Lin 2006; for the filters of nets Wen et al. 2016 (structured sparsity learning), who do not weight by
size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..options import check_number
from .view import Seen, View


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupLasso:
    """The penalty; see the module docstring."""

    weight: float = 1e-5
    name: str = "group_lasso"

    def __post_init__(self) -> None:
        check_number(self.name, "weight", self.weight)

    @property
    def looks_at(self) -> Seen:
        """Kernels, whose filters are the groups."""
        return "kernels"

    def penalty(self, view: View) -> Tensor:
        """R over the filters of all kernels, a scalar with gradients."""
        layers = [filter_norms(kernel.filters()).sum() for kernel in view.kernels]
        return self.weight * torch.stack(layers).sum() if layers else torch.zeros(())


def filter_norms(filters: Tensor) -> Tensor:
    """sqrt(K) * |W_f|_2 of every filter: (O, ...) -> (O,), with the derivative 0 at 0."""
    flat = filters.flatten(1)
    norms: Tensor = torch.linalg.vector_norm(flat, dim=1)
    return norms * math.sqrt(flat.shape[1])
