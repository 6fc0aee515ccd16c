"""Engines on disk: what they are for, where they lie, and whether they are whole."""

from .record import EngineBackend, EngineRecord, EngineSpec
from .store import EngineStore, StoredEngine, engines_folder, engines_in

__all__ = ["EngineBackend", "EngineRecord", "EngineSpec", "EngineStore", "StoredEngine", "engines_folder", "engines_in"]
