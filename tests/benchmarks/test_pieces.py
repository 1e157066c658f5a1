"""Pieces hold a network's layers, each once, and compute what it computes."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from benchmarks.pieces import cut, kinds
from ditto.builders import LlmBuilder
from ditto.families.llava import LlavaModel
from ditto.network import Network, Spec, check, symbol
from ditto.network.dims import evaluate
from ditto.network.layers import Activation, Attention, Constant, ElementWise, KVCacheUpdate, MatrixMultiply, Shuffle
from ditto.network.weight import Stored, leaves
from ditto.reference import Constants, run
from tests.support.describing import engine_of
from tests.support.forms import as_if_large, with_input_sizes
from tests.support.models import TEXT_MODELS, llama, llava
from tests.support.witnessed import described_disaggregated

CAPACITY = 40
DECODERS = (
    "llama",
    "llama with attention and MLP biases",
    "qwen3",
    "gemma2 with soft-caps and windows",
    "phi3 with a window",
)
SIZES = {"batch": 2, "sequence": 5, "kv_length": 9, "prompt_rows": 3}


def vision_of(model):
    builder = (
        LlavaModel.from_model(model)
        .with_batch(2)
        .with_target("tensorrt-rtx")
        .with_optimize("latency")
        .with_tuning("9.0")
        .vision
    )
    engine = engine_of(builder)
    return engine.network, engine.part.tensors


def networks_of(name):
    """Networks and who has their weights, by kind."""
    if name == "vision":
        return {"vision": vision_of(llava())}
    return described_disaggregated(LlmBuilder.from_model(TEXT_MODELS[name]()), CAPACITY)


def inputs_of(network):
    """Inputs in which every row is at a place of its own."""
    starts = torch.tensor([3, 5], dtype=torch.int32) if "cache_slots" in network.inputs else torch.zeros(2).int()
    known = {
        "write_indices": starts,
        "cache_slots": torch.arange(9, dtype=torch.int32),
        "last_token_ids": torch.tensor([4, 2], dtype=torch.int32),
    }

    def given(name, spec):
        shape = [evaluate(dim, SIZES) for dim in spec.shape]
        if name in known:
            return known[name]
        if name == "position_ids":
            return starts[:, None] + torch.arange(shape[1], dtype=torch.int32)
        return torch.randint(3, 100, shape).int() if spec.dtype == torch.int32 else torch.randn(shape).to(spec.dtype)

    return {name: given(name, spec) for name, spec in network.inputs.items()}


def weights_in(network, constants):
    """The values of constants."""
    return {node.outputs[0]: constants[node.layer.weight] for node in network.nodes if isinstance(node.layer, Constant)}


def run_in_pieces(network, inputs, constants):
    """All values that pieces hand on, and the network's outputs by their names."""
    values, outputs = {**inputs, **weights_in(network, constants)}, {}
    for piece in cut(network):
        check(piece.network)
        made = run(
            with_input_sizes(piece.network, SIZES), {name: values[name] for name in piece.network.inputs}, constants
        )
        for name, value in piece.network.outputs.items():
            assert value not in values, f"{value} is made twice"
            values[value] = made[name]
            if value == network.outputs.get(name):
                outputs[name] = made[name]
    return outputs


@pytest.fixture(scope="module", params=["vision", *DECODERS])
def networks(request):
    """Parts and blocks have matrices in other shapes."""
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        as_if_large(patch)
        return networks_of(request.param)


def origin(network, name):
    """What made a value, changes of its shape aside."""
    made = network.producer(network.value(name))
    while made is not None and isinstance(made.layer, Shuffle) and len(made.inputs) == 1:
        made = network.producer(network.value(made.inputs[0]))
    return made


def test_pieces_one_after_the_other_compute_what_the_network_computes(networks):
    torch.manual_seed(1)
    for network, source in networks.values():
        constants, inputs = Constants(network, source), inputs_of(network)
        wanted, found = run(network, inputs, constants), run_in_pieces(network, inputs, constants)
        assert found.keys() == wanted.keys()
        for name, tensor in wanted.items():
            torch.testing.assert_close(found[name], tensor, rtol=1e-6, atol=1e-6)


def test_every_layer_is_in_one_piece(networks):
    for network, _ in networks.values():
        counts = Counter(node.outputs for piece in cut(network) for node in piece.layers)
        assert set(counts.values()) == {1}
        weights, inputs = set(), set(network.inputs)
        for node in network.nodes:
            if node.outputs in counts:
                continue
            is_size = network.value(node.outputs[0]).spec.dtype == torch.int64
            is_weight = isinstance(node.layer, Constant) or (
                isinstance(node.layer, Shuffle) and weights.issuperset(node.inputs)
            )
            assert is_size or is_weight, node
            assert is_weight or (weights | inputs).issuperset(node.inputs)
            weights.update(node.outputs)


