"""What the parts of the stand-in for TensorRT share: planted faults, and classes cut down to one version's members."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any

from .surface import members, surface

MAGIC = b"FAKE"
NUMBERS = {
    "86": "8.6.1",
    "103": "10.3.0",
    "107": "10.7.0",
    "1013": "10.13.3",
    "1016": "10.16.1",
    "114": "11.4.0",
    "rtx": "1.7.1",
}


@dataclass
class Plan:
    """What goes wrong, and what was seen."""

    unsupported: frozenset[str] = frozenset()
    memory_bytes: int | None = None
    """A workspace beyond this is out of memory, and so is none at all."""
    refuses: str | None = None
    """The builder fails with these words."""
    off_by: float = 0.0
    """Added to every output of every engine."""
    wrong_values: dict[str, float] = field(default_factory=dict)
    """Inner value -> what its layer adds to it by mistake; whoever reads it goes on with that."""
    wrong_where_fused: bool = False
    """Such a layer is right where its value is an output."""
    not_on_dla: frozenset[str] = frozenset()
    told_of_dla: frozenset[str] = frozenset()
    """Layers of which the log says why they are not on it."""
    dla_cores: int = 0
    fails_to_run: bool = False
    no_context: bool = False
    no_driver: bool = False
    """Neither a builder nor a runtime starts."""
    foreign_timings: bool = False
    creation_flags: list[int] = field(default_factory=list)
    built: list[dict[str, Any]] = field(default_factory=list)
    network_types: list[list[str]] = field(default_factory=list)


class Severity(enum.IntEnum):
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2
    INFO = 3
    VERBOSE = 4


def restricted(kind: type, name: str, version: str) -> type:
    """`kind` without the members that this version's class `name` lacks, for reading and for writing."""
    missing = frozenset(surface()[name]) - members(name, version)

    def check(attribute: str) -> None:
        if attribute in missing:
            raise AttributeError(f"{name} of TensorRT {NUMBERS[version]} has no {attribute}")

    def read(self: object, attribute: str) -> Any:
        check(attribute)
        return kind.__getattribute__(self, attribute)

    def write(self: object, attribute: str, value: object) -> None:
        check(attribute)
        if not attribute.startswith("_") and attribute not in surface()[name]:
            raise AttributeError(f"no TensorRT's {name} has a member {attribute}")
        kind.__setattr__(self, attribute, value)

    return type(name, (kind,), {"__getattribute__": read, "__setattr__": write})
