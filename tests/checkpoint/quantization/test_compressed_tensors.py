"""compressed-tensors' files mean what the library's layouts say, module by module."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from ditto import LlavaModel, LlmBuilder
from ditto.checkpoint.formats import check_form
from ditto.errors import CheckpointError
from tests.support.models import llama, llava
from tests.support.quantised import (
    compressed_config,
    float_quantized,
    int_quantized,
    loaded_equals,
    nvfp4,
    pack_quantized,
    save_quantised,
)

INT4 = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": 32}
INT8 = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel"}
FP8 = {"num_bits": 8, "type": "float", "symmetric": True, "strategy": "tensor"}
NVFP4 = {"num_bits": 4, "type": "float", "symmetric": True, "strategy": "tensor_group", "group_size": 16}
BLOCKS = {**FP8, "strategy": "block", "block_structure": [16, 32]}
STATIC = {"input_activations": {"num_bits": 8, "type": "float", "strategy": "tensor", "dynamic": False}}

MLP_NAMES = [f"model.layers.0.mlp.{name}_proj" for name in ("up", "gate", "down")]

FORMS = {
    "int4": (compressed_config(INT4), pack_quantized()),
    "int4 with scales in float16": (compressed_config(INT4), pack_quantized(dtype=torch.float16)),
    "int4, asymmetric": (compressed_config({**INT4, "symmetric": False}), pack_quantized(symmetric=False)),
    "int4 by row": (compressed_config({**INT4, "strategy": "channel", "group_size": None}), pack_quantized(group=-1)),
    "int4, one group": (compressed_config({**INT4, "group_size": -1}), pack_quantized(group=-1)),
    "int4 by activations": (compressed_config({**INT4, "actorder": "group"}), pack_quantized(order=True)),
    "int8, packed": (compressed_config({**INT4, "num_bits": 8}), pack_quantized(bits=8)),
    "int8": (compressed_config(INT8, "int-quantized"), int_quantized()),
    "int8, asymmetric": (compressed_config({**INT8, "symmetric": False}, "int-quantized"), int_quantized(False)),
    "fp8": (compressed_config(FP8, "float-quantized", group=STATIC), float_quantized("tensor", static=True)),
    "fp8 by row": (compressed_config({**FP8, "strategy": "channel"}, "float-quantized"), float_quantized("channel")),
    "fp8 by block": (compressed_config(BLOCKS, "float-quantized"), float_quantized("block")),
    "nvfp4": (compressed_config(NVFP4, "nvfp4-pack-quantized"), nvfp4("weight_global_scale", divides=True)),
}


@pytest.mark.parametrize("name", FORMS)
def test_weights_are_read_exactly(tmp_path, name):
    meaning = save_quantised(llama(num_hidden_layers=1), tmp_path, *FORMS[name])
    loaded_equals(LlmBuilder.from_pretrained(str(tmp_path)).source, meaning)


def test_widths_that_do_not_fill_their_words(tmp_path):
    model = llama(
        num_hidden_layers=1, hidden_size=60, num_attention_heads=3, num_key_value_heads=1, intermediate_size=84
    )
    config = compressed_config({**INT4, "symmetric": False, "group_size": 12})
    meaning = save_quantised(model, tmp_path, config, pack_quantized(group=12, symmetric=False))
    loaded_equals(LlmBuilder.from_pretrained(str(tmp_path)).source, meaning)


def test_a_llava_whose_decoder_is_quantised(tmp_path):
    meaning = save_quantised(llava(), tmp_path, *FORMS["int4"])
    loaded_equals(LlavaModel.from_pretrained(str(tmp_path)).llm.source, meaning)


@pytest.mark.parametrize("targets", [["re:.*mlp.*"], MLP_NAMES], ids=["patterns", "names"])
def test_modules_have_the_scheme_that_names_them(tmp_path, targets):
    config = compressed_config(INT4, "mixed-precision")
    other = compressed_config(INT8, targets=targets)["config_groups"]["group_0"]
    config["config_groups"]["group_1"] = other
    writers = {True: int_quantized(), False: pack_quantized()}
    meaning = save_quantised(llama(num_hidden_layers=1), tmp_path, config, lambda name: writers["mlp" in name])
    loaded_equals(LlmBuilder.from_pretrained(str(tmp_path)).source, meaning)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (compressed_config({**INT4, "group_size": 16}), "scales of shape"),
        (compressed_config({**INT4, "num_bits": 8}), "has packed values"),
        (compressed_config({**INT4, "symmetric": False}), "has no `weight_zero_point`"),
        (compressed_config(FP8), "has packed values, and the configuration says FP8"),
        (
            compressed_config(INT4, targets=["re:.*mlp.*"]),
            "layers.0.self_attn.k_proj` is quantised, and 0 groups",
        ),
        (compressed_config(INT4, ignore=["re:.*mlp.*"]), "mlp.down_proj` is quantised, and .* `ignore`"),
    ],
)
def test_tensors_that_contradict_the_configuration_are_refused(tmp_path, config, message):
    save_quantised(llama(num_hidden_layers=1), tmp_path, config, pack_quantized())
    with pytest.raises(CheckpointError, match=f"compressed-tensors: .*{message}"):
        LlmBuilder.from_pretrained(str(tmp_path)).source.load(torch.float32)


def test_zero_points_of_a_symmetric_scheme_are_refused(tmp_path):
    save_quantised(llama(num_hidden_layers=1), tmp_path, compressed_config(INT4), pack_quantized(symmetric=False))
    with pytest.raises(CheckpointError, match="has zero points, and the configuration says that it is symmetric"):
        LlmBuilder.from_pretrained(str(tmp_path)).source.load(torch.float32)


def test_two_schemes_for_a_module_are_refused(tmp_path):
    config = compressed_config(INT4)
    config["config_groups"]["group_1"] = compressed_config({**INT4, "symmetric": False})["config_groups"]["group_0"]
    save_quantised(llama(num_hidden_layers=1), tmp_path, config, pack_quantized())
    with pytest.raises(CheckpointError, match="2 groups of the configuration are for it"):
        LlmBuilder.from_pretrained(str(tmp_path)).source.load(torch.float32)


@pytest.mark.parametrize("part", ["weight_packed", "weight_scale", "weight_zero_point"])
def test_every_tensor_matters(tmp_path, part):
    meaning = save_quantised(llama(num_hidden_layers=1), tmp_path, *FORMS["int4, asymmetric"])
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    name = f"model.layers.0.self_attn.o_proj.{part}"
    tensors[name] = tensors[name].roll(1, 1).contiguous()
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(AssertionError, match=r"layers.0.self_attn.o_proj.weight"):
        loaded_equals(LlmBuilder.from_pretrained(str(tmp_path)).source, meaning)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (compressed_config(NVFP4, "mxfp4-pack-quantized"), "the format 'mxfp4-pack-quantized' is not read"),
        (compressed_config(INT4, "marlin-24"), "the format 'marlin-24' is not read"),
        (compressed_config(INT4, group={"format": "mxfp4-pack-quantized"}), "'mxfp4-pack-quantized' is not read"),
        (compressed_config(INT4, config_groups={}), "has no `config_groups`"),
        (compressed_config(INT4, quantization_status="frozen"), "the status is 'frozen'"),
        (compressed_config(INT4, sparsity_config={"format": "sparse-24-bitmask"}), "sparse weights are not read"),
        (compressed_config(INT4, kv_cache_scheme={"num_bits": 8}), "`kv_cache_scheme` is not read"),
        (compressed_config(INT4, transform_config={"config_groups": {"R1": {}}}), "`transform_config` is not read"),
        (compressed_config({**INT4, "num_bits": 3}), "weights of 3 bits and type 'int' are not read"),
        (compressed_config({**FP8, "num_bits": 4}), "FP4 with the strategy 'tensor' is not read"),
        (compressed_config({**FP8, "num_bits": 6}), "weights of 6 bits and type 'float' are not read"),
        (compressed_config({**INT4, "strategy": "token"}), "the strategy 'token'"),
        (compressed_config({**INT4, "group_size": None}), "the strategy 'group' with group_size None"),
        (compressed_config({**BLOCKS, "block_structure": "128x128"}), "and blocks 128x128 is not read"),
        (compressed_config(INT4, group={"weights": None}), "has no `weights` or no `targets`"),
    ],
)
def test_other_variants_are_refused(tmp_path, config, message):
    save_quantised(llama(num_hidden_layers=1), tmp_path, config, lambda name: None)
    with pytest.raises(CheckpointError, match=message):
        check_form(tmp_path)
