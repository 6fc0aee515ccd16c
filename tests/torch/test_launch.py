"""What the options ask for must be what torchrun has started."""

from __future__ import annotations

import pytest

from edgeslim.errors import ConfigError
from edgeslim.trainer.ranks import Launch, Ranks
from edgeslim.trainer.ranks.sharded import check_recipe
from edgeslim.trainer.recipe_file import parse_recipe

from .runs import recipe

ARGUMENTS = ["compress", "my recipe.yaml", "--devices", "2"]


def started(world: object, here: object = None) -> dict[str, str]:
    return {"WORLD_SIZE": str(world)} | ({} if here is None else {"LOCAL_WORLD_SIZE": str(here)})


@pytest.mark.parametrize(
    ("launch", "environment"),
    [
        (Launch(), {}),
        (Launch(), started(1, 1)),
        (Launch(devices=2), started(2, 2)),
        (Launch(devices=2), started(2)),
        (Launch(devices=2, num_nodes=3, strategy="fsdp"), started(6, 2)),
    ],
)
def test_what_fits(launch: Launch, environment: dict[str, str]) -> None:
    launch.check(ARGUMENTS, environment)


@pytest.mark.parametrize(
    ("launch", "environment", "said", "hint"),
    [
        (
            Launch(devices=2),
            {},
            "--devices 2 --num-nodes 1 asks for 2 processes, and this is the only one",
            "start it as: torchrun --standalone --nproc-per-node 2 -m edgeslim compress 'my recipe.yaml' --devices 2",
        ),
        (
            Launch(devices=2, num_nodes=2),
            {},
            "asks for 4 processes",
            "torchrun --nnodes 2 --node-rank 0 --master-addr FIRST_MACHINE --nproc-per-node 2 -m edgeslim compress",
        ),
        (Launch(devices=2, num_nodes=2), {}, "asks for 4 processes", "each further machine with its own --node-rank"),
        (Launch(devices=2), started(4, 4), "and 4 were started (WORLD_SIZE is 4)", "--nproc-per-node 2"),
        (Launch(devices=2), started(1, 1), "and 1 was started", "--nproc-per-node 2"),
        (Launch(), started(2, 2), "asks for 1 process, and 2 were started", "without torchrun"),
        (Launch(devices=2, num_nodes=2), started(4, 4), "LOCAL_WORLD_SIZE is 4", "--nnodes 2"),
        (Launch(devices=2), started("two"), "WORLD_SIZE is 'two'", "torchrun"),
        (Launch(strategy="fsdp"), {}, "--strategy fsdp shares the weights out", "leave --strategy out"),
        (Launch(devices=0), {}, "both count from 1", ""),
    ],
)
def test_what_does_not_fit(launch: Launch, environment: dict[str, str], said: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        launch.check(ARGUMENTS, environment)
    assert said in caught.value.message
    assert hint in caught.value.hint


FIT = {"steps": 20, "batch_size": 2}


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"sparsify": {"fit": FIT, "regularizers": []}}, None),
        ({"sparsify": {"fit": FIT, "regularizers": [{"name": "l1"}, {"name": "l0"}]}}, "sparsify (l1, l0) penalises"),
        ({"weights": {"fraction": 0.5, "finetune": FIT}}, "weights are held at zero"),
    ],
)
def test_shards_have_no_whole_kernels(sections: dict[str, object], said: str | None) -> None:
    parsed = parse_recipe(recipe().model_dump(mode="json", exclude_none=True) | sections)
    check_recipe(parsed, Ranks(launch=Launch(devices=2)))
    sharded = Ranks(launch=Launch(devices=2, strategy="fsdp"))
    if said is None:
        return check_recipe(parsed, sharded)
    with pytest.raises(ConfigError) as caught:
        check_recipe(parsed, sharded)
    assert said in caught.value.message and "--strategy ddp" in caught.value.hint
