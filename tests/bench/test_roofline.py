"""Costs are those that the model's own parameters give, counted by hand and by PyTorch's FLOP counter."""

from __future__ import annotations

import pytest
import torch
from attrs import evolve
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.tiny_models import tiny_model
from ditto import LlavaModel, LlmBuilder
from ditto.arguments import DynamicDimension, TensorTypeHint
from ditto.bench.plan import ANSWER, DECODE, PREFILL, VISION, Task
from ditto.bench.roofline import Cost, DecoderCost, Roofline, vision_cost
from ditto.runtime.weights import network_of
from tests.support.models import TRANSFORMERS_5, image_features, llama, llava
from tests.support.trees import llava_tree


def flops_of(work) -> int:
    # The counter knows products, and not every fused attention.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def test_vision_costs_what_pytorch_counts(tmp_path):
    model = llava(vision_feature_layer=-1)  # so that PyTorch, too, computes no layer in vain
    tree = llava_tree(tmp_path / "tree", vision_feature_layer=-1)
    counted = flops_of(lambda: image_features(model, torch.zeros(2, 3, 28, 28)))
    assert Roofline(tree).of(Task(VISION, 2)).flops == pytest.approx(counted, rel=0.02)


def test_images_are_counted_whatever_the_batch_dimension_is_called(tmp_path):
    hint = TensorTypeHint((DynamicDimension("images", 1, 2, 3), 3, 28, 28), torch.float32)
    model = llava(vision_feature_layer=-1)
    builder = LlavaModel.from_model(model).with_batch(3).with_target("tensorrt-rtx").vision
    network = network_of(evolve(builder, inputs={"input": hint}).build(tmp_path / "tree"), "vision")
    counted = flops_of(lambda: image_features(model, torch.zeros(3, 3, 28, 28)))
    of_all, of_one = (vision_cost(network, {"images": count}).flops for count in (3, 1))
    assert of_all == 3 * of_one == pytest.approx(counted, rel=0.02)


def test_prefill_costs_what_pytorch_counts_and_somebody_wants(llama_tree, tmp_path):
    model = llama()
    ids = torch.ones(2, 16, dtype=torch.long)
    counted = flops_of(lambda: model(ids, logits_to_keep=1))
    unseen = 2 * 2 * 2 * 64 * 16 * 16  # PyTorch computes the half that causal attention does not need,
    block = model.model.layers[-1]  # and the last block behind its attention for tokens whose logits nobody wants
    needless = sum(part.numel() for part in (block.self_attn.o_proj.weight, *block.mlp.parameters())) * 2 * 2 * 15
    wanted = counted - unseen - needless
    for tree in (
        llama_tree,
        LlmBuilder.from_model(model).with_optimize("latency").with_tuning("9.0").build(tmp_path / "external"),
    ):
        assert Roofline(tree).of(Task(PREFILL, 2, 16, 1)).flops == pytest.approx(wanted, rel=0.005)


def test_a_step_reads_every_matrix_and_the_cache_once(llama_tree):
    model = llama()
    matrices = sum(part.numel() for name, part in model.named_parameters() if part.dim() > 1 and "embed" not in name)
    cache = 3 * (10 + 4) * 2 * 2 * 2 * 16  # rows, tokens in the middle, keys and values, layers, KV heads, head width
    found = Roofline(llama_tree).of(Task(DECODE, 3, 10, 8))
    assert found.bytes == 4 * (matrices + cache)


def test_an_answer_is_its_parts(saved_tree):
    roofline = Roofline(saved_tree)
    parts = (
        roofline.of(Task(VISION, 2))
        + roofline.of(Task(PREFILL, 2, 40, 1))
        + roofline.of(Task(DECODE, 2, 40, 8)).times(7)
    )
    assert roofline.of(Task(ANSWER, 2, 40, 8)) == parts
    assert Cost(1, 2).times(3) == Cost(3, 6)


@pytest.mark.skipif(not TRANSFORMERS_5, reason="transformers 4.51 lacks the class")
def test_layers_without_attention_have_a_state_in_place_of_a_cache(tmp_path):
    builder = LlmBuilder.from_model(tiny_model("lfm2")).with_target("tensorrt-rtx").with_max_seq_len(16)
    cost = DecoderCost.of(builder.build(tmp_path / "tree"))
    assert (cost.layers, cost.states) == (1, 2 * 2 * 128 * 4)  # two slots of two tokens of 128 channels
    step = cost.decode(3, 10)
    assert step.bytes == 4 * (cost.weights + cost.last + 3 * 10 * 2 * cost.kv_width) + 3 * cost.states
