"""Further precisions of a bundle: what they record is true, and what loses too much, or cannot be, is refused."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edgeslim.errors import BundleError, CertificateError, ConfigError, DataError, UnsupportedGraphError
from edgeslim.exporter.bundle import write_bundle
from edgeslim.exporter.precision import Fp16Options, Int8Options, open_calibration, quantize, simulate
from edgeslim.exporter.precision import variants as module
from edgeslim.exporter.precision.judge import judge
from edgeslim.exporter.precision.request import VariantRequest
from edgeslim.exporter.precision.variants import add_variants, as_batches, make_typed, put_variants
from edgeslim.progress import Silent
from edgeslim.runtime import GoldenCase, GoldenSpec, Variant, load, read_bundle
from edgeslim.runtime.golden import verify_cases
from edgeslim.runtime.validation import ValidationSet, make_validation, score

from .precision_bundles import frames, labelled, net, plant, write_net

FP16 = VariantRequest(name="fp16", options=Fp16Options())
INT8 = VariantRequest(name="int8", options=Int8Options(), most_loss=0.2)
CPU = VariantRequest(name="cpu", options=Int8Options(placement="onnxruntime"), most_loss=0.2)


def make(
    bundle: Path, *requests: VariantRequest, data: ValidationSet | None = None, channels: int = 3
) -> tuple[Variant, ...]:
    return add_variants(bundle, requests, frames(6, channels=channels), validation=data, progress=Silent())


def content(bundle: Path) -> dict[str, bytes]:
    return {str(f.relative_to(bundle)): f.read_bytes() for f in sorted(bundle.rglob("*")) if f.is_file()}


def test_variants_are_in_the_bundle_with_what_they_lost(tmp_path: Path) -> None:
    bundle, data = write_net(tmp_path / "a.bundle"), labelled(net())
    made = make(bundle, FP16, INT8, CPU, data=data)
    whole = read_bundle(bundle)
    assert whole.manifest.variants == made and [v.name for v in made] == ["fp16", "int8", "cpu"]
    assert [v.precision for v in made] == ["fp16", "int8", "int8"]
    assert [v.placement for v in made] == [None, "tensorrt", "onnxruntime"]
    assert [v.settings["measured by"] for v in made] == ["its graph", "its graph", "integer kernels"]
    for variant in made:
        assert variant.model_metrics["dice"] == variant.model_metrics["accuracy"] == 1.0  # targets are its own answers
        assert 0.9 < variant.metrics["dice"] <= 1.0 and variant.validation_images == len(data)
        assert 0.0 < variant.deviation.relative_rms < 0.1 and variant.deviation.frames == 6
        assert variant.settings["validation"] == data.sha256 and variant.settings["calibration images"] == "6"
        assert len(variant.settings["calibration"]) == 64
        with load(bundle, precision=variant.name) as session:
            session.verify_golden()
            assert session.run(frames(1)[0])["logits"].dtype == np.float32
    assert made[0].weight_bytes < 0.6 * sum(v.nbytes for v in _weights(whole.model)) and made[1].islands == {}
    assert "Conv logits" in made[2].islands


def _weights(model: bytes) -> list[np.ndarray]:
    return [onnx.numpy_helper.to_array(i) for i in onnx.load_model_from_string(model).graph.initializer]


def test_scores_are_those_of_what_will_run(tmp_path: Path) -> None:
    """int8 for ONNX Runtime is scored by the integer kernels that run it, int8 for TensorRT by its own words."""
    bundle, data = write_net(tmp_path / "a.bundle"), labelled(net(), 8)
    made = make(bundle, INT8, CPU, data=data)
    for variant, kernels in zip(made, (False, True)):
        graph = ir.from_proto(onnx.load_model_from_string(read_bundle(bundle).graph(variant.name)))
        run = simulate(graph, integer_kernels=kernels)
        assert variant.metrics == score(lambda images, run=run: run({"frame": images})[0], data, batch=3)  # type: ignore[misc]


def test_the_same_frames_give_the_same_bytes(tmp_path: Path) -> None:
    first, second = (write_net(tmp_path / name) for name in ("a.bundle", "b.bundle"))
    for bundle in (first, second):
        make(bundle, FP16, INT8)
    assert content(first) == content(second)


def test_making_again_replaces_and_leaves_the_others(tmp_path: Path) -> None:
    bundle = write_net(tmp_path / "a.bundle")
    make(bundle, FP16, INT8)
    before = read_bundle(bundle)
    (again,) = make(bundle, dataclasses.replace(INT8, options=Int8Options(method="minmax")))
    after = read_bundle(bundle).manifest
    assert [v.name for v in after.variants] == ["fp16", "int8"] and after.variants[1] == again
    assert again.settings["calibrator"] == "minmax" != before.manifest.variants[1].settings["calibrator"]
    assert after.files["model.fp16.onnx"] == before.manifest.files["model.fp16.onnx"]
    assert after.files["model.int8.onnx"] != before.manifest.files["model.int8.onnx"]


@pytest.mark.parametrize(
    "form",
    [
        {"archive": True},
        {"two": True},
        {"channels": 1},
        {"batch": 2},
        {"sides": (16, 24)},
    ],
    ids=str,
)
def test_every_form_of_bundle(tmp_path: Path, form: dict[str, object]) -> None:
    bundle = write_net(tmp_path / "a.bundle", **form)  # type: ignore[arg-type]
    channels = int(form.get("channels", 3))  # type: ignore[call-overload]
    data = None if form.get("two") else _own_answers(bundle, channels)
    made = make(bundle, FP16, INT8, data=data, channels=channels)
    assert bundle.is_file() == bool(form.get("archive"))
    for variant in made:
        assert data is None or variant.model_metrics["accuracy"] == 1.0
        with load(bundle, precision=variant.name) as session:
            session.verify_golden()


def _own_answers(bundle: Path, channels: int) -> ValidationSet:
    """An odd number of frames, answered by the bundle itself two at a time."""
    images = np.stack(frames(5, channels=channels, seed=2))
    with load(bundle) as session:
        pairs = [session.run_batch(images[[i, min(i + 1, 4)]])["logits"] for i in range(5)]
    return make_validation(images, np.stack([pair[0] for pair in pairs]).argmax(axis=1), "made up")


def test_frames_may_differ_in_size(tmp_path: Path) -> None:
    bundle = write_net(tmp_path / "a.bundle")
    mixed = [*frames(2), *frames(2, size=(32, 16))]
    (variant,) = add_variants(bundle, [INT8], mixed, progress=Silent())
    assert variant.deviation.frames == 4


def test_a_fixed_batch_takes_neighbours_of_one_size(tmp_path: Path) -> None:
    manifest = read_bundle(write_net(tmp_path / "a.bundle", batch=2)).manifest
    batches = as_batches([*frames(3), *frames(2, size=(32, 16))], manifest)
    assert [batch.shape for batch in batches] == [(3, 16, 24, 3), (2, 32, 16, 3)]  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["fp32", "INT8", "", "a b", "../x", ".hidden", "é", "a" * 41])
def test_a_name_that_cannot_be(name: str) -> None:
    with pytest.raises(ConfigError, match="is no name for a precision"):
        VariantRequest(name=name, options=Fp16Options())


@pytest.mark.parametrize("loss", [-0.1, float("nan"), float("inf")])
def test_a_loss_that_cannot_be(loss: float) -> None:
    """A limit that is no number would let everything pass."""
    with pytest.raises(ConfigError, match="the largest loss is"):
        VariantRequest(name="int8", options=Int8Options(), most_loss=loss)


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ([f[:, :, :2] for f in frames(2)], DataError, "has shape .* the net takes"),
        ([f / 255 for f in frames(2)], DataError, "divided by 255"),
        ([f // 255 for f in frames(2)], DataError, "hold 0 and 1 only"),
        ([np.full((16, 24, 3), 7, np.uint8)], DataError, "one constant value"),
        ([], DataError, "there are 0 calibration images"),
        ([frames(1)[0][:, :, :, None]], DataError, "the net takes"),
    ],
)
def test_calibration_that_does_not_fit(tmp_path: Path, given: list, error: type, said: str) -> None:  # type: ignore[type-arg]
    bundle = write_net(tmp_path / "a.bundle")
    before = content(bundle)
    with pytest.raises(error, match=said):
        add_variants(bundle, [INT8], given, progress=Silent())
    with pytest.raises(DataError, match="there are 2 calibration images, 6 were asked for"):
        add_variants(bundle, [INT8], frames(2), images=6, progress=Silent())
    assert content(bundle) == before


def test_a_name_twice(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="have a name twice"):
        make(write_net(tmp_path / "a.bundle"), INT8, dataclasses.replace(INT8))


def test_validation_that_does_not_fit_is_told_before_anything_is_made(tmp_path: Path) -> None:
    bundle, images = write_net(tmp_path / "a.bundle"), np.stack(frames(2))

    class Nothing(Silent):
        def stage(self, name: str, total: int | None = None) -> None:
            raise AssertionError(f"{name} was begun")

    for targets in (np.zeros(2, np.int64), np.full((2, 16, 24), 2)):
        data = make_validation(images, targets, "here")
        with pytest.raises(DataError):
            add_variants(bundle, [INT8], frames(2), validation=data, progress=Nothing())


def test_a_loss_of_score_is_refused_with_the_layers(tmp_path: Path) -> None:
    bundle, data = write_net(tmp_path / "a.bundle"), labelled(net(), 8)
    before = content(bundle)
    with pytest.raises(CertificateError, match=r"in int8 dice falls by 0\.\d+ from 1\.0000 on 8") as caught:
        make(bundle, dataclasses.replace(INT8, most_loss=0.0), data=data)
    assert "the worst is Conv logits (weight head.weight)" in caught.value.message
    assert "search" in caught.value.hint and content(bundle) == before


def test_a_variant_that_is_noise_is_refused_whatever_it_scores(tmp_path: Path) -> None:
    """Nothing scores it, and it does not get in."""
    whole = read_bundle(write_net(tmp_path / "a.bundle"))
    model = ir.from_proto(onnx.load_model_from_string(whole.model))
    calibration = open_calibration(model, as_batches(frames(4), whole.manifest))
    typed = make_typed(model, INT8, calibration)
    faulty = plant(ir.to_proto(typed.model).SerializeToString(), "head")
    planted = dataclasses.replace(typed, model=ir.from_proto(onnx.load_model_from_string(faulty)))
    with pytest.raises(CertificateError, match="of its own size away from the model's on real frames") as caught:
        judge(whole, model, planted, INT8, calibration, None)
    assert "worst: Conv logits (weight head.weight)" in caught.value.message


def test_an_engine_that_is_wrong_is_outside_of_the_limits(tmp_path: Path) -> None:
    """The limits of a variant are wide enough for other kernels, and not for a fault."""
    bundle = write_net(tmp_path / "a.bundle")
    (variant,) = make(bundle, INT8)
    whole = read_bundle(bundle)
    files = {n: d for n, d in whole.files.items() if n not in (whole.manifest.model, variant.file)}
    planted = write_bundle(
        tmp_path / "b.bundle",
        model=whole.model,
        manifest=whole.manifest,
        files={**files, variant.file: plant(whole.graph("int8"), "first")},
    )
    with load(planted, precision="int8") as session, pytest.raises(CertificateError):
        session.verify_golden()


def test_relative_rms_catches_what_no_single_element_shows(tmp_path: Path) -> None:
    """Every element within atol, and all of them shifted: a mistake of the zero point looks like this."""
    bundle = write_net(tmp_path / "a.bundle")
    whole = read_bundle(bundle)
    (case,) = whole.golden_cases()
    shifted = GoldenCase(inputs=case.inputs, outputs={n: a + 0.2 for n, a in case.outputs.items()})
    wide = GoldenSpec(atol=0.25, rtol=0.0)
    with load(bundle) as session:
        verify_cases([shifted], wide, session.backend)
        with pytest.raises(CertificateError, match="of its own size away from what is expected, allowed is 0"):
            verify_cases([shifted], dataclasses.replace(wide, relative_rms=0.01), session.backend)


def test_a_net_with_nothing_to_quantise(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedGraphError, match="nothing in this net can be int8"):
        every = frozenset(f"{name}.weight" for name in ("first", "second", "third", "head"))
        make(write_net(tmp_path / "a.bundle"), VariantRequest(name="int8", options=Int8Options(keep_float=every)))


def test_what_others_put_in_meanwhile_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = write_net(tmp_path / "a.bundle")
    real = module.make_typed

    def slow(*arguments: object) -> object:
        monkeypatch.setattr(module, "make_typed", real)
        make(bundle, FP16)
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "make_typed", slow)
    make(bundle, INT8)
    assert {v.name for v in read_bundle(bundle).manifest.variants} == {"fp16", "int8"}


def test_a_bundle_replaced_meanwhile_gets_no_stranger(tmp_path: Path) -> None:
    bundle = write_net(tmp_path / "a.bundle")
    made = make(bundle, INT8)
    old = read_bundle(bundle)
    write_net(bundle, model=net(two=True), two=True)
    with pytest.raises(BundleError, match="was replaced by a bundle of another model"):
        put_variants(bundle, old, made, {made[0].file: old.files[made[0].file]})
    assert not read_bundle(bundle).manifest.variants


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_bundle_that_may_not_be_written(tmp_path: Path) -> None:
    bundle = write_net(tmp_path / "below" / "a.bundle")
    before = content(bundle)
    bundle.parent.chmod(0o500)
    try:
        with pytest.raises(Exception, match="could not be written"):
            make(bundle, INT8)
    finally:
        bundle.parent.chmod(0o700)
    assert content(bundle) == before


def test_quantize_declines_in_words() -> None:
    """What the record calls islands are the reasons of the pass itself."""
    model = ir.from_proto(onnx.load_model_from_string(net()))
    calibration = open_calibration(model, [f[None] for f in frames(3)])
    declined = quantize(model, calibration, Int8Options(placement="onnxruntime")).declined
    typed = make_typed(model, CPU, calibration)
    assert dict(typed.notes) == {d.where: d.reason for d in declined} != {}
