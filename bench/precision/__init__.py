"""Which layers are worth a lower precision: decided by the device's clock and the validation images."""

from .search import SearchOptions, search_precision

__all__ = ["SearchOptions", "search_precision"]
