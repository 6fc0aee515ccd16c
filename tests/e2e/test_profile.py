"""`edgeslim profile`, and `compress` for a target on a device: the commands, their words, files and exit codes.

Most run within this process on the device on paper of tests/unit, which is as fast on every machine; one measures here.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import pytest

from edgeslim.bench.profile import find, open_profile
from edgeslim.errors import DeviceError
from edgeslim.runtime import read_bundle

from ..unit.fake_device import FakeObserver, fingerprint, without_pauses
from .tiny import FIT, RECIPE, Cli, call_edgeslim, write_recipe

BUDGET = {"name": "target", "target": "latency=0.6x", "nets": 8, "seconds": 0.1}
NARROW = {**RECIPE["prune"], "width_multiple": 2, "min_width": 2, "criterion": {"name": "ln_norm", "images": 2}}
Word = Path | str
Run = Callable[..., subprocess.CompletedProcess[str]]


@dataclass(kw_only=True)
class Device:
    """What `cpu:1` is. observers: all that were opened."""

    make: Callable[[], FakeObserver]
    observers: list[FakeObserver]

    @property
    def asked(self) -> int:
        return sum(one.observed + one.structures + one.races for one in self.observers)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    """A device on paper that computes in blocks of two channels, in place of this machine."""
    without_pauses(monkeypatch)
    found = Device(make=lambda: FakeObserver(block=2), observers=[])

    def opened(name: str) -> FakeObserver:
        if name != "cpu:1":
            raise DeviceError(f"there is no device {name!r}", "cpu:1")
        found.observers.append(found.make())
        return found.observers[-1]

    monkeypatch.setattr(find, "open_observer", opened)
    return found


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return recipe_of(tmp_path)


def recipe_of(folder: Path, **budget: object) -> Path:
    whole = {**BUDGET, "profile": str(folder / "device.sqlite"), **budget}
    return write_recipe(folder / "tiny.yaml", prune={**NARROW, "budget": whole})


def call(*words: Word) -> subprocess.CompletedProcess[str]:
    return call_edgeslim(*words)


def done(*words: Word) -> str:
    finished = call(*words)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


# --- profiles ------------------------------------------------------------------------------------------------


def test_a_device_is_measured_once_and_shown(device: Device, recipe: Path, tmp_path: Path) -> None:
    path = tmp_path / "device.sqlite"
    first = json.loads(done("profile", "measure", recipe, "--profile", path, "--json"))
    asked = device.asked
    assert first["device"] == fingerprint().digest and first["profile"] == str(path)
    assert first["nets"] == 64 + 8, "eight plans, as the recipe says, and a staircase"
    assert first["error"]["plans"] >= 6 and all(len(own) >= 1 for own in first["candidates"])
    again = done("profile", "measure", recipe, "--profile", path)
    assert device.asked == asked and fingerprint().short in again and "had not seen" in again
    shown = json.loads(done("profile", "show", path, "--json"))
    assert [own["device"] for own in shown["devices"]] == [fingerprint().digest]
    assert shown["devices"][0]["nets"] == first["nets"] and shown["devices"][0]["operators"] == first["operators"]
    assert "Imagined, fake 1.0, 1 thread" in done("profile", "show", path)
    stairs = done("profile", "show", path, "--staircase", fingerprint().short)
    assert "useful widths (*): multiples of 4" in stairs and "\n  64 *" in stairs
    step = json.loads(done("profile", "show", path, "--staircase", fingerprint().short, "--json"))
    assert step["step"]["multiple"] == 4 and len(step["latency_us"]) == 64


def test_more_plans_may_be_asked_for(device: Device, recipe: Path, tmp_path: Path) -> None:
    path = tmp_path / "more.sqlite"
    found = json.loads(done("profile", "measure", recipe, "--profile", path, "--nets", "12", "--json"))
    assert found["nets"] <= 64 + 12
    few = call("profile", "measure", recipe, "--profile", path, "--nets", "7")
    assert few.returncode == 2 and "--nets" in few.stderr


def test_a_model_is_checked_against_the_device(device: Device, recipe: Path, tmp_path: Path) -> None:
    path = tmp_path / "device.sqlite"
    found = json.loads(done("profile", "check", recipe, "--profile", path, "--plans", "5", "--json"))
    assert len(found["plans"]) == found["error"]["plans"] == 5
    assert found["error"]["worst"] == max(abs(one["error"]) for one in found["plans"])
    assert all(one["low"] <= one["measured"] <= one["high"] for one in found["plans"])
    table = done("profile", "check", recipe, "--profile", path, "--plans", "2")
    assert "predicted" in table and "2 plans that it had not seen" in table


def test_showing_measures_nothing(device: Device, recipe: Path, tmp_path: Path) -> None:
    class Killed(FakeObserver):
        def observe(self, *arguments: Any) -> Any:
            if self.observed == 5:
                raise KeyboardInterrupt
            return super().observe(*arguments)

    path = tmp_path / "p.sqlite"
    device.make = lambda: Killed(block=2)
    assert call("profile", "measure", recipe, "--profile", path).returncode == 130
    device.make = lambda: FakeObserver(block=2)
    asked = device.asked
    shown = call("profile", "show", path, "--staircase", fingerprint().short)
    assert shown.returncode == 1 and "has no staircase of Imagined" in shown.stderr
    assert device.asked == asked


def test_a_plan_for_another_device_does_not_become_one_for_this(device: Device, recipe: Path, tmp_path: Path) -> None:
    """Only `measure` adds a device to a file, and not to the one that stands for another."""
    path = tmp_path / "device.sqlite"
    device.make = lambda: FakeObserver(fingerprint=fingerprint("9.9"))
    done("profile", "measure", recipe)
    device.make = lambda: FakeObserver(block=2)
    foreign = ("--set", "prune.budget.allow_foreign_profile=true")
    for words in (("measure", recipe, *foreign), ("check", recipe, *foreign)):
        refused = call("profile", *words)
        assert refused.returncode == 1 and "by the profile of another device" in refused.stderr
    refused = call("profile", "check", recipe)
    assert refused.returncode == 1 and "was taken on another device" in refused.stderr
    with open_profile(path) as profile:
        assert profile.devices == (fingerprint("9.9"),)
    done("profile", "measure", recipe, *foreign, "--profile", tmp_path / "own.sqlite")


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ([1, 3], "shape"),
        ([1, 3, 64, 64, 2], "shape"),
        ([2, 3, 64, 64], "edgeslim.profiled_net.shape.0: input should be 1 (got 2)"),
        ([1, 3, 0, 64], "shape.2: input should be greater than or equal to 1 (got 0)"),
        ([1, 4, 64, 64], "its metadata edgeslim.profiled_net say images of [1, 4, 64, 64], its graph takes"),
    ],
)
def test_files_of_nets_with_wrong_shapes(recipe: Path, tmp_path: Path, shape: list[int], said: str) -> None:
    path = tmp_path / "net.onnx"
    done("profile", "net", recipe, path)
    model = onnx.load(path)
    (entry,) = (own for own in model.metadata_props if own.key == "edgeslim.profiled_net")
    entry.value = json.dumps({**json.loads(entry.value), "shape": shape})
    onnx.save(model, path)
    finished = call("profile", "measure", path, "--profile", tmp_path / "p.sqlite")
    assert finished.returncode == 1 and said in " ".join(finished.stderr.split()), finished.stderr
    assert "hint: make one with" in finished.stderr


@pytest.mark.slow
def test_a_profile_goes_from_the_device_to_the_workstation(device: Device, recipe: Path, tmp_path: Path) -> None:
    """The net as a file, measured elsewhere without its recipe; the profile merged here, and planned by."""
    there, here, net = tmp_path / "there.sqlite", tmp_path / "here.sqlite", tmp_path / "net.onnx"
    assert f"edgeslim profile measure {net.name}" in done("profile", "net", recipe, net)
    done("profile", "measure", net, "--profile", there)
    board = fingerprint()
    device.make = lambda: FakeObserver(fingerprint=fingerprint("here"), block=8)
    done("profile", "measure", recipe, "--profile", here)
    assert "72 nets taken over" in done("profile", "merge", here, there)
    assert "0 nets taken over" in done("profile", "merge", here, there)
    with open_profile(here) as profile:
        assert {own.digest for own in profile.devices} == {board.digest, fingerprint("here").digest}
    asked = device.asked
    run = tmp_path / "run"
    options = ("--set", f"prune.budget.profile={here}", "--set", f"prune.budget.device={board.short}", "--out", run)
    refused = call("compress", recipe, *options)
    assert refused.returncode == 1 and "--allow-foreign-profile" in refused.stderr
    planned = call("compress", recipe, *options, "--allow-foreign-profile")
    assert planned.returncode == 0, planned.stderr
    assert device.asked == asked, "nothing can be measured on it"
    provenance = read_bundle(run / "compact.bundle").manifest.provenance
    assert "nothing was timed" in provenance["foreign_profile"] and str(board) in provenance["foreign_profile"]
    assert provenance["device_profile"] == board.digest and "predicted, not measured" in provenance["target"]


def test_the_recipe_says_where_and_with_how_many_threads(
    device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second device comes into the same file."""
    named: list[str] = []

    def opened(name: str) -> FakeObserver:
        named.append(name)
        return FakeObserver(fingerprint=fingerprint(threads=int(name[-1])))

    monkeypatch.setattr(find, "open_observer", opened)
    recipe = recipe_of(tmp_path, device="cpu:2")
    assert json.loads(done("profile", "measure", recipe, "--json"))["profile"] == str(tmp_path / "device.sqlite")
    done("profile", "measure", recipe, "--device", "cpu:1")
    assert named == ["cpu:2", "cpu:1"]
    with open_profile(tmp_path / "device.sqlite") as profile:
        assert {own.threads for own in profile.devices} == {1, 2}
    refused = call("compress", recipe, "--set", "prune.budget.device=cpu:3", "--out", tmp_path / "run")
    assert refused.returncode == 1 and "`edgeslim profile measure`" in refused.stderr


