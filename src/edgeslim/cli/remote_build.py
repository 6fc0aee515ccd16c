"""The side of `edgeslim build` that works on another machine: --remote and what belongs to it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from edgeslim.errors import DeviceError

from .screen import open_progress, out, print_json

Remote = Annotated[
    str | None,
    typer.Option("--remote", metavar="ssh://USER@HOST[:PORT]", help="Build on that board, and bring the engine back."),
]
RemotePython = Annotated[
    str, typer.Option("--remote-python", metavar="PATH", help="With --remote: the Python there that has edgeslim.")
]
RemoteDirectory = Annotated[
    str | None,
    typer.Option("--remote-dir", metavar="DIR", help="With --remote: the folder there; ~/.cache/edgeslim by default."),
]
Identity = Annotated[
    Path | None, typer.Option("--identity", metavar="KEY", help="With --remote: the private key to sign in with.")
]
REMOTE_PYTHON = "python3"


def build_there(
    bundle: Path,
    remote: str,
    arguments: Sequence[str],
    cache: Path,
    *,
    remote_python: str = REMOTE_PYTHON,
    remote_dir: str | None = None,
    identity: Path | None = None,
    json: bool = False,
) -> None:
    """Build BUNDLE on the board `remote` and print what came back, in the way `edgeslim build` prints its own.

    arguments: the options of `edgeslim build` that are for the board, as they were given. cache: where engines go here.
    """
    try:
        from edgeslim import schema
        from edgeslim.exporter.remote import build_remote, parse_address
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in ("asyncssh", "cryptography"):
            raise
        raise DeviceError(
            f"--remote needs the package {error.name}, which is not installed", "pip install 'edgeslim[remote]'"
        ) from error

    address = parse_address(remote)
    with open_progress() as progress:
        done = build_remote(
            bundle,
            address,
            arguments,
            cache,
            progress,
            python=remote_python,
            directory=remote_dir,
            identity=identity,
        )
    if json:
        content = {
            "remote": done.address,
            "engines": [
                {
                    "engine": str(one.engine),
                    "sidecar": str(one.sidecar),
                    "sha256": one.sha256,
                    "bytes": one.bytes,
                    "precision": one.precision,
                }
                for one in done.engines
            ],
            "report": str(done.report_path),
            "board": {"folder": done.folder, "python": done.python, "edgeslim": done.edgeslim, "doctor": done.report},
            "build": done.answer,
            "attached": done.attached,
            "sent": done.sent,
            "fetched": done.fetched,
        }
        print_json(schema.dumps(content))
        return
    table = Table(title=f"built on {address.shown}", title_justify="left", box=box.SIMPLE)
    for column in ("precision", "bytes", "SHA-256", "engine"):
        table.add_column(column, overflow="fold")
    for one in done.engines:
        table.add_row(escape(one.precision), f"{one.bytes:,}", one.sha256[:12], escape(str(one.engine)))
    out.print(table)
    out.print(f"report of the board  {done.report_path}", highlight=False, soft_wrap=True, markup=False)
