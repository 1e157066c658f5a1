"""The witness refuses what it does not know, and never overlooks a parameter."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tensorrt_rtx as trt
import torch

from tests.support.witness import WitnessError, replay
from tests.support.witness.replay import RULES
from tests.support.witness.sketch import Sketch

HALF, INT32 = torch.float16, torch.int32
SOFTMAX = trt.AttentionNormalizationOp.SOFTMAX

REFUSALS: dict[str, tuple[Callable[[Sketch], Any], str]] = {}


def refused(match: str) -> Callable[[Callable[[Sketch], Any]], Callable[[Sketch], Any]]:
    def keep(function: Callable[[Sketch], Any]) -> Callable[[Sketch], Any]:
        REFUSALS[function.__name__.replace("_", " ")] = function, match
        return function

    return keep


def _qkv(to: Sketch) -> list[Any]:
    return to.inputs(*(to.random(2, heads, rows, 8) for heads, rows in ((4, 3), (2, 5), (2, 5))))


def _with(made: Any, **settings: Any) -> Any:
    for name, value in settings.items():
        setattr(made, name, value)
    return made


@refused("CUMULATIVE is not known")
def an_unknown_kind_of_layer(to):
    axis = to.constant(torch.tensor(1, dtype=INT32))
    return to.net.add_cumulative(to.input(to.random(2, 3)), axis, trt.CumulativeOperation.SUM, False, False)


@refused("op UnaryOperation.TAN is not known")
def an_unknown_unary(to):
    return to.net.add_unary(to.input(to.random(2, 3)), trt.UnaryOperation.TAN)


@refused("type ActivationType.ELU is not known")
def an_unknown_activation(to):
    return to.net.add_activation(to.input(to.random(2, 3)), trt.ActivationType.ELU)


@refused("mode is GatherMode.ELEMENT")
def an_unknown_gather(to):
    x, indices = to.inputs(to.random(2, 3), torch.zeros(2, 3, dtype=INT32))
    return to.net.add_gather_v2(x, indices, trt.GatherMode.ELEMENT)


@refused("mode is SampleMode.CLAMP")
def an_unknown_slice(to):
    return _with(to.net.add_slice(to.input(to.random(4)), (1,), (2,), (1,)), mode=trt.SampleMode.CLAMP)


@refused("norm_op is AttentionNormalizationOp.NONE")
def attention_without_softmax(to):
    return to.net.add_attention(*_qkv(to), trt.AttentionNormalizationOp.NONE, False)


@refused("num_ranks is 2")
def attention_on_several_devices(to):
    return _with(to.net.add_attention(*_qkv(to), SOFTMAX, False), num_ranks=2)


@refused("key_value_lengths is <")
def attention_with_lengths(to):
    lengths = to.input(torch.tensor([3, 4], dtype=INT32))
    return _with(to.net.add_attention(*_qkv(to), SOFTMAX, False), key_value_lengths=lengths)


@refused("op1 MatrixOperation.VECTOR")
def a_product_with_vectors(to):
    a, b = to.inputs(to.random(2, 3, 4), to.random(2, 4))
    return to.net.add_matrix_multiply(a, trt.MatrixOperation.NONE, b, trt.MatrixOperation.VECTOR)


@refused("is_v2 is False")
def the_first_form_of_normalization(to):
    return to.net.add_normalization(*to.inputs(to.random(2, 3, 4), to.random(1, 1, 4), to.random(1, 1, 4)), 0b100)


@refused("num_groups is 3")
def normalization_of_groups(to):
    x, scale, bias = to.inputs(to.random(2, 6, 4), to.random(1, 6, 1), to.random(1, 6, 1))
    return _with(to.net.add_normalization_v2(x, scale, bias, 0b100), num_groups=3)


@refused("operation is FillOperation.RANDOM_UNIFORM")
def random_numbers(to):
    return to.net.add_fill((3,), trt.FillOperation.RANDOM_UNIFORM, trt.DataType.FLOAT)


@refused("post_padding is")
def a_convolution_padded_on_one_side(to):
    kernel = to.random(4, 3, 2, 2)
    to.kept.append(kernel)
    made = to.net.add_convolution_nd(to.input(to.random(1, 3, 5, 5)), 4, (2, 2), kernel.numpy())
    return _with(made, pre_padding=(1, 1))


@refused("padding_mode is PaddingMode.SAME_UPPER")
def a_convolution_that_pads_by_itself(to):
    kernel = to.random(4, 3, 2, 2)
    to.kept.append(kernel)
    made = to.net.add_convolution_nd(to.input(to.random(1, 3, 5, 5)), 4, (2, 2), kernel.numpy())
    return _with(made, padding_mode=trt.PaddingMode.SAME_UPPER)


@refused("PyTorch refuses: shape '.2, 5.' is invalid")
def a_reshape_that_does_not_fit(to):
    made = to.net.add_shuffle(to.input(to.random(2, 6)))
    made.set_input(1, to.input(torch.tensor([2, 5])))
    return made


@refused("has to be an input of the network")
def a_cache_that_is_no_input(to):
    cache, update, indices = to.random(2, 3, 8, 4), to.random(2, 3, 2, 4), torch.zeros(2, dtype=INT32)
    handles = [to.net.add_identity(to.input(cache)).get_output(0), *to.inputs(update, indices)]
    return to.net.add_kv_cache_update(*handles, trt.KVCacheMode.LINEAR)


@refused("writes 2 positions from 7 on into 8")
def a_cache_that_overflows(to):
    tensors = to.random(2, 3, 8, 4), to.random(2, 3, 2, 4), torch.tensor([7, 0], dtype=INT32)
    return to.net.add_kv_cache_update(*to.inputs(*tensors), trt.KVCacheMode.LINEAR)


@refused("takes 5 to 5 out of 3")
def an_index_outside(to):
    return to.net.add_gather(*to.inputs(to.random(3, 4), torch.tensor([5], dtype=INT32)), 0)


@refused("takes -1 to 2 out of 3")
def a_negative_index(to):
    return to.net.add_gather(*to.inputs(to.random(3, 4), torch.tensor([-1, 2], dtype=INT32)), 0)


@refused("takes 0 to 9 out of 9")
def a_position_outside(to):
    tensors = to.random(1, 1, 2, 8), to.random(9, 4), to.random(9, 4)
    made = to.net.add_rotary_embedding(*to.inputs(*tensors), False, 8)
    made.set_input(3, to.input(torch.tensor([[0, 9]], dtype=INT32)))
    return made


@refused("joins torch.float32.* torch.float16")
def operands_of_two_dtypes(to):
    return to.net.add_elementwise(
        *to.inputs(to.random(2, 3), to.random(2, 3, dtype=HALF)), trt.ElementWiseOperation.SUM
    )


@refused("takes 2 to 5 out of 4")
def a_slice_that_reaches_outside(to):
    made = to.net.add_slice(to.input(to.random(4)), (0,), (4,), (1,))
    made.set_input(1, to.input(torch.tensor([2])))
    return made


@pytest.mark.parametrize("name", REFUSALS)
def test_the_witness_refuses(name):
    make, match = REFUSALS[name]
    sketch = Sketch()
    sketch.finish(make(sketch))
    with pytest.raises(WitnessError, match=match):
        sketch.replayed()


def _softmax(*dynamic: int) -> Sketch:
    sketch = Sketch()
    sketch.finish(sketch.net.add_softmax(sketch.input(sketch.random(2, 3), *dynamic)))
    return sketch


@pytest.mark.parametrize(
    ("rule", "match"),
    [
        (lambda layer: layer.input(0), "not read: axes"),
        (lambda layer: layer.get("axes") and torch.zeros(2, 3), "not read: input 0"),
        (lambda layer: layer.get("axes") and layer.input(0).half(), "is torch.float16 .* states DataType.FLOAT"),
        (lambda layer: layer.get("axes") and layer.input(0).T, "is torch.float32 .3, 2., TensorRT states"),
    ],
    ids=["a property unread", "an input unread", "another dtype than stated", "another shape than stated"],
)
def test_a_rule_cannot_overlook_anything(rule, match, monkeypatch):
    monkeypatch.setitem(RULES, trt.LayerType.SOFTMAX, (trt.ISoftMaxLayer, rule))
    with pytest.raises(WitnessError, match=match):
        _softmax().replayed()


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({}, "expects input0, given are $"),
        ({"input0": torch.zeros(2, 3), "more": torch.zeros(2)}, "given are input0, more"),
        ({"input0": torch.zeros(2, 3).half()}, "'input0' is torch.float16"),
        ({"input0": torch.zeros(2, 4)}, "'input0' is torch.float32 .2, 4., TensorRT states"),
    ],
)
def test_inputs_have_to_be_those_of_the_network(given, match):
    with pytest.raises(WitnessError, match=match):
        replay(_softmax(0).net, given)


def test_dimensions_of_one_name_have_to_be_equal():
    sketch = Sketch()
    handles = [sketch.input(sketch.random(size, 3), 0) for size in (2, 4)]
    for handle in handles:
        handle.set_dimension_name(0, "batch")
    sketch.finish(sketch.net.add_concatenation(handles))
    with pytest.raises(WitnessError, match="dimension batch is 2 and, in input1, 4"):
        sketch.replayed()


def test_a_shape_that_tensorrt_cannot_infer_is_refused():
    sketch = Sketch()
    cache, update = sketch.random(2, 3, 8, 4), sketch.random(2, 3, 2, 4)
    handles = sketch.input(cache, 2), sketch.input(update), sketch.input(torch.zeros(2, dtype=INT32))
    sketch.finish(sketch.net.add_kv_cache_update(*handles, trt.KVCacheMode.LINEAR))
    with pytest.raises(WitnessError, match="TensorRT cannot infer the shape of 'result'"):
        sketch.replayed()


def test_the_witness_is_independent():
    directory = Path(__file__).parent.parent / "support" / "witness"
    trees = [ast.parse(file.read_text()) for file in directory.glob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)]
    ours = {name for name in names if name.startswith(("ditto", "tests"))}
    assert all(name.startswith("tests.support.witness") for name in ours)
