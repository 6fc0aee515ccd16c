"""How well latencies are predicted and targets met on this machine: random plans, targets, and what both cost.

    python -m tests.benchmarks.latency_targets [unet resnet56 mobilenetv3-large] [--targets latency=0.6x]

Nets have random weights: latencies do not depend on them. Every latency is a share of the dense net's, both measured
side by side in one run. --peer also races Torch-Pruning's nets of the same MACs (`pip install torch-pruning==1.6.1`).
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from edgeslim.bench.profile import WidthSpace
from edgeslim.bench.profile.check import check_model, summary
from edgeslim.errors import BudgetError
from edgeslim.exporter.cost import count_macs
from edgeslim.exporter.passes.remove_channels import remove_channels
from edgeslim.progress import Silent
from edgeslim.trainer.budget import WidthLimits
from edgeslim.trainer.budget.registry import build_budget
from edgeslim.trainer.budget.target import Target
from edgeslim.trainer.models.registry import build_model
from edgeslim.trainer.pruned import PrunedModel
from edgeslim.trainer.recipe_target import TargetBudget

from .peer_cut import cut_by_torch_pruning

NETS = {
    "unet": ({"width": 32, "depth": 3}, 2, (192, 192)),
    "resnet56": ({}, 10, (32, 32)),
    "mobilenetv3-large": ({}, 2, (192, 192)),
}
"""Arguments, classes, size of the frame. The last has its LRASPP head."""
TARGETS = ("latency=0.75x", "latency=0.5x", "latency=0.25x")


def main() -> None:
    """Print a table for each question, and record every figure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("nets", nargs="*", default=list(NETS))
    parser.add_argument("--plans", type=int, default=30)
    parser.add_argument("--targets", nargs="+", default=list(TARGETS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--peer", action="store_true")
    parser.add_argument("--record", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in given.nets:
            for row in _measured(name, given, Path(folder) / f"{name}.sqlite"):
                rows.append(row)
                print(json.dumps({key: value for key, value in row.items() if key != "rows"}), flush=True)
    if given.record is not None:
        given.record.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _measured(name: str, given: argparse.Namespace, profile: Path) -> Iterator[dict[str, object]]:
    net, size = _net(name)
    started = time.perf_counter()
    target = _target(net, size, given.targets[0], given.threads, profile)
    model = target.model
    assert model is not None and model.error is not None and target.place is not None
    yield {
        "net": name,
        "what": "profile from nothing",
        "seconds": time.perf_counter() - started,
        "nets_and_operators": target.place.profile.counts(model.device),
        "unseen_median": model.error.median,
        "unseen_worst": model.error.worst,
        "device": str(model.device),
    }
    checked = check_model(target.space, target.place, model, plans=given.plans)
    error = summary(checked)
    yield {
        "net": name,
        "what": "prediction",
        "median": error.median,
        "worst": error.worst,
        "bias": float(np.median([one.error for one in checked])),
        "plans": error.plans,
        "rows": [[one.predicted, one.measured, one.low, one.high, one.dense_ms] for one in checked],
    }
    scores = np.random.default_rng(0).lognormal(0.0, 0.5, len(net.channels.unit_labels))
    for text in given.targets:
        yield _hit(name, net, size, text, given.threads, profile, scores, given.peer)


def _hit(
    name: str,
    net: PrunedModel,
    size: tuple[int, int],
    text: str,
    threads: int,
    profile: Path,
    scores: np.ndarray[tuple[int], np.dtype[np.float64]],
    peer: bool,
) -> dict[str, object]:
    """A target from a warm profile, and the plan raced once more, by samples that no decision was made by."""
    started = time.perf_counter()
    target = _target(net, size, text, threads, profile)
    try:
        cut = target.select(net.channels, scores)
    except BudgetError as error:
        return {"net": name, "what": text, "floor": error.message, "seconds": time.perf_counter() - started}
    seconds = time.perf_counter() - started
    assert target.reached is not None and target.place is not None and target.place.observer is not None
    space = target.space
    compact = remove_channels(net.channels.model, net.channels, cut)
    shape = (1, 3, *size)
    macs = count_macs(compact, shape) / count_macs(net.channels.model, shape)
    peers = _peers(net, shape, macs) if peer else {}
    graphs = [space.graph(frozenset()), space.graph(cut), *(graph for graph, _ in peers.values())]
    _, again, *others = target.place.observer.race(graphs, space.feeds, 15.0)
    faster = again.against_first
    return {
        "net": name,
        "what": text,
        "seconds": seconds,
        "planned": target.reached.ratio,
        "again": 1 / faster.ratio,
        "again_low": 1 / faster.high,
        "again_high": 1 / faster.low,
        "predicted_ms": target.reached.predicted_ms,
        "macs": macs,
        "conversion": faster.ratio * macs,
        "undone": list(target.reached.undone),
        "peers": {
            name: {"macs": own, "share": 1 / timed.against_first.ratio, "conversion": timed.against_first.ratio * own}
            for (name, (_, own)), timed in zip(peers.items(), others, strict=True)
        },
    }


def _peers(net: PrunedModel, shape: tuple[int, ...], macs: float) -> dict[str, tuple[bytes, float]]:
    """Torch-Pruning's nets whose share of the MACs is nearest, by its rounding: their graphs and that share."""
    found = {}
    dense, example = count_macs(net.channels.model, shape), torch.randn(shape)
    for round_to in (None, 8, 16):
        low, high, best = 0.0, 0.95, (b"", np.inf)
        for _ in range(7):
            ratio = (low + high) / 2
            cut = PrunedModel.from_module(cut_by_torch_pruning(net.module, example, ratio, round_to), example)
            share = count_macs(cut.channels.model, shape) / dense
            if abs(share - macs) < abs(best[1] - macs):
                widths = tuple((family.width,) for family in cut.channels.families)
                best = WidthSpace(channels=cut.channels, candidates=widths, shape=shape).graph(frozenset()), share
            low, high = (ratio, high) if share > macs else (low, ratio)
        found[f"Torch-Pruning, round_to={round_to}"] = best
    return found


def _net(name: str) -> tuple[PrunedModel, tuple[int, int]]:
    arguments, classes, size = NETS[name]
    torch.manual_seed(0)
    module = build_model(name, dict(arguments), classes=classes, in_channels=3)
    return PrunedModel.from_module(module, torch.randn(1, 3, *size)), size


def _target(net: PrunedModel, size: tuple[int, int], text: str, threads: int, profile: Path) -> Target:
    section = TargetBudget(name="target", target=text, device=f"cpu:{threads}", profile=profile)
    budget = build_budget(section, WidthLimits(multiple=1, minimum=1), net.channels, (1, 3, *size), progress=Silent())
    assert isinstance(budget, Target)
    return budget


if __name__ == "__main__":
    main()
