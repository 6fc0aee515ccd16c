"""What a caller asks for: `ratio=0.5`, or a target such as `macs=0.5x` or `latency=8ms`."""

from __future__ import annotations

import os
from pathlib import Path

from edgeslim.errors import ConfigError

from ..recipe import BudgetSpec, MacsBudget, RatioBudget
from ..recipe_target import TargetBudget
from .targets import parse_target


def parse_wish(
    ratio: float | None,
    target: str | None,
    min_share: float | None = None,
    *,
    device: str = "cpu:1",
    profile: str | os.PathLike[str] | None = None,
    allow_foreign_profile: bool = False,
) -> BudgetSpec:
    """The budget behind exactly one of the two. min_share: for a target, None for its default. Raises ConfigError.

    A share of the MACs alone is a budget that knows no device: its cuts are chosen one by one.
    """
    if (ratio is None) == (target is None):
        raise ConfigError("give either ratio or target", 'for example ratio=0.5, or target="latency=0.5x"')
    if ratio is not None:
        if not isinstance(ratio, (int, float)) or not 0.0 < ratio < 1.0:
            raise ConfigError(f"ratio is {ratio!r}; it must lie between 0 and 1", "0.5 cuts half of every family")
        if min_share is not None:
            raise ConfigError("min_share goes with target", "a ratio says of every family what stays")
        return RatioBudget(name="ratio", ratio=ratio)
    limits = parse_target(target)
    share = 0.25 if min_share is None else min_share
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0.0 <= share < 1.0:
        raise ConfigError(f"min_share is {share!r}; it must be at least 0 and below 1", "0.25 keeps a quarter")
    if len(limits) == 1 and limits[0].resource == "macs" and limits[0].relative and limits[0].amount < 1.0:
        return MacsBudget(name="macs", keep=limits[0].amount, min_share=share)
    if not isinstance(device, str):
        raise ConfigError(f"device is {device!r}", 'write "cpu:N" for ONNX Runtime on the CPU with N threads')
    if profile is not None and not isinstance(profile, (str, os.PathLike)):
        raise ConfigError(f"profile is {profile!r}", "give the path of a device profile")
    if not isinstance(allow_foreign_profile, bool):
        raise ConfigError(f"allow_foreign_profile is {allow_foreign_profile!r}", "it is True or False")
    return TargetBudget(
        name="target",
        target=str(target),
        device=device,
        profile=None if profile is None else Path(os.fsdecode(profile)),
        allow_foreign_profile=allow_foreign_profile,
        min_share=share,
    )
