"""All verbs. A verb's module is small; what it needs from the library is imported when it runs."""

from __future__ import annotations

import importlib.metadata
from typing import Annotated

import typer

from . import bench, build, compress, doctor, export, inspect, profile, quantize, train
from .screen import out

app = typer.Typer(
    name="edgeslim",
    help="Takes a CNN from training to a camera: prunes it, proves that nothing changed, measures it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        out.print(f"edgeslim {importlib.metadata.version('edgeslim')}", highlight=False)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options before the verb."""


for _module in (compress, train, export, quantize, build, bench, inspect, doctor):
    app.command(name=_module.__name__.rpartition(".")[2])(_module.run)
app.add_typer(profile.app, name="profile")
