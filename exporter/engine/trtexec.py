"""The same build by trtexec, NVIDIA's own command: the way for boards that this Python does not reach (JetPack 5)."""

from __future__ import annotations

import shlex

from edgeslim.runtime import Bundle, FrameRange

from .options import BuildOptions
from .typed_graph import has_sparse_weights, low_precisions


def trtexec_line(bundle: Bundle, options: BuildOptions, frames: FrameRange, *, typed: bool) -> str:
    """One line for a shell, run where the ONNX file lies.

    typed: for TensorRT 10 and later, which keep the graph's types; before, flags allow them. A DLA takes flags.
    Raises ConfigError for a precision that the bundle does not have.
    """
    variant, entry = bundle.variant(options.precision), bundle.manifest.inputs[0]
    file = bundle.manifest.model if variant is None else variant.file
    words = ["trtexec", f"--onnx={file}", f"--saveEngine={bundle.manifest.name}-{options.precision}.engine"]
    if not all(isinstance(n, int) for n in entry.shape):
        for name, size in (("min", frames.minimum), ("opt", frames.optimum), ("max", frames.maximum)):
            words.append(f"--{name}Shapes={entry.name}:{'x'.join(map(str, (*size, entry.shape[3])))}")
    if typed and options.dla_core is None:
        words.append("--stronglyTyped")
    else:
        precisions = low_precisions(bundle.graph(options.precision))
        words += [f"--{name}" for name in sorted(precisions)]
        words += ["--precisionConstraints=obey"] if "fp16" in precisions else []
    words += [] if options.tf32 else ["--noTF32"]
    sparse = has_sparse_weights(bundle.graph(options.precision)) if options.sparse is None else options.sparse
    words += ["--sparsity=enable"] if sparse else []
    pools = [("workspace", options.workspace_bytes), ("tacticDram", options.tactic_bytes)]
    sizes = [f"{name}:{size / 2**20:g}" for name, size in pools if size is not None]
    words += [f"--memPoolSize={','.join(sizes)}"] if sizes else []
    words += [f"--builderOptimizationLevel={options.level}"] if options.level is not None else []
    # The member that limits it is not in 8.6, and trtexec refuses words that it does not know.
    words += [f"--maxTactics={options.max_tactics}"] if options.max_tactics is not None and typed else []
    if options.dla_core is not None:
        words += [f"--useDLACore={options.dla_core}", *(["--allowGPUFallback"] if options.gpu_fallback else [])]
    words += ["--versionCompatible"] if options.version_compatible else []
    words += ["--hardwareCompatibilityLevel=ampere+"] if options.compatibility == "ampere-plus" else []
    return shlex.join(words)
