"""Linear layers of a decoder are rounded to integers where asked, and nothing else is."""

from __future__ import annotations

import pytest
import torch

from ditto import LlavaModel, LlmBuilder
from ditto.builders.plan import plan
from ditto.cli.plan import plan_text
from ditto.errors import ConfigError
from ditto.network.layers import Dequantize
from ditto.network.quantized import rounded_tensors
from tests.support.describing import engine_of
from tests.support.models import llama, llava
from tests.support.quantised import gptq, save_quantised


def described(builder):
    return engine_of(builder.with_target("tensorrt-rtx"))


def scales_of(network):
    """Shapes of the scales, by the shapes of their values."""
    specs = [
        tuple(network.value(name).spec.shape for name in node.inputs)
        for node in network.nodes
        if isinstance(node.layer, Dequantize)
    ]
    return dict(sorted(specs))


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("int8", {(64, 64): (64,), (64, 96): (64,), (128, 64): (128,), (192, 64): (192,)}),
        ("int4", {(64, 64): (64,), (64, 96): (64, 3), (128, 64): (128,), (192, 64): (192,)}),
    ],
)
def test_every_linear_layer_but_the_head_is_rounded(name, wanted):
    network = described(LlmBuilder.from_model(llama()).with_quantization(name)).network
    assert scales_of(network) == wanted
    found = rounded_tensors(constant.weight for constant in network.constants())
    parts = ("self_attn.q", "self_attn.k", "self_attn.v", "self_attn.o", "mlp.gate", "mlp.up", "mlp.down")
    assert set(found) == {f"model.layers.{index}.{part}_proj.weight" for index in (0, 1) for part in parts}
    (head,) = (constant.weight for constant in network.constants() if "lm_head" in str(constant.weight))
    assert head.dtype == torch.float32


def test_groups_are_of_128_columns_where_they_divide_a_row():
    network = described(LlmBuilder.from_model(llama(intermediate_size=256)).with_quantization("int4")).network
    assert scales_of(network)[64, 256] == (64, 2)


def test_a_tied_head_stays_float():
    network = described(LlmBuilder.from_model(llama(tie_word_embeddings=True)).with_quantization("int4")).network
    assert len(scales_of(network)) == 4


def test_a_bare_decoder_keeps_its_head():
    model = llama()
    builder = LlmBuilder.from_model(model.model, lm_head=model.lm_head).with_quantization("int8")
    assert len(scales_of(described(builder).network)) == 4


def test_layers_whose_columns_form_no_group_stay_float():
    network = described(LlmBuilder.from_model(llama(intermediate_size=88)).with_quantization("int4")).network
    assert (64, 88) not in scales_of(network) and (176, 64) in scales_of(network)


def test_the_vision_engine_stays_float():
    family = LlavaModel.from_model(llava()).with_quantization("int4")
    assert not scales_of(described(family.vision).network)
    assert len(scales_of(described(family.llm).network)) == 4


def test_a_quantised_checkpoint_is_not_quantised_again(tmp_path):
    config = {"quant_method": "gptq", "bits": 4, "group_size": 32}
    save_quantised(llama(num_hidden_layers=1), tmp_path, config, gptq())
    with pytest.raises(ConfigError, match="quantised already"):
        described(LlmBuilder.from_pretrained(str(tmp_path)).with_quantization("int4"))


def test_other_names_are_refused():
    with pytest.raises(ConfigError, match="'int3' is not a quantisation"):
        LlmBuilder.from_model(llama()).with_quantization("int3")


def test_plan_counts_small_integers_as_they_are(tmp_path):
    model = llama(hidden_size=128)
    model.save_pretrained(tmp_path)
    builder = LlmBuilder.from_pretrained(str(tmp_path)).with_target("tensorrt-rtx").with_dtype("float16")
    plain, rounded = (plan({"llm": each}).engines["llm"] for each in (builder, builder.with_quantization("int4")))
    matrices = 2 * (2 * 128 * 128 + 2 * 64 * 128 + 3 * 96 * 128)
    assert rounded.parameters == plain.parameters == sum(part.numel() for part in model.parameters())
    assert rounded.weight_kinds["int4"] == matrices // 2
    scales = 2 * (2 * 128 + 2 * 64 + 2 * 96 + 3 * 128)  # one for each row, three where rows have 96 columns
    assert plain.weight_kinds["float16"] - rounded.weight_kinds["float16"] == 2 * (matrices - scales)


def test_plan_counts_the_values_of_packed_words(tmp_path):
    model = llama()
    config = {"quant_method": "gptq", "bits": 4, "group_size": 32}
    save_quantised(model, tmp_path, config, gptq())
    builder = LlmBuilder.from_pretrained(str(tmp_path)).with_target("tensorrt-rtx")
    engine = plan({"llm": builder}).engines["llm"]
    matrices = 2 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 96 * 64)
    assert engine.parameters == sum(part.numel() for part in model.parameters()) + matrices // 32
    assert engine.weight_kinds["int4"] == matrices // 2
    assert "weights     float32" in plan_text(plan({"llm": builder}))
