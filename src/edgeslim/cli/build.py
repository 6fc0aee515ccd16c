"""`edgeslim build`: an engine of TensorRT from a bundle, on the machine that will run it."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from edgeslim import schema
from edgeslim.progress import Progress

from . import engine_tables
from .options import Json
from .remote_build import REMOTE_PYTHON, Identity, Remote, RemoteDirectory, RemotePython, build_there
from .screen import open_progress, out, print_json

if TYPE_CHECKING:
    from edgeslim.exporter.engine import BuildOptions, Built

Backend = Annotated[Literal["tensorrt", "tensorrt-rtx"], typer.Option(help="Which TensorRT builds and runs it.")]
Precisions = Annotated[
    list[str] | None,
    typer.Option("--precision", help="fp32, or a precision of the bundle such as fp16, int8; may be repeated."),
]


_HERE = frozenset({"bundle", "cache", "json", "print_trtexec", "remote", "remote_python", "remote_dir", "identity"})
"""Options that are for this machine, and not passed on to a board."""


def run(
    context: typer.Context,
    bundle: Annotated[Path, typer.Argument(help="The bundle.", metavar="BUNDLE")],
    backend: Backend = "tensorrt",
    precision: Precisions = None,
    sm: Annotated[
        str | None, typer.Option(help="With tensorrt-rtx: GPUs to build for, such as 86,89, on any machine.")
    ] = None,
    frames: Annotated[
        str | None,
        typer.Option(metavar="NxHxW[:NxHxW:NxHxW]", help="Batches it takes: one size, or smallest:usual:largest."),
    ] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder of engines; BUNDLE.engines by default.")] = None,
    validation: Annotated[
        Path | None, typer.Option(help="An .npz of frames and targets that the engine must answer well.")
    ] = None,
    max_loss: Annotated[float, typer.Option(min=0.0, help="With --validation: how far the score may fall.")] = 0.005,
    workspace: Annotated[str | None, typer.Option(help="Most scratch memory of a layer, such as 512M.")] = None,
    tactic_memory: Annotated[str | None, typer.Option(help="Most memory to try kernels in, such as 1G.")] = None,
    max_tactics: Annotated[int | None, typer.Option(min=1, help="Most kernels that are tried for a layer.")] = None,
    level: Annotated[int | None, typer.Option(min=0, max=5, help="How long to search: 0 to 5.")] = None,
    tf32: Annotated[bool, typer.Option("--tf32", help="Let fp32 layers round what they read to 10 bits.")] = False,
    sparse: Annotated[
        bool | None, typer.Option("--sparse/--no-sparse", help="Kernels for 2:4 weights; where there are such.")
    ] = None,
    dla: Annotated[int | None, typer.Option(min=0, help="Build for this DLA core of a Jetson.")] = None,
    gpu_fallback: Annotated[
        bool, typer.Option("--gpu-fallback/--no-gpu-fallback", help="Layers that the DLA does not know run on the GPU.")
    ] = True,
    compatible: Annotated[
        Literal["none", "ampere-plus", "same-compute-capability"], typer.Option(help="Other GPUs that may load it.")
    ] = "none",
    version_compatible: Annotated[
        bool, typer.Option("--version-compatible", help="Let later TensorRT versions load it.")
    ] = False,
    timing_cache: Annotated[
        bool, typer.Option("--timing-cache/--no-timing-cache", help="Keep timings for the next build.")
    ] = True,
    print_trtexec: Annotated[
        bool, typer.Option("--print-trtexec", help="Build nothing: print the same build as lines for trtexec.")
    ] = False,
    remote: Remote = None,
    remote_python: RemotePython = REMOTE_PYTHON,
    remote_dir: RemoteDirectory = None,
    identity: Identity = None,
    json: Json = False,
) -> None:
    """Build an engine of BUNDLE on this machine, run it on the golden vectors, and keep it beside the bundle.

    With --remote: on a board, by the edgeslim that is installed there.
    """
    if remote is not None:
        if validation is not None or print_trtexec:
            raise typer.BadParameter("--validation and --print-trtexec belong to this machine: leave out --remote")
        from edgeslim.runtime.engines import engines_folder

        build_there(
            bundle,
            remote,
            _as_given(context),
            cache or engines_folder(bundle),
            remote_python=remote_python,
            remote_dir=remote_dir,
            identity=identity,
            json=json,
        )
        return
    from edgeslim.exporter.engine import BuildOptions, build_engine, parse_bytes, parse_frames, parse_targets
    from edgeslim.runtime.validation import read_validation

    asked = [
        BuildOptions(
            backend=backend,
            precision=name,
            targets=parse_targets(sm),
            frames=None if frames is None else parse_frames(frames),
            workspace_bytes=None if workspace is None else parse_bytes(workspace, "--workspace"),
            tactic_bytes=None if tactic_memory is None else parse_bytes(tactic_memory, "--tactic-memory"),
            max_tactics=max_tactics,
            level=level,
            tf32=tf32,
            sparse=sparse,
            dla_core=dla,
            gpu_fallback=gpu_fallback,
            compatibility=compatible,
            version_compatible=version_compatible,
            timing_cache=timing_cache,
        )
        for name in dict.fromkeys(precision or ["fp32"])
    ]
    if print_trtexec:
        _print_trtexec(bundle, asked, json)
        return
    data = None if validation is None else read_validation(validation)
    with open_progress() as progress:
        built = [
            build_engine(bundle, options, cache=cache, validation=data, most_loss=max_loss, progress=progress)
            for options in asked
        ]
        _tell_notes(built, progress)
    if json:
        print_json(json_module.dumps({"engines": [_as_json(each) for each in built]}, indent=2))
        return
    for each in built:
        out.print(engine_tables.engine_table(each))


def _as_given(context: typer.Context) -> list[str]:
    """The options that were typed and are for whoever builds, as they could be typed again."""
    words: list[str] = []
    for option in context.command.params:
        name, source = option.name or "", context.get_parameter_source(option.name or "")
        if name in _HERE or source is None or source.name != "COMMANDLINE":
            continue
        value = context.params[name]
        if isinstance(value, bool):
            words.append(option.opts[0] if value else option.secondary_opts[0])
        else:
            each = value if isinstance(value, (list, tuple)) else [value]
            words += [word for one in each for word in (option.opts[0], str(one))]
    return words


def _tell_notes(built: list[Built], progress: Progress) -> None:
    for each in built:
        for note in each.stored.record.notes:
            progress.note(note)


def _as_json(built: Built) -> dict[str, object]:
    stored = built.stored
    return {
        "engine": str(stored.path),
        "sidecar": str(stored.path.with_suffix(".json")),
        "sha256": stored.record.engine.sha256,
        "bytes": stored.record.engine.bytes,
        "precision": stored.record.spec.precision,
        "reused": built.reused,
        "record": schema.to_json(stored.record),
    }


def _print_trtexec(bundle: Path, asked: list[BuildOptions], json: bool) -> None:
    from edgeslim.exporter.engine import trtexec_line
    from edgeslim.exporter.engine.frames import frames_of
    from edgeslim.runtime import read_bundle

    read = read_bundle(bundle)
    lines = [
        {
            "precision": options.precision,
            "tensorrt 8": trtexec_line(read, options, frames_of(read, options.frames)[0], typed=False),
            "tensorrt 10 and later": trtexec_line(read, options, frames_of(read, options.frames)[0], typed=True),
        }
        for options in asked
    ]
    if json:
        print_json(json_module.dumps({"trtexec": lines}, indent=2))
        return
    out.print(
        f"# the ONNX file: edgeslim inspect {bundle} --write-model FILE [--precision ...]",
        highlight=False,
        soft_wrap=True,
        markup=False,
    )
    for line in lines:
        for name in ("tensorrt 8", "tensorrt 10 and later"):
            out.print(f"# {line['precision']}, {name}", highlight=False)
            out.print(line[name], highlight=False, soft_wrap=True, markup=False)
