"""Operators keep what their traits promise, and state every trait that they keep: tried on PyTorch's own results."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from attrs import frozen
from torch import Tensor

from ditto.lowering import table
from ditto.lowering.folding import _FOLDS
from ditto.ops.traits import TRAITS, Trait, traits_of

aten, own = torch.ops.aten, torch.ops.ditto

_RANDOM = torch.Generator().manual_seed(0)
X, Y = (torch.randn(2, 3, 4, generator=_RANDOM) for _ in range(2))
POSITIVE = X.abs() + 0.5
INTEGERS = torch.randperm(24, generator=_RANDOM).reshape(2, 3, 4)
OTHERS = torch.randint(-2, 30, (2, 3, 4), generator=_RANDOM)
BOOLS, MORE = X > 0, Y > 0
LINE, COLUMN = torch.randn(4, generator=_RANDOM), torch.randn(3, 1, generator=_RANDOM)
MATRIX = torch.randn(5, 4, generator=_RANDOM)
SQUARE = torch.randn(3, 3, generator=_RANDOM)
IDS = torch.tensor([[0, 3, 1], [2, 4, 0]])
HEADS = torch.randn(2, 4, 3, 4, generator=_RANDOM)
TABLE = torch.randn(6, 2, generator=_RANDOM)
PLACES = torch.stack([IDS % 4, (IDS + 1) % 4], dim=-1)
EXPERTS, CHOSEN = torch.randn(5, 6, 3, generator=_RANDOM), torch.tensor([[4, 0], [1, 2], [2, 4]])
SHARES = torch.rand(3, 2, generator=_RANDOM)


@frozen(init=False)
class Call:
    """A call of an operator. `leading`: the operands that get a leading axis of size 1 if one does."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    leading: tuple[int, ...]

    def __init__(self, *args: Any, leading: tuple[int, ...] = (0,), **kwargs: Any) -> None:
        self.__attrs_init__(args, kwargs, leading)  # type: ignore[attr-defined]


def _unary(x: Tensor = X) -> list[Call]:
    return [Call(x)]


_TWO = [Call(X, Y, leading=(0, 1)), Call(X, LINE), Call(COLUMN, X, leading=(1,))]
_TENSORS = [*_TWO, Call(X, 2.5)]
_COMPARED = [Call(INTEGERS, OTHERS, leading=(0, 1)), Call(INTEGERS, torch.tensor([3, 9, 12, 20]))]
_LOGICAL = [Call(BOOLS, MORE, leading=(0, 1)), Call(BOOLS, LINE > 0)]
_AMONG = [Call(INTEGERS, 11)]
_REDUCED = [Call(X, [1]), Call(X, [0, 2]), Call(X, [2], True)]

