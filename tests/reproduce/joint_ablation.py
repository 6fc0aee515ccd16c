"""Method A on STARE, one choice at a time: which penalties, which signs and weights, and which score chooses.

Everything is judged by the validation images alone; the test images are not read here. All variants of a seed start
from the same dense net and take the same number of steps in every stage; one without penalties trains on without them.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeslim.trainer.recipe_file import parse_recipe
from edgeslim.trainer.stages import train_and_prune

from .case import Case, Experiment, Numbers, Place
from .notes import Log
from .records import Record, Records
from .runs import NOT_TRAINING, file_name, open_run
from .tables import number, table

Section = dict[str, Any]

BASE: Section = {
    "name": "joint-ablation",
    "model": {"name": "unet", "args": {"width": 16, "depth": 3}},
    "data": {"name": "stare", "root": "{data}/stare", "validation": 0.4},
    "augment": {"crop": [96, 96], "rotate_degrees": 20.0, "scale": 0.1, "brightness": 0.3, "contrast": 0.3},
    "train": {"steps": 200, "precision": "bf16-mixed", "evaluate_every": 100},
    "sparsify": {
        "fit": {"steps": 60, "lr": 1e-3, "precision": "bf16-mixed", "evaluate_every": 60},
        "regularizers": [],
    },
    "prune": {
        "criterion": {"name": "gradient_count", "images": 16},
        "budget": {"name": "macs", "keep": 0.25},
        "width_multiple": 4,
        "min_width": 4,
        "schedule": {"name": "one_shot"},
    },
    "finetune": {"fit": {"steps": 100, "precision": "bf16-mixed", "evaluate_every": 100}},
}
"""What all variants share. Four of the ten training images validate, for two would decide by chance."""


def _count(**options: Any) -> Section:
    return {"name": "gradient_count", "ramp_steps": 10, **options}


def _redundancy(**options: Any) -> Section:
    return {"name": "redundancy", "ramp_steps": 10, **options}


CRITERIA: Mapping[str, Section] = {
    "random": {"name": "random"},
    "gradient_count, on: feature": {"name": "gradient_count", "images": 16},
    "gradient_count, on: feature, local": {"name": "gradient_count", "images": 16, "ranking": "local"},
    "reconstruction": {"name": "reconstruction", "images": 16},
    "ln_norm": {"name": "ln_norm", "images": 16},
    "redundancy": {"name": "redundancy", "tau": 0.3},
    "gradient_count, on: loss": {"name": "gradient_count", "on": "loss", "images": 16},
    "gradient_count, on: kernel": {"name": "gradient_count", "on": "kernel"},
    "l1": {"name": "l1"},
}
"""Scores, without any penalty."""


PENALTIES: Mapping[str, Sequence[Section]] = {
    "count kernel, weight 1": [_count(weight=1.0)],
    "count kernel, weight 10": [_count(weight=10.0)],
    "count kernel by splitting, weight 1": [_count(weight=1.0, form="splitting")],
    "count feature, weight 1": [_count(weight=1.0, on="feature")],
    "count feature by splitting, weight 1": [_count(weight=1.0, on="feature", form="splitting")],
    "attract, tau 0.3, weight 1": [_redundancy(weight=1.0, tau=0.3)],
    "repel, tau 0.3, weight 1": [_redundancy(weight=1.0, tau=0.3, sign="repel")],
    "count kernel 1 and attract 1": [_count(weight=1.0), _redundancy(weight=1.0, tau=0.3)],
}
"""Penalties, all with the count on feature maps as score; the same score without any is among the scores."""

_FEATURE = _count(weight=1.0, on="feature")
_ATTRACT, _REPEL = (_redundancy(weight=1.0, tau=0.3, sign=sign) for sign in ("attract", "repel"))
_GRADUAL = {"name": "gradual", "cuts": 5, "start": 0.1, "end": 0.8}

WITH_RECONSTRUCTION: Mapping[str, Section] = {
    "count feature 1": {"sparsify.regularizers": [_FEATURE]},
    "count feature 1 and attract 1": {"sparsify.regularizers": [_FEATURE, _ATTRACT]},
    "attract 1": {"sparsify.regularizers": [_ATTRACT]},
    "repel 1": {"sparsify.regularizers": [_REPEL]},
    "gradual": {"prune.schedule": _GRADUAL},
    "count feature 1 and attract 1, gradual": {
        "sparsify.regularizers": [_FEATURE, _ATTRACT],
        "prune.schedule": _GRADUAL,
    },
    "no teacher": {"finetune.distill": None},
}
"""The same and the schedule, with the score that came out best."""

QUICK: Section = {
    "model.args": {"width": 8, "depth": 2},
    "augment.crop": [64, 64],
    "train.steps": 40,
    "sparsify.fit.steps": 15,
    "finetune.fit.steps": 30,
}
QUICK_NAMES = (
    "score: random",
    "score: gradient_count, on: feature",
    "reconstruction with count feature 1 and attract 1",
    "reconstruction with count feature 1 and attract 1, gradual",
)


def _variant(name: str, overrides: Mapping[str, Any]) -> Case:
    """overrides: sections by their path in the recipe ("prune.criterion")."""
    recipe = copy.deepcopy(BASE)
    for path, value in overrides.items():
        *parents, last = path.split(".")
        section = recipe
        for parent in parents:
            section = section[parent]
        section[last] = value

    def run(seed: int, place: Place) -> Numbers:
        given = copy.deepcopy(recipe) | {"seed": seed}
        given["data"]["root"] = str(place.data / "stare")
        if given["prune"]["criterion"]["name"] == "random":
            given["prune"]["criterion"] = {"name": "random", "seed": seed}
        return _scores(given, place.work / f"{file_name(name)}-{seed}", place)

    # As resolved: with another default it would be another case.
    whole = parse_recipe(recipe | {"data": {**recipe["data"], "root": "data"}})
    return Case(name=name, settings=whole.model_dump(mode="json", exclude=NOT_TRAINING), run=run)


def _scores(given: Section, directory: Path, place: Place) -> dict[str, float]:
    """Dice on the validation images after every stage, and the size of what is left."""
    log = Log(directory.name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's exporter warns about itself
        workspace, _ = open_run(parse_recipe(given), directory, place, log)
        trained = train_and_prune(workspace, log)
    left = sum(p.numel() for p in trained.pruned.compact().parameters())
    return {f"validation.{stage}": scores["dice"] for stage, scores in trained.scores.items()} | {"parameters": left}


def _cases(quick: bool) -> Sequence[Case]:
    scores = {f"score: {name}": {"prune.criterion": section} for name, section in CRITERIA.items()}
    penalties = {f"penalty: {name}": {"sparsify.regularizers": given} for name, given in PENALTIES.items()}
    best = {"prune.criterion": CRITERIA["reconstruction"]}
    more = {f"reconstruction with {name}": {**best, **given} for name, given in WITH_RECONSTRUCTION.items()}
    variants: dict[str, Section] = {**scores, **penalties, **more}
    if quick:
        return [_variant(f"{name}, quick", {**variants[name], **QUICK}) for name in QUICK_NAMES]
    return [_variant(name, given) for name, given in variants.items()]


def _tables(records: Records, cases: Sequence[Case]) -> str:
    """A gradual schedule has no moment at which the net is just cut."""
    stages = {"sparse": "sparse", "just cut": "pruned, just cut", "mended": "pruned, mended", "final": "final"}
    columns = [(head, _score(stage), ".4f") for head, stage in stages.items()]
    text = table(records, cases, "variant", [*columns, ("parameters", number("parameters"), ",.0f")])
    return text.replace("nan", "")


def _score(stage: str) -> Callable[[Record], float]:
    return lambda record: record.numbers.get(f"validation.{stage}", math.nan)


JOINT_ABLATION = Experiment(
    name="joint-ablation", about="Method A on STARE: what each part brings", cases=_cases, tables=_tables
)
