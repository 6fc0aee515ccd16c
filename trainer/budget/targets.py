"""What a net may take, in words: `latency=8ms`, `latency=0.5x`, `macs=0.5x,memory<64MB`.

    target   = limit { "," limit }
    limit    = resource ("=" | "<" | "<=") number [ unit ]
    resource = latency | macs | parameters | memory | file

`x` is a share of what the dense net takes, and so is a count below 1 without a unit. `=` and `<` mean the same: at
most so much, and as little less as can be.
Memory is the peak of activations, file the size of the model. Bytes are counted in powers of a thousand (kB, MB, GB)
or of 1,024 (KiB, MiB, GiB).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, get_args

from edgeslim.errors import ConfigError

Resource = Literal["latency", "macs", "parameters", "memory", "file"]
RESOURCES: tuple[Resource, ...] = get_args(Resource)
_BYTES = {"B": 1.0, "kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30}
_COUNTS = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9}
_UNITS: Mapping[str, Mapping[str, float]] = {
    "latency": {"us": 1.0, "ms": 1e3, "s": 1e6},
    "macs": _COUNTS,
    "parameters": _COUNTS,
    "memory": _BYTES,
    "file": _BYTES,
}
"""Unit -> how many of the resource's own: microseconds, counts, bytes."""
_LIMIT = re.compile(r"(?P<resource>[a-z]+)\s*(?:<=|=|<)\s*(?P<number>\d+\.?\d*|\.\d+)\s*(?P<unit>[A-Za-z]*)", re.ASCII)
_LEAST = 1e-9
"""A share, or of the resource's own unit: less is nothing."""
EXAMPLES = '"latency=8ms", "latency=0.5x" or "macs=0.5x,memory<64MB"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """amount: a share of the dense net's where `relative`, else microseconds, counts or bytes."""

    resource: Resource
    amount: float
    relative: bool

    def at(self, dense: float, share: float = 1.0) -> float:
        """The most that a net may take after `share` of the way from the dense net, on a logarithmic scale."""
        final = self.amount * dense if self.relative else self.amount
        return final if final >= dense else float(dense * (final / dense) ** share)

    @property
    def of_a_size(self) -> bool:
        """Whether it says nothing without the size of the net's input."""
        return self.resource in ("latency", "memory") or (self.resource == "macs" and not self.relative)

    def __str__(self) -> str:
        if self.relative:
            return f"{self.resource}={_digits(self.amount)}x"
        unit = {"latency": "ms", "memory": "MB", "file": "MB"}.get(self.resource, "")
        number = self.amount / _UNITS[self.resource][unit]
        if number * _UNITS[self.resource][unit] != self.amount:  # division has rounded: in the resource's own unit
            unit = next(name for name, scale in _UNITS[self.resource].items() if scale == 1.0)
            number = self.amount
        return f"{self.resource}={_digits(number)}{unit}"


def parse_target(text: object) -> tuple[Limit, ...]:
    """The limits in a target, one a resource. Raises ConfigError naming the part that is not understood."""
    if not isinstance(text, str) or not text.strip():
        raise ConfigError(f"target is {text!r}", f"write for example {EXAMPLES}")
    limits = tuple(_parse_limit(part.strip(), text) for part in text.split(","))
    names = [limit.resource for limit in limits]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"target {text!r} limits {twice} twice", "say it once")
    return limits


def amount_in_words(resource: str, amount: float) -> str:
    """So much of a resource, in the unit in which a person reads it: "8.25 ms", "1.5 MB", "2.58 M"."""
    if resource == "latency":
        return f"{amount / 1e3:.3g} ms"
    name, scale = "", 1.0
    for prefix, larger in (("k", 1e3), ("M", 1e6), ("G", 1e9)):
        if amount >= larger:
            name, scale = prefix, larger
    unit = name + ("B" if resource in ("memory", "file") else "")
    return f"{amount / scale:.4g} {unit}".rstrip()


def _digits(number: float) -> str:
    """A number as a target has it: all of its digits, and no exponent."""
    text = format(Decimal(repr(number)), "f")
    return text.removesuffix(".0")


def _parse_limit(part: str, text: str) -> Limit:
    found = _LIMIT.fullmatch(part)
    if found is None:
        raise ConfigError(f"target {text!r}: {part!r} is not understood", f"write for example {EXAMPLES}")
    resource = next((name for name in RESOURCES if name == found["resource"]), None)
    if resource is None:
        raise ConfigError(
            f"target {text!r}: there is no resource {found['resource']!r}", f"choose from {', '.join(RESOURCES)}"
        )
    number, unit = float(found["number"]), found["unit"]
    units = _UNITS[resource]
    if unit != "x" and unit not in units:
        known = ", ".join(repr(name) if name else "none" for name in ("x", *units))
        raise ConfigError(
            f"target {text!r}: the unit of {resource} is {unit or 'missing'!r}; it may be {known}",
            f"write for example {EXAMPLES}",
        )
    if not math.isfinite(number * max(units.values())):
        raise ConfigError(f"target {text!r}: {part!r} is too large a number", f"write for example {EXAMPLES}")
    relative = unit == "x" or (unit == "" and number < 1)
    amount = number if relative else number * units[unit]
    if amount < _LEAST:
        raise ConfigError(f"target {text!r}: {part!r} leaves nothing", f"write for example {EXAMPLES}")
    return Limit(resource=resource, amount=amount, relative=relative)
