"""Capturing gives a graph that computes the same, and leaves the user's module alone."""

from __future__ import annotations

import copy
import operator

import pytest
import torch
from torch import nn

from ditto.arguments import DynamicDimension, TensorTypeHint
from ditto.capture import export, weightless
from ditto.errors import ModelError, UnsupportedFeature
from ditto.network import Spec, symbol
from ditto.program import evaluate
from tests.support.models import TEXT_MODELS, TRANSFORMERS_5, llama
from tests.support.programs import FunctionModule, captured, operators, run_program

aten = torch.ops.aten


class _Logits(nn.Module):
    """A language model as a function of two tensors."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, ids, positions):
        embedded = self.model.get_input_embeddings()(ids)
        mask = torch.ones_like(ids)
        result = self.model(inputs_embeds=embedded, attention_mask=mask, position_ids=positions, use_cache=False)
        return result.logits


def _hints(batch=4, sequence=16, dtype=torch.int64):
    shape = (DynamicDimension.up_to("batch", batch), DynamicDimension.up_to("sequence", sequence))
    return {"ids": TensorTypeHint(shape, dtype), "positions": TensorTypeHint(shape, dtype)}


def _values(program, model, length, batch=2):
    ids = torch.arange(3, 3 + batch * length).reshape(batch, length)
    positions = torch.arange(length).expand(batch, -1)
    wrapper = _Logits(model)
    parameters = dict(wrapper.named_parameters(remove_duplicate=False))
    (found,) = evaluate(program, {"ids": ids, "positions": positions}, parameters.__getitem__)
    with torch.no_grad():
        return found, wrapper(ids, positions)


def _classes(model):
    """The classes of a model's modules, without what transformers itself remembers of them."""
    return {
        type(part): {name: value for name, value in vars(type(part)).items() if not name.endswith("_cached_value")}
        for part in model.modules()
    }


@pytest.mark.parametrize("name", ["llama", "llama with tied embeddings", "mistral with a window"])
def test_the_users_model_is_left_as_it_was(name):
    model = TEXT_MODELS[name]()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    config, classes = copy.deepcopy(model.config), _classes(model)
    implementation, parameters = model.config._attn_implementation, dict(model.named_parameters())
    model.train()
    export(_Logits(model), _hints(), ("logits",), dtype=torch.float16)
    assert model.training
    assert model.config._attn_implementation == implementation
    assert model.config.to_dict() == config.to_dict()
    assert _classes(model) == classes
    assert all(tensor is parameters[key] for key, tensor in model.named_parameters())
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


def test_capturing_needs_no_weights():
    with weightless(torch.float32):
        empty = llama()
    program = export(_Logits(empty), _hints(), ("logits",))
    found, wanted = _values(program, llama(), 7)
    assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_two_captures_in_one_process_have_their_own_limits():
    model = llama()
    for batch, sequence in ((1, 12), (8, 64), (3, 5)):
        program = export(_Logits(model), _hints(batch, sequence), ("logits",))
        found, wanted = _values(program, model, min(sequence, 9), batch)
        assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-5)
        assert program.spec(program.outputs[0]) == Spec((symbol("batch"), symbol("sequence"), 128), torch.float32)


@pytest.mark.parametrize("sizes", [(1, 1, 1), (1, 1, 2), (2, 3, 4), (5, 5, 5)])
def test_a_dimension_may_have_any_limits(sizes):
    hint = TensorTypeHint((DynamicDimension("batch", *sizes), 3), torch.float32)
    program = export(FunctionModule(lambda x: x.sum(0) + x), {"x": hint}, ("result",))
    assert program.spec(program.outputs[0]) == Spec((symbol("batch"), 3), torch.float32)
    x = torch.randn(sizes[0], 3)
    assert torch.equal(run_program(program, {"x": x}), x.sum(0) + x)


def test_dimensions_of_one_name_are_equal_everywhere():
    names = {"x": "batch", "y": "batch", "z": "rows"}
    x, y, z = torch.randn(2, 3), torch.randn(2, 1), torch.randn(4, 3)
    program = captured(lambda x, y, z: torch.cat((x * y, z)), {"x": x, "y": y, "z": z}, names)
    first_axes = [program.spec(node).shape[0] for node in program.inputs]
    assert first_axes == [symbol("batch"), symbol("batch"), symbol("rows")]
    assert str(program.spec(program.outputs[0])) == "float32[batch + rows, 3]"


def test_dimensions_of_other_names_that_must_be_equal_are_refused():
    with pytest.raises(ModelError, match="cannot capture FunctionModule: Constraints violated"):
        captured(torch.add, {"x": torch.randn(2, 3), "y": torch.randn(2, 3)}, {"x": "batch", "y": "rows"})


