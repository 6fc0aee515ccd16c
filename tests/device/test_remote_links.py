"""Links that break: what has arrived stays, a build goes on, and the next call takes up both."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgeslim.errors import DeviceError
from edgeslim.exporter.remote import workstation
from edgeslim.exporter.remote.progress import Copying
from edgeslim.runtime import read_bundle

from .conftest import Bench
from .proxy import Proxy, proxied

BOTH_WAYS = pytest.mark.parametrize("way", ["sftp", "exec"], indirect=True)


@pytest.fixture
def proxy(bench: Bench) -> Iterator[Proxy]:
    """A proxy to the board, which the board's key is known for."""
    with proxied(bench.sshd.port) as made:
        bench.know(made.port)
        yield made


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until something has happened on the board; the limit is only there to end a hopeless test."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


@BOTH_WAYS
def test_a_copy_goes_on_where_the_link_was_lost(
    bench: Bench, large_bundle: Path, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    proxy.reset(5 << 20)
    with pytest.raises(DeviceError, match="was lost") as caught:
        bench.build(large_bundle, port=proxy.port)
    assert proxy.cuts == 1
    assert "what has arrived is kept" in caught.value.message
    assert "goes on from there" in caught.value.hint
    (part,) = bench.folder.glob("bundles/**/*.part")
    assert not list(bench.folder.glob("bundles/*/manifest.json"))
    # The board may still be writing what had arrived.
    wait_for(lambda: part.stat().st_size > 1 << 20)
    proxy.reset()
    done = bench.build(large_bundle, port=proxy.port)
    assert done.sent.resumed_bytes > 1 << 20
    total = sum(path.stat().st_size for path in large_bundle.rglob("*") if path.is_file())
    assert done.sent.moved_bytes + done.sent.resumed_bytes + done.sent.there_bytes == total
    assert any("from an earlier copy" in note for note in bench.heard.notes)
    (copy,) = (bench.folder / "bundles").iterdir()
    assert read_bundle(copy).files == read_bundle(large_bundle).files
    assert not [name for name in bench.stored() if name.endswith(".part")]
    del caught  # its traceback holds the library's tasks
    gc.collect()
    assert not [record for record in caplog.records if record.name == "asyncio"], "tasks that nobody waited for"


def test_a_part_that_is_not_the_beginning_is_not_gone_on_with(bench: Bench, large_bundle: Path, proxy: Proxy) -> None:
    """The planted fault: a byte of the part is another."""
    proxy.reset(5 << 20)
    with pytest.raises(DeviceError, match="was lost"):
        bench.build(large_bundle, port=proxy.port)
    (part,) = bench.folder.glob("bundles/**/*.part")
    wait_for(lambda: part.stat().st_size > 1 << 20)
    time.sleep(0.1)
    with part.open("r+b") as file:
        file.write(b"x" if file.read(1) != b"x" else b"y")
        file.seek(0)
        file.write(b"?")
    done = bench.build(large_bundle)
    assert done.sent.resumed_bytes == 0
    (copy,) = (bench.folder / "bundles").iterdir()
    assert read_bundle(copy).files == read_bundle(large_bundle).files


@BOTH_WAYS
def test_a_link_that_goes_silent_is_noticed(bench: Bench, large_bundle: Path, proxy: Proxy) -> None:
    """No end of the connection is seen: only questions without an answer tell."""
    proxy.reset(5 << 20)
    proxy.freeze = True
    with pytest.raises(DeviceError, match="was lost"):
        bench.build(large_bundle, port=proxy.port)
    assert proxy.cuts == 1
    # The session that hangs on the board holds nothing that the next one needs.
    assert bench.build(large_bundle).engines


@BOTH_WAYS
def test_fetching_goes_on_where_the_link_was_lost(bench: Bench, bundle: Path, proxy: Proxy) -> None:
    bench.fault(bytes=8 << 20)
    proxy.reset(5 << 20, "down")
    with pytest.raises(DeviceError, match=r"was lost while .* was fetched") as caught:
        bench.build(bundle, port=proxy.port)
    assert "the engine is built" in caught.value.hint
    assert not bench.cache.exists() or not list(bench.cache.iterdir())
    (part,) = workstation.state_folder().glob("*.part")
    assert part.stat().st_size > 1 << 20
    done = bench.build(bundle)
    assert done.fetched[0].resumed_bytes > 1 << 20
    assert not list(workstation.state_folder().glob("*.part"))


def test_what_is_half_fetched_and_wrong_is_fetched_anew(bench: Bench, bundle: Path, proxy: Proxy) -> None:
    bench.fault(bytes=8 << 20)
    proxy.reset(5 << 20, "down")
    with pytest.raises(DeviceError, match="was lost"):
        bench.build(bundle, port=proxy.port)
    (part,) = workstation.state_folder().glob("*.part")
    data = bytearray(part.read_bytes())
    data[7] ^= 1
    part.write_bytes(data)
    assert bench.build(bundle).fetched[0].resumed_bytes == 0


def test_a_build_goes_on_without_the_link(bench: Bench, bundle: Path, proxy: Proxy) -> None:
    bench.fault("waits")
    waiting = bench.stand_in / "waiting"
    proxy.when = waiting.exists
    with pytest.raises(DeviceError, match="which goes on there by itself") as caught:
        bench.build(bundle, port=proxy.port)
    assert "run the same command again" in caught.value.hint
    assert waiting.exists()
    # The same call again meets it, hears its log from the beginning, and brings its engine.
    bench.heard.notes.clear()
    proxy.reset()
    bench.heard.on_note = lambda text: (bench.stand_in / "go").touch() if "since an earlier call" in text else None
    done = bench.build(bundle, port=proxy.port)
    assert done.attached
    assert len(bench.calls()) == 1
    assert any(note.endswith("reading the bundle") for note in bench.heard.notes)
    assert done.engines[0].engine.exists()


def test_a_build_that_ended_meanwhile_is_asked_for_again(bench: Bench, bundle: Path, proxy: Proxy) -> None:
    bench.fault("waits")
    waiting = bench.stand_in / "waiting"
    proxy.when = waiting.exists
    with pytest.raises(DeviceError, match="goes on there"):
        bench.build(bundle, port=proxy.port)
    (bench.stand_in / "go").touch()
    wait_for(lambda: any(bench.folder.glob("jobs/*/exit")))
    assert list(bench.folder.glob("engines/*.engine"))
    proxy.reset()
    done = bench.build(bundle, port=proxy.port)
    assert not done.attached
    assert done.engines[0].engine.exists()


def test_another_precision_is_another_build(bench: Bench, bundle: Path, proxy: Proxy) -> None:
    bench.fault("waits")
    proxy.when = (bench.stand_in / "waiting").exists
    with pytest.raises(DeviceError, match="goes on there"):
        bench.build(bundle, port=proxy.port)
    (bench.stand_in / "go").touch()
    assert not bench.build(bundle, "--precision", "fp16").attached


@pytest.fixture(autouse=True)
def _ctrl_c_is_heard() -> Iterator[None]:
    """Also where the tests run in the background, where a shell has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupt_when(condition: Callable[[], bool]) -> threading.Thread:
    """Ctrl-C for this process, as soon as something is so."""

    def work() -> None:
        wait_for(condition)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_ctrl_c_ends_the_build_there(bench: Bench, bundle: Path) -> None:
    bench.fault("waits")
    thread = interrupt_when((bench.stand_in / "waiting").exists)
    with pytest.raises(KeyboardInterrupt):
        bench.build(bundle)
    thread.join()
    assert (bench.stand_in / "interrupted").exists()
    assert not (bench.stand_in / "waiting").exists()
    assert any("the build there was ended" in note for note in bench.heard.notes)
    assert not bench.cache.exists()
    # Nothing is left that would be in the way.
    bench.fault()
    assert not bench.build(bundle).attached


def test_ctrl_c_ends_a_build_that_does_not_listen(bench: Bench, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgeslim.exporter.remote import build

    monkeypatch.setattr(build, "_GRACE_SECONDS", 1)
    bench.fault("stubborn")
    thread = interrupt_when((bench.stand_in / "waiting").exists)
    with pytest.raises(KeyboardInterrupt):
        bench.build(bundle)
    thread.join()
    assert any("the build there was ended" in note for note in bench.heard.notes)
    (exit_code,) = bench.folder.glob("jobs/*/exit")
    assert exit_code.read_text() == str(-signal.SIGKILL)


def test_ctrl_c_during_the_copy_keeps_what_is_there(bench: Bench, large_bundle: Path) -> None:
    def part_grows() -> bool:
        return any(path.stat().st_size > 1 << 20 for path in bench.folder.glob("bundles/**/*.part"))

    thread = interrupt_when(part_grows)
    with pytest.raises(KeyboardInterrupt), pytest.MonkeyPatch.context() as patch:
        # Slow enough to be interrupted in the middle.
        patch.setattr(Copying, "add", lambda self, count: time.sleep(0.2))
        bench.build(large_bundle)
    thread.join()
    assert not list(bench.folder.glob("bundles/*/manifest.json"))
    assert bench.build(large_bundle).sent.resumed_bytes >= 1 << 20


def test_a_long_copy_is_shown(bench: Bench, large_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgeslim.exporter.remote import progress

    monkeypatch.setattr(progress, "PATIENCE_SECONDS", 0.0)
    bench.build(large_bundle)
    shown = bench.address().shown
    assert (f"to {shown}, MB", 9) in bench.heard.stages
    megabytes = [done for done, values in bench.heard.steps if "seconds left" in values]
    assert megabytes[:8] == sorted(megabytes[:8])
    assert max(megabytes) == 8
