"""Which JetPack has which L4T, CUDA, TensorRT and Python: the only table of it in edgeslim.

Source of every row: the vendor's release pages, not a device. A release that is not in the table is unknown; the
nearest row is never taken for it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class JetPackRelease:
    """One row: releases of JetPack that share L4T, CUDA, TensorRT and Python."""

    name: str
    first_l4t: tuple[int, int] | None
    last_l4t: tuple[int, int] | None
    """First and last L4T, (major, minor); None where the documents name none."""
    cuda: str | None
    tensorrt: str
    python: str
    """The Python whose bindings `python3-libnvinfer` has."""
    boards: str
    python_supported: bool = True
    """Whether edgeslim runs on that Python; without it engines are built by trtexec."""


JETPACKS = (
    JetPackRelease(
        name="5.1.x", first_l4t=(35, 2), last_l4t=(35, 6), cuda="11.4", tensorrt="8.5.2", python="3.8",
        boards="Xavier, Orin", python_supported=False,
    ),
    JetPackRelease(
        name="6.0", first_l4t=(36, 3), last_l4t=(36, 3), cuda="12.2", tensorrt="8.6.2", python="3.10", boards="Orin"
    ),
    JetPackRelease(
        name="6.1 to 6.2.2", first_l4t=(36, 4), last_l4t=(36, 5), cuda="12.6", tensorrt="10.3.0", python="3.10",
        boards="Orin",
    ),
    JetPackRelease(
        name="7.0", first_l4t=(38, 2), last_l4t=(38, 2), cuda="13.0", tensorrt="10.13.3", python="3.12", boards="Thor"
    ),
    JetPackRelease(
        name="7.1", first_l4t=(38, 4), last_l4t=(38, 4), cuda="13.0", tensorrt="10.13.3", python="3.12", boards="Thor"
    ),
    JetPackRelease(
        name="7.2 to 7.2.1", first_l4t=(39, 2), last_l4t=(39, 2), cuda="13.2", tensorrt="10.16.2", python="3.12",
        boards="Orin, Thor",
    ),
    JetPackRelease(
        name="7.2.2 and later", first_l4t=None, last_l4t=None, cuda=None, tensorrt="11.4.1", python="3.12",
        boards="AGX Orin, Thor",
    ),
)  # fmt: skip


def jetpack_of(l4t: str | None) -> JetPackRelease | None:
    """The row of an L4T such as "36.4.4"; None if it is in none."""
    found = re.match(r"(\d{1,4})\.(\d{1,4})(?:\.|$)", l4t or "")
    if found is None:
        return None
    release = (int(found[1]), int(found[2]))
    for row in JETPACKS:
        if row.first_l4t is not None and row.last_l4t is not None and row.first_l4t <= release <= row.last_l4t:
            return row
    return None
