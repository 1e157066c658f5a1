"""Lowerings of indexing and embedding."""

from __future__ import annotations

import torch

from ditto.lowering.lower import Lowering, Operand
from ditto.lowering.registry import lowers
from ditto.network.graph import Value
from ditto.network.layers import Gather

aten = torch.ops.aten


@lowers(aten.embedding.default)
def embedding(net: Lowering, weight: Operand, indices: Operand) -> Value:
    """embedding(Tensor weight, Tensor indices, SymInt padding_idx=-1, bool scale_grad_by_freq=False, bool sparse=False)
    -> Tensor"""
    return net.add(Gather(axis=0), net.value(weight), net.value(indices))


@lowers(aten.index_select.default)
def index_select(net: Lowering, x: Operand, dim: int, index: Operand) -> Value:
    """index_select(Tensor self, int dim, Tensor index) -> Tensor"""
    value = net.value(x)
    return net.add(Gather(axis=dim % value.rank), value, net.value(index))
