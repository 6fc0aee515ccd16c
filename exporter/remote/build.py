"""`build_remote`: copy a bundle to a board, build its engine there, bring engine and report back.

An engine belongs to the machine that built it, and a board is often too small to work on. So the board needs no more
than sshd and edgeslim; this side copies, starts the build there, shows its log as it comes, and fetches what it made.
The board runs

    <python> -m edgeslim build <folder>/bundles/<manifest's SHA-256> --cache <folder>/engines --json <arguments>

which answers with one JSON object on stdout, its log on stderr, and an exit code: 0 done, 1 something to fix, 2 wrong
usage, 3 a check failed. Every engine is compared with the hash that the build states, there and here.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from edgeslim import atomic
from edgeslim.errors import ConfigError, DeviceError, EngineError
from edgeslim.progress import Progress
from edgeslim.runtime.engines.store import ENGINE, RECORD
from edgeslim.schema import JsonValue, SchemaError, dumps, from_json

from .address import Address
from .board import Board, Sight, clean
from .connection import Connection, LinkLost, Patience, Refused
from .pieces import Pieces, read_pieces
from .progress import shown_bytes
from .transfer import Transfer, fetch, send
from .verdict import LogTail, judge
from .workstation import taking_turns, workstation_id

_GRACE_SECONDS = 5
"""How long an interrupted build may take to end by itself."""
_OWN = ("--cache", "--json", "--remote", "--remote-python", "--remote-dir", "--identity")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*")
_SIDECAR_LIMIT = 64 << 20
"""Bytes. A record has some thousand."""
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteEngine:
    """An engine that was built on the board, as it lies here."""

    engine: Path
    sidecar: Path
    sha256: str
    bytes: int
    precision: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteBuild:
    """What a build on a board gave."""

    address: str
    folder: str
    """Where edgeslim keeps its files on the board."""
    python: str
    edgeslim: str
    engines: tuple[RemoteEngine, ...]
    report: JsonValue
    """What `edgeslim doctor --json` said there; None where it failed."""
    answer: JsonValue
    """What the build printed, whole."""
    report_path: Path
    """A JSON file beside the engines with the two above."""
    attached: bool
    """The build had been begun by an earlier call, whose link was lost."""
    sent: Transfer
    fetched: tuple[Transfer, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Built:
    """One engine in the board's answer."""

    engine: str
    sidecar: str
    sha256: str
    bytes: int
    precision: str

    def __post_init__(self) -> None:
        for path in (self.engine, self.sidecar):
            if not path.startswith("/") or clean(path) != path or not _NAME.fullmatch(PurePosixPath(path).name):
                raise ValueError(f"{path!r:.200} is no absolute path of a plainly named file")
        if not _SHA256.fullmatch(self.sha256):
            raise ValueError(f"sha256 {self.sha256!r:.100} is none")
        engine, sidecar = PurePosixPath(self.engine).name, PurePosixPath(self.sidecar).name
        # They keep their names here, and must replace nothing that is no engine.
        if (
            not engine.endswith(ENGINE)
            or sidecar != engine.removesuffix(ENGINE) + RECORD
            or engine.startswith("board-")
        ):
            raise ValueError(f"{engine!r:.200} and {sidecar!r:.200} are no names of an engine and its record")


