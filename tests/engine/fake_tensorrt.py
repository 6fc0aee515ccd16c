"""A stand-in for TensorRT, for tests alone: the members of one version, and ONNX Runtime where a GPU would be.

    trt = fake_tensorrt("103")        a module whose classes have what 10.3 has, and raise AttributeError for the rest

An engine is a header and the ONNX model. Its context reads its inputs from the addresses it was given, computes them
with ONNX Runtime, and writes its outputs to theirs, so a wrong address, size or order of copies shows.
`Plan` plants the faults that a builder or a GPU may have.
"""

from __future__ import annotations

import enum
import json
from types import ModuleType
from typing import Any

import onnx

from .fake_runtime import Runtime
from .fake_version import MAGIC, NUMBERS, Plan, Severity, restricted
from .surface import members


def fake_tensorrt(version: str, plan: Plan | None = None, capability: str = "8.7") -> ModuleType:
    """The stand-in for one version. capability: of the GPU that engines are built on and loaded by."""
    plan = plan or Plan()
    trt: Any = ModuleType("tensorrt")
    trt.__version__ = NUMBERS[version]
    for kind in (
        "BuilderFlag", "NetworkDefinitionCreationFlag", "DataType", "MemoryPoolType", "HardwareCompatibilityLevel",
        "LayerInformationFormat", "ProfilingVerbosity", "TensorIOMode", "EngineStat", "ComputeCapability",
    ):  # fmt: skip
        names = sorted(members(kind, version))
        if names:
            setattr(trt, kind, enum.IntEnum(kind, {name: i for i, name in enumerate(names)}))
    trt.DeviceType = enum.IntEnum("DeviceType", {"GPU": 0, "DLA": 1})
    layers = ("CONVOLUTION", "ACTIVATION", "CAST", "CONSTANT", "SHAPE", "QUANTIZE", "DEQUANTIZE", "IDENTITY", "SHUFFLE")
    trt.LayerType = enum.IntEnum("LayerType", {name: i for i, name in enumerate(layers)})
    trt.ILogger = type("ILogger", (), {"__init__": lambda self: None, "Severity": Severity})
    if "IProgressMonitor" in members("top-level changes", version):
        trt.IProgressMonitor = type("IProgressMonitor", (), {"__init__": lambda self: None})
    first: list[Any] = []

    def one(logger: Any) -> Any:
        """The first logger of the process is the one that hears: as in the real thing. Raises TypeError as that."""
        first.append(logger)
        if first[0] is not logger:
            first[0].log(Severity.WARNING, "The logger passed differs from one already registered")
        if plan.no_driver:
            first[0].log(Severity.ERROR, "CUDA initialization failure with error: 35")
            raise TypeError("pybind11::init(): factory function returned nullptr")
        return first[0]

    trt.Builder = lambda logger: restricted(_Builder, "Builder", version)(trt, plan, version, one(logger), capability)
    trt.OnnxParser = lambda network, logger: restricted(_Parser, "OnnxParser", version)(trt, plan, version, network)
    trt.Runtime = lambda logger: restricted(Runtime, "Runtime", version)(trt, plan, version, one(logger), capability)
    module: ModuleType = trt
    return module


class _Tensor:
    def __init__(self, name: str, shape: tuple[int, ...], dtype: Any) -> None:
        self.name, self.shape, self.dtype = name, shape, dtype


class _Layer:
    def __init__(self, trt: Any, node: onnx.NodeProto, types: dict[str, Any]) -> None:
        kinds = {
            "Conv": "CONVOLUTION", "Relu": "ACTIVATION", "Cast": "CAST", "Constant": "CONSTANT", "Shape": "SHAPE",
            "QuantizeLinear": "QUANTIZE", "DequantizeLinear": "DEQUANTIZE", "Identity": "IDENTITY",
        }  # fmt: skip
        self.name, self.type = node.name, getattr(trt.LayerType, kinds.get(node.op_type, "SHUFFLE"))
        self._inputs = [_Tensor(n, (), types.get(n)) for n in node.input if n]
        self._outputs = [_Tensor(n, (), types.get(n)) for n in node.output]
        self.num_inputs, self.num_outputs = len(self._inputs), len(self._outputs)
        self.precision: Any = None

    def get_input(self, index: int) -> _Tensor:
        return self._inputs[index]

    def get_output(self, index: int) -> _Tensor:
        return self._outputs[index]