def test_only_one_device_is_merged(device: Device, recipe: Path, tmp_path: Path) -> None:
    one, many = tmp_path / "one.sqlite", tmp_path / "many.sqlite"
    done("profile", "measure", recipe, "--profile", one)
    assert "72 nets" in done("profile", "merge", many, one, "--device", fingerprint().short)
    taken = json.loads(done("profile", "merge", many, one, "--json"))
    assert taken == {"profile": str(many), "nets": 0}
    none = call("profile", "merge", many, one, "--device", "000")
    assert none.returncode == 1 and "knows no device 000" in none.stderr


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("show", "nowhere.sqlite"), 1, "there is no device profile nowhere.sqlite"),
        (("show", "text"), 1, "cannot be used as a device profile"),
        (("show", "nowhere.sqlite", "--staircase", "f6"), 1, "there is no device profile nowhere.sqlite"),
        (("show", "known.sqlite", "--staircase", "cpu:1"), 2, "takes the first digits of a fingerprint"),
        (("merge", "new.sqlite", "nowhere.sqlite"), 1, "there is no device profile nowhere.sqlite"),
        (("merge", "new.sqlite", "known.sqlite", "nowhere.sqlite"), 1, "known.sqlite knows no device"),
        (("net", "tiny.yaml", "net.bin"), 2, "does not end in .onnx"),
        (("measure", "nowhere.yaml"), 1, "nowhere.yaml"),
        (("measure", "nowhere.onnx"), 1, "nowhere.onnx cannot be read"),
        (("measure", "text.onnx"), 1, "text.onnx is no net to profile"),
        (("measure", "tiny.yaml", "--device", "cpu:0"), 1, "there is no device 'cpu:0'"),
        (("measure", "tiny.yaml", "--device", "cuda:0"), 1, "operators cannot be measured by cuda yet"),
        (("measure", "text.onnx", "--set", "name=x"), 2, "--set changes a recipe"),
        (("measure",), 2, "Missing argument"),
        (("weigh",), 2, "No such command"),
        (("check", "tiny.yaml", "--plans", "0"), 2, "--plans"),
    ],
)
def test_what_goes_wrong_is_said(recipe: Path, words: tuple[str, ...], code: int, said: str) -> None:
    folder = recipe.parent
    for name in ("text", "text.onnx"):
        (folder / name).write_text("8 ms")
    open_profile(folder / "known.sqlite").close()
    before = {path.name for path in folder.iterdir()}
    options = ("--profile", "p.sqlite") if words[0] in ("measure", "check") else ()
    finished = call_edgeslim("profile", *words, *options, cwd=folder)
    assert finished.returncode == code, finished.stderr
    assert said in " ".join(finished.stderr.split())
    assert "Traceback" not in finished.stderr and (code == 2 or "hint:" in finished.stderr)
    assert {path.name for path in folder.iterdir()} == before


