"""What runs on the board: hashes, space, files, and a build that outlives the link. Standard library only.

This text is sent over SSH and run by the board's Python, so it must not import edgeslim, and works with any sshd that
runs commands: no name ever stands on a command line. A request is one line of JSON on stdin, with raw data behind it
where a file is written. The answer is a line of JSON behind a mark, because a shell may print a greeting first; where
a file is read, its bytes follow.

A build is not a child of the SSH session: `start` leaves a supervisor behind that holds a lock, keeps what the build
prints in files, and writes its exit code. `follow` reads these files. So a lost link loses nothing, and whoever comes
back finds the build running, or its result. The lock, not a process number, says whether it runs: numbers are used
again.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import BinaryIO

MARK = b"edgeslim-board "
_BLOCK = 1 << 20
_LONGEST = 16 << 20
"""Bytes of a build's stdout that are read: its answer has a few thousand."""
_POLL_SECONDS = 0.05
_IMPORT_SECONDS = 120.0
"""A first import from an SD card takes many seconds."""
_STALE_SECONDS = 14 * 24 * 3600.0
"""A half-copied file that nobody has gone on with for this long is removed."""
_VERSION = "import edgeslim, importlib.metadata as m; print('edgeslim-version', m.version('edgeslim'))"

Json = Mapping[str, object]


def look(request: Json) -> Json:
    """Python, edgeslim and the free bytes of the folder, which is made if it is not there."""
    folder = _place(request)
    os.makedirs(folder, exist_ok=True)
    _remove_stale(os.path.join(folder, "bundles"))
    python = _python(request)
    try:
        done = subprocess.run(
            [python, "-c", _VERSION],
            cwd=folder,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_IMPORT_SECONDS,
            check=False,
        )
        code, said, problem = done.returncode, done.stdout, done.stderr
    except subprocess.TimeoutExpired:
        code, said, problem = 1, "", f"no end within {_IMPORT_SECONDS:g} s"
    versions = [line.partition("edgeslim-version ")[2] for line in said.splitlines() if "edgeslim-version " in line]
    return {
        "folder": folder,
        "python": ".".join(map(str, sys.version_info[:3])),
        "edgeslim": versions[-1] if versions and code == 0 else None,
        "problem": (problem.strip().splitlines() or [""])[-1],
        "free_bytes": shutil.disk_usage(folder).free,
    }


def survey(request: Json) -> Json:
    """For every file: is it there with the right hash, and if not, how much of it is, with the hash of that."""
    found = []
    for item in _items(request):
        path, part = str(item["path"]), str(item["part"])
        there = os.path.isfile(path) and os.path.getsize(path) == item["bytes"] and _sha256(path) == item["sha256"]
        length = 0 if there or not os.path.isfile(part) else os.path.getsize(part)
        found.append({"there": there, "length": length, "prefix": _sha256(part) if length else ""})
    return {"files": found}


def prepare(request: Json) -> Json:
    """An empty or cut `part`, as long as what of it may be kept; its folders are made."""
    part = str(request["part"])
    os.makedirs(os.path.dirname(part), exist_ok=True)
    with open(part, "ab") as file:
        file.truncate(_number(request, "keep"))
    return {}


def append(request: Json) -> Json:
    """Write what stdin holds behind byte `offset` of `part`."""
    written = 0
    # Unbuffered: what a full disk refuses must not be lost silently at the end.
    with open(str(request["part"]), "r+b", buffering=0) as file:
        file.seek(_number(request, "offset"))
        while block := sys.stdin.buffer.read(_BLOCK):
            view = memoryview(block)
            while view:
                count = file.write(view)
                view, written = view[count:], written + count
    return {"bytes": written}


def settle(request: Json) -> Json:
    """Give a complete `part` its name, if its hash is right; otherwise it is removed."""
    path, part = str(request["path"]), str(request["part"])
    seen = _sha256(part)
    if seen == request["sha256"]:
        with open(part, "rb") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    else:
        os.unlink(part)
    return {"sha256": seen}


