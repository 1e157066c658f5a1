"""Loops: what their layers compute in each iteration, and what comes out of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from graphlib import TopologicalSorter
from typing import Any

import tensorrt_rtx as trt
import torch
from torch import Tensor

from tests.support.witness.reading import WitnessError

_KIND = trt.LayerType
_BOUNDARY = {
    _KIND.ITERATOR: trt.IIteratorLayer,
    _KIND.LOOP_OUTPUT: trt.ILoopOutputLayer,
    _KIND.RECURRENCE: trt.IRecurrenceLayer,
    _KIND.TRIP_LIMIT: trt.ITripLimitLayer,
}


class Loop:
    """A loop of a definition.

    Args:
        layers: all layers of the definition, by place.
        boundary: places of the loop's iterators, recurrences, limits and outputs.
        needs: the places that each place depends on.
    """

    def __init__(self, layers: Sequence[Any], boundary: Sequence[int], needs: Mapping[int, set[int]]) -> None:
        kinds = {place: trt.ILayer.type.fget(layers[place]) for place in boundary}
        for place in boundary:
            layers[place].__class__ = _BOUNDARY[kinds[place]]

        def of(kind: Any) -> list[int]:
            return [place for place in boundary if kinds[place] == kind]

        (limit,) = of(_KIND.TRIP_LIMIT)
        starts, ends = {*of(_KIND.ITERATOR), *of(_KIND.RECURRENCE)}, {*of(_KIND.LOOP_OUTPUT), limit}
        inside: set[int] = set()
        while True:
            more = {place for place, used in needs.items() if place not in starts | ends and used & (starts | inside)}
            more = {place for place in more if not (needs[place] & (ends - {limit}))}
            if more <= inside:
                break
            inside |= more
        order = TopologicalSorter({place: needs[place] & inside for place in inside}).static_order()
        self.places = starts | ends | inside
        self._body = [layers[place] for place in order]
        self._limit = layers[limit]
        self._iterators, self._recurrences, self._outputs = (
            [layers[place] for place in of(kind)] for kind in (_KIND.ITERATOR, _KIND.RECURRENCE, _KIND.LOOP_OUTPUT)
        )

    def run(self, values: dict[str, Tensor], compute: Callable[[Any, dict[str, Tensor]], None]) -> None:
        """Compute the outputs of the loop."""
        if self._limit.kind != trt.TripLimit.COUNT or not self._body:
            raise WitnessError("a loop without a count, or without a body")
        count = values[self._limit.get_input(0).name]
        if count.dim() != 0:
            raise WitnessError(f"the trip count has the shape {list(count.shape)}")
        state = [values[layer.get_input(0).name] for layer in self._recurrences]
        of_iterations: list[list[Tensor]] = [[] for _ in self._outputs]
        for trip in range(int(count)):
            local = dict(values)
            for layer, tensor in zip(self._recurrences, state, strict=True):
                local[layer.get_output(0).name] = tensor
            for layer in self._iterators:
                if layer.reverse:
                    raise WitnessError("a reverse iterator")
                local[layer.get_output(0).name] = values[layer.get_input(0).name].select(layer.axis, trip)
            for layer in self._body:
                compute(layer, local)
            for found, layer in zip(of_iterations, self._outputs, strict=True):
                found.append(local[layer.get_input(0).name])
            state = [local[layer.get_input(1).name] for layer in self._recurrences]
        for found, layer in zip(of_iterations, self._outputs, strict=True):
            values[layer.get_output(0).name] = self._output(layer, found, values, state)

    def _output(self, layer: Any, found: list[Tensor], values: Mapping[str, Tensor], state: Sequence[Tensor]) -> Tensor:
        if layer.kind == trt.LoopOutput.CONCATENATE:
            length = values[layer.get_input(1).name]
            if length.dim() != 0 or int(length) != len(found):
                raise WitnessError(f"{len(found)} results of a loop, its output has {length}")
            return torch.stack(found, layer.axis)
        if layer.kind != trt.LoopOutput.LAST_VALUE:
            raise WitnessError(f"a loop output of kind {layer.kind}")
        recurrences = [each.get_output(0).name for each in self._recurrences]
        return state[recurrences.index(layer.get_input(0).name)]  # of a recurrence: its value after the loop


def loops_of(layers: Sequence[Any], needs: Mapping[int, set[int]]) -> list[Loop]:
    """The loops of a definition."""
    boundary: dict[str, list[int]] = {}
    for place, layer in enumerate(layers):
        kind = trt.ILayer.type.fget(layer)
        if kind in _BOUNDARY:
            layer.__class__ = _BOUNDARY[kind]
            boundary.setdefault(layer.loop.name, []).append(place)
    return [Loop(layers, places, needs) for places in boundary.values()]
