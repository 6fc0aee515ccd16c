"""Which device a plan is for, and what is known of it: from a device's name and a file to a fingerprint.

A profile of another device says nothing about this one. It is refused unless the caller means that other device; then
nothing can be measured, and whoever uses the result must be able to see that.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeslim.errors import ConfigError, DeviceError, EdgeslimError

from .fingerprint import Fingerprint
from .observe import Observer, open_observer
from .store import DeviceProfile, default_profile_path, open_profile


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A device with its open profile. observer: None for a device that is not here."""

    fingerprint: Fingerprint
    profile: DeviceProfile
    observer: Observer | None

    @property
    def foreign(self) -> bool:
        """Whether the device is not here: what is known of it stands in the profile alone."""
        return self.observer is None


def find_device(device: str, path: Path | None = None, *, allow_foreign: bool = False, add: bool = False) -> Place:
    """Find the device that `device` names: "cpu:N" here, or one of the profile by the first digits of its fingerprint.

    path: of the profile, that of the user's cache where None.  add: a device that is here may be new to the profile.
    Raises DeviceError for an unknown device, and for a profile that was taken elsewhere unless `allow_foreign`.
    """
    here = open_observer(device) if ":" in device else None  # before a file is made for one that cannot be measured
    # Who means a device that is not here has a profile of it: a new file would be this machine's.
    profile = open_profile(
        default_profile_path() if path is None else path, must_exist=allow_foreign and path is not None
    )
    try:
        if here is None:
            return _by_digits(device, profile, allow_foreign)
        return _by_name(here, profile, add or path is None, allow_foreign)
    except BaseException:
        profile.close()
        raise


def _by_name(observer: Observer, profile: DeviceProfile, to_add: bool, allow_foreign: bool) -> Place:
    """The device that is here; the profile's own where that is another one, and meant."""
    here, known = observer.fingerprint, profile.devices
    if here in known or not known or to_add:
        return Place(fingerprint=here, profile=profile, observer=observer)
    if not allow_foreign:
        raise DeviceError(
            f"{profile.path} was taken on another device: {_listed(known)}; this is {here}",
            "plan for that device with --allow-foreign-profile (allow_foreign_profile), or add this one by "
            "`edgeslim profile measure`, or name another file",
        )
    return Place(fingerprint=_only(known, profile), profile=profile, observer=None)


def _by_digits(digits: str, profile: DeviceProfile, allow_foreign: bool) -> Place:
    """The device of the profile whose fingerprint begins so. It may be this machine."""
    known = profile.devices
    wanted = tuple(own for own in known if own.digest.startswith(digits)) if digits else ()
    if not wanted:
        raise ConfigError(
            f"there is no device {digits!r} in {profile.path}",
            f"write cpu:N, or one of: {_listed(known) or 'none'}",
        )
    device = _only(wanted, profile)
    observer = _observer_of(device)
    if observer is None and not allow_foreign:
        raise DeviceError(
            f"{_listed(wanted)} is known by its profile alone",
            "nothing can be measured on it from here: say --allow-foreign-profile (allow_foreign_profile)",
        )
    return Place(fingerprint=device, profile=profile, observer=observer)


def _only(devices: tuple[Fingerprint, ...], profile: DeviceProfile) -> Fingerprint:
    if len(devices) > 1:
        raise ConfigError(f"{profile.path} knows several devices: {_listed(devices)}", "name one by its first digits")
    return devices[0]


def _observer_of(device: Fingerprint) -> Observer | None:
    """What measures this device, if it is this machine."""
    try:
        observer = open_observer(f"cpu:{device.threads}")
    except EdgeslimError:  # it has more threads than there are cores here
        return None
    return observer if observer.fingerprint == device else None


def _listed(devices: tuple[Fingerprint, ...]) -> str:
    return "; ".join(f"{device.short} ({device})" for device in devices)
