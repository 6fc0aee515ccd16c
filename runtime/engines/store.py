"""The folder of engines beside a bundle: an engine and its record each, complete or not there at all.

    net.bundle
    net.bundle.engines/fp16-sm87-1f0c....engine      the engine, as TensorRT serialised it
    net.bundle.engines/fp16-sm87-1f0c....layers      what TensorRT says of its layers, JSON, once it was loaded
    net.bundle.engines/fp16-sm87-1f0c....json        its record, written last: what has none does not count

A bundle is never changed by building, so it can lie on a read-only disk and be hashed, copied and signed; engines
belong to the device. Hashes show damage, not authorship: TensorRT runs what an engine file says, so use engines that
were built here or came over a channel you trust.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from edgeslim.atomic import write_bytes, write_text
from edgeslim.errors import EngineError
from edgeslim.lock import hold
from edgeslim.schema import dumps, from_json

from .record import SCHEMA, EngineRecord, EngineSpec

SUFFIX = ".engines"
ENGINE = ".engine"
RECORD = ".json"
LAYERS = ".layers"


def engines_folder(bundle: str | os.PathLike[str]) -> Path:
    """Where the engines of a bundle are kept unless told otherwise: beside it."""
    path = Path(os.path.abspath(bundle))
    return path.with_name(path.name + SUFFIX)


def engines_in(
    bundle: str | os.PathLike[str], folder: str | os.PathLike[str] | None = None
) -> tuple[StoredEngine, ...]:
    """The engines of a bundle, whole or not, in the folder beside it or in another."""
    return EngineStore(engines_folder(bundle) if folder is None else Path(folder)).engines()


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEngine:
    """An engine on disk. path: the engine file."""

    path: Path
    record: EngineRecord

    @property
    def layers(self) -> str | None:
        """TensorRT's account of the engine's layers, JSON; None where the engine was never loaded."""
        try:
            return self.path.with_suffix(LAYERS).read_text()
        except OSError:
            return None

    def read(self) -> bytes:
        """The engine's bytes. Raises EngineError if they are not the ones that were written."""
        try:
            data = self.path.read_bytes()
        except OSError as error:
            raise EngineError(f"{self.path} cannot be read: {error.strerror}", "build it again") from error
        entry = self.record.engine
        if len(data) != entry.bytes or hashlib.sha256(data).hexdigest() != entry.sha256:
            raise EngineError(
                f"{self.path} has {len(data)} bytes, which are not the {entry.bytes} bytes that its record names",
                "it is truncated, or belongs to another record: delete it and run `edgeslim build` again",
            )
        return data


class EngineStore:
    """The engines in one folder, which is made when the first is put there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, spec: EngineSpec) -> Path:
        """Where the engine of `spec` is, or would be."""
        return self.folder / f"{spec.precision}-{spec.where}-{spec.key[:16]}{ENGINE}"

    def find(self, spec: EngineSpec) -> StoredEngine | None:
        """The engine of exactly this spec, None where there is none. Raises EngineError for a damaged record."""
        path = self.path(spec)
        if not path.with_suffix(RECORD).is_file():
            return None
        record = _read_record(path)
        if record.key != spec.key:
            raise EngineError(
                f"{path} is, by its record, an engine in {record.spec.precision} for {record.spec.where} by "
                f"{record.spec.backend} {record.spec.version} that has got another one's name",
                "delete it and run `edgeslim build` again",
            )
        return StoredEngine(path=path, record=record)

    def engines(self) -> tuple[StoredEngine, ...]:
        """All engines with a readable record, by name. Damaged ones are left out: they can only be built again."""
        found = []
        for path in sorted(self.folder.glob(f"*{ENGINE}")):
            with suppress(EngineError):
                found.append(StoredEngine(path=path, record=_read_record(path)))
        return tuple(found)

    def put(self, engine: bytes, record: EngineRecord, layers: str | None = None) -> StoredEngine:
        """Keep an engine with its record and its layers; what was there under the same key is replaced.

        Raises EngineError where the disk is full or the folder cannot be written: nothing half-written stays.
        """
        path = self.path(record.spec)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            path.with_suffix(RECORD).unlink(missing_ok=True)  # between the two writes the pair would not fit
            write_bytes(path, engine)
            if layers is not None:
                write_text(path.with_suffix(LAYERS), layers)
            write_text(path.with_suffix(RECORD), dumps(record))
        except OSError as error:
            with suppress(OSError):
                path.unlink(missing_ok=True)
            raise EngineError(
                f"the engine could not be written to {self.folder}: {error.strerror or error}",
                "free some space, or choose another folder with --cache",
            ) from error
        return StoredEngine(path=path, record=record)

    @contextmanager
    def building(self, spec: EngineSpec, when_taken: Callable[[], None]) -> Iterator[None]:
        """Be the only process that builds this engine; `when_taken` is told where another does, which is waited for.

        Raises EngineError for a folder that cannot be written.
        """
        with ExitStack() as stack:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(hold(self.folder / f".{spec.key[:16]}.lock", when_taken=when_taken))
                self._sweep(spec)
            except OSError as error:
                raise EngineError(
                    f"engines cannot be kept in {self.folder}: {error.strerror or error}",
                    "choose another folder with --cache",
                ) from error
            yield

    def _sweep(self, spec: EngineSpec) -> None:
        """Remove what killed processes have left half written of this engine; nobody else writes it now."""
        stem = self.path(spec).stem
        for left in self.folder.iterdir():
            if any(left.name.startswith(f".{stem}{suffix}.") for suffix in (ENGINE, LAYERS, RECORD)):
                left.unlink(missing_ok=True)


def _read_record(path: Path) -> EngineRecord:
    place = path.with_suffix(RECORD)
    try:
        table = json.loads(place.read_bytes())
        seen = table.get("schema") if isinstance(table, dict) else None
        if isinstance(seen, int) and seen > SCHEMA:
            raise EngineError(
                f"{place} has schema {seen}, this edgeslim reads up to {SCHEMA}", "upgrade edgeslim, or build again"
            )
        return from_json(EngineRecord, table)
    except (OSError, ValueError, OverflowError, RecursionError) as error:  # SchemaError is a ValueError
        raise EngineError(f"{place} is no record of an engine: {error}", "delete it and build again") from error
