"""Recognition of attention that a model's own code writes out: matrix multiplication, softmax, matrix multiplication.

Between the first multiplication and softmax, scores may be scaled, masked, and get a bias that is linear in the
distance of query and key (ALiBi). Masks and biases are evaluated, and must follow from positions alone.

B batch, H heads, S sequence.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from attrs import define, field, frozen
from torch import Tensor, fx

from ditto.errors import DittoError
from ditto.network import dims
from ditto.ops.attention import AttentionArguments
from ditto.program import Program
from ditto.rewrite.masks import MASKED, MaskForm, computed_from_shapes, evaluate_at, form_of_mask
from ditto.rewrite.rule import arguments, fake_result

aten = torch.ops.aten
_PRODUCTS = frozenset({aten.matmul.default, aten.bmm.default})
_RESHAPES = frozenset({aten.reshape.default, aten.unflatten.int, aten.flatten.using_ints})


class _NotAttention(Exception):
    """The operators compute something else."""


@define
class _Scores:
    """Scores of an attention: `scale` * query @ key, plus terms.

    Args:
        query, key: the factors; the key is transposed.
        added: (factor, node) of each added term.
        seen: nodes that are true where a key is seen, with whether the truth is inverted.
        factors: nodes that scores are multiplied with.
    """

    query: fx.Node | None = None
    key: fx.Node | None = None
    scale: float = 1.0
    added: list[tuple[float, fx.Node]] = field(factory=list)
    seen: list[tuple[fx.Node, bool]] = field(factory=list)
    factors: list[fx.Node] = field(factory=list)


@frozen
class _Bias:
    """Form of masks and biases together: the mask's, and the slope of each head."""

    mask: MaskForm
    slopes: Tensor | None


def recognise_written_attention(program: Program, sizes: Mapping[str, int]) -> int:
    """Replace attention written out by `ditto.attention`, numbered in order; return the number of replacements.

    Args:
        sizes: maximum sizes of the named dimensions in the engine.
    """
    count = 0
    known: dict[tuple[Any, ...], _Bias] = {}
    for node in list(program.graph.nodes):
        if node.target not in _PRODUCTS:
            continue
        try:
            _replace(program, node, sizes, count, known)
        except _NotAttention:
            continue
        count += 1
    program.sweep()
    return count


def _replace(
    program: Program, node: fx.Node, sizes: Mapping[str, int], layer: int, known: dict[tuple[Any, ...], _Bias]
) -> None:
    weights, value = node.args
    softmax = _behind(weights, _RESHAPES | {aten.to.dtype})
    if not isinstance(softmax, fx.Node) or softmax.target != aten.softmax.int or not isinstance(value, fx.Node):
        raise _NotAttention
    given = arguments(softmax)
    if given["dim"] != softmax.meta["val"].dim() - 1 or not isinstance(given["self"], fx.Node):
        raise _NotAttention
    scores = _scores(program, given["self"])
    assert scores.query is not None and scores.key is not None
    heads = _heads(program, scores.query)
    key = (tuple(scores.added), tuple(scores.seen), tuple(scores.factors), heads)
    if key not in known:
        known[key] = _bias(program, scores, heads, sizes)
    bias = known[key]
    if not bias.mask.causal:
        raise _NotAttention
    graph = program.graph
    with graph.inserting_before(node):
        operands = [_by_head(program, part, heads) for part in (scores.query, _transposed(graph, scores.key), value)]
        slopes = None if bias.slopes is None else program.constant(bias.slopes, "slopes")
        attention: AttentionArguments[fx.Node] = AttentionArguments(
            *operands,
            mask=None,
            sinks=None,
            scale=scores.scale,
            causal=bias.mask.causal,
            window=bias.mask.window,
            softcap=0.0,
            layer=layer,
            slopes=slopes,
        )
        result = _call(graph, torch.ops.ditto.attention.default, attention.args, node)
    for user in [user for user in node.users if user.target in _RESHAPES and _is_alike(user, result)]:
        user.replace_all_uses_with(result)
        graph.erase_node(user)
    if not _is_alike(node, result):
        with graph.inserting_before(node):
            result = _call(graph, aten.flatten.using_ints, (result, 0, 1), node)
    if not _is_alike(node, result):
        raise _NotAttention
    node.replace_all_uses_with(result)


