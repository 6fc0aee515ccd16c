"""Copies that go on where they stopped: a bundle to the board, engines back.

A file is copied into a part beside its place and renamed when its hash is right. Where a part is found, its hash is
compared with that of as many bytes of the original: equal, and the copy goes on behind it; not equal, and it begins
anew. What is there already with the right hash is not copied at all.

The bytes go over SFTP, or where the sshd has none through the stdin and stdout of a program there.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgeslim import atomic
from edgeslim.errors import DeviceError, EngineError
from edgeslim.progress import Progress
from edgeslim.schema import JsonValue

from .board import Board, Found, Weight
from .connection import LinkLost, Refused
from .pieces import Piece, Pieces
from .progress import Copying, shown_bytes
from .workstation import part_file, taking_turns

Way = Literal["sftp", "exec"]
_BLOCK = 1 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_TIGHT = 4 * _BLOCK
"""SFTP calls a full disk just a failure: with fewer free bytes than this, that is what it was."""
ENGINE_SHARE = 1.0
"""Room that is asked for the engine, as a share of the model: an fp32 engine has about its weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """What a copy moved, in bytes."""

    files: int
    moved_bytes: int
    resumed_bytes: int
    """Bytes of half-copied files that an earlier copy had brought."""
    there_bytes: int
    """Bytes of files that were there already."""
    way: Way


def send(board: Board, pieces: Pieces, folder: str, owner: str, free_bytes: int, progress: Progress) -> Transfer:
    """Copy a bundle's files into `folder` on the board, as far as they are not there.

    free_bytes: what is free there. owner: names the parts of this workstation.
    Raises DeviceError (board full, link lost), BundleError (a file here is damaged).
    """
    places = [(f"{folder}/{piece.name}", f"{folder}/{piece.name}.{owner}.part") for piece in pieces.files]
    asked: list[dict[str, JsonValue]] = [
        {"path": path, "part": part, "bytes": piece.size, "sha256": piece.sha256}
        for piece, (path, part) in zip(pieces.files, places)
    ]
    try:
        found = board.survey(asked)
    except Refused as error:
        raise DeviceError(
            f"{board.shown}: what is in {folder} cannot be read: {error}",
            "look at its permissions, remove it, or name another folder with --remote-dir",
        ) from error
    missing = sum(piece.size - state.length for piece, state in zip(pieces.files, found) if not state.there)
    _check_space(board, folder, missing, int(pieces.model_bytes * ENGINE_SHARE), free_bytes)
    way: Way = "sftp" if board.connection.has_sftp() else "exec"
    told = Copying(progress, f"to {board.shown}", missing)
    moved = resumed = 0
    try:
        for piece, state, (path, part) in zip(pieces.files, found, places):
            if not state.there:
                keep = _send_piece(board, piece, state, path, part, way, told)
                moved, resumed = moved + piece.size - keep, resumed + keep
    except LinkLost as error:
        raise LinkLost(
            f"the link to {board.shown} was lost while {shown_bytes(missing)} were copied to {folder}; "
            "what has arrived is kept",
            "run the same command again: it goes on from there",
        ) from error
    except Refused as error:
        raise _refused(board, error, folder, missing) from error
    there = sum(piece.size for piece, state in zip(pieces.files, found) if state.there)
    return Transfer(files=len(places), moved_bytes=moved, resumed_bytes=resumed, there_bytes=there, way=way)


def _check_space(board: Board, folder: str, missing: int, engine: int, free: int) -> None:
    if missing + engine > free:
        raise DeviceError(
            f"{board.shown}: {folder} has {shown_bytes(free)} free; {shown_bytes(missing)} of the bundle are to be "
            f"copied, and an engine needs about {shown_bytes(engine)}",
            "free some space there, or name a folder on a larger disk with --remote-dir",
        )


def _send_piece(board: Board, piece: Piece, state: Found, path: str, part: str, way: Way, told: Copying) -> int:
    """Copy one file; how many bytes of an earlier copy were used."""
    data = piece.load()
    keep = state.length if 0 < state.length <= piece.size else 0
    if keep and hashlib.sha256(data[:keep]).hexdigest() != state.prefix:
        keep = 0
    board.prepare(part, keep)
    blocks = _told_blocks(data, keep, told)
    if way == "exec":
        board.append(part, keep, blocks)
    else:
        offset = keep
        with board.connection.file(part, write=True) as file:
            for block in blocks:
                file.write(block, offset)
                offset += len(block)
    seen = board.settle(path, part, piece.sha256)
    if seen != piece.sha256:
        raise DeviceError(
            f"{board.shown}: {path} arrived with SHA-256 {seen} instead of {piece.sha256}, and was removed",
            "run it again; if it happens again, look at the board's disk and memory",
        )
    return keep