@pytest.mark.slow
def test_this_machine_is_measured(recipe: Path, tmp_path: Path, cli: Cli) -> None:
    """The real command on the real device. How long anything takes is nobody's business here."""
    path = tmp_path / "real.sqlite"
    measured = cli("profile", "measure", recipe, "--profile", path, "--json")
    if measured.returncode and "do not settle" in measured.stderr:
        pytest.skip("this machine is too busy to measure anything")
    assert measured.returncode == 0, measured.stderr
    found = json.loads(measured.stdout)
    assert found["nets"] == 72 and found["error"]["plans"] == 8
    shown = cli("profile", "show", path)
    assert shown.returncode == 0 and "onnxruntime" in shown.stdout


# --- compress ------------------------------------------------------------------------------------------------


def content(run: Path) -> tuple[bytes, dict[str, Any]]:
    return read_bundle(run / "compact.bundle").files["plan.json"], json.loads((run / "plans.json").read_text())["plans"]


@pytest.mark.slow
def test_compress_for_a_target(device: Device, recipe: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    finished = call("compress", recipe, "--out", run)
    assert finished.returncode == 0, finished.stderr
    assert "latency model:" in finished.stderr and "of the way to latency=0.6x at 64x64 on Imagined" in finished.stderr
    manifest = read_bundle(run / "compact.bundle").manifest
    assert manifest.provenance["target"].startswith("latency=0.6x at 64x64 on Imagined, fake 1.0, 1 thread: ")
    assert manifest.provenance["device_profile"] == fingerprint().digest
    assert "foreign_profile" not in manifest.provenance
    assert "target" not in read_bundle(run / "dense.bundle").manifest.provenance
    plan, plans = content(run)
    ratios = sorted(own["reached"]["ratio"] for own in plans.values())
    assert len(ratios) == 2, "two rounds"
    assert ratios[0] <= 0.6 < ratios[-1] <= 0.6**0.5
    rehearsed = json.loads((run / "rehearsed-plans.json").read_text())["plans"]
    assert len(rehearsed) == 1 and "before training, as if all channels were alike: latency=0.6x" in finished.stderr
    assert call("export", run, tmp_path / "again.bundle").returncode == 0
    again = read_bundle(tmp_path / "again.bundle").manifest
    assert again.provenance["target"] == manifest.provenance["target"]
    # All again: nothing is asked of the device, and the plan is the same.
    asked = device.asked
    done("compress", recipe, "--out", run)
    assert device.asked == asked and content(run) == (plan, plans)


@pytest.mark.slow
def test_a_run_that_was_interrupted_goes_on_with_its_plans(device: Device, recipe: Path, tmp_path: Path) -> None:
    """The device is another day's: noisy, and its profile is lost. What was planned stays planned."""
    run = tmp_path / "run"

    class Killed(FakeObserver):
        def race(self, *arguments: Any) -> Any:
            if (run / "plans.json").exists():  # the first round has its plan, and the second asks
                raise KeyboardInterrupt
            return super().race(*arguments)

    device.make = lambda: Killed(block=2)
    assert call("compress", recipe, "--out", run).returncode == 130
    assert not (run / "result.json").exists()
    before = json.loads((run / "plans.json").read_text())["plans"]
    assert len(before) == 1
    (tmp_path / "device.sqlite").unlink()
    device.make = lambda: FakeObserver(block=2, noise=0.05, seed=3)
    done("compress", recipe, "--out", run)
    plan, after = content(run)
    assert before.items() <= after.items()
    done("compress", recipe, "--out", run)
    assert content(run) == (plan, after)


def test_a_target_out_of_reach_is_known_before_training(device: Device, tmp_path: Path) -> None:
    recipe, run = recipe_of(tmp_path, target="latency=0.001x"), tmp_path / "run"
    finished = call("compress", recipe, "--out", run)
    assert finished.returncode == 3
    assert "latency=0.001x is" in finished.stderr and "cannot be reached" in finished.stderr
    assert "the fastest plan that was measured takes" in finished.stderr and "hint: ask for latency=" in finished.stderr
    assert not (run / "stages" / "dense").exists()


@pytest.mark.slow
def test_a_target_that_the_dense_net_meets_ships_it(device: Device, tmp_path: Path) -> None:
    recipe, run = recipe_of(tmp_path, target="latency=20s"), tmp_path / "run"
    finished = call("compress", recipe, "--out", run)
    assert finished.returncode == 0, finished.stderr
    assert "nothing was cut, for the net met it as it was" in finished.stderr
    coverage = read_bundle(run / "compact.bundle").manifest.coverage
    assert all(layer.width_before == layer.width_after for layer in coverage)


def test_measurements_that_do_not_settle_end_the_run(device: Device, recipe: Path, tmp_path: Path) -> None:
    device.make = lambda: FakeObserver(block=2, settles=False)
    finished = call("compress", recipe, "--out", tmp_path / "run")
    assert finished.returncode == 1 and "do not settle" in finished.stderr and "hint:" in finished.stderr


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        ({"target": "latency=8"}, "the unit of latency is 'missing'"),
        ({"target": "speed=2x"}, "there is no resource 'speed'"),
        ({"target": "latency=8ms,latency=9ms"}, "limits latency twice"),
        ({"nets": 4}, "nets"),
        ({"seconds": 0}, "seconds"),
        ({"device": "cpu:x"}, "there is no device 'cpu:x'"),
        ({"min_share": 1.5}, "min_share"),
    ],
)
def test_recipes_with_a_wrong_target(device: Device, tmp_path: Path, budget: dict[str, object], said: str) -> None:
    finished = call("compress", recipe_of(tmp_path, **budget), "--out", tmp_path / "run")
    assert finished.returncode == 1 and said in " ".join(finished.stderr.split())


