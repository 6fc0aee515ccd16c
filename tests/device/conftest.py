"""A board: a real sshd on this machine, a folder there, and a Python whose `edgeslim build` is a stand-in.

The stand-in fails in every way that a build may; test_remote_real.py has the real verb, with a real builder.
"""

from __future__ import annotations

import getpass
import json
import os
import shlex
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgeslim.exporter.bundle import write_bundle
from edgeslim.exporter.remote import Address, Patience, RemoteBuild, build_remote

from ..unit.conftest import build_manifest, build_model
from .heard import Heard
from .sshd import BINARY, HOST, KEYGEN, Sshd, running_sshd

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """All that a test of a remote build needs: this side's home, and the board's folder."""

    sshd: Sshd
    home: Path
    folder: Path
    """--remote-dir: a name that shells would trip over."""
    stand_in: Path
    python: Path
    real_python: Path
    """One whose `edgeslim build` is the real one."""
    cache: Path
    heard: Heard

    def fault(self, kind: str = "", **more: object) -> None:
        """What the stand-in will do wrong."""
        (self.stand_in / "fault.json").write_text(json.dumps({"fault": kind, **more}))

    def address(self, port: int | None = None) -> Address:
        """The board, or the board through a proxy."""
        return Address(host=HOST, port=port or self.sshd.port, user=getpass.getuser())

    def know(self, port: int) -> None:
        """Add the board's key to known_hosts under another port."""
        with (self.home / ".ssh" / "known_hosts").open("a") as file:
            file.write(f"[{HOST}]:{port} {self.sshd.public_host_key}\n")

    def build(self, bundle: Path, *arguments: str, port: int | None = None, **options: object) -> RemoteBuild:
        """Build `bundle` on the board."""
        settings: dict[str, object] = {
            "python": str(self.python),
            "directory": str(self.folder),
            "patience": Patience(connect_seconds=10, keepalive_seconds=0.5, keepalive_count=2),
            **options,
        }
        return build_remote(bundle, self.address(port), arguments, self.cache, self.heard, **settings)  # type: ignore[arg-type]

    def calls(self) -> list[str]:
        """What the stand-in was called with so far."""
        path = self.stand_in / "calls"
        return path.read_text().splitlines() if path.exists() else []

    def stored(self) -> list[str]:
        """Names of all files in the board's bundles."""
        return sorted(path.name for path in self.folder.glob("bundles/**/*") if path.is_file())


def write_script(path: Path, text: str) -> Path:
    """An executable shell script."""
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.fixture(scope="session")
def sshds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Sshd]]:
    """One sshd with SFTP and one without."""
    if BINARY is None or KEYGEN is None:
        pytest.skip("no sshd is installed here (on Debian and Ubuntu: apt install openssh-server)")
    folder = tmp_path_factory.mktemp("sshd")
    with (
        running_sshd(folder / "sftp", sftp=True) as with_sftp,
        running_sshd(folder / "plain", sftp=False) as without,
    ):
        yield {"sftp": with_sftp, "exec": without}


@pytest.fixture
def way(request: pytest.FixtureRequest) -> str:
    """Over what files are copied; a test of both ways is parametrized with `way`."""
    return str(getattr(request, "param", "sftp"))


@pytest.fixture
def bench(sshds: dict[str, Sshd], way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """This side and the board, which know each other."""
    sshd = sshds[way]
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    (home / ".ssh" / "id_ed25519").write_bytes(sshd.user_key.read_bytes())
    (home / ".ssh" / "id_ed25519").chmod(0o600)
    monkeypatch.setenv("HOME", str(home))
    for name in ("SSH_AUTH_SOCK", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    stand_in = tmp_path / "stand-in"
    stand_in.mkdir()
    real = shlex.quote(sys.executable)
    paths = shlex.quote(os.pathsep.join([str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]))
    program = shlex.quote(str(Path(__file__).with_name("build_stand_in.py")))
    python = write_script(
        tmp_path / "python there",
        f"export PYTHONPATH={paths} STAND_IN={shlex.quote(str(stand_in))}\n"
        f'if [ "$2 $3" = "edgeslim build" ]; then shift 3; exec {real} {program} "$@"; fi\n'
        # The real one imports torch where it is installed, which takes seconds.
        + 'if [ "$2 $3" = \'edgeslim doctor\' ]; then echo \'{"board": "stand-in"}\'; exit; fi\n'
        + f'exec {real} "$@"\n',
    )
    made = Bench(
        sshd=sshd,
        home=home,
        folder=tmp_path / 'it\'s a $(touch trap) "board"; né',
        stand_in=stand_in,
        python=python,
        real_python=write_script(tmp_path / "real python", f'export PYTHONPATH={paths}\nexec {real} "$@"\n'),
        cache=tmp_path / "engines",
        heard=Heard(),
    )
    made.know(sshd.port)
    made.fault()
    return made


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle as a directory, shared: tests must not change it."""
    path = tmp_path_factory.mktemp("bundles") / "tiny.bundle"
    return write_bundle(
        path, model=build_model(), manifest=build_manifest(), files={"docs/report.html": b"<p>fine</p>"}
    )


@pytest.fixture(scope="session")
def large_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of 8 MB, most of it in one file, shared."""
    import random

    path = tmp_path_factory.mktemp("bundles") / "large.bundle"
    files = {"docs/large.bin": random.Random(1).randbytes(8 << 20)}
    return write_bundle(path, model=build_model(), manifest=build_manifest(), files=files)