def build_remote(
    bundle: Path,
    address: Address,
    arguments: Sequence[str],
    cache: Path,
    progress: Progress,
    *,
    python: str = "python3",
    directory: str | None = None,
    identity: Path | None = None,
    patience: Patience | None = None,
) -> RemoteBuild:
    """Build the engines of `bundle` on the board at `address`; they end up in the folder `cache` here.

    arguments: more options for `edgeslim build`, as they are; paths in them are the board's. python: the interpreter
    there that has edgeslim. directory: the folder there, ~/.cache/edgeslim where it is not given. identity: a key file.

    Raises DeviceError (not reached, not let in, link lost, board full, something missing there), BundleError,
    ConfigError, EngineError (the build failed, its answer or a hash is wrong), CertificateError (a check failed there).
    """
    for argument in arguments:
        if argument.partition("=")[0] in _OWN:
            raise ConfigError(f"{argument!r} cannot be passed on to the board", "leave it out: edgeslim gives it there")
    pieces = read_pieces(bundle)
    owner = workstation_id()
    with Connection(address, identity=identity, patience=patience) as connection:
        board = Board(connection, python)
        sight = _looked(board, directory)
        folder = f"{sight.folder}/bundles/{pieces.manifest_sha256}"
        with taking_turns(f"copying to {address}", progress):
            sent = send(board, pieces, folder, owner, sight.free_bytes, progress)
        _tell(sent, board, progress)
        job = f"{sight.folder}/jobs/{_key(pieces, arguments, python, owner)}"
        words = ["build", folder, "--cache", f"{sight.folder}/engines", "--json", *arguments]
        answer, attached = _built(board, job, words, progress)
        engines, fetched = _brought(board, _engines(board, answer), cache, progress)
        report = _report(board, sight, progress)
    path = cache / f"board-{re.sub('[^A-Za-z0-9.-]', '_', address.host)}.json"
    about = {"address": str(address), "edgeslim": sight.edgeslim, "python": sight.python}
    atomic.write_text(path, dumps({**about, "doctor": report, "build": answer}))
    return RemoteBuild(
        address=str(address),
        folder=sight.folder,
        python=sight.python,
        edgeslim=str(sight.edgeslim),
        engines=engines,
        report=report,
        answer=answer,
        report_path=path,
        attached=attached,
        sent=sent,
        fetched=fetched,
    )


def _looked(board: Board, directory: str | None) -> Sight:
    try:
        return board.look(directory)
    except Refused as error:
        raise DeviceError(
            f"{board.shown}: the folder {directory or '~/.cache/edgeslim'} cannot be used: {error}",
            "name a folder that you may write with --remote-dir",
        ) from error


def _key(pieces: Pieces, arguments: Sequence[str], python: str, owner: str) -> str:
    """The name of this build on the board: whoever asks for the same one again meets it there."""
    text = json.dumps([pieces.manifest_sha256, list(arguments), python, owner])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _tell(sent: Transfer, board: Board, progress: Progress) -> None:
    if sent.way == "exec" and sent.moved_bytes:
        progress.note(f"{board.shown}: its sshd offers no SFTP; the bundle was copied through a command instead")
    if sent.resumed_bytes:
        progress.note(f"{board.shown}: {shown_bytes(sent.resumed_bytes)} of the bundle were there from an earlier copy")
    if not sent.moved_bytes and not sent.resumed_bytes:
        progress.note(f"{board.shown}: the bundle was there already")


def _built(board: Board, job: str, words: Sequence[str], progress: Progress) -> tuple[dict[str, JsonValue], bool]:
    """Run the build, or go on following one that runs; its answer, and whether it had been running."""
    log = LogTail(board.shown, progress)
    try:
        attached = board.start(job, words)
        if attached:
            progress.note(
                f"{board.shown}: this build is running there since an earlier call; its log from the beginning"
            )
        progress.stage(f"build on {board.shown}")
        ended = board.follow(job, log.add)
    except LinkLost as error:
        raise LinkLost(
            f"the link to {board.shown} was lost during the build, which goes on there by itself",
            f"run the same command again: it follows the build, or fetches what it made; its log there is {job}/stderr",
        ) from error
    except Refused as error:
        raise DeviceError(f"{board.shown}: the build cannot be started: {error}", "look at the space there") from error
    except KeyboardInterrupt:
        try:
            gone = board.stop(job, _GRACE_SECONDS)
        except (LinkLost, Refused):
            gone = False
        progress.note(
            f"{board.shown}: the build there " + ("was ended" if gone else "could not be ended, and may go on")
        )
        raise
    judge(board.shown, ended, log)
    try:
        answer = _parsed(ended.stdout)
    except ValueError as error:
        raise _garbage(board, f"{clean(ended.stdout)[:200]!r}") from error
    if not isinstance(answer, dict):
        raise _garbage(board, f"a {type(answer).__name__}")
    return answer, attached


