"""The verb for ONNX files from anywhere: smaller, or not at all.

    report = slim_file("in.onnx", "out.onnx")                          dead channels only: the same net
    report = slim_file(..., ratio=0.5, calibration=images)             channels that matter least; consumers corrected

    file -> read -> dead channels out -> [scores -> budget -> masked -> corrected] -> compact -> certificate -> file

Without a ratio or target the reference of the certificate is the file as it was given. With one, the net is another one
afterwards, by intention: then compact must equal masked, and the distance to the original is reported beside it.
Nothing here trains, and torch is not needed.
"""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec

import onnx
import onnx_ir as ir

from edgeslim.atomic import write_bytes
from edgeslim.errors import ConfigError, EdgeslimError, ExportError, UnsupportedGraphError, first_line
from edgeslim.exporter.certificate import Probe, Runner, Tolerance, certify, require
from edgeslim.exporter.channels import ChannelMap, Coverage, analyze
from edgeslim.exporter.cost import count_macs, count_parameters, count_weight_bytes
from edgeslim.exporter.foreign import ForeignModel, read_foreign
from edgeslim.exporter.foreign.feeds import (
    Arrays,
    InputSpec,
    feeds,
    find_probe,
    input_specs,
    random_array,
    runner_from_bytes,
)
from edgeslim.exporter.foreign.quiet import quiet
from edgeslim.exporter.foreign.read import check_rules
from edgeslim.exporter.slim import compare_widths, remove_dead
from edgeslim.progress import Progress, Silent
from edgeslim.runtime.certificate import Certificate
from edgeslim.runtime.manifest import LayerCoverage

from .budget import WidthLimits, parse_wish
from .budget.reached import Reached
from .calibration import Calibration, samples
from .one_shot import OneShot, Wish, cut_once
from .recovery import Correction

Given = ParamSpec("Given")
HALF = Tolerance(relative_atol=5e-3, rtol=1e-2)
"""For nets with 16-bit weights, which round at a thousandth; a wrong channel is a hundred times above."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSizes:
    """macs: of one input of `macs_shape`; None where they cannot be counted."""

    file_bytes: int
    weight_bytes: int
    parameters: int
    macs: int | None
    macs_shape: tuple[int, ...] | None
    opset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SlimReport:
    """What became of a file. dead: units that left because they were dead; cut: units that the budget cut.

    output_error: |output - original's| / |original's| of the net that is written; uncorrected_error: without the
    correction. None where nothing but dead channels went. unseen_inputs: on how many calibration inputs they are
    measured, which nothing was fitted to or chosen by; 0 where there were fewer than five (all of them are used) or
    none (random ones are).
    """

    path: str
    dead: int
    cut: int
    before: FileSizes
    after: FileSizes
    certificate: Certificate
    coverage: tuple[LayerCoverage, ...]
    corrections: tuple[Correction, ...] = ()
    output_error: float | None = None
    uncorrected_error: float | None = None
    unseen_inputs: int = 0
    reached: Reached | None = None
    """What the target that was asked for came to on its device."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Net:
    """A file with what it eats. calibration: full sets of graph inputs, one sample each; empty where none was given."""

    file: ForeignModel
    specs: tuple[InputSpec, ...]
    original: Runner
    reference: str
    probes: tuple[Probe, ...]
    calibration: tuple[Arrays, ...]

    def inputs(self) -> list[Arrays]:
        """Full sets of graph inputs at the sizes of the random probe, with other numbers: what constants are measured
        on is not what the certificate compares on."""
        lead, batches = self.specs[0], self.probes[0].batches
        return [feeds(self.specs, random_array(lead, b.shape, 1000 + i)) for i, b in enumerate(batches)]


