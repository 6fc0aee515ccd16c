"""The same net, cut to the same measured latency by edgeslim and by Torch-Pruning, and trained alike afterwards.

    python -m tests.benchmarks.latency_peers RECIPE [--set KEY=VALUE] --targets 0.6 0.4 --peer 0.8 --seeds 3 --out DIR

For every target: edgeslim prunes in one shot by the recipe's criterion, mends as the recipe says, and is measured to
take that share of the dense net's latency. Torch-Pruning (l2 magnitude of groups, its default; the same share of every
layer) cuts by many ratios with widths rounded to 16, to 8 and not at all; all of its nets are measured in one race, and
of those that take as long as edgeslim's the one that keeps the most work is taken. Both nets then have the recipe's
fine-tuning with the dense net as teacher, once for every seed: another order of images, and other augmentations. --peer
adds shares that only Torch-Pruning is cut to, so that its latency at equal accuracy can be read off.

Scores are those of the test images, after everything is decided. Torch-Pruning is wrong on shortcuts that pad channels
(docs/results/coverage.md): of a CIFAR ResNet only the channels inside blocks are offered to it.
"""

from __future__ import annotations

import argparse
import copy
import json
import re
import time
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import nn

from edgeslim.bench.profile import Timed, WidthSpace, open_observer
from edgeslim.cli.screen import LogProgress
from edgeslim.errors import DeviceError
from edgeslim.exporter.cost import count_macs
from edgeslim.trainer.evaluate import module_runner
from edgeslim.trainer.fit import fit
from edgeslim.trainer.pruned import PrunedModel
from edgeslim.trainer.recipe import OneShotSchedule, PruneSection, Recipe
from edgeslim.trainer.recipe_file import load_recipe
from edgeslim.trainer.recipe_target import TargetBudget
from edgeslim.trainer.stages import train_dense
from edgeslim.trainer.stages.channels import prune_channels, teacher_of
from edgeslim.trainer.workspace import Workspace, open_workspace

from .peer_cut import cut_by_torch_pruning

NEAR = 0.02
"""How near, as a share, Torch-Pruning's latency must come to edgeslim's."""
ROUNDINGS = (16, 8, None)
STEP = 0.04
"""From one pruning ratio to the next."""
ATTEMPTS = 6


