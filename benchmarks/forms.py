"""Products and attention of prompts and images in every form that TensorRT can be given, and those of LLaVA-1.5-7B's
shape; those of single tokens are in `token_forms`.

M rows, K inner size, N columns. What is turned lies the other way round: an input [K, M], a result [N, M]. Where it is
simple, Ditto's own forms come from Ditto's own functions. Queries come scaled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial, reduce
from typing import Any, Literal

import torch
from attrs import frozen
from torch import Tensor
from torch.nn import functional as F

from ditto.arguments import DynamicDimension
from ditto.engine import Phase, Profile
from ditto.lowering import Lowering
from ditto.lowering.arithmetic import binary
from ditto.lowering.attention import MASKED_SCORE
from ditto.lowering.linear import linear
from ditto.network import Dim, Network, Spec, Value, Weight, resolve, symbol
from ditto.network.layers import Constant, ElementWise, Fill, MatrixMultiply, Reduce, Select, Softmax
from ditto.network.weight import Stored, fold, stored_names
from ditto.passes import SIMPLIFY, run_passes
from ditto.passes.bias_halves import added_in_halves
from ditto.passes.column_blocks import ColumnBlocks, product_in_blocks
from ditto.passes.transpose_chains import back_in_rows, transposed_product
from ditto.targets.tensorrt.attention import fused_attention
from ditto.targets.tensorrt.lowering import sees
from ditto.targets.tensorrt.tuning import H200

Tensors = Mapping[str, Tensor]
BATCH, TOKENS, LENGTH = symbol("batch"), symbol("tokens"), symbol("sequence")
PROMPT = 640
# Columns of a block, at least.
_WIDTHS = (4096, 2048, 1024, 512)
# In the place of a program, of which these networks have none.
NONE: Any = None


@frozen(eq=False)
class Form:
    """One way to write a computation.

    Args:
        network: its matrices are inputs, as large weights are in Ditto's; a bias is `bias` of its source.
        matrices: what these inputs are of the drawn `weight`.
        given: the other inputs, of the drawn tensors.
        seen: the result as PyTorch gives it; what it leaves out comes from the drawn tensors.
    """

    network: Network
    matrices: Mapping[str, Weight]
    given: Callable[[Tensors], dict[str, Tensor]]
    seen: Callable[[Tensor, Tensors], Tensor]

    def inputs(self, drawn: Tensors) -> dict[str, Tensor]:
        """All of the network's."""
        return self.given(drawn) | self.weights(drawn)

    def cold(self, drawn: Tensors) -> dict[str, Tensor]:
        """Those that come from the GPU's memory: matrices, or else what is there for a single run."""
        return self.weights(drawn) or self.given(drawn)

    def weights(self, drawn: Tensors) -> dict[str, Tensor]:
        """Those that are matrices."""
        source, literals = Held(drawn), self.network.literals
        return {name: resolve(weight, source, literals) for name, weight in self.matrices.items()}


@frozen(eq=False)
class Case:
    """A product or attention: how often the network has it, the form that Ditto gives it, rows (of one image or
    prompt), and operations for these; random tensors for a batch on a device, and what PyTorch makes of them; which of
    them a run finds in the GPU's memory alone, and sizes that are the same for all batches."""

    task: str
    name: str
    times: int
    used: str
    rows: int
    flops: float
    forms: Mapping[str, Form]
    draw: Callable[[int, torch.device], dict[str, Tensor]]
    by_torch: Callable[[Tensors], Tensor]
    cold: tuple[str, ...] = ()
    sizes: Mapping[str, int] = {}

    def profile(self, batch: int) -> Profile:
        """The sizes of named dimensions, and no others."""
        sizes = {"batch": batch, "tokens": batch * self.rows, "sequence": self.rows, **self.sizes}
        return Profile(Phase.ENCODE, {name: DynamicDimension(name, size, size, size) for name, size in sizes.items()})


@frozen
class Held:
    """A source of tensors that are there."""

    tensors: Tensors

    def tensor(self, name: str) -> Tensor:
        """The one of that name."""
        return self.tensors[name]

    def release(self) -> None:
        """They stay."""


