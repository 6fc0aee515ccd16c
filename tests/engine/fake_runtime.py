"""The stand-in's runtime: engines that ONNX Runtime computes, from and to the addresses they were given."""

from __future__ import annotations

import ctypes
import enum
import json
from typing import Any

import numpy as np
import onnx
import onnxruntime

from .fake_version import MAGIC, Plan, Severity, restricted


class Runtime:
    engine_host_code_allowed = False

    def __init__(self, trt: Any, plan: Plan, version: str, logger: Any, capability: str) -> None:
        self._trt, self._plan, self._version, self._logger, self._capability = trt, plan, version, logger, capability

    def deserialize_cuda_engine(self, data: bytes) -> Any:
        try:
            size = int.from_bytes(data[4:8], "little")
            header, model = json.loads(data[8 : 8 + size]), data[8 + size :]
            onnx.checker.check_model(onnx.load_model_from_string(model))
            broken = data[:4] != MAGIC
        except Exception:
            broken = True
        if broken:
            self._logger.log(
                Severity.ERROR, "Serialization assertion magicTagRead == kMAGIC_TAG failed. Magic tag does not match"
            )
            return None
        if header["version"] != self._trt.__version__ and not header["compatible"]:
            self._logger.log(
                Severity.ERROR, "Version tag does not match. Note: Current Version: 1, Serialized Engine Version: 2"
            )
            return None
        if header["capability"] != self._capability:
            self._logger.log(
                Severity.ERROR,
                f"The engine plan file was generated on a different device, target GPU {header['capability']}",
            )
            return None
        engine = restricted(_Engine, "ICudaEngine", self._version)
        return engine(self._trt, self._plan, self._version, self._logger, header, model)


class _Engine:
    device_memory_size = 1000
    device_memory_size_v2 = 1000

    def __init__(self, trt: Any, plan: Plan, version: str, logger: Any, header: dict[str, Any], model: bytes) -> None:
        self._trt, self._plan, self._version, self._logger, self._header = trt, plan, version, logger, header
        self._session = onnxruntime.InferenceSession(model)
        self._inputs, self._outputs = self._session.get_inputs(), self._session.get_outputs()

    @property
    def num_io_tensors(self) -> int:
        return len(self._inputs) + len(self._outputs)

    def get_tensor_name(self, index: int) -> str:
        return str([*self._inputs, *self._outputs][index].name)

    def get_tensor_mode(self, name: str) -> Any:
        own = any(v.name == name for v in self._inputs)
        return self._trt.TensorIOMode.INPUT if own else self._trt.TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> Any:
        kind = next(v.type for v in (*self._inputs, *self._outputs) if v.name == name)
        names = {"tensor(uint8)": "UINT8", "tensor(float)": "FLOAT", "tensor(float16)": "HALF"}
        return getattr(self._trt.DataType, names[kind])

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        shape = next(v.shape for v in (*self._inputs, *self._outputs) if v.name == name)
        return tuple(n if isinstance(n, int) else -1 for n in shape)

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        return [tuple(shape) for shape in self._header["shapes"][name]]

    def get_engine_stat(self, stat: Any) -> int:
        return 500

    def create_engine_inspector(self) -> Any:
        return _Inspector(len(self._outputs))

    def create_execution_context(self) -> Any:
        if self._plan.no_context:
            self._logger.log(Severity.ERROR, "out of memory")
            return None
        return restricted(_Context, "IExecutionContext", self._version)(self, self._plan, self._logger)


class _Inspector:
    def __init__(self, layers: int) -> None:
        self._layers = layers

    def get_engine_information(self, form: Any) -> str:
        assert form.name == "JSON"
        return json.dumps({"Layers": [{"Name": f"layer {i}", "LayerType": "fused"} for i in range(self._layers)]})


class _Context:
    def __init__(self, engine: Any, plan: Plan, logger: Any) -> None:
        self._engine, self._plan, self._logger = engine, plan, logger
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        least, _, most = self._engine.get_tensor_profile_shape(name, 0)
        fits = all(a <= n <= b for a, n, b in zip(least, shape, most))
        if fits:
            self._shapes[name] = tuple(shape)
        return fits

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        if name in self._shapes:
            return self._shapes[name]
        feeds = {n: np.zeros(shape, _numpy(self._engine.get_tensor_dtype(n))) for n, shape in self._shapes.items()}
        return tuple(self._engine._session.run([name], feeds)[0].shape)

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        if self._plan.fails_to_run:
            self._logger.log(Severity.ERROR, "an illegal memory access was encountered")
            return False
        session = self._engine._session
        feeds = {
            n: _at(self._addresses[n], s, self._engine.get_tensor_dtype(n)).copy() for n, s in self._shapes.items()
        }
        for value, array in zip(session.get_outputs(), session.run(None, feeds)):
            out = _at(self._addresses[value.name], array.shape, self._engine.get_tensor_dtype(value.name))
            out[...] = array + array.dtype.type(self._plan.off_by)
        return True


def _numpy(dtype: enum.IntEnum) -> np.dtype[Any]:
    return np.dtype({"UINT8": "uint8", "FLOAT": "float32", "HALF": "float16"}[dtype.name])


def _at(address: int, shape: tuple[int, ...], dtype: enum.IntEnum) -> np.ndarray[Any, Any]:
    kind = _numpy(dtype)
    size = int(np.prod(shape)) * kind.itemsize
    return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address)).view(kind).reshape(shape)