def _is_alike(left: fx.Node, right: fx.Node) -> bool:
    """Whether two nodes have the same shape."""
    shapes = ([str(size) for size in node.meta["val"].shape] for node in (left, right))
    return next(shapes) == next(shapes)


def _behind(node: Any, targets: frozenset[Any]) -> Any:
    """The node behind operators that keep all values, and the last two axes."""
    while isinstance(node, fx.Node) and node.target in targets:
        source = node.args[0]
        if not isinstance(source, fx.Node) or not _same_matrix(source, node):
            return node
        node = source
    return node


def _same_matrix(left: fx.Node, right: fx.Node) -> bool:
    sizes = ([str(size) for size in node.meta["val"].shape[-2:]] for node in (left, right))
    return next(sizes) == next(sizes)


def _scores(program: Program, node: fx.Node) -> _Scores:
    """The scores that a node computes.

    Raises:
        _NotAttention: it computes something else.
    """
    scores = _Scores()
    current: Any = node
    while scores.query is None:
        if not isinstance(current, fx.Node) or current.op != "call_function":
            raise _NotAttention
        current = _step(program, scores, current)
    return scores


def _step(program: Program, scores: _Scores, node: fx.Node) -> Any:
    """Account for one operator between softmax and the first product; return the operator before it."""
    given = arguments(node)
    if node.target in _PRODUCTS:
        scores.query, scores.key = node.args[:2]  # type: ignore[assignment]
        return None
    if node.target == aten.baddbmm.default:
        scores.added.append((scores.scale * given["beta"], given["self"]))
        scores.scale *= given["alpha"]
        scores.query, scores.key = given["batch1"], given["batch2"]
        return None
    if node.target == aten.to.dtype or (node.target in _RESHAPES and _same_matrix(given["self"], node)):
        return given["self"]
    if node.target in (aten.mul.Tensor, aten.div.Tensor) and isinstance(given["other"], (int, float)):
        scores.scale *= given["other"] if node.target == aten.mul.Tensor else 1 / given["other"]
        return given["self"]
    if node.target in (aten.masked_fill.Scalar, aten.masked_fill.Tensor):
        _require_low(program, given["value"])
        scores.seen.append((given["mask"], True))
        return given["self"]
    if node.target in (aten.where.self, aten.where.ScalarOther):
        _require_low(program, given["other"])
        scores.seen.append((given["condition"], False))
        return given["self"]
    if node.target in (aten.max.other, aten.maximum.default):
        _require_low(program, given["other"])
        return given["self"]
    if node.target == aten.add.Tensor and given["alpha"] == 1:
        inner, other = _sides(program, given)
        scores.added.append((scores.scale, other))
        return inner
    if node.target == aten.mul.Tensor:
        inner, other = _sides(program, given)
        scores.factors.append(other)
        return inner
    raise _NotAttention


def _sides(program: Program, given: Mapping[str, Any]) -> tuple[fx.Node, fx.Node]:
    """The operand that depends on tokens, and the one that follows from shapes alone."""
    left, right = given["self"], given["other"]
    if not isinstance(left, fx.Node) or not isinstance(right, fx.Node):
        raise _NotAttention
    fixed = [computed_from_shapes(program, part) for part in (left, right)]
    if fixed[0] == fixed[1]:
        raise _NotAttention
    return (left, right) if fixed[1] else (right, left)


def _require_low(program: Program, value: Any) -> None:
    """Check that a value is so low that softmax makes it 0."""
    if isinstance(value, fx.Node):
        if not computed_from_shapes(program, value) or value.meta["val"].dim():
            raise _NotAttention
        value = float(_evaluated(program, value, {}))
    if not value <= MASKED:
        raise _NotAttention


def _evaluated(program: Program, node: fx.Node, sizes: Mapping[str, int]) -> Tensor:
    try:
        return evaluate_at(program, node, sizes)
    except DittoError as error:
        raise _NotAttention from error