CALLS: dict[Any, list[Call]] = {
    aten.abs.default: _unary(),
    aten.add.Tensor: [*_TENSORS, Call(X, Y, alpha=2, leading=(0, 1))],
    aten.clamp.default: [Call(X, -0.5, 0.5)],
    aten.clamp.Tensor: [Call(X, Y, leading=(0, 1)), Call(X, LINE)],
    aten.clip.default: [Call(X, -0.5, 0.5)],
    aten.cos.default: _unary(),
    aten.div.Tensor: _TENSORS,
    aten.div.Tensor_mode: [Call(X, Y, rounding_mode="floor", leading=(0, 1))],
    aten.erf.default: _unary(),
    aten.exp.default: _unary(),
    aten.expm1.default: _unary(),
    aten.floor.default: _unary(),
    aten.floor_divide.default: _TWO,
    aten.log.default: _unary(POSITIVE),
    aten.log1p.default: _unary(POSITIVE),
    aten.max.other: _TWO,
    aten.maximum.default: _TWO,
    aten.min.other: _TWO,
    aten.minimum.default: _TWO,
    aten.mul.Tensor: _TENSORS,
    aten.neg.default: _unary(),
    aten.pow.Scalar: [Call(2.0, X, leading=(1,))],
    aten.pow.Tensor_Scalar: [Call(X, 2), Call(POSITIVE, -0.5)],
    aten.pow.Tensor_Tensor: [Call(POSITIVE, Y, leading=(0, 1)), Call(POSITIVE, LINE)],
    aten.reciprocal.default: _unary(),
    aten.rsqrt.default: _unary(POSITIVE),
    aten.rsub.Scalar: [Call(X, 1.0)],
    aten.sin.default: _unary(),
    aten.sqrt.default: _unary(POSITIVE),
    aten.square.default: _unary(),
    aten.sub.Tensor: _TENSORS,
    aten.gelu.default: [Call(X), Call(X, approximate="tanh")],
    aten.log_sigmoid.default: _unary(),
    aten.relu.default: _unary(),
    aten.sigmoid.default: _unary(),
    aten.silu.default: _unary(),
    aten.softmax.int: [Call(X, 1), Call(X, 2)],
    aten.softplus.default: _unary(),
    aten.tanh.default: _unary(),
    aten.__and__.Tensor: _LOGICAL,
    aten.__or__.Tensor: _LOGICAL,
    aten.bitwise_and.Tensor: _LOGICAL,
    aten.bitwise_not.default: _unary(BOOLS),
    aten.bitwise_or.Tensor: _LOGICAL,
    aten.logical_and.default: _LOGICAL,
    aten.logical_not.default: _unary(BOOLS),
    aten.logical_or.default: _LOGICAL,
    **{getattr(aten, name).Tensor: _COMPARED for name in ("eq", "ne", "lt", "le", "gt", "ge")},
    **{getattr(aten, name).Scalar: _AMONG for name in ("eq", "ne", "lt", "le", "gt", "ge")},
    aten.masked_fill.Scalar: [Call(X, BOOLS, -7.0, leading=(0, 1)), Call(X, LINE > 0, -7.0)],
    aten.masked_fill.Tensor: [Call(X, BOOLS, torch.tensor(-7.0), leading=(0, 1))],
    aten.where.Scalar: [Call(BOOLS, 1.5, -7.0)],
    aten.where.ScalarOther: [Call(BOOLS, X, -7.0, leading=(0, 1))],
    aten.where.ScalarSelf: [Call(BOOLS, -7.0, X, leading=(0, 2))],
    aten.where.self: [Call(BOOLS, X, Y, leading=(0, 1, 2)), Call(COLUMN > 0, X, LINE, leading=(1,))],
    aten._to_copy.default: [Call(X, dtype=torch.float16)],
    aten.to.device: [Call(X, torch.device("cpu"), torch.float16)],
    aten.to.dtype: [Call(X, torch.float16), Call(INTEGERS, torch.int32)],
    aten.to.dtype_layout: [Call(X, dtype=torch.float16)],
    aten.to.other: [Call(X, torch.zeros(1, dtype=torch.float16))],
    aten.type_as.default: [Call(X, torch.zeros(1, dtype=torch.float16))],
    **{
        operator: _unary()
        for operator in (
            aten.alias.default,
            aten.clone.default,
            aten.contiguous.default,
            aten.detach.default,
            aten.detach_.default,
            aten.lift_fresh_copy.default,
        )
    },
    aten.amax.default: _REDUCED,
    aten.amin.default: _REDUCED,
    aten.avg_pool2d.default: [Call(HEADS, [2, 2])],
    aten.mean.dim: _REDUCED,
    aten.std.dim: [Call(X, [1]), Call(X, [0, 2], False), Call(X, [2], True, True)],
    aten.linalg_vector_norm.default: [Call(X, 1, [1]), Call(X, 2, [0, 2]), Call(X, 2, [2], True)],
    aten.sum.dim_IntList: _REDUCED,
    aten.batch_norm.default: [Call(X, LINE[:3], LINE[:3] + 1, None, None, True, 0.1, 1e-5, False)],
    aten.layer_norm.default: [Call(X, [4], LINE, LINE + 1), Call(X, [3, 4])],
    own.rms_norm.default: [Call(X, LINE, 1e-5)],
    aten.rms_norm.default: [Call(X, [4], LINE, 1e-5)],
    aten.addmm.default: [Call(SQUARE, SQUARE + 1, SQUARE - 1)],
    aten.baddbmm.default: [Call(X @ Y.transpose(1, 2), X, Y.transpose(1, 2))],
    aten.mm.default: [Call(MATRIX, MATRIX.T)],
    aten.bmm.default: [Call(X, Y.transpose(1, 2))],
    aten.adaptive_avg_pool2d.default: [Call(HEADS, [1, 2])],
    aten.einsum.default: [Call("abc,adc->abd", [X, Y])],
    aten.pad.default: [Call(X, [0, 0, 1, 0])],
    aten.upsample_bicubic2d.vec: [Call(HEADS, [6, 8], False, None)],
    aten._upsample_bicubic2d_aa.vec: [Call(HEADS, [6, 8], False, None)],
    aten.upsample_bilinear2d.vec: [Call(HEADS, [6, 8], False, None)],
    aten.upsample_linear1d.vec: [Call(X, [8], False, None)],
    aten.conv2d.default: [Call(HEADS, torch.randn(2, 4, 2, 2, generator=_RANDOM))],
    aten.conv2d.padding: [Call(HEADS, torch.randn(2, 4, 2, 2, generator=_RANDOM), None, [1, 1], "same")],
    aten.conv3d.default: [Call(HEADS.unsqueeze(2), torch.randn(2, 4, 1, 2, 2, generator=_RANDOM))],
    aten.linear.default: [Call(X, MATRIX), Call(X, MATRIX, torch.randn(5, generator=_RANDOM))],
    aten.matmul.default: [Call(X, MATRIX.T), Call(X, Y.transpose(1, 2), leading=(0, 1)), Call(X, LINE)],
    aten._unsafe_view.default: [Call(X, [6, 4]), Call(X, [2, 3, 4])],
    aten.cat.default: [Call([X, Y], 1), Call([X, Y], 0)],
    aten.chunk.default: [Call(X, 2, 2)],
    aten.concat.default: [Call([X, Y], 1), Call([X, Y], 0)],
    aten.expand.default: [Call(COLUMN, [3, 4]), Call(X, [2, 3, 4])],
    aten.expand_as.default: [Call(COLUMN, X), Call(X, Y)],
    aten.flatten.using_ints: [Call(X, 1, 2), Call(X, 1, 1)],
    aten.permute.default: [Call(X, [2, 0, 1])],
    aten.numpy_T.default: [Call(MATRIX)],
    aten.repeat.default: [Call(X, [1, 2, 1])],
    aten.repeat_interleave.self_int: [Call(X, 2, 1), Call(X, 2, 2)],
    aten.t.default: [Call(MATRIX)],
    aten.unbind.int: [Call(X, 1)],
    aten.view_as.default: [Call(X, X.flatten(1)), Call(X, Y)],
    aten.reshape_as.default: [Call(X, X.flatten(1)), Call(X, Y)],
    aten.reshape.default: [Call(X, [2, 12]), Call(X, [2, 3, 4])],
    aten.select.int: [Call(X, 1, 2), Call(X, 0, 1)],
    aten.slice.Tensor: [Call(X, 1, 1, 3), Call(X, 2, 0, 4, 2), Call(X, 0, 0, 2), Call(COLUMN, 1, 0, 1, 2)],
    aten.split.Tensor: [Call(X, 2, 2)],
    aten.split_with_sizes.default: [Call(X, [1, 2], 1)],
    aten.squeeze.default: [Call(COLUMN), Call(X)],
    aten.squeeze.dim: [Call(COLUMN, 1), Call(X, 1)],
    aten.stack.default: [Call([X, Y], 1)],
    aten.transpose.int: [Call(X, 0, 2), Call(SQUARE, 0, 1)],
    aten.unflatten.int: [Call(X, 2, [2, 2]), Call(X, 1, [3])],
    aten.unsqueeze.default: [Call(X, 1), Call(X, 0)],
    aten.view.default: [Call(X, [2, 12]), Call(X, [2, 3, 4])],
    aten.arange.default: [Call(5)],
    aten.arange.start: [Call(1, 5)],
    aten.arange.start_step: [Call(1, 9, 2)],
    aten.empty_like.default: _unary(),
    aten.full.default: [Call([2, 3], 2.5)],
    aten.full_like.default: [Call(X, 2.5)],
    aten.new_full.default: [Call(X, [2, 3], 2.5)],
    aten.new_empty.default: [Call(X, [2, 0])],
    aten.new_ones.default: [Call(X, [2, 3])],
    aten.new_zeros.default: [Call(X, [2, 3])],
    aten.ones.default: [Call([2, 3])],
    aten.ones_like.default: _unary(),
    aten.sym_size.int: [Call(X, 1)],
    aten.zeros.default: [Call([2, 3])],
    aten.zeros_like.default: _unary(),
    aten.embedding.default: [Call(MATRIX, IDS, leading=(1,))],
    aten.gather.default: [Call(X, 2, INTEGERS % 4, leading=(0, 2))],
    aten.index.Tensor: [Call(X, [None, torch.tensor([2, 0])])],
    aten.scatter.src: [Call(X, 2, PLACES, Y, leading=(0, 2, 3))],
    aten.scatter.value: [Call(X, 2, PLACES, -7.0, leading=(0, 2))],
    aten.max.dim: [Call(X, 2)],
    aten.topk.default: [Call(X, 2, 2)],
    own.expert_linear.default: [Call(SQUARE, EXPERTS, None, CHOSEN, False)],
    own.expert_sum.default: [Call(SQUARE[:, None].expand(-1, 2, -1), EXPERTS, None, CHOSEN, SHARES, False)],
    aten.flip.default: [Call(X, [1])],
    aten.index_select.default: [Call(X, 1, torch.tensor([2, 0]))],
    own.last_tokens.default: [Call(X, torch.tensor([2, 0]))],
    own.packed_last_tokens.default: [Call(X, torch.tensor([2, 1]))],
    own.prompt_rows.default: [Call(IDS, MATRIX, 2)],
    own.causal_conv.default: [Call(X, torch.randn(X.shape[1], 1, 3, generator=_RANDOM), None, 0)],
    own.linear_attention.default: [Call(HEADS, HEADS + 1, HEADS - 1, -HEADS.abs(), None, 0)],
    own.attention.default: [Call(HEADS, HEADS + 1, HEADS - 1, None, None, 0.5, True, 0, 0.0, 0)],
    own.packed_attention.default: [Call(X[:1], None, None, 2, 1, False, 0.5, 0, 0.0, 0)],
    own.rope.default: [Call(HEADS, TABLE, TABLE + 1, IDS, pairs, leading=(0, 3)) for pairs in (False, True)],
}
EVERY = [pytest.param(operator, calls, id=str(operator)) for operator, calls in CALLS.items()]


