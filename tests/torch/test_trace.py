"""Tracing: names kept, sizes dynamic where that is true, the module left as it was, and clear refusals."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn

from edgeslim.errors import UnsupportedGraphError
from edgeslim.exporter.export import runner_from_graph
from edgeslim.exporter.trace import evaluating, runner_from_module, trace
from edgeslim.trainer.models.unet import UNet

from . import nets

EXAMPLE = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))


class DataDependent(nets.Plain):
    """Its forward asks the pixels which way to go."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        if float(x.sum().detach()) > 0:
            x = self.b(x)
        return self.head(x)


class Many(nets.Plain):
    """Several outputs, nested."""

    def forward(self, x: Tensor) -> dict[str, Tensor | tuple[Tensor, Tensor]]:
        a = self.a(x)
        b = self.b(a)
        return {"out": self.head(b), "aux": (a, b)}


class Dropping(nets.Plain):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.dropout(self.a(x), 0.5, self.training))


class Renamed(nets.Plain):
    """Its argument is not called x."""

    def forward(self, picture: Tensor, scale: float = 1.0) -> Tensor:
        return self.head(self.b(self.a(picture))) * scale


BUILD: dict[str, Callable[[], nn.Module]] = {
    "plain": nets.Plain,
    "unet": lambda: UNet(width=4, depth=1),
    "resize": lambda: nets.Upsampled("bilinear"),
    "linear": nets.ChannelsLast,
    "fixed size": nets.Flat,
    "many outputs": Many,
    "renamed": Renamed,
}


def built(name: str) -> nn.Module:
    torch.manual_seed(0)
    return nets.randomized(BUILD[name]())


@functools.cache
def traced(name: str) -> ir.Model:
    return trace(built(name), torch.randn(1, 3, 16, 24, generator=torch.Generator().manual_seed(0)))


def sizes(value: ir.Value) -> list[int | str | None]:
    return [d if isinstance(d, int) else d.value for d in value.shape or ()]


def agree(model: ir.Model, net: nn.Module, shape: tuple[int, ...]) -> None:
    images = np.random.default_rng(1).standard_normal(shape, np.float32)
    for seen, wanted in zip(runner_from_graph(model)(images), runner_from_module(net)(images), strict=True):
        assert seen.shape == wanted.shape
        np.testing.assert_allclose(seen, wanted, rtol=1e-4, atol=1e-5 * float(np.abs(wanted).max()))


@pytest.mark.parametrize("name", BUILD)
def test_parameters_keep_their_names_and_values(name: str) -> None:
    state = built(name).state_dict()
    initializers = traced(name).graph.initializers
    unread = {key for key in state if key.endswith("num_batches_tracked")}
    for key in state.keys() - unread:
        value = initializers[key].const_value
        assert value is not None
        np.testing.assert_array_equal(value.numpy(), state[key].numpy())


@pytest.mark.parametrize("name", ["plain", "unet", "resize", "linear", "renamed"])
def test_sizes_are_dynamic_and_called_by_name(name: str) -> None:
    model = traced(name)
    assert sizes(model.graph.inputs[0]) == ["batch", 3, "height", "width"]
    assert sizes(model.graph.outputs[0])[0] == "batch"
    if name in ("plain", "linear"):
        assert sizes(model.graph.outputs[0]) == ["batch", 2, "height", "width"]
    for shape in ((1, 3, 16, 24), (3, 3, 16, 24), (2, 3, 32, 8)):
        agree(model, built(name), shape)


def test_a_trace_does_not_follow_the_module_in_training() -> None:
    net = nets.Plain()
    model = trace(net, EXAMPLE)
    before = {name: np.array(v.const_value.numpy()) for name, v in model.graph.initializers.items() if v.const_value}
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 1.0
    assert before
    for name, array in before.items():
        tensor = model.graph.initializers[name].const_value
        assert tensor is not None
        np.testing.assert_array_equal(tensor.numpy(), array, err_msg=name)
    assert not any(len(kept.meta) for kept in (*model.graph, *(v for n in model.graph for v in n.outputs)))


def test_a_size_that_is_baked_in_is_said_to_be() -> None:
    """An adaptive pool is traced with the example's window: a dynamic size would be a lie."""
    model = traced("fixed size")
    assert sizes(model.graph.inputs[0]) == ["batch", 3, 16, 24]
    for batch in (1, 3):
        agree(model, built("fixed size"), (batch, 3, 16, 24))


