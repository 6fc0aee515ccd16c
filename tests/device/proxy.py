"""A real TCP proxy that ruins a link: it cuts it, or goes silent, after so many bytes."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from .sshd import HOST

Direction = Literal["up", "down"]


@dataclass(slots=True, kw_only=True)
class Proxy:
    """Forwards to `target` until `limit` bytes went `direction` (up: to the board), then cuts or freezes the link."""

    target: int
    port: int = 0
    limit: int | None = None
    direction: Direction = "up"
    freeze: bool = False
    cuts: int = 0
    when: Callable[[], bool] | None = None
    """Cuts as soon as this says so, whatever went over the link."""
    _passed: int = 0
    _ended: bool = False
    _partners: dict[socket.socket, tuple[socket.socket, Direction]] = field(default_factory=dict)
    _unread: list[socket.socket] = field(default_factory=list)

    def reset(self, limit: int | None = None, direction: Direction = "up") -> None:
        """Count from zero again, towards another limit, or for good."""
        self._passed, self.limit, self.direction, self.when, self.freeze = 0, limit, direction, None, False

    def serve(self, listener: socket.socket) -> None:
        """Forward until the block of `proxied` ends."""
        with selectors.DefaultSelector() as selector:
            selector.register(listener, selectors.EVENT_READ)
            while not self._ended:
                for key, _ in selector.select(0.02):
                    if key.fileobj is listener:
                        self._accept(listener, selector)
                    elif isinstance(key.fileobj, socket.socket) and key.fileobj in self._partners:
                        self._forward(key.fileobj, selector)
                if self.when is not None and self._partners and self.when():
                    self._cut(selector)
            self._cut(selector, counted=False)

    def _accept(self, listener: socket.socket, selector: selectors.BaseSelector) -> None:
        client, _ = listener.accept()
        board = socket.create_connection((HOST, self.target))
        self._partners[client], self._partners[board] = (board, "up"), (client, "down")
        for side in (client, board):
            selector.register(side, selectors.EVENT_READ)

    def _forward(self, side: socket.socket, selector: selectors.BaseSelector) -> None:
        partner, direction = self._partners[side]
        try:
            data = side.recv(16384)
        except OSError:
            data = b""
        if not data:
            self._cut(selector, counted=False)
            return
        if direction == self.direction:
            self._passed += len(data)
        if self.limit is not None and self._passed > self.limit:
            if self.freeze:
                self.cuts += 1
                for quiet in list(self._partners):
                    selector.unregister(quiet)  # open, and nobody reads any more
                self._partners.clear()
                self._unread.extend([side, partner])
                return
            self._cut(selector)
            return
        with contextlib.suppress(OSError):
            partner.sendall(data)

    def _cut(self, selector: selectors.BaseSelector, counted: bool = True) -> None:
        self.cuts += counted
        for side in list(self._partners):
            selector.unregister(side)
            # Closed at once, a socket takes with it what it has forwarded and nobody has read yet.
            with contextlib.suppress(OSError):
                side.shutdown(socket.SHUT_WR)
            self._unread.append(side)
        self._partners.clear()
        if self._ended:
            for side in self._unread:
                side.close()

    def end(self) -> None:
        """Stop serving."""
        self._ended = True


@contextlib.contextmanager
def proxied(target: int) -> Iterator[Proxy]:
    """A proxy to the port `target` of this machine."""
    with socket.create_server((HOST, 0)) as listener:
        proxy = Proxy(target=target, port=int(listener.getsockname()[1]))
        thread = threading.Thread(target=proxy.serve, args=(listener,))
        thread.start()
        try:
            yield proxy
        finally:
            proxy.end()
            thread.join()