def slim_file(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    ratio: float | None = None,
    target: str | None = None,
    calibration: Calibration | None = None,
    width_multiple: int = 1,
    min_width: int = 1,
    min_share: float | None = None,
    device: str = "cpu:1",
    profile: str | os.PathLike[str] | None = None,
    allow_foreign_profile: bool = False,
    progress: Progress | None = None,
    tolerance: Tolerance | None = None,
) -> SlimReport:
    """Write `out`, the ONNX file `path` with fewer channels, and return all there is to say about it.

    Without `ratio` (fraction of every family's channels) or `target` ("macs=0.5x") only dead channels go.
    calibration: see Calibration; with it channels are chosen by reconstruction error and consumers corrected.
    min_share: of every family, that stays under a target; a quarter where absent.  device, profile,
    allow_foreign_profile, progress: for a target that limits the latency, as in `prune`.
    Raises UnsupportedGraphError for a bad file, CertificateError if the result differs: then nothing is written.
    """
    wish = None
    if ratio is not None or target is not None:
        budget = parse_wish(
            ratio, target, min_share, device=device, profile=profile, allow_foreign_profile=allow_foreign_profile
        )
        limits = _limits(width_multiple, min_width)
        wish = Wish(budget=budget, limits=limits, progress=progress or Silent())
    _check_paths(Path(path), Path(out))
    with quiet():
        return _slim(Path(path), Path(out), wish, calibration, tolerance)


def _coverage_of(verb: Callable[Given, SlimReport]) -> Callable[Given, Coverage]:
    """The same verb, options and all, for those who only want to know what became of every layer."""

    @functools.wraps(verb)
    def short(*args: Given.args, **kwargs: Given.kwargs) -> Coverage:
        return Coverage(verb(*args, **kwargs).coverage)

    short.__name__ = short.__qualname__ = "slim_onnx"
    vars(short)["__signature__"] = inspect.signature(verb).replace(return_annotation=Coverage)
    return short


slim_onnx = _coverage_of(slim_file)


def _slim(
    path: Path, out: Path, wish: Wish | None, calibration: Calibration | None, tolerance: Tolerance | None
) -> SlimReport:
    net = _open(read_foreign(path), calibration)
    tolerance = tolerance or (HALF if _is_half(net.file.graph) else Tolerance())
    slimmed = remove_dead(net.file.graph, net.inputs())
    cut = cut_once(slimmed.model, wish, net.specs, net.inputs(), net.calibration) if wish is not None else None
    compact = cut.compact if cut is not None else slimmed.model
    changed = bool(slimmed.removed or (cut is not None and cut.units))
    data = _finished(compact, net.file) if changed else net.file.source
    certificate = _certified(net, slimmed.model, cut, data if changed else None, tolerance)
    require(certificate)
    shape = tuple(net.probes[0].batches[0].shape)
    report = SlimReport(
        path=str(out),
        dead=slimmed.removed,
        cut=cut.units if cut is not None else 0,
        before=_sizes(net.file.graph, net.file.source, net.file.opset, shape),
        after=_sizes(compact, data, _opset(data), shape),
        certificate=certificate,
        coverage=slimmed.coverage if cut is None else _final(slimmed.coverage, analyze(compact)),
        corrections=cut.corrections if cut is not None else (),
        output_error=cut.error if cut is not None else None,
        uncorrected_error=cut.uncorrected if cut is not None else None,
        unseen_inputs=cut.unseen if cut is not None else 0,
        reached=cut.reached if cut is not None else None,
    )
    try:
        write_bytes(out, data)
    except OSError as error:
        raise ExportError(
            f"{out} cannot be written: {error.strerror}", "look at the path, its permissions and the space on the disk"
        ) from error
    return report


def _certified(
    net: _Net, slimmed: ir.Model, cut: OneShot | None, data: bytes | None, tolerance: Tolerance
) -> Certificate:
    """What is written against what it must equal. data: the bytes to write, None where they are those of the file."""
    given = f"{net.file.path.name} as given"
    if data is None:  # the same bytes: also where they are too old for ONNX Runtime, and their converted form was run
        written, reference = net.original, given
    else:
        written, reference = runner_from_bytes(data, net.specs, "the slimmed model"), net.reference
    if cut is None:
        return certify((reference, net.original), {"written file": written}, net.probes, tolerance)
    dead = certify((reference, net.original), {"without dead channels": _runner(slimmed, net)}, net.probes, tolerance)
    masked = certify(("masked net", _runner(cut.masked, net)), {"written file": written}, net.probes, tolerance)
    return Certificate(stages=dead.stages + masked.stages)


