"""`edgeslim export`: a bundle from a run that has been trained."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Annotated

import typer

from . import tables
from .options import Json
from .screen import open_progress, out, print_json

RunArgument = Annotated[Path, typer.Argument(help="The directory of a run made by `compress`.", metavar="RUN")]
BundlePath = Annotated[Path, typer.Argument(help="Where the bundle is written.", metavar="BUNDLE")]


def run(
    run: RunArgument,
    bundle: BundlePath,
    dense: Annotated[bool, typer.Option("--dense", help="The dense net instead of the pruned one.")] = False,
    archive: Annotated[bool, typer.Option("--archive", help="A single file instead of a directory.")] = False,
    no_simplify: Annotated[bool, typer.Option("--no-simplify", help="Leave the graph as it was traced.")] = False,
    json: Json = False,
) -> None:
    """Write the bundle of a finished RUN again, from its checkpoints, with a new certificate."""
    from edgeslim.runtime import read_bundle
    from edgeslim.trainer.reexport import export_run

    with open_progress() as progress:
        path = export_run(run, bundle, progress, dense=dense, archive=archive, simplify=not no_simplify)
    manifest = read_bundle(path).manifest
    if json:
        content = {"bundle": str(path), "certificate": {"passed": manifest.certificate.passed}}
        print_json(json_module.dumps(content, indent=2))
        return
    out.print(tables.certificate_line(manifest.certificate), highlight=False)
    out.print(f"bundle  {path}", highlight=False, soft_wrap=True)
