"""How much of a net is open to pruning, and is the result right: edgeslim beside Torch-Pruning, on the same nets.

    pip install --group peers --no-deps
    python -m tests.benchmarks.coverage_peers [name ...]

A channel counts as open if the tool offers it to its planner: output channels of all weighted layers that run.
Half of them go at random. `equal` means that the smaller net computes what the dense one does with the same channels
set to zero (weights and biases of the layers that produce them, scales and shifts of their batch norms), `wrong`
that it runs and does not; `exception` that it cannot be pruned or not be run afterwards. Layers that compute the net's
output are named to Torch-Pruning as ignored, as its users must. One process a net, one thread.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import json
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import nn

from edgeslim.exporter.trace import flatten_outputs
from tests.torch.test_channels import EQUAL as SMALL
from tests.zoo.check import TOLERANCE, alive, check, largest_error
from tests.zoo.patterns import EQUAL
from tests.zoo.vision import zoo

LIMIT_S = 60
"""How long Torch-Pruning may think about one net."""

PATIENCE_S = 600
"""How long the process of one net may take in all."""

ZOO = (
    "alexnet", "convnext_tiny", "deeplabv3_mobilenet_v3_large", "densenet121", "efficientnet_b0",
    "efficientnet_v2_s", "fcn_resnet50", "googlenet", "inception_v3", "lraspp_mobilenet_v3_large", "mnasnet1_0",
    "mobilenet_v2", "mobilenet_v3_small", "regnet_x_400mf", "regnet_y_400mf", "resnet18", "resnet50",
    "resnext50_32x4d", "shufflenet_v2_x1_0", "squeezenet1_1", "vgg11_bn",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One tool on one net, None where it did not come so far.

    share: of the output channels that are open. cut: of the output channels that went when half were asked for.
    """

    share: float | None
    cut: float | None = None
    verdict: str
    detail: str = ""


class _TooLong(Exception):
    """The time for one net is over."""


def main() -> None:
    """Print a Markdown table, one row a net."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.coverage_peers")
    parser.add_argument("names", nargs="*", metavar="name")
    parser.add_argument("--one", action="store_true", help="a single net, in this process: print JSON")
    parser.add_argument("--out", type=Path, help="where the rows go as JSON")
    given = parser.parse_args()
    if importlib.util.find_spec("torch_pruning") is None:
        print("skipped: Torch-Pruning is not installed (pip install --group peers --no-deps)")
        return
    if given.one:
        print(json.dumps({tool: asdict(seen) for tool, seen in measure(given.names[0]).items()}))
        return
    rows: dict[str, dict[str, Any]] = {}
    print("| net | edgeslim: open | result | Torch-Pruning: open | result |\n|---|---:|---|---:|---|", flush=True)
    for name in given.names or nets():
        rows[name] = _in_its_own_process(name)
        cells = [cell for tool in ("edgeslim", "torch-pruning") for cell in _cells(rows[name][tool])]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
        if given.out is not None:
            given.out.write_text(json.dumps(rows, indent=1) + "\n")
    print(summary(rows))


def nets() -> dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]]:
    """Constructor and example shape by name: torchvision's nets, then one small net a pattern."""
    found: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {}
    known = zoo()
    found.update({name: (known[name].build, (1, 3, known[name].size, known[name].size)) for name in ZOO})
    found.update({name: (build, (1, 3, 32, 32)) for name, (build, _) in SMALL.items()})
    found.update({name: (pattern.build, pattern.shape) for name, pattern in EQUAL.items()})
    return found


def summary(rows: dict[str, dict[str, Any]]) -> str:
    """One line a tool: how often which verdict."""
    lines = []
    for tool in ("edgeslim", "torch-pruning"):
        verdicts = [row[tool]["verdict"] for row in rows.values()]
        counts = ", ".join(f"{verdicts.count(v)} {v}" for v in sorted(set(verdicts)))
        lines.append(f"\n{tool}: {counts}; {len(rows)} nets")
    return "".join(lines)