def _operands(args: Any) -> list[Tensor]:
    if isinstance(args, (list, tuple)):
        return [operand for arg in args for operand in _operands(arg)]
    return [args] if isinstance(args, Tensor) else []


def _with(args: Any, changed: dict[int, Tensor]) -> Any:
    """Arguments with other tensors, by their place among the operands."""
    order = iter(range(len(_operands(args))))

    def visit(arg: Any) -> Any:
        if isinstance(arg, (list, tuple)):
            return type(arg)(visit(item) for item in arg)
        if isinstance(arg, Tensor):
            return changed.get(next(order), arg)
        return arg

    return visit(args)


def _results(operator: Any, args: Any, kwargs: dict[str, Any]) -> list[Any]:
    copies = {index: operand.clone() for index, operand in enumerate(_operands(args))}
    results = operator(*_with(args, copies), **kwargs)
    return list(results) if isinstance(results, (list, tuple)) else [results]


def _other(operand: Tensor, flat: int) -> Tensor:
    """A tensor that differs in one element, and is a valid operand still."""
    changed = operand.clone().reshape(-1)
    if operand.dtype == torch.bool:
        changed[flat] = ~changed[flat]
    elif not operand.is_floating_point():
        changed[flat] = (changed[flat] + 1) % int(operand.max() + 1)
    else:
        changed[flat] = changed[flat] * 3 + math.copysign(2.25, float(changed[flat]))
    return changed.reshape(operand.shape)


