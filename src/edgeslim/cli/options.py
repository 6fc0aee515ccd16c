"""Options that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

RecipeFile = Annotated[Path, typer.Argument(help="The recipe, a YAML file.", metavar="RECIPE")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY.PATH=VALUE", help="Change one entry of the recipe; may be repeated."),
]
RunDirectory = Annotated[Path | None, typer.Option("--out", help="Where the run lives; runs/<recipe name> by default.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Start over: remove what an earlier run left in --out.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Devices = Annotated[
    int,
    typer.Option("--devices", min=1, help="Processes on each machine, one a GPU; more than 1 by torchrun."),
]
NumNodes = Annotated[int, typer.Option("--num-nodes", min=1, help="Machines.")]
StrategyName = Annotated[
    Literal["ddp", "fsdp"],
    typer.Option("--strategy", help="ddp: every process has the whole net. fsdp: its weights are shared out."),
]
Threads = Annotated[int, typer.Option(min=1, help="Threads of the inference engine.")]
Device = Annotated[
    str | None,
    typer.Option(
        help="cpu:N is ONNX Runtime on this CPU with N threads (cpu:1 where absent); or the first digits of a device's "
        "fingerprint."
    ),
]
ProfileFile = Annotated[
    Path | None, typer.Option("--profile", help="The device profile; one in the user's cache where absent.")
]
AllowForeignProfile = Annotated[
    bool,
    typer.Option(
        "--allow-foreign-profile",
        help="Plan by the profile of a device that is not here; nothing is measured, and the manifest says so.",
    ),
]
