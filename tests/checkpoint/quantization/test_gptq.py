"""GPTQ's files of both versions, in order and by activations, mean what their layout says."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from ditto import LlmBuilder
from ditto.checkpoint.formats import check_form
from ditto.errors import CheckpointError
from tests.support.models import llama
from tests.support.quantised import gptq, linears, loaded_equals, save_quantised

CONFIG = {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": False}
WEIGHT = "model.layers.0.self_attn.q_proj.weight"


def loaded_weight(directory):
    loaded = LlmBuilder.from_pretrained(str(directory)).source.load(torch.float32)
    return loaded.weights[id(loaded.model.get_parameter(WEIGHT))]


@pytest.mark.parametrize("order", [False, True], ids=["in order", "by activations"])
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [4, 8])
def test_weights_are_read_exactly(tmp_path, bits, symmetric, version, order):
    config = {**CONFIG, "bits": bits, "sym": symmetric, "desc_act": order}
    config["checkpoint_format"] = "gptq" if version == 1 else "gptq_v2"
    meaning = save_quantised(llama(num_hidden_layers=1), tmp_path, config, gptq(bits, 32, symmetric, version, order))
    loaded_equals(LlmBuilder.from_pretrained(str(tmp_path)).source, meaning)
    weight = loaded_weight(tmp_path)
    assert (weight.zeros is None, weight.groups is None) == (symmetric, not order)


def test_one_group_for_all_columns(tmp_path):
    meaning = save_quantised(
        llama(num_hidden_layers=1, intermediate_size=64), tmp_path, {**CONFIG, "group_size": -1}, gptq(group=64)
    )
    loaded_equals(LlmBuilder.from_pretrained(str(tmp_path)).source, meaning)


def test_the_versions_differ_by_one(tmp_path):
    meaning = save_quantised(
        llama(num_hidden_layers=1), tmp_path, {**CONFIG, "checkpoint_format": "gptq_v2"}, gptq(symmetric=False)
    )
    with pytest.raises(AssertionError, match="layers.0"):
        loaded_equals(LlmBuilder.from_pretrained(str(tmp_path)).source, meaning)


def test_the_order_of_columns_matters(tmp_path):
    meaning = save_quantised(llama(num_hidden_layers=1), tmp_path, CONFIG, gptq(order=True))
    path = tmp_path / "model.safetensors"
    tensors = {name: tensor for name, tensor in load_file(path).items() if not name.endswith("g_idx")}
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(AssertionError, match="layers.0"):
        loaded_equals(LlmBuilder.from_pretrained(str(tmp_path)).source, meaning)


@pytest.mark.parametrize("bits", [4, 8])
def test_a_zero_point_that_libraries_read_differently_is_refused(tmp_path, bits):
    save_quantised(llama(num_hidden_layers=1), tmp_path, {**CONFIG, "bits": bits}, gptq(bits, symmetric=False))
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    name = "model.layers.0.self_attn.q_proj.qzeros"
    tensors[name][1, 2] |= 2**bits - 1
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="zero points beyond the range of the format's first version"):
        loaded_weight(tmp_path)


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"checkpoint_format": "marlin"}, "GPTQ: the format 'marlin' is not read"),
        ({"bits": 3}, "3 bits are not read"),
        ({"bits": None}, "None bits are not read"),
        ({"group_size": -2}, "group_size is -2"),
        ({"dynamic": {"-:lm_head": {}}}, "`dynamic` is not read"),
        ({"planar": True}, "`planar` is not read"),
        ({"pack_dtype": "int16"}, "words of int16 are not read"),
    ],
)
def test_other_variants_are_refused(tmp_path, stated, message):
    save_quantised(llama(num_hidden_layers=1), tmp_path, {**CONFIG, **stated}, lambda name: None)
    with pytest.raises(CheckpointError, match=message):
        check_form(tmp_path)


def test_some_layers_may_stay_float(tmp_path):
    model = llama(num_hidden_layers=1)
    half = list(linears(model))[::2]
    meaning = save_quantised(model, tmp_path, CONFIG, lambda name: gptq() if name in half else None)
    loaded_equals(LlmBuilder.from_pretrained(str(tmp_path)).source, meaning)
