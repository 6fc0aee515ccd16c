"""What float16 and int8 cost in accuracy on real data, and what int8 brings on this CPU.

    python -m tests.benchmarks.precision DATA [--stare BUNDLE ...] [--skip-cifar] [--speed-only] [--quick]
        [--placements tensorrt onnxruntime]

DATA: the folder of cifar10, stare and weights. ResNet-56: calibrated on 512 training images, settings compared on
2,000 others by how far the logits are off, accuracy on all 10,000 test images. A bundle of retinal vessels (made by
`edgeslim compress recipes/joint-stare-unet.yaml`): calibrated on the training images, compared on the validation
images, Dice on the test images. Nothing is chosen by test images.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import torch
from numpy.typing import NDArray

from edgeslim.bench.compare import interleave, speedup
from edgeslim.exporter.export import export
from edgeslim.exporter.precision import (
    Calibration,
    Int8Options,
    measure_deviation,
    open_calibration,
    quantize,
    simulate,
    to_float16,
)
from edgeslim.exporter.precision.int8 import PLACEMENTS
from edgeslim.runtime import read_bundle
from edgeslim.runtime.backends.onnxruntime import OnnxRuntimeBackend
from edgeslim.trainer.data.cifar10 import read_records
from edgeslim.trainer.evaluate import FrameRunner, ImageFormat, pad_to_multiple
from edgeslim.trainer.progress import Silent
from edgeslim.trainer.pruned import PrunedModel
from edgeslim.trainer.recipe_file import load_recipe
from edgeslim.trainer.workspace import open_workspace
from tests.reproduce.cifar_data import FORMAT, given_net
from tests.reproduce.runs import RECIPES

Frames = NDArray[np.uint8]
Score = Callable[[FrameRunner], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A net to measure. fit: calibrated on. held: settings are compared on. score: on test images, in percent."""

    name: str
    model: ir.Model
    fit: Calibration
    held: Calibration
    score: Score
    frame: Frames


