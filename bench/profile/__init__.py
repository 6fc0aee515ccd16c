"""Device profiles: how long operators take on a device, measured there, and what a net of any widths would take."""

from .candidates import Step, candidate_widths, find_step, measure_staircase
from .collect import CollectOptions, collect
from .find import Place, find_device
from .fingerprint import Fingerprint, fingerprint_here
from .latency_model import LatencyModel, ModelError, Part, fit_latency
from .observe import Observation, Observer, open_observer
from .operator import Operator
from .race import Timed, at_usual_speed, race
from .space import Widths, WidthSpace
from .store import DeviceProfile, default_profile_path, open_profile

__all__ = [
    "CollectOptions",
    "DeviceProfile",
    "Fingerprint",
    "LatencyModel",
    "ModelError",
    "Observation",
    "Observer",
    "Operator",
    "Part",
    "Place",
    "Step",
    "Timed",
    "WidthSpace",
    "Widths",
    "at_usual_speed",
    "candidate_widths",
    "collect",
    "default_profile_path",
    "find_device",
    "find_step",
    "fingerprint_here",
    "fit_latency",
    "measure_staircase",
    "open_observer",
    "open_profile",
    "race",
]
