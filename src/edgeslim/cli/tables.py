"""Tables that verbs print."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

_LARGEST = 5

if TYPE_CHECKING:
    from edgeslim.bench import Net
    from edgeslim.exporter.memory import Estimate
    from edgeslim.runtime import Manifest
    from edgeslim.runtime.certificate import Certificate
    from edgeslim.runtime.manifest import LayerCoverage, TensorSpec
    from edgeslim.trainer.outcome import Outcome
    from edgeslim.trainer.slim import SlimReport


def outcome_table(outcome: Outcome) -> Table:
    """Dense against compact, one figure a row."""
    title = outcome.name
    if outcome.speedup is not None:
        speed = outcome.speedup
        title += f": {speed.ratio:.2f}x as fast (95 % interval {speed.low:.2f} to {speed.high:.2f})"
    table = Table(title=title, title_justify="left", box=box.SIMPLE)
    table.add_column("")
    for name in ("dense", "compact"):
        table.add_column(name, justify="right")
    table.add_column("change", justify="right")
    for name in outcome.dense.metrics:
        before, after = outcome.dense.metrics[name], outcome.compact.metrics.get(name)
        if after is not None:
            table.add_row(name, f"{before:.4f}", f"{after:.4f}", f"{after - before:+.4f}")
    for label, form, old, new in _figures(outcome.dense, outcome.compact):
        table.add_row(label, _cell(form, old), _cell(form, new), _factor(old, new))
    return table


def stages_table(outcome: Outcome) -> Table:
    """What every stage did to the main score on the validation images: what a cut cost, and what made up for it."""
    from edgeslim.bench.report.comparison import main_metric

    table = Table(title="on the validation images", title_justify="left", box=box.SIMPLE)
    metric = main_metric(list(outcome.stages.values()))
    if metric is None:
        return table
    table.add_column("after")
    for name in (metric, "beside dense"):
        table.add_column(name, justify="right")
    for stage, scores in outcome.stages.items():
        change = scores[metric] - outcome.stages["dense"][metric]
        table.add_row(stage, f"{scores[metric]:.4f}", "" if stage == "dense" else f"{change:+.4f}")
    return table


def manifest_table(manifest: Manifest) -> Table:
    """What a bundle is."""
    table = Table(title=manifest.name, title_justify="left", box=box.SIMPLE, show_header=False)
    table.add_column("", style="bold")
    table.add_column("", overflow="fold")
    sizes, image = manifest.sizes, manifest.image
    rows = [
        ("written by", f"edgeslim {manifest.written_by}, schema {manifest.schema}"),
        *(("input", _tensor(spec)) for spec in manifest.inputs),
        *(("output", _tensor(spec)) for spec in manifest.outputs),
        ("image", f"{image.colour}, sides divisible by {image.size_multiple}, mean {_triple(image.mean)}, "
                  f"std {_triple(image.std)}{', normalised in the graph' if image.embedded else ''}"),
        ("task", manifest.task or "-"),
        ("classes", ", ".join(manifest.classes) or "-"),
        ("parameters", f"{sizes.parameters:,}"),
        *_weight_rows(manifest),
        ("MACs", f"{sizes.macs:,} at {'x'.join(map(str, sizes.macs_shape or ()))}" if sizes.macs else "-"),
        *((name, f"{value:.4f}") for name, value in manifest.metrics.items()),
        *((f"from {name}", value) for name, value in manifest.provenance.items()),
        *((f"file {name}", f"{entry.bytes:,} B  sha256 {entry.sha256[:16]}") for name, entry in manifest.files.items()),
    ]  # fmt: skip
    for label, value in rows:
        table.add_row(label, Text(value))
    return table


def _weight_rows(manifest: Manifest) -> Iterable[tuple[str, str]]:
    """How many weights are left and what the model takes on disk; nothing of a bundle that does not say."""
    sizes, model = manifest.sizes, manifest.model_entry
    if sizes.weights is not None and sizes.nonzero_weights is not None:
        yield "weights", f"{sizes.nonzero_weights:,} of {sizes.weights:,} are not zero (kernels, without biases)"
    if sizes.compression is not None:
        yield (
            "compression",
            (
                f"{sizes.compression:.2f}x = {sizes.dense_weights:,} weights of the dense net / "
                f"{sizes.nonzero_weights:,} that are not zero"
            ),
        )
    stored = manifest.files.get(manifest.stored_model)
    if model is not None and stored is not None:
        words = f"{stored.bytes:,} B in {manifest.stored_model}"
        if manifest.sparse is not None:
            ratio = model.bytes / stored.bytes
            words += f", {ratio:.2f}x less than {manifest.model} with {model.bytes:,} B, indices counted"
        yield "stored model", words


def certificate_table(certificate: Certificate) -> Table:
    """Every stage of the proof."""
    references = ", ".join(dict.fromkeys(stage.reference for stage in certificate.stages))
    title = f"certificate: every form against {references}, on batches x image size"
    table = Table(title=title, title_justify="left", box=box.SIMPLE)
    for name in ("form", "on", "max abs", "max rel", "allowed", ""):
        table.add_column(name, overflow="fold")
    for stage in certificate.stages:
        allowed = f"{stage.atol:.1e} + {stage.rtol:.0e}|b|"
        verdict = Text("passed", "green") if stage.passed else Text("FAILED", "bold red")
        cells = (stage.name, stage.inputs, _error(stage.max_abs), _error(stage.max_rel), allowed)
        table.add_row(*(Text(cell) for cell in cells), verdict)
    for form, reason in certificate.missing.items():
        table.add_row(Text(form), Text(f"not there: {reason}"), "", "", "", Text("-", "yellow"))
    return table


def coverage_table(coverage: Iterable[LayerCoverage]) -> Table:
    """Every layer: width before and after, family or reason."""
    table = Table(title="coverage", title_justify="left", box=box.SIMPLE)
    table.add_column("layer", overflow="fold")
    table.add_column("operator")
    table.add_column("before", justify="right")
    table.add_column("after", justify="right")
    table.add_column("decided with, or why it stayed", overflow="fold")
    for layer in coverage:
        why = Text(layer.reason, "yellow") if layer.reason else Text(layer.family or "")
        table.add_row(Text(layer.layer), layer.operator, str(layer.width_before), str(layer.width_after), why)
    return table


def memory_table(memory: Estimate | str, precision: str) -> Table:
    """What activations will take on this machine's CPU, and the largest of what is alive at the worst moment."""
    table = Table(title=f"activations of {precision}", title_justify="left", box=box.SIMPLE, show_header=False)
    table.add_column("", style="bold")
    table.add_column("", overflow="fold")
    if isinstance(memory, str):
        table.add_row("peak", Text(memory, "yellow"))
        return table
    size = "x".join(map(str, memory.shape))
    table.add_row("arena", f"{memory.arena_bytes:,} B for {size}, estimated for ONNX Runtime on this machine's CPU")
    if memory.peak is not None:
        where = f"{memory.peak.node} ({memory.peak.operator})"
        table.add_row("alive at once", Text(f"{memory.live_bytes:,} B, at {where}"))
        for life in memory.peak.alive[:_LARGEST]:
            table.add_row("", Text(f"{life.bytes:,} B  {life.values[-1]}"))
    return table


