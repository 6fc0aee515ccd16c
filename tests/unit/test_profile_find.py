"""Which device a name and a profile stand for: this machine, another that is meant, or neither."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeslim.bench.profile import find, find_device, measure_staircase, open_observer, open_profile
from edgeslim.bench.profile.candidates import WIDEST
from edgeslim.errors import ConfigError, DeviceError
from edgeslim.progress import Silent

from .fake_device import FakeObserver, fingerprint, place_of, without_pauses


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    without_pauses(monkeypatch)


@pytest.mark.parametrize(
    "name", ["cpu:0", "cpu:x", "cpu:-1", "cpu:²", "cpu:٣", "cpu:1 ", "cpu:", "CPU:1", ":", "gpu:0"]
)
def test_names_that_are_no_device(name: str) -> None:
    with pytest.raises(DeviceError, match="there is no device") as caught:
        open_observer(name)
    assert "cpu:N" in caught.value.hint


@pytest.mark.parametrize("name", ["cuda:0", "tensorrt:0", "ssh:board"])
def test_devices_on_which_nothing_can_be_measured_yet(name: str) -> None:
    with pytest.raises(DeviceError, match="cannot be measured") as caught:
        open_observer(name)
    assert "allow_foreign_profile" in caught.value.hint


@pytest.mark.parametrize("name", ["cpu:99999", "cpu:" + "9" * 5000])
def test_more_threads_than_cores(name: str) -> None:
    with pytest.raises((ConfigError, DeviceError), match=r"cores|no device"):
        open_observer(name)


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A profile of two devices that are not here."""
    path = tmp_path / "elsewhere"
    with open_profile(path) as profile:
        for version in ("1.0", "2.0"):
            observer = FakeObserver(fingerprint=fingerprint(version))
            measure_staircase(place_of(profile, observer), Silent())
    yield path


def test_a_profile_of_another_device_is_refused_unless_it_is_meant(elsewhere: Path) -> None:
    with pytest.raises(DeviceError, match="was taken on another device") as caught:
        find_device("cpu:1", elsewhere)
    assert "allow_foreign_profile" in caught.value.hint
    with pytest.raises(ConfigError, match="knows several devices") as many:
        find_device("cpu:1", elsewhere, allow_foreign=True)
    assert "first digits" in many.value.hint
    short = fingerprint("2.0").short
    with pytest.raises(DeviceError, match="known by its profile alone") as alone:
        find_device(short, elsewhere)
    assert "allow_foreign_profile" in alone.value.hint
    place = find_device(short, elsewhere, allow_foreign=True)
    assert place.foreign and place.fingerprint == fingerprint("2.0")
    assert len(measure_staircase(place, Silent())) == WIDEST
    for name in ("", "xyz"):
        with pytest.raises(ConfigError, match="there is no device") as none:
            find_device(name, elsewhere, allow_foreign=True)
        assert short in none.value.hint


def test_digits_of_several_devices_are_too_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of them is here; the other is not, but that is not what is wrong."""
    here = FakeObserver()
    monkeypatch.setattr(find, "open_observer", lambda name: here)
    first = here.fingerprint.digest[0]
    other = next(own for n in range(1000) if (own := fingerprint(f"{n}.5")).digest[0] == first)
    path = tmp_path / "p"
    with open_profile(path) as profile:
        for observer in (here, FakeObserver(fingerprint=other)):
            measure_staircase(place_of(profile, observer), Silent())
    for allow in (False, True):
        with pytest.raises(ConfigError, match="knows several devices"):
            find_device(first, path, allow_foreign=allow)
    assert not find_device(here.fingerprint.short, path).foreign


def test_the_usual_profile_is_for_all_devices(elsewhere: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "edgeslim").mkdir()
    elsewhere.rename(tmp_path / "edgeslim" / "device-profile.sqlite")
    place = find_device("cpu:1")
    assert not place.foreign and place.fingerprint not in place.profile.devices