def _limits(multiple: int, minimum: int) -> WidthLimits:
    for name, value in (("width_multiple", multiple), ("min_width", minimum)):
        if not isinstance(value, int) or value < 1:
            raise ConfigError(f"{name} is {value!r}; it must be a whole number from 1", "8 or 16 suit most CPUs")
    return WidthLimits(multiple=multiple, minimum=minimum)


def _check_paths(path: Path, out: Path) -> None:
    if out.exists() and not out.is_file():
        raise ConfigError(f"{out} is {'a folder' if out.is_dir() else 'not a file'}", "name the file to write")
    if out.exists() and path.exists() and os.path.samefile(path, out):
        raise ConfigError(f"{out} is the file that is read", "write another one; the given model is never replaced")


def _open(file: ForeignModel, calibration: Calibration | None) -> _Net:
    """Find out what the net runs on. The file itself is the reference; its converted form where it cannot be run."""
    try:
        specs = input_specs(file.graph)
    except UnsupportedGraphError as error:
        raise UnsupportedGraphError(f"{file.path}: {error.message}", error.hint) from error
    given = samples(specs, calibration)
    reference = f"{file.path.name} as given"
    try:
        original = runner_from_bytes(file.source, specs, str(file.path))
        random = find_probe(original, specs[0])
    except ExportError:
        reference = f"{file.path.name} converted"
        original = runner_from_bytes(_bytes(file.graph), specs, f"{file.path} (converted)")
        random = find_probe(original, specs[0])
    probes = [random]
    if given and len(specs) == 1:
        probes.append(Probe("calibration", [a[specs[0].name] for a in given[:4]]))
    return _Net(file=file, specs=specs, original=original, reference=reference, probes=tuple(probes), calibration=given)


def _final(before: Coverage, after: ChannelMap) -> Coverage:
    reasons = {layer.layer: layer.reason for layer in before if layer.reason}
    return compare_widths(before, after, reasons)


def _is_half(model: ir.Model) -> bool:
    return any(v.dtype in (ir.DataType.FLOAT16, ir.DataType.BFLOAT16) for v in model.graph.initializers.values())


def _runner(model: ir.Model, net: _Net) -> Runner:
    return runner_from_bytes(_bytes(model), net.specs, "the slimmed graph")


def _bytes(model: ir.Model) -> bytes:
    return bytes(ir.to_proto(model).SerializeToString())


def _finished(model: ir.Model, file: ForeignModel) -> bytes:
    """The bytes to write, checked by onnx. Raises ExportError."""
    proto = ir.to_proto(model)
    try:
        check_rules(proto)
        _check_interface(proto, onnx.ModelProto.FromString(file.source))
        return bytes(proto.SerializeToString())
    except ValueError as error:
        raise ExportError(
            f"the slimmed form of {file.path} breaks the rules of ONNX: {first_line(error)}",
            "nothing was written; please report the net",
        ) from error


def _check_interface(new: onnx.ModelProto, old: onnx.ModelProto) -> None:
    """Programs feed and read a net by name. Raises ValueError where they could not go on doing so."""
    weights = {tensor.name for tensor in old.graph.initializer}  # old files list them among the inputs
    for kind in ("input", "output"):
        before = [v.name for v in getattr(old.graph, kind) if kind == "output" or v.name not in weights]
        after = [v.name for v in getattr(new.graph, kind)]
        if before != after:
            raise ValueError(f"its {kind}s are {', '.join(after)} and were {', '.join(before)}")


def _sizes(model: ir.Model, data: bytes, opset: int, shape: tuple[int, ...]) -> FileSizes:
    macs: int | None = None
    try:
        macs = count_macs(model, shape) if len(model.graph.inputs) == 1 else None
    except EdgeslimError:
        macs = None  # unmeasured
    return FileSizes(
        file_bytes=len(data),
        weight_bytes=count_weight_bytes(model),
        parameters=count_parameters(model, set(model.graph.initializers)),
        macs=macs,
        macs_shape=shape if macs is not None else None,
        opset=opset,
    )


def _opset(data: bytes) -> int:
    proto = onnx.ModelProto.FromString(data)
    return max((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), default=0)
