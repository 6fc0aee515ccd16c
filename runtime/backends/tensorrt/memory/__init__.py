"""GPU memory behind one small protocol."""

from .protocol import DeviceMemory, HostBuffer
from .registry import MEMORIES, open_memory

__all__ = ["MEMORIES", "DeviceMemory", "HostBuffer", "open_memory"]