def main() -> None:
    """Print and record a row for every net."""
    parser = argparse.ArgumentParser()
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--targets", type=float, nargs="+", default=[0.5])
    parser.add_argument("--peer", type=float, nargs="*", default=[])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--profile", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's exporter warns about itself
        comparison = Comparison(load_recipe(given.recipe, given.set), given.out, given.profile)
        comparison.run(given.targets, given.peer, given.seeds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dish:
    """One of Torch-Pruning's nets. latency: as a share of the dense one's."""

    ratio: float
    round_to: int | None
    macs: int
    latency: float

    @property
    def name(self) -> str:
        return f"ratio {self.ratio:.2f}, round_to={self.round_to}"


class Comparison:
    """One dense net, and everything that is cut from it."""

    def __init__(self, recipe: Recipe, out: Path, profile: Path | None) -> None:
        self._progress = LogProgress()
        self._workspace: Workspace = open_workspace(recipe, out, self._progress)
        self._profile, self._out = profile, out
        self._dense, _ = train_dense(self._workspace, self._progress)
        self._dense.eval()
        self._example = torch.from_numpy(self._workspace.calibration(1))
        self._observer = open_observer("cpu:1")

    def run(self, targets: list[float], peers: list[float], seeds: int) -> None:
        """Cut, race, train, score. Latencies are measured before anything trains."""
        nets: dict[str, nn.Module] = {"dense": self._dense}
        for share in targets:
            ours = self._edgeslim(share)
            nets[f"edgeslim {share:g}"] = ours
            nets[f"Torch-Pruning {share:g}"] = self._torch_pruning(self._race([self._dense, ours])[1])
        for share in peers:
            nets[f"Torch-Pruning {share:g}"] = self._torch_pruning(share)
        timed = self._timed(list(nets.values()))
        rows = []
        for (name, net), latency in zip(nets.items(), timed, strict=True):
            row = {"net": name, **self._figures(net, latency), "just cut": self._score(net)}
            if name != "dense":
                row["trained"] = [self._trained(net, name, seed) for seed in range(seeds)]
            rows.append(row)
            print(json.dumps(row), flush=True)
        (self._out / "peers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def _edgeslim(self, share: float) -> nn.Module:
        recipe = self._workspace.recipe
        assert recipe.prune is not None
        budget = TargetBudget(name="target", target=f"latency={share:g}x", profile=self._profile)
        section: PruneSection = recipe.prune.model_copy(
            update={"budget": budget, "schedule": OneShotSchedule(name="one_shot")}
        )
        net = PrunedModel.from_module(copy.deepcopy(self._dense), self._example)
        prune_channels(self._workspace, net, section, {}, None, self._progress)
        return net.compact()

    def _torch_pruning(self, share: float) -> nn.Module:
        """Of its nets whose latency is near this share of the dense one's that with the most work; else the nearest."""
        near = [one for one in self._menu if abs(one.latency / share - 1) < NEAR]
        nearest = min(self._menu, key=lambda one: abs(one.latency / share - 1))
        chosen = max(near, key=lambda one: one.macs, default=nearest)
        self._progress.note(f"Torch-Pruning: {share:.3f} wanted, {chosen.latency:.3f} found, {chosen.name}")
        return cut_by_torch_pruning(self._dense, self._example, chosen.ratio, chosen.round_to)

    @cached_property
    def _menu(self) -> list[Dish]:
        """All nets that Torch-Pruning has to offer, measured in one race."""
        nets: dict[tuple[int, ...], tuple[float, int | None, nn.Module]] = {}
        for round_to in ROUNDINGS:
            for ratio in np.arange(STEP, 0.96, STEP):
                net = cut_by_torch_pruning(self._dense, self._example, float(ratio), round_to)
                nets.setdefault(tuple(p.numel() for p in net.parameters()), (float(ratio), round_to, net))
        self._progress.note(f"Torch-Pruning offers {len(nets)} nets")
        timed = self._timed([self._dense, *(net for *_, net in nets.values())], 60.0)[1:]
        return [
            Dish(ratio=ratio, round_to=round_to, macs=self._macs(net), latency=1 / one.against_first.ratio)
            for (ratio, round_to, net), one in zip(nets.values(), timed, strict=True)
        ]

    def _graph(self, net: nn.Module) -> tuple[bytes, WidthSpace]:
        channels = PrunedModel.from_module(net, self._example).channels
        shape = (1, self._workspace.kind.channels, *self._workspace.frame_size)
        dense = tuple((family.width,) for family in channels.families)
        space = WidthSpace(channels=channels, candidates=dense, shape=shape)
        return space.graph(frozenset()), space

    def _timed(self, nets: list[nn.Module], seconds: float = 20.0) -> tuple[Timed, ...]:
        graphs = [self._graph(net) for net in nets]
        for attempt in range(ATTEMPTS):
            try:
                return self._observer.race([graph for graph, _ in graphs], graphs[0][1].feeds, seconds)
            except DeviceError as error:  # another program runs: hours of training should not end by it
                self._progress.note(error.message)
                time.sleep(10.0 * (attempt + 1))
        return self._observer.race([graph for graph, _ in graphs], graphs[0][1].feeds, seconds)

    def _race(self, nets: list[nn.Module]) -> list[float]:
        return [1.0 / one.against_first.ratio for one in self._timed(nets, 4.0)]

    def _macs(self, net: nn.Module) -> int:
        _, space = self._graph(net)
        return count_macs(space.channels.model, space.shape)

    def _figures(self, net: nn.Module, latency: Timed) -> dict[str, float]:
        faster = latency.against_first
        return {
            "latency_ms": latency.latency_ms,
            "share": 1 / faster.ratio,
            "share_low": 1 / faster.high,
            "share_high": 1 / faster.low,
            "macs": self._macs(net),
            "parameters": sum(p.numel() for p in net.parameters()),
        }

    def _trained(self, net: nn.Module, name: str, seed: int) -> dict[str, float | None]:
        """The scores of a copy, fine-tuned."""
        workspace, net = self._workspace, copy.deepcopy(net).train()
        section = workspace.recipe.finetune.fit
        place = self._out / "trained" / re.sub(r"\W+", "-", f"{name} {seed}")
        fit(
            net, workspace.task, section, name="final", seed=workspace.recipe.seed + seed, key=f"{name}, {seed}",
            terms=teacher_of(workspace, self._dense), directory=place, progress=self._progress,
        )  # fmt: skip
        return self._score(net)

    def _score(self, net: nn.Module) -> dict[str, float | None]:
        workspace = self._workspace
        net.eval()
        return dict(workspace.kind.score_test(module_runner(net, workspace.image), workspace.image))


if __name__ == "__main__":
    main()
