"""SSH by asyncssh: the only file that imports it. Keys only, known hosts only, and a lost link is noticed.

asyncssh is asynchronous; its loop runs in a thread of its own, so that keep-alives go on while the caller hashes a
file, and Ctrl-C reaches the caller and never the middle of the protocol. What the loop raises comes out as an error
for people, or as `LinkLost`, which whoever was using the link explains.

Two things are stricter than in the library. `UserKnownHostsFile none` would switch its check of host keys off: here it
leaves nobody known. And the hosts of a ProxyJump are opened by the same function as the board, under the same rules.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import subprocess
import threading
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import asyncssh

from edgeslim.errors import ConfigError, DeviceError, EdgeslimError, first_line

from . import refusals
from .address import Address

T = TypeVar("T")
_OUTPUT_LIMIT = 1 << 16
_SUBSYSTEM_SECONDS = 10.0


class LinkLost(DeviceError):
    """The link broke after it had been open."""


class Refused(Exception):
    """What the board's system refuses: a full disk, a missing permission. `number` is its errno, 0 if not said."""

    def __init__(self, reason: str, number: int = 0, path: str = "") -> None:
        super().__init__(f"{path}: {reason}" if path else reason)
        self.reason, self.number, self.path = reason, number, path


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long is waited before a board counts as gone."""

    connect_seconds: float = 10.0
    keepalive_seconds: float = 3.0
    """A question is sent after so long a silence; three without an answer are the end."""
    keepalive_count: int = 3


class Connection:
    """An open link to a board; use it in a `with` block."""

    def __init__(self, address: Address, *, identity: Path | None = None, patience: Patience | None = None) -> None:
        """Sign in. Raises ConfigError or DeviceError that says what to do about it."""
        self.shown, self.ssh = address.shown, f"ssh {address.ssh_arguments}"
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(_keep_quiet)
        self._thread = threading.Thread(target=self._loop.run_forever, name="ssh", daemon=True)
        self._thread.start()
        self._links: list[asyncssh.SSHClientConnection] = []
        self._relays: list[subprocess.Popen[bytes]] = []
        self._sftp: asyncssh.SFTPClient | None = None
        self._sftp_asked = False
        try:
            self._wait(_open(address, identity, patience or Patience(), self._links, self._relays))
        except BaseException:
            self.close()
            raise

    @property
    def _link(self) -> asyncssh.SSHClientConnection:
        return self._links[-1]

    def start(self, command: str) -> Process:
        """Run a command line in the login shell there. Raises LinkLost."""

        async def begin() -> asyncssh.SSHClientProcess[bytes]:
            return await self._link.create_process(command, encoding=None, request_pty=False)

        with self._explained():
            return Process(self, self._wait(begin()))

    def has_sftp(self) -> bool:
        """Does the sshd offer SFTP? Raises LinkLost."""
        if not self._sftp_asked:
            self._sftp_asked = True
            with self._explained(), contextlib.suppress(asyncssh.ChannelOpenError, asyncssh.SFTPError, TimeoutError):
                self._sftp = self._wait(self._start_sftp())
            if self._link.is_closed():
                raise self.lost()
        return self._sftp is not None

    async def _start_sftp(self) -> asyncssh.SFTPClient:
        # A shell's greeting in place of the protocol may look like a packet that never ends.
        try:
            return await asyncio.wait_for(self._link.start_sftp_client(), _SUBSYSTEM_SECONDS)
        except asyncio.TimeoutError as error:  # another class than TimeoutError in Python 3.10
            raise TimeoutError from error

    @contextlib.contextmanager
    def file(self, path: str, *, write: bool) -> Iterator[SftpFile]:
        """Open a file over SFTP, a written one must exist. Raises Refused, LinkLost."""
        sftp = self._sftp
        assert sftp is not None

        async def begin() -> asyncssh.SFTPClientFile:
            flags = asyncssh.FXF_WRITE if write else asyncssh.FXF_READ
            return await sftp.open(path, flags, encoding=None)

        with self._explained():
            handle = self._wait(begin())
        try:
            yield SftpFile(self, handle)
        finally:
            # Whoever fails in the middle has an error of his own; one of closing would hide it.
            with contextlib.suppress(LinkLost, Refused), self._explained():
                self._wait(handle.close())

    def lost(self) -> LinkLost:
        """The error for a link that is gone."""
        return LinkLost(f"the link to {self.shown} was lost", "look at the network and the board, then run it again")

    def close(self) -> None:
        """End the link and its thread."""

        async def end() -> None:
            for link in reversed(self._links):
                link.abort()
            await asyncio.sleep(0)  # the transports close in the next turn
            rest = asyncio.all_tasks() - {asyncio.current_task()}
            for task in rest:
                task.cancel()
            await asyncio.gather(*rest, return_exceptions=True)
            await asyncio.sleep(0)  # what they call when they are done

        if self._loop.is_closed():
            return
        asyncio.run_coroutine_threadsafe(end(), self._loop).result()
        for relay in self._relays:
            relay.kill()
            relay.wait()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _wait(self, work: Coroutine[object, object, T]) -> T:
        """Run `work` in the loop's thread and wait for it; Ctrl-C cancels it there."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn what the library raises on an open link into LinkLost, or Refused."""
        try:
            yield
        except (asyncssh.SFTPConnectionLost, asyncssh.SFTPNoConnection, asyncssh.DisconnectError) as error:
            raise self.lost() from error
        except asyncssh.SFTPError as error:
            if self._link.is_closed():
                raise self.lost() from error
            raise Refused(error.reason or type(error).__name__) from error
        except asyncssh.ChannelOpenError as error:
            if self._link.is_closed():
                raise self.lost() from error
            raise
        except ConnectionError as error:
            raise self.lost() from error

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class SftpFile:
    """An open file there."""

    def __init__(self, connection: Connection, handle: asyncssh.SFTPClientFile) -> None:
        self._connection, self._handle = connection, handle

    def write(self, data: bytes, offset: int) -> None:
        """Write `data` at byte `offset`. Raises Refused, LinkLost."""
        with self._connection._explained():
            self._connection._wait(self._handle.write(data, offset))

    def read(self, size: int, offset: int) -> bytes:
        """At most `size` bytes from `offset` on; none at the end. Raises Refused, LinkLost."""
        with self._connection._explained():
            block = self._connection._wait(self._handle.read(size, offset))
        assert isinstance(block, bytes)  # it was opened without an encoding
        return block