def test_allow_foreign_profile_is_for_targets(tmp_path: Path) -> None:
    finished = call(
        "compress", write_recipe(tmp_path / "tiny.yaml"), "--out", tmp_path / "run", "--allow-foreign-profile"
    )
    assert finished.returncode == 1 and "allow_foreign_profile" in finished.stderr


@pytest.mark.slow
def test_levels_of_a_target_on_a_foreign_device(device: Device, recipe: Path, tmp_path: Path) -> None:
    """--pareto hears of --allow-foreign-profile too."""
    done("profile", "measure", recipe, "--profile", tmp_path / "device.sqlite")
    device.make = lambda: FakeObserver(fingerprint=fingerprint("here"), block=2)
    run, quick = tmp_path / "run", ("--set", f"train.steps={FIT['steps']}")
    refused = call("compress", recipe, "--out", run, "--pareto", "2", *quick)
    assert refused.returncode == 1 and "--allow-foreign-profile" in refused.stderr
    shutil.rmtree(run, ignore_errors=True)
    made = call("compress", recipe, "--out", run, "--pareto", "2", *quick, "--allow-foreign-profile")
    assert made.returncode == 0, made.stderr
    bundles = [path.parent for path in run.rglob("manifest.json")]
    marked = [b for b in bundles if "foreign_profile" in read_bundle(b).manifest.provenance]
    assert len(marked) == 2


