"""Device profiles on disk: what goes in comes out, whoever wrote it, and nothing that was damaged goes into a plan."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeslim.bench.machine import usable_cores
from edgeslim.bench.profile import DeviceProfile, Fingerprint, Observation, Operator, default_profile_path, open_profile
from edgeslim.bench.profile import store as store_module
from edgeslim.bench.profile.find import find_device
from edgeslim.bench.profile.fingerprint import fingerprint_here
from edgeslim.bench.profile.observe import Node
from edgeslim.bench.profile.store import SCHEMA, StoredNet
from edgeslim.errors import DeviceError

from .boards import BOARDS, plant
from .fake_device import fingerprint

HERE, THERE = fingerprint("1.0"), fingerprint("2.0")
LATENCIES = st.floats(1e-3, 1e9)
WORDS = st.text(max_size=8)


def operators() -> st.SearchStrategy[Operator]:
    shapes = st.lists(st.lists(st.integers(0, 512), max_size=4).map(tuple), max_size=3).map(tuple)
    return st.builds(
        Operator, name=WORDS, inputs=shapes, outputs=shapes, attributes=st.dictionaries(WORDS, WORDS), dtype=WORDS
    )


@st.composite
def observations(draw: st.DrawFn) -> Observation:
    nodes = draw(st.lists(st.builds(Node, value=WORDS, operator=operators()), max_size=4))
    numbers = st.lists(LATENCIES, min_size=len(nodes), max_size=len(nodes)).map(tuple)
    return Observation(
        nodes=tuple(nodes),
        nodes_us=draw(numbers),
        nodes_spread=draw(numbers),
        latency_us=draw(LATENCIES),
        spread=draw(LATENCIES),
        reference_us=draw(LATENCIES),
        runs=draw(st.integers(1, 100)),
    )


def seen(latency_us: float = 100.0, *, value: str = "a", name: str = "Conv", reference_us: float = 50.0) -> Observation:
    """A net of two nodes, of which one is there twice."""
    operator = Operator(name=name, inputs=((1, 2),), outputs=((1, 3),), attributes={"group": "1"}, dtype="float32")
    nodes = (Node(value=value, operator=operator), Node(value=f"{value}2", operator=operator))
    return Observation(
        nodes=nodes,
        nodes_us=(latency_us / 4, latency_us / 2),
        nodes_spread=(0.1, 0.2),
        latency_us=latency_us,
        spread=0.01,
        reference_us=reference_us,
        runs=9,
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "profile.sqlite"


@contextlib.contextmanager
def clock(monkeypatch: pytest.MonkeyPatch, at: float) -> Iterator[None]:
    """What is written within was measured at that time."""
    with monkeypatch.context() as patch:
        patch.setattr(store_module.time, "time", lambda: at)
        yield


def memory() -> DeviceProfile:
    """A profile of its own for one example."""
    return open_profile(":memory:")


@given(observations())
def test_what_goes_in_comes_out(observation: Observation) -> None:
    with memory() as profile:
        profile.add(HERE, "net", observation)
        assert profile.net(HERE, "net") == StoredNet(
            nodes=tuple((node.value, node.operator.key) for node in observation.nodes),
            latency_us=observation.latency_us,
            spread=observation.spread,
            reference_us=observation.reference_us,
        )
        assert profile.net(THERE, "net") is None
        assert profile.net(HERE, "another") is None
        assert profile.devices == (HERE,)
        assert profile.counts(HERE) == (1, len({node.operator.key for node in observation.nodes}))
        for node in observation.nodes:
            assert profile.operator(node.operator.key) == node.operator
        assert set(profile.latencies(HERE)) == {node.operator.key for node in observation.nodes}


@settings(max_examples=30)
@given(operators(), operators())
def test_operators_are_one_exactly_if_all_of_them_is(one: Operator, other: Operator) -> None:
    assert (one.key == other.key) == (one == other)
    assert replace(one, dtype=one.dtype + "!").key != one.key


@settings(max_examples=25)
@given(st.lists(observations(), max_size=3), st.lists(observations(), max_size=3))
def test_merging_takes_all_and_twice_is_as_good_as_once(mine: list[Observation], others: list[Observation]) -> None:
    with memory() as profile, memory() as other:
        for number, one in enumerate(mine):
            profile.add(HERE, f"mine {number}", one)
        for number, one in enumerate(others):
            other.add(THERE, f"other {number}", one)
            other.add(HERE, f"other {number}", one)
        assert profile.merge(other) == 2 * len(others)
        before = dump(profile)
        assert profile.merge(other) == 0
        assert dump(profile) == before
        for device in (HERE, THERE):
            for number in range(len(others)):
                assert profile.net(device, f"other {number}") == other.net(device, f"other {number}")
        assert profile.latencies(THERE) == other.latencies(THERE)
        with memory() as copy:  # an export is a merge into a file that was empty
            copy.merge(profile)
            assert dump(copy) == before


def dump(profile: DeviceProfile) -> list[str]:
    return sorted(profile._connection.iterdump())


def test_of_a_net_that_both_have_measured_the_newer_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    with memory() as old, memory() as new:
        with clock(monkeypatch, 1.0):
            old.add(HERE, "net", seen(100.0, value="old"))
        with clock(monkeypatch, 2.0):
            new.add(HERE, "net", seen(200.0, value="new"))
        assert new.merge(old) == 0
        assert old.merge(new) == 1
        for profile in (old, new):
            net = profile.net(HERE, "net")
            assert net is not None and net.latency_us == 200.0 and net.nodes[0][0] == "new"


def test_no_latency_is_lost_by_merging(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of two profiles knows of the other's net only which operators it has, and has found that out later."""
    nets = {"first": seen(100.0), "second": seen(200.0)}
    with memory() as one, memory() as two:
        for profile, measured, looked_at in ((one, "first", "second"), (two, "second", "first")):
            with clock(monkeypatch, 1.0):
                profile.add(HERE, measured, nets[measured])
            with clock(monkeypatch, 2.0):
                profile.add_structure(HERE, looked_at, nets[looked_at].nodes)
        one.merge(two)
        for name, observation in nets.items():
            net = one.net(HERE, name)
            assert net is not None and net.latency_us == observation.latency_us
        assert one.merge(two) == 0 and two.merge(one) == 1


