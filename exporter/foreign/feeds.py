"""Inputs for a net of which nobody said what it eats: every graph input by name, at sizes that it accepts.

The first float input of the highest rank is the *lead* (usually the image): its batches are what probes hold, and
what calibration data is given for by a single array. All other inputs follow from it: a dimension of the same name
has the same size, their numbers come from a fixed seed. So a net with any inputs is a function of one array, as the
certificate wants it.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import onnxruntime
from numpy.typing import NDArray

from edgeslim.errors import ExportError, UnsupportedGraphError, first_line

from ..certificate import Probe, Runner

_BEFORE_THE_FIRST = frozenset({"Add", "BatchNormalization", "Cast", "Div", "Identity", "Mul", "Pad", "Sub"})
"""Operators by which a file may normalise its input."""
_FAR = 8
SIDES = (64, 96, 128, 224, 320, 32, 256)
"""Sizes to try for a dimension that is not given as a number; most nets with strides up to 32 accept the first."""

_SOURCE_PLACE = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : |/onnxruntime_src/\S+:\d+ .*?\) (?=[A-Z])")
"""What ONNX Runtime says of its own code numbers and C++ sources before it says what is wrong."""

Arrays = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True, slots=True, kw_only=True)
class InputSpec:
    """One graph input: its dims, numbers or names ("" where neither is known)."""

    name: str
    dtype: np.dtype[np.generic]
    shape: tuple[int | str, ...]


def input_specs(model: ir.Model) -> tuple[InputSpec, ...]:
    """The inputs of a graph, the lead first. Raises UnsupportedGraphError where one is no tensor of known type."""
    specs = []
    for value in model.graph.inputs:
        dtype = _numpy_type(value)
        if value.shape is None or dtype is None:
            raise UnsupportedGraphError(
                f"graph input {value.name} is no tensor of numbers whose type and rank the file states",
                "export the model with its input shapes",
            )
        dims = [d if isinstance(d, int) and d > 0 else str(getattr(d, "value", "") or "") for d in value.shape]
        if len(dims) > 2 and isinstance(dims[1], str):
            dims[1] = _channels(value) or dims[1]
        specs.append(InputSpec(name=value.name or "", dtype=dtype, shape=tuple(dims)))
    if not specs:
        raise UnsupportedGraphError("the graph has no inputs", "there is nothing to compare it on")
    return tuple(sorted(specs, key=lambda s: (s.dtype.kind != "f", -len(s.shape))))


def _numpy_type(value: ir.Value) -> np.dtype[np.generic] | None:
    """The type of an input that is a tensor of numbers."""
    if not isinstance(value.type, ir.TensorType) or value.dtype in (None, ir.DataType.STRING, ir.DataType.UNDEFINED):
        return None
    return value.dtype.numpy() if value.dtype is not None else None


def _channels(image: ir.Value) -> int | None:
    """What the first convolution behind an input wants of axis 1, where the file leaves it open."""
    value = image
    for _ in range(_FAR):
        users = list(value.uses())
        if not users:
            return None
        node = users[0].node
        if node.op_type == "Conv" and len(node.inputs) > 1 and (weight := node.inputs[1]) is not None:
            group = node.attributes["group"].as_int() if "group" in node.attributes else 1
            width = weight.shape[1] if weight.shape is not None and len(weight.shape) > 2 else None
            return width * group if isinstance(width, int) and width * group > 0 else None
        if node.op_type not in _BEFORE_THE_FIRST:
            return None
        value = node.outputs[0]
    return None


def lead_shapes(lead: InputSpec, batch: int, side: int) -> tuple[int, ...]:
    """A shape of the lead: free dimensions are `batch` on axis 0, and `side`, half as long again on the last axis."""
    last = len(lead.shape) - 1
    return tuple(
        d if isinstance(d, int) else batch if i == 0 and last else side * 3 // 2 if i == last and last > 2 else side
        for i, d in enumerate(lead.shape)
    )


def feeds(specs: tuple[InputSpec, ...], lead: NDArray[np.generic], given: Arrays | None = None) -> Arrays:
    """All inputs for one batch of the lead. given: some of the others."""
    sizes: dict[str, int] = {d: n for d, n in zip(specs[0].shape, lead.shape) if isinstance(d, str) and d}
    arrays: dict[str, NDArray[np.generic]] = {specs[0].name: lead}
    for spec in specs[1:]:
        batch = lead.shape[0] if lead.ndim else 1
        shape = tuple(
            d if isinstance(d, int) else sizes.get(d, batch if i == 0 else 1) for i, d in enumerate(spec.shape)
        )
        arrays[spec.name] = random_array(spec, shape, zlib.crc32(spec.name.encode()))
    return {**arrays, **(given or {})}


def random_array(spec: InputSpec, shape: tuple[int, ...], seed: int) -> NDArray[np.generic]:
    """Standard normal numbers, bytes over their whole range, other integers from 0 to 3."""
    generator = np.random.default_rng(seed)
    if spec.dtype.kind in "biu":
        high = 2 if spec.dtype.kind == "b" else 256 if spec.dtype == np.uint8 else 4
        return generator.integers(0, high, shape).astype(spec.dtype)
    return generator.standard_normal(shape).astype(spec.dtype)


def open_session(model: bytes, what: str, entries: Mapping[str, str] | None = None) -> onnxruntime.InferenceSession:
    """A session of ONNX Runtime on the CPU. Raises ExportError where it refuses the model.

    entries: further configuration entries of the session.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    for key, value in (entries or {}).items():
        options.add_session_config_entry(key, value)
    # Waiting threads that spin are worth microseconds, and cost a busy machine half of its time.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises its own exception types, all of them "cannot load"
        raise ExportError(
            f"ONNX Runtime {onnxruntime.__version__} refuses {what}: {_said(error)}",
            "export the model for another opset, or write it with an older version of the format",
        ) from error


