"""Traits of operators: properties that rewrites, lowerings and analyses rely on.

An operator without traits here is unknown: assume that every element of its result depends on all of its operands.
`memory` and `is_mutating` in `ditto.program` need no traits: schemas declare aliasing and mutation.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Flag, auto
from types import MappingProxyType

import torch


class Trait(Flag):
    """Properties of an operator. "Operands" are its tensors; a row is a slice along the last axis."""

    ELEMENTWISE = auto()
    """Each element of the result depends on the elements of the broadcast operands at the same index."""
    ROWWISE = auto()
    """Each row of the result depends on the row of the first operand at the same index, and on the other operands. If
    `normalized_shape` has n axes, a row is a slice along the last n axes."""
    ALONG_DIM = auto()
    """Mixes elements along the axes in `dim` (None: all). Each index of any other axis of the result depends only on
    that index of the first operand."""
    LOOKUP = auto()
    """Each element of an integer operand selects a row of another operand; the result has one more axis."""
    MATMUL = auto()
    """Contracts the last axis of the first and the last but one of the second operand; broadcasts leading axes."""
    MIXES = auto()
    """Each element of the result may depend on elements at other indices: attention, convolution, row selection."""

    MOVES = auto()
    """Each element of the result is an element of an operand, unchanged."""
    COPIES = auto()
    """The result equals the first operand."""
    CASTS = auto()
    """The result equals the first operand in another dtype, layout or device."""
    SAME_IF_SHAPE = auto()
    """The result equals the first operand if both have the same shape and dtype."""
    OF_SHAPE = auto()
    """The result depends only on the shapes of the operands, not on their elements."""
    OF_NUMBERS = auto()
    """The result depends only on numbers; there is no operand."""

    ANY_RANK = auto()
    """Has no axis argument: if operands lose a leading axis of size 1, so does the result, and nothing else
    changes."""
    NAMES_AXES = auto()
    """Has axis arguments `dim`, or `dim0` and `dim1`: like ANY_RANK, if these are decremented."""
    NAMES_SIZES = auto()
    """Has the result's shape as argument `size` or `shape`: like ANY_RANK, without the first size."""

    COMMUTES = auto()
    """`self` and `other` may be swapped, provided that `alpha`, if any, is 1."""


_aten, _ditto = torch.ops.aten, torch.ops.ditto
_FUNCTION = Trait.ELEMENTWISE | Trait.ANY_RANK
_COMMUTING = _FUNCTION | Trait.COMMUTES
_ALONG_DIM = Trait.ALONG_DIM | Trait.NAMES_AXES
_RESHAPES = Trait.MOVES | Trait.SAME_IF_SHAPE
_OF_SIZES = Trait.OF_SHAPE | Trait.ANY_RANK