def _heads(program: Program, query: fx.Node) -> int:
    """Number of heads of a query [B, H, S, D] or [B * H, S, D]."""
    shape = [program.dim(size) for size in query.meta["val"].shape]
    tokens = program.spec(program.inputs[0]).shape
    batch = tokens[0] if len(tokens) > 1 else 1  # packed tokens have no batch
    heads = shape[1] if len(shape) == 4 else dims.divide(shape[0], batch) if len(shape) == 3 else None
    if not isinstance(heads, int) or (len(shape) == 4 and shape[0] != batch):
        raise _NotAttention
    return heads


def _bias(program: Program, scores: _Scores, heads: int, sizes: Mapping[str, int]) -> _Bias:
    """The form of the masks and biases of scores.

    Raises:
        _NotAttention: they depend on tokens, or have another form than causal masks and ALiBi.
    """
    length = sizes.get("sequence", 0)
    seen, biases = torch.ones(1, 1, 1, 1, dtype=torch.bool), torch.zeros(1, 1, 1, 1)

    def value_of(node: fx.Node) -> Tensor:
        if not computed_from_shapes(program, node):
            raise _NotAttention
        value = _evaluated(program, node, sizes)
        if value.dim() == 3 and value.shape[0] > 1:
            value = value.reshape(-1, heads, *value.shape[1:])
        return value.reshape((1,) * (4 - value.dim()) + tuple(value.shape))[:1]  # all rows of a batch are alike

    for node, inverted in scores.seen:
        seen = seen & (value_of(node).bool() ^ inverted)
    for factor, node in scores.added:
        added = value_of(node).float() * factor
        seen = seen & (added > MASKED)
        biases = biases + added.masked_fill(added <= MASKED, 0.0)
    factors = [value_of(node).float() for node in scores.factors]
    if any(not bool(((factor == 1) | ~seen).all()) for factor in factors):
        raise _NotAttention
    form = form_of_mask(seen.expand(1, seen.shape[1], length, length)) if seen.numel() > 1 else MaskForm(False, 0)
    if form is None:
        raise _NotAttention
    return _Bias(form, _slopes(biases[0], seen[0], heads, length) if bool(biases.any()) else None)


def _slopes(biases: Tensor, seen: Tensor, heads: int, length: int) -> Tensor:
    """The slope of each head, if biases [H or 1, S or 1, S] are linear in the distance of query and key.

    What all keys of a query have in common does not change softmax.
    """
    positions = torch.arange(length, dtype=torch.float64)
    distances = positions[None, :] - positions[:, None]
    slopes: list[float] = []
    for head in range(heads):
        bias = biases[head % biases.shape[0]].double().expand(length, length)
        visible = seen[head % seen.shape[0]].expand(length, length)
        slope = float(bias[1, 1] - bias[1, 0]) if length > 1 else 0.0
        rest = bias - bias.diagonal()[:, None] - slope * distances
        if bool((rest[visible].abs() > 1e-5 * bias.abs().max()).any()):
            raise _NotAttention
        slopes.append(slope)
    return torch.tensor(slopes, dtype=torch.float32)


def _transposed(graph: fx.Graph, key: fx.Node) -> fx.Node:
    rank = key.meta["val"].dim()
    if key.target == aten.transpose.int:
        given = arguments(key)
        if {given["dim0"], given["dim1"]} == {rank - 2, rank - 1}:
            return given["self"]
    return _call(graph, aten.transpose.int, (key, rank - 2, rank - 1), key)


def _by_head(program: Program, node: fx.Node, heads: int) -> fx.Node:
    """An operand as [B, H, S, D]."""
    if node.meta["val"].dim() == 4:
        return node
    if node.meta["val"].dim() != 3:
        raise _NotAttention
    source = node.args[0] if node.target in _RESHAPES else None
    if isinstance(source, fx.Node) and source.meta["val"].dim() == 4 and _same_matrix(source, node):
        return source
    return _call(program.graph, aten.unflatten.int, (node, 0, [-1, heads]), node)


def _call(graph: fx.Graph, target: Any, args: tuple[Any, ...], like: fx.Node) -> fx.Node:
    result = graph.call_function(target, args)
    result.meta.update(like.meta)
    result.meta["val"] = fake_result(result)
    return result