@pytest.mark.slow
@pytest.mark.parametrize("front_first", [False, True])
def test_a_front_and_a_plain_run_share_their_plans(
    device: Device, recipe: Path, tmp_path: Path, front_first: bool
) -> None:
    """On a device that answers differently every time: the last point is the plain run's net, stages and all."""
    seeds = iter(range(100))
    device.make = lambda: FakeObserver(block=2, noise=0.05, seed=next(seeds))
    run, words = tmp_path / "run", ("compress", recipe, "--out", tmp_path / "run")
    for front in (front_first, not front_first):
        (tmp_path / "device.sqlite").unlink(missing_ok=True)
        done(*words, *(("--pareto", "2") if front else ()))
    (last,) = (path for path in (run / "front").iterdir() if path.name == "latency-0.6x")
    plain, point = (read_bundle(own / "compact.bundle") for own in (run, last))
    assert plain.files["plan.json"] == point.files["plan.json"]
    told = plain.manifest.provenance["target"]
    assert told == point.manifest.provenance["target"] and told.startswith("latency=0.6x at 64x64 on Imagined")
    for number, place in enumerate((run, last)):
        done("export", place, tmp_path / f"{number}.bundle")
        assert read_bundle(tmp_path / f"{number}.bundle").manifest.provenance["target"] == told


