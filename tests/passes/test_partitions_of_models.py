"""Hugging Face's models in parts: a block is one network, called for every layer, and what comes out is theirs."""

from __future__ import annotations

from collections import Counter
from functools import partial
from itertools import pairwise

import pytest
import torch
from transformers import CLIPVisionConfig, Gemma2Config, Gemma2ForCausalLM, SiglipVisionConfig

from ditto.builders import LlmBuilder
from ditto.families.llava import LlavaModel
from ditto.network.layers import Fill, Gather, KVCacheUpdate, Shape, Shuffle, Slice
from ditto.reference import RELATIVE_ERROR, Constants, relative_error
from tests.support.describing import engine_of
from tests.support.models import GEMMA2, TEXT, TEXT_MODELS, VISION, image_features, llama, llava, made, rope
from tests.support.parts import DIVISIONS, in_shared_blocks, run_in_parts
from tests.support.witnessed import (
    DecoderFunction,
    DisaggregatedDecoder,
    described_disaggregated,
    eager,
    logits,
    step_errors,
)

LAYERS = 5


def gemma2(**settings):
    """Every other layer has a window; without soft-caps, prompts are attended to in two ways."""
    config = {**TEXT, **GEMMA2, "attn_logit_softcapping": None, **rope(), **settings}
    return made(Gemma2ForCausalLM, Gemma2Config(**config))


# The last layer of a prompt is one of its own: of its tokens only the last ones are looked at.
MODELS = {
    "llama": (lambda: llama(num_hidden_layers=LAYERS), {"llm": (4, 1), "llm-decode": (5, 1)}),
    "llama with tied embeddings": (
        lambda: llama(num_hidden_layers=LAYERS, tie_word_embeddings=True),
        {"llm": (4, 1), "llm-decode": (5, 1)},
    ),
    "llama with biases": (
        lambda: llama(num_hidden_layers=3, attention_bias=True, mlp_bias=True),
        {"llm": (2, 1), "llm-decode": (3, 1)},
    ),
    "gemma2, windows by turns": (lambda: gemma2(num_hidden_layers=7), {"llm": (3, 2), "llm-decode": (7, 1)}),
    "gemma2, windows by turns, soft-caps": (
        lambda: gemma2(num_hidden_layers=4, attn_logit_softcapping=3.0),
        {"llm": (3, 1), "llm-decode": (4, 1)},
    ),
}


@pytest.fixture(scope="module", params=MODELS)
def text(request):
    """A model, its networks for prompts and for steps, and for each of them how many blocks of how many layers."""
    model, wanted = MODELS[request.param][0](), MODELS[request.param][1]
    return model, described_disaggregated(LlmBuilder.from_model(model), capacity=40), wanted


def block_of(network, least_bytes=1):
    """The parts of a network, and the one of them that is called for the blocks."""
    parts = in_shared_blocks(network, least_bytes)
    beside = {call.part for call in parts.schedule.calls if call.concurrent}
    order = [call.part for call in parts.schedule.calls if not call.concurrent]
    assert order == [0, *[1] * (len(order) - 2), order[-1]]
    assert {0, 1, order[-1]} | beside == set(range(len(parts.networks)))
    return parts, parts.networks[1]


@pytest.mark.parametrize("weights", DIVISIONS)
def test_a_prompt_and_a_step_compute_what_hugging_face_computes(text, weights):
    model, networks, _ = text
    rows = [torch.randint(3, 128, (length,), generator=torch.Generator().manual_seed(6)) for length in (12, 8)]
    computed = {
        name: DecoderFunction(
            partial(run_in_parts, network, constants=Constants(network, source), divide=DIVISIONS[weights]),
            {past: network.inputs[past] for past in network.shared.values()},
        )
        for name, (network, source) in networks.items()
    }
    errors = step_errors(
        DisaggregatedDecoder(computed["llm"], computed["llm-decode"]), rows, logits(eager(model), rows)
    )
    assert max(errors) <= RELATIVE_ERROR[torch.float32]