def run_session(
    session: onnxruntime.InferenceSession, names: Sequence[str] | None, given: Arrays, what: str
) -> list[NDArray[np.generic]]:
    """The values of these names, all outputs where None; a sequence counts as its elements.

    Raises ExportError where the model cannot be run on these inputs, or gives something else than numbers.
    """
    try:
        found = session.run(names, dict(given))
    except Exception as error:  # as above
        shape = next((a.shape for a in given.values()), ())
        raise ExportError(
            f"{what} does not run on an input of shape {shape}: {_said(error)}", "give calibration data"
        ) from error
    return [_numbers(a, what) for value in found for a in (value if isinstance(value, list) else [value])]


def _numbers(value: object, what: str) -> NDArray[np.generic]:
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise ExportError(
            f"{what} gives values that are no numbers, but {type(value).__name__} of {array.dtype}",
            "only numbers can be compared; leave such outputs out of the graph",
        )
    return array


def _said(error: Exception) -> str:
    return _SOURCE_PLACE.sub("", first_line(error))[:400]


def runner_from_bytes(model: bytes, specs: tuple[InputSpec, ...], what: str, given: Arrays | None = None) -> Runner:
    """A model as a function of its lead. Raises ExportError, also when it is called and fails."""
    session = open_session(model, what)

    def run(lead: NDArray[np.generic]) -> list[NDArray[np.generic]]:
        return run_session(session, None, feeds(specs, lead, given), what)

    return run


def find_probe(run: Runner, lead: InputSpec) -> Probe:
    """Random batches at the sizes that the net accepts: two sizes, and batches of one and two, where it is free.

    Raises ExportError if it runs at no size.
    """
    batches: list[NDArray[np.generic]] = []
    refusal: ExportError | None = None
    for shapes in _candidates(lead):
        found = []
        for number, shape in enumerate(shapes):
            batch = random_array(lead, shape, 2 * len(batches) + number)
            try:
                run(batch)
            except ExportError as error:
                refusal = refusal or error
                continue
            found.append(batch)
        batches += found
        if len({b.shape[1:] for b in batches}) == 2 or (found and not _free(lead)):
            break
    if not batches:
        raise refusal or ExportError("the net runs on no input")
    if len(batches) == 1:
        batches.append(random_array(lead, batches[0].shape, 1))
    return Probe("random", batches)


def _free(lead: InputSpec) -> bool:
    return any(not isinstance(d, int) for d in lead.shape[1:])


def _candidates(lead: InputSpec) -> Iterator[list[tuple[int, ...]]]:
    """Shapes to try, one list a size."""
    batches = (1,) if not lead.shape or isinstance(lead.shape[0], int) else (1, 2)
    for side in SIDES if _free(lead) else SIDES[:1]:
        yield [lead_shapes(lead, batch, side) for batch in batches]
