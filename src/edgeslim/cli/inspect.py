"""`edgeslim inspect`: what is in a bundle, verified first, which engines there are of it, and what runs it here."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import engine_tables, tables, variant_tables
from .options import Json
from .screen import err, out, print_json

if TYPE_CHECKING:
    from edgeslim.exporter.memory import Estimate
    from edgeslim.runtime import Bundle, Choice


def run(
    bundle: Annotated[Path, typer.Argument(help="A bundle, directory or archive.", metavar="BUNDLE")],
    precision: Annotated[str, typer.Option(help="fp32, or a precision of the bundle: what would run that.")] = "fp32",
    cache: Annotated[Path | None, typer.Option(help="Folder of engines; BUNDLE.engines by default.")] = None,
    layers: Annotated[
        bool, typer.Option("--layers", help="The layers of the engine that would run here, as TensorRT made them.")
    ] = False,
    write_model: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the graph of --precision as an ONNX file.")
    ] = None,
    json: Json = False,
) -> None:
    """Show what BUNDLE takes and gives, its certificate, its coverage, its precisions and engines, and what runs it."""
    from edgeslim import schema
    from edgeslim.runtime import choose, engines_in, read_bundle

    whole = read_bundle(bundle)
    if write_model is not None:
        _write(whole, precision, write_model)
        return
    choice, stored = choose(whole, precision=precision, engines=cache), engines_in(bundle, cache)
    if layers:
        _print_layers(choice)
        return
    manifest, memory = whole.manifest, _memory(whole, precision)
    if json:
        # The keys of the manifest are the bundle's own; what is said of this machine stands beside them.
        machine: dict[str, object] = {
            "engines": [schema.to_json(engine.record) for engine in stored],
            "choice": {"backend": choice.backend, "reason": choice.reason, "passed_over": choice.passed_over},
            "memory": {"problem": memory} if isinstance(memory, str) else schema.to_json(memory),
        }
        print_json(json_module.dumps({**schema.to_json(manifest), "here": machine}, indent=2))  # type: ignore[dict-item]
        return
    for table in (
        tables.manifest_table(manifest),
        tables.certificate_table(manifest.certificate),
        tables.coverage_table(manifest.coverage),
    ):
        out.print(table)
    if manifest.variants:
        out.print(variant_tables.variants_table(manifest.variants))
        for variant in manifest.variants:
            for table in variant_tables.details(variant):
                out.print(table)
    if stored:
        out.print(engine_tables.engines_table(stored))
    out.print(tables.memory_table(memory, precision))
    out.print(engine_tables.choice_table(choice, precision))
    out.print(tables.certificate_line(manifest.certificate), highlight=False)


def _memory(bundle: Bundle, precision: str) -> Estimate | str:
    """The estimate at the bundle's bench size, or why there is none."""
    from edgeslim.errors import EdgeslimError

    try:
        import onnx
        import onnx_ir as ir

        from edgeslim.exporter.memory import estimate_memory
    except ImportError as error:  # a device has an engine to run bundles, and need not have the tools to read graphs
        return f"not estimated: {error}"
    manifest = bundle.manifest
    try:
        graph = ir.from_proto(onnx.load_model_from_string(bundle.graph(precision)))
        return estimate_memory(graph, (1, *manifest.bench_size, manifest.image.channels))
    except EdgeslimError as error:
        return f"not estimated: {error.message}"


def _write(bundle: Bundle, precision: str, path: Path) -> None:
    from edgeslim.atomic import write_bytes

    data = bundle.graph(precision)
    write_bytes(path, data)
    err.print(f"{len(data):,} bytes written to {path}", highlight=False, soft_wrap=True, markup=False)


def _print_layers(choice: Choice) -> None:
    """The layers as JSON: their form is TensorRT's own, and differs between versions."""
    from edgeslim.errors import EngineError

    if choice.engine is None or choice.engine.layers is None:
        why = "it was never loaded on a GPU" if choice.engine is not None else f"what runs here is {choice.backend}"
        raise EngineError(f"there is no account of an engine's layers: {why}", "run `edgeslim build` on the GPU")
    print_json(choice.engine.layers)
