"""The main job for several levels of a recipe's budget: one dense net, a compact net a level, measured side by side.

    data -> dense -> ...                       the stages that no budget has a say in, once
    for every point, the loosest first:        cut, recover, fine-tune -> bundle, certificate, scores
    latency of all of them, interleaved        so that any two can be compared
    front/<point>/...                          a run's files for every point
    front.json, report.html                    which of them nobody beats

Every point starts from the same shared net, not from the point before: it is what `compress` would make of its recipe,
whatever other points there are. See docs/adr/0020.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from edgeslim.atomic import write_text
from edgeslim.bench import BenchResult, Net, Speedup, check_threads, net_of
from edgeslim.bench.front import Front, FrontPoint, decided
from edgeslim.bench.report.front import FrontPage, render_front
from edgeslim.errors import ConfigError, EdgeslimError, UnsupportedGraphError
from edgeslim.exporter.plan import PruningPlan
from edgeslim.progress import Progress
from edgeslim.runtime import Manifest

from ..budget.reached import Reached
from ..bundles import COMPACT, export_dense, export_net, score_bundle
from ..notebook import Named, Notebook
from ..precisions import make_precisions, write_validation
from ..recipe import Recipe
from ..results import REPORT, measure_nets, write_results
from ..stages import Begun, analyze_net, check_budget, train_rest, train_shared
from ..task import Numbers
from ..workspace import Workspace, open_workspace
from .points import FRONT, Point, level_points

RESULT = "front.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    """A point that is trained and exported. log: what it had to say.  same_plan: looser points with the same plan."""

    point: Point
    workspace: Workspace
    log: Notebook
    bundle: Path
    manifest: Manifest
    plan: PruningPlan
    scores: Mapping[str, Numbers]
    reached: Reached | None
    same_plan: tuple[str, ...] = ()


def compress_front(recipe: Recipe, directory: Path, points: int, progress: Progress, command: str = "") -> Front:
    """Run the recipe at `points` levels of its budget in `directory`; stages that are finished there are reused.

    command: what the user typed, for the reports. Raises EdgeslimError for whatever can go wrong; what goes wrong with
    one point names it, and the points before it are on the disk.
    """
    levels = level_points(recipe, points)
    check_threads(recipe.bench.threads)
    folder = directory / FRONT
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file, and the points of the front would lie there", "choose another --out")
    log = Notebook(progress=progress)
    workspace = open_workspace(recipe, directory, log)
    net = analyze_net(workspace, log)
    if not net.channels.families:
        raise UnsupportedGraphError(
            f"a front needs channels that can be pruned: {net.coverage.summary}",
            "leave out --pareto, or use another net",
        )
    for point in levels:
        with _naming(point, points):
            check_budget(workspace, point.prune, net, progress)
    begun = train_shared(workspace, net, log)
    of_all = tuple(log.notes)
    workspace.save_recipe()
    dense = export_dense(workspace, begun.dense, net.channels, log)
    write_validation(workspace)
    dense_manifest = score_bundle(workspace, dense, log)
    made: list[_Made] = []
    for point in levels:
        with _naming(point, points):
            made = _merged(made, _make(workspace, point, points, begun.again(), log, of_all), log)
    results = measure_nets(recipe.bench, dense, [one.bundle for one in made], log)
    for one, result in zip(made, results):
        with _naming(one.point, points):
            manifests = (dense_manifest, one.manifest)
            write_results(
                one.workspace, (dense, one.bundle), manifests, result, one.scores, one.reached, command, one.log
            )
    _note_what_is_left(directory, levels, log)
    against = results[0].against or results[0].subject
    start = _place("dense", 0.0, begun.scores["dense"], net_of(dense_manifest, against, str(dense)))
    first, *others = decided((start, *map(_point_of, made, results)), workspace.task.score)
    front = Front(
        name=recipe.name,
        metric=workspace.task.score,
        dense=first,
        points=tuple(others),
        report=str(directory / REPORT),
        notes=tuple(log.notes),
    )
    log.stage("report")
    page = FrontPage(front=front, benches=results, links=_links(made), command=command)
    write_text(directory / REPORT, render_front(page))
    write_text(directory / RESULT, front.to_json())
    return front


def _make(
    workspace: Workspace, point: Point, points: int, begun: Begun, progress: Progress, of_all: Sequence[str]
) -> _Made:
    """Train, export and score one point. of_all: what was said of all points, and belongs into its report too."""
    own = replace(workspace, recipe=point.recipe, directory=point.directory(workspace.directory), parent=workspace)
    log = Notebook(progress=Named(progress=progress, name=_title(point, points)), notes=list(of_all))
    trained = train_rest(own, begun, log)
    own.save_recipe()
    if not trained.pruned.cut:
        log.note("no channel was cut: the level lies above the next narrower widths")
    bundle = export_net(own, trained.pruned, COMPACT, log)
    make_precisions(own, bundle, log)
    return _Made(
        point=point,
        workspace=own,
        log=log,
        bundle=bundle,
        manifest=score_bundle(own, bundle, log),
        plan=trained.pruned.plan,
        scores=trained.scores,
        reached=trained.pruned.reached,
    )


def _merged(made: Sequence[_Made], new: _Made, progress: Progress) -> list[_Made]:
    """All of them, a looser one with the same plan counted as the new one's: the stricter budget is kept as well."""
    kept = [one for one in made if one.plan != new.plan]
    twins = tuple(name for one in made if one.plan == new.plan for name in (*one.same_plan, one.point.name))
    if twins:
        progress.note(
            f"{new.point.name} cuts the same channels as {', '.join(twins)}: they are one point of the front "
            "(prune.width_multiple decides how far apart widths are)"
        )
    return [*kept, replace(new, same_plan=twins)]


def _point_of(made: _Made, result: BenchResult) -> FrontPoint:
    net = net_of(made.manifest, result.subject, str(made.bundle))
    place = _place(made.point.name, made.point.share, made.scores["final"], net, result.speedup)
    return replace(place, same_plan=made.same_plan, report=str(made.workspace.directory / REPORT))


def _place(name: str, share: float, scores: Numbers, net: Net, speed: Speedup | None = None) -> FrontPoint:
    """A net whose place on the front nobody has decided yet. scores: on the validation images."""
    return FrontPoint(
        name=name,
        share=share,
        validation=scores,
        net=net,
        speedup=speed,
        dominated_by=None,
        same_plan=(),
        report=None,
    )


def _links(made: Sequence[_Made]) -> Mapping[str, str]:
    """Name of a point -> where its report lies beside the front's, as a relative address."""
    return {one.point.name: f"{FRONT}/{one.point.name}/{REPORT}" for one in made}


def _note_what_is_left(directory: Path, levels: Sequence[Point], progress: Progress) -> None:
    """Nets of an earlier front are somebody's, and no part of this one."""
    known = {point.name for point in levels}
    others = sorted(entry.name for entry in (directory / FRONT).iterdir() if entry.name not in known)
    if others:
        progress.note(
            f"{directory / FRONT} has points of an earlier front, which are left as they are: {', '.join(others)}"
        )


def _title(point: Point, points: int) -> str:
    return f"{point.number}/{points} {point.name}"


@contextmanager
def _naming(point: Point, points: int) -> Iterator[None]:
    """An error within is one of this point, and says so."""
    try:
        yield
    except EdgeslimError as error:
        error.message = f"point {_title(point, points)}: {error.message}"
        raise
