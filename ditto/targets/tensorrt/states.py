"""States of a decoder other than keys and values, and the operators that keep them.

B batch, S new tokens of a row, C channels, K taps of a kernel, G groups, R rows and D columns of a state.

A state has two slots, which take turns: after n tokens of a row, its state is in slot n % 2. A call reads one slot and
writes the other in place. So no layer reads what another one overwrites, and calls can be repeated: the session gives
rows without a next token a filler, over and over.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from attrs import define, field

from ditto.lowering import Lowering, Operand
from ditto.network import symbol
from ditto.network.graph import Value
from ditto.network.layers import (
    ChunkedRecurrence,
    Concatenation,
    ElementWise,
    Fill,
    Gather,
    KVCacheUpdate,
    LinearRecurrence,
    Reduce,
    Select,
    Unary,
)
from ditto.network.spec import Spec
from ditto.network.weight import Weight, fold

BATCH = symbol("batch")
_CHUNK = 64  # tokens of a chunk, as in the published kernels and in transformers


@define
class States:
    """States of a decoder: each is an input `past_x` [B, G, 2 R, D], updated in place as `present_x`.

    Args:
        net: the lowering in progress.
        written: int32 [B], tokens of each row before this call.
        last: int32 [B], index of each row's last new token; None if each row has one new token.
        continues: whether rows may have tokens before this call.
        begins: whether rows may have none.
    """

    net: Lowering
    written: Value
    last: Value | None
    continues: bool
    begins: bool
    _pasts: dict[str, Value] = field(factory=dict)
    _numbers: dict[object, Value] = field(factory=dict)

    def read(self, name: str, shape: tuple[int, int, int], dtype: torch.dtype) -> Value:
        """The state of each row before this call: [B, G, R, D]; zeros where a row has no tokens.

        Args:
            shape: G, R and D.
        """
        net, (groups, rows, width) = self.net, shape
        past = net.input(f"past_{name}", Spec((BATCH, groups, 2 * rows, width), dtype))
        self._pasts[name] = past
        if not self.continues:
            return net.box(net.operand(0, dtype, 4), (0, 0, 0, 0), (BATCH, *shape), (0, 0, 0, 0))
        even, odd = (net.slice(past, 2, start, rows) for start in (0, rows))
        state = net.add(Select(), self._is_odd, odd, even)
        return net.add(Select(), self._is_first, net.operand(0, dtype, 4), state) if self.begins else state

    def write(self, name: str, state: Value) -> None:
        """Keep the state [B, G, R, D] of each row after this call."""
        rows = int(state.spec.shape[2])  # type: ignore[arg-type]
        if ("slot", rows) not in self._numbers:
            odd = self._parity(self._sum(self.written, self.lengths))
            self._numbers["slot", rows] = self.net.add(ElementWise("PROD"), odd, self._number(rows))
        updated = self.net.add(KVCacheUpdate(), self._pasts[name], state, self._numbers["slot", rows])
        self.net.network.output(f"present_{name}", updated, shares=f"past_{name}")

    @property
    def lengths(self) -> Value:
        """New tokens of each row: int32 [B], or [1] if all have the same number."""
        if "lengths" not in self._numbers:
            one = self._number(1)
            self._numbers["lengths"] = one if self.last is None else self._sum(self.last, one)
        return self._numbers["lengths"]

    @property
    def _is_odd(self) -> Value:
        """Whether a row's state is in the second slot: bool [B, 1, 1, 1]."""
        if "is odd" not in self._numbers:
            odd = self.net.add(ElementWise("EQUAL"), self._parity(self.written), self._number(1))
            self._numbers["is odd"] = self.net.reshape(odd, (BATCH, 1, 1, 1))
        return self._numbers["is odd"]

    @property
    def _is_first(self) -> Value:
        """Whether a row has no tokens before this call: bool [B, 1, 1, 1]."""
        if "is first" not in self._numbers:
            first = self.net.add(ElementWise("EQUAL"), self.written, self._number(0))
            self._numbers["is first"] = self.net.reshape(first, (BATCH, 1, 1, 1))
        return self._numbers["is first"]

    def _parity(self, counts: Value) -> Value:
        """Counts int32 [B] modulo 2."""
        two = self._number(2)
        even = self.net.add(ElementWise("PROD"), self.net.add(ElementWise("FLOOR_DIV"), counts, two), two)
        return self.net.add(ElementWise("SUB"), counts, even)

    def _sum(self, a: Value, b: Value) -> Value:
        return self.net.add(ElementWise("SUM"), a, b)

    def _number(self, number: int) -> Value:
        return self.net.operand(number, torch.int32, 1)

    def causal_conv(self, net: Lowering, x: Operand, weight: Operand, bias: Operand | None, number: int) -> Value:
        """ditto::causal_conv(Tensor x, Tensor weight, Tensor? bias, int number) -> Tensor

        Sums of products of each tap with shifted tokens, in float32.
        """
        value, kernel = net.value(x), _taps(net, weight)
        dtype, (_, channels, tokens), taps = value.spec.dtype, value.spec.shape, int(kernel.spec.shape[0])  # type: ignore[arg-type]
        name, kept = f"conv_{number}", (BATCH, taps - 1, channels)
        before = net.reshape(self.read(name, (1, taps - 1, int(channels)), dtype), kept)  # type: ignore[arg-type]
        window = net.add(Concatenation(1), before, net.permute(value, (0, 2, 1)))  # [B, K - 1 + S, C]
        self.write(name, net.reshape(self._ends(window, taps - 1), (BATCH, 1, *kept[1:])))
        wide = net.cast(window, torch.float32)
        total = None if bias is None else net.operand(bias, torch.float32, 3)
        for tap in range(taps):
            product = net.add(ElementWise("PROD"), net.slice(wide, 1, tap, tokens), net.slice(kernel, 0, tap, 1))
            total = product if total is None else self._sum(total, product)
        assert total is not None
        return net.permute(net.cast(total, dtype), (0, 2, 1))

    def linear_attention(
        self,
        net: Lowering,
        query: Operand,
        key: Operand,
        value: Operand,
        decay: Operand,
        rate: Operand | None,
        number: int,
    ) -> Value:
        """ditto::linear_attention(Tensor query, Tensor key, Tensor value, Tensor decay, Tensor? rate, int number) ->
        Tensor

        One step without a loop if each row has one new token, else a loop: over chunks of tokens if all rows of a
        head's state decay alike, over tokens if not.
        """
        queries, keys, values, decays = (net.value(each) for each in (query, key, value, decay))
        rates = None if rate is None else net.reshape(net.value(rate), (*values.spec.shape[:3], 1))
        if self.last is not None:  # padding leaves states as they are
            keys, decays = self._unpadded(keys), self._unpadded(decays)
        _, _, heads, columns = values.spec.shape
        name, rows = f"recurrent_{number}", keys.spec.shape[3]
        state = self.read(name, (int(heads), int(rows), int(columns)), torch.float32)  # type: ignore[arg-type]
        if self.last is not None and decays.spec.shape[3] == 1:
            operands = [decays, keys, queries, values, *([] if rates is None else [rates])]
            by_head = [net.permute(each, (0, 2, 1, 3)) for each in operands]
            results, after = net.network.add_many(ChunkedRecurrence(_CHUNK), state, *by_head)
            results = net.permute(results, (0, 2, 1, 3))
        else:
            factors, keys, queries = (
                net.reshape(each, (*each.spec.shape, 1)) for each in (net.add(Unary("EXP"), decays), keys, queries)
            )
            more = [] if rates is None else [net.reshape(rates, (*rates.spec.shape, 1))]
            in_rows = net.reshape(values, (*values.spec.shape[:3], 1, columns))
            operands = [factors, keys, queries, in_rows, *more]
            if self.last is None:
                results, after = self._step(state, operands)
            else:
                results, after = net.network.add_many(LinearRecurrence(), state, *operands)
            results = net.reshape(results, values.spec.shape)
        self.write(name, after)
        return results

    def _step(self, state: Value, operands: Sequence[Value]) -> tuple[Value, Value]:
        """A `LinearRecurrence` of one token: its result [B, H, 1, V], and the state."""
        net = self.net
        of_token = [net.reshape(x, (x.spec.shape[0], *x.spec.shape[2:])) for x in operands]
        factor, key, query, update, *rate = of_token

        def read_by(x: Value, state: Value) -> Value:
            return net.add(Reduce("SUM", (2,), keep=True), net.add(ElementWise("PROD"), state, x))

        state = net.add(ElementWise("PROD"), state, factor)
        if rate:
            update = net.add(ElementWise("SUB"), update, read_by(key, state))
            update = net.add(ElementWise("PROD"), update, rate[0])
        after = self._sum(state, net.add(ElementWise("PROD"), key, update))
        return read_by(query, after), after

    def _unpadded(self, x: Value) -> Value:
        """Zeros in place of padding: [B, S, ., .]."""
        net, tokens = self.net, x.spec.shape[1]
        assert self.last is not None
        if "padding" not in self._numbers:
            count = net.add(Fill(tokens, 0, 1, torch.int32), net.sizes((tokens,)))
            last = net.reshape(self.last, (BATCH, 1))
            padding = net.add(ElementWise("GREATER"), net.reshape(count, (1, tokens)), last)
            self._numbers["padding"] = net.reshape(padding, (BATCH, tokens, 1, 1))
        return net.add(Select(), self._numbers["padding"], net.operand(0, x.spec.dtype, 4), x)

    def _ends(self, window: Value, count: int) -> Value:
        """The last tokens of each row, and no padding: [B, count, C] of [B, count + S, C]."""
        net = self.net
        if self.last is None:
            return net.slice(window, 1, 1, count)
        if ("ends", count) not in self._numbers:
            numbers = net.literal(torch.arange(count, dtype=torch.int32)[None])
            self._numbers["ends", count] = self._sum(net.reshape(self.lengths, (BATCH, 1)), numbers)
        return net.add(Gather(axis=1, batch_axes=1), window, self._numbers["ends", count])


def _taps(net: Lowering, weight: Any) -> Value:
    """A kernel [C, 1, K] as [K, 1, C], in float32."""
    if isinstance(weight, Weight):
        return net.constant(fold("permute", fold("cast", weight, torch.float32), (2, 1, 0)))
    return net.permute(net.cast(net.value(weight), torch.float32), (2, 1, 0))