class Process:
    """A command that runs on the board. Its stdout is bytes; of its stderr the end is kept."""

    def __init__(self, connection: Connection, process: asyncssh.SSHClientProcess[bytes]) -> None:
        self._connection, self._process = connection, process
        self._stderr = bytearray()
        self._draining = asyncio.run_coroutine_threadsafe(self._drain(), connection._loop)

    async def _drain(self) -> None:
        # A lost link is seen by whoever reads stdout or waits.
        with contextlib.suppress(asyncssh.DisconnectError, ConnectionError):
            while block := await self._process.stderr.read(_OUTPUT_LIMIT):
                self._stderr += block
                del self._stderr[:-_OUTPUT_LIMIT]

    def write(self, data: bytes) -> bool:
        """Send bytes to its stdin; False where it does not read any more. Raises LinkLost."""

        async def send() -> None:
            self._process.stdin.write(data)
            await self._process.stdin.drain()

        try:
            with self._connection._explained():
                self._connection._wait(send())
        except LinkLost as error:
            if isinstance(error.__cause__, BrokenPipeError) and not self._connection._link.is_closed():
                return False
            raise
        return True

    def end_input(self) -> None:
        """Close its stdin."""

        async def end() -> None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.write_eof()

        self._connection._wait(end())

    def read(self, size: int) -> bytes:
        """At most `size` bytes of stdout, none at its end. Raises LinkLost."""
        with self._connection._explained():
            return self._connection._wait(self._process.stdout.read(size))

    def wait(self) -> tuple[int, str]:
        """Its exit code and the end of its stderr; a signal counts negative. Raises LinkLost."""
        with self._connection._explained():
            self._connection._wait(self._process.wait_closed())
            self._draining.result()
        if self._process.returncode is None:  # the channel was cut before its end
            raise self._connection.lost()
        return self._process.returncode, self._stderr.decode("utf-8", "replace")


def _keep_quiet(loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
    """What the library's own tasks leave behind when a link breaks: whoever used the link has been told already."""
    logging.getLogger(__name__).debug("%s: %r", context.get("message"), context.get("exception"))


class _Witness(asyncssh.SSHClient):
    """Remembers the host key that was shown and is not known; it never accepts one."""

    def __init__(self) -> None:
        self.key: asyncssh.SSHKey | None = None

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        self.key = key
        return False

    def validate_host_ca_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        self.key = key
        return False


async def _open(
    address: Address,
    identity: Path | None,
    patience: Patience,
    links: list[asyncssh.SSHClientConnection],
    relays: list[subprocess.Popen[bytes]],
) -> None:
    """Open the link to `address` as the last one of `links`, those of its ProxyJump before it.

    relays: gets the processes of a ProxyCommand.
    """
    settings = _settings(address)
    jumps = settings.config.get("ProxyJump")
    if isinstance(jumps, str) and jumps.lower() != "none":
        for jump in jumps.split(","):
            await _open(refusals.parse_jump(jump), None, patience, links, relays)
    known_files = tuple(_known_files(settings))
    place = refusals.Place(address=address, host=settings.host, port=settings.port, known_files=known_files)
    try:
        known = asyncssh.read_known_hosts([str(path) for path in known_files if path.is_file()])
        keys = _keys(settings, identity)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"SSH cannot be set up for {address.shown}: {first_line(error)}", "correct that file"
        ) from error
    expected = known.match(settings.host_key_alias or place.host, "", place.known_port)[0]
    witness = _Witness()

    async def attempt(host_key_algorithms: str | tuple[()]) -> asyncssh.SSHClientConnection:
        return await asyncssh.connect(
            address.host,
            address.port or (),
            username=address.user or (),
            tunnel=links[-1] if links else None,
            proxy_command=None,
            sock=None if links else _relayed(settings, relays),
            client_factory=lambda: witness,
            client_keys=[str(key) for key in keys],  # none: the usual files of ~/.ssh
            ignore_encrypted=True,
            known_hosts=known,
            server_host_key_algs=host_key_algorithms,
            x509_trusted_certs=None,
            preferred_auth="publickey",
            password_auth=False,
            kbdint_auth=False,
            host_based_auth=False,
            agent_forwarding=False,
            x11_forwarding=False,
            connect_timeout=patience.connect_seconds,
            login_timeout=patience.connect_seconds,
            keepalive_interval=patience.keepalive_seconds,
            keepalive_count_max=patience.keepalive_count,
        )

    try:
        try:
            links.append(await attempt(()))
        except (asyncssh.KeyExchangeFailed, asyncssh.ConnectionLost, ConnectionResetError):
            # Asked for the known kinds of key only, a board that has none of them hangs up: see what it has instead.
            if not expected or witness.key is not None:
                raise
            links.append(await attempt("default"))
    except (asyncssh.Error, OSError, ValueError, asyncio.TimeoutError) as error:
        raise _refusal(error, place, patience, settings, keys, expected, witness.key) from error