def slim_table(report: SlimReport) -> Table:
    """A model file before and after, one figure a row."""
    title = f"{report.dead} dead units removed" + (
        f", {report.cut} more cut" if report.output_error is not None else ""
    )
    table = Table(title=title, title_justify="left", box=box.SIMPLE)
    table.add_column("")
    for name in ("before", "after", "change"):
        table.add_column(name, justify="right")
    for label in ("parameters", "macs", "weight_bytes", "file_bytes"):
        old, new = getattr(report.before, label), getattr(report.after, label)
        name = {"macs": "MACs", "parameters": "parameters"}.get(label, label.replace("_", ", "))
        table.add_row(name, _cell("{:,}", old), _cell("{:,}", new), _factor(old, new))
    table.add_row("opset", str(report.before.opset), str(report.after.opset), "")
    return table


def correction_line(report: SlimReport) -> str:
    """How far the cut net's outputs are from the original's, and what the correction bought."""
    corrected = sum(not c.skipped for c in report.corrections)
    line = f"outputs differ from the uncut net's by {report.output_error:.1%}"
    if report.unseen_inputs:
        line += f" on calibration inputs that were kept aside ({report.unseen_inputs})"
    if corrected:
        line += f"; {report.uncorrected_error:.1%} without the least-squares correction of {corrected} layers"
    return line + ". Measure the accuracy before you ship this net"


def certificate_line(certificate: Certificate) -> str:
    """The certificate in one line."""
    if not certificate.passed:
        return "certificate FAILED"
    worst = max((s.max_abs or 0.0) / s.atol if s.atol else 0.0 for s in certificate.stages)
    stages = len(certificate.stages)
    line = f"certificate passed: {stages} comparisons with the masked net, largest error {worst:.1%} of the tolerance"
    return line + "".join(f"; no {form}: {reason}" for form, reason in certificate.missing.items())


def _figures(dense: Net, compact: Net) -> Iterable[tuple[str, str, float | None, float | None]]:
    yield "parameters", "{:,.0f}", dense.parameters, compact.parameters
    yield "MACs", "{:,.0f}", dense.macs, compact.macs
    yield "model file, bytes", "{:,.0f}", dense.file_bytes, compact.file_bytes
    yield "latency p50, ms", "{:.3f}", dense.latency_ms.p50, compact.latency_ms.p50
    yield "latency p90, ms", "{:.3f}", dense.latency_ms.p90, compact.latency_ms.p90
    yield "latency p99, ms", "{:.3f}", dense.latency_ms.p99, compact.latency_ms.p99
    yield "peak memory, bytes", "{:,.0f}", dense.peak_memory_bytes, compact.peak_memory_bytes


def _cell(form: str, value: float | None) -> str:
    return "not measured" if value is None else form.format(value)


def _factor(before: float | None, after: float | None) -> str:
    return f"{before / after:.2f}x less" if before and after else ""


def _tensor(spec: TensorSpec) -> str:
    return f"{spec.name} {spec.dtype} {spec.layout} [{', '.join(map(str, spec.shape))}]"


def _triple(values: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{v:.4f}" for v in values) + ")"


def _error(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.1e}"
