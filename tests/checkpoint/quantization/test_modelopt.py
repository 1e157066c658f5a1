"""ModelOpt's files mean what their layout says; other algorithms are refused."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from ditto import LlavaModel, LlmBuilder
from ditto.checkpoint.formats import check_form
from ditto.errors import CheckpointError
from tests.support.models import llama, llava
from tests.support.quantised import loaded_equals, modelopt, save_quantised, warnings_of

ALGORITHMS = ["FP8", "FP8_PER_CHANNEL_PER_TOKEN", "NVFP4", "W4A16_AWQ", "W8A8_SQ_PER_CHANNEL"]


def config(algorithm, **more):
    return {"quant_method": "modelopt", "quant_algo": algorithm, "producer": {"name": "modelopt"}, **more}


@pytest.mark.parametrize("pre_scaled", [False, True])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_weights_are_read_exactly(tmp_path, algorithm, pre_scaled):
    model = llama(num_hidden_layers=1, intermediate_size=64)
    meaning = save_quantised(model, tmp_path, config(algorithm), modelopt(algorithm, pre_scaled))
    loaded_equals(LlmBuilder.from_pretrained(str(tmp_path)).source, meaning)


def test_the_algorithm_may_stand_in_a_file_of_its_own(tmp_path):
    meaning = save_quantised(llama(num_hidden_layers=1), tmp_path, {}, modelopt("FP8"))
    stated = json.loads((tmp_path / "config.json").read_text())
    del stated["quantization_config"]
    (tmp_path / "config.json").write_text(json.dumps(stated))
    own = {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "FP8", "exclude_modules": ["lm_head"]}}
    (tmp_path / "hf_quant_config.json").write_text(json.dumps(own))
    loaded_equals(LlmBuilder.from_pretrained(str(tmp_path)).source, meaning)


def test_a_llava_whose_decoder_is_quantised(tmp_path):
    meaning = save_quantised(llava(), tmp_path, config("NVFP4"), modelopt("NVFP4"))
    loaded_equals(LlavaModel.from_pretrained(str(tmp_path)).llm.source, meaning)


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"quant_algo": "MIXED_PRECISION"}, "ModelOpt: the algorithm 'MIXED_PRECISION' is not read"),
        ({"quant_algo": "NVFP4_AWQ"}, "the algorithm 'NVFP4_AWQ' is not read"),
        ({"quant_algo": "fp8_pb_wo"}, "the algorithm 'fp8_pb_wo' is not read"),
        ({"quant_algo": None}, "the algorithm None is not read"),
    ],
)
def test_other_algorithms_are_refused(tmp_path, stated, message):
    save_quantised(llama(num_hidden_layers=1), tmp_path, {**config("FP8"), **stated}, modelopt("FP8"))
    with pytest.raises(CheckpointError, match=message):
        check_form(tmp_path)


@pytest.mark.parametrize("other", [name for name in ALGORITHMS if name != "FP8"])
def test_a_file_of_another_algorithm_than_stated_is_refused(tmp_path, other):
    save_quantised(llama(num_hidden_layers=1), tmp_path, config("FP8"), modelopt(other))
    with pytest.raises(CheckpointError, match=r"ModelOpt: `model\.layers\.0\..*` has"):
        LlmBuilder.from_pretrained(str(tmp_path)).source.load(torch.float32)


@pytest.mark.parametrize(
    ("algorithm", "part"),
    [
        ("FP8", "weight_scale"),
        ("NVFP4", "weight"),
        ("NVFP4", "weight_scale"),
        ("NVFP4", "weight_scale_2"),
        ("W4A16_AWQ", "weight"),
        ("W4A16_AWQ", "pre_quant_scale"),
    ],
)
def test_every_tensor_matters(tmp_path, algorithm, part):
    meaning = save_quantised(llama(num_hidden_layers=1), tmp_path, config(algorithm), modelopt(algorithm, True))
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    name = f"model.layers.0.self_attn.o_proj.{part}"
    tensors[name] = tensors[name] * 2 if not tensors[name].ndim else tensors[name].flip(0).contiguous()
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(AssertionError, match=r"o_proj\.weight"):
        loaded_equals(LlmBuilder.from_pretrained(str(tmp_path)).source, meaning)


@pytest.mark.parametrize(
    ("algorithm", "kv_cache", "note"),
    [
        ("FP8", None, "activations are not quantised"),
        ("FP8", "FP8", "activations and the KV cache are not quantised"),
        ("W4A16_AWQ", "FP8", "the KV cache is not quantised"),
        ("W4A16_AWQ", None, ""),
    ],
)
def test_it_is_said_what_stays_float(tmp_path, algorithm, kv_cache, note):
    save_quantised(
        llama(num_hidden_layers=1), tmp_path, config(algorithm, kv_cache_scheme=kv_cache), modelopt(algorithm)
    )
    expected = f"ModelOpt: {note}: products are computed with the dequantised weights\n" if note else ""
    assert warnings_of(LlmBuilder.from_pretrained(str(tmp_path)).source) == expected
