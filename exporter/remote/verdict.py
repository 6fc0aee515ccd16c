"""What a build on the board ended with, as the error that the same build would have raised here."""

from __future__ import annotations

import signal
from collections import deque

from edgeslim.errors import CertificateError, ConfigError, DeviceError, EngineError
from edgeslim.progress import Progress

from .board import Ended

_KEPT = 200
_USAGE = 2
_LAST_WORDS = 5


class LogTail:
    """Passes the lines of a build's log on as they come, and keeps the last ones for an error."""

    def __init__(self, shown: str, progress: Progress) -> None:
        self._shown, self._progress = shown, progress
        self._lines: deque[str] = deque(maxlen=_KEPT)

    def add(self, line: str) -> None:
        """One line, without its end."""
        self._lines.append(line)
        self._progress.note(f"{self._shown}: {line.removeprefix('note: ')}")

    def complaint(self) -> tuple[str, str]:
        """The last `error:` of the log and its `hint:`; where there is none, its last lines and nothing."""
        lines = list(self._lines)
        begins = [i for i, line in enumerate(lines) if line.startswith("error:")]
        if not begins:
            return " / ".join(lines[-_LAST_WORDS:]) or "it said nothing", ""
        text = "\n".join(lines[begins[-1] :]).removeprefix("error:")
        message, _, hint = text.partition("\nhint:")
        return message.strip(), hint.strip()


def judge(shown: str, ended: Ended, log: LogTail) -> None:
    """Raise the error of a build that did not end with 0."""
    if ended.exit == 0:
        return
    message, hint = log.complaint()
    if ended.exit is None:
        raise EngineError(
            f"{shown}: the build was cut off there without a result; its last words: {message}",
            "was the board switched off? run the same command again",
        )
    if ended.exit < 0:
        name = signal.Signals(-ended.exit).name if -ended.exit in set(signal.Signals) else str(-ended.exit)
        raise EngineError(
            f"{shown}: the build was ended by {name}; its last words: {message}",
            "SIGKILL usually means that memory ran out: see `dmesg` there, end other programs, or allow less workspace",
        )
    if ended.exit == CertificateError.exit_code:
        raise CertificateError(f"{shown}: {message}", hint or "see the log above")
    if ended.exit == _USAGE:
        if "No such command" in message:
            raise DeviceError(
                f"{shown}: the edgeslim there is too old: it has no verb `build`",
                "install the same version there as here",
            )
        raise ConfigError(
            f"{shown}: the build was not understood there: {message}", hint or "see `edgeslim build --help`"
        )
    raise EngineError(f"{shown}: {message}", hint or "see the log above")
