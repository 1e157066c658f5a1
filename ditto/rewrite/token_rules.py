"""Rules for how operators propagate the token axes of their operands.

A rule returns the layouts of an operator's results if each entry of a result depends only on entries of the same token.
Otherwise, tokens influence each other, and it raises `Mixes`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from attrs import frozen
from torch import fx
from torch._ops import OpOverload, OpOverloadPacket

from ditto.network.dims import Dim
from ditto.ops.traits import Trait, traits_of
from ditto.rewrite.layout import Layout, broadcast, is_apart, is_named, plain, regrouped

aten = torch.ops.aten


class Mixes(Exception):
    """An operator lets tokens influence each other; the message is a predicate whose subject is the operator."""


@frozen
class Call:
    """A call of an operator.

    Args:
        given: its arguments by their schema names, with non-negative axes.
        layouts: of its operands that index tokens.
        uniform: layouts of its other operands.
        results: shapes of its results.
    """

    given: Mapping[str, Any]
    layouts: Mapping[fx.Node, Layout]
    uniform: Mapping[fx.Node, Layout]
    results: Sequence[tuple[Dim, ...]]

    def of(self, operand: Any) -> Layout:
        """The layout of an operand."""
        return self.layouts[operand] if operand in self.layouts else self.uniform[operand]

    @property
    def first(self) -> Layout:
        """The layout of the first tensor."""
        return self.of(next(iter(self.tensors)))

    @property
    def tensors(self) -> list[fx.Node]:
        """All tensor arguments, in order."""
        found: list[fx.Node] = []
        for value in self.given.values():
            parts = value if isinstance(value, (list, tuple)) else [value]
            found += [
                part for part in parts if isinstance(part, fx.Node) and (part in self.layouts or part in self.uniform)
            ]
        return found


Rule = Callable[[Call], "list[Layout]"]
_RULES: dict[OpOverloadPacket, Rule] = {}


def rule_of(operator: Any) -> Rule | None:
    """The rule of an operator, None if it has none."""
    if not isinstance(operator, OpOverload):
        return None
    if operator.overloadpacket in _ALONG and "dim" not in _names(operator) and torch.Tag.pointwise in operator.tags:
        return _entrywise  # `max` of two tensors; the same operator also reduces along an axis
    if operator.overloadpacket in _RULES:
        return _RULES[operator.overloadpacket]
    elementwise = Trait.ELEMENTWISE in traits_of(operator) or torch.Tag.pointwise in operator.tags
    return _entrywise if elementwise else None


def _names(operator: OpOverload) -> list[str]:
    return [argument.name for argument in operator._schema.arguments]


def rule(*operators: OpOverloadPacket) -> Callable[[Rule], Rule]:
    """Register a function as the rule of operators."""

    def register(function: Rule) -> Rule:
        _RULES.update(dict.fromkeys(operators, function))
        return function

    return register


def kept_apart(layout: Layout | None, otherwise: str) -> list[Layout]:
    """The layout of a single result; raise `Mixes` if tokens meet in it."""
    if layout is None or not is_apart(layout):
        raise Mixes(otherwise)
    return [layout]


def refuse_named(layout: Layout, axes: Sequence[int], otherwise: str) -> None:
    """Raise `Mixes` if one of the axes indexes tokens."""
    if any(is_named(layout[axis]) for axis in axes):
        raise Mixes(otherwise)


def _entrywise(call: Call) -> list[Layout]:
    layouts = [call.of(node) for node in call.tensors if node in call.layouts]
    uniform = [call.of(node) for node in call.tensors if node not in call.layouts]
    return kept_apart(broadcast(layouts, uniform), "brings tokens together with other tokens of their sequence")


@rule(
    aten.view,
    aten._unsafe_view,
    aten.reshape,
    aten.flatten,
    aten.unflatten,
    aten.squeeze,
    aten.unsqueeze,
    aten.view_as,
    aten.reshape_as,
    aten.atleast_2d,
    aten.atleast_3d,
)
def _view(call: Call) -> list[Layout]:
    return kept_apart(regrouped(call.first, call.results[0]), "tears the tokens of a sequence apart")


@rule(aten.expand, aten.expand_as, aten.broadcast_to)
def _expand(call: Call) -> list[Layout]:
    rank = len(call.results[0])
    return kept_apart(
        broadcast([((),) * (rank - len(call.first)) + call.first], [plain(call.results[0])]),
        "brings tokens together with other tokens of their sequence",
    )


@rule(aten.repeat)
def _repeat(call: Call) -> list[Layout]:
    times = call.given["repeats"]
    layout = ((),) * (len(times) - len(call.first)) + call.first
    repeated = [
        axis if count == 1 else (count, *axis) if isinstance(count, int) else plain([size])[0]
        for axis, count, size in zip(layout, times, call.results[0], strict=True)
    ]
    if any(axis and not isinstance(count, int) for axis, count in zip(layout, times, strict=True)):
        raise Mixes("repeats the tokens of a sequence")
    return kept_apart(tuple(repeated), "repeats the tokens of a sequence")


@rule(aten.transpose, aten.swapaxes, aten.permute, aten.t, aten.numpy_T, aten.mT)
def _permute(call: Call) -> list[Layout]:
    layout, given = list(call.first), call.given
    if "dim0" in given or "axis0" in given:
        a, b = (given.get(f"dim{end}", given.get(f"axis{end}")) % len(layout) for end in (0, 1))
        layout[a], layout[b] = layout[b], layout[a]
        return [tuple(layout)]
    if "dims" in given:
        return [tuple(layout[axis % len(layout)] for axis in given["dims"])]
    return [tuple(reversed(layout[-2:])) if len(layout) <= 2 else (*layout[:-2], layout[-1], layout[-2])]


# Operators along given axes, or along all: their effect if these axes index tokens.
_WORDS: Mapping[str, tuple[OpOverloadPacket, ...]] = {
    "weighs the tokens of a sequence against each other": (aten.softmax, aten._softmax, aten.log_softmax),
    "adds up over the tokens of a sequence": (aten.cumsum, aten.logcumsumexp),
    "multiplies over the tokens of a sequence": (aten.cumprod,),
    "turns the tokens of a sequence round": (aten.flip,),
    "moves the tokens of a sequence": (aten.roll,),
    "joins what tokens of a sequence become with something in front or behind": (aten.cat, aten.concat),
    "cuts a sequence": (aten.split, aten.split_with_sizes, aten.chunk),
    "takes a sequence apart": (aten.unbind, aten.unfold),
    "picks a token of a sequence by its place in the call": (aten.select,),
    "repeats the tokens of a sequence": (aten.repeat_interleave,),
    "writes among the tokens of a sequence": (aten.scatter,),
    "takes differences between the tokens of a sequence": (aten.diff,),
    "brings the tokens of a sequence together": (
        *(aten.mean, aten.sum, aten.prod, aten.amax, aten.amin, aten.max, aten.min, aten.argmax, aten.argmin),
        *(aten.any, aten.all, aten.std, aten.var, aten.logsumexp, aten.norm, aten.linalg_vector_norm, aten.median),
        *(aten.topk, aten.sort, aten.argsort, aten.glu),
    ),
}
_ALONG = {operator: words for words, operators in _WORDS.items() for operator in operators}


def _along_as(words: str) -> Rule:
    def rule(call: Call) -> list[Layout]:
        layouts = [call.of(node) for node in call.tensors if node in call.layouts]
        uniform = [call.of(node) for node in call.tensors if node not in call.layouts]
        given = call.given.get("dim", call.given.get("dims", call.given.get("axis")))
        rank = len(call.first)
        axes = [given] if isinstance(given, int) else list(given or range(rank))
        axes = [axis % rank for axis in axes]
        for layout in (*layouts, *uniform):
            refuse_named(layout, axes, words)
        freed = [tuple(() if axis in axes else part for axis, part in enumerate(layout)) for layout in layouts]
        whole = broadcast(freed, [])
        if whole is None:
            raise Mixes(words)
        return [_with_axes(whole, axes, shape) for shape in call.results]

    return rule


def _with_axes(layout: Layout, axes: Sequence[int], shape: tuple[Dim, ...]) -> Layout:
    """A layout with some axes dropped, or resized to the result's size."""
    if len(shape) != len(layout):
        return tuple(part for axis, part in enumerate(layout) if axis not in axes)
    return tuple(
        ((size,) if isinstance(size, int) else ()) if axis in axes else part
        for axis, (part, size) in enumerate(zip(layout, shape, strict=True))
    )


