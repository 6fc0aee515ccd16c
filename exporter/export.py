"""The public verb: from a pruned net to a bundle that carries its own proof.

    masked graph -> remove_channels -> simplify -> plain_zeros -> embed_preprocess -> model.onnx
    masked torch == compact torch == compact ONNX == simplified ONNX == shipped ONNX      (the certificate)

Every form is compared with the masked net, on random and on real input, at two image sizes and two batch sizes where
the graph is dynamic. A stage that fails raises CertificateError and nothing is written.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import onnx_ir as ir
import onnxruntime
from numpy.typing import NDArray

from edgeslim.errors import ExportError
from edgeslim.runtime.certificate import Certificate
from edgeslim.runtime.manifest import ImageSpec, Manifest, Sizes, TaskName, TensorSpec
from edgeslim.runtime.variants import FrameRange

from .bundle import write_bundle
from .certificate import Probe, References, Tolerance, certify, random_probe, require
from .channels import ChannelMap
from .channels.coverage import coverage
from .cost import count_macs, count_parameters, count_weight_bytes, count_weights
from .export_arguments import check_frames, check_net, check_range, check_words, colours, numbers
from .frame_batches import GOLDEN, Frames, frame_batches, golden_vectors
from .graph_runner import runner_from_graph
from .passes.embed_preprocess import embed_preprocess
from .passes.plain_zeros import plain_zeros
from .passes.remove_channels import remove_channels
from .passes.simplify import simplify
from .plan import PruningPlan, cut_of_plan

PLAN = "plan.json"
MASKED = "masked torch"


class Exportable(Protocol):
    """What can be exported: a graph with its masked weights, what to cut, and the nets it must equal."""

    @property
    def graph(self) -> ir.Model: ...
    @property
    def channels(self) -> ChannelMap: ...
    @property
    def plan(self) -> PruningPlan: ...
    @property
    def input_shape(self) -> tuple[int, ...]:
        """(N, C, H, W) of the example the net was traced with."""
        ...

    @property
    def origin(self) -> Mapping[str, str]:
        """What the manifest says of how the plan was made."""
        ...

    def references(self) -> References:
        """The torch forms of the net."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """All forms of the net on its way to the bundle, and what happened on the way."""

    compact: ir.Model
    simplified: ir.Model
    shipped: ir.Model
    simplifier: str


def export(
    pruned: Exportable,
    path: str | os.PathLike[str],
    *,
    name: str | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    size_multiple: int = 1,
    size: tuple[int, int] | None = None,
    frame_range: FrameRange | None = None,
    frames: Frames = (),
    classes: Sequence[str] = (),
    task: TaskName | None = None,
    metrics: Mapping[str, float] | None = None,
    provenance: Mapping[str, str] | None = None,
    files: Mapping[str, bytes] | None = None,
    simplify_graph: bool = True,
    archive: bool = False,
    sparse: bool = True,
    tolerance: Tolerance | None = None,
) -> Path:
    """Write the bundle `path` of a pruned (or unpruned) net and return its path.

    name: the file's where absent.  mean, std: per channel, of pixels scaled to [0, 1]; 0 and 1 where absent.
    size_multiple: what a frame's height and width must be divisible by.  size: (height, width) of a benchmark frame;
    the example's where absent.  frame_range: the batches that engines are built for, single frames of `size` where
    absent.  frames: real frames for the certificate and the golden vectors; random ones where there
    are none.  classes: their names in the order of the logits.  task: what the first output says of a frame, if that is
    known.  metrics, provenance: for the manifest.  files: further files by their path in the bundle.  archive: a single
    file instead of a directory.  sparse: store weights without their zeros where that is smaller.  tolerance: of the
    certificate, float32's where absent.
    Raises CertificateError if any form of the net differs, ExportError or UnsupportedGraphError if there is none.
    """
    if not hasattr(pruned, "references"):
        raise ExportError(
            f"export was given a {type(pruned).__name__}",
            "give a PrunedModel, made by prune() or PrunedModel.from_module()",
        )
    shape, metrics = pruned.input_shape, numbers(metrics or {})
    channels = shape[1] if len(shape) > 1 else 3
    mean = colours("mean", (0.0,) * channels if mean is None else mean, shape)
    std = colours("std", (1.0,) * channels if std is None else std, shape)
    check_net(shape, std)
    check_frames(pruned.input_shape, size_multiple, size, frames)
    check_range(frame_range, size_multiple)
    check_words(files or {}, (PLAN, GOLDEN), provenance or {}, classes)
    bench_size = size or (pruned.input_shape[2], pruned.input_shape[3])
    compiled = compile_graph(pruned, mean, std, simplify_graph)
    cases = frame_batches(frames, pruned, bench_size)
    certificate = prove(pruned, compiled, cases, mean, std, "real" if len(frames) else "random", tolerance)
    require(certificate)
    model = ir.to_proto(compiled.shipped).SerializeToString()
    golden = golden_vectors(model, cases, bench_size)
    spec = golden.spec
    batch = (compiled.shipped.graph.inputs[0].shape or (1,))[0]
    weights, nonzero = count_weights(compiled.compact)
    macs_shape = (batch if isinstance(batch, int) else 1, *bench_size, pruned.input_shape[1])
    manifest = Manifest(
        name=name or Path(path).stem,
        golden=spec,
        inputs=_specs(compiled.shipped.graph.inputs, ("NHWC",)),
        # Sizes as the trace names them: what simplification infers anew has lost the names.
        outputs=_specs(pruned.channels.model.graph.outputs, ("NCHW", "NC"), pruned.channels.model.graph.inputs[0]),
        image=ImageSpec(colour="grey" if channels == 1 else "RGB", mean=mean, std=std, size_multiple=size_multiple),
        bench_size=bench_size,
        frame_range=frame_range,
        task=task,
        classes=tuple(classes),
        metrics=metrics,
        sizes=Sizes(
            parameters=count_parameters(compiled.compact, pruned.channels.parameters),
            dense_weights=count_weights(pruned.channels.model)[0],
            weights=weights,
            nonzero_weights=nonzero,
            weight_bytes=count_weight_bytes(compiled.shipped),
            macs=count_macs(compiled.shipped, macs_shape),
            macs_shape=macs_shape,
        ),
        provenance={
            **pruned.origin,
            **(provenance or {}),
            "simplifier": compiled.simplifier,
            "onnxruntime": onnxruntime.__version__,
        },
        certificate=certificate,
        coverage=tuple(coverage(pruned.channels, cut_of_plan(pruned.channels, pruned.plan))),
    )
    content = {**(files or {}), PLAN: pruned.plan.to_json().encode(), spec.file: golden.data}
    return write_bundle(path, model=model, manifest=manifest, files=content, archive=archive, sparse=sparse)


def compile_graph(
    pruned: Exportable, mean: tuple[float, ...], std: tuple[float, ...], simplify_graph: bool = True
) -> Compiled:
    """Take the cut channels out, shorten the graph, and let it read frames. Raises ExportError."""
    compact = remove_channels(pruned.graph, pruned.channels, cut_of_plan(pruned.channels, pruned.plan))
    simplified, tool = compact, "off"
    if simplify_graph:
        result = simplify(compact)
        simplified, tool = result.model, "; ".join((result.tool, *result.problems))
    shipped = embed_preprocess(plain_zeros(simplified), mean, std)
    return Compiled(compact=compact, simplified=simplified, shipped=shipped, simplifier=tool)


def prove(
    pruned: Exportable,
    compiled: Compiled,
    frames: Sequence[NDArray[np.uint8]],
    mean: tuple[float, ...],
    std: tuple[float, ...],
    kind: str,
    tolerance: Tolerance | None = None,
) -> Certificate:
    """Compare every form of the net with the masked net. frames: batches (N, H, W, C) uint8."""
    references = pruned.references()
    masked = references.masked
    candidates = {
        **references.others,
        "compact ONNX": runner_from_graph(compiled.compact),
        "simplified ONNX": runner_from_graph(compiled.simplified),
    }
    images = [normalize(batch, mean, std) for batch in frames]
    probes = [random_probe([i.shape for i in images]), Probe(kind, images)]
    floats = certify((MASKED, masked), candidates, probes, tolerance)
    shipped = certify(
        (MASKED, lambda batch: masked(normalize(batch, mean, std))),  # frames reach torch normalised here
        {"shipped ONNX on frames": runner_from_graph(compiled.shipped)},
        [Probe(kind, frames)],
        tolerance,
    )
    return Certificate(stages=floats.stages + shipped.stages, missing=references.missing)


def normalize(frames: NDArray[np.generic], mean: tuple[float, ...], std: tuple[float, ...]) -> NDArray[np.float32]:
    """(pixel / 255 - mean) / std: frames (N, H, W, C) uint8 -> images (N, C, H, W) float32."""
    scaled = (frames.astype(np.float32) / 255 - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))


def _specs(values: Sequence[ir.Value], layouts: Sequence[str], batch: ir.Value | None = None) -> tuple[TensorSpec, ...]:
    """The tensors as the manifest states them.

    layouts: one for each number of axes that has one.  batch: a value whose first axis is the batch; all tensors have
    it where None.
    """
    specs, counted = [], batch.shape[:1] if batch is not None and batch.shape is not None else None
    for value in values:
        if value.shape is None or value.dtype is None:
            raise ExportError(f"shape or type of {value.name} is unknown after simplification", "turn simplify off")
        layout = next((names for names in layouts if len(names) == len(value.shape)), "")
        shape = tuple(d if isinstance(d, int) else (d.value or f"axis{i}") for i, d in enumerate(value.shape))
        specs.append(
            TensorSpec(
                name=value.name or "",
                dtype=value.dtype.numpy().name,
                shape=shape,
                layout=layout if counted in (None, value.shape[:1]) else "",
            )
        )
    return tuple(specs)