def _parsed(text: str) -> JsonValue:
    """JSON from a board. Raises ValueError for what could not be written as JSON again."""
    try:
        parsed: JsonValue = json.loads(text)
        dumps(parsed)  # Infinity and NaN are none, and Python reads them
    except RecursionError as error:
        raise ValueError("too deep") from error
    return parsed


def _engines(board: Board, answer: Mapping[str, JsonValue]) -> tuple[_Built, ...]:
    """The engines of an answer, which may say more about each. Raises EngineError for anything odd."""
    listed = answer.get("engines")
    if not isinstance(listed, list) or not listed:
        raise _garbage(board, "an answer without engines")
    known = set(_Built.__dataclass_fields__)
    try:
        engines = tuple(
            from_json(
                _Built, {k: v for k, v in item.items() if k in known} if isinstance(item, dict) else item, f"$[{i}]"
            )
            for i, item in enumerate(listed)
        )
    except SchemaError as error:
        raise _garbage(board, clean(str(error))) from error
    names = [PurePosixPath(path).name for built in engines for path in (built.engine, built.sidecar)]
    if len(set(names)) < len(names):
        raise _garbage(board, f"the same name twice: {', '.join(names)}")
    return engines


def _garbage(board: Board, seen: str) -> EngineError:
    return EngineError(
        f"{board.shown}: the build ended well, but its answer is not that of `edgeslim build --json`: {seen}",
        "is it the same edgeslim there? see the log above",
    )


def _brought(
    board: Board, built: Sequence[_Built], cache: Path, progress: Progress
) -> tuple[tuple[RemoteEngine, ...], tuple[Transfer, ...]]:
    """Fetch engines and sidecars; a sidecar comes after its engine, so one that is here has its engine."""
    try:
        weights = board.weigh([path for one in built for path in (one.engine, one.sidecar)])
    except Refused as error:
        raise DeviceError(f"{board.shown}: what was built cannot be read: {error}", "run it again") from error
    engines, transfers = [], []
    for i, one in enumerate(built):
        engine, sidecar = weights[2 * i : 2 * i + 2]
        for path, weight in ((one.engine, engine), (one.sidecar, sidecar)):
            if weight.bytes < 0:
                raise EngineError(f"{board.shown}: the build names {path}, which is not there", "run it again")
        if sidecar.bytes > _SIDECAR_LIMIT:
            raise EngineError(
                f"{board.shown}: {one.sidecar} has {sidecar.bytes} bytes, a record at most {_SIDECAR_LIMIT}",
                "is it the same edgeslim there? see the log above",
            )
        if (engine.sha256, engine.bytes) != (one.sha256, one.bytes):
            raise EngineError(
                f"{board.shown}: {one.engine} has {engine.bytes} bytes and SHA-256 {engine.sha256}; the build said "
                f"{one.bytes} and {one.sha256}; it was not fetched",
                "remove it there and build again; if it happens again, look at the board's disk",
            )
        places = [cache / PurePosixPath(path).name for path in (one.engine, one.sidecar)]
        transfers.append(fetch(board, one.engine, engine, places[0], progress))
        transfers.append(fetch(board, one.sidecar, sidecar, places[1], progress))
        engines.append(
            RemoteEngine(
                engine=places[0], sidecar=places[1], sha256=one.sha256, bytes=one.bytes, precision=clean(one.precision)
            )
        )
    return tuple(engines), tuple(transfers)


def _report(board: Board, sight: Sight, progress: Progress) -> JsonValue:
    """The board's own report; a build is no worse for the lack of it."""
    try:
        code, text = board.doctor(sight.folder)
        report = _parsed(text) if code == 0 else None
    except (Refused, ValueError, DeviceError, EngineError):  # the engines are here: a lost link is no loss now
        report = None
    if report is None:
        progress.note(f"{board.shown}: `edgeslim doctor --json` gave no report there")
    return report
