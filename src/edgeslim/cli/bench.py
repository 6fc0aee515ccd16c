"""`edgeslim bench`: latency and memory of one bundle, or of two side by side."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from .options import Json, Threads
from .screen import open_progress, out, print_json


def run(
    bundle: Annotated[Path, typer.Argument(help="The bundle to measure.", metavar="BUNDLE")],
    against: Annotated[Path | None, typer.Option(help="Another bundle, measured interleaved with it.")] = None,
    backend: Annotated[
        str, typer.Option(help="onnxruntime, onnxruntime-cuda, tensorrt, tensorrt-rtx, or auto.")
    ] = "onnxruntime",
    precision: Annotated[str, typer.Option(help="fp32, or a precision of the bundle such as int8.")] = "fp32",
    against_backend: Annotated[
        str | None, typer.Option(help="What the other side runs on; alone: BUNDLE against itself.")
    ] = None,
    against_precision: Annotated[
        str | None, typer.Option(help="The other side's precision; alone: BUNDLE against itself.")
    ] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder of engines; BUNDLE.engines by default.")] = None,
    threads: Threads = 1,
    samples: Annotated[int, typer.Option(help="Timed runs of each bundle, at least 20.")] = 100,
    seconds: Annotated[float, typer.Option(help="Stop sampling after this long.")] = 20.0,
    size: Annotated[str | None, typer.Option(metavar="HxW", help="Frame size; the bundle's own by default.")] = None,
    json: Json = False,
) -> None:
    """Measure BUNDLE on this machine."""
    from edgeslim.bench import measure
    from edgeslim.bench.report.table import bench_table

    with open_progress() as progress:
        stages: list[str] = []

        def told(stage: str, done: int, total: int) -> None:
            if stage not in stages:
                stages.append(stage)
                progress.stage(stage, total)
            progress.step(min(done, total), {})

        result = measure(
            bundle,
            against,
            precision=precision,
            backend=backend,
            against_precision=against_precision,
            against_backend=against_backend,
            engines=cache,
            threads=threads,
            samples=samples,
            seconds=seconds,
            frame_size=_size(size),
            progress=told,
        )
    if json:
        print_json(result.to_json())
    else:
        out.print(bench_table(result))


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    found = re.fullmatch(r"([0-9]{1,6})x([0-9]{1,6})", text.lower())
    if found is None:
        raise typer.BadParameter(f"{text!r} is not HEIGHTxWIDTH, such as 480x640", param_hint="--size")
    return int(found[1]), int(found[2])