def main() -> None:
    """Print the tables of every net."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.precision", description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--stare", type=Path, nargs="*", default=[])
    parser.add_argument("--skip-cifar", action="store_true")
    parser.add_argument("--speed-only", action="store_true")
    parser.add_argument("--quick", action="store_true", help="1,000 test images, and two settings")
    parser.add_argument("--placements", nargs="+", default=PLACEMENTS, choices=PLACEMENTS)
    given = parser.parse_args()
    warnings.simplefilter("ignore")  # torch's exporter warns about itself
    with tempfile.TemporaryDirectory() as folder:
        subjects = [] if given.skip_cifar else [_resnet(given.data, Path(folder), 1000 if given.quick else None)]
        subjects += [_vessels(given.data, bundle, Path(folder)) for bundle in given.stare]
        for subject in subjects:
            if not given.speed_only:
                _print_accuracy(subject, given.quick, given.placements)
            _print_speed(subject)


def _settings(quick: bool, placements: Sequence[str]) -> Iterator[tuple[str, Int8Options]]:
    for placement in placements:
        for method in ("mse",) if quick else ("minmax", "percentile", "entropy", "mse"):
            yield f"{method}", Int8Options(placement=placement, method=method, correct_bias=False)
        if not quick:
            yield "mse, equalised", Int8Options(placement=placement, correct_bias=False, equalize=True)
            yield "minmax, bias corrected", Int8Options(placement=placement, method="minmax")
            yield "mse, bias corrected", Int8Options(placement=placement)


def _print_accuracy(subject: Subject, quick: bool, placements: Sequence[str]) -> None:
    print(f"\n### {subject.name}\n\n| precision | placement | settings | off, % | score, % | |")
    print("|---|---|---|---:|---:|---|")

    def row(precision: str, placement: str, words: str, model: ir.Model, integer: bool, note: str = "") -> None:
        names = [v.name or "" for v in subject.model.graph.outputs]
        run = simulate(model, names, integer_kernels=integer)
        off = 100 * measure_deviation(subject.model, model, subject.held, run)[0].relative_rms
        score = subject.score(_runner(subject.model, model, integer))
        print(f"| {precision} | {placement} | {words} | {off:.2f} | {score:.2f} | {note} |", flush=True)

    row("float32", "", "", subject.model, False)
    halved = to_float16(subject.model, subject.fit)
    row("float16", "", f"{len(halved.islands)} nodes in float32", halved.model, False)
    for words, options in _settings(quick, placements):
        made = quantize(subject.model, subject.fit, options)
        c = made.correction
        note = "" if c is None else f"{'kept' if c.kept else 'not kept'}: {c.before:.4f} to {c.after:.4f}"
        row("int8", options.placement, words, made.model, options.placement == "onnxruntime", note)


def _print_speed(subject: Subject) -> None:
    """ONNX Runtime, one thread, one frame."""
    made = quantize(subject.model, subject.fit, Int8Options(placement="onnxruntime"))
    feed = {subject.model.graph.inputs[0].name or "": subject.frame}
    models = [bytes(ir.to_proto(m).SerializeToString()) for m in (subject.model, made.model)]
    backends = [OnnxRuntimeBackend(model) for model in models]
    calls = [lambda backend=backend: backend.run(feed) for backend in backends]
    samples = interleave(calls, samples=300, seconds=90)
    medians = [float(np.median(side)) / 1e6 for side in samples]
    ratio = speedup(*samples)
    shape = "x".join(map(str, subject.frame.shape))
    print(
        f"\n{subject.name}, {shape}: float32 {medians[0]:.2f} ms, int8 {medians[1]:.2f} ms, {ratio.ratio:.2f}x "
        f"({ratio.low:.2f} to {ratio.high:.2f}, n = {len(samples[0])}); "
        f"{len(models[0]):,} and {len(models[1]):,} bytes; declined: "
        + ("; ".join(f"{d.where}: {d.reason}" for d in made.declined) or "none"),
        flush=True,
    )

    _print_layers(models, feed)


def _print_layers(models: Sequence[bytes], feed: dict[str, Frames]) -> None:
    """Where the time goes in both: by operator, and convolution by convolution."""
    profiles = [_profile(model, feed) for model in models]
    totals: list[dict[str, float]] = []
    for profile in profiles:
        totals.append({})
        for operator, _, taken in profile:
            totals[-1][operator] = totals[-1].get(operator, 0.0) + taken
    print("\n| operator | float32, ms | int8, ms |\n|---|---:|---:|")
    for operator in sorted({*totals[0], *totals[1]}, key=lambda name: -max(t.get(name, 0.0) for t in totals)):
        cells = [f"{t[operator]:.2f}" if operator in t else "" for t in totals]
        print(f"| {operator} | {cells[0]} | {cells[1]} |")
    layers = [[row for row in profile if row[0] in ("Conv", "FusedConv", "QLinearConv")] for profile in profiles]
    if len(layers[0]) == len(layers[1]) <= 20:
        print("\n| layer reads | float32, ms | int8, ms | |\n|---|---:|---:|---:|")
        for (_, shape, before), (_, _, after) in zip(*layers):
            print(f"| {shape} | {before:.2f} | {after:.2f} | {before / after:.2f}x |")


def _profile(model: bytes, feed: dict[str, Frames]) -> list[tuple[str, str, float]]:
    """(operator, shape of what it reads, median milliseconds) of every node, in the order of computation."""
    with tempfile.TemporaryDirectory() as folder:
        backend = OnnxRuntimeBackend(model, profile=Path(folder) / "trace")
        for _ in range(12):
            backend.run(feed)
        events = json.loads(backend.end_profile().read_text(encoding="utf-8"))
    taken: dict[str, list[float]] = {}
    seen: dict[str, tuple[str, str]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            shapes = event["args"].get("input_type_shape") or [{}]
            shape = next((values for values in shapes[0].values()), [])
            seen.setdefault(event["name"], (event["args"]["op_name"], "x".join(map(str, shape))))
            taken.setdefault(event["name"], []).append(event["dur"] / 1e3)
    return [(*seen[name], float(np.median(times[2:]))) for name, times in taken.items()]


def _runner(reference: ir.Model, model: ir.Model, integer: bool) -> FrameRunner:
    name = reference.graph.inputs[0].name or ""
    run = simulate(model, [reference.graph.outputs[0].name or ""], integer_kernels=integer)
    return lambda frames: np.asarray(run({name: frames})[0], np.float32)


def _graph(bundle: Path) -> ir.Model:
    return ir.from_proto(onnx.shape_inference.infer_shapes(onnx.load_from_string(read_bundle(bundle).model)))


def _resnet(data: Path, folder: Path, tested: int | None) -> Subject:
    frames, _ = _cifar(data, "data_batch_1.bin", slice(0, 2512))
    net = PrunedModel.from_module(given_net(data, "resnet56"), torch.zeros(1, 3, 32, 32))
    export(net, folder / "r56", name="resnet56", mean=FORMAT.mean, std=FORMAT.std, frames=list(frames[:2]))
    graph = _graph(folder / "r56")
    test, labels = _cifar(data, "test_batch.bin", slice(tested))

    def accuracy(run: FrameRunner) -> float:
        answers = [run(test[i : i + 250]).argmax(axis=1) for i in range(0, len(test), 250)]
        return 100 * float((np.concatenate(answers) == labels).mean())

    return Subject(
        name="ResNet-56, CIFAR-10",
        model=graph,
        fit=open_calibration(graph, [frames], images=512),
        held=open_calibration(graph, [frames[512:]]),
        score=accuracy,
        frame=frames[:1],
    )


def _cifar(data: Path, file: str, part: slice) -> tuple[Frames, NDArray[np.uint8]]:
    records = read_records(data / "cifar10" / "cifar-10-batches-bin" / file)[part]
    planes = np.asarray(records[:, 1:]).reshape(-1, 3, 32, 32)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), np.asarray(records[:, 0])


def _vessels(data: Path, bundle: Path, folder: Path) -> Subject:
    recipe = load_recipe(RECIPES / "joint-stare-unet.yaml", [f"data.root={data}/stare"])
    kind = open_workspace(recipe, folder / "run", Silent()).kind
    manifest, graph = read_bundle(bundle).manifest, _graph(bundle)
    image = ImageFormat(mean=manifest.image.mean, std=manifest.image.std, multiple=manifest.image.size_multiple)

    def padded(samples: Sequence[object]) -> list[Frames]:
        return [pad_to_multiple(sample.image, image.multiple) for sample in samples]  # type: ignore[attr-defined]

    fit, held = (padded(samples) for samples in (kind.data.train, kind.data.validation))  # type: ignore[attr-defined]
    return Subject(
        name=f"{manifest.name} ({manifest.sizes.macs / 1e9:.1f} G MACs), STARE",
        model=graph,
        fit=open_calibration(graph, fit),
        held=open_calibration(graph, held),
        score=lambda run: 100 * float(kind.score_test(run, image)["dice"] or 0),
        frame=held[0][None],
    )


if __name__ == "__main__":
    main()
