"""What `edgeslim doctor` advises: nothing that does not fit the device, and a way to everything that is missing."""

from __future__ import annotations

import dataclasses
import platform
import sys

import pytest
from rich.console import Console

from edgeslim.cli.doctor import abilities_table, device_table
from edgeslim.runtime.devices import (
    JETPACKS,
    Ability,
    Cuda,
    Device,
    Flavour,
    Gpu,
    Jetson,
    Library,
    TensorRt,
    engine_abilities,
    warnings_about,
)
from edgeslim.runtime.devices.abilities import TENSORRT_PIN

PYTHON = ".".join(platform.python_version_tuple()[:2])
HERE = next((row for row in JETPACKS if row.python == PYTHON and row.first_l4t is not None), None)
"""A JetPack whose Python is the one that runs the tests."""
ABSENT = Library(name="absent", version=None, problem="not installed")
BINDINGS = Library(name="cuda-bindings", version="13.5.0", problem=None)
RTX_4090 = Gpu(name="RTX 4090", pci=None, compute_capability=(8, 9), memory_bytes=24 << 30, integrated=False)
ORIN = Jetson(
    board="NVIDIA Jetson AGX Orin Developer Kit",
    chip="tegra234",
    family="Orin",
    l4t="36.4.4",
    jetpack="6.1 to 6.2.2",
    jetpack_source="documents",
    compute_capability=(8, 7),
    dla_cores=2,
    power_mode="MAXN",
)


def tensorrt(flavour: Flavour = "tensorrt", **changes: object) -> TensorRt:
    """Not installed, unless `changes` say otherwise."""
    absent = TensorRt(flavour=flavour, module="tensorrt", version=None, path=None, origin=None, problem="not installed")
    return dataclasses.replace(absent, **changes)  # type: ignore[arg-type]


PIPS = tensorrt(
    version=TENSORRT_PIN, path="/venv/tensorrt", origin="environment", distribution="tensorrt-x", problem=None
)
JETPACKS_OWN = tensorrt(
    version="10.3.0",
    path="/usr/lib/python3.10/dist-packages/tensorrt",
    origin="system",
    problem=None,
    system_copy="/usr/lib/python3.10/dist-packages/tensorrt",
)
RTX = tensorrt("tensorrt-rtx", version="1.7.1", path="/venv/rtx", origin="environment", problem=None)


def device(
    *,
    jetson: Jetson | None = None,
    gpus: tuple[Gpu, ...] | None = None,
    hardware: bool | None = False,
    cuda: str | None = None,
    full: TensorRt | None = None,
    rtx: TensorRt | None = None,
    bindings: Library = ABSENT,
    providers: tuple[str, ...] = ("CPUExecutionProvider",),
    container: bool = False,
) -> Device:
    """A device that is named in its own words."""
    return Device(
        architecture="x86_64" if jetson is None else "aarch64",
        container=container,
        jetson=jetson,
        gpus=gpus,
        nvidia_hardware=hardware or jetson is not None or bool(gpus),
        driver=None,
        cuda=Cuda(driver=cuda, runtime=None, toolkit=None, bindings=bindings, pycuda=ABSENT),
        tensorrt=(full or tensorrt(), rtx or tensorrt("tensorrt-rtx")),
        onnxruntime=Library(name="onnxruntime", version="1.23.2", problem=None),
        onnxruntime_providers=providers,
    )


def ways(found: Device) -> tuple[str, str, str]:
    """What is advised for building, running, and ONNX Runtime; empty where it is ready."""
    build, run, onnxruntime = engine_abilities(found)
    for ability in (build, run, onnxruntime):
        assert ability.ready or ability.install, "what does not work has a way"
    return build.install or "", run.install or "", onnxruntime.install or ""


def test_a_jetson_with_jetpacks_tensorrt_is_ready() -> None:
    build, run, onnxruntime = ways(device(jetson=ORIN, full=JETPACKS_OWN, bindings=BINDINGS))
    assert (build, run) == ("", "")
    assert "pip's index has no onnxruntime-gpu for this processor" in onnxruntime
    assert warnings_about(device(jetson=ORIN, full=JETPACKS_OWN, bindings=BINDINGS)) == ()