def weigh(request: Json) -> Json:
    """Size and hash of every file, or of its first `length` bytes; of a missing one -1 and nothing."""
    found = []
    for item in _items(request):
        path, length = str(item["path"]), item.get("length")
        there = os.path.isfile(path)
        digest = _sha256(path, length if isinstance(length, int) else None) if there else ""
        found.append({"bytes": os.path.getsize(path) if there else -1, "sha256": digest})
    return {"files": found}


def read(request: Json) -> Json:
    """The bytes of `path` from `offset` on, behind the answer's line."""
    with open(str(request["path"]), "rb") as file:
        length = os.fstat(file.fileno()).st_size
        file.seek(_number(request, "offset"))
        _answer({"bytes": length})
        shutil.copyfileobj(file, sys.stdout.buffer, _BLOCK)
    sys.stdout.buffer.flush()
    os._exit(0)  # an answer after the bytes would be taken for bytes


def free(request: Json) -> Json:
    """Free bytes where the folder is."""
    return {"free_bytes": shutil.disk_usage(str(request["folder"])).free}


def doctor(request: Json) -> Json:
    """What `edgeslim doctor --json` says of the board."""
    command = [_python(request), "-m", "edgeslim", "doctor", "--json"]
    done = subprocess.run(
        command,
        cwd=str(request["folder"]),
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=120,
        check=False,
    )
    return {"exit": done.returncode, "stdout": done.stdout[:_LONGEST]}


def start(request: Json) -> Json:
    """Begin the build of `job` unless it is running already."""
    job = str(request["job"])
    os.makedirs(job, exist_ok=True)
    lock = os.open(os.path.join(job, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    # Whoever asks whether it runs holds the lock for an instant too, so one refusal is no answer.
    for _ in range(5):
        if _taken(lock):
            break
        time.sleep(_POLL_SECONDS)
    else:
        return {"attached": True}
    for name in ("exit", "pid"):
        if os.path.exists(os.path.join(job, name)):
            os.unlink(os.path.join(job, name))
    for name in ("stdout", "stderr"):
        with open(os.path.join(job, name), "wb"):
            pass
    words = request["arguments"]
    assert isinstance(words, list)
    command = [_python(request), "-m", "edgeslim", *map(str, words)]
    child = os.fork()
    if child == 0:
        # Twice, so that the supervisor has another parent, another session, and no stream of this one.
        os.setsid()
        if os.fork() == 0:
            _supervise(job, command)
        os._exit(0)
    os.waitpid(child, 0)
    os.close(lock)  # the supervisor has it still
    return {"attached": False}


def _supervise(job: str, command: list[str]) -> None:
    code = 1
    try:
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nothing, stream)
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "NO_COLOR": "1", "PYTHONIOENCODING": "utf-8"}
        paths = [os.path.join(job, name) for name in ("stdout", "stderr")]
        with open(paths[0], "ab") as out, open(paths[1], "ab") as err:
            try:
                build = subprocess.Popen(
                    command,
                    cwd=job,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                    start_new_session=True,
                )
            except OSError as error:
                err.write(f"error: {command[0]} cannot be run: {error.strerror}\n".encode())
            else:
                _write(os.path.join(job, "pid"), str(build.pid))
                code = build.wait()
    finally:
        _write(os.path.join(job, "exit"), str(code))
        os._exit(0)


def follow(request: Json) -> Json:
    """Pass on every line of the build's stderr; at its end its exit code, or None where it died without one."""
    job = str(request["job"])
    pending = b""
    with open(os.path.join(job, "stderr"), "rb") as log:
        while True:
            running = _running(job)  # asked before the log is read: what was written until then is in it
            pending = _pass_on(log, pending)
            if not running:
                break
            time.sleep(_POLL_SECONDS)
    if pending:
        _answer({"line": pending.decode("utf-8", "replace")})
    code = _read_number(os.path.join(job, "exit"))
    with open(os.path.join(job, "stdout"), "rb") as out:
        return {"exit": code, "stdout": out.read(_LONGEST).decode("utf-8", "replace")}


