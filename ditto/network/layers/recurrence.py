"""Recurrences over the tokens of a sequence.

B batch, S tokens, H heads, K rows and V columns of a state.
"""

from __future__ import annotations

from typing import Any

import torch
from attrs import frozen
from torch import Tensor
from typing_extensions import override

from ditto.errors import ShapeError
from ditto.network.layer import Emitter, Layer
from ditto.network.spec import Spec, broadcast


@frozen
class LinearRecurrence(Layer):
    """State of each head after each token, read by the token's query.

    For each token, with the state s [B, H, K, V] after the token before it:

        s = s * factor
        u = value, or (value - sum over K of s * key) * rate
        s = s + key * u
        output = sum over K of s * query

    Inputs, float32: state [B, H, K, V]; factor, key and query [B, S, H or 1, K or 1, 1]; value [B, S, H, 1, V];
    optionally rate [B, S, H, 1, 1]. Outputs: [B, S, H, 1, V], and the state after the last token.

    Source: Yang et al., Gated Delta Networks (arXiv:2412.06464). TensorRT: ILoop over tokens.
    """

    @override
    def infer(
        self, state: Spec, factor: Spec, key: Spec, query: Spec, value: Spec, rate: Spec | None = None
    ) -> tuple[Spec, Spec]:
        tokens = [factor, key, query, value, *([] if rate is None else [rate])]
        for each in (state.of_rank(4), *(each.of_rank(5) for each in tokens)):
            if each.dtype != torch.float32:
                raise ShapeError(f"needs float32, got {each}")
        batch, heads, _, columns = state.shape
        if value.shape != (batch, value.shape[1], heads, 1, columns):
            raise ShapeError(f"values {value} do not fit the state {state}")
        for each in tokens:
            if (
                each.shape[:2] != value.shape[:2]
                or broadcast(state.shape, each.shape[:1] + each.shape[2:]) != state.shape
            ):
                raise ShapeError(f"{each} does not fit the state {state} and values {value}")
        return value, state

    @override
    def reference(
        self, state: Tensor, factor: Tensor, key: Tensor, query: Tensor, value: Tensor, rate: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        outputs: list[Tensor] = []
        for token in range(value.shape[1]):
            state = state * factor[:, token]
            update = value[:, token]
            if rate is not None:
                update = (update - (state * key[:, token]).sum(2, keepdim=True)) * rate[:, token]
            state = state + key[:, token] * update
            outputs.append((state * query[:, token]).sum(2, keepdim=True))
        return torch.stack(outputs, dim=1), state

    @override
    def emit(
        self, to: Emitter, state: Any, factor: Any, key: Any, query: Any, value: Any, rate: Any = None
    ) -> tuple[Any, Any]:
        op = to.trt.ElementWiseOperation

        def combined(kind: Any, a: Any, b: Any) -> Any:
            return to.made(to.net.add_elementwise(a, b, kind)).get_output(0)

        def over_rows(x: Any) -> Any:
            return to.made(to.net.add_reduce(x, to.trt.ReduceOperation.SUM, 1 << 2, True)).get_output(0)

        sizes = to.made(to.net.add_shape(value)).get_output(0)
        count = to.made(to.net.add_slice(sizes, (1,), (1,), (1,))).get_output(0)
        scalar = to.made(to.net.add_shuffle(to.made(to.net.add_cast(count, to.trt.int32)).get_output(0)))
        scalar.reshape_dims = to.trt.Dims([])
        tokens = scalar.get_output(0)

        loop = to.net.add_loop()
        loop.name = to.made(loop.add_trip_limit(tokens, to.trt.TripLimit.COUNT)).name
        before = to.made(loop.add_recurrence(state))
        given = (factor, key, query, value, *([] if rate is None else [rate]))
        of_token = [to.made(loop.add_iterator(tensor, 1, False)).get_output(0) for tensor in given]
        factor_, key_, query_, update = of_token[:4]
        decayed = combined(op.PROD, before.get_output(0), factor_)
        if rate is not None:
            known = over_rows(combined(op.PROD, decayed, key_))
            update = combined(op.PROD, combined(op.SUB, update, known), of_token[4])
        after = combined(op.SUM, decayed, combined(op.PROD, key_, update))
        before.set_input(1, after)
        output = over_rows(combined(op.PROD, after, query_))
        outputs = to.made(loop.add_loop_output(output, to.trt.LoopOutput.CONCATENATE, 1))
        outputs.set_input(1, tokens)
        last = to.made(loop.add_loop_output(before.get_output(0), to.trt.LoopOutput.LAST_VALUE, 0))
        return outputs.get_output(0), last.get_output(0)
