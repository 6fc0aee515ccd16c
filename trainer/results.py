"""What compact nets are beside the dense one: measured, and written down as report.html, bench.json, result.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from edgeslim.atomic import write_text
from edgeslim.bench import BenchResult, measure_each, net_of
from edgeslim.bench.report.html import ReportData, render
from edgeslim.exporter.bundle import amend_bundle
from edgeslim.exporter.channels import Coverage
from edgeslim.progress import Progress
from edgeslim.runtime import Manifest

from .budget.reached import Reached
from .bundles import examples
from .notebook import Notebook
from .outcome import Outcome
from .recipe import BenchSection
from .task import Numbers
from .workspace import Workspace

REPORT = "report.html"


def measure_nets(
    section: BenchSection, dense: Path, compacts: Sequence[Path], progress: Progress
) -> tuple[BenchResult, ...]:
    """Every compact bundle against the dense one, all in one interleaved run.

    Each has the time that two bundles would have between them: `section.seconds` is for two.
    """
    progress.stage("bench", section.samples)

    def told(stage: str, done: int, total: int) -> None:
        if stage == "samples":
            progress.step(min(done, section.samples), {})

    return measure_each(
        compacts,
        dense,
        threads=section.threads,
        samples=section.samples,
        seconds=section.seconds * (1 + len(compacts)) / 2,
        progress=told,
    )


def write_results(
    workspace: Workspace,
    bundles: tuple[Path, Path],
    manifests: tuple[Manifest, Manifest],
    result: BenchResult,
    stages: Mapping[str, Numbers],
    reached: Reached | None,
    command: str,
    log: Notebook,
) -> Outcome:
    """Write the three files into the workspace's directory, and the report into the compact bundle too.

    bundles, manifests: dense and compact, scored.  result: of compact against dense.  stages: training stage -> scores
    on the validation images.  reached: by the plan, of what a target limits.  log: what the run has said.
    """
    if result.speedup is not None and result.speedup.low <= 1.0:
        log.note("the compact net is not measurably faster than the dense one on this machine")
    directory, name = workspace.directory, workspace.recipe.name
    dense, compact = manifests
    data = ReportData(
        name=name,
        dense=dense,
        compact=compact,
        bench=result,
        stages=stages,
        notes=tuple(log.notes),
        examples=examples(workspace, bundles),
        command=command,
    )
    log.stage("report")
    html = render(data)
    report = directory / REPORT
    write_text(report, html)
    amend_bundle(bundles[1], files={REPORT: html.encode()})
    write_text(directory / "bench.json", result.to_json())
    outcome = Outcome(
        name=name,
        dense=net_of(dense, result.against or result.subject, str(bundles[0])),
        compact=net_of(compact, result.subject, str(bundles[1])),
        speedup=result.speedup,
        reached=reached,
        certificate=compact.certificate,
        coverage=compact.coverage,
        coverage_summary=Coverage(compact.coverage).summary,
        precisions=compact.variants,
        bundle=str(bundles[1]),
        report=str(report),
        stages=stages,
        notes=tuple(log.notes),
    )
    write_text(directory / "result.json", outcome.to_json())
    return outcome
