"""Products and attention of single tokens in every form that TensorRT can be given, and those of LLaVA-1.5-7B's shape.

B batch, K inner size, N columns, H heads, D head width, C capacity of the KV cache, L live slots. Queries come scaled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.forms import BATCH, NONE, Case, Form, Tensors, finished, in_products
from ditto.lowering import Lowering
from ditto.lowering.linear import linear
from ditto.network import Network, Spec, Value, Weight, symbol
from ditto.network.dims import multiply
from ditto.network.layers import Concatenation, ElementWise, MatrixMultiply, Reduce
from ditto.network.weight import Stored
from ditto.passes.split_k import split_product
from ditto.targets.tensorrt.attention import fused_attention
from ditto.targets.tensorrt.lowering import sees
from ditto.targets.tensorrt.separate import KV_LENGTH, attention_in_sums
from ditto.targets.tensorrt.tuning import H200

CAPACITY, SLOTS, CACHED = 1024, 768, 640
"""Of the cache's slots those that are looked at, and those that hold a token before this one."""

_COPIES = (2, 8)
_PARTS = (2, 4, 8)
_BLOCKS = (2, 4)


def cases(config: Any) -> list[Case]:
    """Those of a LLaVA's language model: of its blocks, and the head."""
    text = config.text_config
    hidden, inner, layers, heads = (
        text.hidden_size,
        text.intermediate_size,
        text.num_hidden_layers,
        text.num_attention_heads,
    )
    return [
        product("query/key/value", layers, 3 * hidden, hidden),
        attention(layers, heads, hidden // heads),
        product("output", layers, hidden, hidden),
        product("gate/up", layers, 2 * inner, hidden),
        product("down", layers, hidden, inner),
        product("head", 1, text.vocab_size, hidden),
    ]


def product(name: str, times: int, columns: int, inner: int, dtype: torch.dtype = torch.float16) -> Case:
    """A linear layer of so many columns and such an inner size."""
    weight = Stored("weight", (columns, inner), dtype)

    def draw(batch: int, device: torch.device) -> dict[str, Tensor]:
        x, drawn = torch.randn(batch, inner, device=device), torch.randn(columns, inner, device=device)
        return {"x": x.to(dtype), "weight": drawn.mul_(inner**-0.5).to(dtype)}

    def form(write: Callable[..., Value], **settings: Any) -> Form:
        net = Lowering(Network("form"), NONE, NONE)
        made = write(net, net.input("x", Spec((BATCH, 1, inner), dtype)), weight, **settings)
        return Form(
            *finished(net, made),
            lambda drawn: {"x": drawn["x"][:, None]},
            lambda made, drawn: made.reshape(-1, columns),
        )

    forms = {"as it is": form(linear)}
    for copies in _COPIES:
        forms[f"{copies} copies of the row"] = form(_with_copies, copies=copies)
    for parts in (parts for parts in _PARTS if inner % (parts * H200.alignment) == 0):
        forms[f"{parts} parts"] = form(_in_parts, parts=parts)
        forms[f"{parts} parts, turned"] = form(_parts_turned, parts=parts)
        forms[f"{parts} parts, multiplied with each other"] = form(_parts_crossed, parts=parts)
    for blocks in (blocks for blocks in _BLOCKS if columns % (blocks * H200.alignment) == 0):
        forms[f"{blocks} blocks"] = form(_in_blocks, blocks=blocks)
    forms["turned"] = form(_turned, copies=1)
    forms["turned, 8 copies of the row"] = form(_turned, copies=8)

    def by_torch(drawn: Tensors) -> Tensor:
        return F.linear(drawn["x"], drawn["weight"])

    parts = H200.split_k.parts(columns, inner) if H200.split_k is not None else 1
    used = f"{parts} parts" if parts > 1 else "as it is"
    return Case("decode", name, times, used, 1, 2.0 * columns * inner, forms, draw, by_torch, ("weight",))


def _rows(net: Lowering, x: Value, copies: int) -> Value:
    return net.add(Concatenation(1), *[x] * copies) if copies > 1 else x


def _with_copies(net: Lowering, x: Value, weight: Weight, copies: int) -> Value:
    return net.slice(linear(net, _rows(net, x, copies), weight), 1, 0, 1)


def _in_parts(net: Lowering, x: Value, weight: Weight, parts: int) -> Value:
    """As Ditto splits K."""
    return split_product(net, x, net.operand(weight, x.spec.dtype, 3), parts)


def _in_blocks(net: Lowering, x: Value, weight: Weight, blocks: int) -> Value:
    """Blocks of columns as a batch."""
    columns, inner = weight.shape
    matrices = net.reshape(net.operand(weight, x.spec.dtype, 2), (blocks, columns // blocks, inner))
    made = net.add(MatrixMultiply(transpose_y=True), net.reshape(x, (1, BATCH, inner)), matrices)
    return net.reshape(net.permute(made, (1, 0, 2)), (BATCH, 1, columns))


def _turned(net: Lowering, x: Value, weight: Weight, copies: int) -> Value:
    """The matrix on the left."""
    (columns, inner), tokens = weight.shape, multiply(BATCH, copies)
    rows = net.reshape(_rows(net, x, copies), (tokens, inner))
    made = net.add(MatrixMultiply(transpose_y=True), net.operand(weight, x.spec.dtype, 2), rows)
    return net.slice(net.reshape(net.permute(made, (1, 0)), (BATCH, copies, columns)), 1, 0, 1)


def _parts_turned(net: Lowering, x: Value, weight: Weight, parts: int) -> Value:
    """The matrix on the left, in parts of the inner size."""
    columns, inner = weight.shape
    width = inner // parts
    rows = net.permute(net.reshape(x, (BATCH, parts, width)), (1, 0, 2))
    matrix = net.reshape(net.operand(weight, x.spec.dtype, 2), (columns, parts, width))
    made = net.add(MatrixMultiply(transpose_y=True), net.permute(matrix, (1, 0, 2)), rows)
    wide = net.cast(net.permute(made, (2, 0, 1)), torch.float32)
    return net.cast(net.add(Reduce("SUM", (1,), keep=True), wide), x.spec.dtype)


def _parts_crossed(net: Lowering, x: Value, weight: Weight, parts: int) -> Value:
    """Row and matrix as they lie, [B parts, K / parts] and [N parts, K / parts]; of all products of parts with parts
    those of the same number count."""
    columns, inner = weight.shape
    rows = net.reshape(x, (multiply(BATCH, parts), inner // parts))
    matrix = net.reshape(net.operand(weight, x.spec.dtype, 2), (columns * parts, inner // parts))
    made = net.reshape(net.add(MatrixMultiply(transpose_y=True), rows, matrix), (BATCH, parts, columns, parts))
    same = net.literal(torch.eye(parts).reshape(1, parts, 1, parts))
    chosen = net.add(ElementWise("PROD"), net.cast(made, torch.float32), same)
    summed = net.cast(net.add(Reduce("SUM", (1, 3), keep=True), chosen), x.spec.dtype)
    return net.reshape(summed, (BATCH, 1, columns))


def attention(
    times: int, heads: int, width: int, dtype: torch.dtype = torch.float16, kv_heads: int | None = None
) -> Case:
    """Attention over the cache, the token's own key and value among it.

    Args:
        kv_heads: number of KV heads, each shared by a group of query heads; None for as many as there are heads.
    """
    groups = heads if kv_heads is None else kv_heads

    def draw(batch: int, device: torch.device) -> dict[str, Tensor]:
        drawn = {"query": torch.randn(batch, heads, 1, width, device=device) * width**-0.5}
        drawn |= {name: torch.randn(batch, groups, CAPACITY, width, device=device) for name in ("key", "value")}
        return {name: tensor.to(dtype) for name, tensor in drawn.items()}

    def form(write: Callable[..., Value], lies: str = "columns", **settings: Any) -> Form:
        """Values lie as [B, H D, C, 1] or, in rows, as keys do."""
        net = Lowering(Network("form"), NONE, NONE)
        cache = Spec((BATCH, groups, CAPACITY, width), dtype)
        query = net.input("query", Spec((BATCH, heads, 1, width), dtype))
        of_values = cache if lies == "rows" else Spec((BATCH, groups * width, CAPACITY, 1), dtype)
        keys, values = net.input("key", cache), net.input("value", of_values)
        slots = net.input("cache_slots", Spec((symbol(KV_LENGTH),), torch.int32))
        index = net.input("write_indices", Spec((BATCH,), torch.int32))
        at, of = net.reshape(index, (BATCH, 1, 1, 1, 1)), net.reshape(slots, (1, 1, 1, symbol(KV_LENGTH), 1))
        made = write(net, query, keys, values, sees(net, at, of, 0), **settings)

        def given(drawn: Tensors) -> dict[str, Tensor]:
            value, device = drawn["value"], drawn["query"].device
            return {
                "query": drawn["query"],
                "key": drawn["key"],
                "value": value if lies == "rows" else value.mT.reshape(len(value), groups * width, CAPACITY, 1),
                "cache_slots": torch.arange(SLOTS, dtype=torch.int32, device=device),
                "write_indices": torch.full((len(value),), CACHED, dtype=torch.int32, device=device),
            }

        return Form(*finished(net, made), given, lambda made, drawn: made)

    def sums(net: Lowering, query: Value, keys: Value, values: Value, seen: Value) -> Value:
        return attention_in_sums(net, query, keys, values, seen, 1.0, 0.0)

    forms = {"sums": form(sums), "one layer": form(_one_layer, "rows"), "products": form(_products, "rows", copies=1)}
    if groups == heads:
        forms["products, 8 copies of the query"] = form(_products, "rows", copies=8)

    def by_torch(drawn: Tensors) -> Tensor:
        keys, values = (drawn[name][:, :, : CACHED + 1] for name in ("key", "value"))
        return F.scaled_dot_product_attention(drawn["query"], keys, values, scale=1.0, enable_gqa=groups != heads)

    flops = 4.0 * heads * width * (CACHED + 1)
    cold, sizes = ("key", "value"), {KV_LENGTH: SLOTS}
    return Case("decode", "attention", times, "sums", 1, flops, forms, draw, by_torch, cold, sizes)


def _live(net: Lowering, cache: Value) -> Value:
    batch, heads, _, width = cache.spec.shape
    return net.box(cache, (0, 0, 0, 0), (batch, heads, symbol(KV_LENGTH), width), (1, 1, 1, 1))


def _one_layer(net: Lowering, query: Value, keys: Value, values: Value, seen: Value) -> Value:
    mask = net.reshape(seen, (BATCH, 1, 1, symbol(KV_LENGTH)))
    return fused_attention(net, query, _live(net, keys), _live(net, values), 1.0, False, mask)


def _products(net: Lowering, query: Value, keys: Value, values: Value, seen: Value, copies: int) -> Value:
    """Scores and values as products: of the rows of a group of query heads with their KV head, or of copies of one."""
    (_, heads, _, width), groups = query.spec.shape, keys.spec.shape[1]
    assert isinstance(heads, int)
    assert isinstance(groups, int)
    grouped = net.reshape(query, (BATCH, groups, heads // groups, width))
    rows = net.add(Concatenation(2), *[grouped] * copies) if copies > 1 else grouped
    mask = net.reshape(seen, (BATCH, 1, 1, symbol(KV_LENGTH)))
    made = in_products(net, rows, _live(net, keys), _live(net, values), mask)
    return net.reshape(net.slice(made, 2, 0, heads // groups), (BATCH, heads, 1, width))
