"""A board that answers what it pleases: nothing of it is believed, or written elsewhere, or shown as it is."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest

from edgeslim.errors import DeviceError, EdgeslimError, EngineError
from edgeslim.exporter.remote import board as board_module
from edgeslim.exporter.remote import on_board
from edgeslim.exporter.remote.board import clean

from .conftest import Bench, write_script

ELSEWHERE = "../../../elsewhere"


def twisting_python(bench: Bench, tmp_path: Path, code: str) -> str:
    """A Python there that changes every answer `c` of the program that is sent to it, by the statement `code`."""
    twist = tmp_path / "twist.py"
    twist.write_text(
        "import json\n"
        "plain = json.dumps\n"
        "def dumps(c, **more):\n"
        "    done = c.get('done') if isinstance(c.get('done'), dict) else {}\n"
        f"    {code}\n"
        "    return plain(c, **more)\n"
        "json.dumps = dumps\n"
    )
    there = shlex.quote(str(bench.python))
    read = shlex.quote(f"exec(open({str(twist)!r}).read())\n")
    text = f'if [ "$1" = -c ] && [ "${{2#*stdin}}" != "$2" ]; then exec {there} -c {read}"$2"; fi\nexec {there} "$@"\n'
    return str(write_script(tmp_path / "twisting", text))


def files_of(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("code", "kind", "said"),
    [
        ("if 'files' in done: done['files'] = []", EngineError, "0 answers to"),
        ("if 'files' in done: done['files'] *= 2", EngineError, "answers to"),
        (
            f"if 'sha256' in str(done.get('files')): done['files'][-1]['sha256'] = {ELSEWHERE!r}",
            EngineError,
            "something else",
        ),
        ("if 'sha256' in str(done.get('files')): done['files'][-1]['bytes'] = -7", EngineError, "-7"),
        (
            "if 'sha256' in str(done.get('files')): done['files'][-1]['bytes'] = 1 << 50",
            EngineError,
            "a record at most",
        ),
        ("if 'sha256' in done: done['sha256'] = '\\x1b[2J'", EngineError, "something else"),
        ("if 'python' in done: done['python'] = '\\x1b]0;mine\\x07'", EngineError, "something else"),
        ("if 'folder' in done: done['folder'] = '/tmp/\\x1b[2J'", EngineError, "something else"),
        ("if 'folder' in done: done['folder'] = 'relative'", EngineError, "something else"),
        ("if 'prefix' in str(done): c = {'refused': 'no\\x1b[2J', 'errno': 13, 'path': '/x'}", DeviceError, "in "),
        (
            "if 'sha256' in str(done.get('files')): c = {'refused': 'not yours', 'errno': 13, 'path': '/x'}",
            DeviceError,
            "what was built cannot be read: /x: not yours",
        ),
        ("if done: c = [[]] * 3", EngineError, "something else"),
    ],
)
def test_answers_of_the_program(
    bench: Bench, bundle: Path, tmp_path: Path, code: str, kind: type[EdgeslimError], said: str
) -> None:
    python = twisting_python(bench, tmp_path, code)
    with pytest.raises(kind) as caught:
        bench.build(bundle, python=python)
    assert said in caught.value.message and caught.value.hint
    assert "\x1b" not in str(caught.value) and "\x07" not in str(caught.value)
    assert not bench.cache.exists() or not list(bench.cache.iterdir()), "something was brought back"
    assert not [name for name in files_of(tmp_path) if "elsewhere" in name]


def test_the_twisting_python_is_a_good_board_when_it_twists_nothing(bench: Bench, bundle: Path, tmp_path: Path) -> None:
    assert bench.build(bundle, python=twisting_python(bench, tmp_path, "pass")).engines


def test_a_line_without_end_is_not_waited_for(
    bench: Bench, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(board_module, "_LINE_LIMIT", 1 << 20)
    python = twisting_python(bench, tmp_path, "c = {'done': 'x' * (9 << 20)}")
    with pytest.raises(EngineError, match="something else"):
        bench.build(bundle, python=python)


@pytest.mark.parametrize("way", ["sftp", "exec"], indirect=True)
def test_a_file_that_grows_while_it_is_fetched(bench: Bench, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgeslim.exporter.remote import build, transfer

    real = transfer.fetch

    def grow(*arguments: object, **more: object) -> object:
        (engine,) = bench.folder.glob("engines/*.engine")
        with engine.open("ab") as file:
            file.write(b"more")
        return real(*arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(build, "fetch", grow)
    with pytest.raises(EngineError, match="has more than the"):
        bench.build(bundle)
    assert not bench.cache.exists() or not list(bench.cache.iterdir())


@pytest.mark.parametrize("report", ["[" * 5000, '{"load": NaN}', '{"load": 1e999}', "\x1b[2J", ""])
def test_a_report_that_is_none_costs_no_engine(bench: Bench, bundle: Path, report: str) -> None:
    script = bench.python.read_text()
    assert '{"board": "stand-in"}' in script
    bench.python.write_text(script.replace('{"board": "stand-in"}', report))
    done = bench.build(bundle)
    assert done.engines and done.report is None
    assert any("gave no report" in note for note in bench.heard.notes)


def test_a_report_that_is_lost_costs_no_engine(bench: Bench, bundle: Path, tmp_path: Path) -> None:
    python = twisting_python(bench, tmp_path, "if done.get('stdout', '')[2:7] == 'board': c = {'done': 5}")
    done = bench.build(bundle, python=python)
    assert done.engines and done.report is None


def test_links_to_nothing_in_the_folder_there(bench: Bench, bundle: Path) -> None:
    place = bench.folder / "bundles"
    place.mkdir(parents=True)
    (place / "x.part").symlink_to("nothing")
    os.utime(place / "x.part", (0, 0), follow_symlinks=False)
    assert bench.build(bundle).engines
    assert not (place / "x.part").is_symlink()


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("exec sleep 600", "no end within 1 s"),
        ("printf '\\377\\376' >&2; exit 1", "\ufffd\ufffd"),
        ("printf '\\377edgeslim-version 1.2\\n'; exit 1", ""),
    ],
)
def test_an_edgeslim_there_that_hangs_or_babbles(
    script: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_board, "_IMPORT_SECONDS", 1.0)
    python = write_script(tmp_path / "python", script + "\n")
    sight = on_board.look({"folder": str(tmp_path / "there"), "python": str(python)})
    assert (sight["edgeslim"], sight["problem"]) == (None, said)


def test_what_is_no_sign_to_read_is_taken_out() -> None:
    assert clean("a\x1b[31mb\x9b\u202ec\ud800\td\n") == "abc\td\n"