@pytest.mark.slow
def test_a_gradual_run_that_is_repeated_says_what_it_reached(device: Device, recipe: Path, tmp_path: Path) -> None:
    sets = ("--set", "prune.schedule={name: gradual, cuts: 2}", "--set", "sparsify.fit.steps=10")
    told = []
    for _ in range(2):
        done("compress", recipe, "--out", tmp_path / "run", *sets)
        told.append(read_bundle(tmp_path / "run" / "compact.bundle").manifest.provenance)
        assert json.loads((tmp_path / "run" / "result.json").read_text())["reached"]["target"] == "latency=0.6x"
    assert told[0] == told[1] and told[0]["device_profile"] == fingerprint().digest


# --- ONNX files ----------------------------------------------------------------------------------------------


def test_files_are_slimmed_for_a_target(device: Device, tmp_path: Path) -> None:
    from ..unit.test_slim import write_net

    given = write_net(tmp_path / "in.onnx", dead=False, n="1", h="64", w="96")
    words = ("export", "--onnx", given, tmp_path / "out.onnx", "--profile", tmp_path / "p.sqlite")
    finished = call(*words, "--target", "latency=0.8x", "--json")
    assert finished.returncode == 0, finished.stderr
    reached = json.loads(finished.stdout)["reached"]
    assert reached["ratio"] <= 0.8 and not reached["foreign"] and reached["target"] == "latency=0.8x"
    assert "0." in done(*words, "--target", "latency=0.9x") and (tmp_path / "out.onnx").exists()
    far = call(*words[:3], tmp_path / "far.onnx", *words[4:], "--target", "latency=0.001x")
    assert far.returncode == 3 and not (tmp_path / "far.onnx").exists()
    refused = call("export", tmp_path, tmp_path / "b", "--target", "latency=0.5x")
    assert refused.returncode == 2 and "--onnx" in refused.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("--device", "cpu:1"),
        ("--profile", "p.sqlite", "--ratio", "0.5"),
        ("--allow-foreign-profile", "--target", "macs=0.5x,memory<1GB"),
        ("--min-share", "0.5"),
    ],
)
def test_options_without_effect_are_refused(tmp_path: Path, words: tuple[str, ...]) -> None:
    finished = call("export", "--onnx", tmp_path / "in.onnx", tmp_path / "out.onnx", *words)
    assert finished.returncode == 2 and "--target" in finished.stderr
