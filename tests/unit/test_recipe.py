"""Recipes: every mistake is one line that names the YAML path a user sees."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeslim.errors import ConfigError
from edgeslim.exporter.precision import Int8Options
from edgeslim.trainer.recipe import RatioBudget, Recipe
from edgeslim.trainer.recipe_data import SegmentationFolderData, StareData, VesselsData
from edgeslim.trainer.recipe_file import load_recipe, parse_recipe

MINIMAL: dict[str, Any] = {
    "name": "test",
    "model": {"name": "unet", "args": {"width": 8}},
    "data": {"name": "vessels"},
    "train": {"steps": 10},
    "prune": {"budget": {"name": "ratio", "ratio": 0.5}},
    "finetune": {"fit": {"steps": 5}},
}


def changed(path: str, value: Any) -> dict[str, Any]:
    """MINIMAL with the key at `path` set; a value of `...` removes it."""
    data: dict[str, Any] = yaml.safe_load(yaml.safe_dump(MINIMAL))
    *sections, key = path.split(".")
    place = data
    for section in sections:
        place = place.setdefault(section, {})
    if value is ...:
        del place[key]
    else:
        place[key] = value
    return data


def message(data: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_recipe(data)
    return caught.value.message


def write(path: Path, data: object = MINIMAL) -> Path:
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    return path


def test_minimal_recipe_and_defaults(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path / "r.yaml"))
    assert isinstance(recipe.data, VesselsData) and recipe.data.size == (192, 192)
    assert isinstance(recipe.prune.budget, RatioBudget) and recipe.prune.budget.ratio == 0.5
    assert recipe.model.args == {"width": 8} and recipe.prune.criterion.name == "ln_norm"


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("colour", "red", "recipe: colour: unknown key"),
        ("train.stepz", 3, "recipe: train.stepz: unknown key"),
        ("data.sizes", 3, "recipe: data.sizes: unknown key"),
        ("data.vessels", 3, "recipe: data.vessels: unknown key"),
        ("prune.budget.keep", 0.5, "recipe: prune.budget.keep: unknown key"),
        ("train.steps", "ten", "recipe: train.steps: input should be a valid integer (got 'ten')"),
        ("train.steps", 1.5, "train.steps: input should be a valid integer"),
        ("train.steps", True, "train.steps: input should be a valid integer"),
        ("train.lr", "fast", "recipe: train.lr: input should be a valid number (got 'fast')"),
        ("seed", -1, "recipe: seed: input should be greater than or equal to 0 (got -1)"),
        ("augment.flip", "yes", "augment.flip: input should be a valid boolean"),
        ("augment.crop", [96], "augment.crop.1: missing"),
        ("augment.crop", [96, 0], "augment.crop.1: input should be greater than or equal to 1 (got 0)"),
        ("data.size", [192, 8], "recipe: data.size.1: input should be greater than or equal to 32 (got 8)"),
        ("prune.budget.ratio", 1.0, "recipe: prune.budget.ratio: input should be less than 1 (got 1.0)"),
        ("prune.budget.ratio", 0, "recipe: prune.budget.ratio: input should be greater than 0"),
        ("train.lr", float("nan"), "train.lr"),
        ("train.lr", float("inf"), "train.lr: input should be a finite number"),
        ("train.steps", ..., "recipe: train.steps: missing"),
        ("prune.budget.ratio", ..., "recipe: prune.budget.ratio: missing"),
        ("prune.budget.name", ..., "recipe: prune.budget.name: missing"),
        ("data", ..., "recipe: data: missing"),
        ("data.name", "stare", "recipe: data.root: missing"),
        ("data.name", "minst", "recipe: data.name: 'minst' is not one of 'vessels', 'stare', 'chase-db1', 'drive', "),
        ("data.mean", [0.5], "recipe: data: mean has 1 numbers, the images have 3 channels"),
        ("data", {"name": "mnist", "root": "x", "std": [1.0, 1.0, 1.0]}, "data: std has 3 numbers, the images have 1"),
        ("data.mean", [123.7, 116.3, 103.5], "recipe: data: mean is of pixels scaled to [0, 1], 123.7 is not"),
        ("data.std", [58.4, 57.1, 57.4], "recipe: data: std is of pixels scaled to [0, 1], 58.4 is not"),
        (
            "sparsify",
            {"fit": {"steps": 3}, "regularizers": [{"name": "l2"}, {"name": "l1", "warmup_steps": 3}]},
            "recipe: sparsify: regularizers.1 (l1) has 3 warmup_steps, and fit has 3 steps: it would never act",
        ),
        ("augment.padding", 4, "recipe: augment.padding is for classification, and vessels has masks"),
        ("train", None, "recipe: train is missing, and so is model.weights"),
        ("train", ..., "recipe: train is missing, and so is model.weights"),
        ("prune", ..., "recipe: prune is missing, and so is weights: nothing would be pruned"),
        ("prune", None, "recipe: prune is missing, and so is weights: nothing would be pruned"),
        ("data", 3, "recipe: data"),
        ("prune.criterion", {"name": "ln_norm", "images": 0}, "recipe: prune.criterion.images: input should be"),
        ("prune.schedule", {"name": "iterative", "rounds": 0}, "recipe: prune.schedule.rounds: input should be"),
        ("sparsify", {"fit": {"steps": 1}, "regularizers": [{"name": "l0", "beta": 0}]}, "regularizers.0.beta: "),
        ("loss", {"dice": 0, "cross_entropy": 0}, "recipe: loss: dice and cross_entropy are both 0"),
        ("name", "a/b", "recipe: name: string should match"),
    ],
)  # fmt: skip
def test_mistake_names_its_yaml_path(path: str, value: Any, expected: str) -> None:
    assert expected in message(changed(path, value))


CLASSIFY: dict[str, Any] = {**MINIMAL, "data": {"name": "cifar10", "root": "x"}}


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ({"loss": {"dice": 1.0}}, "recipe: loss.dice is for masks, and cifar10 has one class an image"),
        ({"loss": {"cross_entropy": 0}}, "recipe: loss.cross_entropy is 0"),
        ({"loss": {"label_smoothing": 1.0}}, "recipe: loss.label_smoothing: input should be less than 1"),
        ({"data": {"name": "image-folder", "root": "x"}}, "recipe: data.size: missing"),
        ({"data": {"name": "mnist", "root": "x", "classes": ["one"]}}, "recipe: data.classes: "),
    ],
)
def test_mistakes_in_classification(section: dict[str, Any], expected: str) -> None:
    assert expected in message({**CLASSIFY, **section})


def test_classification_without_a_word_on_loss_and_crop() -> None:
    recipe = parse_recipe({**CLASSIFY, "model": {"name": "resnet20", "weights": "w.pt"}, "train": None})
    assert recipe.data.task == "classification" and recipe.train is None
    assert recipe.loss.dice is None and recipe.augment.crop is None and recipe.augment.padding == 0
    assert parse_recipe(json.loads(recipe.model_dump_json())) == recipe


@pytest.mark.parametrize("section", ["model", "vessels", "data"])
def test_a_recipe_named_like_a_section_does_not_confuse_the_path(section: str) -> None:
    data = changed("model.args", 3)
    data["name"] = data["model"]["name"] = section
    assert message(data).startswith("recipe: model.args: ")


def test_every_mistake_is_reported() -> None:
    data = changed("train.steps", 0)
    data["prune"]["budget"]["ratio"] = 2
    assert "train.steps" in message(data) and "; prune.budget.ratio" in message(data)


FOLDER: dict[str, Any] = {"name": "segmentation-folder", "root": "x", "classes": ["a", "b"]}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"classes": ["a"]}, "data.classes: "),
        ({"classes": ["a", "a"]}, "data: two classes have the same name"),
        ({"classes": ["a", "b", "c"], "mask": "binary"}, "data: mask: binary has two classes, 3 are named"),
        ({"mask": "binary", "ignore_index": 1}, "data: ignore_index 1 is a class of a binary mask"),
        ({"ignore_index": 256}, "data.ignore_index: input should be less than or equal to 255"),
        ({"on_error": "ignore"}, "data.on_error: input should be 'raise' or 'skip' (got 'ignore')"),
    ],
)
def test_segmentation_folder_is_consistent(options: dict[str, Any], expected: str) -> None:
    assert expected in message(changed("data", FOLDER | options))


def test_lists_become_tuples_and_strings_paths() -> None:
    recipe = parse_recipe(changed("data", FOLDER))
    assert isinstance(recipe.data, SegmentationFolderData)
    assert recipe.data.classes == ("a", "b") and recipe.data.root == Path("x")


@pytest.mark.parametrize(
    ("text", "value"), [("1e-3", 1e-3), ("2E-4", 2e-4), ("1.5e-3", 1.5e-3), ("1", 1.0), (".5", 0.5)]
)
def test_floats_as_people_write_them(tmp_path: Path, text: str, value: float) -> None:
    path = write(tmp_path / "r.yaml")
    path.write_text(path.read_text().replace("steps: 10", f"steps: 10\n  lr: {text}"))
    assert load_recipe(path).train.lr == value


def test_a_key_called_on_is_a_name(tmp_path: Path) -> None:
    text = yaml.safe_dump(MINIMAL) + "sparsify: {fit: {steps: 1}, regularizers: [{name: gradient_count, on: feature}]}"
    (tmp_path / "r.yaml").write_text(text)
    recipe = load_recipe(tmp_path / "r.yaml", ["prune.criterion={name: gradient_count, on: loss}", "augment.flip=off"])
    assert recipe.sparsify is not None
    assert recipe.sparsify.regularizers[0].model_dump()["on"] == "feature"
    assert recipe.prune.criterion.model_dump()["on"] == "loss"
    assert not recipe.augment.flip  # as a value it still means no


def test_overrides_reach_any_depth_and_are_yaml(tmp_path: Path) -> None:
    recipe = load_recipe(
        write(tmp_path / "r.yaml"),
        [
            "seed=7",
            "train.lr=1e-4",
            "train.early_stop.patience=2",
            "augment.crop=[64, 32]",
            "data={name: stare, root: some/where}",
            "data.observer=vk",
            "train.clip_norm=null",
            "model.args.upsample=resize",
        ],
    )
    assert recipe.seed == 7 and recipe.train.lr == 1e-4 and recipe.train.clip_norm is None
    assert recipe.train.early_stop is not None and recipe.train.early_stop.patience == 2
    assert recipe.augment.crop == (64, 32) and recipe.model.args == {"width": 8, "upsample": "resize"}
    assert recipe.data == StareData(name="stare", root=Path("some/where"), observer="vk")


def test_an_override_may_contain_an_equals_sign(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path / "r.yaml"), ["model.args.note=a=b"])
    assert recipe.model.args["note"] == "a=b"


@pytest.mark.parametrize("override", ["seed", "=3", "train..lr=3", ".seed=1", ""])
def test_override_that_is_none(tmp_path: Path, override: str) -> None:
    with pytest.raises(ConfigError, match=r"is not key\.path=value"):
        load_recipe(write(tmp_path / "r.yaml"), [override])


def test_override_into_a_scalar(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"train\.steps is a int, not a section"):
        load_recipe(write(tmp_path / "r.yaml"), ["train.steps.more=3"])


def test_override_that_is_not_yaml(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="override 'seed=\\[' is not YAML"):
        load_recipe(write(tmp_path / "r.yaml"), ["seed=["])


def test_override_with_a_wrong_value_names_the_path(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"prune\.budget\.ratio: input should be less than 1"):
        load_recipe(write(tmp_path / "r.yaml"), ["prune.budget.ratio=1.0"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [1, 2", "is not YAML"),
        ("a: b: c", "is not YAML"),
        ("- 1\n- 2", "a recipe is a mapping, this is a list"),
        ("", "a recipe is a mapping, this is empty"),
        ("just text", "a recipe is a mapping, this is a str"),
        ("!!python/object/apply:os.system ['true']", "is not YAML"),
        ("&a [*a]", "is not YAML"),
    ],
)
def test_files_that_are_no_recipe(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=expected) as caught:
        load_recipe(path)
    assert "r.yaml" in caught.value.message and caught.value.hint


def test_a_key_that_is_there_twice_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "r.yaml")
    path.write_text(path.read_text() + "seed: 3\n" + "seed: 4\n", encoding="utf-8")
    lines = len(path.read_text().splitlines())
    with pytest.raises(ConfigError, match=f"seed is given twice, in line {lines - 1} and in line {lines}") as caught:
        load_recipe(path)
    assert "r.yaml" in caught.value.message and caught.value.hint
    with pytest.raises(ConfigError, match=r"override 'train=.*: lr is given twice"):
        load_recipe(write(path), ["train={steps: 10, lr: 1, lr: 2}"])


def test_what_an_anchor_brings_may_be_overridden(tmp_path: Path) -> None:
    fit = "{<<: &all {<<: &few {steps: 4, lr: 1.0}, lr: 2.0}, steps: 9}"
    path = write(tmp_path / "r.yaml", {key: value for key, value in MINIMAL.items() if key != "train"})
    path.write_text(path.read_text() + f"train: {fit}\nsparsify: {{fit: *all}}\n", encoding="utf-8")
    recipe = load_recipe(path)
    assert recipe.train is not None and (recipe.train.steps, recipe.train.lr) == (9, 2.0)
    assert recipe.sparsify is not None and (recipe.sparsify.fit.steps, recipe.sparsify.fit.lr) == (4, 2.0)


def test_a_value_of_several_forms_has_the_path_of_the_file() -> None:
    said = message(changed("prune.criterion", {"name": "ln_norm", "n": 0.5}))
    assert "prune.criterion.n: input should be 'depth', 'stages' or 'inf' (got 0.5)" in said
    assert "prune.criterion.n: input should be greater than or equal to 1 (got 0.5)" in said
    assert "literal" not in said


def test_unreadable_files(tmp_path: Path) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00name")
    for path in (tmp_path / "none.yaml", tmp_path, tmp_path / "binary.yaml"):
        with pytest.raises(ConfigError, match="cannot be read"):
            load_recipe(path)


fraction = st.floats(0.001, 0.999)
count = st.integers(1, 10_000)
fits = st.fixed_dictionaries(
    {"steps": count},
    optional={
        "lr": st.floats(1e-8, 1e3),
        "optimizer": st.sampled_from(["adam", "adamw", "sgd"]),
        "clip_norm": st.none() | st.floats(0.01, 100),
        "early_stop": st.none() | st.fixed_dictionaries({"patience": count}),
    },
)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
scalars = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-1e300, 1e300) | texts
json_values = scalars | st.lists(scalars, max_size=3)
args = st.dictionaries(texts, json_values, max_size=3)
roots = st.sampled_from(["a", "/b/c", "../d"])
sizes = st.lists(st.integers(32, 999), min_size=2, max_size=2)
recipes = st.fixed_dictionaries(
    {
        "name": st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]*", fullmatch=True),
        "model": st.fixed_dictionaries({"name": texts}, optional={"args": args}),
        "data": st.one_of(
            st.fixed_dictionaries({"name": st.just("vessels"), "size": sizes}),
            st.fixed_dictionaries(
                {"name": st.sampled_from(["stare", "drive", "camvid", "mnist", "cifar10"]), "root": roots}
            ),
            st.fixed_dictionaries(
                {"name": st.just("image-folder"), "root": roots, "size": sizes}, optional={"grey": st.booleans()}
            ),
            st.fixed_dictionaries(
                {"name": st.just("segmentation-folder"), "root": st.just("."), "classes": st.just(["x", "y", "z"])},
                optional={"mean": st.none() | st.lists(st.floats(0, 1), min_size=3, max_size=3), "test": fraction},
            ),
        ),
        "train": fits,
        "prune": st.fixed_dictionaries(
            {
                "budget": st.one_of(
                    st.fixed_dictionaries({"name": st.just("ratio"), "ratio": fraction}),
                    st.fixed_dictionaries({"name": st.just("macs"), "keep": fraction}),
                )
            },
            optional={"criterion": st.sampled_from([{"name": "l1"}, {"name": "ln_norm", "images": 3}])},
        ),
        "finetune": st.fixed_dictionaries({"fit": fits}, optional={"distill": st.none()}),
    },
    optional={"seed": st.integers(0, 2**40), "sparsify": st.fixed_dictionaries({"fit": fits})},
)  # fmt: skip


@settings(deadline=None, max_examples=40)
@given(recipes)
def test_round_trip_through_json(data: dict[str, Any]) -> None:
    recipe = parse_recipe(data)
    assert parse_recipe(json.loads(recipe.model_dump_json())) == recipe
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe


def test_precisions_are_what_the_exporter_takes() -> None:
    rows = [
        {"kind": "fp16"},
        {"kind": "int8", "method": "percentile", "percentile": 99.9, "half": True, "max_loss": 0.01},
    ]
    recipe = parse_recipe(changed("precisions", rows))
    fp16, int8 = (section.request for section in recipe.precisions)
    assert (fp16.name, fp16.precision, fp16.allowed_loss) == ("fp16", "fp16", 0.001)
    assert (int8.name, int8.precision, int8.allowed_loss, int8.half) == ("int8", "int8", 0.01, True)
    assert isinstance(int8.options, Int8Options) and int8.options.method == "percentile"
    # A run's recipe.json names every option, those of int8 too, and is read again.
    assert parse_recipe(json.loads(recipe.model_dump_json())) == recipe


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"kind": "int8"}, {"kind": "int8"}], "give each another name"),
        ([{"kind": "int8", "name": "fp32"}], "none fp32"),
        ([{"kind": "int8", "name": "INT8"}], "precisions.0.name"),
        ([{"kind": "int4"}], "precisions.0.kind"),
        ([{"kind": "fp16", "search": True}], "search is for int8"),
        ([{"kind": "fp16", "method": "entropy", "half": True}], "method, half is for int8"),
        ([{"kind": "int8", "max_loss": -0.1}], "precisions.0.max_loss"),
        ([{"kind": "int8", "percentile": 3.0}], "precisions.0.percentile"),
        ([{"kind": "int8", "images": 0}], "precisions.0.images"),
        ([{"kind": "int8", "calibrator": "mse"}], "precisions.0.calibrator: unknown key"),
    ],
)
def test_precisions_that_make_no_sense(rows: list[dict[str, Any]], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_recipe(changed("precisions", rows))
    assert words in caught.value.message
