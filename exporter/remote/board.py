"""The board as one object: what it is asked and what it answers, over the program that is sent to it (`on_board.py`).

Everything that comes back is checked before it is believed: an answer is one JSON object of a known form, and text
for people loses its control characters, which could otherwise redraw a terminal.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import shlex
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from edgeslim.errors import DeviceError, EngineError
from edgeslim.schema import JsonValue, SchemaError, from_json

from .connection import Connection, Process, Refused
from .on_board import MARK

T = TypeVar("T")
OLDEST_PYTHON = (3, 10)
_LINE_LIMIT = 64 << 20
_BLOCK = 1 << 18
_NOT_FOUND = (126, 127)
_CONTROL = re.compile(
    r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""Also what turns the direction of writing, and halves of characters, which nothing can print."""
_VERSION = re.compile(r"[0-9A-Za-z.+!_-]{1,80}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What a first look at the board shows. `folder` is absolute; `edgeslim` None where it cannot be imported."""

    folder: str
    python: str
    edgeslim: str | None
    problem: str
    free_bytes: int

    def __post_init__(self) -> None:
        if not self.folder.startswith("/") or clean(self.folder) != self.folder or "\n" in self.folder:
            raise ValueError("folder is no absolute path in plain signs")
        for version in (self.python, self.edgeslim):
            if version is not None and not _VERSION.fullmatch(version):
                raise ValueError("a version that is none")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One file there: complete, or `length` bytes of its part whose SHA-256 is `prefix`."""

    there: bool
    length: int
    prefix: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Weight:
    """Size in bytes and SHA-256 of a file there; -1 and nothing where it is missing."""

    bytes: int
    sha256: str

    def __post_init__(self) -> None:
        # The hash names a file on this side.
        if self.bytes < -1 or not (_SHA256.fullmatch(self.sha256) if self.bytes >= 0 else self.sha256 == ""):
            raise ValueError("a size or a hash that is none")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A build that is over: its exit code, None where it was cut off (the board was switched off), and its stdout."""

    exit: int | None
    stdout: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Surveyed:
    files: tuple[Found, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Weighed:
    files: tuple[Weight, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Started:
    attached: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stopped:
    ended: bool
    forced: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Length:
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Hash:
    sha256: str

    def __post_init__(self) -> None:
        if not _SHA256.fullmatch(self.sha256):
            raise ValueError("a hash that is none")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Free:
    free_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Doctor:
    exit: int
    stdout: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Nothing:
    pass


class Board:
    """A board behind an open connection. `python` is the interpreter there that has edgeslim."""

    def __init__(self, connection: Connection, python: str) -> None:
        self.connection, self.python = connection, python
        self.shown = connection.shown
        self._talk: tuple[Process, _Reader] | None = None
        """One program there that answers one question after the other: to start Python takes a board long."""

    def look(self, folder: str | None) -> Sight:
        """Is Python there, and the right edgeslim? Raises DeviceError with the line that installs it."""
        sight = self._ask(Sight, "look", folder=folder, python=self.python)
        own = importlib.metadata.version("edgeslim")
        pip = f'{self.connection.ssh} {quoted(self.python)} -m pip install "edgeslim[tensorrt]=={own}"'
        if sight.edgeslim is None:
            raise DeviceError(
                f"{self.shown}: {self.python} (Python {sight.python}) cannot import edgeslim: {clean(sight.problem)}",
                f"install it there: {pip}; or name the Python that has it with --remote-python",
            )
        if sight.edgeslim.split(".")[:2] != own.split(".")[:2]:
            raise DeviceError(
                f"{self.shown} has edgeslim {clean(sight.edgeslim)}, this machine has {own}; the first two numbers "
                "must be the same",
                f"install the same there: {pip}",
            )
        return sight

    def survey(self, files: Sequence[Mapping[str, JsonValue]]) -> tuple[Found, ...]:
        """How much of each file (path, part, bytes, sha256) is there."""
        found = self._ask(_Surveyed, "survey", files=list(map(dict, files))).files
        self._check_count(len(found), len(files))
        return found

    def prepare(self, part: str, keep: int) -> None:
        """Make `part` `keep` bytes long. Raises Refused."""
        self._ask(_Nothing, "prepare", part=part, keep=keep)

    def settle(self, path: str, part: str, sha256: str) -> str:
        """Give `part` its name if its hash is right; the hash it has."""
        return self._ask(_Hash, "settle", path=path, part=part, sha256=sha256).sha256

    def weigh(self, paths: Sequence[str], length: int | None = None) -> tuple[Weight, ...]:
        """Size of files, and the hash of them or of their first `length` bytes."""
        weights = self._ask(_Weighed, "weigh", files=[{"path": path, "length": length} for path in paths]).files
        self._check_count(len(weights), len(paths))
        return weights

    def _check_count(self, count: int, asked: int) -> None:
        if count != asked:
            raise self._garbled(f"{count} answers to {asked} questions".encode())

    def free_bytes(self, folder: str) -> int:
        """Free space where `folder` is."""
        return self._ask(_Free, "free", folder=folder).free_bytes

    def doctor(self, folder: str) -> tuple[int, str]:
        """Exit code and stdout of `edgeslim doctor --json` there."""
        said = self._ask(_Doctor, "doctor", folder=folder, python=self.python)
        return said.exit, said.stdout

    def start(self, job: str, arguments: Sequence[str]) -> bool:
        """Begin a build; True where it was running already."""
        return self._ask(_Started, "start", job=job, python=self.python, arguments=list(arguments)).attached

    def stop(self, job: str, seconds: int) -> bool:
        """End a build, by force after `seconds`; False where it still runs."""
        return self._ask(_Stopped, "stop", job=job, seconds=seconds).ended

    def follow(self, job: str, told: Callable[[str], None]) -> Ended:
        """Tell every line of a build's log as it comes, and how it ended. Raises LinkLost."""
        process = self._send("follow", job=job)
        process.end_input()
        for answer in self._answers(self._reader(process)):
            if "line" in answer:
                told(clean(str(answer["line"])))
            else:
                return self._done(Ended, answer)
        raise self._silent(process)

    def append(self, part: str, offset: int, blocks: Iterator[bytes]) -> None:
        """Write behind byte `offset` of `part`, without SFTP. Raises Refused, LinkLost."""
        process = self._send("append", part=part, offset=offset)
        for block in blocks:
            if not process.write(block):
                break  # it has stopped reading, and its answer says why
        process.end_input()
        self._last(_Length, process)

    def read(self, path: str, offset: int) -> Iterator[bytes]:
        """The bytes of a file from `offset` on, without SFTP. Raises Refused, LinkLost."""
        process = self._send("read", path=path, offset=offset)
        process.end_input()
        reader = self._reader(process)
        answer = next(self._answers(reader), None)
        if answer is None:
            raise self._silent(process)
        if "bytes" not in answer:
            self._done(_Length, answer)  # raises what was refused
        yield from reader.rest()
        process.wait()

    def _ask(self, form: type[T], work: str, **request: object) -> T:
        # Whoever is interrupted between question and answer must not leave the answer to the next question.
        talk, self._talk = self._talk, None
        if talk is None:
            process = self._send(work, **request)
            talk = process, self._reader(process)
        else:
            talk[0].write(_line(work, request))
        answer = next(self._answers(talk[1]), None)
        if answer is None:
            raise self._silent(talk[0])
        self._talk = talk
        return self._done(form, answer)

    def _last(self, form: type[T], process: Process) -> T:
        last = deque(self._answers(self._reader(process)), maxlen=1)
        if not last:
            raise self._silent(process)
        return self._done(form, last[0])

    def _reader(self, process: Process) -> _Reader:
        return _Reader(process, self._garbled)

    def _send(self, work: str, **request: object) -> Process:
        source = Path(__file__).with_name("on_board.py").read_bytes()
        # No newline, backslash or exclamation mark: login shells disagree on these. The version comes first, for an
        # older Python cannot even read the program.
        code = (
            f'import sys; v = sys.version_info[:2]; v >= {OLDEST_PYTHON} or sys.exit("edgeslim-python %d.%d" % v); '
            f"exec(sys.stdin.buffer.read({len(source)}))"
        )
        process = self.connection.start(f"{quoted(self.python)} -c {shlex.quote(code)}")
        process.write(source + _line(work, request))
        return process

    def _answers(self, reader: _Reader) -> Iterator[dict[str, JsonValue]]:
        while (line := reader.line()) is not None:
            # A greeting without a final newline stands in the same line.
            _, mark, text = line.partition(MARK)
            if mark:
                try:
                    answer = json.loads(text)
                except (ValueError, RecursionError) as error:
                    raise self._garbled(line) from error
                if not isinstance(answer, dict):
                    raise self._garbled(line)
                yield answer

    def _done(self, form: type[T], answer: Mapping[str, JsonValue]) -> T:
        if "refused" in answer:
            number = answer.get("errno")
            path, reason = clean(str(answer.get("path", ""))), clean(str(answer["refused"]))
            raise Refused(reason, number if isinstance(number, int) else 0, path)
        try:
            return from_json(form, answer.get("done"))
        except SchemaError as error:
            raise self._garbled(json.dumps(answer).encode()) from error

    def _garbled(self, seen: bytes) -> EngineError:
        text = clean(seen[:200].decode("utf-8", "replace"))
        return EngineError(
            f"{self.shown} answered with something else than edgeslim's: {text!r}",
            f"see what a command prints there: {self.connection.ssh} {quoted(self.python)} -V",
        )

    def _silent(self, process: Process) -> DeviceError:
        """The error for a program that ended without an answer. Raises LinkLost where the link did."""
        code, text = process.wait()
        lines = [clean(line) for line in text.splitlines() if line.strip()] or ["nothing"]
        version = lines[-1].partition("edgeslim-python ")[2]
        if version:
            return DeviceError(
                f"{self.shown}: {self.python} is Python {version}; edgeslim needs {_dotted(OLDEST_PYTHON)} or newer",
                "name a newer one with --remote-python; on JetPack 5 there is none, and `edgeslim build "
                "--print-trtexec` gives the line to run there",
            )
        if code in _NOT_FOUND:
            return DeviceError(
                f"{self.shown}: there is no Python named {self.python!r} ({lines[-1]})",
                "install it there (sudo apt install python3), or name the right one with --remote-python",
            )
        return DeviceError(
            f"{self.shown}: {self.python} ended with code {code} and no answer; it said: {lines[-1]}",
            f"try it: {self.connection.ssh} {quoted(self.python)} -V",
        )


class _Reader:
    """Lines, then raw bytes, of a process's stdout."""

    def __init__(self, process: Process, garbled: Callable[[bytes], EngineError]) -> None:
        self._process, self._pending, self._garbled = process, bytearray(), garbled

    def line(self) -> bytes | None:
        """The next line without its end; None where there is none left. Raises EngineError for one without end."""
        seen = 0
        while (end := self._pending.find(b"\n", seen)) < 0:
            seen = len(self._pending)
            if seen >= _LINE_LIMIT:
                raise self._garbled(bytes(self._pending[:200]))  # whoever writes so is not waited for
            block = self._process.read(_BLOCK)
            if not block:
                return None  # what has no end is no answer
            self._pending += block
        line = bytes(self._pending[:end])
        del self._pending[: end + 1]
        return line

    def rest(self) -> Iterator[bytes]:
        """Everything that is left."""
        if self._pending:
            yield bytes(self._pending)
        while block := self._process.read(_BLOCK):
            yield block


def _line(work: str, request: Mapping[str, object]) -> bytes:
    return json.dumps({"work": work, **request}).encode() + b"\n"


def quoted(word: str) -> str:
    """A word for any login shell; a leading ~/ stays the home folder."""
    return '"$HOME"/' + shlex.quote(word[2:]) if word.startswith("~/") else shlex.quote(word)


def clean(text: str) -> str:
    """Text from elsewhere, without what is no sign to read other than tab and newline."""
    return _CONTROL.sub("", text)


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
