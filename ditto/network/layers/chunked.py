"""A recurrence over the tokens of a sequence, computed in chunks of tokens.

B batch, H heads, S tokens, N chunks, C tokens of a chunk, K rows and V columns of a state.
"""

from __future__ import annotations

from typing import Any

import torch
from attrs import frozen
from torch import Tensor
from typing_extensions import override

from ditto.errors import ShapeError
from ditto.network.layer import Emitter, Layer
from ditto.network.layers.recurrence import LinearRecurrence
from ditto.network.spec import Spec, broadcast


@frozen
class ChunkedRecurrence(Layer):
    """`LinearRecurrence` with the same factor for all rows of a head's state, tokens in the place of heads.

    Inputs, float32: state [B, H, K, V]; decay [B, H, S, 1], the logarithm of the factor, at most 0; key and query
    [B, H or 1, S, K]; value [B, H, S, V]; optionally rate [B, H, S, 1]. Outputs: [B, H, S, V], and the state after the
    last token.

    Args:
        chunk: tokens of a chunk, a power of two.

    Source: Yang et al., Parallelizing Linear Transformers with the Delta Rule (arXiv:2406.06484). TensorRT: matrix
    multiplications within chunks, and ILoop over chunks.
    """

    chunk: int

    @override
    def infer(
        self, state: Spec, decay: Spec, key: Spec, query: Spec, value: Spec, rate: Spec | None = None
    ) -> tuple[Spec, Spec]:
        if self.chunk < 1 or self.chunk & (self.chunk - 1):
            raise ShapeError(f"{self.chunk} tokens of a chunk are not a power of two")
        tokens = [decay, key, query, value, *([] if rate is None else [rate])]
        for each in (state, *tokens):
            if each.of_rank(4).dtype != torch.float32:
                raise ShapeError(f"needs float32, got {each}")
        batch, heads, rows, columns = state.shape
        length = value.shape[2]
        if value.shape != (batch, heads, length, columns):
            raise ShapeError(f"values {value} do not fit the state {state}")
        for each, width in zip(tokens, (1, rows, rows, columns, 1)):
            fits = each.shape[2:] == (length, width) and each.shape[0] == batch
            if not fits or broadcast(each.shape[:2], (batch, heads)) != (batch, heads):
                raise ShapeError(f"{each} does not fit the state {state} and values {value}")
        return value, state

    @override
    def reference(
        self, state: Tensor, decay: Tensor, key: Tensor, query: Tensor, value: Tensor, rate: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        factor, keys, queries = (x.transpose(1, 2).unsqueeze(-1) for x in (decay.exp(), key, query))
        more = [] if rate is None else [rate.transpose(1, 2).unsqueeze(-1)]
        values = value.transpose(1, 2).unsqueeze(3)
        results, last = LinearRecurrence().reference(state, factor, keys, queries, values, *more)
        return results.squeeze(3).transpose(1, 2), last

    @override
    def emit(
        self, to: Emitter, state: Any, decay: Any, key: Any, query: Any, value: Any, rate: Any = None
    ) -> tuple[Any, Any]:
        on = _Chunks(to, self.chunk, value)
        decay, key, query, update = (on.split(x) for x in (decay, key, query, value))
        lower = to.values(torch.ones(self.chunk, self.chunk).tril()[None, None, None])
        # Of tokens i and j of a chunk: the decay from j to i, with zeros where j comes after i.
        total = on.sum(on.times(lower, on.transposed(decay)), 4)
        between = on.minus(total, on.transposed(total))
        between = on.times(on.exp(on.least(between, to.values(torch.zeros(1, 1, 1, 1, 1)))), lower)
        seen = on.times(on.product(query, key, transposed=True), between)
        end = on.sum(decay, 3)  # of the whole chunk
        kept = on.times(key, on.exp(on.minus(end, total)))
        known = None
        if rate is not None:
            rate = on.split(rate)
            inverse = self._inverse(on, on.times(on.times(on.product(key, key, transposed=True), between), rate))
            known = on.product(inverse, on.times(on.times(key, on.exp(total)), rate))
            update = on.product(inverse, on.times(update, rate))
        return on.scan(state, on.exp(end), on.times(query, on.exp(total)), seen, kept, update, known)

    def _inverse(self, on: _Chunks, products: Any) -> Any:
        """The inverse of 1 + the part of `products` below the diagonal: [..., C, C].

        Of blocks along the diagonal, by doubling their size: that of ((A, 0), (B, D)) is ((a, 0), (-d B a, d)), where a
        and d are those of A and D.
        """
        places, size = torch.arange(self.chunk), 1
        result: Any = on.to.values(torch.eye(self.chunk)[None, None, None])
        while size < self.chunk:
            block = places // size
            is_beside = (block[:, None] // 2 == block[None] // 2) & (block[:, None] > block[None])
            beside = on.times(products, on.to.values(is_beside.float()[None, None, None]))
            corner = beside if size == 1 else on.product(on.product(result, beside), result)
            result = on.minus(result, corner)
            size *= 2
        return result


class _Chunks:
    """TensorRT's layers on tensors [B, H, N, C, ...]."""

    def __init__(self, to: Emitter, chunk: int, value: Any) -> None:
        self.to, self._chunk = to, chunk
        self._length = self._size(value, 2, 1)
        filled = self._combined("SUM", self._length, self._number(chunk - 1))
        self._count = self._combined("FLOOR_DIV", filled, self._number(chunk))
        self._padded = self._combined("PROD", self._count, self._number(chunk))

    def split(self, x: Any) -> Any:
        """[B, H, S, D] with zeros behind it, as [B, H, N, C, D]."""
        net, to = self.to.net, self.to
        rows, columns = self._size(x, 0, 2), self._size(x, 3, 1)
        filled = to.made(net.add_slice(x, (0,) * 4, (1,) * 4, (1,) * 4))
        filled.set_input(2, self._joined(rows, self._padded, columns))
        filled.mode = to.trt.SampleMode.FILL
        parts = to.made(net.add_shuffle(filled.get_output(0)))
        parts.set_input(1, self._joined(rows, self._count, self._number(self._chunk), columns))
        return parts.get_output(0)

    def times(self, x: Any, y: Any) -> Any:
        return self._combined("PROD", x, y)

    def plus(self, x: Any, y: Any) -> Any:
        return self._combined("SUM", x, y)

    def minus(self, x: Any, y: Any) -> Any:
        return self._combined("SUB", x, y)

    def least(self, x: Any, y: Any) -> Any:
        return self._combined("MIN", x, y)

    def exp(self, x: Any) -> Any:
        return self.to.made(self.to.net.add_unary(x, self.to.trt.UnaryOperation.EXP)).get_output(0)

    def sum(self, x: Any, axis: int) -> Any:
        """Sum along an axis, which is kept. A matrix multiplication would round its operands to TF32."""
        return self.to.made(self.to.net.add_reduce(x, self.to.trt.ReduceOperation.SUM, 1 << axis, True)).get_output(0)

    def transposed(self, x: Any) -> Any:
        layer = self.to.made(self.to.net.add_shuffle(x))
        layer.first_transpose = (0, 1, 2, 4, 3)
        return layer.get_output(0)

    def product(self, x: Any, y: Any, *, transposed: bool = False, first: bool = False) -> Any:
        """Matrix product, of transposed operands if stated."""
        op = self.to.trt.MatrixOperation
        kinds = [op.TRANSPOSE if turned else op.NONE for turned in (first, transposed)]
        return self.to.made(self.to.net.add_matrix_multiply(x, kinds[0], y, kinds[1])).get_output(0)

    def scan(self, state: Any, end: Any, query: Any, seen: Any, kept: Any, update: Any, known: Any) -> tuple[Any, Any]:
        """Results [B, H, S, V] and the state after all chunks.

        Args:
            end: [B, H, N, 1, 1], what remains of a state after a chunk.
            query: [B, H, N, C, K], queries of the state before a chunk.
            seen: [B, H, N, C, C], weights of the updates of a chunk in its results.
            kept: [B, H, N, C, K], weights of the updates in the state after a chunk.
            update: [B, H, N, C, V].
            known: [B, H, N, C, K], what to subtract from updates of the state before a chunk; None for nothing.
        """
        to, net = self.to, self.to.net
        scalar = to.made(net.add_shuffle(to.made(net.add_cast(self._count, to.trt.int32)).get_output(0)))
        scalar.reshape_dims = to.trt.Dims([])
        count = scalar.get_output(0)
        loop = net.add_loop()
        loop.name = to.made(loop.add_trip_limit(count, to.trt.TripLimit.COUNT)).name
        before = to.made(loop.add_recurrence(state))
        given = (end, query, seen, kept, update, *([] if known is None else [known]))
        of_chunk = [to.made(loop.add_iterator(x, 2, False)).get_output(0) for x in given]
        end, query, seen, kept, update = of_chunk[:5]
        start = before.get_output(0)
        if known is not None:
            update = self.minus(update, self.product(of_chunk[5], start))
        result = self.plus(self.product(query, start), self.product(seen, update))
        before.set_input(1, self.plus(self.times(start, end), self.product(kept, update, first=True)))
        results = to.made(loop.add_loop_output(result, to.trt.LoopOutput.CONCATENATE, 2))
        results.set_input(1, count)
        last = to.made(loop.add_loop_output(start, to.trt.LoopOutput.LAST_VALUE, 0)).get_output(0)
        rows, columns = self._size(state, 0, 2), self._size(state, 3, 1)
        flat = to.made(net.add_shuffle(results.get_output(0)))
        flat.set_input(1, self._joined(rows, self._padded, columns))
        tokens = to.made(net.add_slice(flat.get_output(0), (0,) * 4, (1,) * 4, (1,) * 4))
        tokens.set_input(2, self._joined(rows, self._length, columns))
        return tokens.get_output(0), last

    def _combined(self, kind: str, x: Any, y: Any) -> Any:
        op = getattr(self.to.trt.ElementWiseOperation, kind)
        return self.to.made(self.to.net.add_elementwise(x, y, op)).get_output(0)

    def _size(self, x: Any, first: int, count: int) -> Any:
        """Sizes of some axes, int64 [count]."""
        sizes = self.to.made(self.to.net.add_shape(x)).get_output(0)
        return self.to.made(self.to.net.add_slice(sizes, (first,), (count,), (1,))).get_output(0)

    def _number(self, number: int) -> Any:
        return self.to.number(number, torch.int64, (1,))

    def _joined(self, *parts: Any) -> Any:
        layer = self.to.made(self.to.net.add_concatenation(parts))
        layer.axis = 0
        return layer.get_output(0)