def cases(config: Any) -> list[Case]:
    """Those of a LLaVA: of the tower's blocks that are used and the projector, and of the blocks of its language model,
    the last with its query/key/value and attention alone: only the last tokens go through its rest."""
    vision, text = config.vision_config, config.text_config
    width, hidden, llm, inner = vision.hidden_size, vision.intermediate_size, text.hidden_size, text.intermediate_size
    patches = (vision.image_size // vision.patch_size) ** 2
    used = vision.num_hidden_layers + 1 + config.vision_feature_layer
    tower = partial(product, "vision", rows=patches + 1, bias=True)
    projector = partial(product, "vision", rows=patches, bias=True)
    prompt, last = partial(product, "prefill", rows=PROMPT), text.num_hidden_layers
    heads, of_text = vision.num_attention_heads, (text.num_attention_heads, llm // text.num_attention_heads)
    made = [
        tower("query/key/value", used, "as it is", 3 * width, width),
        attention("vision", used, "joint", heads, width // heads, rows=patches + 1, causal=False),
        tower("output", used, "as it is", width, width),
        tower("fc1", used, "as it is, bias in halves", hidden, width),
        tower("fc2", used, "as it is", width, hidden),
        projector("linear_1", 1, "as it is, bias in halves", llm, width),
        projector("linear_2", 1, "as it is", llm, llm),
        prompt("query/key/value", last, f"rows{_told(_blocks(3 * llm))}", 3 * llm, llm),
        attention("prefill", last, "heads", *of_text, rows=PROMPT, causal=True),
        prompt("output", last - 1, f"turned and back{_told(_blocks(llm))}", llm, llm),
        prompt("gate/up", last - 1, f"turned{_told(_blocks(2 * inner))}", 2 * inner, llm),
        prompt("down", last - 1, f"input and result turned, and back{_told(_blocks(llm))}", llm, inner),
    ]
    assert all(case.used in case.forms for case in made)
    return made


def product(
    task: str,
    name: str,
    times: int,
    used: str,
    columns: int,
    inner: int,
    *,
    rows: int,
    bias: bool = False,
    dtype: torch.dtype = torch.float16,
) -> Case:
    """A linear layer of so many columns and such an inner size."""
    weight, numbers = Stored("weight", (columns, inner), dtype), Stored("bias", (columns,), dtype)

    def draw(batch: int, device: torch.device) -> dict[str, Tensor]:
        shapes = {"x": (batch * rows, inner), "weight": (columns, inner), **({"bias": (columns,)} if bias else {})}
        drawn = {name: torch.randn(shape, device=device) for name, shape in shapes.items()}
        drawn["weight"] *= inner**-0.5
        return {name: tensor.to(dtype) for name, tensor in drawn.items()}

    # How the input lies.
    as_it_is = (BATCH, rows, inner), lambda drawn: {"x": drawn["x"].reshape(-1, rows, inner)}
    as_rows = (1, TOKENS, inner), lambda drawn: {"x": drawn["x"][None]}
    turned = (1, inner, TOKENS), lambda drawn: {"x": drawn["x"].T[None].contiguous()}

    def form(
        lies: tuple[tuple[Dim, ...], Callable[[Tensors], dict[str, Tensor]]],
        write: Callable[..., Value],
        result: Literal["rows", "turned"] = "rows",
        with_bias: Literal["added", "written", "left out"] = "added",
        **settings: Any,
    ) -> Form:
        net = Lowering(Network("form"), NONE, NONE)
        made = write(net, net.input("x", Spec(lies[0], dtype)), weight, **settings)
        if bias and with_bias == "added":
            shape = (1, -1, 1) if result == "turned" else (1, 1, -1)
            made = binary(net, "SUM", made, fold("reshape", numbers, shape), dtype)

        def seen(made: Tensor, drawn: Tensors) -> Tensor:
            flat = made[0].T if result == "turned" else made.reshape(-1, columns)
            return flat + drawn["bias"] if bias and with_bias == "left out" else flat

        return Form(*finished(net, made), lies[1], seen)

    forms = {"as it is": form(as_it_is, linear)}
    for blocks in dict.fromkeys((1, *(blocks_of(columns, width) for width in _WIDTHS))):
        told = _told(blocks)
        forms[f"rows{told}"] = form(as_rows, _plain, blocks=blocks)
        forms[f"turned{told}"] = form(as_rows, _turned, "turned", blocks=blocks)
        if blocks in (1, _blocks(columns)):  # each form takes seconds: here Ditto's number of blocks will do
            forms[f"turned and back{told}"] = form(as_rows, _turned, back=True, blocks=blocks)
            forms[f"input turned{told}"] = form(turned, _of_turned, blocks=blocks)
            forms[f"input and result turned{told}"] = form(turned, _turned, "turned", blocks=blocks)
            forms[f"input and result turned, and back{told}"] = form(turned, _turned, back=True, blocks=blocks)
    for parts in (2, 4):
        if inner % (parts * H200.alignment) == 0:
            forms[f"{parts} parts, added"] = form(as_rows, _in_parts, parts=parts)
            forms[f"{parts} parts, a batch"] = form(as_rows, _in_batch, parts=parts)
    if bias:
        forms["as it is, no bias"] = form(as_it_is, linear, with_bias="left out")
        forms["rows, no bias"] = form(as_rows, linear, with_bias="left out")
        if columns > inner:
            forms["as it is, bias in halves"] = form(as_it_is, _with_halves, with_bias="written", bias=numbers)

    def by_torch(drawn: Tensors) -> Tensor:
        return F.linear(drawn["x"], drawn["weight"], drawn.get("bias"))

    return Case(task, name, times, used, rows, 2.0 * rows * columns * inner, forms, draw, by_torch, ("weight",))


def _told(blocks: int) -> str:
    return f", {blocks} blocks" if blocks > 1 else ""


def blocks_of(columns: int, width: int) -> int:
    """Into how many blocks of a width, at least, columns are cut."""
    return ColumnBlocks(width, H200.alignment).blocks(columns)


def _blocks(columns: int) -> int:
    """Into how many blocks Ditto cuts columns."""
    assert H200.blocks is not None
    return H200.blocks.blocks(columns)


def _plain(net: Lowering, x: Value, weight: Weight, blocks: int) -> Value:
    if blocks == 1:
        return linear(net, x, weight)
    return product_in_blocks(net, x, net.operand(weight, x.spec.dtype, 3), blocks)


def _turned(net: Lowering, x: Value, weight: Weight, blocks: int, back: bool = False) -> Value:
    """As Ditto writes it; the input may lie turned."""
    is_turned = x.spec.shape[2] == TOKENS
    rows = net.permute(x, (0, 2, 1)) if is_turned else x
    matrix = net.operand(weight, x.spec.dtype, 3)
    made = transposed_product(net, rows, x if is_turned else None, matrix, blocks)
    columns = weight.shape[0]
    return back_in_rows(net, made, 1, TOKENS, columns) if back else net.reshape(made, (1, columns, TOKENS))


def _of_turned(net: Lowering, x: Value, weight: Weight, blocks: int) -> Value:
    columns, inner = weight.shape
    matrices = net.reshape(net.operand(weight, x.spec.dtype, 3), (blocks, columns // blocks, inner))
    made = net.add(MatrixMultiply(transpose_x=True, transpose_y=True), x, matrices)
    return made if blocks == 1 else net.reshape(net.permute(made, (1, 0, 2)), (1, TOKENS, columns))


def _in_parts(net: Lowering, x: Value, weight: Weight, parts: int) -> Value:
    """Products of parts of the inner size, added one by one."""
    width = weight.shape[1] // parts
    made = [
        linear(net, net.slice(x, 2, start, width), fold("slice", weight, 1, start, start + width, 1))
        for start in range(0, weight.shape[1], width)
    ]
    return reduce(lambda total, part: net.add(ElementWise("SUM"), total, part), made)


def _in_batch(net: Lowering, x: Value, weight: Weight, parts: int) -> Value:
    """Products of parts of the inner size as a batch, which is summed."""
    columns, width = weight.shape[0], weight.shape[1] // parts
    rows = net.permute(net.reshape(x, (TOKENS, parts, width)), (1, 0, 2))
    matrices = fold("permute", fold("reshape", weight, (columns, parts, width)), (1, 0, 2))
    made = net.cast(linear(net, rows, matrices), torch.float32)
    return net.cast(net.add(Reduce("SUM", (0,), keep=True), made), x.spec.dtype)


def _with_halves(net: Lowering, x: Value, weight: Weight, bias: Weight) -> Value:
    return added_in_halves(net, linear(net, x, weight), fold("reshape", bias, (1, 1, -1)))


def attention(
    task: str,
    times: int,
    used: str,
    heads: int,
    width: int,
    *,
    rows: int,
    causal: bool,
    dtype: torch.dtype = torch.float16,
) -> Case:
    """Attention of queries that come scaled."""
    names, wide = ("query", "key", "value"), heads * width

    def draw(batch: int, device: torch.device) -> dict[str, Tensor]:
        drawn = {name: torch.randn(batch, heads, rows, width, device=device) for name in names}
        drawn["query"] *= width**-0.5
        return {name: tensor.to(dtype) for name, tensor in drawn.items()}

    def layer(net: Lowering, query: Value, key: Value, value: Value) -> Value:
        return fused_attention(net, query, key, value, 1.0, causal, None)

    def written_out(net: Lowering, query: Value, key: Value, value: Value) -> Value:
        if not causal:
            return in_products(net, query, key, value, None)
        count = net.add(Fill(LENGTH, 0, 1, torch.int32), net.sizes((LENGTH,)))
        seen = sees(net, net.reshape(count, (1, 1, LENGTH, 1)), net.reshape(count, (1, 1, 1, LENGTH)), 0)
        return in_products(net, query, key, value, seen)

    def of_heads(write: Callable[..., Value]) -> Form:
        net = Lowering(Network("form"), NONE, NONE)
        made = write(net, *(net.input(name, Spec((BATCH, heads, LENGTH, width), dtype)) for name in names))
        return Form(*finished(net, made), dict, lambda made, drawn: made)

    def of_joint() -> Form:
        net = Lowering(Network("form"), NONE, NONE)
        joint = net.input("x", Spec((BATCH, LENGTH, 3 * wide), dtype))
        each = (net.reshape(net.slice(joint, 2, n * wide, wide), (BATCH, LENGTH, heads, width)) for n in range(3))
        made = net.permute(layer(net, *(net.permute(x, (0, 2, 1, 3)) for x in each)), (0, 2, 1, 3))
        return Form(
            *finished(net, net.reshape(made, (BATCH, LENGTH, wide))),
            lambda drawn: {"x": torch.cat([drawn[name].transpose(1, 2).flatten(2) for name in names], 2)},
            lambda made, drawn: made.unflatten(2, (heads, width)).transpose(1, 2),
        )

    def by_torch(drawn: Tensors) -> Tensor:
        query, key, value = (drawn[name] for name in names)
        return F.scaled_dot_product_attention(query, key, value, is_causal=causal, scale=1.0)

    forms = {"heads": of_heads(layer), "joint": of_joint(), "written out": of_heads(written_out)}
    flops = 4.0 * wide * rows * rows / (2 if causal else 1)
    return Case(task, "attention", times, used, rows, flops, forms, draw, by_torch)


def in_products(net: Lowering, query: Value, key: Value, value: Value, seen: Value | None) -> Value:
    """Attention as two products, softmax in float32; `seen` is its mask, of rank 4."""
    scores = net.cast(net.add(MatrixMultiply(transpose_y=True), query, key), torch.float32)
    if seen is not None:
        scores = net.add(Select(), seen, scores, net.operand(MASKED_SCORE, torch.float32, 4))
    return net.add(MatrixMultiply(), net.cast(net.add(Softmax(3), scores), query.spec.dtype), value)


def finished(net: Lowering, made: Value) -> tuple[Network, dict[str, Weight]]:
    """A form's network, its matrices made inputs, and what these are."""
    net.network.output("made", made)
    whole, matrices = run_passes(net.network, SIMPLIFY), dict[str, Weight]()
    network = Network("form", literals=whole.literals)
    for name, spec in whole.inputs.items():
        network.input(name, spec)
    for node in whole.nodes:
        specs = tuple(whole.value(name).spec for name in node.outputs)
        if isinstance(node.layer, Constant) and "weight" in stored_names(node.layer.weight):
            network.input(node.outputs[0], specs[0])
            matrices[node.outputs[0]] = node.layer.weight
        else:
            network.append(node, specs)
    network.output("made", network.value(whole.outputs["made"]))
    return network, matrices