def test_a_block_is_called_for_every_layer_or_as_many_as_make_a_turn(text):
    model, networks, wanted = text
    for name, (network, _) in networks.items():
        parts, block = block_of(network)
        count, layers = wanted[name]
        assert sum(not call.concurrent for call in parts.schedule.calls) == 1 + count + 1
        kinds = Counter(type(node.layer) for part in parts.networks for node in part.nodes)
        writer = parts.networks[2] if name == "llm" else block
        assert Counter(type(node.layer) for node in writer.nodes)[KVCacheUpdate] == 2 * layers
        rest = model.config.num_hidden_layers - count * layers
        assert kinds[KVCacheUpdate] == 2 * layers + 2 * rest


def test_each_layer_writes_the_cache_that_it_reads(text):
    _, networks, _ = text
    for network, _ in networks.values():
        parts = in_shared_blocks(network, 1)
        shared = {
            call.tensors[present]: call.tensors[past]
            for call in parts.schedule.calls
            for present, past in parts.networks[call.part].shared.items()
        }
        assert shared == network.shared


def test_masks_and_rotations_are_made_once_before_the_blocks(text):
    model, networks, _ = text
    for name, (network, _) in networks.items():
        parts, block = block_of(network)
        looked_up = [node for node in parts.networks[0].nodes if isinstance(node.layer, Gather)]
        assert len(looked_up) == 3  # cosines, sines, the embedding
        assert not any(isinstance(node.layer, (Gather, Fill)) for node in block.nodes)
        assert not {"position_ids", "last_token_ids"} & set(block.inputs)
        masks = [taken for taken, spec in block.inputs.items() if spec.dtype == torch.bool]
        assert masks or (name == "llm" and model.config.model_type == "llama")
        for mask in masks:
            of_blocks = [call for call in parts.schedule.calls if call.part == 1]
            assert {call.tensors[mask] for call in of_blocks} <= set(parts.networks[0].outputs)


