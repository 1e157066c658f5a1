"""The witness computes what TensorRT's documentation says: layers made without Ditto, their results written down in
PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import tensorrt_rtx as trt
import torch
from torch import Tensor
from torch.nn import functional
from torch.testing import assert_close

from tests.support.witness.sketch import TYPES, Sketch

FLOAT, HALF, BF16 = torch.float32, torch.float16, torch.bfloat16
INT32, INT64, BOOL = torch.int32, torch.int64, torch.bool
SOFTMAX = trt.AttentionNormalizationOp.SOFTMAX


Case = Callable[[Sketch], tuple[Any, Tensor]]
CASES: dict[str, Case] = {}


def case(function: Case) -> Case:
    CASES[function.__name__.replace("_", " ")] = function
    return function


# One element at a time.


def _elementwise(op: str, function: Callable[[Tensor, Tensor], Tensor], dtype: torch.dtype, to: Sketch) -> Any:
    x, y = 3 * to.random(2, 3), 3 * to.random(1, 3)
    x, y = (x > 0, y > 0) if dtype == BOOL else (x.to(dtype), y.to(dtype))
    if op == "POW":
        x = x.abs()
    if op.endswith("DIV"):
        y = torch.where(y == 0, torch.ones_like(y), y)
    return to.net.add_elementwise(*to.inputs(x, y), getattr(trt.ElementWiseOperation, op)), function(x, y)


def _unary(op: str, function: Callable[[Tensor], Tensor], dtype: torch.dtype, to: Sketch) -> Any:
    x = to.random(2, 3) > 0 if dtype == BOOL else (to.random(2, 3).abs() * 3).to(dtype) + 1
    return to.net.add_unary(to.input(x), getattr(trt.UnaryOperation, op)), function(x)


def _activation(kind: str, function: Callable[[Tensor], Tensor], to: Sketch) -> Any:
    x = to.random(4, 5)
    return to.net.add_activation(to.input(x), getattr(trt.ActivationType, kind)), function(x)


def _cast(before: torch.dtype, after: torch.dtype, to: Sketch) -> Any:
    x = to.random(2, 3) > 0 if before == BOOL else (3 * to.random(2, 3)).to(before)
    return to.net.add_cast(to.input(x), TYPES[after]), x.to(after)


def _constant(dtype: torch.dtype, to: Sketch) -> Any:
    x = to.random(2, 3) > 0 if dtype == BOOL else (9 * to.random(2, 3)).to(dtype)
    return to.net.add_identity(to.constant(x)), x


for op_, function_, dtypes_ in (
    ("SUM", lambda x, y: x + y, (FLOAT, HALF, BF16, INT32)),
    ("SUB", lambda x, y: x - y, (FLOAT, INT64)),
    ("PROD", lambda x, y: x * y, (FLOAT, INT32)),
    ("MAX", torch.maximum, (FLOAT, INT32)),
    ("MIN", torch.minimum, (FLOAT, INT32)),
    ("POW", lambda x, y: x**y, (FLOAT,)),
    ("DIV", lambda x, y: x / y, (FLOAT,)),
    ("DIV", lambda x, y: (x / y).trunc().to(x.dtype), (INT32, INT64)),
    ("FLOOR_DIV", lambda x, y: (x / y).floor().to(x.dtype), (FLOAT, INT32, INT64)),
    ("AND", lambda x, y: x & y, (BOOL,)),
    ("OR", lambda x, y: x | y, (BOOL,)),
    ("XOR", lambda x, y: x ^ y, (BOOL,)),
    ("EQUAL", lambda x, y: x == y, (INT32, FLOAT)),
    ("GREATER", lambda x, y: x > y, (INT32, FLOAT)),
    ("LESS", lambda x, y: x < y, (INT32, FLOAT)),
):
    CASES |= {f"{op_} {dtype}": partial(_elementwise, op_, function_, dtype) for dtype in dtypes_}
for op_, function_, dtypes_ in (
    ("EXP", torch.exp, (FLOAT, HALF)),
    ("LOG", torch.log, (FLOAT,)),
    ("SQRT", lambda x: x**0.5, (FLOAT,)),
    ("RECIP", lambda x: 1 / x, (FLOAT,)),
    ("ABS", torch.abs, (FLOAT,)),
    ("NEG", lambda x: -x, (FLOAT, INT32)),
    ("SIN", torch.sin, (FLOAT,)),
    ("COS", torch.cos, (FLOAT,)),
    ("CEIL", torch.ceil, (FLOAT,)),
    ("FLOOR", torch.floor, (FLOAT,)),
    ("ROUND", torch.round, (FLOAT,)),
    ("ERF", torch.erf, (FLOAT,)),
    ("SIGN", torch.sign, (FLOAT,)),
    ("NOT", lambda x: ~x, (BOOL,)),
):
    CASES |= {f"{op_} {dtype}": partial(_unary, op_, function_, dtype) for dtype in dtypes_}
for kind_, function_ in (
    ("RELU", lambda x: x.clamp(min=0)),
    ("SIGMOID", lambda x: 1 / (1 + torch.exp(-x))),
    ("TANH", torch.tanh),
    ("GELU_ERF", lambda x: 0.5 * x * (1 + torch.erf(x / 2**0.5))),
    ("GELU_TANH", lambda x: 0.5 * x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3)))),
):
    CASES[kind_] = partial(_activation, kind_, function_)
CASES |= {
    f"cast {before} to {after}": partial(_cast, before, after)
    for before, after in ((FLOAT, HALF), (HALF, FLOAT), (FLOAT, INT32), (BOOL, FLOAT), (INT32, INT64), (FLOAT, BF16))
}
CASES |= {f"constant {dtype}": partial(_constant, dtype) for dtype in (FLOAT, HALF, BF16, INT64, INT32, BOOL)}


@case
def constant_of_rank_0(to):
    return to.net.add_identity(to.constant(torch.tensor(2.5))), torch.tensor(2.5)


@case
def select_takes_the_first_where_true(to):
    condition, x, y = to.random(2, 3) > 0, to.random(2, 1), to.random(1, 3)
    return to.net.add_select(*to.inputs(condition, x, y)), torch.where(condition, x, y)


# Moving elements.


@case
def shuffle_transposes_reshapes_transposes(to):
    x = to.random(2, 3, 4)
    made = to.net.add_shuffle(to.input(x))
    made.first_transpose, made.reshape_dims, made.second_transpose = (2, 0, 1), (0, -1), (1, 0)
    return made, x.permute(2, 0, 1).reshape(4, 6).T


@case
def shuffle_transposes_without_reshape(to):
    x = to.random(2, 3, 4)
    made = to.net.add_shuffle(to.input(x))
    made.first_transpose, made.second_transpose = (2, 0, 1), (0, 2, 1)
    return made, x.permute(2, 0, 1).transpose(1, 2)


@case
def shuffle_takes_its_sizes_from_a_tensor(to):
    x = to.random(2, 6)
    made = to.net.add_shuffle(to.input(x))
    made.reshape_dims = (12, 1)
    made.set_input(1, to.size(to.random(4, 3)))
    return made, x.reshape(4, 3)


@case
def shuffle_may_mean_zero_by_0(to):
    x = to.random(0, 4)
    made = to.net.add_shuffle(to.input(x))
    made.reshape_dims, made.zero_is_placeholder = (2, 0), False
    return made, x.reshape(2, 0)


@case
def slice_strides_forwards_backwards_and_not_at_all(to):
    x = to.random(5, 4, 3)
    made = to.net.add_slice(to.input(x), (1, 3, 2), (2, 3, 4), (2, -1, 0))
    return made, x[1::2].flip(1)[:, :3, 2:].expand(2, 3, 4)


@case
def slice_takes_its_size_from_a_tensor(to):
    x = to.random(1, 4)
    made = to.net.add_slice(to.input(x), (0, 1), (1, 1), (0, 1))
    made.set_input(2, to.size(to.random(5, 3)))
    return made, x[:, 1:].expand(5, 3)


@case
def slice_takes_start_and_stride_from_tensors(to):
    x = to.random(6, 4)
    made = to.net.add_slice(to.input(x), (0, 0), (2, 2), (1, 1))
    made.set_input(1, to.constant(torch.tensor([1, 0])))
    made.set_input(3, to.constant(torch.tensor([3, 2])))
    return made, x[1::3, ::2]


def _gather(shape: tuple[int, ...], axis: int, to: Sketch) -> Any:
    x, indices = to.random(2, 5, 3), torch.arange(4, dtype=INT32)[: torch.Size(shape).numel()].reshape(shape) % 3
    taken = x.index_select(axis, indices.flatten()).reshape(x.shape[:axis] + indices.shape + x.shape[axis + 1 :])
    return to.net.add_gather(to.input(x), to.input(indices), axis), taken


CASES |= {
    f"gather by {list(shape)}": partial(_gather, shape, axis) for shape, axis in (((), 1), ((3,), 2), ((2, 2), 1))
}


@case
def gather_row_by_row(to):
    x, indices = to.random(3, 5, 4), torch.tensor([[4], [0], [2]], dtype=INT32)
    made = to.net.add_gather(*to.inputs(x, indices), 1)
    made.num_elementwise_dims = 1
    return made, torch.stack([x[0, 4:5], x[1, 0:1], x[2, 2:3]])


@case
def concatenation_keeps_the_order(to):
    tensors = [to.random(2, size, 3) for size in (1, 2, 3)]
    made = to.net.add_concatenation(to.inputs(*tensors))
    made.axis = 1
    return made, torch.cat(tensors, dim=1)


@case
def shape_is_int64(to):
    return to.net.add_identity(to.size(to.random(3, 7))), torch.tensor([3, 7])


@case
def fill_counts_from_alpha_in_steps_of_beta(to):
    made = to.net.add_fill((4,), trt.FillOperation.LINSPACE, trt.DataType.FLOAT)
    made.alpha, made.beta = 2, 3
    return made, torch.tensor([2.0, 5.0, 8.0, 11.0])


@case
def fill_takes_size_alpha_and_beta_from_tensors_added_later(to):
    made = to.net.add_fill((1,), trt.FillOperation.LINSPACE, trt.DataType.INT32)
    made.set_input(0, to.size(to.random(2, 3)))
    made.set_input(1, to.constant(torch.tensor(5, dtype=INT32)))
    made.set_input(2, to.constant(torch.tensor([10, 1], dtype=INT32)))
    return made, torch.tensor([[5, 6, 7], [15, 16, 17]], dtype=INT32)


# Sums over axes.


def _reduce(op: str, keep: bool, function: Callable[..., Tensor], to: Sketch) -> Any:
    x = to.random(2, 3, 4)
    wanted = function(x.permute(1, 0, 2).reshape(3, 8), -1)
    made = to.net.add_reduce(to.input(x), getattr(trt.ReduceOperation, op), 0b101, keep)
    return made, wanted.reshape(1, 3, 1) if keep else wanted


for op_, function_ in (
    ("SUM", torch.sum),
    ("AVG", torch.mean),
    ("MAX", torch.amax),
    ("MIN", torch.amin),
    ("PROD", torch.prod),
):
    CASES |= {f"reduce {op_} {keep=}": partial(_reduce, op_, keep, function_) for keep in (True, False)}


@case
def softmax_over_the_axis_of_the_mask(to):
    x = to.random(2, 3, 4, dtype=HALF)
    made = to.net.add_softmax(to.input(x))
    made.axes = 0b010
    exponentials = x.float().exp()
    return made, (exponentials / exponentials.sum(1, keepdim=True)).half()


def _normalization(axes: tuple[int, ...], affine: tuple[int, ...], dtype: torch.dtype, to: Sketch) -> Any:
    x, scale, bias = to.random(2, 3, 4, dtype=dtype), to.random(*affine, dtype=dtype), to.random(*affine, dtype=dtype)
    made = to.net.add_normalization_v2(*to.inputs(x, scale, bias), sum(1 << axis for axis in axes))
    made.epsilon = 0.25
    variance, mean = torch.var_mean(x.float(), axes, unbiased=False, keepdim=True)
    return made, ((x - mean) * (variance + 0.25).rsqrt() * scale.float() + bias.float()).to(dtype)


CASES |= {
    "layer norm": partial(_normalization, (2,), (1, 1, 4), FLOAT),
    "layer norm over two axes": partial(_normalization, (1, 2), (1, 3, 4), FLOAT),
    "instance norm": partial(_normalization, (2,), (1, 3, 1), FLOAT),
    "layer norm in half precision": partial(_normalization, (2,), (1, 1, 4), HALF),
}


def _matrix_multiply(transpose: tuple[bool, bool], dtype: torch.dtype, to: Sketch) -> Any:
    a, b = to.random(2, 1, 3, 4, dtype=dtype), to.random(1, 5, 4, 6, dtype=dtype)
    ops = [trt.MatrixOperation.TRANSPOSE if flag else trt.MatrixOperation.NONE for flag in transpose]
    given = [x.transpose(2, 3).contiguous() if flag else x for x, flag in zip((a, b), transpose, strict=True)]
    made = to.net.add_matrix_multiply(to.input(given[0]), ops[0], to.input(given[1]), ops[1])
    return made, torch.einsum("bxij,xcjk->bcik", a.float(), b.float()).to(dtype)


CASES |= {
    f"matrix product, transposed {flags}": partial(_matrix_multiply, flags, dtype)
    for flags, dtype in (((False, False), FLOAT), ((True, False), FLOAT), ((False, True), HALF), ((True, True), FLOAT))
}


def _dequantize(bits: int, groups: int, dtype: torch.dtype, to: Sketch) -> Any:
    """`groups` 0: a scale for each row."""
    values = (to.random(4, 8) * 2 ** (bits - 2)).clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1).to(torch.int8)
    scales = to.random(4, groups or 1, dtype=dtype).abs()
    wanted = (values.double().unflatten(1, (groups or 1, -1)) * scales.double()[..., None]).flatten(1).to(dtype)
    if bits == 4:
        pairs = values.view(torch.uint8).reshape(-1, 2)
        to.kept.append(pairs[:, 0] % 16 + pairs[:, 1] % 16 * 16)
        weights = trt.Weights(trt.DataType.INT4, to.kept[-1].data_ptr(), values.numel())
        handle = to.net.add_constant((4, 8), weights).get_output(0)
    else:
        handle = to.input(values)
    made = to.net.add_dequantize(handle, to.input(scales if groups else scales[:, 0]), TYPES[dtype])
    if not groups:
        made.axis = 0
    elif bits == 8:
        made.block_shape = trt.Dims([1, 8 // groups])
    return made, wanted


CASES |= {
    f"int{bits} with {groups or 'no'} groups": partial(_dequantize, bits, groups, dtype)
    for bits, groups, dtype in ((4, 0, HALF), (4, 2, FLOAT), (4, 4, BF16), (8, 0, FLOAT), (8, 2, HALF))
}


@case
def convolution_of_tensors(to):
    x, kernel, bias = to.random(2, 4, 7, 9), to.random(6, 2, 2, 3), to.random(6)
    handles = to.inputs(x, kernel, bias)
    made = to.net.add_convolution_nd(handles[0], 6, (2, 3), trt.Weights(trt.DataType.FLOAT))
    made.set_input(1, handles[1])
    made.set_input(2, handles[2])
    made.stride_nd, made.padding_nd, made.dilation_nd, made.num_groups = (2, 1), (1, 2), (1, 2), 2
    return made, functional.conv2d(x, kernel, bias, (2, 1), (1, 2), (1, 2), 2)


@case
def convolution_with_weights_of_its_own(to):
    x, kernel, bias = to.random(1, 3, 5, 5), to.random(4, 3, 2, 2), to.random(4)
    made = to.net.add_convolution_nd(to.input(x), 4, (2, 2), kernel.numpy(), bias.numpy())
    to.kept += [kernel, bias]
    return made, functional.conv2d(x, kernel, bias)


# Decoders.


def _qkv(to: Sketch, dtype: torch.dtype = FLOAT) -> tuple[Tensor, Tensor, Tensor]:
    return tuple(to.random(2, heads, rows, 8, dtype=dtype) for heads, rows in ((4, 3), (2, 5), (2, 5)))


def _attended(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | float = 0.0) -> Tensor:
    """Query heads 0 and 1 see KV head 0, heads 2 and 3 see head 1."""
    key, value = (x.float()[:, [0, 0, 1, 1]] for x in (key, value))
    weights = (torch.einsum("bhsd,bhkd->bhsk", query.float(), key) + bias).softmax(-1)
    return torch.einsum("bhsk,bhkd->bhsd", weights, value).to(query.dtype)


def _decomposable(made: Any) -> Any:
    made.decomposable = True
    return made


def _unseen(seen: Tensor) -> Tensor:
    return torch.where(seen, 0.0, -torch.inf)


@case
def attention_does_not_scale_and_shares_kv_heads(to):
    qkv = _qkv(to)
    return _decomposable(to.net.add_attention(*to.inputs(*qkv), SOFTMAX, False)), _attended(*qkv)


@case
def attention_in_half_precision(to):
    qkv = _qkv(to, HALF)
    return _decomposable(to.net.add_attention(*to.inputs(*qkv), SOFTMAX, False)), _attended(*qkv)


@case
def attention_sees_where_a_bool_mask_is_true(to):
    qkv, mask = _qkv(to), to.random(2, 1, 3, 5) > -0.5
    mask[..., 0] = True
    made = _decomposable(to.net.add_attention(*to.inputs(*qkv), SOFTMAX, False))
    made.mask = to.input(mask)
    return made, _attended(*qkv, _unseen(mask))


@case
def attention_adds_a_float_mask(to):
    qkv, mask = _qkv(to), to.random(2, 1, 3, 5)
    made = _decomposable(to.net.add_attention(*to.inputs(*qkv), SOFTMAX, False))
    made.mask = to.input(mask)
    return made, _attended(*qkv, mask)


def _causal(kind: str, behind: int, to: Sketch) -> Any:
    qkv = _qkv(to)
    made = _decomposable(to.net.add_attention_v2(*to.inputs(*qkv), SOFTMAX, getattr(trt.CausalMaskKind, kind)))
    seen = torch.arange(5)[None] <= torch.arange(3)[:, None] + behind
    return made, _attended(*qkv, _unseen(seen))


CASES |= {
    f"causal attention, {kind}": partial(_causal, kind, behind)
    for kind, behind in (("UPPER_LEFT", 0), ("LOWER_RIGHT", 2))
}


@case
def cache_is_written_at_the_index_of_each_row(to):
    cache, update, indices = to.random(2, 3, 8, 4), to.random(2, 3, 2, 4), torch.tensor([5, 0], dtype=INT32)
    made = to.net.add_kv_cache_update(*to.inputs(cache, update, indices), trt.KVCacheMode.LINEAR)
    wanted = cache.clone()
    wanted[0, :, 5:7], wanted[1, :, 0:2] = update[0], update[1]
    return made, wanted


def _rotary(interleaved: bool, width: int, stated: int, ids: bool, dtype: torch.dtype, to: Sketch) -> Any:
    x, angles = to.random(2, 3, 5, 8, dtype=dtype), to.random(9, width // 2)
    positions = torch.tensor([[3, 4, 5, 6, 7], [0, 8, 1, 2, 2]])
    own = angles[positions]
    tables = [table.to(dtype) for table in ((angles if ids else own).cos(), (angles if ids else own).sin())]
    made = to.net.add_rotary_embedding(*to.inputs(x, *tables), interleaved, stated)
    if ids:
        made.set_input(3, to.input(positions.to(INT32)))
    turned, rest = x[..., :width].double(), x[..., width:]
    pairs = turned.unflatten(-1, (-1, 2)) if interleaved else torch.stack(turned.chunk(2, dim=-1), dim=-1)
    turns = torch.polar(torch.ones(()).double(), own.double())[:, None]
    pairs = torch.view_as_real(torch.view_as_complex(pairs.contiguous()) * turns)
    turned = pairs.flatten(-2) if interleaved else torch.cat(pairs.unbind(-1), dim=-1)
    return made, torch.cat((turned.to(dtype), rest), dim=-1)


CASES |= {
    "rotary embedding of halves": partial(_rotary, False, 8, 8, True, FLOAT),
    "rotary embedding of neighbours": partial(_rotary, True, 8, 8, True, FLOAT),
    "rotary embedding of some columns": partial(_rotary, False, 4, 4, True, FLOAT),
    "rotary embedding, 0 for all columns": partial(_rotary, False, 8, 0, True, FLOAT),
    "rotary embedding without position ids": partial(_rotary, True, 8, 8, False, FLOAT),
    "rotary embedding in half precision": partial(_rotary, False, 8, 8, True, HALF),
}


@pytest.mark.parametrize("name", CASES)
def test_the_witness_computes_what_torch_computes(name):
    sketch = Sketch()
    made, wanted = CASES[name](sketch)
    sketch.finish(made)
    found = sketch.replayed()
    tolerance = {FLOAT: 1e-5, HALF: 1e-3, BF16: 0.0}.get(wanted.dtype, 0.0)
    assert_close(found, wanted, rtol=tolerance, atol=tolerance)