def _changes(operator: Any, call: Call, index: int) -> list[tuple[tuple[int, ...], list[tuple[int, ...]]]]:
    """For each place of an operand: the places of the (only) result that change if it does."""
    operand = _operands(call.args)[index]
    (before,) = _results(operator, call.args, call.kwargs)
    found = []
    for flat in range(operand.numel()):
        (after,) = _results(operator, _with(call.args, {index: _other(operand, flat)}), call.kwargs)
        place = tuple(int(axis) for axis in torch.unravel_index(torch.tensor(flat), operand.shape))
        found.append((place, [tuple(row) for row in (before != after).nonzero().tolist()]))
    return found


def _is_broadcast(place: tuple[int, ...], operand: Tensor, result: tuple[int, ...]) -> bool:
    if operand.dim() > len(result):
        return False
    aligned = result[len(result) - operand.dim() :]
    return all(size == 1 or at == to for at, to, size in zip(place, aligned, operand.shape, strict=True))


def _keeps_elements(operator: Any, call: Call) -> bool:
    return all(
        _is_broadcast(place, operand, result)
        for index, operand in enumerate(_operands(call.args))
        for place, results in _changes(operator, call, index)
        for result in results
    )


def _keeps_rows(operator: Any, call: Call, index: int = 0) -> bool:
    axes = len(call.args[1]) if operator == aten.layer_norm.default else 1
    return all(
        len(place) == len(result) and place[:-axes] == result[:-axes]
        for place, results in _changes(operator, call, index)
        for result in results
    )


