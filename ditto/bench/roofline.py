"""Roofline: the memory traffic and operations that each task needs, counted from the networks of a tree."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from attrs import frozen

from ditto.bench.plan import ANSWER, DECODE, PREFILL, VISION, Task
from ditto.engine import EngineTree
from ditto.network import Network, Spec
from ditto.network.dims import DimExpr, evaluate
from ditto.network.layers import Attention, Constant, Convolution, Gather, MatrixMultiply, Shuffle
from ditto.network.weight import Stored, leaves
from ditto.runtime.weights import network_of
from ditto.verify.inputs import rows_per_image, sample_items, shapes_of


@frozen
class Cost:
    """Bytes read from memory at least once, and floating-point operations (two per multiply-add)."""

    bytes: float = 0.0
    flops: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.bytes + other.bytes, self.flops + other.flops)

    def times(self, count: float) -> Cost:
        """The cost of `count` repetitions."""
        return Cost(self.bytes * count, self.flops * count)


@frozen
class DecoderCost:
    """The sizes that determine the cost of a decoder.

    Args:
        weights: parameters of the matrices that every token is multiplied with.
        last: parameters of those that only last tokens are multiplied with: the output embedding, and the layers
            between it and the last attention.
        layers, width, kv_width: number of layers with attention; total size of the query heads, and of the key heads.
        item_bytes: bytes per value.
        states: bytes of a row's states other than keys and values, which a step reads and writes.
    """

    weights: int
    last: int
    layers: int
    width: int
    kv_width: int
    item_bytes: int
    states: int = 0

    @staticmethod
    def of(tree: EngineTree) -> DecoderCost:
        """The decoder of a tree."""
        sizes = tree.decoder
        network = network_of(tree, "llm")
        tokens = str(network.inputs["input_ids"].shape[-1])
        passed = {True: 0, False: 0}
        for size, made in _matrices(network):
            passed[isinstance(made.numel, DimExpr) and tokens in made.numel.names] += size
        component = tree.component("llm")
        pasts = component.shared.values()
        others = [
            Spec.parse(component.inputs[name]) for name in pasts if not name.startswith(("past_key", "past_value"))
        ]
        attends = sum(name.startswith("past_key") for name in pasts)
        return DecoderCost(
            weights=passed[True],
            last=passed[False],
            layers=attends if pasts else sizes.num_hidden_layers,  # TensorRT-LLM keeps the cache of a `trtllm` engine
            width=sizes.num_attention_heads * sizes.head_size,
            kv_width=sizes.num_key_value_heads * sizes.head_size,
            item_bytes=4 if component.spec.dtype == "float32" else 2,
            # Of its two slots, a step reads one and writes the other.
            states=sum(evaluate(spec.numel, {"batch": 1}) * spec.dtype.itemsize for spec in others),
        )

    def prefill(self, batch: int, tokens: int) -> Cost:
        """One prompt per row: weights read once, causal attention over half of the square."""
        products = 2.0 * batch * (tokens * self.weights + self.last)
        attention = 2.0 * batch * self.layers * self.width * tokens * tokens
        cache = 2 * batch * tokens * self.layers * self.kv_width
        return Cost(
            (self.weights + self.last + cache) * self.item_bytes + batch * self.states / 2, products + attention
        )

    def decode(self, batch: int, context: float) -> Cost:
        """One token per row: weights read once, the cache of each row read once."""
        products = 2.0 * batch * (self.weights + self.last)
        attention = 4.0 * batch * self.layers * self.width * context
        cache = 2 * batch * context * self.layers * self.kv_width
        return Cost((self.weights + self.last + cache) * self.item_bytes + batch * self.states, products + attention)


class Roofline:
    """The costs of the tasks of a tree."""

    def __init__(self, tree: EngineTree) -> None:
        self._llm = DecoderCost.of(tree)
        self._tree = tree
        self._vision = network_of(tree, "vision") if rows_per_image(tree) else None

    def of(self, task: Task) -> Cost:
        """The least cost of `task`; for decode, of a step in the middle."""
        middle = task.context + task.new_tokens / 2
        if task.kind == VISION:
            return self._vision_cost(task.batch)
        if task.kind == PREFILL:
            return self._llm.prefill(task.batch, task.context)
        if task.kind == DECODE:
            return self._llm.decode(task.batch, middle)
        assert task.kind == ANSWER
        steps = self._llm.decode(task.batch, middle).times(task.new_tokens - 1)
        return self._vision_cost(task.batch) + self._llm.prefill(task.batch, task.context) + steps

    def _vision_cost(self, images: int) -> Cost:
        """The calls of the vision engine for sample images."""
        assert self._vision is not None
        shapes = shapes_of(self._tree)
        calls = shapes.batches(sample_items(self._tree, images), self._tree.max_images)
        return sum((vision_cost(self._vision, shapes.sizes(inputs)) for inputs in calls), Cost())


def vision_cost(network: Network, sizes: Mapping[str, int]) -> Cost:
    """Weights read once; matrix multiplications, convolutions and attention of a network without a cache.

    Args:
        sizes: of the dynamic dimensions of its inputs.
    """

    def shape(name: str) -> list[int]:
        return [evaluate(dim, sizes) for dim in network.value(name).spec.shape]

    moved, flops = 0, 0
    for node in network.nodes:
        if isinstance(node.layer, Constant):
            moved += math.prod(node.layer.weight.shape) * node.layer.weight.dtype.itemsize
        elif isinstance(node.layer, MatrixMultiply):
            inner = shape(node.inputs[0])[-2 if node.layer.transpose_x else -1]
            flops += 2 * math.prod(shape(node.outputs[0])) * inner
        elif isinstance(node.layer, Convolution):
            flops += 2 * math.prod(shape(node.outputs[0])) * math.prod(shape(node.inputs[1])[1:])
        elif isinstance(node.layer, Attention):
            flops += 4 * math.prod(shape(node.inputs[0])) * shape(node.inputs[1])[2]
    return Cost(float(moved), float(flops))


def _matrices(network: Network) -> Iterator[tuple[int, Spec]]:
    """For each checkpoint matrix that is an operand of a matrix multiplication: its number of parameters, and the type
    of the product. Tables that rows are gathered from do not count."""
    looked_up = {node.inputs[0] for node in network.nodes if isinstance(node.layer, Gather)}
    matrix_of: dict[str, str] = {}  # reshaped matrices, by value
    sizes: dict[str, int] = {}
    for node in network.nodes:
        (made, *_) = node.outputs
        if isinstance(node.layer, Constant) and made not in looked_up:
            weight = node.layer.weight
            stored = any(isinstance(leaf, Stored) for leaf in leaves(weight))
            if stored and sum(size > 1 for size in weight.shape) >= 2:
                matrix_of[made], sizes[made] = made, math.prod(weight.shape)
        elif isinstance(node.layer, Shuffle) and node.inputs[0] in matrix_of:
            matrix_of[made] = matrix_of[node.inputs[0]]
        else:
            for name in node.inputs:
                matrix = matrix_of.get(name)
                if matrix in sizes:
                    yield sizes.pop(matrix), network.value(made).spec