class _Network:
    def __init__(self, flags: int) -> None:
        self.flags, self.layers, self.model = flags, list[_Layer](), b""
        self._inputs: list[_Tensor] = []

    @property
    def num_layers(self) -> int:
        return len(self.layers)

    def get_layer(self, index: int) -> _Layer:
        return self.layers[index]

    def get_input(self, index: int) -> _Tensor:
        return self._inputs[index]

    def fill(self, trt: Any, model: bytes) -> None:
        proto = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(model))
        types = {
            v.name: _data_type(trt, v.type.tensor_type.elem_type)
            for v in (*proto.graph.value_info, *proto.graph.input, *proto.graph.output)
        }
        self.model, self.layers = model, [_Layer(trt, node, types) for node in proto.graph.node]
        for value in proto.graph.input:
            dims = value.type.tensor_type.shape.dim
            shape = tuple(d.dim_value if d.HasField("dim_value") else -1 for d in dims)
            self._inputs.append(_Tensor(value.name, shape, types[value.name]))


def _data_type(trt: Any, kind: int) -> Any:
    names = {
        onnx.TensorProto.FLOAT: "FLOAT", onnx.TensorProto.FLOAT16: "HALF", onnx.TensorProto.INT8: "INT8",
        onnx.TensorProto.UINT8: "UINT8", onnx.TensorProto.INT64: "INT64", onnx.TensorProto.INT32: "INT32",
        onnx.TensorProto.BOOL: "BOOL",
    }  # fmt: skip
    return getattr(trt.DataType, names.get(kind, "FLOAT"), trt.DataType.INT32)


class _ParserError:
    def __init__(self, node: onnx.NodeProto, index: int) -> None:
        self._node, self._index = node, index

    def desc(self) -> str:
        return f"no importer\nfor {self._node.op_type}"

    def node(self) -> int:
        return self._index

    def node_name(self) -> str:
        return self._node.name

    def node_operator(self) -> str:
        return self._node.op_type


class _OldParserError:
    """That of 8.6, which knows the node's number alone."""

    def __init__(self, error: _ParserError) -> None:
        self.desc, self.node = error.desc, error.node


class _Parser:
    def __init__(self, trt: Any, plan: Plan, version: str, network: _Network) -> None:
        self._trt, self._plan, self._version, self._network = trt, plan, version, network
        self._errors: list[Any] = []

    def parse(self, model: bytes) -> bool:
        try:
            nodes = onnx.load_model_from_string(model).graph.node
        except Exception:
            return False
        errors = [_ParserError(n, i) for i, n in enumerate(nodes) if n.op_type in self._plan.unsupported]
        self._errors = [_OldParserError(e) if self._version == "86" else e for e in errors]
        if not errors:
            self._network.fill(self._trt, model)
        return not errors

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> Any:
        return self._errors[index]


class _Profile:
    def __init__(self) -> None:
        self.shapes: dict[str, tuple[tuple[int, ...], ...]] = {}

    def set_shape(self, name: str, least: tuple[int, ...], usual: tuple[int, ...], most: tuple[int, ...]) -> None:
        self.shapes[name] = (least, usual, most)


class _Cache:
    def __init__(self, data: bytes) -> None:
        self.data = data

    def serialize(self) -> bytes:
        return self.data + b"+timed"