def _mixes_along(operator: Any, call: Call, names: tuple[int, ...]) -> bool:
    """Whether indices of all axes but those named stay by themselves."""
    kept = [axis for axis in range(_operands(call.args)[0].dim()) if axis not in names]
    (result,) = _results(operator, call.args, call.kwargs)
    gone = result.dim() < _operands(call.args)[0].dim()
    return all(
        [place[axis] for axis in kept] == (list(to) if gone else [to[axis] for axis in kept])
        for place, results in _changes(operator, call, 0)
        for to in results
    )


def _named(operator: Any, call: Call) -> dict[str, Any]:
    names = [argument.name for argument in operator._schema.arguments]
    return {**dict(zip(names, call.args, strict=False)), **call.kwargs}


def _dims(operator: Any, call: Call) -> tuple[int, ...]:
    dim = _named(operator, call)["dim"]
    return (dim,) if isinstance(dim, int) else tuple(dim)


def _is_equal(left: list[Any], right: list[Any]) -> bool:
    return len(left) == len(right) and all(
        torch.equal(a, b) and a.dtype == b.dtype if isinstance(a, Tensor) else a == b
        for a, b in zip(left, right, strict=True)
    )


def _gains_an_axis(operator: Any, call: Call, shifted: tuple[str, ...] = (), sizes: tuple[str, ...] = ()) -> bool:
    """Whether a leading axis of size 1 in the operands becomes one of the results, if axes and sizes follow."""
    lists = isinstance(call.args[0], list) and isinstance(call.args[0][0], Tensor)
    leading = range(len(call.args[0])) if lists else _leading(call)
    operands = _operands(call.args)
    args = list(_with(call.args, {index: operands[index].unsqueeze(0) for index in leading}))
    names = [argument.name for argument in operator._schema.arguments]
    for name in shifted:
        if name in names and names.index(name) < len(args):
            axis = args[names.index(name)]
            args[names.index(name)] = axis + 1 if isinstance(axis, int) else [item + 1 for item in axis]
    for name in sizes:
        if name in names:
            args[names.index(name)] = [1, *args[names.index(name)]]
    try:
        results = _results(operator, tuple(args), call.kwargs)
    except (RuntimeError, IndexError, TypeError, ValueError):
        return False
    before = _results(operator, call.args, call.kwargs)
    if operator == aten.empty_like.default:
        return results[0].shape == (1, *before[0].shape)
    wanted = [result.unsqueeze(0) if isinstance(result, Tensor) else result for result in before]
    return len(results) == len(wanted) and all(
        a.shape == b.shape and torch.allclose(a.double(), b.double(), rtol=1e-5, atol=1e-6)
        for a, b in zip(results, wanted, strict=True)
        if isinstance(a, Tensor)
    )


def _leading(call: Call) -> list[int]:
    """`leading` counts arguments; `_with` counts operands."""
    places = [place for place, arg in enumerate(call.args) if isinstance(arg, Tensor)]
    return [places.index(place) for place in call.leading if place in places]


