"""All verbs. A verb's module is small; what it needs from the library is imported when it runs."""

from __future__ import annotations

import typer

from . import bench, compress, doctor, export, inspect, train

app = typer.Typer(
    name="edgeslim",
    help="Takes a CNN from training to a camera: prunes it, proves that nothing changed, measures it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for _module in (compress, train, export, bench, inspect, doctor):
    app.command(name=_module.__name__.rpartition(".")[2])(_module.run)
