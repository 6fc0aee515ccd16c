"""What a Jetson says of itself, in the kernel's device tree, in L4T's own files and through nvpmodel.

A container sees the host's device tree (/proc is the kernel's), but neither L4T's files nor nvpmodel unless they are
mounted: the board is then known, its release and power mode are not, and the reasons say so. Nothing here changes a
mode or a clock, and nothing asks for more rights than the process has.
"""

from __future__ import annotations

from typing import Literal

from .jetpack import jetpack_of
from .record import Jetson
from .sources import Sources, first_match

_TIMEOUT_S = 10.0
_NVPMODEL = ("/usr/sbin/nvpmodel", "/usr/bin/nvpmodel")
FAMILIES = {"tegra194": "Xavier", "tegra234": "Orin", "tegra264": "Thor"}
_CAPABILITIES = {"Xavier": (7, 2), "Orin": (8, 7), "Thor": (11, 0)}
_THOR_BEFORE_CUDA_13 = (10, 1)
_DLA_IN_DOCUMENTS = (
    ("AGX Orin", "2; TensorRT after 10.7 has none before 11.4.1"),
    ("Orin NX", "2 with 16 GB, 1 with 8 GB; TensorRT after 10.7 has none"),
    ("Orin Nano", "0"),
    ("Thor", "none in TensorRT after 10.7"),
)
"""Words of the device tree's model -> what documents say; only TensorRT itself is believed."""


def read_board(sources: Sources) -> str | None:
    """The device tree's model; also of boards that are no Jetson."""
    return sources.text("/proc/device-tree/model")


def in_container(sources: Sources) -> bool:
    """Whether this process runs in a container, by the marks that engines leave."""
    if sources.exists("/.dockerenv") or sources.exists("/run/.containerenv"):
        return True
    return first_match(r"(docker|kubepods|containerd|lxc)", sources.text("/proc/1/cgroup")) is not None


def read_jetson(sources: Sources, *, reasons: dict[str, str] | None = None) -> Jetson | None:
    """The board, or None if this is no Jetson. Why something is unknown is written into `reasons`.

    `dla_cores` is None: only TensorRT knows, see `describe_device`.
    """
    why = {} if reasons is None else reasons
    chip = first_match(r"nvidia,(tegra\d+)", sources.text("/proc/device-tree/compatible"))
    l4t = _l4t(sources.text("/etc/nv_tegra_release"))
    if chip is None and l4t is None:
        return None
    family = FAMILIES.get(chip or "")
    board = read_board(sources)
    if board is None:
        why["jetson.board"] = "/proc/device-tree/model cannot be read"
    if l4t is None:
        why["jetson.l4t"] = _no_l4t(sources)
    jetpack, source = _jetpack(sources, l4t, why)
    if family is None:
        why["jetson.compute_capability"] = f"the chip {chip or 'of this board'} is not one that edgeslim knows"
    why["jetson.dla_cores"] = dla_in_documents(board)
    return Jetson(
        board=board,
        chip=chip or "unknown",
        family=family,
        l4t=l4t,
        jetpack=jetpack,
        jetpack_source=source,
        compute_capability=None if family is None else _CAPABILITIES[family],
        dla_cores=None,
        power_mode=_power_mode(sources, why),
    )


def capability_under(family: str | None, cuda: str | None) -> tuple[int, int] | None:
    """Compute capability of a chip's family under the driver's CUDA ("12.6"); CUDA 12 gives Thor another name."""
    if family == "Thor" and (cuda or "").partition(".")[0] == "12":
        return _THOR_BEFORE_CUDA_13
    return _CAPABILITIES.get(family or "")


def dla_in_documents(board: str | None) -> str:
    """What documents say of a board's DLA cores, for want of a TensorRT that can be asked."""
    for words, cores in _DLA_IN_DOCUMENTS:
        if words in (board or ""):
            return f"TensorRT could not be asked; documents say of {words}: {cores}"
    return "TensorRT could not be asked"


def _l4t(text: str | None) -> str | None:
    """From "# R36 (release), REVISION: 4.4, GCID: ..." the release "36.4.4"."""
    major = first_match(r"^#\s*R(\d{1,4})\s*\(release\)", text)
    revision = first_match(r"REVISION:\s*(\d{1,4}(?:\.\d{1,4})*)", text)
    return f"{major}.{revision}" if major and revision else None


def _no_l4t(sources: Sources) -> str:
    if sources.exists("/etc/nv_tegra_release"):
        return "/etc/nv_tegra_release has another form than '# R36 (release), REVISION: 4.4'"
    if in_container(sources):
        return "/etc/nv_tegra_release is not in this container; `docker run -v` can mount the host's"
    return "there is no /etc/nv_tegra_release"


def _jetpack(
    sources: Sources, l4t: str | None, why: dict[str, str]
) -> tuple[str | None, Literal["package", "documents"] | None]:
    """The installed meta-package is exact; without it (and it is optional) L4T tells the row of the table."""
    entry = first_match(r"^Package: nvidia-jetpack\n((?:\S.*\n| .*\n)*)", sources.text("/var/lib/dpkg/status"))
    package = first_match(r"^Version:\s*(\d[\w.]*)", entry)
    if package is not None and first_match(r"^Status: \S+ \S+ (installed)$", entry) is not None:
        return package, "package"
    row = jetpack_of(l4t)
    if row is not None:
        return row.name, "documents"
    why["jetson.jetpack"] = (
        "L4T, which would tell it, is unknown" if l4t is None else f"L4T {l4t} is in no known JetPack"
    )
    return None, None


def _power_mode(sources: Sources, why: dict[str, str]) -> str | None:
    program = next((path for path in _NVPMODEL if sources.exists(path)), None)
    if program is None:
        place = "in this container: it can be asked on the host" if in_container(sources) else "on this system"
        why["jetson.power_mode"] = f"there is no nvpmodel {place}"
        return None
    done = sources.run([str(sources.path(program)), "-q"], _TIMEOUT_S)
    # It may name the mode and then fail on a file that only root may read: the mode is true nevertheless.
    mode = first_match(r"NV Power Mode: *(\S.*)$", done.stdout)
    if mode is None:
        said = done.problem or first_match(r"(\S.*)", done.stdout) or "nothing"
        why["jetson.power_mode"] = f"`nvpmodel -q` said: {said}. It may need root: sudo nvpmodel -q"
    return mode
