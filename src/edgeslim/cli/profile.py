"""`edgeslim profile`: how long operators take on a device, measured once and kept for every planning."""

from __future__ import annotations

import json as json_module
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import profile_tables
from .options import Device, Json, Overrides, ProfileFile
from .screen import open_progress, out, print_json

if TYPE_CHECKING:
    from edgeslim.bench.profile import LatencyModel, Place
    from edgeslim.progress import Progress
    from edgeslim.trainer.budget.target import Target
    from edgeslim.trainer.profiled_net import ProfiledNet

app = typer.Typer(
    help="Measure how long operators take on a device, and keep it in a device profile.", no_args_is_help=True
)

Net = Annotated[Path, typer.Argument(help="A recipe, or the file that `profile net` wrote of one.", metavar="NET")]
Nets = Annotated[
    int | None,
    typer.Option(
        min=8, help="How many plans of the net are measured; as its recipe's target says, or 40, where absent."
    ),
]


@app.command()
def measure(
    net: Net,
    device: Device = None,
    profile: ProfileFile = None,
    nets: Nets = None,
    set_: Overrides = None,
    json: Json = False,
) -> None:
    """Measure what planning for NET needs to know of this device. What was measured before is not measured again."""
    from edgeslim import schema

    with open_progress() as progress:
        planned = _net(net, set_, progress)
        target, model, place = _measured(planned, device, profile, nets, progress, new_device=True)
    found = place.profile
    counted = found.counts(model.device)
    if json:
        content = {
            "profile": str(found.path),
            "device": model.device.digest,
            "nets": counted[0],
            "operators": counted[1],
            "candidates": [list(own) for own in target.space.candidates],
            "error": None if model.error is None else schema.to_json(model.error),
        }
        print_json(json_module.dumps(content, indent=2))
        return
    out.print(profile_tables.devices_table([(model.device, *counted)]))
    out.print(profile_tables.error_line(model.error), highlight=False)
    out.print(f"profile  {found.path}", highlight=False, soft_wrap=True)


@app.command()
def check(
    net: Net,
    device: Device = None,
    profile: ProfileFile = None,
    nets: Nets = None,
    plans: Annotated[int, typer.Option(min=1, help="How many random plans are predicted and measured.")] = 30,
    seed: Annotated[int, typer.Option(min=0, help="Which ones.")] = 1,
    set_: Overrides = None,
    json: Json = False,
) -> None:
    """Predict random plans of NET by the profile, and measure them beside the dense net."""
    from edgeslim import schema
    from edgeslim.bench.profile.check import check_model, summary

    with open_progress() as progress:
        target, model, place = _measured(_net(net, set_, progress), device, profile, nets, progress)
        progress.stage("random plans", plans)
        checked = check_model(
            target.space, place, model, plans=plans, seed=seed, told=lambda done, _: progress.step(done, {})
        )
    if json:
        rows = [{**dict(schema.to_json(one).items()), "error": one.error} for one in checked]  # type: ignore[union-attr]
        content = {"error": schema.to_json(summary(checked)), "plans": rows}
        print_json(json_module.dumps(content, indent=2))
        return
    out.print(profile_tables.checked_table(checked))
    out.print(profile_tables.error_line(summary(checked)), highlight=False)


@app.command("net")
def write(
    recipe: Annotated[Path, typer.Argument(help="The recipe, a YAML file.", metavar="RECIPE")],
    path: Annotated[Path, typer.Argument(help="Where the net is written.", metavar="NET.onnx")],
    set_: Overrides = None,
    json: Json = False,
) -> None:
    """Write the untrained net of RECIPE as one file, to be measured on a device that has no torch."""
    if path.suffix != ".onnx":
        raise typer.BadParameter(f"{path} does not end in .onnx, by which the other verbs tell a net from a recipe")
    from edgeslim.trainer.profiled_net import write_net

    with open_progress() as progress:
        write_net(_net(recipe, set_, progress), path)
    if json:
        print_json(json_module.dumps({"net": str(path)}, indent=2))
        return
    out.print(f"net  {path}\non the device: edgeslim profile measure {path.name}", highlight=False, soft_wrap=True)


