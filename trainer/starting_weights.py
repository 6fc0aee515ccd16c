"""Weights that a recipe's net starts from: a file or a checkpoint that somebody else has trained.

    *.safetensors            tensors by name
    a checkpoint directory   of an edgeslim run, see `checkpoint`
    *.pt, *.pth, *.th        a PyTorch file, read as tensors only: nothing in it is run

Names are brought to the net's: a `state_dict` around them is unwrapped, and leading parts that all of them share
(`module.` of a net trained on several GPUs, `net.`) are taken off where that makes more of them fit. Then every
parameter must be there, in its shape; of the buffers only batch norm's step counter may be missing, which older files
do not have.
"""

from __future__ import annotations

import difflib
import hashlib
import pickle
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn

from edgeslim.errors import CheckpointError, first_line

from .checkpoint import INDEX, load_checkpoint, load_state

WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Entries under which training programs keep the net among other things."""
_OPTIONAL = "num_batches_tracked"
_NAMED = 5  # how many names a message lists


def load_weights(module: nn.Module, path: Path) -> str:
    """Put the weights at `path` into `module`, all of them. Returns their SHA-256, in hexadecimal.

    Raises CheckpointError for what cannot be read, and for weights of another net, naming what differs.
    """
    state = read_weights(path)
    own = module.state_dict()
    fitting = _renamed(state, own)
    problems = [*_differences(fitting, own)]
    if problems:
        raise CheckpointError(
            f"weights {path} do not fit {type(module).__name__}: {'; '.join(problems)}",
            "check model.name, model.args and the classes of the data",
        )
    for name, tensor in fitting.items():
        if problem := _unusable(tensor, own[name]):
            raise CheckpointError(f"weights {path}: {name} {problem}", "save the net's float32 state_dict")
    load_state(module, {name: fitting.get(name, tensor) for name, tensor in own.items()})
    return _digest(fitting)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors at `path` by their names there. Raises CheckpointError for anything that holds none."""
    if path.is_dir():
        saved = load_checkpoint(path)
        if saved.plan is not None:
            raise CheckpointError(
                f"weights {path} are those of a pruned net, whose layers are narrower", f"see plan.json beside {INDEX}"
            )
        return dict(saved.model)
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except OSError as error:
        raise CheckpointError(
            f"weights {path} cannot be read: {error.strerror}", f"a relative path starts at {Path.cwd()}"
        ) from error
    state = _from_safetensors(path) if head[8:9] == b"{" else _from_torch(path)
    if not state:
        raise CheckpointError(f"weights {path} hold no tensors", "give a file that holds a state_dict")
    return state


def _from_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_safetensors(path.read_bytes())
    except SafetensorError as error:
        raise CheckpointError(f"weights {path} are no safetensors file: {error}", "copy the file again") from error


def _from_torch(path: Path) -> dict[str, Tensor]:
    try:
        content: object = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"weights {path} hold more than tensors{_named_global(error)}, or are no PyTorch file",
            "edgeslim runs nothing from a file: save net.state_dict() where you trust it, best as safetensors",
        ) from error
    except Exception as error:  # a damaged archive fails in any way
        raise CheckpointError(
            f"weights {path} cannot be read: {type(error).__name__}: {first_line(error)}", "copy the file again"
        ) from error
    return _tensors(content)


def _named_global(error: Exception) -> str:
    """What a file wanted to be built of, by torch's message, whose advice is to run it."""
    found = re.search(r"GLOBAL ([\w.]+)", str(error))
    return f" ({found[1]})" if found else ""


def _tensors(content: object) -> dict[str, Tensor]:
    """The mapping of names to tensors in what a file holds; empty where there is none."""
    if not isinstance(content, Mapping):
        return {}
    for name in WRAPPERS:
        if isinstance(content.get(name), Mapping):
            return _tensors(content[name])
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}


def _renamed(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`state` with the leading parts exchanged that all of its names share, so that most of them are names of `own`."""
    best = dict(state)
    fitting = len(own.keys() & best.keys())
    for prefix in _prefixes(state):
        for new in ("", *_prefixes(own)):
            trial = {new + name.removeprefix(prefix): tensor for name, tensor in state.items()}
            if len(own.keys() & trial.keys()) > fitting:
                best, fitting = trial, len(own.keys() & trial.keys())
    return best


def _prefixes(names: Iterable[str]) -> list[str]:
    """The leading parts, each with its dot, that all names share: "", then "module.", then "module.net." ..."""
    split = [name.split(".")[:-1] for name in names]
    shared = [""]
    for parts in zip(*split):
        if len(set(parts)) > 1:
            break
        shared.append(f"{shared[-1]}{parts[0]}.")
    return shared


def _differences(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> Iterable[str]:
    """What keeps `state` from being a state of `own`, in words, each name with what comes nearest on the other side."""
    missing = [name for name in own if name not in state and not name.endswith(_OPTIONAL)]
    unexpected = [name for name in state if name not in own]
    other = [
        f"{name} is {_shape(state[name])}, the net has {_shape(own[name])}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    if missing:
        yield f"{len(missing)} missing: {_listed(missing, unexpected)}"
    if unexpected:
        yield f"{len(unexpected)} unexpected: {_listed(unexpected, missing or list(own))}"
    if other:
        yield f"{len(other)} of another shape: {_listed(other)}"


def _near(name: str, others: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, others, n=1, cutoff=0.5)
    return f"{name} (nearest: {near[0]})" if near else name


def _listed(texts: Sequence[str], others: Sequence[str] = ()) -> str:
    """The first few, each with what comes nearest to it among `others`: to look for all of them takes minutes."""
    named = [_near(text, others) for text in texts[:_NAMED]]
    return ", ".join(named) + (f" and {len(texts) - _NAMED} more" if len(texts) > _NAMED else "")


def _unusable(tensor: Tensor, own: Tensor) -> str:
    """What keeps numbers of the right shape from being weights, "" if nothing does.

    Integers in a float's place are a quantised net's: without their scales they mean something else.
    """
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
        return f"is stored as {tensor.layout}, {tensor.dtype} on {tensor.device}; wanted are plain numbers"
    if own.is_floating_point() and not tensor.is_floating_point():
        return f"holds {tensor.dtype}; the net has {own.dtype}"
    finite = bool(torch.isfinite(tensor.to(own.dtype)).all())
    return "" if finite else f"holds numbers that are not finite as {own.dtype}"


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "one number"


def _digest(state: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return digest.hexdigest()