def test_only_some_devices_are_merged() -> None:
    with memory() as profile, memory() as other:
        other.add(HERE, "net", seen())
        other.add(THERE, "net", seen())
        assert profile.merge(other, [THERE]) == 1
        assert profile.devices == (THERE,)
        assert profile.merge(other, []) == 0


def test_latencies_are_medians_at_one_speed_of_the_machine() -> None:
    with memory() as profile:
        profile.add(HERE, "usual", seen(100.0, reference_us=50.0))
        profile.add(HERE, "slow", seen(200.0, reference_us=100.0))
        profile.add(HERE, "usual too", seen(100.0, reference_us=50.0))
        profile.add_structure(HERE, "looked at", seen(1.0).nodes)
        (found,) = profile.latencies(HERE).values()
        assert profile.reference_us(HERE) == 50.0
        assert found.latency_us == pytest.approx((25.0 + 50.0) / 2)
        assert found.places == 6
        assert profile.latencies(THERE) == {} and profile.reference_us(THERE) is None


def test_a_net_is_measured_again_in_its_place() -> None:
    with memory() as profile:
        profile.add(HERE, "net", seen(100.0))
        profile.add(HERE, "net", seen(300.0, name="Gemm"))
        assert profile.counts(HERE) == (1, 1)
        (found,) = profile.latencies(HERE).values()
        assert found.latency_us == pytest.approx((75.0 + 150.0) / 2)


# --- files ---------------------------------------------------------------------------------------------------


def test_a_file_is_read_again(path: Path) -> None:
    with open_profile(path) as profile:
        profile.add(HERE, "net", seen())
    with open_profile(path, must_exist=True) as profile:
        assert profile.devices == (HERE,) and profile.net(HERE, "net") is not None
        profile.close()
        profile.close()


def test_the_usual_place_is_in_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_profile_path().parent == tmp_path / "edgeslim"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_profile_path().is_relative_to(tmp_path / ".cache")


