"""`edgeslim export`: a bundle from a run that has been trained, or a smaller ONNX file from one of any origin."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import tables
from .options import AllowForeignProfile, Device, Json, ProfileFile
from .screen import open_progress, out, print_json

if TYPE_CHECKING:
    from edgeslim.trainer.slim import SlimReport

RunArgument = Annotated[
    Path, typer.Argument(help="The directory of a run made by `compress`; with --onnx a model file.", metavar="RUN")
]
BundlePath = Annotated[
    Path, typer.Argument(help="Where the bundle, with --onnx the smaller model, is written.", metavar="BUNDLE")
]


def run(
    run: RunArgument,
    bundle: BundlePath,
    dense: Annotated[bool, typer.Option("--dense", help="The dense net instead of the pruned one.")] = False,
    archive: Annotated[bool, typer.Option("--archive", help="A single file instead of a directory.")] = False,
    no_simplify: Annotated[bool, typer.Option("--no-simplify", help="Leave the graph as it was traced.")] = False,
    onnx: Annotated[
        bool, typer.Option("--onnx", help="RUN and BUNDLE are ONNX files: take the dead channels out of any model.")
    ] = False,
    ratio: Annotated[
        float | None, typer.Option(help="With --onnx: cut this fraction of every family's channels too.")
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="With --onnx: cut to what it may take, such as macs=0.5x or latency=8ms.")
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(help="With --onnx: an .npz file of real inputs, to choose and correct by.", metavar="FRAMES.npz"),
    ] = None,
    width_multiple: Annotated[int, typer.Option(min=1, help="With --onnx: the step in which widths are useful.")] = 1,
    min_share: Annotated[
        float | None, typer.Option(help="With --target: the share of every family that stays; 0.25 where absent.")
    ] = None,
    device: Device = None,
    profile: ProfileFile = None,
    allow_foreign_profile: AllowForeignProfile = False,
    json: Json = False,
) -> None:
    """Write the bundle of a finished RUN again, from its checkpoints, with a new certificate.

    With --onnx: write the model file RUN without its dead channels to BUNDLE.
    """
    if onnx:
        if dense or archive or no_simplify:
            raise typer.BadParameter("--dense, --archive and --no-simplify belong to a RUN, not to --onnx")
        _check_target(target, min_share, any((device, profile, allow_foreign_profile)))
        from edgeslim.trainer.calibration import read_calibration
        from edgeslim.trainer.slim import slim_file

        with open_progress() as progress:
            report = slim_file(
                run,
                bundle,
                ratio=ratio,
                target=target,
                calibration=None if calibration is None else read_calibration(calibration),
                width_multiple=width_multiple,
                min_share=min_share,
                device=device or "cpu:1",
                profile=profile,
                allow_foreign_profile=allow_foreign_profile,
                progress=progress,
            )
        _print_slimmed(report, json)
        return
    given = (ratio, target, min_share, calibration, device, profile)
    if width_multiple != 1 or allow_foreign_profile or any(option is not None for option in given):
        raise typer.BadParameter(
            "--ratio, --target, --min-share, --calibration, --width-multiple, --device, --profile and "
            "--allow-foreign-profile need --onnx"
        )
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


def _check_target(target: str | None, min_share: float | None, on_device: bool) -> None:
    """An option that would have no effect is a mistake: a typing error in it would go unnoticed."""
    if target is None and min_share is not None:
        raise typer.BadParameter("--min-share needs --target")
    if on_device:
        from edgeslim.trainer.budget.targets import parse_target

        if target is None or all(limit.resource != "latency" for limit in parse_target(target)):
            raise typer.BadParameter(
                "--device, --profile and --allow-foreign-profile need a --target that limits the latency"
            )


def _print_slimmed(report: SlimReport, json: bool) -> None:
    from edgeslim import schema

    if json:
        print_json(schema.dumps(report))
        return
    out.print(tables.slim_table(report))
    out.print(tables.coverage_table(report.coverage))
    out.print(tables.certificate_table(report.certificate))
    if report.output_error is not None:
        out.print(tables.correction_line(report), highlight=False)
    if report.reached is not None:
        out.print(str(report.reached), highlight=False)
    out.print(f"model  {report.path}", highlight=False, soft_wrap=True)
