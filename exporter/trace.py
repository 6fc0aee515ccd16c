"""From a torch module to ONNX IR, names kept: the only room of the exporter that knows torch.

`torch.onnx.export(dynamo=True, optimize=False)` leaves every initializer under its `state_dict` name, which is what
lets a decision about channels travel between the graph and the module. (`optimize=True` fuses batch norms and
loses the names.) Batch and image size are left dynamic wherever the net allows it.
"""

from __future__ import annotations

import contextlib
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


def trace(module: nn.Module, example: torch.Tensor) -> ir.Model:
    """Trace `module` in eval mode on one image batch and fold the constants that only carry shapes.

    example: (N, C, H, W) float. Returns a model whose initializers carry the module's parameter and buffer names.
    Raises UnsupportedGraphError if the forward fails on `example` or cannot be traced.
    """
    _check_forward(module, example)
    # A batch of one would be specialised to the constant 1.
    batch = torch.cat([example, example]) if example.shape[0] == 1 else example
    model = _export(module, batch, dynamic_size=batch.ndim == 4)
    if batch.ndim == 4 and not _agrees_at_other_size(module, model, batch):
        # The net, or what the tracer made of it, holds for this image size alone.
        model = _export(module, batch, dynamic_size=False)
    return model


def runner_from_module(module: nn.Module) -> Runner:
    """Wrap a module as a function on arrays, run in eval mode without gradients on the module's device."""

    def run(images: NDArray[np.generic]) -> list[NDArray[np.generic]]:
        device = next((p.device for p in module.parameters()), torch.device("cpu"))
        with evaluating(module), torch.no_grad():
            outputs = module(torch.from_numpy(images).to(device))
        return [o.cpu().numpy() for o in _flatten(outputs)]

    return run


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


def _check_forward(module: nn.Module, example: torch.Tensor) -> None:
    try:
        runner_from_module(module)(example.detach().cpu().numpy())
    except Exception as error:
        raise UnsupportedGraphError(
            f"{type(module).__name__}: forward fails on an input of shape {tuple(example.shape)}: {first_line(error)}",
            "check the input channels and the image size the net expects",
        ) from error


def _export(module: nn.Module, batch: torch.Tensor, dynamic_size: bool) -> ir.Model:
    auto = torch.export.Dim.AUTO
    dynamic = {0: auto, 2: auto, 3: auto} if dynamic_size else {0: auto}
    try:
        with evaluating(module), _quiet():
            # dynamic_shapes as a tuple binds by position, whatever the forward calls its argument.
            program = torch.onnx.export(
                module, (batch,), dynamo=True, optimize=False, dynamic_shapes=(dynamic,), verbose=False
            )
    except Exception as error:
        raise UnsupportedGraphError(
            f"{type(module).__name__} cannot be traced by torch.export: {first_line(_root(error))}",
            "data-dependent Python branches in forward are the usual cause; move them out of the net",
        ) from error
    if program is None:
        raise UnsupportedGraphError(f"{type(module).__name__}: the ONNX exporter returned nothing")
    model = program.model
    # The tracer notes every line of Python it went through, with this machine's paths: none of it is for a bundle.
    common.ClearMetadataAndDocStringPass()(model)
    return fold_constants(_name_sizes(model))


def _agrees_at_other_size(module: nn.Module, model: ir.Model, batch: torch.Tensor) -> bool:
    """Whether a trace that claims to be dynamic is: an adaptive pool, say, is traced with the example's window."""
    images = np.zeros((1, batch.shape[1], 2 * batch.shape[2], 2 * batch.shape[3]), np.float32)
    images += np.linspace(-1, 1, images.shape[-1], dtype=np.float32)
    try:
        wanted = runner_from_module(module)(images)
        seen = runner_from_graph(model)(images)
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


def _flatten(outputs: object) -> list[torch.Tensor]:
    """Outputs in the order in which torch.export flattens them."""
    leaves, _ = torch.utils._pytree.tree_flatten(outputs)
    return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]


def _root(error: BaseException) -> BaseException:
    """What went wrong at first: torch wraps it several times."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter reports its progress and optional packages on every channel; none of it is for the user."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
