"""How much memory a graph needs, before it runs: what is alive when, and what that is of any plan."""

from .estimate import Estimate, estimate_memory
from .liveness import Life, Liveness, Moment, liveness
from .moments import Moments, moments, shipped_graph
from .sized import SizedGraph, as_fused, as_written
from .weights import ModelFile, mac_terms, model_file, parameter_terms
from .widths import AxisTerms, FamilyIndex, SizeTerms, Widths

__all__ = [
    "AxisTerms",
    "Estimate",
    "FamilyIndex",
    "Life",
    "Liveness",
    "ModelFile",
    "Moment",
    "Moments",
    "SizeTerms",
    "SizedGraph",
    "Widths",
    "as_fused",
    "as_written",
    "estimate_memory",
    "liveness",
    "mac_terms",
    "model_file",
    "moments",
    "parameter_terms",
    "shipped_graph",
]
