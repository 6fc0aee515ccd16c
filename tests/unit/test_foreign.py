"""Reading ONNX files of any origin: old ones, odd ones, and those that are broken or mean harm."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edgeslim.errors import UnsupportedGraphError
from edgeslim.exporter.channels import analyze
from edgeslim.exporter.channels.coverage import coverage
from edgeslim.exporter.foreign import read_foreign, read_onnx
from edgeslim.exporter.foreign.feeds import feeds, find_probe, input_specs, runner_from_bytes
from edgeslim.exporter.foreign.runnable import newest

NET = """
<ir_version: {ir}, opset_import: ["" : {opset}{domains}]>
net (float[n, 3, h, w] x) => (float[n, 4, h, w] y)
{{
  a = Conv <pads = [1, 1, 1, 1]> (x, stem)
  {middle}
  y = Conv (b, head)
}}
"""


def net(middle: str = "b = Relu (a)", opset: int = 18, ir_version: int = 8, domains: str = "") -> onnx.ModelProto:
    """Two convolutions and something in between."""
    proto = onnx.parser.parse_model(NET.format(ir=ir_version, opset=opset, middle=middle, domains=domains))
    rng = np.random.default_rng(0)
    for name, shape in {"stem": (8, 3, 3, 3), "head": (4, 8, 1, 1)}.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(rng.standard_normal(shape, np.float32), name))
    return proto


def saved(proto: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "net.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


def external(folder: Path, location: str, *, size: int = 864, **entries: str) -> Path:
    """The net with `stem` in another file; `size` bytes are written to weights.bin."""
    proto = net()
    tensor = proto.graph.initializer[0]
    (folder / "weights.bin").write_bytes(tensor.raw_data[:size])
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=value)
    return saved(proto, folder)


def answers(path: Path) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """What the file and the graph that was read say to the same image."""
    found = read_foreign(path)
    specs = input_specs(found.graph)
    image = np.random.default_rng(0).standard_normal((2, 3, 8, 10)).astype(np.float32)
    graph = ir.to_proto(found.graph).SerializeToString()
    return runner_from_bytes(found.source, specs, "file")(image), runner_from_bytes(graph, specs, "graph")(image)


# --- what is read --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("opset", [9, 10, 11, 12, 13, 17, 18, 20, 21])
def test_every_opset_says_the_same_and_is_analysed(tmp_path: Path, opset: int) -> None:
    path = saved(net(opset=opset), tmp_path)
    given, read = answers(path)
    np.testing.assert_allclose(read[0], given[0], rtol=1e-5, atol=1e-5)
    model = read_onnx(path)
    assert model.opset_imports[""] == max(opset, 18)
    assert [f.width for f in analyze(model).families] == [8]


def test_a_file_newer_than_the_runtime_is_brought_down(tmp_path: Path) -> None:
    proto = net(opset=onnx.defs.onnx_opset_version(), ir_version=onnx.IR_VERSION)
    found = read_foreign(saved(proto, tmp_path))
    opset, version = newest()
    source = onnx.load_from_string(found.source)
    assert found.opset == onnx.defs.onnx_opset_version()
    assert (found.graph.opset_imports[""], source.opset_import[0].version, source.ir_version) == (opset, opset, version)
    given, read = answers(tmp_path / "net.onnx")  # both run
    np.testing.assert_allclose(read[0], given[0], rtol=1e-5, atol=1e-5)


def test_old_operators_move_their_axes_into_inputs(tmp_path: Path) -> None:
    middle = "c = Unsqueeze <axes = [0]> (a)\n d = Squeeze <axes = [0]> (c)\n b = Clip <min = 0.0, max = 6.0> (d)"
    path = saved(net(middle, opset=9, ir_version=4), tmp_path)
    given, read = answers(path)
    np.testing.assert_allclose(read[0], given[0], rtol=1e-5, atol=1e-5)
    assert {n.op_type for n in read_onnx(path).graph} == {"Conv", "Unsqueeze", "Squeeze", "Clip"}


def test_initializers_are_no_inputs(tmp_path: Path) -> None:
    proto = net(opset=9, ir_version=3)
    for tensor in proto.graph.initializer:
        proto.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, 1, tensor.dims))
    model = read_onnx(saved(proto, tmp_path))
    assert [v.name for v in model.graph.inputs] == ["x"]
    assert len(analyze(model).families) == 1


def test_an_old_file_that_does_not_list_its_initializers(tmp_path: Path) -> None:
    assert len(analyze(read_onnx(saved(net(opset=9, ir_version=3), tmp_path))).families) == 1


def test_constants_become_initializers(tmp_path: Path) -> None:
    middle = """c = Constant <value = float[8, 1, 1] {1., 2., 3., 4., 5., 6., 7., 8.}> ()
      k = Constant <value = int64[3] {8, 1, 1}> ()
      d = ConstantOfShape <value = float[1] {0.5}> (k)
      e = Add (a, c)
      b = Mul (e, d)"""
    model = read_onnx(saved(net(middle), tmp_path))
    assert {n.op_type for n in model.graph} == {"Conv", "Add", "Mul"}
    assert [f.width for f in analyze(model).families] == [8]


def test_nodes_in_any_order(tmp_path: Path) -> None:
    proto = net()
    nodes = list(proto.graph.node)[::-1]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    assert [n.op_type for n in read_onnx(saved(proto, tmp_path)).graph] == ["Conv", "Relu", "Conv"]


def test_a_custom_domain_keeps_its_channels(tmp_path: Path) -> None:
    path = saved(net("b = my.domain.Magic (a)", domains=', "my.domain" : 1'), tmp_path)
    channels = analyze(read_onnx(path))
    assert not channels.families
    assert "no rule for this operator" in coverage(channels)[0].reason  # type: ignore[operator]


def test_functions_of_the_file_are_looked_into(tmp_path: Path) -> None:
    proto = net("b = my.domain.Double (a)", opset=18, ir_version=8, domains=', "my.domain" : 1')
    body = onnx.parser.parse_function(
        '<domain: "my.domain", opset_import: ["" : 18]> Double (p) => (q) { r = Relu (p) q = Add (r, r) }'
    )
    proto.functions.append(body)
    path = saved(proto, tmp_path)
    given, read = answers(path)
    np.testing.assert_allclose(read[0], given[0], rtol=1e-5, atol=1e-5)
    assert [family.width for family in analyze(read_onnx(path)).families] == [8]


def test_a_function_that_calls_itself(tmp_path: Path) -> None:
    proto = net("b = my.domain.Double (a)", opset=18, ir_version=8, domains=', "my.domain" : 1')
    proto.functions.append(
        onnx.parser.parse_function(
            '<domain: "my.domain", opset_import: ["my.domain" : 1]> Double (p) => (q) { q = my.domain.Double (p) }'
        )
    )
    with pytest.raises(UnsupportedGraphError, match=r"net\.onnx"):
        read_onnx(saved(proto, tmp_path))


@pytest.mark.parametrize("condition", ["k = Constant <value = bool {1}> ()", "k = Not (v)"])
@pytest.mark.parametrize("opset", [11, 18])
def test_control_flow_keeps_its_channels(tmp_path: Path, opset: int, condition: str) -> None:
    middle = f"""s = Size (x)
      z = Constant <value = int64 {{0}}> ()
      v = Equal (s, z)
      {condition}
      b = If (k) <then_branch = t () => (float[n, 8, h, w] p) {{ p = Relu (a) }},
                  else_branch = e () => (float[n, 8, h, w] q) {{ q = Identity (a) }}>"""
    path = saved(net(middle, opset=opset), tmp_path)
    given, read = answers(path)
    np.testing.assert_allclose(read[0], given[0], rtol=1e-5, atol=1e-5)


def test_missing_shapes_are_no_error(tmp_path: Path) -> None:
    proto = net("c = my.domain.Magic (a)\n b = Relu (c)", domains=', "my.domain" : 1')
    del proto.graph.output[0].type.tensor_type.shape.dim[:]
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    assert not analyze(read_onnx(saved(proto, tmp_path))).families


def test_external_data_comes_from_the_folder(tmp_path: Path) -> None:
    path = external(tmp_path, "weights.bin", offset="0", length="864")
    given, read = answers(path)
    np.testing.assert_array_equal(given[0], read[0])
    whole = tmp_path / "whole"
    whole.mkdir()
    np.testing.assert_array_equal(answers(saved(net(), whole))[0][0], given[0])


def test_several_inputs_follow_the_lead() -> None:
    text = """<ir_version: 10, opset_import: ["" : 18]>
    net (int64[n] k, float[n, 3, h, w] x, float[n, 3, h, w] z, float[1] s) => (float[n, 3, h, w] y)
    { a = Add (x, z)
      b = Mul (a, s)
      c = Cast <to = 1> (k)
      d = ReduceMax <keepdims = 0> (c)
      y = Mul (b, d) }"""
    proto = onnx.parser.parse_model(text)
    specs = input_specs(ir.from_proto(proto))
    assert [s.name for s in specs] == ["x", "z", "s", "k"]
    run = runner_from_bytes(proto.SerializeToString(), specs, "net")
    probe = find_probe(run, specs[0])
    assert len({b.shape[1:] for b in probe.batches}) == 2
    assert {b.shape[0] for b in probe.batches} == {1, 2}
    assert feeds(specs, probe.batches[0])["z"].shape == probe.batches[0].shape


# --- what is refused -----------------------------------------------------------------------------------------------


def refused(path: Path, *words: str) -> None:
    with pytest.raises(UnsupportedGraphError) as caught:
        read_onnx(path)
    assert str(path) in caught.value.message
    assert caught.value.hint
    for word in words:
        assert word in caught.value.message, caught.value.message


def test_a_truncated_file(tmp_path: Path) -> None:
    whole = saved(net(), tmp_path).read_bytes()
    for length in (1, 7, len(whole) // 3, len(whole) // 2, len(whole) - 1):
        path = tmp_path / f"cut{length}.onnx"
        path.write_bytes(whole[:length])
        refused(path)


@pytest.mark.parametrize("content", [b"", b"# a text\n", b"\x80\x04K\x01.", b"\x00" * 64, b"PK\x03\x04" + b"x" * 40])
def test_not_an_onnx_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    refused(path, "not an ONNX file")


def test_no_file_and_no_regular_file(tmp_path: Path) -> None:
    refused(tmp_path / "absent.onnx", "cannot be read")
    refused(tmp_path, "")
    refused(Path("/dev/zero"), "not a regular file")


def test_a_cycle(tmp_path: Path) -> None:
    refused(saved(net("c = Add (a, d)\n d = Relu (c)\n b = Relu (d)"), tmp_path), "cycle", "Add c")


def test_a_dangling_input(tmp_path: Path) -> None:
    refused(saved(net("b = Add (a, nowhere)"), tmp_path), "Add b", "'nowhere'")
    proto = net()
    del proto.graph.initializer[1]
    refused(saved(proto, tmp_path), "Conv y", "'head'")


@pytest.mark.parametrize("middle", ["b = Relu (a)", "a = Relu (a)\n b = Relu (a)", "stem = Relu (a)\n b = Relu (stem)"])
def test_two_values_of_one_name(tmp_path: Path, middle: str) -> None:
    proto = net(middle)
    if middle == "b = Relu (a)":
        proto.graph.initializer.append(proto.graph.initializer[0])
    refused(saved(proto, tmp_path), "two values called", "'a'" if middle.startswith("a") else "'stem'")


def test_dims_that_contradict_the_data(tmp_path: Path) -> None:
    proto = net()
    proto.graph.initializer[0].dims[0] = 9
    refused(saved(proto, tmp_path), "tensor stem", "[9, 3, 3, 3] needs 972 bytes", "864")
    proto.graph.initializer[0].dims[0] = -8
    refused(saved(proto, tmp_path), "tensor stem")


def test_a_tensor_that_claims_what_nobody_has(tmp_path: Path) -> None:
    proto = net()
    proto.graph.initializer[0].dims[0] = 1 << 40
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(saved(proto, tmp_path), "tensor stem", "at most")
    external(tmp_path, "weights.bin", offset="0")
    proto = onnx.load(tmp_path / "net.onnx", load_external_data=False)
    proto.graph.initializer[0].dims[0] = 1 << 24
    refused(saved(proto, tmp_path), "ends at byte 1,811,939,328", "864")
    proto = net("k = Constant <value = int64[1] {900000000000}> ()\n c = ConstantOfShape (k)\n b = Add (a, c)")
    refused(saved(proto, tmp_path), "ConstantOfShape c", "900,000,000,000")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000


def test_an_unknown_opset(tmp_path: Path) -> None:
    refused(saved(net(opset=999), tmp_path), "opset 999")


def test_an_operator_that_is_none(tmp_path: Path) -> None:
    refused(saved(net("b = Frobnicate (a)"), tmp_path), "Frobnicate")


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/passwd", "sub/../../weights.bin", "", "link.bin"])
def test_external_data_from_elsewhere(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "weights.bin").write_bytes(b"\0" * 864)
    (folder / "link.bin").symlink_to(tmp_path / "weights.bin")
    refused(external(folder, location), "tensor stem", "outside of the model's folder")


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda f: external(f, "absent.bin"), "absent.bin"),
        (lambda f: external(f, "weights.bin", size=863), "ends at byte 864"),
        (lambda f: external(f, "weights.bin", offset="1"), "ends at byte 865"),
        (lambda f: external(f, "weights.bin", offset="-4"), "'-4'"),
        (lambda f: external(f, "weights.bin", offset="9" * 30), "no position"),
        (lambda f: external(f, "weights.bin", length="860"), "860"),
    ],
)
def test_external_data_that_is_not_there(tmp_path: Path, make: Callable[[Path], Path], word: str) -> None:
    refused(make(tmp_path), "tensor stem", word)


@pytest.mark.parametrize("seed", range(30))
def test_flipped_bytes_are_read_or_refused(tmp_path: Path, seed: int) -> None:
    """Whatever the damage: a graph, or a refusal that names the file."""
    middle = "c = Unsqueeze <axes = [0]> (a)\n b = Squeeze <axes = [0]> (c)"
    content = bytearray(net(middle, opset=9).SerializeToString())
    rng = np.random.default_rng(seed)
    for place in (*rng.integers(0, 200, 2), len(content) - rng.integers(1, 120)):
        content[place] = rng.integers(0, 256)
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    try:
        analyze(read_onnx(path))
    except UnsupportedGraphError as error:
        assert str(path) in error.message and error.hint


# --- real files ----------------------------------------------------------------------------------------------------

REAL = {
    "cifar10_squeezenet/squeezenet_cifar10.onnx": 10,
    "face_ultralight/version-RFB-320.onnx": 44,
    "onnx_light/light_densenet121.onnx": 120,
    "onnx_light/light_resnet50.onnx": 53,
    "onnx_light/light_squeezenet.onnx": 25,
    "onnx_light/light_vgg19.onnx": 16,
}


@pytest.mark.parametrize("name", REAL)
def test_real_files(shared_data: Path, name: str) -> None:
    path = shared_data / "weights" / name
    report = coverage(analyze(read_onnx(path)))
    assert sum(not layer.reason for layer in report) >= REAL[name]