def _pass_on(log: BinaryIO, pending: bytes) -> bytes:
    while block := log.read(_BLOCK):
        *lines, pending = (pending + block).replace(b"\r", b"\n").split(b"\n")
        for line in filter(None, lines):
            _answer({"line": line.decode("utf-8", "replace")})
    return pending


def stop(request: Json) -> Json:
    """End the build of `job`: as Ctrl-C would, and by force if that takes longer than `seconds`."""
    job = str(request["job"])
    # The supervisor may not have started it yet.
    deadline = time.monotonic() + _number(request, "seconds")
    while _running(job) and _read_number(os.path.join(job, "pid")) is None and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    forced = False
    for number in (signal.SIGINT, signal.SIGKILL):
        if not _running(job):
            break
        forced = number == signal.SIGKILL
        pid = _read_number(os.path.join(job, "pid"))
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, number)
        deadline = time.monotonic() + _number(request, "seconds")
        while _running(job) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
    return {"ended": not _running(job), "forced": forced}


def _taken(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _running(job: str) -> bool:
    lock = os.open(os.path.join(job, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def _remove_stale(folder: str) -> None:
    oldest = time.time() - _STALE_SECONDS
    for place, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(place, name)
            # It may be a link to nothing, somebody else's, or removed by another session meanwhile.
            with contextlib.suppress(OSError):
                if name.endswith(".part") and os.lstat(path).st_mtime < oldest:
                    os.unlink(path)


def _place(request: Json) -> str:
    """The folder that was asked for, or the usual one of a cache."""
    asked = request.get("folder")
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join("~", ".cache")
    return os.path.abspath(os.path.expanduser(str(asked) if asked else os.path.join(base, "edgeslim")))


def _python(request: Json) -> str:
    """The interpreter that was named; a path is relative to the home folder, where a command over SSH starts."""
    name = os.path.expanduser(str(request["python"]))
    return os.path.abspath(name) if "/" in name else name


def _items(request: Json) -> list[dict[str, object]]:
    items = request["files"]
    assert isinstance(items, list)
    return items


def _number(request: Json, name: str) -> int:
    value = request[name]
    assert isinstance(value, int)
    return value


def _sha256(path: str, length: int | None = None) -> str:
    digest = hashlib.sha256()
    left = os.path.getsize(path) if length is None else length
    with open(path, "rb") as file:
        while block := file.read(min(_BLOCK, left)):
            digest.update(block)
            left -= len(block)
    return digest.hexdigest()


def _write(path: str, text: str) -> None:
    with open(path + ".new", "w", encoding="ascii") as file:
        file.write(text)
    os.replace(path + ".new", path)


def _read_number(path: str) -> int | None:
    try:
        with open(path, encoding="ascii") as file:
            return int(file.read())
    except (FileNotFoundError, ValueError):
        return None


def _answer(content: Json) -> None:
    sys.stdout.buffer.write(MARK + json.dumps(content).encode() + b"\n")
    sys.stdout.buffer.flush()


WORK = {
    work.__name__: work
    for work in (look, survey, prepare, append, settle, weigh, read, free, doctor, start, follow, stop)
}


def main() -> None:
    """Do what the lines of stdin ask for, one after the other."""
    while line := sys.stdin.buffer.readline():
        request = json.loads(line)
        try:
            _answer({"done": WORK[request["work"]](request)})
        except BrokenPipeError:
            os._exit(0)  # nobody listens any more
        except OSError as error:
            place = str(error.filename or "")
            _answer({"refused": error.strerror or str(error), "errno": error.errno or 0, "path": place})
        except subprocess.TimeoutExpired as error:
            _answer({"refused": f"no end within {error.timeout:.0f} s", "errno": 0, "path": ""})
        if request["work"] == "append":
            break  # what a full disk has left unread is data, and must never be taken for a request


if __name__ == "__main__":
    main()
