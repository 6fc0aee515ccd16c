"""What ONNX Runtime's profile tells about the memory arena of a session.

After every kernel the profile states the arena's `mem_arena_held`, `mem_in_use_peak` and
`mem_bytes_requested_in_use` (bytes, as text). Initializers are not in the arena, but the copies that kernels
rearrange for themselves are: they are what is in use before the first kernel. From the second run on, one
block planned from the first run's pattern holds all activations, so the last run is the one that is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .result import ArenaUse

Event = Mapping[str, object]


def arena_from_profile(events: Sequence[Event]) -> ArenaUse | None:
    """Read the parsed trace of at least one run. None where it has no memory statistics (older versions)."""
    runs = [_number(event, "ts") for event in events if event.get("name") == "model_run"]
    nodes = [event for event in events if event.get("cat") == "Node" and "mem_arena_held" in _arguments(event)]
    if not runs or not nodes:
        return None
    first = min(nodes, key=lambda event: _number(event, "ts"))
    last = [event for event in nodes if _number(event, "ts") >= max(runs)] or nodes
    packed = _memory(first, "mem_bytes_requested_in_use") - _memory(first, "mem_requested_in_use_delta")
    return ArenaUse(
        held_bytes=max(_memory(event, "mem_arena_held") for event in nodes),
        peak_bytes=max(_memory(event, "mem_in_use_peak") for event in nodes),
        activation_bytes=max(_memory(event, "mem_bytes_requested_in_use") for event in last) - packed,
        packed_weight_bytes=packed,
    )


def _arguments(event: Event) -> Mapping[str, object]:
    arguments = event.get("args")
    return arguments if isinstance(arguments, Mapping) else {}


def _memory(event: Event, key: str) -> int:
    return int(str(_arguments(event).get(key, 0)))


def _number(event: Event, key: str) -> float:
    value = event.get(key)
    return float(value) if isinstance(value, (int, float)) else 0.0
