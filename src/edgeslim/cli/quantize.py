"""`edgeslim quantize`: further precisions of a bundle's model, measured before they go into it."""

from __future__ import annotations

import json as json_module
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from edgeslim import schema

from . import variant_tables
from .options import Json, Threads
from .screen import open_progress, out, print_json

if TYPE_CHECKING:
    from edgeslim.exporter.precision.request import VariantRequest
    from edgeslim.runtime import Variant


class Kind(str, Enum):
    """The low precisions."""

    fp16 = "fp16"
    int8 = "int8"


def run(
    bundle: Annotated[Path, typer.Argument(help="The bundle, whose model is fp32.", metavar="BUNDLE")],
    calibration: Annotated[
        Path, typer.Option(help="A folder of images, or an .npz of frames: real ones, not the test set's.")
    ],
    precision: Annotated[list[Kind] | None, typer.Option(help="fp16 or int8; may be repeated.")] = None,
    name: Annotated[str | None, typer.Option(help="Another name for the precision, with a single --precision.")] = None,
    images: Annotated[
        int | None, typer.Option(min=1, help="How many calibration images; all there are by default, at most 256.")
    ] = None,
    validation: Annotated[Path | None, typer.Option(help="An .npz of frames and targets to count scores on.")] = None,
    max_loss: Annotated[
        float | None, typer.Option(min=0.0, help="How far the score may fall: 0.001 in fp16, 0.005 in int8.")
    ] = None,
    placement: Annotated[
        Literal["tensorrt", "onnxruntime"], typer.Option(help="int8: for whose fusions Q/DQ nodes are placed.")
    ] = "tensorrt",
    method: Annotated[
        Literal["minmax", "entropy", "percentile", "mse"], typer.Option(help="int8: what ranges are taken from.")
    ] = "mse",
    percentile: Annotated[float, typer.Option(help="int8, method percentile: of absolute values.")] = 99.99,
    equalize: Annotated[
        bool, typer.Option("--equalize", help="int8: even out channels across layers first, for depthwise nets.")
    ] = False,
    bias_correction: Annotated[
        bool, typer.Option("--bias-correction/--no-bias-correction", help="int8: correct biases afterwards.")
    ] = True,
    half: Annotated[bool, typer.Option("--half", help="int8: what is not int8 becomes float16, for TensorRT.")] = False,
    keep: Annotated[list[str] | None, typer.Option(help="A weight whose layer stays in fp32; may be repeated.")] = None,
    search: Annotated[
        bool, typer.Option("--search", help="int8: measure which groups of layers are worth it on this device.")
    ] = False,
    groups: Annotated[int, typer.Option(min=1, help="--search: into how many groups the layers are divided.")] = 12,
    threads: Threads = 1,
    json: Json = False,
) -> None:
    """Make BUNDLE's model in float16 or int8, measure what that loses, and put it into the bundle."""
    from edgeslim.exporter.precision.read_frames import read_frames
    from edgeslim.exporter.precision.variants import add_variants
    from edgeslim.runtime import read_bundle
    from edgeslim.runtime.validation import read_validation

    asked: list[Kind] = precision or list(Kind)
    kinds = tuple(dict.fromkeys(asked))
    if name is not None and len(kinds) != 1:
        raise typer.BadParameter("--name belongs to a single --precision")
    if search and (validation is None or kinds != (Kind.int8,)):
        raise typer.BadParameter("--search needs --precision int8 and --validation")
    if (half or equalize) and Kind.int8 not in kinds:
        raise typer.BadParameter("--half and --equalize are for --precision int8")
    requests = [
        _request(
            kind,
            name or kind.value,
            placement,
            method,
            percentile,
            equalize,
            bias_correction,
            half,
            keep or [],
            max_loss,
        )
        for kind in kinds
    ]
    image = read_bundle(bundle).manifest.image
    with open_progress() as progress:
        progress.stage("data")
        frames = read_frames(calibration, image, images)
        data = None if validation is None else read_validation(validation)
        if search and data is not None:
            from edgeslim.bench.precision import SearchOptions, search_precision

            options = SearchOptions(groups=groups, threads=threads)
            found = search_precision(bundle, requests[0], frames, data, options=options, progress=progress)
            variants: tuple[Variant, ...] = (found,)
        else:
            variants = add_variants(bundle, requests, frames, validation=data, progress=progress)
        if data is None:
            progress.note("no --validation was given: what the precision costs in score is not known")
    if json:
        print_json(json_module.dumps({"bundle": str(bundle), "precisions": schema.to_json(variants)}, indent=2))
        return
    out.print(variant_tables.variants_table(variants))
    for variant in variants:
        for table in variant_tables.details(variant):
            out.print(table)


def _request(
    kind: Kind,
    name: str,
    placement: Literal["tensorrt", "onnxruntime"],
    method: str,
    percentile: float,
    equalize: bool,
    bias_correction: bool,
    half: bool,
    keep: list[str],
    max_loss: float | None,
) -> VariantRequest:
    from edgeslim.exporter.precision import Fp16Options, Int8Options
    from edgeslim.exporter.precision.request import VariantRequest

    if kind is Kind.fp16:
        return VariantRequest(name=name, options=Fp16Options(keep=frozenset(keep)), most_loss=max_loss)
    options = Int8Options(
        placement=placement,
        method=method,
        percentile=percentile,
        equalize=equalize,
        correct_bias=bias_correction,
        keep_float=frozenset(keep),
    )
    return VariantRequest(name=name, options=options, half=half, most_loss=max_loss)
