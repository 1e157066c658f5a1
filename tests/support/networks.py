"""Specs from text, messages of refusing layers, and a network with every kind of layer."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ditto.errors import Place, ShapeError
from ditto.network import Layer, Network, Spec, Value, symbol
from ditto.network.dims import parse
from ditto.network.layers import (
    Activation,
    Attention,
    Cast,
    ChunkedRecurrence,
    Concatenation,
    Constant,
    Convolution,
    Dequantize,
    ElementWise,
    Fill,
    Gather,
    GatherElements,
    Identity,
    KVCacheUpdate,
    LinearRecurrence,
    MatrixMultiply,
    Normalization,
    Reduce,
    RotaryEmbedding,
    Select,
    Shape,
    Shuffle,
    Slice,
    Softmax,
    TopK,
    Unary,
)
from ditto.network.quantized import QuantizedWeight
from ditto.network.weight import Stored, fold

BATCH, SEQUENCE = symbol("batch"), symbol("sequence")


def spec(text: str) -> Spec:
    """`float32[batch, 3]` as a spec."""
    dtype, _, shape = text.removesuffix("]").partition("[")
    return Spec(tuple(parse(dim) for dim in shape.split(",") if dim), getattr(torch, dtype))


def refusal(layer: Layer, *specs: str) -> str:
    """What a layer says to specs that do not fit it."""
    with pytest.raises(ShapeError) as error:
        layer.infer(*map(spec, specs))
    return error.value.cause


class InMemoryTensors:
    """A checkpoint in memory; it remembers what it was asked for."""

    def __init__(self, **tensors: Tensor) -> None:
        self.tensors = {name.replace("__", "."): tensor for name, tensor in tensors.items()}
        self.asked: list[str] = []

    def tensor(self, name: str) -> Tensor:
        self.asked.append(name)
        return self.tensors[name]

    def release(self) -> None:
        """Memory is all it has."""


def every_layer_network() -> tuple[Network, dict[str, Tensor], InMemoryTensors]:
    """A network with every kind of layer and every form of weight, inputs for it, and its checkpoint."""
    torch.manual_seed(0)
    source = InMemoryTensors(
        norm__weight=torch.rand(8),
        q__weight=torch.randn(8, 8) / 3,
        k__weight=(torch.randn(8, 8) / 3).half(),
        table=torch.rand(2, 16, 4),
        patch__weight=torch.randn(4, 1, 2, 2),
        up__packed=torch.randint(-(2**31), 2**31 - 1, (4, 2), dtype=torch.int32),
        up__zeros=torch.randint(-8, 8, (4, 2), dtype=torch.int8),
        up__scales=torch.rand(4, 2).half(),
    )
    inputs = {
        "hidden": torch.randn(2, 3, 8),
        "positions": torch.tensor([[0, 1, 2], [4, 5, 6]], dtype=torch.int32),
        "start": torch.tensor([0, 4], dtype=torch.int32),
        "cache": torch.randn(2, 2, 8, 4),
        "pixels": torch.randn(1, 2, 4, 4),
        "state": torch.randn(2, 2, 4, 4),
    }
    net = Network("whole")
    hidden = net.input("hidden", spec("float32[batch, sequence, 8]"))
    positions = net.input("positions", spec("int32[batch, sequence]"))
    start = net.input("start", spec("int32[batch]"))
    cache = net.input("cache", spec("float32[batch, 2, 8, 4]"))
    pixels = net.input("pixels", spec("float32[1, 2, 4, 4]"))
    state = net.input("state", spec("float32[batch, 2, 4, 4]"))

    def stored(name: str) -> Stored:
        tensor = source.tensors[name]
        return Stored(name, tuple(tensor.shape), tensor.dtype)

    def literal(tensor: Tensor) -> Value:
        return net.add(Constant(net.literals.keep(tensor)))

    with net.placed(Place("model.norm", "model.py:3")):
        scale = net.add(Constant(fold("reshape", stored("norm.weight"), (1, 1, 8))))
        normed = net.add(Normalization((2,), 1e-5), hidden, scale, literal(torch.arange(8.0).reshape(1, 1, 8) / 8))
    with net.placed(Place("model.attention", "model.py:7")):
        joined = fold("concatenate", (stored("q.weight"), fold("cast", stored("k.weight"), torch.float32)), 0)
        both = net.add(MatrixMultiply(transpose_y=True), normed, net.add(Constant(fold("reshape", joined, (1, 16, 8)))))
        shape = net.add(Shape(), hidden)
        query = net.add(Slice((0, 0, 0), (BATCH, SEQUENCE, 8), (1, 1, 1)), both, shape)
        key = net.add(Slice((0, 0, 8), (BATCH, SEQUENCE, 8), (1, 1, 1)), both, shape)
        batch_sequence = net.add(Gather(0), shape, literal(torch.tensor([0, 1])))
        sizes = net.add(Concatenation(0), batch_sequence, literal(torch.tensor([2, 4])))
        heads = Shuffle(second=(0, 2, 1, 3), sizes=(BATCH, SEQUENCE, 2, 4))
        query = net.add(heads, query, sizes)
        key = net.add(Shuffle(reshape=(0, 0, 2, 4), second=(0, 2, 1, 3)), key)
        rows = net.literals.keep(torch.arange(8))
        cos, sin = (
            net.add(
                Constant(fold("rows", fold("reshape", fold("slice", stored("table"), 0, i, i + 1, 1), (16, 4)), rows))
            )
            for i in range(2)
        )
        columns = literal(torch.tensor([0, 2]))  # the tables are of four columns, two are wanted
        cos, sin = (net.add(Gather(1), table, columns) for table in (cos, sin))
        cos, sin = (net.add(Gather(0), table, positions) for table in (cos, sin))
        query, key = (net.add(RotaryEmbedding(False, 4), x, cos, sin) for x in (query, key))
        updated = net.add(KVCacheUpdate(), cache, key, start)
        slots = net.add(Fill(8, 0, 1, torch.int32), literal(torch.tensor([8])))
        slots = net.add(Shuffle(reshape=(1, 1, 1, 8)), slots)
        last = net.add(Shuffle(reshape=(0, 1, -1, 1)), positions)
        unseen = net.add(ElementWise("GREATER"), slots, last)
        context = net.add(Attention(), query, updated, updated, net.add(Unary("NOT"), unseen))
    with net.placed(Place("model.head")):
        active = net.add(Activation("GELU_TANH"), context)
        chosen = net.add(Select(), net.add(ElementWise("GREATER"), active, query), active, query)
        pooled = net.add(Reduce("AVG", (3,), keep=False), chosen)
        largest, places = net.add_many(TopK(1, 1), pooled)
        repeated = net.add(ElementWise("SUM"), largest, net.add(GatherElements(1), pooled, places))
        weights = net.add(Softmax(1), net.add(ElementWise("SUM"), pooled, repeated))
        net.output("scores", net.add(Cast(torch.float16), weights))
    net.output("present", updated, shares="cache")
    patches = net.add(
        Convolution((2, 2), (0, 0), (1, 1), 2),
        pixels,
        net.add(Constant(stored("patch.weight"))),
        literal(torch.ones(4)),
    )
    net.output("patches", patches)
    integers = fold("unpack", stored("up.packed"), 4, ())
    scales = net.add(Constant(fold("cast", stored("up.scales"), torch.float32)))
    net.output("small", net.add(Dequantize(), net.add(Constant(fold("int4", integers))), scales))
    groups = net.literals.keep(torch.arange(16) % 2)
    parts = integers, stored("up.scales"), stored("up.zeros")
    ordered = QuantizedWeight(*parts, 4, (1, 8), groups, (4, 16), torch.float32)
    net.output("ordered", net.add(Unary("NEG"), net.add(Constant(ordered))))
    with net.placed(Place("model.recurrence")):
        decay = net.add(Shuffle(reshape=(0, 2, -1, 1)), net.add(Unary("NEG"), net.add(Unary("ABS"), pooled)))
        in_chunks, _ = net.add_many(ChunkedRecurrence(2), state, decay, key, query, query)
        by_token = net.add(Shuffle(second=(0, 2, 1, 3)), query)
        column, row = (net.add(Shuffle(reshape=(0, 0, 2, *size)), by_token) for size in ((4, 1), (1, 4)))
        factor = net.add(Shuffle(second=(0, 2, 1, 3)), net.add(Unary("EXP"), decay))
        factor = net.add(Shuffle(reshape=(0, 0, 2, 1, 1)), factor)
        _, carried = net.add_many(LinearRecurrence(), state, factor, column, column, row)
        net.output("recurrent", in_chunks)
        net.output("carried", carried, shares="state")
    net.output("same", net.add(Identity(), positions))
    return net, inputs, source