class _Config:
    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._flags: set[str] = {"TF32"}
        self._limits: dict[str, int] = {}
        self._profiles: list[_Profile] = []
        self._targets: dict[int, str] = {}
        self.default_device_type: Any = None
        self.DLA_core = -1
        self.builder_optimization_level = 3
        self.profiling_verbosity: Any = None
        self.hardware_compatibility_level: Any = None
        self._cache: _Cache | None = None

    progress_monitor: Any = None
    max_num_tactics = -1
    num_compute_capabilities = 0

    def set_flag(self, flag: enum.IntEnum) -> None:
        self._flags.add(flag.name)

    def clear_flag(self, flag: enum.IntEnum) -> None:
        self._flags.discard(flag.name)

    def set_memory_pool_limit(self, pool: enum.IntEnum, size: int) -> None:
        self._limits[pool.name] = size

    def add_optimization_profile(self, profile: _Profile) -> int:
        self._profiles.append(profile)
        return len(self._profiles) - 1

    def set_compute_capability(self, capability: enum.IntEnum, index: int) -> bool:
        self._targets[index] = capability.name
        return True

    def can_run_on_DLA(self, layer: _Layer) -> bool:
        return layer.name not in self._plan.not_on_dla

    def create_timing_cache(self, data: bytes) -> _Cache:
        return _Cache(data)

    def set_timing_cache(self, cache: _Cache, ignore_mismatch: bool) -> bool:
        if cache.data and self._plan.foreign_timings:
            return False
        self._cache = cache
        return True


class _Builder:
    def __init__(self, trt: Any, plan: Plan, version: str, logger: Any, capability: str) -> None:
        self._trt, self._plan, self._version, self._logger, self._capability = trt, plan, version, logger, capability

    @property
    def num_DLA_cores(self) -> int:
        return self._plan.dla_cores

    def create_network(self, flags: int) -> _Network:
        self._plan.creation_flags.append(flags)
        return _Network(flags)

    def create_builder_config(self) -> Any:
        return restricted(_Config, "IBuilderConfig", self._version)(self._plan)

    def create_optimization_profile(self) -> _Profile:
        return _Profile()

    def build_serialized_network(self, network: _Network, config: Any) -> bytes | None:
        limits = config._limits
        built = {
            "flags": sorted(config._flags), "limits": limits, "level": config.builder_optimization_level,
            "targets": config._targets, "dla": config.DLA_core, "shapes": config._profiles[0].shapes, 
            "pinned": [layer.name for layer in network.layers if layer.precision is not None],
        }  # fmt: skip
        self._plan.built.append(built)
        if self._plan.refuses is not None:
            self._logger.log(Severity.ERROR, self._plan.refuses)
            return None
        most = self._plan.memory_bytes
        if most is not None and limits.get("WORKSPACE", 2**60) > most:
            self._logger.log(Severity.ERROR, "Requested amount of GPU memory could not be allocated: out of memory")
            return None
        monitor = getattr(config, "progress_monitor", None)
        if monitor is not None:
            monitor.phase_start("Building engine", None, 2)
            for step in range(2):
                if not monitor.step_complete("Building engine", step):
                    return None
            monitor.phase_finish("Building engine")
        self._logger.log(Severity.WARNING, "a warning\nof two lines")
        for name in sorted(self._plan.told_of_dla):
            self._logger.log(Severity.WARNING, f"Validation failed for DLA layer: {name}.\nSwitching to GPU fallback.")
        header = {
            "version": self._trt.__version__, "capability": self._capability, "shapes": config._profiles[0].shapes,
            "compatible": "VERSION_COMPATIBLE" in config._flags,
        }  # fmt: skip
        text = json.dumps(header).encode()
        return MAGIC + len(text).to_bytes(4, "little") + text + _with_faults(network.model, self._plan)


def _with_faults(model: bytes, plan: Plan) -> bytes:
    if not plan.wrong_values:
        return model
    proto = onnx.load_model_from_string(model)
    graph = proto.graph
    given_out = {value.name for value in graph.output}
    for node in list(graph.node):
        name = node.output[0]
        if name not in plan.wrong_values or (plan.wrong_where_fused and name in given_out):
            continue
        node.output[0] = f"{name} before the fault"
        fault = onnx.helper.make_node("Constant", [], [f"{name} fault"], value_float=plan.wrong_values[name])
        likes = onnx.helper.make_node("CastLike", [fault.output[0], node.output[0]], [f"{name} cast"])
        adds = onnx.helper.make_node("Add", [node.output[0], likes.output[0]], [name])
        place = list(graph.node).index(node) + 1
        for offset, new in enumerate((fault, likes, adds)):
            graph.node.insert(place + offset, new)
    return proto.SerializeToString()
