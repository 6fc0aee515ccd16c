"""A device profile on disk: an SQLite file of what was observed, by device, and within it by net and by operator.

    devices      fingerprint
    operators    name, shapes, attributes, dtype
    nets         device, net -> latency, spread, reference work, when
    points       device, net, place -> operator, latency, spread, and which value of the net it computes

A net is known by its structure, not by its weights: latencies do not depend on those. An operator's latency is the
median over all places where it was seen, each scaled to one speed of the machine by the reference work beside it. A net
is one transaction: what an interrupted run has measured is there, and nothing of the net that it was at. It is sealed
by a digest of all that is said of it, so no plan is made from rows that were damaged. Files of several devices can be
merged, for nothing in one refers to another.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import sqlite3
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeslim.errors import DeviceError, first_line
from edgeslim.schema import SchemaError, dumps, loads, to_json

from .fingerprint import Fingerprint
from .observe import Node, Observation
from .operator import Operator

SCHEMA = 3
"""1: nets were not sealed. 2: nor was when they were measured."""
_TABLES = """
    CREATE TABLE devices (device TEXT PRIMARY KEY, fingerprint TEXT NOT NULL);
    CREATE TABLE operators (operator TEXT PRIMARY KEY, description TEXT NOT NULL);
    CREATE TABLE nets (device TEXT NOT NULL, net TEXT NOT NULL, latency_us REAL, spread REAL, reference_us REAL,
        runs INTEGER NOT NULL, digest TEXT NOT NULL, measured_at REAL NOT NULL,
        PRIMARY KEY (device, net)) WITHOUT ROWID;
    CREATE TABLE points (device TEXT NOT NULL, net TEXT NOT NULL, place INTEGER NOT NULL, value TEXT NOT NULL,
        operator TEXT NOT NULL, latency_us REAL, spread REAL, PRIMARY KEY (device, net, place)) WITHOUT ROWID;
    CREATE INDEX points_by_operator ON points (device, operator);
"""


_Whole = tuple[float | None, float | None, float | None, int]
"""latency_us, spread, reference_us, runs."""
_Point = tuple[str, str, float | None, float | None]
"""value, operator, latency_us, spread."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredNet:
    """One net as it stands in a profile. latency_us, spread, reference_us: None where only its operators are known."""

    nodes: tuple[tuple[str, str], ...]
    """(value, key of the operator), in the order in which they run."""
    latency_us: float | None
    spread: float | None
    reference_us: float | None

    def latency_at(self, reference_us: float) -> float | None:
        """What the whole net takes, in us, where the reference work takes this long."""
        if self.latency_us is None or self.reference_us is None:
            return None
        return self.latency_us * reference_us / self.reference_us


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorLatency:
    """latency_us: median over all places, at the reference speed.  spread: half the interquartile range, as a share."""

    latency_us: float
    spread: float
    places: int


