"""The report of a `compress` run: one HTML file that a browser shows without asking anybody else for anything.

An engineer reads the headline and the cards in half a minute, then digs: figures, plots, pictures, proof, coverage,
provenance. There is no script; a content security policy in the page itself forbids every request. The text depends on
the data alone, so the same run gives the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from edgeslim.runtime.certificate import Certificate, Stage
from edgeslim.runtime.manifest import LayerCoverage, Manifest, TensorSpec

from ..result import BenchResult, Side
from . import comparison, plots
from .answers import AnswerExample, sheet
from .canvas import Plot
from .comparison import Tone
from .examples import Example, gallery
from .numbers import error, percent, score
from .page import machine_facts, settings_facts, template
from .precisions import precisions

__all__ = ["AnswerExample", "Example", "ReportData", "render"]

MOST_EXAMPLES = 4
"""Of masks, each a row of five pictures."""
MOST_ANSWERS = 12
MOST_COLUMNS = 12
_SIGNS: Mapping[Tone, str] = {"bad": "✗", "caution": "!", "good": "✓", "plain": ""}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportData:
    """Everything a report shows. In `bench` the subject is the compact net, `against` the dense one."""

    name: str
    dense: Manifest
    compact: Manifest
    bench: BenchResult
    stages: Mapping[str, Mapping[str, float]]
    """Training stage -> scores on the validation images, in the order of training."""
    notes: tuple[str, ...]
    examples: Sequence[Example] | Sequence[AnswerExample]
    command: str
    """The exact command that made it."""


def render(data: ReportData) -> str:
    """The report as HTML text."""
    verdicts = comparison.verdicts(data.dense, data.compact, data.bench)
    warnings = (*data.bench.warnings, *comparison.findings(data.dense, data.compact, data.bench))
    bad = any(verdict.tone == "bad" for verdict in verdicts)
    coverage = data.compact.coverage
    masks = [example for example in data.examples if isinstance(example, Example)][:MOST_EXAMPLES]
    answers = [example for example in data.examples if isinstance(example, AnswerExample)][:MOST_ANSWERS]
    sections = {
        "name": data.name,
        "headline": comparison.headline(verdicts),
        "calm": not (warnings or data.notes or bad),
        "signs": _SIGNS,
        "verdicts": verdicts,
        "warnings": warnings,
        "notes": data.notes,
        "groups": comparison.comparison(data.dense, data.compact, data.bench),
        "precisions": precisions(data.compact),
        "plots": _plots(data),
        "stages": _stage_scores(data.stages),
        "gallery": gallery(masks, data.compact.classes) if masks else None,
        "sheet": sheet(answers, data.compact.classes) if answers else None,
        "certificates": [(title, _proof_rows(c.stages), c.missing.items()) for title, c in _certificates(data)],
        "coverage": [_coverage_row(layer) for layer in coverage],
        "coverage_summary": _coverage_summary(coverage),
        "command": data.command,
        "provenance": _provenance(data),
        "interface": _interface(data.compact),
        "machine": machine_facts(data.bench.machine),
        "settings": settings_facts(data.bench.settings, data.bench.speedup),
        "written_by": data.bench.written_by,
    }
    return template("template.html.j2").render(sections)


def _certificates(data: ReportData) -> list[tuple[str, Certificate]]:
    """Title and certificate of each net. The compact one's even if it holds nothing, for that must be seen."""
    found: list[tuple[str, Certificate]] = []
    for name, certificate in (("Compact", data.compact.certificate), ("Dense", data.dense.certificate)):
        if certificate.stages or name == "Compact":
            references = {stage.reference for stage in certificate.stages}
            against = f", against {references.pop()}" if len(references) == 1 else ""
            found.append((f"{name} net{against}", certificate))
    return found


def _plots(data: ReportData) -> list[tuple[Plot, Markup]]:
    against, subject = data.bench.against, data.bench.subject
    sides = ({"dense": against.latency} if against else {}) | {"compact": subject.latency}
    drawn = [plots.latency_distribution(sides), plots.latency_in_order(sides)]
    metric = comparison.main_metric(list(data.stages.values()))
    if metric is not None:
        values = {stage: scores[metric] for stage, scores in data.stages.items() if math.isfinite(scores[metric])}
        if values:
            drawn.append(plots.scores_by_stage(values, comparison.metric_name(metric)))
    if data.compact.coverage:  # last, because a deep net makes it fill a column of its own
        drawn.append(plots.channel_widths(data.compact.coverage))
    return [(plot, Markup(plot.svg)) for plot in drawn]  # our own SVG, in which every name is escaped already


