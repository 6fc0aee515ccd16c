"""From a torch module to ONNX IR, names kept.

`torch.onnx.export(dynamo=True, optimize=False)` leaves every initializer under its `state_dict` name, which is what
lets a decision about channels travel between the graph and the module. (`optimize=True` fuses batch norms and
loses the names.) Batch and image size are left dynamic wherever the net allows it.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import re
import warnings
from collections.abc import Iterator

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from onnx_ir.passes import common
from torch import nn

from edgeslim.errors import UnsupportedGraphError, first_line

from .certificate import Runner
from .graph_runner import runner_from_graph
from .passes.fold_constants import fold_constants
from .passes.shuffles_to_gathers import shuffles_to_gathers
from .passes.slices_to_gathers import slices_to_gathers
from .translations import translations

_LOUD = {
    "torch.onnx": logging.ERROR,
    "torch.fx.experimental.symbolic_shapes": logging.CRITICAL,
    "onnx_ir": logging.CRITICAL,
}
"""Loggers that report, with tracebacks, what is tried and then done in another way."""


def trace(module: nn.Module, example: torch.Tensor) -> ir.Model:
    """Trace `module` in eval mode on one image batch and fold the constants that only carry shapes.

    example: (N, C, H, W) float32. Returns a model whose initializers carry the module's parameter and buffer names.
    Raises UnsupportedGraphError if the net is not float32, if its forward fails on `example` or does not repeat
    itself, or if it cannot be traced.
    """
    check_precision(module, example)
    _check_forward(module, example)
    for batch, dynamic_axes, elsewhere in _attempts(example):
        with contextlib.suppress(UnsupportedGraphError):
            model = _export(module, batch, dynamic_axes)
            if _agrees(module, model, elsewhere):
                return model
    # The net, or what the tracer makes of it, holds for this batch and this size alone.
    return _export(module, example, ())


def runner_from_module(module: nn.Module) -> Runner:
    """Wrap a module as a function on arrays, run in eval mode without gradients on the module's device."""

    return lambda images: _arrays(_forward(module, images))


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode inside the block; afterwards each part is in the mode it was in (a frozen batch norm stays frozen)."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


def flatten_outputs(outputs: object) -> list[torch.Tensor]:
    """The tensors a forward returned, in the order in which torch.export flattens them."""
    return [leaf for leaf in torch.utils._pytree.tree_leaves(outputs) if isinstance(leaf, torch.Tensor)]


def _forward(module: nn.Module, images: NDArray[np.generic]) -> object:
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    with evaluating(module), torch.no_grad():
        return module(torch.from_numpy(images).to(device))


def _arrays(outputs: object) -> list[NDArray[np.generic]]:
    # A parameter may be an output: it still wants a gradient.
    return [tensor.detach().cpu().numpy() for tensor in flatten_outputs(outputs)]


def check_precision(module: nn.Module, example: torch.Tensor) -> None:
    """Raise UnsupportedGraphError unless the example and everything in the module is float32 (or no float)."""
    if not example.numel():
        raise UnsupportedGraphError(f"the example of shape {tuple(example.shape)} is empty", "give at least one image")
    tensors: dict[str, object] = {"the example": example, **module.state_dict()}
    for name, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor):  # what quantised layers pack, or a module's extra state
            raise UnsupportedGraphError(
                f"{type(module).__name__}: {name} of its state_dict is a {type(tensor).__name__}",
                "give the net in float32, with tensors alone in its state_dict",
            )
        if tensor.is_meta:
            raise UnsupportedGraphError(
                f"{type(module).__name__}: {name} is on the meta device, without data", "load its weights first"
            )
        if (tensor.is_floating_point() or tensor.is_complex()) and tensor.dtype != torch.float32:
            raise UnsupportedGraphError(
                f"{type(module).__name__}: {name} is {_dtype(tensor)}; nets are analysed and exported in float32",
                "call module.float(), and give a float32 example",
            )