@pytest.mark.parametrize("dtype", [None, torch.float16, torch.bfloat16])
def test_parameters_take_the_wanted_dtype_and_buffers_keep_theirs(dtype):
    module = FunctionModule(lambda self, x: (x @ self.w) * self.b, {"w": torch.randn(3, 3)}, {"b": torch.rand(3)})
    hints = {"x": TensorTypeHint((2, 3), dtype or torch.float32)}
    program = export(module, hints, ("result",), dtype=dtype)
    dtypes = {str(node.target): node.meta["val"].dtype for node in program.graph.nodes if node.op == "get_attr"}
    assert list(program.parameters.values()) == ["w"] and len(program.constants) == 1
    (weight,), (buffer,) = program.parameters, program.constants
    assert dtypes == {weight: dtype or torch.float32, buffer: torch.float32}
    assert torch.equal(program.constants[buffer], module.b)


def _without_gradients(x):
    with torch.no_grad():
        y = x + 1
    with torch.autocast("cpu", enabled=False):
        z = y.float() * 2
        first, second = z.chunk(2)
    with torch.set_grad_enabled(False), torch.autocast("cpu", enabled=False):
        return torch.cat((second, first)) + z


def test_blocks_without_gradients_or_autocast_are_part_of_the_graph():
    x = torch.randn(4)
    program = captured(_without_gradients, {"x": x})
    assert torch.equal(run_program(program, {"x": x}), _without_gradients(x))
    others = [target for target in operators(program) if not isinstance(target, torch._ops.OpOverload)]
    assert set(others) <= {operator.getitem}


def test_computing_under_autocast_is_refused():
    def mixed(x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return x @ x

    with pytest.raises(ModelError) as raised:
        captured(mixed, {"x": torch.randn(2, 2)})
    assert raised.value.cause == "the model computes under autocast"
    assert raised.value.remedy == "build it in one dtype instead"


def test_several_outputs_have_their_names():
    hints = {"x": TensorTypeHint((2,), torch.float32)}
    program = export(FunctionModule(lambda x: (x + 1, x, x + 1)), hints, ("more", "same", "again"))
    assert program.output_names == ("more", "same", "again")
    x = torch.zeros(2)
    assert [value.tolist() for value in evaluate(program, {"x": x}, {}.get)] == [[1, 1], [0, 0], [1, 1]]
    with pytest.raises(ModelError, match="^the module returns 3 tensors, 2 names were given"):
        export(FunctionModule(lambda x: (x + 1, x, x + 1)), hints, ("more", "same"))


def test_unused_inputs_stay():
    program = captured(lambda x, y: y * 2, {"x": torch.zeros(1), "y": torch.zeros(2)})
    assert [node.target for node in program.inputs] == ["x", "y"]


def test_control_flow_on_data_is_refused_with_the_cause():
    def branches(x):
        return x + 1 if x.sum() > 0 else x - 1

    with pytest.raises(ModelError) as raised:
        captured(branches, {"x": torch.zeros(2)})
    assert raised.value.cause.startswith("torch.export cannot capture FunctionModule: ")
    assert raised.value.remedy == (
        "see the error this one was raised from; control flow that depends on data is the usual cause"
    )
    assert raised.value.__cause__ is not None


def test_refusals_inside_the_model_come_through_as_they_are():
    def refuses(x):
        raise UnsupportedFeature("not this")

    with pytest.raises(UnsupportedFeature, match="^not this$"):
        captured(refuses, {"x": torch.zeros(2)})


def test_attention_arrives_as_one_operator_per_layer_with_its_place():
    program = export(_Logits(llama()), _hints(), ("logits",), prefix="model.")
    nodes = [node for node in program.graph.nodes if node.target == torch.ops.ditto.attention.default]
    assert [program.place(node).module for node in nodes] == [f"model.layers.{i}.self_attn" for i in range(2)]
    assert [node.args[9] for node in nodes] == [0, 1]
    linear = next(node for node in program.graph.nodes if node.target == aten.linear.default)
    assert program.place(linear).module == "model.layers.0.self_attn.q_proj"
    rotary = next(node for node in program.graph.nodes if node.target == aten.cos.default)
    assert program.place(rotary).source.startswith("modeling_llama.py:")


def test_every_node_of_a_hugging_face_model_has_a_place():
    program = export(_Logits(TEXT_MODELS["qwen2"]()), _hints(), ("logits",), prefix="model.")
    calls = [node for node in program.graph.nodes if node.op == "call_function"]
    homeless = [node.name for node in calls if not program.place(node).source.endswith(tuple("0123456789"))]
    assert not homeless, homeless
    assert sum(bool(program.place(node).module) for node in calls) > 0.8 * len(calls) or not TRANSFORMERS_5