def test_prompts_write_their_caches_beside_the_blocks_and_a_step_reads_what_it_writes(text):
    _, networks, _ = text
    parts, block = block_of(networks["llm"][0])
    calls = parts.schedule.calls
    assert [call.concurrent for call in calls] == [False, *[False, True] * (len(calls) // 2)]
    assert not any(isinstance(node.layer, KVCacheUpdate) for node in block.nodes)
    for before, call in pairwise(calls):
        if call.concurrent:  # what it reads of the block is what products and rotations have made
            part = parts.networks[call.part]
            read = {call.tensors[name] for name in part.inputs} & parts.schedule.between.keys()
            assert len(read) == len(part.outputs) and read <= {*before.tensors.values()}
            makers = {name: node.layer for node in networks["llm"][0].nodes for name in node.outputs}
            assert not any(isinstance(makers[name], Shuffle | Slice) for name in read)
            assert set(part.outputs) == set(part.shared)
    assert not any(call.concurrent for call in in_shared_blocks(networks["llm-decode"][0], 1).schedule.calls)


def test_weights_of_a_block_are_outside_and_each_call_has_its_layers_and_the_norm_behind(text):
    _, networks, wanted = text
    for name, (network, _) in networks.items():
        parts, block = block_of(network, 1 << 30)
        calls = [call for call in parts.schedule.calls if call.part == 1]
        layers = wanted[name][1]
        for number, call in enumerate(calls):
            names = [call.tensors[taken] for taken in block.inputs if call.tensors[taken] in parts.external]
            behind = (number + 1) * layers
            own = {f"model.layers.{layer}" for layer in range(number * layers, behind)}
            norm = (
                f"model.layers.{behind}.input_layernorm.weight"
                if behind < len(network.shared) // 2
                else "model.norm.weight"
            )
            assert norm in names and {".".join(weight.split(".")[:3]) for weight in names if weight != norm} == own
        assert all(weight.startswith(("model.layers.", "model.norm.")) for weight in parts.external)


def test_an_embedding_that_is_the_heads_weight_too_is_bound_once():
    networks = described_disaggregated(LlmBuilder.from_model(llama(num_hidden_layers=3, tie_word_embeddings=True)))
    parts, _ = block_of(networks["llm-decode"][0])
    forms = [name for name in parts.external if name.startswith("model.embed_tokens.weight")]
    used = [name for call in (parts.schedule.calls[0], parts.schedule.calls[-1]) for name in call.tensors.values()]
    assert set(forms) == {name for name in used if name.startswith("model.embed_tokens.weight")}
    assert not any(name.startswith("lm_head") for name in parts.external)


DEEP = {**VISION, "num_hidden_layers": 6}
TOWERS = {
    "clip, last layer": lambda: llava(CLIPVisionConfig(**DEEP, projection_dim=48), vision_feature_layer=-1),
    "clip, last but one": lambda: llava(CLIPVisionConfig(**DEEP, projection_dim=48), vision_feature_layer=-2),
    "clip, several layers": lambda: llava(
        CLIPVisionConfig(**DEEP, projection_dim=48), vision_feature_layer=[-6, -3, -1]
    ),
    "siglip, several layers": lambda: llava(
        SiglipVisionConfig(**DEEP), vision_feature_layer=[1, 3], vision_feature_select_strategy="full"
    ),
}


@pytest.fixture(scope="module", params=TOWERS)
def tower(request):
    """A model, the network of its tower, who has its weights, and how many layers the features need."""
    model = TOWERS[request.param]()
    builder = (
        LlavaModel.from_model(model)
        .with_batch(2)
        .with_target("tensorrt-rtx")
        .with_optimize("latency")
        .with_tuning("9.0")
        .vision
    )
    engine = engine_of(builder)
    chosen = model.config.vision_feature_layer
    chosen = chosen if isinstance(chosen, list) else [chosen]
    deepest = max(index % 7 for index in chosen)  # of the values before, between and after six layers
    return model, engine.network, engine.part.tensors, deepest


@pytest.mark.parametrize("weights", DIVISIONS)
def test_a_tower_computes_what_hugging_face_computes(tower, weights):
    model, network, source, _ = tower
    pixels = torch.randn(2, 3, 28, 28, generator=torch.Generator().manual_seed(3))
    constants = Constants(network, source)
    found = run_in_parts(network, {"input": pixels}, constants, divide=DIVISIONS[weights])["encoder_output"]
    assert relative_error(found, image_features(eager(model), pixels)) <= RELATIVE_ERROR[torch.float32]


def test_a_towers_block_is_called_for_every_layer_that_a_norm_follows(tower):
    _, network, _, deepest = tower
    parts, _ = block_of(network)
    assert len(parts.schedule.calls) == 1 + deepest - 1 + 1
    taken = [[name for name in call.tensors.values() if name in parts.external] for call in parts.schedule.calls]
    assert any("patch_embedding" in name for name in taken[0])
    assert any("multi_modal_projector" in name for name in taken[-1])
    for number, names in enumerate(taken[1:-1]):
        norm = f"layers.{number + 1}.layer_norm1."
        assert any(norm in name for name in names)
        assert all(f"layers.{number}." in name or norm in name for name in names)


@pytest.mark.parametrize("name", ["mistral with a window", "qwen2", "qwen3", "phi3"])
def test_other_decoders_have_a_block_too(name):
    network, _ = described_disaggregated(LlmBuilder.from_model(TEXT_MODELS[name]()))["llm-decode"]
    parts, block = block_of(network)
    assert len(parts.schedule.calls) == 1 + 2 + 1
    assert sum(isinstance(node.layer, KVCacheUpdate) for node in block.nodes) == 2
    for part in parts.networks[::2]:
        assert not any(isinstance(node.layer, KVCacheUpdate) for node in part.nodes)


def test_two_layers_of_which_the_last_is_another_are_one_part():
    network, _ = described_disaggregated(LlmBuilder.from_model(llama(num_hidden_layers=2)))["llm"]
    assert len(in_shared_blocks(network, 1).networks) == 1


def test_sizes_are_read_where_they_are_used():
    networks = described_disaggregated(LlmBuilder.from_model(llama(num_hidden_layers=3)))
    for network, _ in networks.values():
        for part in in_shared_blocks(network).networks:
            for node in part.nodes:
                assert not isinstance(node.layer, Shape) or node.inputs[0] in part.inputs
        assert not any(spec.dtype == torch.int64 for spec in in_shared_blocks(network).schedule.between.values())