def test_outputs_come_in_the_order_in_which_torch_flattens_them() -> None:
    model, net = traced("many outputs"), built("many outputs")
    assert len(model.graph.outputs) == 3
    agree(model, net, (2, 3, 16, 24))


def test_larger_batches_and_gradients_are_taken_as_they_come() -> None:
    example = torch.randn(5, 3, 16, 16, requires_grad=True)
    model = trace(built("plain"), example)
    assert sizes(model.graph.inputs[0]) == ["batch", 3, "height", "width"]
    agree(model, built("plain"), (1, 3, 16, 16))


@pytest.mark.filterwarnings("error")
def test_the_tracer_is_quiet_and_leaves_no_note_of_this_machine(capfd: pytest.CaptureFixture[str]) -> None:
    model = trace(built("plain"), torch.randn(1, 3, 16, 16))
    assert capfd.readouterr() == ("", "")
    data = ir.to_proto(model).SerializeToString()
    assert b"site-packages" not in data and b"nets.py" not in data


@pytest.mark.filterwarnings("error")
def test_a_refusal_is_quiet(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UnsupportedGraphError, match="median") as caught:
        trace(Answers(lambda x, y: y.flatten(2).median(2)[0]), EXAMPLE)
    assert caught.value.hint == "write this operator with others that ONNX has"
    with pytest.raises(UnsupportedGraphError):
        trace(DataDependent(), EXAMPLE)
    assert capfd.readouterr() == ("", "")


def modes(net: nn.Module) -> list[bool]:
    return [part.training for part in net.modules()]


def half_frozen() -> nn.Module:
    """A net in train mode with one batch norm in eval mode, as a frozen backbone has."""
    net = nets.Plain().train()
    net.get_submodule("a.1").eval()
    return net


def test_every_part_is_left_in_its_mode() -> None:
    net = half_frozen()
    before, state = modes(net), {k: v.clone() for k, v in net.state_dict().items()}
    assert True in before and False in before
    trace(net, torch.randn(1, 3, 16, 16))
    assert modes(net) == before
    runner_from_module(net)(np.zeros((1, 3, 8, 8), np.float32))
    assert modes(net) == before
    assert all(torch.equal(t, state[k]) for k, t in net.state_dict().items())  # batch norm has not moved
    with pytest.raises(UnsupportedGraphError):
        trace(net, torch.randn(1, 4, 16, 16))
    assert modes(net) == before
    with pytest.raises(ZeroDivisionError), evaluating(net):
        assert not any(modes(net))
        raise ZeroDivisionError
    assert modes(net) == before


def test_the_net_is_traced_as_it_is_in_use() -> None:
    """Dropout is off and batch norm fixed, though the net arrives in train mode."""
    net = Dropping().train()
    model = trace(net, torch.randn(1, 3, 16, 16))
    assert not {"Dropout", "RandomUniform", "RandomUniformLike", "Bernoulli"} & {n.op_type for n in model.graph}
    agree(model, net, (2, 3, 16, 16))


def test_a_runner_takes_no_gradients() -> None:
    net = built("plain")
    (seen,) = runner_from_module(net)(np.zeros((1, 3, 8, 8), np.float32))
    assert isinstance(seen, np.ndarray) and seen.shape == (1, 2, 8, 8)
    assert all(p.grad is None for p in net.parameters())


@pytest.mark.parametrize(
    ("example", "said"),
    [
        (torch.zeros(1, 4, 16, 16), r"Plain: forward fails on an input of shape \(1, 4, 16, 16\): .*channels"),
        (torch.zeros(1, 3, 16, 16, dtype=torch.int64), r"Plain: forward fails on an input of shape \(1, 3, 16, 16\): "),
        (torch.zeros(3, 3), r"Plain: forward fails on an input of shape \(3, 3\): "),
    ],
)
def test_a_forward_that_fails(example: Tensor, said: str) -> None:
    with pytest.raises(UnsupportedGraphError, match=said) as caught:
        trace(nets.Plain(), example)
    assert "\n" not in caught.value.message
    assert caught.value.hint == "check the input channels and the image size the net expects"
    assert caught.value.__cause__ is not None