def foreign_database(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE holidays (day TEXT)")


def newer_schema(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA + 1}")


def older_schema(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA - 1}")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path.write_text("latency: 8 ms\n" * 100), "cannot be used as a device profile: file is not"),
        (lambda path: path.mkdir(), "cannot be used as a device profile: unable to open"),
        (foreign_database, "is an SQLite file, but no device profile"),
        (newer_schema, f"has the schema {SCHEMA + 1}, this edgeslim reads {SCHEMA}"),
        (older_schema, f"has the schema {SCHEMA - 1}, this edgeslim reads {SCHEMA}"),
    ],
    ids=["a text", "a folder", "another database", "a newer schema", "an older schema"],
)
def test_what_is_no_profile_is_refused_and_left_as_it_is(path: Path, make: Callable[[Path], None], words: str) -> None:
    make(path)
    before = path.read_bytes() if path.is_file() else b""
    with pytest.raises(DeviceError, match=words) as caught:
        open_profile(path)
    assert "another file" in caught.value.hint and str(path) in caught.value.message
    assert (path.read_bytes() if path.is_file() else b"") == before


@pytest.mark.parametrize("name", ["file/profile.sqlite", "pro\0file.sqlite"])
def test_a_place_where_no_file_can_be_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DeviceError, match="cannot be used as a device profile"):
        open_profile(tmp_path / name)


def test_a_profile_that_must_be_there(path: Path) -> None:
    with pytest.raises(DeviceError, match="there is no device profile") as caught:
        open_profile(path, must_exist=True)
    assert "edgeslim profile measure" in caught.value.hint and not path.exists()


def test_a_file_that_may_not_be_written(path: Path) -> None:
    with open_profile(path) as profile:
        profile.add(HERE, "net", seen())
        profile._connection.execute("PRAGMA query_only = 1")
        with pytest.raises(DeviceError, match="cannot be written: attempt to write a readonly") as caught:
            profile.add(HERE, "another", seen())
        assert "permissions" in caught.value.hint
        assert profile.net(HERE, "net") is not None and profile.net(HERE, "another") is None


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("UPDATE points SET latency_us = latency_us * 0.7 WHERE place = 1", "not what was measured"),
        ("UPDATE points SET latency_us = -1.0", "not what was measured"),
        ("UPDATE points SET latency_us = 'fast'", "not what was measured"),
        ("UPDATE points SET latency_us = NULL WHERE place = 0", "not what was measured"),
        ("UPDATE points SET value = x'00'", "not what was measured"),
        ("UPDATE points SET operator = 'no such key'", "not what was measured"),
        ("DELETE FROM points WHERE place = 1", "not what was measured"),
        ("UPDATE nets SET latency_us = latency_us + 1e-12", "not what was measured"),
        ("UPDATE nets SET reference_us = 'slow'", "not what was measured|no numbers"),
        ("UPDATE nets SET digest = 'x'", "not what was measured"),
        ('UPDATE operators SET description = replace(description, \'"group": "1"\', \'"group": "2"\')', "described"),
        ("UPDATE operators SET description = '{}'", "missing"),
        ("DELETE FROM operators", "it has no operator"),
        ("UPDATE devices SET fingerprint = replace(fingerprint, 'Imagined', 'Faster')", "is described as"),
        ("UPDATE devices SET fingerprint = '{'", "not JSON"),
        ("UPDATE devices SET fingerprint = x'00'", "not JSON"),
    ],
)
def test_what_was_changed_afterwards_is_found(path: Path, statement: str, words: str) -> None:
    with open_profile(path) as profile:
        profile.add(HERE, "net", seen())
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        assert connection.execute(statement).rowcount > 0
    with open_profile(path) as profile, memory() as other:
        with pytest.raises(DeviceError, match=words) as caught:
            read_all(profile)
        assert "measure" in caught.value.hint
        with pytest.raises(DeviceError, match=words):
            other.merge(profile)
        assert other.counts(HERE) == (0, 0)


def read_all(profile: DeviceProfile) -> None:
    (device,) = profile.devices
    net = profile.net(device, "net")
    assert net is not None
    for _, key in net.nodes:
        profile.operator(key)
    profile.latencies(device)


def test_pages_that_were_overwritten_are_found(path: Path) -> None:
    with open_profile(path) as profile:
        for number in range(50):
            profile.add(HERE, f"net {number}", seen(value=f"{number}" * 50))
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)
    path.write_bytes(data)
    with pytest.raises(DeviceError, match=r"malformed|damaged|cannot be"), open_profile(path) as profile:
        for device in profile.devices:
            profile.latencies(device)
        profile.net(HERE, "net 1")


def test_a_place_is_not_held_after_an_error(path: Path) -> None:
    """A device that cannot be found leaves no open file behind."""
    with open_profile(path) as profile:
        profile.add(THERE, "net", seen())
    with pytest.raises(DeviceError):
        find_device("cpu:1", path)
    held = {os.readlink(link) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()}
    assert str(path) not in held