TRAITS: Mapping[object, Trait] = MappingProxyType(
    {
        # Arithmetic
        _aten.abs.default: _FUNCTION,
        _aten.add.Tensor: _COMMUTING,
        _aten.clamp.default: _FUNCTION,
        _aten.clamp.Tensor: _FUNCTION,
        _aten.clip.default: _FUNCTION,
        _aten.cos.default: _FUNCTION,
        _aten.div.Tensor: _FUNCTION,
        _aten.div.Tensor_mode: _FUNCTION,
        _aten.erf.default: _FUNCTION,
        _aten.exp.default: _FUNCTION,
        _aten.expm1.default: _FUNCTION,
        _aten.floor.default: _FUNCTION,
        _aten.floor_divide.default: _FUNCTION,
        _aten.log.default: _FUNCTION,
        _aten.log1p.default: _FUNCTION,
        _aten.max.other: _COMMUTING,
        _aten.maximum.default: _COMMUTING,
        _aten.min.other: _COMMUTING,
        _aten.minimum.default: _COMMUTING,
        _aten.mul.Tensor: _COMMUTING,
        _aten.neg.default: _FUNCTION,
        _aten.pow.Scalar: _FUNCTION,
        _aten.pow.Tensor_Scalar: _FUNCTION,
        _aten.pow.Tensor_Tensor: _FUNCTION,
        _aten.reciprocal.default: _FUNCTION,
        _aten.rsqrt.default: _FUNCTION,
        _aten.rsub.Scalar: _FUNCTION,
        _aten.sin.default: _FUNCTION,
        _aten.sqrt.default: _FUNCTION,
        _aten.square.default: _FUNCTION,
        _aten.sub.Tensor: _FUNCTION,
        # Activations
        _aten.gelu.default: _FUNCTION,
        _aten.log_sigmoid.default: _FUNCTION,
        _aten.relu.default: _FUNCTION,
        _aten.sigmoid.default: _FUNCTION,
        _aten.silu.default: _FUNCTION,
        _aten.softmax.int: _ALONG_DIM,
        _aten.softplus.default: _FUNCTION,
        _aten.tanh.default: _FUNCTION,
        # Comparison and selection
        _aten.__and__.Tensor: _COMMUTING,
        _aten.__or__.Tensor: _COMMUTING,
        _aten.bitwise_and.Tensor: _COMMUTING,
        _aten.bitwise_not.default: _FUNCTION,
        _aten.bitwise_or.Tensor: _COMMUTING,
        _aten.eq.Scalar: _FUNCTION,
        _aten.eq.Tensor: _COMMUTING,
        _aten.ge.Scalar: _FUNCTION,
        _aten.ge.Tensor: _FUNCTION,
        _aten.gt.Scalar: _FUNCTION,
        _aten.gt.Tensor: _FUNCTION,
        _aten.le.Scalar: _FUNCTION,
        _aten.le.Tensor: _FUNCTION,
        _aten.logical_and.default: _COMMUTING,
        _aten.logical_not.default: _FUNCTION,
        _aten.logical_or.default: _COMMUTING,
        _aten.lt.Scalar: _FUNCTION,
        _aten.lt.Tensor: _FUNCTION,
        _aten.masked_fill.Scalar: _FUNCTION,
        _aten.masked_fill.Tensor: _FUNCTION,
        _aten.ne.Scalar: _FUNCTION,
        _aten.ne.Tensor: _COMMUTING,
        _aten.where.Scalar: _FUNCTION,
        _aten.where.ScalarOther: _FUNCTION,
        _aten.where.ScalarSelf: _FUNCTION,
        _aten.where.self: _FUNCTION,
        # Casts and copies
        _aten._to_copy.default: _FUNCTION | Trait.CASTS,
        _aten.alias.default: _FUNCTION | Trait.COPIES,
        _aten.clone.default: _FUNCTION | Trait.COPIES,
        _aten.contiguous.default: _FUNCTION | Trait.COPIES,
        _aten.detach.default: _FUNCTION | Trait.COPIES,
        _aten.detach_.default: _FUNCTION | Trait.COPIES,
        _aten.lift_fresh_copy.default: _FUNCTION | Trait.COPIES,
        _aten.to.device: _FUNCTION | Trait.CASTS,
        _aten.to.dtype: _FUNCTION | Trait.CASTS,
        _aten.to.dtype_layout: _FUNCTION | Trait.CASTS,
        _aten.to.other: _FUNCTION | Trait.CASTS,
        _aten.type_as.default: _FUNCTION | Trait.CASTS,
        # Reductions
        _aten.amax.default: _ALONG_DIM,
        _aten.amin.default: _ALONG_DIM,
        _aten.avg_pool2d.default: Trait.MIXES,
        _aten.linalg_vector_norm.default: _ALONG_DIM,
        _aten.mean.dim: _ALONG_DIM,
        _aten.std.dim: _ALONG_DIM,
        _aten.sum.dim_IntList: _ALONG_DIM,
        # Norms
        _aten.batch_norm.default: Trait.MIXES,
        _aten.layer_norm.default: Trait.ROWWISE | Trait.ANY_RANK,
        _aten.rms_norm.default: Trait.ROWWISE | Trait.ANY_RANK,
        _ditto.rms_norm.default: Trait.ROWWISE | Trait.ANY_RANK,
        # Matrix multiplication and convolution
        _aten.addmm.default: Trait.MIXES,
        _aten.baddbmm.default: Trait.MIXES,
        _aten.bmm.default: Trait.MATMUL,
        _aten.conv2d.default: Trait.MIXES,
        _aten.conv2d.padding: Trait.MIXES,
        _aten.conv3d.default: Trait.MIXES,
        _aten.einsum.default: Trait.MIXES,
        _aten.linear.default: Trait.ROWWISE | Trait.ANY_RANK,
        _aten.matmul.default: Trait.MATMUL,
        _aten.mm.default: Trait.MATMUL,
        # Shapes
        _aten._unsafe_view.default: _RESHAPES | Trait.NAMES_SIZES,
        _aten.cat.default: Trait.MOVES | Trait.NAMES_AXES,
        _aten.chunk.default: Trait.MOVES | Trait.NAMES_AXES,
        _aten.concat.default: Trait.MOVES | Trait.NAMES_AXES,
        _aten.expand.default: _RESHAPES | Trait.NAMES_SIZES,
        _aten.expand_as.default: _RESHAPES,
        _aten.flatten.using_ints: _RESHAPES,
        _aten.numpy_T.default: Trait.MOVES,
        _aten.permute.default: Trait.MOVES,
        _aten.repeat.default: Trait.MOVES,
        _aten.repeat_interleave.self_int: Trait.MOVES,
        _aten.reshape.default: _RESHAPES | Trait.NAMES_SIZES,
        _aten.reshape_as.default: _RESHAPES,
        _aten.select.int: Trait.MOVES | Trait.NAMES_AXES,
        _aten.slice.Tensor: _RESHAPES | Trait.NAMES_AXES,
        _aten.split.Tensor: Trait.MOVES | Trait.NAMES_AXES,
        _aten.split_with_sizes.default: Trait.MOVES | Trait.NAMES_AXES,
        _aten.squeeze.default: _RESHAPES,
        _aten.squeeze.dim: _RESHAPES | Trait.NAMES_AXES,
        _aten.stack.default: Trait.MOVES | Trait.NAMES_AXES,
        _aten.t.default: Trait.MOVES,
        _aten.transpose.int: Trait.MOVES | Trait.NAMES_AXES,
        _aten.unbind.int: Trait.MOVES,
        _aten.unflatten.int: _RESHAPES,
        _aten.unsqueeze.default: _RESHAPES | Trait.NAMES_AXES,
        _aten.view.default: _RESHAPES | Trait.NAMES_SIZES,
        _aten.view_as.default: _RESHAPES,
        # Padding and resizing
        _aten.adaptive_avg_pool2d.default: Trait.MIXES,
        _aten.pad.default: Trait.MIXES | Trait.ANY_RANK,
        _aten.upsample_bicubic2d.vec: Trait.MIXES,
        _aten._upsample_bicubic2d_aa.vec: Trait.MIXES,
        _aten.upsample_bilinear2d.vec: Trait.MIXES,
        _aten.upsample_linear1d.vec: Trait.ROWWISE,
        # Tensors from shapes and numbers
        _aten.arange.default: Trait.OF_NUMBERS,
        _aten.arange.start: Trait.OF_NUMBERS,
        _aten.arange.start_step: Trait.OF_NUMBERS,
        _aten.empty_like.default: _OF_SIZES,
        _aten.full.default: Trait.OF_NUMBERS | Trait.NAMES_SIZES,
        _aten.full_like.default: _OF_SIZES,
        _aten.new_empty.default: Trait.OF_SHAPE,
        _aten.new_full.default: Trait.OF_SHAPE,
        _aten.new_ones.default: Trait.OF_SHAPE,
        _aten.new_zeros.default: Trait.OF_SHAPE,
        _aten.ones.default: Trait.OF_NUMBERS | Trait.NAMES_SIZES,
        _aten.ones_like.default: _OF_SIZES,
        _aten.sym_size.int: Trait.OF_SHAPE,
        _aten.zeros.default: Trait.OF_NUMBERS | Trait.NAMES_SIZES,
        _aten.zeros_like.default: _OF_SIZES,
        # Indexing
        _aten.embedding.default: Trait.LOOKUP | Trait.ANY_RANK,
        _aten.flip.default: Trait.MOVES,
        _aten.max.dim: Trait.NAMES_AXES,
        _aten.gather.default: Trait.MOVES | Trait.NAMES_AXES,
        _aten.index.Tensor: Trait.MOVES,
        _aten.index_select.default: Trait.MOVES | Trait.NAMES_AXES,
        _aten.scatter.src: Trait.ALONG_DIM | Trait.NAMES_AXES,
        _aten.scatter.value: Trait.ALONG_DIM | Trait.NAMES_AXES,
        _aten.topk.default: Trait.NAMES_AXES,
        _ditto.last_tokens.default: Trait.MOVES,
        _ditto.packed_last_tokens.default: Trait.MOVES | Trait.ANY_RANK,
        _ditto.prompt_rows.default: Trait.LOOKUP | Trait.ANY_RANK,
        # Mixtures of experts
        _ditto.expert_linear.default: Trait(0),
        _ditto.expert_sum.default: Trait(0),
        # States
        _ditto.causal_conv.default: Trait.MIXES,
        _ditto.linear_attention.default: Trait.MIXES,
        # Attention
        _ditto.attention.default: Trait.MIXES,
        _ditto.packed_attention.default: Trait.MIXES | Trait.ANY_RANK,
        _ditto.rope.default: Trait.ROWWISE,
    }
)


def traits_of(operator: object) -> Trait:
    """The traits of a graph node's target; none if it is not known."""
    return TRAITS.get(operator, Trait(0))