def _stage_scores(stages: Mapping[str, Mapping[str, float]]) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Column titles, and one row a stage. Single classes are left out where they would make the table too wide."""
    names = list(dict.fromkeys(name for scores in stages.values() for name in scores))
    if len(names) > MOST_COLUMNS:
        names = [name for name in names if not comparison.is_of_class(name)]
    rows = [(stage, [score(scores.get(name)) for name in names]) for stage, scores in stages.items()]
    return [comparison.metric_name(name) for name in names], rows


def _proof_rows(stages: Sequence[Stage]) -> list[tuple[str, str, str, str, str, bool]]:
    chain = len({stage.reference for stage in stages}) > 1  # else the title names the one reference
    return [
        (
            f"{stage.name} against {stage.reference}" if chain else stage.name,
            stage.inputs,
            error(stage.max_abs),
            error(stage.max_rel),
            f"{error(stage.atol)} + {error(stage.rtol)}·|b|",
            stage.passed,
        )
        for stage in stages
    ]


def _coverage_row(layer: LayerCoverage) -> tuple[LayerCoverage, str, str, str, str]:
    """The layer, its width, the share it kept, the family if it is not the layer alone, and why it stayed."""
    kept = percent(layer.width_after / layer.width_before, 0) if layer.width_before else ""
    why = layer.reason or ("" if layer.width_after < layer.width_before else "kept whole by the plan")
    family = "" if layer.family == layer.layer else layer.family or ""
    width = f"{layer.width_before:,}" + ("" if layer.width_after == layer.width_before else f" → {layer.width_after:,}")
    return layer, width, kept, family, why


def _coverage_summary(layers: Sequence[LayerCoverage]) -> str:
    before, after = sum(layer.width_before for layer in layers), sum(layer.width_after for layer in layers)
    cut = sum(layer.width_after < layer.width_before for layer in layers)
    return f"{cut} of {len(layers)} layers were cut; {after:,} of {before:,} output channels are left."


def _provenance(data: ReportData) -> list[tuple[str, str, str]]:
    """What each net was made from: name, dense, compact."""
    dense, compact, bench = data.dense, data.compact, data.bench
    rows = [
        ("bundle", dense.name, compact.name),
        ("written by edgeslim", dense.written_by, compact.written_by),
        ("manifest, SHA-256 before the report was added", _manifest_hash(bench.against), _manifest_hash(bench.subject)),
        *((f"{label}, SHA-256", _file_hash(dense, label), _file_hash(compact, label)) for label in _files(data)),
    ]
    keys = dict.fromkeys((*dense.provenance, *compact.provenance))
    rows += [(key, dense.provenance.get(key, ""), compact.provenance.get(key, "")) for key in keys]
    return [row for row in rows if row[1] or row[2]]


def _files(data: ReportData) -> list[str]:
    return list(dict.fromkeys((*data.dense.files, *data.compact.files)))


def _file_hash(manifest: Manifest, name: str) -> str:
    entry = manifest.files.get(name)
    return entry.sha256 if entry else ""


def _manifest_hash(side: Side | None) -> str:
    return side.manifest_sha256 if side else ""


def _interface(manifest: Manifest) -> list[tuple[str, str]]:
    image = manifest.image
    mean, std = (", ".join(f"{value:.4g}" for value in values) for values in (image.mean, image.std))
    place = "inside the graph" if image.embedded else "by the caller"
    rows = [("Input " + spec.name, _tensor(spec)) for spec in manifest.inputs]
    rows += [("Output " + spec.name, _tensor(spec)) for spec in manifest.outputs]
    rows.append(("Normalisation", f"{image.colour}, mean {mean}, std {std} of pixels in [0, 1], {place}"))
    rows.append(("Frame sides", f"multiples of {image.size_multiple}" if image.size_multiple > 1 else "any"))
    rows.append(("Task", manifest.task or ""))
    rows.append(("Classes", ", ".join(manifest.classes)))
    return [(label, text) for label, text in rows if text]


def _tensor(spec: TensorSpec) -> str:
    return f"{spec.dtype} {' × '.join(map(str, spec.shape))}" + (f", {spec.layout}" if spec.layout else "")