class Answers(nets.Plain):
    """Plain, with its answer changed."""

    def __init__(self, change: Callable[[Tensor, Tensor], object]) -> None:
        super().__init__()
        self.change, self.table = change, nn.Parameter(torch.randn(2))

    def forward(self, x: Tensor) -> Any:
        return self.change(x, self.head(self.b(self.a(x))))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x, y: y + torch.randn(1), "Answers: two runs on the same input differ in eval mode"),
        (lambda x, y: nn.functional.dropout(y, 0.5, True), "Answers: two runs on the same input differ in eval mode"),
        (lambda x, y: (y, 3), "Answers: forward returns an object of type int"),
        (lambda x, y: y.bfloat16(), "Answers: forward returns a strided tensor of bfloat16"),
        (lambda x, y: y.to_sparse(), "Answers: forward returns a sparse_coo tensor of float32"),
        (lambda x, y: (), "Answers: forward returns nothing"),
    ],
)
def test_an_answer_that_cannot_be_proven(change: Callable[[Tensor, Tensor], object], said: str) -> None:
    with pytest.raises(UnsupportedGraphError, match=said) as caught:
        trace(Answers(change), EXAMPLE)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("net", "example", "said"),
    [
        (nets.Plain().half(), EXAMPLE, r"a\.0\.weight is float16"),
        (nets.Plain().double(), EXAMPLE.double(), "the example is float64"),
        (nets.Plain(), EXAMPLE.bfloat16(), "the example is bfloat16"),
        (nn.ParameterList([torch.zeros(2, dtype=torch.complex64)]), EXAMPLE, "0 is complex64"),
    ],
)
def test_only_float32_is_traced(net: nn.Module, example: Tensor, said: str) -> None:
    with pytest.raises(UnsupportedGraphError, match=said) as caught:
        trace(net, example)
    assert "module.float()" in caught.value.hint


class Packed(nets.Plain):
    """Keeps something in its state that is no tensor, as quantised layers do."""

    def get_extra_state(self) -> torch.dtype:
        return torch.qint8

    def set_extra_state(self, state: object) -> None:
        pass


@pytest.mark.parametrize(
    ("net", "said"),
    [
        (Packed(), "_extra_state of its state_dict is a dtype"),
        (nets.Plain().to("meta"), "weight is on the meta device"),
    ],
)
def test_a_state_that_cannot_be_read(net: nn.Module, said: str) -> None:
    with pytest.raises(UnsupportedGraphError, match=said):
        trace(net, EXAMPLE)


class Wrapper(nn.Module):
    """Hands whatever it is given to another net."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nets.Plain()

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.net(*inputs)


def test_a_forward_of_any_number_of_inputs() -> None:
    assert [str(d) for d in trace(Wrapper(), EXAMPLE).graph.inputs[0].shape or ()] == ["batch", "3", "height", "width"]


@pytest.mark.parametrize(
    "change",
    [
        lambda x, y: (y, y),
        lambda x, y: (y, x),
        lambda x, y: {"logits": y, "input": x, "again": y},
        lambda x, y: y > 0,
        lambda x, y: y.argmax(1),
    ],
)
def test_every_output_is_a_value_of_its_own(change: Callable[[Tensor, Tensor], object]) -> None:
    net = Answers(change)
    model = trace(net, EXAMPLE)
    names = [value.name for value in model.graph.outputs]
    assert len(set(names)) == len(names) and not {v.name for v in model.graph.inputs} & set(names)
    wanted, seen = runner_from_module(net)(EXAMPLE.numpy()), runner_from_graph(model)(EXAMPLE.numpy())
    assert [a.shape for a in seen] == [a.shape for a in wanted]
    for a, b in zip(seen, wanted):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch", [1, 2])
def test_a_batch_that_is_baked_in_is_said_to_be(batch: int) -> None:
    net = Answers(lambda x, y: y.view(batch, 2, 16, 16))
    model = trace(net, torch.randn(batch, 3, 16, 16))
    shape = model.graph.inputs[0].shape
    assert shape is not None and shape.numpy() == (batch, 3, 16, 16)


def test_a_parameter_may_be_an_output() -> None:
    net = Answers(lambda x, y: (y, net.table))
    _, table = runner_from_graph(trace(net, EXAMPLE))(EXAMPLE.numpy())
    assert np.array_equal(table, net.table.detach().numpy())


def test_a_forward_that_needs_a_multiple() -> None:
    with pytest.raises(UnsupportedGraphError, match=r"UNet: forward fails on an input of shape \(1, 3, 15, 15\)"):
        trace(UNet(width=4, depth=1), torch.zeros(1, 3, 15, 15))


def test_a_branch_on_data_cannot_be_traced() -> None:
    net = DataDependent()
    before = modes(net)
    with pytest.raises(UnsupportedGraphError, match=r"DataDependent cannot be traced by torch\.export: ") as caught:
        trace(net, torch.randn(1, 3, 16, 16))
    assert "data-dependent" in caught.value.hint
    assert "\n" not in caught.value.message
    assert modes(net) == before