@app.command()
def show(
    profile: Annotated[Path | None, typer.Argument(help="The device profile.", metavar="PROFILE")] = None,
    staircase: Annotated[
        str | None, typer.Option(help="Show the staircase of the device whose fingerprint begins so.")
    ] = None,
    json: Json = False,
) -> None:
    """Which devices a profile knows, and how much of each."""
    from edgeslim import schema
    from edgeslim.bench.profile import default_profile_path, find_device, find_step, measure_staircase, open_profile
    from edgeslim.progress import Silent

    path = profile or default_profile_path()
    open_profile(path, must_exist=True).close()
    if staircase is not None:
        if ":" in staircase:
            raise typer.BadParameter("--staircase takes the first digits of a fingerprint, and measures nothing")
        place = find_device(staircase, path, allow_foreign=True)
        measured = measure_staircase(replace(place, observer=None), Silent())  # also of this machine: what is known
        step = find_step(measured)
        if json:
            print_json(json_module.dumps({"latency_us": measured, "step": schema.to_json(step)}, indent=2))
            return
        out.print(profile_tables.staircase_lines(measured, step), highlight=False)
        return
    with open_profile(path, must_exist=True) as opened:
        rows = [(device, *opened.counts(device)) for device in opened.devices]
    if json:
        devices = [
            {"device": device.digest, "fingerprint": schema.to_json(device), "nets": nets, "operators": operators}
            for device, nets, operators in rows
        ]
        print_json(json_module.dumps({"profile": str(path), "devices": devices}, indent=2))
        return
    out.print(profile_tables.devices_table(rows))
    out.print(f"profile  {path}", highlight=False, soft_wrap=True)


@app.command()
def merge(
    into: Annotated[Path, typer.Argument(help="The profile that is added to; made where it is not there.")],
    profiles: Annotated[list[Path], typer.Argument(help="Profiles to take over from.")],
    device: Annotated[
        str | None, typer.Option(help="Only the device whose fingerprint begins with these digits.")
    ] = None,
    json: Json = False,
) -> None:
    """Take over what other profiles know; of a net that both know, the newer measurement."""
    from edgeslim.bench.profile import open_profile
    from edgeslim.errors import ConfigError

    taken = 0
    with ExitStack() as stack:
        sources = []
        for path in profiles:
            source = stack.enter_context(open_profile(path, must_exist=True))
            wanted = [own for own in source.devices if device is None or own.digest.startswith(device)]
            if not wanted:
                raise ConfigError(f"{path} knows no device {device or ''}".rstrip(), "see `edgeslim profile show`")
            sources.append((source, wanted))
        target = stack.enter_context(open_profile(into))
        for source, wanted in sources:
            taken += target.merge(source, wanted)
    if json:
        print_json(json_module.dumps({"profile": str(into), "nets": taken}, indent=2))
        return
    out.print(f"{taken} nets taken over into {into}", highlight=False, soft_wrap=True)


def _measured(
    net: ProfiledNet,
    device: str | None,
    profile: Path | None,
    nets: int | None,
    progress: Progress,
    *,
    new_device: bool = False,
) -> tuple[Target, LatencyModel, Place]:
    """The model of a net on a device, with what is missing for it measured."""
    from edgeslim.errors import InvariantError

    target = net.target(progress, device=device, profile=profile, nets=nets, new_device=new_device)
    model = target.model
    if model is None or target.place is None:
        raise InvariantError("a latency was limited, and nothing was measured")
    return target, model, target.place


def _net(path: Path, overrides: list[str] | None, progress: Progress) -> ProfiledNet:
    from edgeslim.trainer.profiled_net import net_of_recipe, read_net

    if path.suffix == ".onnx":
        if overrides:
            raise typer.BadParameter("--set changes a recipe, and NET is an ONNX file")
        return read_net(path)
    from edgeslim.trainer.recipe_file import load_recipe

    return net_of_recipe(load_recipe(path, overrides or ()), progress)