# --- processes -----------------------------------------------------------------------------------------------

WRITER = """
import sys
from edgeslim.bench.profile import open_profile
from tests.unit.test_profile_store import HERE, seen
first, last = map(int, sys.argv[2:])
sys.stdin.readline()
with open_profile(sys.argv[1]) as profile:
    for number in range(first, last):
        profile.add(HERE, f"net {number}", seen(1.0 + number))
        print(number, flush=True)
"""


def writer(path: Path, first: int, last: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), str(first), str(last)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        text=True,
    )


@pytest.mark.slow
def test_two_processes_make_and_fill_one_file_at_once(path: Path) -> None:
    """None of them waits for the other to have made the tables."""
    both = [writer(path, 0, 40), writer(path, 20, 60), writer(path, 50, 80)]
    time.sleep(2.0)  # until all have imported; the test holds all the same where one has not
    for process in both:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in both:
        process.communicate(timeout=120)
        assert process.returncode == 0
    with open_profile(path) as profile:
        assert profile.counts(HERE) == (80, 1)
        nets = [profile.net(HERE, f"net {number}") for number in range(80)]
        assert [net.latency_us for net in nets if net is not None] == [1.0 + number for number in range(80)]


@pytest.mark.slow
def test_a_killed_process_leaves_whole_nets(path: Path) -> None:
    process = writer(path, 0, 100_000)
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    for _ in range(30):
        process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=120)
    with open_profile(path) as profile:
        count, _ = profile.counts(HERE)
        assert count >= 30
        for number in range(count):  # every one is sealed, with both of its points
            net = profile.net(HERE, f"net {number}")
            assert net is not None and len(net.nodes) == 2
        assert profile.net(HERE, f"net {count}") is None
        profile.add(HERE, f"net {count}", seen())
        assert profile.counts(HERE)[0] == count + 1


def test_a_fingerprint_has_all_that_the_machine_tells(tmp_path: Path) -> None:
    """Planted: a small machine, and a Jetson."""
    first = usable_cores()[0] if usable_cores() else 0
    cpu = f"sys/devices/system/cpu/cpu{first}/cpufreq"
    files = {
        "proc/cpuinfo": "processor : 0\nmodel name : Planted\nflags : fpu avx avx512f ht fma nx\n",
        f"{cpu}/scaling_governor": "powersave\n",
        f"{cpu}/scaling_max_freq": "2400000\n",
    }
    found = fingerprint_here("onnxruntime", "1.2", 3, plant(tmp_path / "small", files))
    assert (found.backend, found.backend_version, found.threads) == ("onnxruntime", "1.2", 3)
    assert (found.cpu, found.cpu_flags) == ("Planted", ("avx", "avx512f", "fma"))
    assert (found.governor, found.max_clock_mhz) == ("powersave", 2400.0)
    assert found.usable_cores == (len(usable_cores()) or None) and found.board is found.gpu is found.power_mode is None
    others = (
        {**files, "proc/cpuinfo": "model name : Planted\nflags : avx\n"},
        {**files, f"{cpu}/scaling_governor": "performance\n"},
        {**files, f"{cpu}/scaling_max_freq": "1000\n"},
    )
    digests = {
        fingerprint_here("onnxruntime", "1.2", 3, plant(tmp_path / str(number), own)).digest
        for number, own in enumerate((files, *others))
    }
    assert len(digests) == 4 and found.digest in digests
    board = fingerprint_here("onnxruntime", "1.2", 3, plant(tmp_path / "board", BOARDS["AGX Orin"]))
    assert board.board is not None and "AGX Orin" in board.board and board.power_mode == "MAXN"


def test_fingerprints_differ_by_everything_that_counts() -> None:
    assert fingerprint("1.0") == fingerprint("1.0") and fingerprint("1.0").digest == HERE.digest
    others = [fingerprint("1.1"), fingerprint(threads=2), fingerprint(backend="other")]
    others += [replace(HERE, governor="powersave"), replace(HERE, max_clock_mhz=1000.0), replace(HERE, cpu="Real")]
    digests = {one.digest for one in (HERE, *others)}
    assert len(digests) == len(others) + 1
    assert str(replace(HERE, threads=2)) == "Imagined, fake 1.0, 2 threads"
    assert Fingerprint.short.fget is not None and HERE.digest.startswith(HERE.short)
