"""The words for a board that cannot be reached or does not let us in: what was seen, and the line that helps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeslim.errors import ConfigError, DeviceError

from .address import Address, parse_address

_SSH_PORT = 22


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A board as it was named, and as the SSH configuration resolves it."""

    address: Address
    host: str
    port: int
    known_files: tuple[Path, ...]

    @property
    def known_port(self) -> int | None:
        """The port as known_hosts writes it: the usual one is left out."""
        return None if self.port == _SSH_PORT else self.port

    def __str__(self) -> str:
        aliased = f" ({self.host})" if self.host != self.address.host else ""
        return f"{self.address.host}{aliased}, port {self.port}"


def parse_jump(text: str) -> Address:
    """One host of a ProxyJump: [user@]host[:port], or an ssh:// URL. Raises ConfigError."""
    return parse_address(text.strip() if "://" in text else f"ssh://{text.strip()}")


def no_such_name(place: Place, error: OSError) -> ConfigError:
    return ConfigError(
        f"{place}: no address is known by the name {place.host!r} ({error.strerror or error})",
        "look at the name, give the IP address, or name the board in ~/.ssh/config",
    )


def nobody_listens(place: Place) -> DeviceError:
    return DeviceError(
        f"{place}: the connection was refused: nothing listens there",
        "is sshd running on the board (sudo systemctl start ssh), and is the port right? ssh://host:port",
    )


def no_answer(place: Place, seconds: float) -> DeviceError:
    return DeviceError(
        f"{place}: no answer within {seconds:g} s",
        f"is the board on, and in this network? try: ssh {place.address.ssh_arguments}",
    )


def not_ssh(place: Place, said: str) -> DeviceError:
    return DeviceError(
        f"{place}: no SSH connection could be made: {said}",
        f"see what ssh says: ssh -v {place.address.ssh_arguments}",
    )


def unknown_host(place: Place, kind: str, fingerprint: str) -> DeviceError:
    port = "" if place.known_port is None else f"-p {place.port} "
    return DeviceError(
        f"{place}: its host key is not in {_files(place)}, so it may be any machine: {kind} {fingerprint}",
        "compare that on the board with: for k in /etc/ssh/ssh_host_*_key.pub; do ssh-keygen -lf $k; done; "
        f"then accept it with `ssh {place.address.ssh_arguments}`, or `ssh-keyscan {port}{place.host} >> "
        "~/.ssh/known_hosts`",
    )


def changed_host(place: Place, kind: str, fingerprint: str, known: Sequence[str]) -> DeviceError:
    name = place.host if place.known_port is None else f"[{place.host}]:{place.port}"
    return DeviceError(
        f"{place}: THE HOST KEY HAS CHANGED. It shows {kind} {fingerprint}, known is {', '.join(known)}. Somebody may "
        "be between you and the board; nothing was sent",
        f"only if you know why (the board was flashed anew): ssh-keygen -R '{name}', and accept the new key",
    )


def revoked_host(place: Place) -> DeviceError:
    return DeviceError(
        f"{place}: its host key is marked as revoked in {_files(place)}; nothing was sent",
        "do not use this board before its owner has given it a new key",
    )


def key_refused(place: Place, user: str, keys: Sequence[Path], has_agent: bool) -> DeviceError:
    locked = [path for path in keys if is_encrypted(path)]
    tried = ", ".join(map(str, keys)) or "no key file"
    agent = "the agent's" if has_agent else "no agent (SSH_AUTH_SOCK is not set)"
    if locked:
        return DeviceError(
            f"{place}: {user} was not let in, and {', '.join(map(str, locked))} is locked by a passphrase, which "
            "edgeslim never asks for",
            f"unlock it in an agent first: eval $(ssh-agent); ssh-add {locked[0]}",
        )
    return DeviceError(
        f"{place}: the board lets {user} in with none of these keys: {tried}; {agent}",
        f"put a key there with `ssh-copy-id {place.address.ssh_arguments}`, or name the right one with --identity; "
        "passwords are not used",
    )


def is_encrypted(path: Path) -> bool:
    """Does this private key need a passphrase? OpenSSH's own form names a cipher, PEM says it in its head."""
    import base64
    import binascii

    try:
        text = path.read_text(encoding="ascii")
    except (OSError, ValueError):
        return False
    if "ENCRYPTED" in text:
        return True
    lines = text.strip().splitlines()
    if not lines or "OPENSSH PRIVATE KEY" not in lines[0]:
        return False
    try:
        head = base64.b64decode("".join(lines[1:-1]))[:64]
    except binascii.Error:
        return False
    magic = b"openssh-key-v1\0"
    return head.startswith(magic) and not head[len(magic) + 4 :].startswith(b"none")


def _files(place: Place) -> str:
    return " or ".join(map(str, place.known_files[:2])) or "known_hosts"
