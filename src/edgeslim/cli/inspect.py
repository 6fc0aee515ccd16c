"""`edgeslim inspect`: what is in a bundle, verified first."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import tables
from .options import Json
from .screen import out, print_json


def run(
    bundle: Annotated[Path, typer.Argument(help="A bundle, directory or archive.", metavar="BUNDLE")],
    json: Json = False,
) -> None:
    """Show what BUNDLE takes and gives, its certificate, its coverage and where it came from."""
    from edgeslim import schema
    from edgeslim.runtime import read_bundle

    manifest = read_bundle(bundle).manifest
    if json:
        print_json(schema.dumps(manifest))
        return
    for table in (
        tables.manifest_table(manifest),
        tables.certificate_table(manifest.certificate),
        tables.coverage_table(manifest.coverage),
    ):
        out.print(table)
    out.print(tables.certificate_line(manifest.certificate), highlight=False)
