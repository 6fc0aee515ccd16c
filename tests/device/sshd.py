"""A real sshd of one's own: a free port, its own host key and configuration, keys only, for whoever runs the tests."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

BINARY = shutil.which("sshd", path=os.defpath + os.pathsep + "/usr/sbin:/usr/local/sbin:/sbin")
KEYGEN = shutil.which("ssh-keygen")
HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sshd:
    """A running sshd; `host_key` and `user_key` are the private files, their public halves lie beside them."""

    port: int
    host_key: Path
    user_key: Path
    authorized: Path

    @property
    def public_host_key(self) -> str:
        """Kind and key, as a line of known_hosts has them after the name."""
        return " ".join(self.host_key.with_suffix(".pub").read_text().split()[:2])


def make_key(path: Path, passphrase: str = "", kind: str = "ed25519") -> Path:
    """A new key pair."""
    assert KEYGEN is not None
    command = [KEYGEN, "-q", "-t", kind, "-N", passphrase, "-C", "test", "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return path


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def running_sshd(folder: Path, *, sftp: bool, passwords: bool = False) -> Iterator[Sshd]:
    """An sshd until the block ends, with or without SFTP; with `passwords` it takes them, and logs who tries."""
    yes, for_root = ("yes", "yes") if passwords else ("no", "prohibit-password")
    assert BINARY is not None
    folder.mkdir(exist_ok=True)
    port = free_port()
    host_key = folder / "host_key"
    if not host_key.exists():
        make_key(host_key)
        make_key(folder / "user_key")
    authorized = folder / "authorized_keys"
    authorized.write_text((folder / "user_key.pub").read_text())
    config = folder / "sshd_config"
    config.write_text(
        f"Port {port}\nListenAddress {HOST}\nHostKey {host_key}\nPidFile none\nAuthorizedKeysFile {authorized}\n"
        f"StrictModes no\nUsePAM no\nPasswordAuthentication {yes}\nKbdInteractiveAuthentication no\n"
        f"PermitRootLogin {for_root}\nAllowUsers {getpass.getuser()}\nMaxStartups 100\nUseDNS no\n"
        + ("Subsystem sftp internal-sftp\n" if sftp else "")
        + ("LogLevel DEBUG2\n" if passwords else "")
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd refuses to start as root without it
    log = (folder / "log").open("ab")
    process = subprocess.Popen(
        [BINARY, "-D", "-e", "-f", str(config)], stdout=log, stderr=log, stdin=subprocess.DEVNULL
    )
    try:
        _wait_for(port, process, folder / "log")
        yield Sshd(port=port, host_key=host_key, user_key=folder / "user_key", authorized=authorized)
    finally:
        process.terminate()
        process.wait(10)
        log.close()


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection((HOST, port), 1):
            return
        time.sleep(0.02)
    raise RuntimeError("sshd did not start: " + log.read_text(errors="replace")[-2000:])