class DeviceProfile:
    """An open profile. Make it with `open_profile`."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection
        self._closed = weakref.finalize(self, _close, connection)

    # --- devices -------------------------------------------------------------------------------------------

    @property
    def devices(self) -> tuple[Fingerprint, ...]:
        """Every device that something was measured on. Raises DeviceError for an entry that cannot be read."""
        found = []
        for digest, text in self._rows("SELECT device, fingerprint FROM devices ORDER BY device"):
            try:
                fingerprint = loads(Fingerprint, text)
            except (SchemaError, TypeError) as error:
                raise self._damaged(f"device {str(digest)[:12]}: {first_line(error)}") from error
            if fingerprint.digest != digest:
                raise self._damaged(f"device {str(digest)[:12]} is described as {fingerprint.short}")
            found.append(fingerprint)
        return tuple(found)

    def counts(self, device: Fingerprint) -> tuple[int, int]:
        """How many nets and how many different operators were measured on a device."""
        ((nets,),) = self._rows("SELECT COUNT(*) FROM nets WHERE device = ?", device.digest)
        ((operators,),) = self._rows(
            "SELECT COUNT(DISTINCT operator) FROM points WHERE device = ? AND latency_us IS NOT NULL", device.digest
        )
        return int(nets), int(operators)

    # --- writing -------------------------------------------------------------------------------------------

    def add(self, device: Fingerprint, net: str, observation: Observation) -> None:
        """Keep what was observed of a net, in place of what was known of it."""
        rows = list(zip(observation.nodes, observation.nodes_us, observation.nodes_spread))
        whole = (observation.latency_us, observation.spread, observation.reference_us, observation.runs)
        self._put(device, net, whole, rows)

    def add_structure(self, device: Fingerprint, net: str, nodes: Sequence[Node]) -> None:
        """Keep which operators a net has, all of which were measured elsewhere."""
        self._put(device, net, (None, None, None, 0), [(node, None, None) for node in nodes])

    def _put(
        self,
        device: Fingerprint,
        net: str,
        whole: _Whole,
        rows: Sequence[tuple[Node, float | None, float | None]],
    ) -> None:
        now = time.time()
        points = [(node.value, node.operator.key, us, own) for node, us, own in rows]
        digest = _seal(device.digest, net, whole, points, now)
        with self._errors("written"), self._connection:
            run = self._connection.execute
            run("INSERT OR IGNORE INTO devices VALUES (?, ?)", (device.digest, dumps(device)))
            run("DELETE FROM points WHERE device = ? AND net = ?", (device.digest, net))
            run(
                "INSERT OR REPLACE INTO nets VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (device.digest, net, *whole, digest, now),
            )
            for place, (node, latency_us, spread) in enumerate(rows):
                key = node.operator.key
                run("INSERT OR IGNORE INTO operators VALUES (?, ?)", (key, json.dumps(to_json(node.operator))))
                run(
                    "INSERT INTO points VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (device.digest, net, place, node.value, key, latency_us, spread),
                )

    def merge(self, other: DeviceProfile, devices: Sequence[Fingerprint] | None = None) -> int:
        """Take over what another profile knows, of some devices or of all. Returns how many nets were taken.

        Of a net that both have measured the newer is kept; one of which only the operators are known takes the place of
        none, for their latencies may be known from nowhere else. Raises DeviceError for a profile that is damaged.
        """
        taken = 0
        with self._errors("written"), self._connection:
            run = self._connection.execute
            for device in other.devices if devices is None else devices:
                run("INSERT OR IGNORE INTO devices VALUES (?, ?)", (device.digest, dumps(device)))
                for net, whole, points, digest, measured_at in other._nets(device):
                    at = (device.digest, net)
                    known = run("SELECT runs > 0, measured_at FROM nets WHERE device = ? AND net = ?", at).fetchone()
                    if known is not None and tuple(known) >= (whole[-1] > 0, measured_at):
                        continue
                    run("DELETE FROM points WHERE device = ? AND net = ?", at)
                    run(
                        "INSERT OR REPLACE INTO nets VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                        (*at, *whole, digest, measured_at),
                    )
                    self._connection.executemany(
                        "INSERT INTO points VALUES (?, ?, ?, ?, ?, ?, ?)",
                        [(*at, place, *point) for place, point in enumerate(points)],
                    )
                    described = [(key, json.dumps(to_json(other.operator(key)))) for key in {own[1] for own in points}]
                    self._connection.executemany("INSERT OR IGNORE INTO operators VALUES (?, ?)", described)
                    taken += 1
        return taken

    # --- reading -------------------------------------------------------------------------------------------

    def net(self, device: Fingerprint, net: str) -> StoredNet | None:
        """What is known of a net; None where nothing is."""
        for _, whole, points, _, _ in self._nets(device, net):
            nodes = tuple((value, operator) for value, operator, _, _ in points)
            return StoredNet(nodes=nodes, latency_us=whole[0], spread=whole[1], reference_us=whole[2])
        return None

    def reference_us(self, device: Fingerprint) -> float | None:
        """The reference work's latency to which all others are scaled: the median over all nets."""
        rows = self._rows("SELECT reference_us FROM nets WHERE device = ? AND reference_us IS NOT NULL", device.digest)
        if any(not isinstance(row[0], float) for row in rows):
            raise self._damaged("latencies are no numbers")
        return float(np.median([row[0] for row in rows])) if rows else None

    def latencies(self, device: Fingerprint) -> dict[str, OperatorLatency]:
        """Key of an operator -> its latency."""
        base = self.reference_us(device)
        if base is None:
            return {}
        seen: dict[str, list[float]] = {}
        for _, (_, _, reference_us, _), points, _, _ in self._nets(device):
            for _, operator, latency_us, _ in points:
                if latency_us is not None and reference_us is not None:
                    seen.setdefault(operator, []).append(latency_us * base / reference_us)
        return {operator: _summary(samples) for operator, samples in seen.items()}

    def operator(self, key: str) -> Operator:
        """The description of an operator. Raises DeviceError for a key that is not there, or stands for another."""
        rows = self._rows("SELECT description FROM operators WHERE operator = ?", key)
        if not rows:
            raise self._damaged(f"it has no operator {key[:12]}")
        try:
            operator = loads(Operator, rows[0][0])
        except (SchemaError, TypeError) as error:
            raise self._damaged(f"operator {key[:12]}: {first_line(error)}") from error
        if operator.key != key:
            raise self._damaged(f"operator {key[:12]} is described as {operator.key[:12]}")
        return operator

    def close(self) -> None:
        """Close the file; harmless when repeated, and done without being asked for when nobody needs it any more."""
        self._closed()

    def __enter__(self) -> DeviceProfile:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _nets(
        self, device: Fingerprint, net: str | None = None
    ) -> Iterator[tuple[str, _Whole, list[_Point], str, float]]:
        """Net, what is known of the whole, its points in order, the seal, when. Of one net, or of all.

        Raises DeviceError for a net that is not as it was written.
        """
        where, values = "device = ?", [device.digest]
        if net is not None:
            where, values = "device = ? AND net = ?", [device.digest, net]
        # One query, so that both come from one moment, whoever writes meanwhile.
        rows = self._rows(
            "SELECT nets.net, nets.latency_us, nets.spread, reference_us, runs, digest, measured_at,"
            " place, value, operator, points.latency_us, points.spread"
            f" FROM (SELECT * FROM nets WHERE {where}) AS nets LEFT JOIN points USING (device, net)"
            " ORDER BY nets.net, place",
            *values,
        )
        for name, own in itertools.groupby(rows, key=lambda row: row[0]):
            lines = list(own)
            whole, digest, measured_at = lines[0][1:5], lines[0][5], lines[0][6]
            points = [line[8:] for line in lines if line[7] is not None]
            if _seal(device.digest, name, whole, points, measured_at) != digest:
                raise self._damaged(f"what it says of the net {str(name)[:12]} is not what was measured")
            yield name, whole, points, digest, measured_at

    def _rows(self, query: str, *values: str) -> list[Any]:
        with self._errors("read"):
            return self._connection.execute(query, values).fetchall()

    def _damaged(self, what: str) -> DeviceError:
        return DeviceError(f"device profile {self.path} is damaged: {what}", "measure a new one, in another file")

    @contextmanager
    def _errors(self, done: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise DeviceError(
                f"device profile {self.path} cannot be {done}: {first_line(error)}",
                "look at its permissions, the space on the disk, and whether another program holds it; if it is "
                "damaged, measure a new one",
            ) from error


def open_profile(path: str | os.PathLike[str], *, must_exist: bool = False) -> DeviceProfile:
    """Open a profile, an empty one where there is no file yet.

    Raises DeviceError for a file that is no profile, or one of a newer edgeslim.
    """
    path, connection = Path(path), None
    if must_exist and not path.is_file():
        raise DeviceError(f"there is no device profile {path}", "measure one with `edgeslim profile measure`")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, timeout=30.0)
        if not _is_used(connection):
            # Of two processes that come first one waits here for the other, and then finds the tables made.
            connection.execute("BEGIN IMMEDIATE")
            if not _is_used(connection):
                for statement in (*_TABLES.split(";"), f"PRAGMA user_version = {SCHEMA}"):
                    connection.execute(statement)
            connection.commit()
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    except (OSError, ValueError, sqlite3.Error) as error:  # ValueError: a null character in the path
        if connection is not None:
            connection.close()
        raise DeviceError(
            f"{path} cannot be used as a device profile: {first_line(error)}",
            "name another file; a profile is an SQLite file written by edgeslim",
        ) from error
    if version != SCHEMA:
        connection.close()
        raise DeviceError(
            f"{path} has the schema {version}, this edgeslim reads {SCHEMA}"
            if version
            else f"{path} is an SQLite file, but no device profile",
            "name another file, and measure a new profile there"
            if version < SCHEMA
            else "update edgeslim, or name another file",
        )
    return DeviceProfile(path, connection)


def _is_used(connection: sqlite3.Connection) -> bool:
    """Whether a file is more than an empty one."""
    ((version,),) = connection.execute("PRAGMA user_version").fetchall()
    return bool(version) or bool(connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchall())


def _close(connection: sqlite3.Connection) -> None:
    with suppress(sqlite3.ProgrammingError):  # collected in another thread than its own
        connection.close()


def _seal(device: str, net: str, whole: _Whole, points: Sequence[_Point], measured_at: float) -> str:
    """SHA-256 of all that is said of a net; numbers count to the last bit."""
    try:
        text = json.dumps([device, net, whole, points, measured_at], separators=(",", ":"))
    except TypeError:  # bytes, where somebody has put them
        return ""
    return hashlib.sha256(text.encode()).hexdigest()


def default_profile_path() -> Path:
    """Where profiles are kept unless another file is named: one file for all devices, in the user's cache."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "edgeslim" / "device-profile.sqlite"


def _summary(samples: Sequence[float]) -> OperatorLatency:
    low, middle, high = np.quantile(samples, [0.25, 0.5, 0.75])
    return OperatorLatency(
        latency_us=float(middle), spread=float((high - low) / 2 / middle) if middle else 0.0, places=len(samples)
    )