def _relayed(
    settings: asyncssh.SSHClientConnectionOptions, relays: list[subprocess.Popen[bytes]]
) -> socket.socket | None:
    """This end of a ProxyCommand; None where there is none.

    The library would start it too, but leaves it to a loop that is closed by then to learn of its end. It has a session
    of its own, so that Ctrl-C does not cut the link over which the build is to be stopped.
    """
    command = settings.proxy_command
    if not command:
        return None
    ours, theirs = socket.socketpair()
    with theirs:
        end = theirs.fileno()
        relays.append(subprocess.Popen(list(command), stdin=end, stdout=end, start_new_session=True))
    ours.setblocking(False)
    return ours


def _refusal(
    error: Exception,
    place: refusals.Place,
    patience: Patience,
    settings: asyncssh.SSHClientConnectionOptions,
    keys: Sequence[Path],
    expected: Sequence[asyncssh.SSHKey],
    shown: asyncssh.SSHKey | None,
) -> EdgeslimError:
    """What a failed attempt to connect means. expected: the board's keys in known_hosts; shown: what it has shown."""
    if isinstance(error, socket.gaierror):
        return refusals.no_such_name(place, error)
    if isinstance(error, ConnectionRefusedError):
        return refusals.nobody_listens(place)
    if isinstance(error, (TimeoutError, asyncio.TimeoutError)):
        return refusals.no_answer(place, patience.connect_seconds)
    if isinstance(error, asyncssh.HostKeyNotVerifiable) and "revoked" in str(error):
        return refusals.revoked_host(place)
    if isinstance(error, asyncssh.HostKeyNotVerifiable) and shown is not None:
        kind, fingerprint = shown.get_algorithm(), shown.get_fingerprint()
        if expected:
            return refusals.changed_host(place, kind, fingerprint, [key.get_fingerprint() for key in expected])
        return refusals.unknown_host(place, kind, fingerprint)
    if isinstance(error, asyncssh.PermissionDenied):
        has_agent = bool(settings.config.get("IdentityAgent") or os.environ.get("SSH_AUTH_SOCK"))
        return refusals.key_refused(place, str(settings.username), keys or _default_keys(), has_agent)
    return refusals.not_ssh(place, first_line(error))


def _settings(address: Address) -> asyncssh.SSHClientConnectionOptions:
    """What ~/.ssh/config says of the board; its keys are not loaded yet."""
    try:
        return asyncssh.SSHClientConnectionOptions(
            config=(),  # the usual file
            host=address.host,
            port=address.port or (),
            username=address.user or (),
            client_keys=None,
            tunnel=None,
            x509_trusted_certs=None,
        )
    except (OSError, ValueError, asyncssh.Error) as error:
        raise ConfigError(
            f"the SSH configuration of {address.shown} cannot be used: {first_line(error)}", "correct ~/.ssh/config"
        ) from error


def _known_files(settings: asyncssh.SSHClientConnectionOptions) -> list[Path]:
    own = settings.config.get("UserKnownHostsFile", ["~/.ssh/known_hosts", "~/.ssh/known_hosts2"])
    common = settings.config.get("GlobalKnownHostsFile", ["/etc/ssh/ssh_known_hosts"])
    names = [name for files in (own, common) if isinstance(files, list) for name in files]
    return [Path(name).expanduser() for name in names]


def _keys(settings: asyncssh.SSHClientConnectionOptions, identity: Path | None) -> list[Path]:
    """The key files to try: the one that was named, or those of the configuration that are there."""
    if identity is not None:
        path = identity.expanduser()
        if not path.is_file():
            raise FileNotFoundError(f"there is no key at {path}")
        return [path]
    named = settings.config.get("IdentityFile", [])
    paths = [Path(name).expanduser() for name in named] if isinstance(named, list) else []
    return [path for path in paths if path.is_file()]


def _default_keys() -> list[Path]:
    found = [Path("~/.ssh", f"id_{kind}").expanduser() for kind in ("ed25519", "ecdsa", "rsa")]
    return [path for path in found if path.is_file()]
