"""Which net a device profile is made for: a recipe's, or a file that stands for it on a device without torch.

The file is the traced graph, untrained, as ONNX, with what a plan of it depends on in its metadata: the frame's size,
which initializers are parameters, and the recipe's limits of widths. From the file and from the recipe come the same
plans, so what is measured on the device is found again where the planning is done.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import onnx
import onnx_ir as ir
from pydantic import Field, ValidationError

from edgeslim.atomic import write_bytes
from edgeslim.errors import ConfigError, ExportError, InvariantError, UnsupportedGraphError, first_line
from edgeslim.exporter.channels import ChannelMap, analyze
from edgeslim.progress import Progress

from .budget import WidthLimits
from .budget.registry import build_budget
from .budget.target import Target
from .recipe_base import PositiveInt, Section, mistake_in_words
from .recipe_target import TargetBudget

if TYPE_CHECKING:
    from .recipe import Recipe

_KEY = "edgeslim.profiled_net"


class _Told(Section):
    """What the file says beside the graph."""

    shape: tuple[Literal[1], PositiveInt, PositiveInt, PositiveInt]
    parameters: tuple[str, ...]
    width_multiple: PositiveInt
    min_width: PositiveInt
    min_share: Annotated[float, Field(ge=0.0, lt=1.0)]
    nets: Annotated[int, Field(ge=8)]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfiledNet:
    """shape: (1, C, H, W) of the image behind a frame.  min_share: of every family's width, that stays.

    nets: how many plans of it are measured: who plans by a profile looks for the same ones there.  device, profile: on
    which its recipe plans, and by which file.  foreign: whether that is a file of another device, as the recipe allows.
    """

    channels: ChannelMap
    shape: tuple[int, ...]
    limits: WidthLimits
    min_share: float
    nets: int
    device: str = "cpu:1"
    profile: Path | None = None
    foreign: bool = False

    def target(
        self,
        progress: Progress,
        *,
        device: str | None = None,
        profile: Path | None = None,
        nets: int | None = None,
        new_device: bool = False,
    ) -> Target:
        """The budget that plans for it, whose model and measurements are those of any other planning.

        device, profile, nets: instead of its own.  new_device: one that the profile does not know is added to it.
        Raises ConfigError without `profile` where the recipe's is that of a device that is not here.
        """
        if self.foreign and profile is None:
            raise ConfigError(
                "the recipe plans by the profile of another device (allow_foreign_profile), on which nothing can be "
                "measured from here",
                "measure there, or name another --profile for this machine",
            )
        section = TargetBudget(
            name="target",
            target="latency=0.5x",
            device=device or self.device,
            profile=profile or self.profile,
            min_share=self.min_share,
            nets=nets or self.nets,
        )
        budget = build_budget(section, self.limits, self.channels, self.shape, progress=progress, new_device=new_device)
        if not isinstance(budget, Target):
            raise InvariantError("a target on a device became another budget")
        return budget


def net_of_recipe(recipe: Recipe, progress: Progress) -> ProfiledNet:
    """The net that a recipe prunes. Raises ConfigError for one without `prune`, and what `open_workspace` raises."""
    import torch

    from .pruned import PrunedModel
    from .stages.scoring import limits_of
    from .workspace import open_workspace

    if recipe.prune is None:
        raise ConfigError(f"recipe {recipe.name} prunes no channels", "add the section prune")
    workspace = open_workspace(recipe, Path(os.devnull), progress)
    progress.stage("analysis")
    net = PrunedModel.from_module(workspace.fresh_module(), torch.from_numpy(workspace.calibration(1)))
    budget = recipe.prune.budget
    target = budget if isinstance(budget, TargetBudget) else TargetBudget(name="target", target="latency=0.5x")
    return ProfiledNet(
        channels=net.channels,
        shape=(1, workspace.kind.channels, *workspace.frame_size),
        limits=limits_of(recipe.prune),
        min_share=0.25 if budget.name == "ratio" else budget.min_share,
        nets=target.nets,
        device=target.device,
        profile=target.profile,
        foreign=target.allow_foreign_profile,
    )


def write_net(net: ProfiledNet, path: str | os.PathLike[str]) -> None:
    """Write the file that stands for a net on a device. Raises ExportError where it cannot be."""
    model, (_, channels, height, width) = net.channels.model.clone(), net.shape
    model.metadata_props[_KEY] = _Told(
        shape=(1, channels, height, width),
        parameters=tuple(sorted(net.channels.parameters)),
        width_multiple=net.limits.multiple,
        min_width=net.limits.minimum,
        min_share=net.min_share,
        nets=net.nets,
    ).model_dump_json()
    try:
        write_bytes(Path(path), bytes(ir.to_proto(model).SerializeToString()))
    except OSError as error:
        raise ExportError(
            f"{path} cannot be written: {error.strerror}", "look at the path, its permissions and the space on the disk"
        ) from error


def read_net(path: str | os.PathLike[str]) -> ProfiledNet:
    """Read what `write_net` wrote. Raises UnsupportedGraphError for any other file."""
    hint = "make one with `edgeslim profile net RECIPE NET.onnx`"
    try:
        model = ir.from_proto(onnx.load_model(path, load_external_data=False))
        told = _Told.model_validate_json(model.metadata_props[_KEY])
        _check_shape(model, told.shape)
        return ProfiledNet(
            channels=analyze(model, frozenset(told.parameters)),
            shape=told.shape,
            limits=WidthLimits(multiple=told.width_multiple, minimum=told.min_width),
            min_share=told.min_share,
            nets=told.nets,
        )
    except OSError as error:
        raise UnsupportedGraphError(f"{path} cannot be read: {error.strerror}", hint) from error
    except KeyError as error:
        raise UnsupportedGraphError(
            f"{path} says nothing of {first_line(error)}: it is no net to profile", hint
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        said = mistake_in_words(first, ".".join(map(str, (_KEY, *first["loc"]))))
        raise UnsupportedGraphError(f"{path} is no net to profile: {said}", hint) from error
    except Exception as error:  # protobuf and JSON fail in many ways on files that are something else
        raise UnsupportedGraphError(f"{path} is no net to profile: {first_line(error)}", hint) from error


def _check_shape(model: ir.Model, shape: tuple[int, ...]) -> None:
    """Raises ValueError unless the graph takes images of this shape."""
    image = model.graph.inputs[0]
    own = () if image.shape is None else tuple(image.shape)
    if len(own) != len(shape) or any(isinstance(size, int) and size != told for size, told in zip(own, shape)):
        raise ValueError(f"its metadata {_KEY} say images of {list(shape)}, its graph takes {list(map(str, own))}")