def test_a_jetson_never_gets_tensorrt_by_pip() -> None:
    for row in JETPACKS:
        l4t = None if row.first_l4t is None else "{}.{}".format(*row.first_l4t)
        for copy in (None, "/usr/lib/python3/dist-packages/tensorrt"):
            for container in (False, True):
                board = dataclasses.replace(ORIN, l4t=l4t)
                found = device(jetson=board, full=tensorrt(system_copy=copy), container=container)
                assert all("pip install 'tensorrt" not in way for way in ways(found))
                assert "edgeslim[rtx]" not in "".join(ways(found))


def test_a_jetson_without_tensorrt_is_sent_to_apt() -> None:
    build, run, _ = ways(device(jetson=ORIN))
    for way in (build, run):
        assert "sudo apt install python3-libnvinfer" in way
        assert "--system-site-packages" in way
    assert "'edgeslim[tensorrt]' 'cuda-bindings<13'" in run, "CUDA 12 wants the bindings of CUDA 12"


def test_a_jetson_whose_driver_shows_no_gpu_is_not_sent_to_a_pcs_driver() -> None:
    for way in ways(device(jetson=ORIN, gpus=(), full=JETPACKS_OWN)):
        assert "a part of L4T" in way
        assert "ubuntu-drivers" not in way


def test_an_environment_of_another_python_is_named() -> None:
    row = next(row for row in JETPACKS if row.python_supported and row.first_l4t and row.python != PYTHON)
    board = dataclasses.replace(ORIN, l4t="{}.{}".format(*(row.first_l4t or ())))
    build, *_ = ways(device(jetson=board, full=tensorrt(system_copy="/usr/lib/python3/dist-packages/tensorrt")))
    assert f"python{row.python} -m venv --system-site-packages" in build
    assert "apt" not in build


@pytest.mark.skipif(HERE is None, reason=f"no JetPack has Python {PYTHON}")
def test_an_environment_that_does_not_see_jetpack_is_named() -> None:
    assert HERE is not None
    board = dataclasses.replace(ORIN, l4t="{}.{}".format(*(HERE.first_l4t or ())))
    build, *_ = ways(device(jetson=board, full=tensorrt(system_copy="/usr/lib/python3/dist-packages/tensorrt")))
    assert "which this environment does not see" in build
    assert "apt" not in build


def test_jetpack_5_gets_the_way_by_trtexec() -> None:
    board = dataclasses.replace(ORIN, l4t="35.4.1", family="Xavier")
    build, run, _ = ways(device(jetson=board))
    for way in (build, run):
        assert "edgeslim build BUNDLE --print-trtexec" in way
        assert "/usr/src/tensorrt/bin/trtexec" in way
        assert "apt" not in way
        assert "pip" not in way


def test_pips_tensorrt_on_a_jetson_is_warned_of() -> None:
    shadow = dataclasses.replace(PIPS, system_copy="/usr/lib/python3.10/dist-packages/tensorrt")
    (first, second) = warnings_about(device(jetson=ORIN, full=shadow, bindings=BINDINGS))
    assert "hides JetPack's" in first
    assert f"{sys.executable} -m pip uninstall tensorrt-x" in first
    assert "documents give JetPack 6.1 to 6.2.2 10.3.0" in second
    alone = warnings_about(device(jetson=ORIN, full=PIPS, bindings=BINDINGS))
    assert "is not JetPack's" in alone[0]
    assert warnings_about(device(gpus=(RTX_4090,), full=PIPS)) == (), "on a PC pip's is the right one"


def test_a_container_on_a_jetson_is_sent_to_an_image() -> None:
    build, *_ = ways(device(jetson=dataclasses.replace(ORIN, l4t=None), container=True))
    assert "--runtime nvidia" in build
    assert "apt" not in build


@pytest.mark.parametrize(
    ("cuda", "words"), [("13.2", "tensorrt-cu13=="), ("12.4", "tensorrt-cu12=="), ("14.0", "cu13")]
)
def test_the_driver_decides_the_wheel(cuda: str, words: str) -> None:
    build, run, _ = ways(device(gpus=(RTX_4090,), cuda=cuda))
    for way in (build, run):
        assert words in way
        assert TENSORRT_PIN in way
    assert ("'cuda-bindings<13'" in run) == cuda.startswith("12")