def _told_blocks(data: bytes, start: int, told: Copying) -> Iterator[bytes]:
    for offset in range(start, len(data), _BLOCK):
        block = data[offset : offset + _BLOCK]
        yield block
        told.add(len(block))


def _refused(board: Board, error: Refused, folder: str, missing: int) -> DeviceError:
    try:
        free = board.free_bytes(folder)
    except Refused:
        free = 2 * _TIGHT  # it does not say even that: then it is not known to be full
    if error.number in _FULL or (error.number == 0 and free < min(_TIGHT, max(missing, 1))):
        return DeviceError(
            f"{board.shown}: the disk of {folder} became full during the copy ({shown_bytes(free)} free); what has "
            "arrived is kept",
            "free some space there and run the same command again: it goes on from there",
        )
    return DeviceError(
        f"{board.shown}: {folder} cannot be written: {error}",
        "look at its permissions, or name another folder with --remote-dir",
    )


def fetch(board: Board, path: str, weight: Weight, to: Path, progress: Progress) -> Transfer:
    """Copy one file of the board to `to`, which is replaced as a whole or not at all.

    weight: size and hash that the board states. Raises DeviceError (link lost), EngineError (another hash), OSError.
    """
    way: Way = "sftp" if board.connection.has_sftp() else "exec"
    if to.is_file() and _sha256(to) == weight.sha256:
        return Transfer(files=1, moved_bytes=0, resumed_bytes=0, there_bytes=weight.bytes, way=way)
    part = part_file(weight.sha256)
    with taking_turns(f"fetching {weight.sha256}", progress):
        try:
            keep = _kept(board, path, part, weight)
            told = Copying(progress, f"from {board.shown}", weight.bytes - keep)
            _receive(board, path, part, keep, weight.bytes, way, told)
        except LinkLost as error:
            raise LinkLost(
                f"the link to {board.shown} was lost while {path} was fetched ({shown_bytes(weight.bytes)})",
                "run the same command again: the engine is built, and the copy goes on from where it stopped",
            ) from error
        except Refused as error:
            raise DeviceError(f"{board.shown}: {path} cannot be read: {error}", "run it again") from error
        except OSError as error:
            error.filename = error.filename or str(part)  # a full disk here does not know it
            raise
        data = part.read_bytes()
        seen = hashlib.sha256(data).hexdigest()
        if seen != weight.sha256:
            part.unlink()
            raise EngineError(
                f"{board.shown}: {path} arrived with SHA-256 {seen}, there it has {weight.sha256}; it was not kept",
                "run it again",
            )
        atomic.write_bytes(to, data)
        part.unlink()
    return Transfer(files=1, moved_bytes=weight.bytes - keep, resumed_bytes=keep, there_bytes=0, way=way)


def _kept(board: Board, path: str, part: Path, weight: Weight) -> int:
    """How many bytes of `part` are a beginning of the file there; the rest of it is cut off."""
    keep = part.stat().st_size if part.is_file() else 0
    if keep > weight.bytes or (keep and board.weigh([path], keep)[0].sha256 != _sha256(part)):
        keep = 0
    with part.open("ab") as file:
        file.truncate(keep)
    return keep


def _receive(board: Board, path: str, part: Path, offset: int, size: int, way: Way, told: Copying) -> None:
    """Append what is behind byte `offset`, and no more than makes `size` bytes: a file may grow, or never end."""
    left = size - offset
    with part.open("ab") as here:
        for block in board.read(path, offset) if way == "exec" else _sftp_blocks(board, path, offset):
            here.write(block[:left])
            told.add(len(block[:left]))
            left -= len(block)
            if left < 0:
                raise EngineError(
                    f"{board.shown}: {path} has more than the {size} bytes that the board states", "run it again"
                )


def _sftp_blocks(board: Board, path: str, offset: int) -> Iterator[bytes]:
    with board.connection.file(path, write=False) as file:
        while block := file.read(_BLOCK, offset):
            yield block
            offset += len(block)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
