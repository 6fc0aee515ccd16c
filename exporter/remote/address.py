"""Where a board is: `ssh://[user@]host[:port]`, checked before anything is looked up.

The host may be an alias of `~/.ssh/config`. A user or port that is not given comes from there, or is the usual one.
"""

from __future__ import annotations

import ipaddress
import re
import shlex
from dataclasses import dataclass

from edgeslim.errors import ConfigError

_FORM = "ssh://user@host or ssh://user@host:port; an IPv6 address goes into brackets, as in ssh://user@[fd00::2]:22"
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_.])?")
_ZONE = re.compile(r"[A-Za-z0-9_.-]+")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+$-]*")
LARGEST_PORT = 65535


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A board as it was named. `user` and `port` are None where the SSH configuration decides."""

    host: str
    user: str | None = None
    port: int | None = None

    def __post_init__(self) -> None:
        if not _is_host(self.host):
            raise ValueError(f"host {self.host!r} is neither a name nor an IP address")
        if self.user is not None and not _USER.fullmatch(self.user):
            raise ValueError(f"user {self.user!r} is no plain user name")
        if self.port is not None and not 0 < self.port <= LARGEST_PORT:
            raise ValueError(f"port {self.port} is not in 1 to {LARGEST_PORT}")

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return "ssh://" + (f"{self.user}@" if self.user else "") + host + (f":{self.port}" if self.port else "")

    @property
    def shown(self) -> str:
        """What a person calls it: user@host."""
        return f"{self.user}@{self.host}" if self.user else self.host

    @property
    def ssh_arguments(self) -> str:
        """What comes after `ssh` on a command line to reach the same board."""
        return (f"-p {self.port} " if self.port else "") + shlex.quote(self.shown)


def parse_address(text: str) -> Address:
    """Read an ssh:// URL. Raises ConfigError for anything else, also for a URL that holds a password."""
    before, at, after = text.rpartition("@")
    if at and ":" in before.rpartition("://")[2]:
        # The password itself, which may hold any sign, must not end up in a log: nothing before the @ is repeated.
        raise ConfigError(
            f"the address of {after!r} holds a password; edgeslim signs in with keys only",
            "take it out of the URL, and set a key up with ssh-copy-id",
        )
    scheme, separator, rest = text.partition("://")
    if not separator or scheme.lower() != "ssh":
        raise ConfigError(f"{text!r} is no address of a board: it does not start with ssh://", f"give {_FORM}")
    place, _, path = rest.partition("/")
    if path or any(sign in place for sign in "?#"):
        raise ConfigError(
            f"{text!r} has more than a host: {rest[len(place) :] or place!r}",
            f"give {_FORM}; the folder on the board is --remote-dir",
        )
    user, at, host = place.rpartition("@")
    if at and not user:
        raise ConfigError(f"{text!r} has an @ and no user before it", f"give {_FORM}")
    name, port = _split_port(host, text)
    try:
        return Address(host=name, user=user or None, port=port)
    except ValueError as error:
        raise ConfigError(f"{text!r} is no address of a board: {error}", f"give {_FORM}") from error


def _split_port(host: str, text: str) -> tuple[str, int | None]:
    if host.startswith("["):
        name, bracket, rest = host[1:].partition("]")
        if not bracket or ":" not in name or (rest and not rest.startswith(":")):
            raise ConfigError(f"{text!r} has brackets that hold no IPv6 address", f"give {_FORM}")
        colon, port = rest[:1], rest[1:]
        # A URL writes the % before a zone as %25 (RFC 6874); a zone that is called 25 has nothing behind it.
        name = re.sub("%25(?=.)", "%", name, count=1)
    elif host.count(":") > 1:
        raise ConfigError(f"{text!r} has an IPv6 address without brackets", f"give {_FORM}")
    else:
        name, colon, port = host.partition(":")
    if colon and not (port.isascii() and port.isdigit()):
        raise ConfigError(f"{text!r} has the port {port!r}, which is no number", f"give {_FORM}")
    # A number of thousands of digits must not be converted at all.
    return name, (int(port) if len(port) < 9 else LARGEST_PORT + 1) if colon else None


def _is_host(host: str) -> bool:
    if ":" in host:
        try:
            zone = ipaddress.IPv6Address(host).scope_id
        except ValueError:
            return False
        return zone is None or _ZONE.fullmatch(zone) is not None  # it may hold anything, and stands in lines to copy
    return len(host) < 256 and _HOST.fullmatch(host) is not None
