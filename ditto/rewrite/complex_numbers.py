"""Complex numbers as pairs of real ones: networks have no complex tensors.

Some models write rotary embedding as a product of complex numbers. Each complex value becomes its real and imaginary
part, until a model views it as real numbers again.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from ditto.errors import UnsupportedFeature, at
from ditto.ops.traits import Trait, traits_of
from ditto.program import Program
from ditto.rewrite.rule import arguments, fake_result

aten = torch.ops.aten

_Pair = tuple[fx.Node, fx.Node]


def replace_complex(program: Program) -> int:
    """Replace complex values by pairs of real ones; return the number of replaced operators.

    Raises:
        UnsupportedFeature: an operator on complex numbers has no form with pairs.
    """
    pairs: dict[fx.Node, _Pair] = {}
    count = 0
    for node in list(program.graph.nodes):
        if node.op != "call_function" or not (_is_complex(node) or any(map(_is_complex, node.all_input_nodes))):
            continue
        with at(program.place(node)), program.graph.inserting_before(node):
            _replace(node, pairs)
        count += 1
    program.sweep()
    return count


def _replace(node: fx.Node, pairs: dict[fx.Node, _Pair]) -> None:
    """Record the pair of a complex value, or replace a real value that is computed from complex ones."""
    given = arguments(node)
    if node.target == aten.view_as_real.default and given["self"] in pairs:
        node.replace_all_uses_with(_call(node, aten.stack.default, (list(pairs[given["self"]]), -1)))
    elif node.target == aten.polar.default:
        length, angle = given["abs"], given["angle"]
        parts = (_call(node, function, (angle,)) for function in (aten.cos.default, aten.sin.default))
        real, imaginary = (_call(node, aten.mul.Tensor, (length, part)) for part in parts)
        pairs[node] = real, imaginary
    elif node.target == aten.view_as_complex.default:
        real, imaginary = (_call(node, aten.select.int, (given["self"], -1, index)) for index in (0, 1))
        pairs[node] = real, imaginary
    elif node.target == aten.mul.Tensor:
        pairs[node] = _product(node, given["self"], given["other"], pairs)
    elif _moves_complex(node, pairs):
        real, imaginary = (
            fx.map_arg(node.args, lambda part, index=index: pairs[part][index] if part in pairs else part)
            for index in (0, 1)
        )
        pairs[node] = _call(node, node.target, real), _call(node, node.target, imaginary)
    else:
        raise UnsupportedFeature(
            f"`{node.target}` computes with complex numbers",
            remedy="products of complex numbers are supported, as rotary embedding has them",
        )


def _product(node: fx.Node, left: Any, right: Any, pairs: dict[fx.Node, _Pair]) -> _Pair:
    def times(x: Any, y: Any) -> fx.Node:
        return _call(node, aten.mul.Tensor, (x, y) if isinstance(x, fx.Node) else (y, x))

    if left in pairs and right in pairs:
        (a, b), (c, d) = pairs[left], pairs[right]
        real = _call(node, aten.sub.Tensor, (times(a, c), times(b, d)))
        return real, _call(node, aten.add.Tensor, (times(a, d), times(b, c)))
    pair, factor = (pairs[left], right) if left in pairs else (pairs[right], left)
    return times(pair[0], factor), times(pair[1], factor)


def _moves_complex(node: fx.Node, pairs: dict[fx.Node, _Pair]) -> bool:
    """Whether a node moves elements of complex tensors alone, so that it does the same with each part."""
    if not traits_of(node.target) & (Trait.MOVES | Trait.COPIES) or node.kwargs:
        return False
    tensors = [part for part in node.all_input_nodes if isinstance(part.meta.get("val"), Tensor)]
    return all(part in pairs or not part.meta["val"].dtype.is_floating_point for part in tensors)


def _is_complex(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, Tensor) and value.dtype.is_complex


def _call(like: fx.Node, target: Any, args: tuple[Any, ...]) -> fx.Node:
    result = like.graph.call_function(target, args)
    result.meta.update(like.meta)
    result.meta["val"] = fake_result(result)
    return result
