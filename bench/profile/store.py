"""A device profile on disk: an SQLite file of what was observed, by device, and within it by net and by operator.

    devices      fingerprint
    operators    name, shapes, attributes, dtype
    nets         device, net -> latency, spread, reference work, when
    points       device, net, place -> operator, latency, spread, and which value of the net it computes

A net is known by its structure, not by its weights: latencies do not depend on those. An operator's latency is the
median over all places where it was seen, each scaled to one speed of the machine by the reference work beside it. A net
is one transaction: what an interrupted run has measured is there, and nothing of the net that it was at. Files of
several devices can be merged, for nothing in one refers to another.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeslim.errors import DeviceError, first_line
from edgeslim.schema import SchemaError, dumps, loads, to_json

from .fingerprint import Fingerprint
from .observe import Node, Observation
from .operator import Operator

SCHEMA = 1
_TABLES = """
    CREATE TABLE devices (device TEXT PRIMARY KEY, fingerprint TEXT NOT NULL);
    CREATE TABLE operators (operator TEXT PRIMARY KEY, description TEXT NOT NULL);
    CREATE TABLE nets (device TEXT NOT NULL, net TEXT NOT NULL, latency_us REAL, spread REAL, reference_us REAL,
        runs INTEGER NOT NULL, measured_at REAL NOT NULL, PRIMARY KEY (device, net)) WITHOUT ROWID;
    CREATE TABLE points (device TEXT NOT NULL, net TEXT NOT NULL, place INTEGER NOT NULL, value TEXT NOT NULL,
        operator TEXT NOT NULL, latency_us REAL, spread REAL, PRIMARY KEY (device, net, place)) WITHOUT ROWID;
    CREATE INDEX points_by_operator ON points (device, operator);
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredNet:
    """One net as it stands in a profile. latency_us, spread, reference_us: None where only its operators are known."""

    nodes: tuple[tuple[str, str], ...]
    """(value, key of the operator), in the order in which they run."""
    latency_us: float | None
    spread: float | None
    reference_us: float | None


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

    # --- devices -------------------------------------------------------------------------------------------

    @property
    def devices(self) -> tuple[Fingerprint, ...]:
        """Every device that something was measured on. Raises DeviceError for an entry that cannot be read."""
        rows = self._connection.execute("SELECT device, fingerprint FROM devices ORDER BY device").fetchall()
        found = []
        for digest, text in rows:
            try:
                fingerprint = loads(Fingerprint, text)
            except SchemaError as error:
                raise DeviceError(f"{self.path}: device {digest[:12]}: {error}", "measure a new profile") from error
            found.append(fingerprint)
        return tuple(found)

    def counts(self, device: Fingerprint) -> tuple[int, int]:
        """How many nets and how many different operators were measured on a device."""
        nets = self._connection.execute("SELECT COUNT(*) FROM nets WHERE device = ?", (device.digest,))
        operators = self._connection.execute(
            "SELECT COUNT(DISTINCT operator) FROM points WHERE device = ? AND latency_us IS NOT NULL", (device.digest,)
        )
        return int(nets.fetchone()[0]), int(operators.fetchone()[0])

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
        whole: tuple[float | None, float | None, float | None, int],
        rows: Sequence[tuple[Node, float | None, float | None]],
    ) -> None:
        with self._errors(), self._connection:
            run = self._connection.execute
            run("INSERT OR IGNORE INTO devices VALUES (?, ?)", (device.digest, dumps(device)))
            run("DELETE FROM points WHERE device = ? AND net = ?", (device.digest, net))
            run("INSERT OR REPLACE INTO nets VALUES (?, ?, ?, ?, ?, ?, ?)", (device.digest, net, *whole, time.time()))
            for place, (node, latency_us, spread) in enumerate(rows):
                key = node.operator.key
                run("INSERT OR IGNORE INTO operators VALUES (?, ?)", (key, json.dumps(to_json(node.operator))))
                run(
                    "INSERT INTO points VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (device.digest, net, place, node.value, key, latency_us, spread),
                )

    def merge(self, other: DeviceProfile, devices: Sequence[Fingerprint] | None = None) -> int:
        """Take over what another profile knows, of some devices or of all; of one net the newer. Returns the nets."""
        wanted = [device.digest for device in (other.devices if devices is None else devices)]
        marks = ", ".join("?" * len(wanted))
        taken = 0
        with self._errors(), self._connection:
            run, read = self._connection.execute, other._connection.execute
            for row in read(f"SELECT * FROM devices WHERE device IN ({marks})", wanted).fetchall():
                run("INSERT OR IGNORE INTO devices VALUES (?, ?)", row)
            for net in read(f"SELECT * FROM nets WHERE device IN ({marks})", wanted).fetchall():
                known = run("SELECT measured_at FROM nets WHERE device = ? AND net = ?", net[:2]).fetchone()
                if known is not None and known[0] >= net[-1]:
                    continue
                run("DELETE FROM points WHERE device = ? AND net = ?", net[:2])
                run("INSERT OR REPLACE INTO nets VALUES (?, ?, ?, ?, ?, ?, ?)", net)
                points = read("SELECT * FROM points WHERE device = ? AND net = ?", net[:2]).fetchall()
                self._connection.executemany("INSERT INTO points VALUES (?, ?, ?, ?, ?, ?, ?)", points)
                keys = sorted({str(point[4]) for point in points})
                held = read(f"SELECT * FROM operators WHERE operator IN ({', '.join('?' * len(keys))})", keys)
                self._connection.executemany("INSERT OR IGNORE INTO operators VALUES (?, ?)", held.fetchall())
                taken += 1
        return taken

    # --- reading -------------------------------------------------------------------------------------------

    def net(self, device: Fingerprint, net: str) -> StoredNet | None:
        """What is known of a net; None where nothing is."""
        run = self._connection.execute
        whole = run(
            "SELECT latency_us, spread, reference_us FROM nets WHERE device = ? AND net = ?", (device.digest, net)
        ).fetchone()
        if whole is None:
            return None
        rows = run(
            "SELECT value, operator FROM points WHERE device = ? AND net = ? ORDER BY place", (device.digest, net)
        ).fetchall()
        return StoredNet(nodes=tuple(rows), latency_us=whole[0], spread=whole[1], reference_us=whole[2])

    def reference_us(self, device: Fingerprint) -> float | None:
        """The reference work's latency to which all others are scaled: the median over all nets."""
        rows = self._connection.execute(
            "SELECT reference_us FROM nets WHERE device = ? AND reference_us IS NOT NULL", (device.digest,)
        ).fetchall()
        return float(np.median([row[0] for row in rows])) if rows else None

    def latencies(self, device: Fingerprint) -> dict[str, OperatorLatency]:
        """Key of an operator -> its latency."""
        base = self.reference_us(device)
        if base is None:
            return {}
        rows = self._connection.execute(
            "SELECT operator, points.latency_us, reference_us FROM points JOIN nets USING (device, net)"
            " WHERE device = ? AND points.latency_us IS NOT NULL",
            (device.digest,),
        ).fetchall()
        seen: dict[str, list[float]] = {}
        for operator, latency_us, reference_us in rows:
            seen.setdefault(operator, []).append(latency_us * base / reference_us)
        return {operator: _summary(samples) for operator, samples in seen.items()}

    def operator(self, key: str) -> Operator:
        """The description of an operator. Raises DeviceError for a key that is not there."""
        row = self._connection.execute("SELECT description FROM operators WHERE operator = ?", (key,)).fetchone()
        if row is None:
            raise DeviceError(f"{self.path} has no operator {key[:12]}", "measure a new profile")
        return loads(Operator, row[0])

    def close(self) -> None:
        """Close the file; harmless when repeated."""
        self._connection.close()

    def __enter__(self) -> DeviceProfile:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise DeviceError(
                f"device profile {self.path} cannot be written: {first_line(error)}",
                "look at its permissions, the space on the disk, and whether another program holds it",
            ) from error


def open_profile(path: str | os.PathLike[str], *, must_exist: bool = False) -> DeviceProfile:
    """Open a profile, an empty one where there is no file yet.

    Raises DeviceError for a file that is no profile, or one of a newer edgeslim.
    """
    path = Path(path)
    if must_exist and not path.is_file():
        raise DeviceError(f"there is no device profile {path}", "measure one with `edgeslim profile measure`")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, timeout=30.0)
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        if version == 0 and not connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone():
            connection.executescript(f"BEGIN; {_TABLES} PRAGMA user_version = {SCHEMA}; COMMIT;")
            version = SCHEMA
    except (OSError, sqlite3.Error) as error:
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
            "update edgeslim, or name another file",
        )
    return DeviceProfile(path, connection)


def default_profile_path() -> Path:
    """Where profiles are kept unless another file is named: one file for all devices, in the user's cache."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "edgeslim" / "device-profile.sqlite"


def _summary(samples: Sequence[float]) -> OperatorLatency:
    low, middle, high = np.quantile(samples, [0.25, 0.5, 0.75])
    return OperatorLatency(
        latency_us=float(middle), spread=float((high - low) / 2 / middle) if middle else 0.0, places=len(samples)
    )
