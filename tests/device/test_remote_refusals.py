"""Boards that cannot be reached or do not let us in: a message that names the case, and a line that helps."""

from __future__ import annotations

import base64
import hashlib
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgeslim.errors import ConfigError, DeviceError
from edgeslim.exporter.remote import Address, Patience

from .conftest import Bench
from .sshd import HOST, free_port, make_key, running_sshd

SHORT = Patience(connect_seconds=1, keepalive_seconds=0.5)


def fingerprint(public: str) -> str:
    """SHA256:... as ssh prints it, computed here from "kind key"."""
    digest = hashlib.sha256(base64.b64decode(public.split()[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def refused(bench: Bench, bundle: Path, **options: object) -> DeviceError:
    with pytest.raises(DeviceError) as caught:
        bench.build(bundle, **options)  # type: ignore[arg-type]
    assert caught.value.hint
    assert not bench.calls()
    assert not bench.folder.exists()
    return caught.value


def test_an_unknown_host(bench: Bench, bundle: Path) -> None:
    (bench.home / ".ssh" / "known_hosts").unlink()
    error = refused(bench, bundle)
    assert fingerprint(bench.sshd.public_host_key) in error.message
    assert "known_hosts" in error.message
    assert f"ssh-keyscan -p {bench.sshd.port} {HOST} >> ~/.ssh/known_hosts" in error.hint
    assert not (bench.home / ".ssh" / "known_hosts").exists()


def test_the_line_of_the_hint_makes_the_host_known(bench: Bench, bundle: Path) -> None:
    keyscan = shutil.which("ssh-keyscan")
    if keyscan is None:
        pytest.skip("no ssh-keyscan here")
    known = bench.home / ".ssh" / "known_hosts"
    done = subprocess.run([keyscan, "-p", str(bench.sshd.port), HOST], capture_output=True, text=True, check=True)
    known.write_text(done.stdout)
    assert bench.build(bundle).engines


def test_a_changed_host_key(bench: Bench, bundle: Path, tmp_path: Path) -> None:
    other = make_key(tmp_path / "other").with_suffix(".pub").read_text()
    (bench.home / ".ssh" / "known_hosts").write_text(f"[{HOST}]:{bench.sshd.port} {other}")
    error = refused(bench, bundle)
    assert "HAS CHANGED" in error.message
    assert fingerprint(bench.sshd.public_host_key) in error.message
    assert fingerprint(other) in error.message
    assert f"ssh-keygen -R '[{HOST}]:{bench.sshd.port}'" in error.hint


def test_a_changed_host_key_of_another_kind(bench: Bench, bundle: Path, tmp_path: Path) -> None:
    """The board had an ECDSA key and has lost it: no kind in common is a change, not a riddle."""
    other = make_key(tmp_path / "other", kind="ecdsa").with_suffix(".pub").read_text()
    (bench.home / ".ssh" / "known_hosts").write_text(f"[{HOST}]:{bench.sshd.port} {other}")
    assert "HAS CHANGED" in refused(bench, bundle).message


def test_a_revoked_host_key(bench: Bench, bundle: Path) -> None:
    known = bench.home / ".ssh" / "known_hosts"
    known.write_text(known.read_text() + f"@revoked * {bench.sshd.public_host_key}\n")
    assert "revoked" in refused(bench, bundle).message


def test_hashed_known_hosts(bench: Bench, bundle: Path) -> None:
    known = bench.home / ".ssh" / "known_hosts"
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(known)], check=True, capture_output=True)
    assert HOST not in known.read_text()
    assert bench.build(bundle).engines


def test_a_configuration_cannot_switch_the_check_off(bench: Bench, bundle: Path) -> None:
    """UserKnownHostsFile none, StrictHostKeyChecking no: what comes back is going to be run, so nobody is trusted."""
    (bench.home / ".ssh" / "known_hosts").unlink()
    (bench.home / ".ssh" / "config").write_text("Host *\n  UserKnownHostsFile none\n  StrictHostKeyChecking no\n")
    assert fingerprint(bench.sshd.public_host_key) in refused(bench, bundle).message


def test_damaged_known_hosts(bench: Bench, bundle: Path) -> None:
    (bench.home / ".ssh" / "known_hosts").write_text("nonsense\n")
    with pytest.raises(ConfigError, match="nonsense"):
        bench.build(bundle)


def test_a_key_that_is_not_let_in(bench: Bench, bundle: Path, tmp_path: Path) -> None:
    key = make_key(tmp_path / "stranger")
    (bench.home / ".ssh" / "id_ed25519").unlink()
    error = refused(bench, bundle, identity=key)
    assert str(key) in error.message
    assert "ssh-copy-id" in error.hint
    assert "no key file" in refused(bench, bundle).message


def test_the_key_that_is_named_is_used(bench: Bench, bundle: Path) -> None:
    (bench.home / ".ssh" / "id_ed25519").unlink()
    assert bench.build(bundle, identity=bench.sshd.user_key).engines


def test_a_key_that_is_not_there(bench: Bench, bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no key at"):
        bench.build(bundle, identity=tmp_path / "none")


def test_what_is_no_key(bench: Bench, bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello")
    with pytest.raises((ConfigError, DeviceError)) as caught:
        bench.build(bundle, identity=tmp_path / "text")
    assert caught.value.hint


@pytest.fixture
def locked_key(bench: Bench) -> Path:
    """The user's key under a passphrase."""
    path = bench.home / ".ssh" / "id_ed25519"
    command = ["ssh-keygen", "-q", "-p", "-P", "", "-N", "secret", "-f", str(path)]
    subprocess.run(command, check=True, capture_output=True)
    return path


@pytest.mark.parametrize("named", [False, True], ids=["found", "named"])
def test_a_key_with_a_passphrase_and_no_agent(bench: Bench, bundle: Path, locked_key: Path, named: bool) -> None:
    error = refused(bench, bundle, identity=locked_key if named else None)
    assert "locked by a passphrase" in error.message
    assert f"ssh-add {locked_key}" in error.hint


def test_a_key_in_an_agent(
    bench: Bench, bundle: Path, tmp_path: Path, locked_key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, add = shutil.which("ssh-agent"), shutil.which("ssh-add")
    if agent is None or add is None:
        pytest.skip("no ssh-agent here")
    place = tmp_path / "agent"
    process = subprocess.Popen([agent, "-D", "-a", str(place)], stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while not place.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(place))
        subprocess.run([add, "-q", str(bench.sshd.user_key)], check=True, capture_output=True)
        assert bench.build(bundle).engines
    finally:
        process.terminate()
        process.wait()


def test_a_name_that_nobody_knows(bench: Bench, bundle: Path) -> None:
    from edgeslim.exporter.remote import build_remote

    with pytest.raises(ConfigError, match=r"no address is known by the name 'board\.invalid'") as caught:
        build_remote(bundle, Address(host="board.invalid"), (), bench.cache, bench.heard)
    assert caught.value.hint


def test_nobody_listens(bench: Bench, bundle: Path) -> None:
    assert "the connection was refused" in refused(bench, bundle, port=free_port()).message


def test_no_answer(bench: Bench, bundle: Path) -> None:
    with socket.create_server((HOST, 0)) as silent:
        error = refused(bench, bundle, port=silent.getsockname()[1], patience=SHORT)
    assert "no answer within 1 s" in error.message


def test_what_is_no_sshd(bench: Bench, bundle: Path) -> None:
    import threading

    with socket.create_server((HOST, 0)) as server:

        def greet() -> None:
            link, _ = server.accept()
            with link:
                link.sendall(b"220 mail.example ESMTP\r\n" * 2000)

        thread = threading.Thread(target=greet)
        thread.start()
        error = refused(bench, bundle, port=server.getsockname()[1], patience=SHORT)
        thread.join()
    assert "no SSH connection" in error.message or "no answer" in error.message


def test_an_alias_of_the_ssh_configuration(bench: Bench, bundle: Path) -> None:
    """User, port, key and the name in known_hosts come from there."""
    from edgeslim.exporter.remote import build_remote

    user = bench.address().user
    key = bench.home / "key"
    (bench.home / ".ssh" / "id_ed25519").rename(key)
    (bench.home / ".ssh" / "config").write_text(
        f"Host camera\n  HostName {HOST}\n  Port {bench.sshd.port}\n  User {user}\n"
        "  IdentityFile ~/not-there\n  IdentityFile ~/key\n  IdentitiesOnly yes\n"
    )
    done = build_remote(
        bundle,
        Address(host="camera"),
        (),
        bench.cache,
        bench.heard,
        python=str(bench.python),
        directory=str(bench.folder),
    )
    assert done.address == "ssh://camera"
    assert done.report_path.name == "board-camera.json"


def test_a_host_in_between(bench: Bench, bundle: Path, tmp_path: Path) -> None:
    """ProxyJump; and the host in between must be known like any other."""
    config = bench.home / ".ssh" / "config"
    with running_sshd(tmp_path / "jump", sftp=False) as jump:
        jump.authorized.write_text(bench.sshd.authorized.read_text())
        user = bench.address().user
        config.write_text(f"Host board\n  HostName {HOST}\n  ProxyJump {user}@{HOST}:{jump.port}\n")
        address = Address(host="board", user=user, port=bench.sshd.port)
        options = {"python": str(bench.python), "directory": str(bench.folder)}
        from edgeslim.exporter.remote import build_remote

        with pytest.raises(DeviceError) as caught:
            build_remote(bundle, address, (), bench.cache, bench.heard, **options)  # type: ignore[arg-type]
        assert fingerprint(jump.public_host_key) in caught.value.message
        with (bench.home / ".ssh" / "known_hosts").open("a") as known:
            known.write(f"[{HOST}]:{jump.port} {jump.public_host_key}\n")
        done = build_remote(bundle, address, (), bench.cache, bench.heard, **options)  # type: ignore[arg-type]
        assert done.engines
        # The planted fault: without the host in between there is no way.
        jump.authorized.write_text("")
        with pytest.raises(DeviceError, match="lets"):
            build_remote(bundle, address, (), bench.cache, bench.heard, **options)  # type: ignore[arg-type]


RELAY = """
import os, socket, sys, threading
link = socket.create_connection((sys.argv[1], int(sys.argv[2])))
def down():
    while data := link.recv(65536):
        os.write(1, data)
threading.Thread(target=down, daemon=True).start()
while data := os.read(0, 65536):
    link.sendall(data)
"""


def test_a_command_in_between(bench: Bench, bundle: Path, tmp_path: Path) -> None:
    """ProxyCommand, and the board is known by another name."""
    from edgeslim.exporter.remote import build_remote

    (tmp_path / "relay.py").write_text(RELAY)
    (bench.home / ".ssh" / "known_hosts").write_text(f"the-board {bench.sshd.public_host_key}\n")
    (bench.home / ".ssh" / "config").write_text(
        f"Host board\n  HostName {HOST}\n  HostKeyAlias the-board\n"
        f"  ProxyCommand {sys.executable} {tmp_path / 'relay.py'} %h %p\n"
    )
    address = Address(host="board", user=bench.address().user, port=bench.sshd.port)
    options = {"python": str(bench.python), "directory": str(bench.folder)}
    assert build_remote(bundle, address, (), bench.cache, bench.heard, **options).engines  # type: ignore[arg-type]


def test_a_broken_ssh_configuration(bench: Bench, bundle: Path) -> None:
    (bench.home / ".ssh" / "config").write_text("Port many\n")
    with pytest.raises(ConfigError, match="SSH configuration") as caught:
        bench.build(bundle)
    assert "~/.ssh/config" in caught.value.hint


def test_no_password_is_ever_tried(bench: Bench, bundle: Path, tmp_path: Path) -> None:
    """A board that would take a password sees no attempt to give one, and neither is a person asked."""
    folder = tmp_path / "passwords"
    with running_sshd(folder, sftp=True, passwords=True) as sshd:
        (bench.home / ".ssh" / "known_hosts").write_text(f"[{HOST}]:{sshd.port} {sshd.public_host_key}\n")
        assert "passwords are not used" in refused(bench, bundle, port=sshd.port).hint
        log = (folder / "log").read_text()
    assert "method publickey" in log
    assert "method password" not in log
    assert "method keyboard-interactive" not in log


def test_no_ssh_folder_at_all(bench: Bench, bundle: Path) -> None:
    """The host is unknown, and that is what is said."""
    shutil.rmtree(bench.home / ".ssh")
    assert "known_hosts" in refused(bench, bundle).message
