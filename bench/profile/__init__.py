"""Device profiles: how long operators take on a device, measured there, and what a net of any widths would take."""

from .candidates import Step, candidate_widths
from .collect import CollectOptions, collect
from .fingerprint import Fingerprint, fingerprint_here
from .latency_model import LatencyModel, ModelError, fit_latency
from .observe import Observation, Observer, open_observer
from .operator import Operator
from .space import WidthSpace
from .store import DeviceProfile, open_profile

__all__ = [
    "CollectOptions",
    "DeviceProfile",
    "Fingerprint",
    "LatencyModel",
    "ModelError",
    "Observation",
    "Observer",
    "Operator",
    "Step",
    "WidthSpace",
    "candidate_widths",
    "collect",
    "fingerprint_here",
    "fit_latency",
    "open_observer",
    "open_profile",
]
