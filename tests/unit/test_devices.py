"""What a device is read to be, from trees of files that are written after documented forms (see boards.py)."""

from __future__ import annotations

import ast
import json
import sys
import types
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeslim.bench import Machine
from edgeslim.bench.machine import describe_machine
from edgeslim.runtime.devices import JETPACKS, Device, Ran, Sources, describe_device, jetpack_of, read_gpus, read_jetson
from edgeslim.runtime.devices import probe as probe_module
from edgeslim.runtime.devices.jetson import capability_under
from edgeslim.runtime.devices.libraries import read_tensorrt
from edgeslim.runtime.devices.nvml import ask_nvml
from edgeslim.runtime.devices.sources import run_command
from edgeslim.schema import from_json, to_json

from .boards import (
    BOARDS,
    COMPATIBLE,
    DPKG,
    MODEL,
    NO_DRIVER,
    NVPMODEL,
    RELEASE,
    TENSORRT,
    TWO_GPUS,
    compatible,
    package,
    plant,
    release,
)

Install = Callable[[dict[str, str]], Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Put modules where this Python finds them before all others, as pip would."""

    def put(files: dict[str, str]) -> Path:
        site = tmp_path / "site-packages"
        plant(site, files)
        monkeypatch.syspath_prepend(site)
        return site

    return put


@pytest.fixture
def no_driver(install: Install) -> None:
    install(NO_DRIVER)


@pytest.mark.parametrize(
    ("board", "family", "capability", "l4t", "jetpack", "mode"),
    [
        ("xavier, JetPack 5", "Xavier", (7, 2), "35.4.1", "5.1.x", "MODE_15W"),
        ("Orin NX, JetPack 6.0", "Orin", (8, 7), "36.3.0", "6.0", "25W"),
        ("Orin NX, JetPack 6.2", "Orin", (8, 7), "36.4.4", "6.1 to 6.2.2", "MAXN_SUPER"),
        ("AGX Orin", "Orin", (8, 7), "36.5.0", "6.1 to 6.2.2", "MAXN"),
        ("Thor, JetPack 7.0", "Thor", (11, 0), "38.2.0", "7.0", "120W"),
        ("Thor, JetPack 7.2", "Thor", (11, 0), "39.2.0", "7.2 to 7.2.1", "MAXN"),
    ],
)
def test_a_jetson_is_known(
    board: str, family: str, capability: tuple[int, int], l4t: str, jetpack: str, mode: str, tmp_path: Path
) -> None:
    reasons: dict[str, str] = {}
    found = read_jetson(plant(tmp_path, BOARDS[board]), reasons=reasons)
    assert found is not None
    assert found.board == BOARDS[board][MODEL].rstrip("\0")
    assert (found.family, found.compute_capability, found.l4t) == (family, capability, l4t)
    assert (found.jetpack, found.jetpack_source, found.power_mode) == (jetpack, "documents", mode)
    assert set(reasons) == {"jetson.dla_cores"}


def test_what_a_container_on_a_jetson_cannot_see(tmp_path: Path) -> None:
    reasons: dict[str, str] = {}
    found = read_jetson(plant(tmp_path, BOARDS["container on a Jetson"]), reasons=reasons)
    assert found is not None
    assert (found.family, found.l4t, found.jetpack, found.power_mode) == ("Orin", None, None, None)
    assert "not in this container" in reasons["jetson.l4t"]
    assert "L4T" in reasons["jetson.jetpack"]
    assert "on the host" in reasons["jetson.power_mode"]


def test_a_pc_is_no_jetson(tmp_path: Path) -> None:
    assert read_jetson(plant(tmp_path, BOARDS["PC without a driver"])) is None
    other = {MODEL: "Raspberry Pi 5\0", COMPATIBLE: "raspberrypi,5-model-b\0brcm,bcm2712\0"}
    assert read_jetson(plant(tmp_path, other)) is None


def test_an_unknown_tegra_is_not_taken_for_a_known_one(tmp_path: Path) -> None:
    reasons: dict[str, str] = {}
    files = {COMPATIBLE: compatible("tegra999"), RELEASE: release(77, "1")}
    found = read_jetson(plant(tmp_path, files), reasons=reasons)
    assert found is not None
    assert (found.chip, found.family, found.compute_capability, found.jetpack) == ("tegra999", None, None, None)
    assert "tegra999" in reasons["jetson.compute_capability"]
    assert "77.1" in reasons["jetson.jetpack"]


@pytest.mark.parametrize(
    ("status", "jetpack", "source"),
    [
        ("install ok installed", "6.2.1", "package"),
        ("hold ok installed", "6.2.1", "package"),
        ("deinstall ok config-files", "6.1 to 6.2.2", "documents"),
        ("install ok half-installed", "6.1 to 6.2.2", "documents"),
    ],
)
def test_the_installed_package_names_jetpack_exactly(status: str, jetpack: str, source: str, tmp_path: Path) -> None:
    found = read_jetson(plant(tmp_path, {**BOARDS["AGX Orin"], DPKG: package("6.2.1+b38", status)}))
    assert found is not None
    assert (found.jetpack, found.jetpack_source) == (jetpack, source)


@pytest.mark.parametrize(
    ("script", "mode", "said"),
    [
        ("echo 'NVPM VERB: Current mode: NV Power Mode: 15W'; echo 2", "15W", None),
        ("echo 'NV Power Mode: 5W'; echo 1; echo 'NVPM ERROR: Error opening x: 13' >&2; exit 255", "5W", None),
        ("echo 'NVPM ERROR: Error opening x: 13' >&2; exit 255", None, "Error opening x: 13"),
        ("echo something else", None, "something else"),
        ("true", None, "nothing"),
        ("kill -SEGV $$", None, "SIGSEGV"),
    ],
)
def test_power_mode(script: str, mode: str | None, said: str | None, tmp_path: Path) -> None:
    reasons: dict[str, str] = {}
    files = {**BOARDS["AGX Orin"], NVPMODEL: f"#!/bin/sh\n{script}\n"}
    found = read_jetson(plant(tmp_path, files), reasons=reasons)
    assert found is not None
    assert found.power_mode == mode
    if said is not None:
        assert said in reasons["jetson.power_mode"]
        assert "root" in reasons["jetson.power_mode"]


@given(
    model=st.binary(max_size=40),
    nodes=st.binary(max_size=40),
    l4t=st.one_of(st.binary(max_size=60), st.from_regex(rb"# R\d{1,6} \(release\), REVISION: [\d.]{0,40}")),
    dpkg=st.binary(max_size=60),
)
def test_malformed_files_are_never_an_exception(
    model: bytes, nodes: bytes, l4t: bytes, dpkg: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    files = {
        MODEL: model,
        COMPATIBLE: b"nvidia,tegra234\0" + nodes,
        RELEASE: l4t,
        DPKG: b"Package: nvidia-jetpack\n" + dpkg,
    }
    found = read_jetson(plant(tmp_path_factory.mktemp("board"), files))
    assert found is not None
    assert found.l4t is None or found.l4t[0].isdigit()


def test_a_folder_in_place_of_a_file_is_unknown(tmp_path: Path) -> None:
    (tmp_path / MODEL).mkdir(parents=True)
    found = read_jetson(plant(tmp_path, {COMPATIBLE: compatible("tegra264"), RELEASE: "R36"}))
    assert found is not None
    assert (found.board, found.l4t) == (None, None)


def test_the_table_of_jetpacks_is_in_order_and_has_no_overlap() -> None:
    spans = [(row.first_l4t, row.last_l4t) for row in JETPACKS if row.first_l4t and row.last_l4t]
    ends = [end for span in spans for end in span]
    assert ends == sorted(ends)
    assert len({first for first, _ in spans}) == len(spans)
    for row in JETPACKS:
        if row.first_l4t and row.last_l4t:
            assert jetpack_of("{}.{}.1".format(*row.first_l4t)) is row
            assert jetpack_of("{}.{}".format(*row.last_l4t)) is row


@pytest.mark.parametrize("l4t", [None, "", "36", "36.2.0", "36.30", "37.1", "38.3", "39.20", "40.0", "36.x", "R36.4"])
def test_releases_outside_the_table_are_unknown(l4t: str | None) -> None:
    assert jetpack_of(l4t) is None


def test_thor_has_another_capability_under_cuda_12() -> None:
    assert capability_under("Thor", "12.8") == (10, 1)
    assert capability_under("Thor", "13.0") == capability_under("Thor", None) == (11, 0)
    assert capability_under("Orin", "12.6") == (8, 7)
    assert capability_under(None, "12.6") is None


def test_two_gpus_stand_in_cudas_order_with_what_nvml_knows(install: Install, tmp_path: Path) -> None:
    install(TWO_GPUS)
    found = read_gpus(plant(tmp_path / "root", {}))
    assert (found.driver, found.cuda_driver, found.cuda_runtime) == ("580.95.05", "13.0", "13.2")
    assert found.gpus is not None
    old, new = found.gpus
    assert (old.name, old.compute_capability, old.pci, old.memory_bytes) == (
        "NVIDIA T400",
        (7, 5),
        "0001:0a:00.0",
        4 << 30,
    )
    assert (old.clock_mhz, old.power_limit_mw, old.mig, old.max_clock_mhz) == (300, None, None, None)
    assert (new.name, new.compute_capability, new.integrated) == ("NVIDIA RTX 4090", (8, 9), False)
    assert (new.clock_mhz, new.power_limit_mw, new.mig) == (210, 450_000, False)
    assert not found.reasons


def test_nvml_alone_will_do(install: Install, tmp_path: Path) -> None:
    install({**TWO_GPUS, "cuda/bindings/driver.py": "raise ImportError('libcuda.so.1: cannot open')\n"})
    found = read_gpus(plant(tmp_path / "root", {}))
    assert [gpu.name for gpu in found.gpus or ()] == ["NVIDIA RTX 4090", "NVIDIA T400"]
    assert found.bindings.problem == "ImportError: libcuda.so.1: cannot open"


@pytest.mark.usefixtures("no_driver")
def test_without_a_driver_the_bus_tells_whether_there_is_a_gpu(tmp_path: Path) -> None:
    found = read_gpus(plant(tmp_path / "a", BOARDS["PC without a driver"]))
    assert (found.gpus, found.driver, found.nvidia_hardware) == (None, None, True)
    assert "this fake has no driver" in found.reasons["gpus"]
    assert read_gpus(plant(tmp_path / "b", BOARDS["PC without a GPU"])).nvidia_hardware is False
    assert read_gpus(plant(tmp_path / "c", {})).nvidia_hardware is None


@pytest.mark.usefixtures("no_driver")
def test_the_kernel_knows_its_driver(tmp_path: Path) -> None:
    text = (
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.95.05  Tue Sep 23 10:11:16 UTC 2025\nGCC version:  gcc\n"
    )
    assert read_gpus(plant(tmp_path / "root", {"proc/driver/nvidia/version": text})).driver == "580.95.05"


def jetpack_root(root: Path, version: str = "10.3.0", dla_cores: object = 2) -> Sources:
    """An AGX Orin whose dist-packages have a (fake) TensorRT."""
    package_of_jetpack = "usr/lib/python3.10/dist-packages/tensorrt/__init__.py"
    text = TENSORRT.format(version=version, dla_cores=dla_cores)
    return plant(root, {**BOARDS["AGX Orin"], package_of_jetpack: text})


@pytest.mark.usefixtures("no_driver")
def test_tensorrt_of_jetpack_counts_the_dla_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = jetpack_root(tmp_path / "root")
    monkeypatch.syspath_prepend(tmp_path / "root/usr/lib/python3.10/dist-packages")
    device = describe_device(sources)
    full = device.find_tensorrt("tensorrt")
    assert full is not None
    assert (full.version, full.origin, full.distribution, full.shadows) == ("10.3.0", "system", None, False)
    assert device.jetson is not None
    assert device.jetson.dla_cores == 2
    assert "jetson.dla_cores" not in device.reasons
    assert (device.unified_memory, device.has_gpu, device.gpu_name) == (True, True, "Orin")
    assert device.compute_capability == (8, 7)


@pytest.mark.usefixtures("no_driver")
def test_a_builder_that_fails_leaves_the_version_and_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = jetpack_root(tmp_path / "root", dla_cores="property(lambda self: 1 / 0)")
    monkeypatch.syspath_prepend(tmp_path / "root/usr/lib/python3.10/dist-packages")
    device = describe_device(sources)
    assert device.jetson is not None
    assert device.jetson.dla_cores is None
    assert device.find_tensorrt("tensorrt") is not None
    assert "AGX Orin: 2" in device.reasons["jetson.dla_cores"]
    assert "ZeroDivisionError" in device.reasons["jetson.dla_cores"]


@pytest.mark.usefixtures("no_driver")
def test_pips_tensorrt_over_jetpacks_is_seen(install: Install, tmp_path: Path) -> None:
    sources = jetpack_root(tmp_path / "root")
    install({
        "tensorrt/__init__.py": TENSORRT.format(version="11.4", dla_cores=0),
        "tensorrt_cu12_bindings-11.4.dist-info/METADATA": "Name: tensorrt-cu12-bindings\nVersion: 11.4\n",
        "tensorrt_cu12_bindings-11.4.dist-info/top_level.txt": "tensorrt\n",
    })  # fmt: skip
    full = describe_device(sources).find_tensorrt("tensorrt")
    assert full is not None
    assert (full.version, full.origin, full.shadows) == ("11.4", "environment", True)
    assert full.distribution == "tensorrt-cu12-bindings"
    assert full.system_copy == "/usr/lib/python3.10/dist-packages/tensorrt"


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("raise ImportError('libnvinfer.so.10: cannot open shared object file')", "ImportError: libnvinfer.so.10"),
        ("import os; os.abort()", "SIGABRT"),
        ("import os; os.kill(os.getpid(), 11)", "SIGSEGV"),
        ("import os; os._exit(3)", "exit code 3"),
        ("import os; os._exit(0)", "the answer has another form"),
        ("raise SystemExit('leaving')", "exit code 1: leaving"),
        ("", "is not TensorRT: it has no __version__, Builder"),
        ("syntax error", "SyntaxError"),
        ("raise ValueError", "ValueError"),
    ],
)
def test_a_broken_library_is_a_line_and_hurts_nobody(code: str, problem: str, install: Install, tmp_path: Path) -> None:
    site = install({"tensorrt/__init__.py": code + "\n"})
    full, _ = read_tensorrt(plant(tmp_path / "root", {}), "tensorrt")
    assert not full.usable
    assert problem in str(full.problem)
    assert "\n" not in str(full.problem)
    assert full.path == str(site / "tensorrt")


def test_a_folder_named_like_the_library_is_not_it(install: Install, tmp_path: Path) -> None:
    install({"tensorrt/notes.txt": "engines of last week"})
    full, _ = read_tensorrt(plant(tmp_path / "root", {}), "tensorrt")
    assert "a folder without __init__.py is not TensorRT" in str(full.problem)


def test_a_library_that_hangs_is_given_up(install: Install, tmp_path: Path) -> None:
    install({"tensorrt/__init__.py": "import time\ntime.sleep(600)\n"})

    def impatient(command: Sequence[str], timeout_s: float) -> Ran:
        return run_command(command, 1.0 if "tensorrt" in command else timeout_s)

    full, _ = read_tensorrt(Sources(root=tmp_path / "root", run=impatient), "tensorrt")
    assert full.problem == "no answer within 1 s"


def test_an_nvpmodel_that_hangs_is_given_up(tmp_path: Path) -> None:
    plant(tmp_path, {**BOARDS["AGX Orin"], NVPMODEL: "#!/bin/sh\nsleep 600\n"})
    reasons: dict[str, str] = {}
    sources = Sources(root=tmp_path, run=lambda command, timeout_s: run_command(command, 0.5))
    found = read_jetson(sources, reasons=reasons)
    assert found is not None and found.power_mode is None
    assert "no answer within 0.5 s" in reasons["jetson.power_mode"]


def test_a_gpu_that_is_lost_does_not_hide_the_others(install: Install, tmp_path: Path) -> None:
    lost = (
        "\nreal = nvmlDeviceGetHandleByIndex\n"
        "def nvmlDeviceGetHandleByIndex(n):\n"
        "    if n == 0: raise NVMLError(15)\n"
        "    return real(n)\n"
    )
    install({**TWO_GPUS, "pynvml.py": TWO_GPUS["pynvml.py"] + lost, "cuda/bindings/driver.py": "raise ImportError\n"})
    found = read_gpus(plant(tmp_path / "root", {}))
    assert [gpu.name for gpu in found.gpus or ()] == ["NVIDIA T400"]
    assert found.driver == "580.95.05"


def test_an_nvml_that_does_not_tell_is_closed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    fake, called = types.ModuleType("pynvml"), []
    fake.nvmlInit = lambda: called.append("init")  # type: ignore[attr-defined]
    fake.nvmlShutdown = lambda: called.append("shutdown")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    assert ask_nvml(lambda nvml: nvml.__name__) == "pynvml"
    assert ask_nvml(lambda nvml: 1 // 0) is None
    assert called == ["init", "shutdown"] * 2
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert ask_nvml(lambda nvml: nvml.__name__) is None


def test_the_driver_of_an_engine_is_the_kernels_where_nvml_is_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from edgeslim.runtime.engines import here

    monkeypatch.setitem(sys.modules, "pynvml", None)
    text = "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  540.4.0  Release Build\n"
    assert here._driver_version(plant(tmp_path / "a", {"proc/driver/nvidia/version": text})) == "540.4.0"
    assert here._driver_version(plant(tmp_path / "b", {})) is None


def test_a_library_may_talk_on_stdout(install: Install, tmp_path: Path) -> None:
    text = TENSORRT.format(version="10.7.0", dla_cores=0)
    install({"tensorrt/__init__.py": "import os\nos.system('echo hello')\nprint('hello')\n" + text})
    full, _ = read_tensorrt(plant(tmp_path / "root", {}), "tensorrt")
    assert full.usable


def test_the_probe_runs_without_edgeslim() -> None:
    tree = ast.parse(Path(probe_module.__file__).read_text())
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    assert not any(name is None or name.startswith(("edgeslim", ".")) for name in imported)


def test_this_machine_is_described_and_survives_json() -> None:
    device = describe_device()
    assert device.onnxruntime.usable
    assert "CPUExecutionProvider" in (device.onnxruntime_providers or ())
    assert [found.flavour for found in device.tensorrt] == ["tensorrt", "tensorrt-rtx"]
    assert from_json(Device, json.loads(json.dumps(to_json(device)))) == device


def test_the_installed_tensorrt_rtx_is_found() -> None:
    rtx = pytest.importorskip("tensorrt_rtx_bindings", reason="needs the extra rtx")
    found = describe_device().find_tensorrt("tensorrt-rtx")
    assert found is not None
    assert found.version == rtx.__version__


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        (["/no/such/program"], "No such file"),
        (["sh", "-c", "echo one >&2; echo two >&2; exit 7"], "exit code 7: two"),
        (["sh", "-c", "kill -9 $$"], "ended by SIGKILL: no message"),
        (["sh", "-c", "kill -40 $$"], "ended by"),
        (["sh\0"], "null byte"),
    ],
)
def test_what_goes_wrong_with_a_command_is_one_line(command: list[str], problem: str) -> None:
    done = run_command(command, 10.0)
    assert problem in str(done.problem)


@pytest.mark.usefixtures("no_driver")
def test_a_benchmark_names_the_board_and_its_mode(tmp_path: Path) -> None:
    machine = describe_machine(plant(tmp_path / "root", BOARDS["AGX Orin"]))
    assert machine.board == "NVIDIA Jetson AGX Orin Developer Kit"
    assert (machine.l4t, machine.jetpack, machine.power_mode) == ("36.5.0", "6.1 to 6.2.2", "MAXN")
    assert (machine.gpu, machine.driver) == (None, None)


def test_results_from_before_gpus_were_named_are_still_read() -> None:
    new = ("gpu", "driver", "power_mode", "l4t", "jetpack")
    table = to_json(describe_machine())
    assert isinstance(table, dict)
    old = {name: value for name, value in table.items() if name not in new}
    machine = from_json(Machine, old)
    assert [getattr(machine, name) for name in new] == [None] * 5