_RULES.update({operator: _along_as(words) for operator, words in _ALONG.items()})


@rule(aten.stack)
def _stack(call: Call) -> list[Layout]:
    layouts = [call.of(node) for node in call.tensors if node in call.layouts]
    uniform = [call.of(node) for node in call.tensors if node not in call.layouts]
    words = "brings tokens together with other tokens of their sequence"
    (whole,) = kept_apart(broadcast(layouts, uniform), words)
    axis = call.given["dim"]
    return [(*whole[:axis], (len(call.tensors),), *whole[axis:])]


@rule(aten.slice, aten.narrow)
def _slice(call: Call) -> list[Layout]:
    layout, axis = call.first, call.given["dim"]
    size = call.results[0][axis]
    if is_named(layout[axis]) or not isinstance(size, int):
        raise Mixes("takes a part of a sequence by its place in the call")
    return [_with_axes(layout, [axis], call.results[0])]


@rule(aten.layer_norm, aten.rms_norm, aten.native_layer_norm)
def _norm(call: Call) -> list[Layout]:
    layout, count = call.first, len(call.given["normalized_shape"])
    refuse_named(layout, range(len(layout) - count, len(layout)), "normalises over the tokens of a sequence")
    return [layout for _ in call.results]


@rule(aten.batch_norm)
def _batch_norm(call: Call) -> list[Layout]:
    refuse_named(call.first, [1], "takes the tokens of a sequence for channels")
    return [call.first]


