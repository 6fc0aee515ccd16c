"""One operator as a backend runs it: fused, in its own layout, with the shapes it really has."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from edgeslim.schema import to_json


@dataclass(frozen=True, kw_only=True)
class Operator:
    """What a latency depends on, on one device.

    name: with its domain, "com.microsoft.nchwc.Conv".  inputs, outputs: shapes; a blocked layout shows its padded
    channels, for those are computed.  attributes: as text, by name; what an operator was fused with is among them.
    dtype: of the numbers it computes with, "float32".
    """

    name: str
    inputs: tuple[tuple[int, ...], ...]
    outputs: tuple[tuple[int, ...], ...]
    attributes: Mapping[str, str]
    dtype: str

    @cached_property
    def key(self) -> str:
        """SHA-256 of all of it, as hexadecimal digits."""
        text = json.dumps(to_json(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()