def test_products_with_weights_and_attention_are_alone(networks):
    for network, _ in networks.values():
        for piece in cut(network):
            found = [node for node in piece.layers if isinstance(node.layer, (Attention, MatrixMultiply))]
            if piece.is_kernel:
                assert found == list(piece.layers)
                assert len(piece.fixed) == isinstance(found[0].layer, MatrixMultiply)
                *shapes, _ = piece.network.nodes
                read = {*piece.fixed}
                for node in shapes:  # of the weight
                    assert isinstance(node.layer, Shuffle) and read.issuperset(node.inputs)
                    read.update(node.outputs)
            for node in () if piece.is_kernel else found:  # with activations or literals
                assert isinstance(node.layer, MatrixMultiply)
                makers = [origin(network, name) for name in node.inputs]
                constants = [maker.layer for maker in makers if maker and isinstance(maker.layer, Constant)]
                assert not any(isinstance(leaf, Stored) for layer in constants for leaf in leaves(layer.weight))


def test_caches_stay_in_place(networks):
    for network, _ in networks.values():
        shared = {}
        for piece in cut(network):
            updates = sum(isinstance(node.layer, KVCacheUpdate) for node in piece.layers)
            assert updates == len(piece.network.shared)
            shared.update(piece.network.shared)
        assert shared == network.shared


def counts_of(layers):
    """For each network of a model with so many layers, how many pieces there are of each kind."""
    torch.manual_seed(0)
    deep = {"num_hidden_layers": layers}
    networks = described_disaggregated(LlmBuilder.from_model(llama(**deep)), CAPACITY)
    model = llava()
    config = model.config.vision_config.to_dict()
    vision = type(model.config.vision_config)(**{**config, **deep})
    networks["vision"] = vision_of(llava(vision, vision_feature_layer=-1))
    return {name: [count for _, count in kinds(cut(network))] for name, (network, _) in networks.items()}


def test_like_pieces_are_counted_together():
    four, six = counts_of(4), counts_of(6)
    for name in ("llm", "llm-decode", "vision"):
        assert len(four[name]) == len(six[name]) <= 25
        # 4 - 1, 4, 2 * 4 - 1 blocks' become 6 - 1, 6, 2 * 6 - 1: what is there once stays so
        more = [after - before for before, after in zip(four[name], six[name], strict=True)]
        assert set(more) == {0, 2} | ({4} & set(more))
        assert [count for count, grown in zip(four[name], more) if not grown] == [1] * more.count(0)


def test_a_residual_stream_does_not_join_blocks_and_masks_are_made_once():
    torch.manual_seed(0)
    network, _ = described_disaggregated(LlmBuilder.from_model(llama(num_hidden_layers=5)), CAPACITY)["llm-decode"]
    first, *pieces = cut(network)
    assert not first.fixed
    assert set(first.network.inputs) == {"cache_slots", "position_ids", "write_indices"}
    for piece in pieces:
        modules = [node.place.module for node in piece.layers]
        norms = {module for module in modules if module.endswith("norm")}
        assert len(norms) <= 1
        assert sum(isinstance(node.layer, KVCacheUpdate) for node in piece.layers) in (0, 2)


def test_readers_of_one_products_result_are_a_piece_and_the_stream_is_not():
    network, width = Network("n"), Spec((symbol("batch"), 4), torch.float32)
    weight = Constant(Stored("w", (4, 4), torch.float32))
    x = network.input("x", width)
    made = network.add(MatrixMultiply(), x, network.add(weight))
    left, right = network.add(Activation("TANH"), made), network.add(Activation("RELU"), made)
    stream = network.add(ElementWise("SUM"), left, x)
    after = network.add(MatrixMultiply(), right, network.add(weight))
    network.output("left", stream)
    network.output("right", network.add(ElementWise("SUM"), after, stream))
    found = cut(network)
    assert [piece.is_kernel for piece in found] == [True, False, True, False]
    assert [type(node.layer).__name__ for node in found[1].layers] == ["Activation", "Activation", "ElementWise"]
    assert list(found[1].network.outputs) == [right.name, "left"]
    assert list(found[3].network.inputs) == [after.name, stream.name]
    assert [count for _, count in kinds(found)] == [2, 1, 1]


def test_what_shares_an_input_alone_is_not_joined():
    network, spec = Network("n"), Spec((symbol("batch"), 4), torch.float32)
    x, table = network.input("x", spec), network.input("table", spec)
    for name in ("a", "b"):
        weight = network.add(Constant(Stored(name, (4, 4), torch.float32)))
        made = network.add(MatrixMultiply(), x, weight)
        network.output(name, network.add(ElementWise("PROD"), made, table))
    assert [(piece.is_kernel, count) for piece, count in kinds(cut(network))] == [(True, 2), (False, 2)]


def test_what_is_done_to_a_cache_is_not_made_once_for_all():
    network = Network("n")
    new = network.input("new", Spec((symbol("batch"), 1, 1, 4), torch.float32))
    at = network.input("at", Spec((symbol("batch"),), torch.int32))
    for name in ("a", "b"):
        cache = network.input(name, Spec((symbol("batch"), 1, 8, 4), torch.float32))
        network.output(f"new_{name}", network.add(KVCacheUpdate(), cache, new, at), name)
    assert [(piece.network.shared, count) for piece, count in kinds(cut(network))] == [({"new_a": "a"}, 2)]