def test_a_driver_too_old_is_said() -> None:
    build, *_ = ways(device(gpus=(RTX_4090,), cuda="11.4"))
    assert "CUDA 11.4" in build
    assert "tensorrt-cu" not in build


def test_a_gpu_without_a_driver_gets_the_driver_first() -> None:
    for way in ways(device(hardware=True)):
        assert way.startswith("install NVIDIA's driver")
        assert "tensorrt-cu" not in way


def test_a_container_without_the_gpu_is_told_how_to_start() -> None:
    assert all("--gpus all" in way for way in ways(device(hardware=True, container=True)))
    assert all("--gpus all" not in way for way in ways(device(hardware=False, container=True)))


def test_without_a_gpu_the_cpu_is_what_there_is() -> None:
    build, run, onnxruntime = ways(device())
    assert run == onnxruntime
    assert "no GPU of NVIDIA's" in run
    assert "pip" not in run
    assert "edgeslim[rtx]" in build, "engines for GeForce RTX need no GPU to be built"


def test_tensorrt_rtx_builds_anywhere_and_runs_on_its_own_gpus() -> None:
    build, run, _ = engine_abilities(device(rtx=RTX, bindings=BINDINGS))
    assert (build.ready, run.ready) == (True, False)
    assert "GeForce RTX only" in str(build.note)
    assert build.install is None, "the full TensorRT is of no use without a GPU"
    build, run, _ = engine_abilities(device(gpus=(RTX_4090,), cuda="13.0", rtx=RTX, bindings=BINDINGS))
    assert (build.ready, run.ready) == (True, True)
    assert "tensorrt-cu13" in str(build.install)
    build, *_ = engine_abilities(device(jetson=ORIN, rtx=RTX))
    assert not build.ready, "TensorRT-RTX knows no Jetson"
    hopper = dataclasses.replace(RTX_4090, name="H100", compute_capability=(9, 0))
    _, run, _ = engine_abilities(device(gpus=(hopper,), cuda="13.0", rtx=RTX, bindings=BINDINGS))
    assert not run.ready
    assert "tensorrt-cu13" in str(run.install)


def test_memory_of_the_gpu_takes_cuda_bindings() -> None:
    build, run, _ = ways(device(gpus=(RTX_4090,), cuda="13.0", full=PIPS))
    assert build == ""
    assert "edgeslim[tensorrt]" in run
    assert "tensorrt-cu" not in run


def test_onnxruntime_on_a_gpu() -> None:
    assert "'onnxruntime-gpu[cuda,cudnn]'" in ways(device(gpus=(RTX_4090,), cuda="13.0"))[2]
    assert ways(device(gpus=(RTX_4090,), cuda="13.0", rtx=RTX))[1].count("pip install") == 1, "cuda-bindings will do"
    assert "'onnxruntime-gpu[cuda,cudnn]<1.26'" in ways(device(gpus=(RTX_4090,), cuda="12.4"))[2]
    ready = device(gpus=(RTX_4090,), cuda="13.0", providers=("CUDAExecutionProvider", "CPUExecutionProvider"))
    assert ways(ready)[2] == ""


def test_why_an_installed_tensorrt_fails_is_shown() -> None:
    broken = tensorrt(path="/venv/tensorrt", origin="environment", problem="ImportError: libnvinfer.so.10")
    build, run, _ = engine_abilities(device(gpus=(RTX_4090,), cuda="13.0", full=broken))
    assert build.note == run.note == "import tensorrt: ImportError: libnvinfer.so.10"


@pytest.mark.parametrize("columns", [80, 120])
def test_tables_fit_and_lose_no_word(columns: int) -> None:
    note = "import tensorrt: ImportError: libnvinfer.so.10: cannot open shared object file [Errno 2]"
    ability = Ability(name="run bundles on a GPU", ready=False, versions={"tensorrt": None}, note=note)
    console = Console(width=columns, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    with console.file:
        console.print(abilities_table([ability]))
        console.print(device_table({"GPU": None, "board": "NVIDIA [Orin] " + "x" * 150}))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= columns
    for word in ("run bundles on a GPU", "(missing)", "libnvinfer.so.10:", "[Errno", "unknown", "[Orin]"):
        assert word in text
    assert text.count("x" * 10) * 10 <= text.count("x") <= 153
