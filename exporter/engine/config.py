"""From options to TensorRT's builder configuration, and a record of what was set.

Every member that not all versions from 8.6 to 11 have is asked for before it is touched. What was asked for and cannot
be had is said; nothing is dropped in silence.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType

from edgeslim.errors import ConfigError, EngineError
from edgeslim.runtime.backends.tensorrt.log import TrtObject
from edgeslim.runtime.variants import MODEL, FrameRange

from .network import Network
from .options import BuildOptions

_COMPATIBILITY = {"ampere-plus": "AMPERE_PLUS", "same-compute-capability": "SAME_COMPUTE_CAPABILITY"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Configured:
    """A configuration and what it says.

    flags: their names, sorted.  settings: by TensorRT's names.  notes: what was asked for and not to be had.
    """

    config: TrtObject
    flags: tuple[str, ...]
    settings: dict[str, str]
    notes: tuple[str, ...]
    on_gpu: dict[str, str] = field(default_factory=dict)
    """With a DLA core: layers that it does not take."""


def configure(trt: ModuleType, net: Network, options: BuildOptions, frames: FrameRange, *, sparse: bool) -> Configured:
    """Make the configuration. sparse: the graph's weights are 2:4.

    Raises ConfigError for what this TensorRT or this machine cannot do, EngineError where a shape is refused.
    """
    config = net.builder.create_builder_config()
    flags: set[str] = set()
    settings: dict[str, str] = {}
    notes: list[str] = []

    def put(name: str, value: bool = True) -> None:
        flag = getattr(trt.BuilderFlag, name)
        (config.set_flag if value else config.clear_flag)(flag)
        (flags.add if value else flags.discard)(name)

    put("TF32", options.tf32)
    if options.sparse if options.sparse is not None else sparse:
        put("SPARSE_WEIGHTS")
    if options.version_compatible:
        put("VERSION_COMPATIBLE")
    if not net.typed:
        precisions = _precisions(trt, net.network)
        for name in sorted(precisions):
            put(name.upper())
        if "fp16" in precisions:
            put("OBEY_PRECISION_CONSTRAINTS")
            settings["float32 layers"] = str(_pin_float32(trt, net.network))
    _limits(trt, config, options, settings, notes)
    _compatibility(trt, config, options, settings)
    _targets(trt, config, options)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    _profile(net, config, frames)
    on_gpu = _dla(trt, net, config, options, frames, put) if options.dla_core is not None else {}
    return Configured(config=config, flags=tuple(sorted(flags)), settings=settings, notes=tuple(notes), on_gpu=on_gpu)


def _limits(
    trt: ModuleType, config: TrtObject, options: BuildOptions, settings: dict[str, str], notes: list[str]
) -> None:
    for pool, size in (("WORKSPACE", options.workspace_bytes), ("TACTIC_DRAM", options.tactic_bytes)):
        if size is not None:
            config.set_memory_pool_limit(getattr(trt.MemoryPoolType, pool), size)
            settings[pool] = str(size)
    if options.level is not None:
        config.builder_optimization_level = options.level
        settings["builder_optimization_level"] = str(options.level)
    if options.max_tactics is not None:
        if hasattr(config, "max_num_tactics"):
            config.max_num_tactics = options.max_tactics
            settings["max_num_tactics"] = str(options.max_tactics)
        else:
            notes.append(f"TensorRT {trt.__version__} cannot limit the number of tactics: that option had no effect")


def _compatibility(trt: ModuleType, config: TrtObject, options: BuildOptions, settings: dict[str, str]) -> None:
    if options.compatibility == "none":
        return
    name = _COMPATIBILITY[options.compatibility]
    if not hasattr(trt.HardwareCompatibilityLevel, name):
        raise ConfigError(
            f"TensorRT {trt.__version__} has no hardware compatibility {options.compatibility!r}",
            "use ampere-plus, or build on each device",
        )
    config.hardware_compatibility_level = getattr(trt.HardwareCompatibilityLevel, name)
    settings["hardware_compatibility_level"] = name


def _targets(trt: ModuleType, config: TrtObject, options: BuildOptions) -> None:
    if not options.targets:
        return
    known = {name.removeprefix("SM"): name for name in dir(trt.ComputeCapability) if name.startswith("SM")}
    config.num_compute_capabilities = len(options.targets)
    for index, target in enumerate(options.targets):
        if target not in known:
            raise ConfigError(
                f"{options.backend} {trt.__version__} does not build for compute capability {target}; "
                f"it knows {', '.join(sorted(known, key=int))}",
                "build on the device itself with --backend tensorrt",
            )
        config.set_compute_capability(getattr(trt.ComputeCapability, known[target]), index)


def _profile(net: Network, config: TrtObject, frames: FrameRange) -> None:
    """Tell which sizes the one input, frames (N, H, W, C), may have."""
    entry = net.network.get_input(0)
    channels = entry.shape[3]
    for axis, name in enumerate(("batch", "height", "width")):
        fixed, low, high = entry.shape[axis], frames.minimum[axis], frames.maximum[axis]
        if fixed != -1 and not low == high == fixed:
            wanted = str(low) if low == high else f"{low} to {high}"
            raise ConfigError(
                f"the graph has a {name} of exactly {fixed}, an engine for {wanted} was asked for",
                f"leave --frames out, or give {name} {fixed}",
            )
    profile = net.builder.create_optimization_profile()
    profile.set_shape(entry.name, *((*size, channels) for size in (frames.minimum, frames.optimum, frames.maximum)))
    if config.add_optimization_profile(profile) < 0:
        raise EngineError(f"TensorRT refuses frames of {frames}", "give sizes that the net takes")


def _dla(
    trt: ModuleType,
    net: Network,
    config: TrtObject,
    options: BuildOptions,
    frames: FrameRange,
    put: Callable[[str], None],
) -> dict[str, str]:
    """Build for the accelerator; layer -> why it stays on the GPU."""
    if options.precision == MODEL:
        raise ConfigError(
            "a DLA computes in float16 and int8, and the graph asked for is fp32",
            "choose a variant with --precision, such as fp16; make one with `edgeslim quantize`",
        )
    cores = net.builder.num_DLA_cores
    if options.dla_core is None or options.dla_core >= cores:
        raise ConfigError(
            f"DLA core {options.dla_core} was asked for; TensorRT {trt.__version__} sees {cores} here",
            "cores count from 0; `edgeslim doctor` tells what this board has",
        )
    if frames.minimum != frames.maximum:
        raise ConfigError(f"a DLA takes one size, and {frames} is a range", "give one size: --frames 1xHxW")
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = options.dla_core
    if options.gpu_fallback:
        put("GPU_FALLBACK")
    layers = [net.network.get_layer(i) for i in range(net.network.num_layers)]
    return {layer.name: "the DLA does not support it" for layer in layers if not config.can_run_on_DLA(layer)}


def _precisions(trt: ModuleType, network: TrtObject) -> frozenset[str]:
    """ "fp16", "int8": the low precisions that occur in the network."""
    kinds = {trt.DataType.HALF: "fp16", trt.DataType.INT8: "int8"}
    layers = (network.get_layer(i) for i in range(network.num_layers))
    outputs = (layer.get_output(i) for layer in layers for i in range(layer.num_outputs))
    return frozenset(kinds[o.dtype] for o in outputs if o is not None and o.dtype in kinds)


def _pin_float32(trt: ModuleType, network: TrtObject) -> int:
    """In an untyped network, keep what the graph computes in float32 from being rounded; how many layers that are.

    What reads a dequantised tensor is left alone: its float32 is that of an int8 kernel's accumulator.
    """
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    dequantised = {_name(layer.get_output(0)) for layer in layers if layer.type == trt.LayerType.DEQUANTIZE}
    pinned = 0
    for layer in layers:
        outputs = [layer.get_output(i) for i in range(layer.num_outputs)]
        reads = {_name(layer.get_input(i)) for i in range(layer.num_inputs)}
        floats = all(o is not None and o.dtype == trt.DataType.FLOAT for o in outputs)
        if outputs and floats and layer.type not in _free_layers(trt) and not reads & dequantised:
            layer.precision = trt.DataType.FLOAT
            pinned += 1
    return pinned


def _name(tensor: TrtObject) -> str | None:
    return None if tensor is None else str(tensor.name)


def _free_layers(trt: ModuleType) -> frozenset[TrtObject]:
    """Layers that compute nothing, or whose type is what they are about."""
    names = ("CAST", "CONSTANT", "SHAPE", "QUANTIZE", "DEQUANTIZE", "IDENTITY")
    return frozenset(getattr(trt.LayerType, name) for name in names if hasattr(trt.LayerType, name))