def _holds(trait: Trait, operator: Any, call: Call) -> bool:
    """Whether one call of an operator keeps what a trait promises."""
    operands = _operands(call.args)
    results = _results(operator, call.args, call.kwargs)
    only = results[0] if len(results) == 1 and isinstance(results[0], Tensor) else None
    first = operands[0] if operands else None
    plain = only is not None and first is not None
    match trait:
        case Trait.ELEMENTWISE:
            return plain and _keeps_elements(operator, call)
        case Trait.ROWWISE:
            return plain and _keeps_rows(operator, call)
        case Trait.ALONG_DIM:
            return plain and _mixes_along(operator, call, _dims(operator, call))
        case Trait.LOOKUP:
            ids, rows = sorted(operands, key=torch.Tensor.is_floating_point)
            assert only is not None
            found = all(any(torch.equal(row, of) for of in rows) for row in only.flatten(0, -2))
            return only.shape == (*ids.shape, rows.shape[-1]) and found
        case Trait.MATMUL:
            assert only is not None
            return torch.allclose(only, operands[0] @ operands[1])
        case Trait.MIXES:
            assert only is not None
            alike = [index for index, operand in enumerate(operands) if operand.dim() == only.dim()]
            return not all(_keeps_rows(operator, call, index) for index in alike)
        case Trait.MOVES:
            values = {float(value) for operand in operands for value in operand.reshape(-1)}
            return bool(values) and all(float(value) in values for result in results for value in result.reshape(-1))
        case Trait.COPIES:
            return plain and _is_equal([only], [first])
        case Trait.CASTS:
            return plain and only.shape == first.shape and torch.equal(only, first.to(only.dtype))
        case Trait.SAME_IF_SHAPE:
            same = plain and (only.shape, only.dtype) == (first.shape, first.dtype)
            return plain and (not same or torch.equal(only, first))
        case Trait.OF_SHAPE:
            others = {index: _other(operand, 0) for index, operand in enumerate(operands)}
            changed = _results(operator, _with(call.args, others), call.kwargs)
            return bool(operands) and (operator == aten.empty_like.default or _is_equal(changed, results))
        case Trait.OF_NUMBERS:
            return not operands
        case Trait.ANY_RANK:
            return _gains_an_axis(operator, call)
        case Trait.NAMES_AXES:
            return _gains_an_axis(operator, call, shifted=("dim", "dim0", "dim1"))
        case Trait.NAMES_SIZES:
            return _gains_an_axis(operator, call, sizes=("size", "shape"))
        case Trait.COMMUTES:
            swapped = Call(call.args[1], call.args[0], *call.args[2:], **call.kwargs)
            if not isinstance(call.args[1], Tensor) or call.kwargs.get("alpha", 1) != 1:
                return True
            return _is_equal(_results(operator, swapped.args, swapped.kwargs), results)
    raise AssertionError(trait)


@pytest.mark.parametrize(("operator", "calls"), EVERY)
def test_operators_keep_what_their_traits_promise(operator, calls):
    for trait in Trait:
        if trait in traits_of(operator):
            assert all(_holds(trait, operator, call) for call in calls), trait


# Traits that an operator keeps without stating them would be lost to whoever relies on them; what implies each.
_IMPLIED = {
    Trait.ELEMENTWISE: Trait.SAME_IF_SHAPE | Trait.OF_SHAPE,
    Trait.ANY_RANK: Trait.NAMES_AXES | Trait.MATMUL | Trait.OF_SHAPE | Trait.OF_NUMBERS,
}


@pytest.mark.parametrize(("operator", "calls"), EVERY)
def test_operators_state_the_traits_that_they_keep(operator, calls):
    for trait, implied in _IMPLIED.items():
        if not traits_of(operator) & (trait | implied):
            assert not all(_holds(trait, operator, call) for call in calls), trait


def test_every_operator_with_a_lowering_or_a_fold_states_its_traits():
    names = [name for name in torch._C._dispatch_get_all_op_names() if name.startswith("ditto::")]
    ours = {getattr(own, name.removeprefix("ditto::")).default for name in names}  # lowered by targets, if by anyone
    assert sorted(str(operator) for operator in {*table(), *_FOLDS, *ours} - TRAITS.keys()) == []


def test_every_operator_with_traits_is_tried_and_is_pure():
    assert TRAITS.keys() == CALLS.keys()
    for operator in TRAITS:
        assert not operator._schema.is_mutable or operator == aten.detach_.default
        assert torch.Tag.nondeterministic_seeded not in operator.tags


def test_torch_calls_the_same_operators_pointwise():
    for operator, traits in TRAITS.items():
        if torch.Tag.pointwise in operator.tags:
            assert Trait.ELEMENTWISE in traits, operator


def test_other_operators_have_no_traits():
    assert traits_of(aten.cumsum.default) == traits_of("output") == Trait(0)
