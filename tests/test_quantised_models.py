"""Trees of quantised checkpoints answer as Hugging Face does with the dequantised weights."""

from __future__ import annotations

import pytest
import torch

from ditto import LlavaModel, LlmBuilder
from ditto.errors import UnsupportedFeature
from ditto.network.layers import Dequantize
from ditto.reference import RELATIVE_ERROR, Constants, relative_error
from ditto.runtime import Request, generate, open_session
from ditto.verify.check import verify
from ditto.verify.inputs import mixed
from tests.support.decoding import continued, in_dtype
from tests.support.describing import engine_of
from tests.support.greedy import greedy
from tests.support.models import llama, llava
from tests.support.quantised import (
    awq,
    compressed_config,
    fine_grained,
    gptq,
    linears,
    modelopt,
    pack_quantized,
    save_quantised,
)
from tests.support.witnessed import allowed_error, decoder_errors, definition_of, eager, logits

INT4 = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": 32}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm"}
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 32}
FP8 = {"quant_method": "fp8", "weight_block_size": [16, 32]}
MODELOPT = {"quant_method": "modelopt", "quant_algo": "W4A16_AWQ"}
FORMS = {
    "int4": (compressed_config(INT4), pack_quantized()),
    "int4, asymmetric": (AWQ, awq()),
    "int4 by activations": (GPTQ, gptq(order=True)),
    "int8": ({**GPTQ, "bits": 8}, gptq(bits=8)),
    "fp8": (FP8, fine_grained()),
    "nvfp4": ({**MODELOPT, "quant_algo": "NVFP4"}, modelopt("NVFP4")),
    "int4, rows in pairs": (MODELOPT, modelopt("W4A16_AWQ")),
    "int4 with input scales": (MODELOPT, modelopt("W4A16_AWQ", pre_scaled=True)),
}


def builder(directory, dtype="float32"):
    return LlmBuilder.from_pretrained(str(directory)).with_target("tensorrt-rtx").with_dtype(dtype)


@pytest.mark.parametrize("name", FORMS)
def test_logits_are_those_of_the_dequantised_weights(tmp_path, name):
    model = llama(attention_bias=True, tie_word_embeddings=True)
    meaning = save_quantised(model, tmp_path, *FORMS[name])
    engine = engine_of(builder(tmp_path))
    network = engine.network
    for found, wanted, other in continued(network, Constants(network, engine.part.tensors), meaning, model):
        assert relative_error(found, wanted) < RELATIVE_ERROR[torch.float32]
        assert relative_error(found, other) > 3e-3
    quantised = sum(isinstance(node.layer, Dequantize) for node in network.nodes)
    as_integers = ("int4", "int4, asymmetric", "int8", "int4, rows in pairs")
    assert quantised == (8 if name in as_integers else 0)  # q/k/v and gate/up are joined


@pytest.mark.parametrize(("name", "dtype"), [("int4", "float16"), ("int4, asymmetric", "float16"), ("int8", "float32")])
def test_tensorrt_is_given_what_the_dequantised_model_computes(tmp_path, name, dtype):
    meaning = eager(save_quantised(llama(), tmp_path, *FORMS[name]))
    rows = [torch.tensor([5, 6, 7, 8, 9]), torch.tensor([20, 21, 22])]
    wanted, kind = logits(meaning, rows), getattr(torch, dtype)
    own = max(map(relative_error, logits(in_dtype(meaning, kind), rows), wanted))
    assert max(decoder_errors(definition_of(builder(tmp_path, dtype)), rows, wanted)) <= allowed_error(kind, own)


def test_weights_that_are_dequantised_may_be_external(tmp_path):
    meaning = save_quantised(llama(num_hidden_layers=1), tmp_path / "model", *FORMS["fp8"])
    tree = builder(tmp_path / "model").with_weights("external").build(tmp_path / "tree")
    (found,) = generate(open_session(tree, "reference"), [Request((5, 6, 7, 8))], max_new_tokens=8)
    assert found.ids == greedy(meaning, [5, 6, 7, 8], 8)


def test_integers_as_engine_inputs_are_refused(tmp_path):
    save_quantised(llama(num_hidden_layers=1), tmp_path / "model", *FORMS["int4"])
    with pytest.raises(UnsupportedFeature, match=r"4 quantised linear layers(.|\n)*--weights embedded"):
        builder(tmp_path / "model").with_weights("external").build(tmp_path / "tree")


def test_a_tree_of_a_mixed_checkpoint_is_built_run_and_verified(tmp_path):
    model = llama(num_hidden_layers=3)
    some = [name for name in linears(model) if "o_proj" not in name and "layers.1.mlp.gate" not in name]
    writers = {name: pack_quantized() for name in some}
    meaning = save_quantised(model, tmp_path / "model", compressed_config(INT4), writers.get)
    tree = builder(tmp_path / "model").build(tmp_path / "tree")
    (found,) = generate(open_session(tree, "reference"), [Request((5, 6, 7, 8))], max_new_tokens=8)
    assert found.ids == greedy(meaning, [5, 6, 7, 8], 8)
    result = verify(tree, mixed(tree, 3, 1), session="reference", new_tokens=3)
    assert result.passed, result.text()


@pytest.mark.parametrize("name", ["int4", "int4 with input scales"])
def test_a_llava_is_built_and_verified(tmp_path, name):
    save_quantised(llava(), tmp_path / "model", *FORMS[name])
    family = LlavaModel.from_pretrained(str(tmp_path / "model")).with_target("tensorrt-rtx").with_dtype("float32")
    tree = family.build_all(tmp_path / "tree")
    result = verify(tree, mixed(tree, 3, 1), session="reference", new_tokens=3)
    assert result.passed, result.text()


@pytest.mark.parametrize("name", ["int4", "fp8"])
def test_plugins_are_refused(tmp_path, name):
    save_quantised(llama(num_hidden_layers=1), tmp_path / "model", *FORMS[name])
    with pytest.raises(UnsupportedFeature, match="the llm network has 4 quantised weights"):
        builder(tmp_path / "model").with_target("trtllm").build(tmp_path / "tree")
