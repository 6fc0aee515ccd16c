"""How analysis and removal grow with the net: `make bench-compiler`.

Chains of residual blocks of growing depth and width, made as ONNX so that nothing has to be traced, and two nets of
torchvision. Every net is measured in a process of its own: seconds are medians over repeats after one untimed round,
memory is the peak of the resident set during analysis and removal, model and result included, above what the process
had before the model was loaded, as a multiple of the model's bytes.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import numpy as np
import onnx_ir as ir
from rich.console import Console
from rich.table import Table

REPEATS = 5
CHAINS = ((8, 64), (16, 64), (32, 64), (64, 64), (128, 64), (32, 128), (32, 256))
VISION = ("resnet50", "efficientnet_b7")


def main() -> None:
    """Print a row a net, and the exponent with which the chains grow."""
    table = Table(title="analysis and removal", title_justify="left")
    for column in ("net", "nodes", "channels", "analyse, s", "remove, s", "model, MB", "memory / model"):
        table.add_column(column, justify="left" if column == "net" else "right")
    depths: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, path, parameters in _models(Path(folder)):
            row = _measured(path, parameters)
            if name.startswith("chain") and name.endswith(" 64 wide"):
                depths.append(row)
            table.add_row(
                name,
                f"{row['nodes']:.0f}",
                f"{row['channels']:.0f}",
                f"{row['analyse']:.3f}",
                f"{row['remove']:.3f}",
                f"{row['bytes'] / 1e6:.1f}",
                f"{row['memory'] / row['bytes']:.2f}",
            )
    Console(width=120).print(table)
    for part in ("analyse", "remove"):
        slope = np.polyfit(np.log([d["nodes"] for d in depths]), np.log([d[part] for d in depths]), 1)[0]
        print(f"{part}: seconds grow as nodes^{slope:.2f} over chains of {CHAINS[0][0]} to {CHAINS[4][0]} blocks")


def _models(folder: Path) -> Iterator[tuple[str, Path, str]]:
    """(name, ONNX file, file with the names of its parameters)."""
    for blocks, width in CHAINS:
        model = chain(blocks, width)
        yield f"chain, {blocks} blocks, {width} wide", *_saved(model, set(model.graph.initializers), folder)
    import torch

    from edgeslim.exporter.trace import trace
    from tests.zoo.vision import models as vision

    for name in VISION:
        net = vision.get_model(name, weights=None).eval()
        yield name, *_saved(trace(net, torch.randn(1, 3, 64, 64)), set(net.state_dict()), folder)


def chain(blocks: int, width: int) -> ir.Model:
    """x + BN(conv(ReLU(BN(conv(x))))), `blocks` times, between a stem and a head."""
    rng = np.random.default_rng(0)
    graph = ir.Graph(
        [ir.val("x", ir.DataType.FLOAT, [1, 3, 32, 32])], [], nodes=[], opset_imports={"": 18}, name="chain"
    )

    def weight(name: str, *shape: int) -> ir.Value:
        value = ir.val(name, const_value=ir.tensor(rng.standard_normal(shape, np.float32), name=name))
        graph.register_initializer(value)
        return value

    def node(operator: str, inputs: list[ir.Value], channels: int, **attributes: object) -> ir.Value:
        made = ir.node(operator, inputs, attributes)  # type: ignore[arg-type]
        made.outputs[0].name = f"v{len(graph)}"
        made.outputs[0].type, made.outputs[0].shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([1, channels, 32, 32])
        graph.append(made)
        return made.outputs[0]

    def unit(x: ir.Value, into: int, out: int, name: str) -> ir.Value:
        x = node("Conv", [x, weight(f"{name}.weight", out, into, 3, 3)], out, pads=[1, 1, 1, 1])
        statistics = [weight(f"{name}.{part}", out) for part in ("scale", "bias", "mean", "var")]
        return node("BatchNormalization", [x, *statistics], out)

    x = node("Relu", [unit(graph.inputs[0], 3, width, "stem")], width)
    for block in range(blocks):
        y = node("Relu", [unit(x, width, width, f"{block}.a")], width)
        x = node("Relu", [node("Add", [x, unit(y, width, width, f"{block}.b")], width)], width)
    graph.outputs.append(node("Conv", [x, weight("head", 2, width, 3, 3)], 2, pads=[1, 1, 1, 1]))
    return ir.Model(graph, ir_version=10)


def _saved(model: ir.Model, parameters: set[str], folder: Path) -> tuple[Path, str]:
    path = folder / f"{len(list(folder.iterdir()))}.onnx"
    ir.save(model, path)
    return path, json.dumps(sorted(parameters))


def _measured(path: Path, parameters: str) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.compiler_growth", str(path)],
        input=parameters,
        capture_output=True,
        text=True,
        check=True,
    )
    row: dict[str, float] = json.loads(done.stdout)
    return row


def measure(path: Path, parameters: set[str]) -> dict[str, float]:
    """Seconds, bytes and counts of one model, in this process."""
    from edgeslim.exporter.channels import analyze
    from edgeslim.exporter.passes.remove_channels import remove_channels

    before = _status("VmRSS")
    model = ir.load(path)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here: reading a file takes copies of its own
    seconds: dict[str, list[float]] = {"analyse": [], "remove": []}
    peak = 0
    for _ in range(REPEATS + 1):
        started = time.perf_counter()
        channels = analyze(model, parameters)
        analysed = time.perf_counter()
        cut = np.concatenate([family.labels[::2] for family in channels.families]).tolist()
        ready = time.perf_counter()
        remove_channels(model, channels, cut)
        seconds["analyse"].append(analysed - started)
        seconds["remove"].append(time.perf_counter() - ready)
        peak = peak or _status("VmHWM")  # of the first round
    return {
        "nodes": len(model.graph),
        "channels": len(channels.unit_labels),
        "bytes": path.stat().st_size,
        "memory": peak - before,
        **{name: median(taken[1:]) for name, taken in seconds.items()},
    }


def _status(entry: str) -> int:
    """Bytes, as the kernel counts them for this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{entry}:"))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(Path(sys.argv[1]), set(json.load(sys.stdin)))))
    else:
        main()