def _dtype(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _check_forward(module: nn.Module, example: torch.Tensor) -> None:
    """Run the net twice: what fails, or answers otherwise the second time, cannot be proven equal to anything."""
    name, images = type(module).__name__, example.detach().cpu().numpy()
    try:
        outputs, again = _forward(module, images), _forward(module, images)
    except Exception as error:
        raise UnsupportedGraphError(
            f"{name}: forward fails on an input of shape {tuple(example.shape)}: {first_line(error)}",
            "check the input channels and the image size the net expects",
        ) from error
    others = [leaf for leaf in torch.utils._pytree.tree_leaves(outputs) if not isinstance(leaf, torch.Tensor)]
    if others or not flatten_outputs(outputs):
        seen = f"an object of type {type(others[0]).__name__}" if others else "nothing"
        raise UnsupportedGraphError(f"{name}: forward returns {seen}", "return tensors, or a tuple or dict of them")
    for tensor in flatten_outputs(outputs):
        if tensor.dtype == torch.bfloat16 or tensor.layout != torch.strided:
            raise UnsupportedGraphError(
                f"{name}: forward returns a {str(tensor.layout).removeprefix('torch.')} tensor of {_dtype(tensor)}, "
                "which cannot be compared with what the exported graph answers",
                "return dense float32, with autocast off",
            )
    pairs = zip(_arrays(outputs), _arrays(again))
    if not all(a.shape == b.shape and np.allclose(a, b, rtol=1e-3, equal_nan=True) for a, b in pairs):
        raise UnsupportedGraphError(
            f"{name}: two runs on the same input differ in eval mode",
            "take random numbers out of the forward; functional dropout needs training=self.training",
        )


def _attempts(example: torch.Tensor) -> Iterator[tuple[torch.Tensor, tuple[int, ...], tuple[int, ...]]]:
    """What may be called dynamic, most of it first: a batch to trace, its dynamic axes, another shape to hold at."""
    # A batch of one would be specialised to the constant 1.
    batch = torch.cat([example, example]) if example.shape[0] == 1 else example
    if example.ndim == 4:
        yield batch, (0, 2, 3), (1, example.shape[1], *(2 * n for n in example.shape[2:]))
    if example.ndim > 1:
        yield batch, (0,), (1, *example.shape[1:])


def _export(module: nn.Module, batch: torch.Tensor, dynamic_axes: tuple[int, ...]) -> ir.Model:
    dynamic = {axis: torch.export.Dim.AUTO for axis in dynamic_axes}
    try:
        with evaluating(module), _quiet():
            # dynamic_shapes as a tuple binds by position, whatever the forward calls its argument.
            program = torch.onnx.export(
                module,
                (batch,),
                dynamo=True,
                optimize=False,
                dynamic_shapes=((dynamic,),) if _takes_many(module) else (dynamic,),
                verbose=False,
                custom_translation_table=translations(),
            )
    except Exception as error:
        cause = first_line(_root(error))
        unknown = "No ONNX function" in cause
        raise UnsupportedGraphError(
            f"{type(module).__name__} cannot be traced by torch.export: {cause}",
            "write this operator with others that ONNX has"
            if unknown
            else "data-dependent Python branches in forward are the usual cause; move them out of the net",
        ) from error
    if program is None:
        raise UnsupportedGraphError(f"{type(module).__name__}: the ONNX exporter returned nothing")
    model = program.model
    # The tracer notes every line of Python it went through, with this machine's paths: none of it is for a bundle.
    common.ClearMetadataAndDocStringPass()(model)
    with _quiet():
        model = fold_constants(_name_sizes(model), module.state_dict())
        return _own_tensors(_own_outputs(shuffles_to_gathers(slices_to_gathers(model))))


def _takes_many(module: nn.Module) -> bool:
    """Whether the image is the first of `*args`, as in a wrapper around a net: torch.export binds those as a tuple."""
    first = next(iter(inspect.signature(module.forward).parameters.values()), None)
    return first is not None and first.kind is inspect.Parameter.VAR_POSITIONAL


def _agrees(module: nn.Module, model: ir.Model, shape: tuple[int, ...]) -> bool:
    """Whether a trace that claims to be dynamic is: an adaptive pool, say, is traced with the example's window."""
    images = np.zeros(shape, np.float32)
    images += np.linspace(-1, 1, images.shape[-1], dtype=np.float32)
    try:
        wanted = runner_from_module(module)(images)
        seen = runner_from_graph(model, quiet=True)(images)
    except Exception:  # the net or the graph refuses the size, each in its own way: then the size is fixed
        return False
    return len(seen) == len(wanted) and all(
        a.shape == b.shape and np.allclose(a, b, rtol=1e-3, atol=1e-3 * float(np.abs(b).max(initial=0.0)))
        for a, b in zip(seen, wanted)
    )


def _name_sizes(model: ir.Model) -> ir.Model:
    """Call the dynamic sizes of the image batch, height and width wherever they occur."""
    image = model.graph.inputs[0].shape or ()
    names = dict(zip(("batch", "", "height", "width"), image))
    renamed = {d.value: name for name, d in names.items() if isinstance(d, ir.SymbolicDim) and d.value}
    if not renamed:
        return model
    pattern = re.compile(r"\b(" + "|".join(map(re.escape, renamed)) + r")\b")
    values = [*model.graph.inputs, *(v for n in model.graph for v in n.outputs)]
    for value in values:
        if value.shape is not None:
            value.shape = ir.Shape(
                d if isinstance(d, int) or d.value is None else pattern.sub(lambda m: renamed[m[1]], d.value)
                for d in value.shape
            )
    return model


def _own_outputs(model: ir.Model) -> ir.Model:
    """Give every output a value of its own: a net may return one tensor twice, its input, or a parameter."""
    taken: set[ir.Value] = set()
    for index, value in enumerate(model.graph.outputs):
        if value.producer() is None or value in taken:
            copy = ir.node("Identity", [value])
            copy.outputs[0].name = f"{value.name}/output_{index}"
            copy.outputs[0].type, copy.outputs[0].shape = value.type, value.shape
            model.graph.append(copy)
            model.graph.outputs[index] = copy.outputs[0]
        taken.add(value)
    return model


def _own_tensors(model: ir.Model) -> ir.Model:
    """Let go of the module: of its tensors, which go on changing in training, and of the tracer's own graph."""
    for value in model.graph.initializers.values():
        value.meta.clear()
        if value.const_value is not None:
            value.const_value = ir.tensor(np.array(value.const_value.numpy()), name=value.name)
    for node in model.graph.all_nodes():
        node.meta.clear()
        for value in node.outputs:
            value.meta.clear()
    for value in model.graph.inputs:
        value.meta.clear()
    model.graph.meta.clear()
    model.meta.clear()
    return model


def _root(error: BaseException) -> BaseException:
    """What went wrong at first: torch wraps it several times."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter reports its progress and optional packages on every channel; none of it is for the user."""
    loggers = {logging.getLogger(name): level for name, level in _LOUD.items()}
    levels = [(logger, logger.level) for logger in loggers]
    for logger, level in loggers.items():
        logger.setLevel(level)
    try:
        nowhere = io.StringIO()  # torch.export prints the whole graph there before it raises
        with warnings.catch_warnings(), contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in levels:
            logger.setLevel(level)