def measure(name: str) -> dict[str, Seen]:
    """Both tools on one net, in this process."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    build, shape = nets()[name]
    outcome = check(name, build, shape, singles=0)
    torch.manual_seed(0)
    example = torch.randn(shape)
    net = alive(build(), example)
    final = [layer.removesuffix(".weight") for layer, why in outcome.stayed.items() if why.startswith("graph output")]
    final = final or [layer.removesuffix(".weight") for layer in list(outcome.stayed)[-1:]]  # scores that are no output
    share = outcome.prunable_channels / outcome.channels if outcome.channels else None
    return {
        "edgeslim": Seen(share=share, verdict=outcome.verdict, detail=outcome.exception or ""),
        "torch-pruning": _torch_pruning(net, example, final),
    }


def _torch_pruning(net: nn.Module, example: torch.Tensor, final: list[str]) -> Seen:
    share, stage = None, "analysis"
    try:
        with _at_most(LIMIT_S):
            import torch_pruning as tp

            named = dict(net.named_modules())
            ignored = [named[name] for name in final if name in named]
            masked = copy.deepcopy(net)
            pruner = tp.pruner.BasePruner(
                net, example, tp.importance.RandomImportance(), pruning_ratio=0.5, ignored_layers=ignored
            )
            share = _open_share(pruner, net, example, ignored)
            stage = "pruning"
            before = sum(map(_layer_width, net.modules()))
            _prune_and_mask(pruner, net, masked)
            cut = 1 - sum(map(_layer_width, net.modules())) / before
        stage = "forward"
        with torch.no_grad():
            wanted, seen = flatten_outputs(masked.eval()(example)), flatten_outputs(net.eval()(example))
    except _TooLong:
        return Seen(share=share, verdict="timeout", detail=f"{stage}: more than {LIMIT_S} s")
    except Exception as error:  # the finding itself
        line = (str(error).strip() or "no message").splitlines()[0]
        return Seen(share=share, verdict="exception", detail=f"{stage}: {type(error).__name__}: {line}"[:120])
    error = max(largest_error(a.numpy(), b.numpy()) for a, b in zip(seen, wanted, strict=True))
    verdict = "wrong" if not error <= TOLERANCE else "equal" if cut else "nothing cut"
    return Seen(share=share, cut=cut, verdict=verdict, detail=f"error {error:.1e}")


def _open_share(pruner: Any, net: nn.Module, example: torch.Tensor, ignored: list[nn.Module]) -> float:
    """Output channels of the layers that a group of Torch-Pruning's graph would shrink, over those of all layers."""
    ran: set[nn.Module] = set()
    layers = [m for m in net.modules() if _layer_width(m)]
    hooks = [m.register_forward_hook(lambda module, *_: ran.add(module)) for m in layers]
    with torch.no_grad():
        net.eval()(example)
    for hook in hooks:
        hook.remove()
    graph, offered = pruner.DG, set[nn.Module]()
    for group in graph.get_all_groups(ignored_layers=ignored, root_module_types=pruner.root_module_types):
        members = {m for m, _ in _produced(graph, group)}
        if not members & set(ignored):
            offered |= members
    return sum(map(_width, ran & offered)) / sum(map(_width, ran))


def _prune_and_mask(pruner: Any, net: nn.Module, masked: nn.Module) -> None:
    """Prune `net` group by group; in `masked` set to zero what goes. Indices count what is left so far."""
    names = {module: name for name, module in net.named_modules()}
    loose = {id(parameter): name for name, parameter in net.named_parameters()}
    left = {module: list(range(_width(module))) for module in net.modules() if _width(module)}
    for group in pruner.step(interactive=True):
        for dep, indices in group:  # parameters of their own: as wide as what they are added to or multiplied with
            if name := loose.get(id(dep.target.module)):
                axis = next(d for p, d in pruner.DG.unwrapped_parameters if p is dep.target.module)
                with torch.no_grad():
                    masked.get_parameter(name).index_fill_(axis, torch.tensor([int(i) for i in indices]), 0.0)
        gone: dict[nn.Module, set[int]] = {}
        for module, indices in _produced(pruner.DG, group):
            gone.setdefault(module, set()).update(indices)
        group.prune()
        for module, indices in gone.items():
            dense = masked.get_submodule(names[module])
            original = [left[module][i] for i in sorted(indices)]
            left[module] = [kept for i, kept in enumerate(left[module]) if i not in indices]
            with torch.no_grad():
                for parameter in (dense.weight, dense.bias):
                    if parameter is not None:
                        by_column = isinstance(dense, nn.ConvTranspose2d) and parameter.ndim > 1
                        parameter.index_fill_(1 if by_column else 0, torch.tensor(original), 0.0)


def _produced(graph: Any, group: Any) -> Iterator[tuple[nn.Module, list[int]]]:
    """(layer, output channels) for everything in a group that the mask can silence."""
    for dep, indices in group:
        module = dep.target.module
        if graph.is_out_channel_pruning_fn(dep.handler) and _width(module):
            yield module, [int(i) for i in indices]


def _width(module: object) -> int:
    """Output channels of a layer with weights or a batch norm, 0 for anything else."""
    if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d)):
        return module.out_channels
    if isinstance(module, nn.Linear):
        return module.out_features
    return module.num_features if isinstance(module, nn.modules.batchnorm._BatchNorm) else 0


def _layer_width(module: object) -> int:
    """As _width, for layers alone."""
    return 0 if isinstance(module, nn.modules.batchnorm._BatchNorm) else _width(module)


def _in_its_own_process(name: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.benchmarks.coverage_peers", "--one", name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (subprocess.TimeoutExpired, ValueError, IndexError) as error:
        lost = asdict(Seen(share=None, verdict="exception", detail=f"the process: {type(error).__name__}"))
        return {"edgeslim": lost, "torch-pruning": lost}
    return found


def _cells(seen: dict[str, Any]) -> tuple[str, str]:
    share, verdict = seen["share"], seen["verdict"]
    shown = (
        verdict
        if verdict in ("equal", "timeout", "nothing cut")
        else f"**{verdict}**: {seen['detail'].replace('|', '/')}"
    )
    return "-" if share is None else f"{share:.0%}", shown


@contextmanager
def _at_most(seconds: int) -> Iterator[None]:
    """Raise _TooLong in the block after so long. Main thread only."""

    def ring(signum: int, frame: FrameType | None) -> None:
        raise _TooLong

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


if __name__ == "__main__":
    main()