@rule(aten.constant_pad_nd, aten.pad)
def _pad(call: Call) -> list[Layout]:
    layout, widths = call.first, list(call.given["pad"])
    padded = [len(layout) - 1 - index // 2 for index, width in enumerate(widths) if width != 0]
    refuse_named(layout, padded, "moves the tokens of a sequence")
    return [_with_axes(layout, padded, call.results[0])]


@rule(aten.conv1d, aten.conv2d, aten.conv3d, aten.convolution, aten._convolution)
def _convolution(call: Call) -> list[Layout]:
    layout = call.first
    rank = len(call.results[0])
    inner = range(len(layout) - rank + 1, len(layout))
    refuse_named(layout, inner, "convolves over the tokens of a sequence")
    return [_with_axes(layout, list(inner), call.results[0])]


@rule(
    aten.adaptive_avg_pool2d,
    aten.avg_pool2d,
    aten.upsample_linear1d,
    aten.upsample_bilinear2d,
    aten.upsample_bicubic2d,
    aten._upsample_bicubic2d_aa,
)
def _resize(call: Call) -> list[Layout]:
    inner = range(len(call.first) - 2, len(call.first))  # images may come without a batch axis
    refuse_named(call.first, inner, "resizes over the tokens of a sequence")
    return [_with_axes(call.first, list(inner), call.results[0])]


TOGETHER = "multiplies the tokens of a sequence with each other, as attention of the model's own code does"


@rule(aten.linear)
def _linear(call: Call) -> list[Layout]:
    layout = call.first
    refuse_named(layout, [len(layout) - 1], TOGETHER)
    refuse_named_weights(call, call.tensors[1:])
    return [_with_axes(layout, [len(layout) - 1], call.results[0])]


@rule(aten.matmul, aten.bmm, aten.mm, aten.mv, aten.dot)
def _matmul(call: Call) -> list[Layout]:
    left, right = (call.of(node) for node in call.tensors)
    return _product(left, right)


@rule(aten.addmm, aten.baddbmm)
def _added_matmul(call: Call) -> list[Layout]:
    added, *factors = call.tensors
    (product,) = _product(*(call.of(node) for node in factors))
    layouts = [call.of(added)] if added in call.layouts else []
    return kept_apart(broadcast([product, *layouts], []), TOGETHER)


def _product(left: Layout, right: Layout) -> list[Layout]:
    a = left if len(left) > 1 else ((), *left)
    b = right if len(right) > 1 else (*right, ())
    refuse_named(a, [len(a) - 1], TOGETHER)
    refuse_named(b, [len(b) - 2], TOGETHER)
    rows = broadcast([(*a[:-2], a[-2], ()), (*b[:-2], (), b[-1])], [])
    product = kept_apart(rows, TOGETHER)[0]
    dropped = [len(product) - 2] * (len(left) == 1) + [len(product) - 1] * (len(right) == 1)
    return [tuple(axis for index, axis in enumerate(product) if index not in dropped)]


@rule(aten.einsum)
def _einsum(call: Call) -> list[Layout]:
    inputs, arrow, output = call.given["equation"].replace(" ", "").partition("->")
    terms = inputs.split(",")
    if not arrow or "." in inputs or len(terms) != len(call.tensors):
        raise Mixes(TOGETHER)
    axes: dict[str, Any] = {}
    for term, node in zip(terms, call.tensors, strict=True):
        for letter, axis in zip(term, call.of(node), strict=True):
            if is_named(axis) and (
                letter not in output or (is_named(axes.get(letter, axis)) and axes.get(letter, axis) != axis)
            ):
                raise Mixes(TOGETHER)
            if letter not in axes or is_named(axis):
                axes[letter] = axis
    return kept_apart(tuple(axes[letter] for letter in output), TOGETHER)


def refuse_named_weights(call: Call, operands: Sequence[fx.Node]) -> None:
    """Raise `Mixes` if a weight indexes tokens."""
    for node in operands:
        refuse_named(call.of(node), range(len(call.of(node))), TOGETHER)


_PICKS = "picks tokens of a sequence by their place in the call"


@rule(aten.embedding)
def _embedding(call: Call) -> list[Layout]:
    weight, indices = (call.of(node) for node in call.tensors[:2])
    refuse_named(weight, [0], _PICKS)
    return kept_apart((*indices, weight[1]), _PICKS)


@rule(aten.index_select)
def _index_select(call: Call) -> list[Layout]:
    source, axis = call.first, call.given["dim"]
    refuse_named(source, [axis], _PICKS)
    return kept_apart((*source[:axis], *call.of(call.given["index"]), *source[axis + 1 :]), _PICKS)


@rule(aten.index)
def _index(call: Call) -> list[Layout]:
    source, indices = call.first, list(call.given["indices"])
    used = [axis for axis, index in enumerate(indices) if index is not None]
    refuse_named(source, used, _PICKS)
    if used != list(range(used[0], used[-1] + 1)):
        raise Mixes(_PICKS)
    layouts, uniform = ([], [])
    for axis in used:
        (layouts if indices[axis] in call.layouts else uniform).append(call.of(indices[axis]))
    rows = broadcast(layouts, uniform)
    if rows is None:
        raise Mixes(_PICKS)
    return kept_apart((*source[: used[0]], *rows, *source[used[-1] + 1 :]), _PICKS)


@rule(aten.gather)
def _gather(call: Call) -> list[Layout]:
    """Select entries of the first operand; of its first tokens, if there are fewer indices."""
    source, index, axis = call.first, call.given["index"], call.given["dim"]
    refuse_named(source, [axis], _PICKS)
    if call.tensors[0] not in call.layouts:
        return [call.of(index)]
    pairs = zip(source, call.of(index), strict=True)
    if any(is_named(rows) and rows != chosen for rows, chosen in pairs):
        raise Mixes(_PICKS)
    return kept_apart(broadcast([call.of(index)], [source]), _PICKS)
