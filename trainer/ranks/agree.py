"""All ranks must have set out from the same, cut the same channels and trained the same weights: compared by SHA-256,
and a difference ends the run. Unnoticed, it would be averaged away step by step into a net that nobody has asked for,
or one rank would wait for a call that another never makes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

import numpy as np
import torch

from edgeslim.errors import ConfigError, PlanError, TrainingError
from edgeslim.exporter.plan import PruningPlan

from ..checkpoint import State
from .group import Ranks


def check_same_start(ranks: Ranks, parts: Mapping[str, str]) -> None:
    """Raise ConfigError on all ranks unless all set out from the same `parts`: what it is -> all that counts of it."""
    if ranks.world > 1:
        for what, text in parts.items():
            _check(ranks, f"started with other {what} than rank 0", _digest_of_text(text), ConfigError)


def check_same_plan(ranks: Ranks, plan: PruningPlan) -> None:
    """Raise PlanError on all ranks unless all have this plan."""
    if ranks.world > 1:
        _check(ranks, "cut other channels than rank 0", _digest_of_text(plan.to_json()), PlanError)


def check_same_weights(ranks: Ranks, name: str, state: State) -> None:
    """Raise TrainingError on all ranks unless all have these weights in the stage `name`."""
    if ranks.world > 1:
        _check(ranks, f"trained other weights than rank 0 in {name}", digest_of(state), TrainingError)


def digest_of(state: State) -> str:
    """SHA-256 over names, dtypes, shapes and bytes, hexadecimal."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(np.ascontiguousarray(raw.numpy()).data)
    return digest.hexdigest()


def _check(ranks: Ranks, what: str, digest: str, error: Callable[[str, str], Exception]) -> None:
    digests = ranks.gather(digest)
    others = [rank for rank, seen in enumerate(digests) if seen != digests[0]]
    if not others:
        return
    who = "rank" if len(others) == 1 else "ranks"
    seen = ", ".join(f"{rank}: {text[:12]}" for rank, text in enumerate(digests))
    raise error(
        f"{who} {', '.join(map(str, others))} of {ranks.world} {what} (SHA-256 by rank {seen})",
        "give all ranks the same recipe, options, data, code and versions of torch and edgeslim; if they have them, "
        "please report this",
    )


def _digest_of_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
