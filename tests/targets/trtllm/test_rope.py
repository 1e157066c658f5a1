"""The plugin's tables are Hugging Face's for the kinds of scaling that it is trusted with, and for no others."""

from __future__ import annotations

import pytest
import torch

from ditto.builders.decoder_config import read_decoder_config
from ditto.targets.trtllm.rope import is_same, plugin_rope
from tests.support.models import LLAMA3_ROPE, TRANSFORMERS_5, llama, rope

KINDS = {
    "default": rope(),
    "another base": rope(rope_theta=500000.0) if TRANSFORMERS_5 else {"rope_theta": 500000.0},
    "linear": rope(rope_type="linear", factor=2.5),
    "llama3": LLAMA3_ROPE,
}
POSITIONS = 64


def _facts(model):
    return read_decoder_config(model.config, 128).extra


def _tables(model):
    """Cosines and sines that the model itself computes: [positions, R / 2]."""
    cos, sin = model.model.rotary_emb(torch.zeros(1, 1), torch.arange(POSITIONS)[None])
    half = cos.shape[-1] // 2
    return cos[0, :, :half], sin[0, :, :half]


def _rope(model, width=16, positions=POSITIONS):
    decoder_config = _facts(model)
    return plugin_rope(decoder_config["rotary_base"], decoder_config["rotary_scaling"], width, positions)


@pytest.mark.parametrize("kind", KINDS)
def test_tables_are_hugging_faces(kind):
    model = llama(**KINDS[kind])
    made = _rope(model)
    assert made is not None
    torch.testing.assert_close(made.inv_freq, model.model.rotary_emb.inv_freq, rtol=1e-6, atol=0)
    table = made.cos_sin.reshape(POSITIONS, 8, 2)
    cos, sin = _tables(model)
    torch.testing.assert_close(table[..., 0], cos, rtol=0, atol=2e-5)
    torch.testing.assert_close(table[..., 1], sin, rtol=0, atol=2e-5)
    assert is_same(made, cos, sin)
    assert made.inv_freq.dtype == made.cos_sin.dtype == torch.float32
    assert made.cos_sin.shape == (1, POSITIONS * 16)


def test_tables_are_tensorrt_llms_bit_by_bit():
    """Contract, LLM 9: scale / float32(theta ** (float64 arange(0, R, 2) / R)), angles in float32. A power in float32
    and an exponent in float32 give other numbers here."""
    made = plugin_rope(500000.0, {"type": "linear", "factor": 3.0}, 128, 4096)
    assert made is not None
    powers = torch.tensor([500000.0 ** (column / 128) for column in range(0, 128, 2)], dtype=torch.float64).float()
    wanted = torch.tensor(1 / 3.0, dtype=torch.float32) / powers
    assert torch.equal(made.inv_freq, wanted)
    assert not torch.equal(made.inv_freq, (1 / 3.0 / 500000.0 ** (torch.arange(0, 128, 2) / 128).float()))
    angles = torch.arange(4096, dtype=torch.float32)[:, None] * wanted
    table = made.cos_sin.reshape(4096, 64, 2).double()
    torch.testing.assert_close(table[..., 0], angles.double().cos(), rtol=0, atol=2.5e-7)
    torch.testing.assert_close(table[..., 1], angles.double().sin(), rtol=0, atol=2.5e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_tables_of_another_kind_are_not_the_same(kind):
    made = _rope(llama(**KINDS["default"]))
    cos, sin = _tables(llama(**KINDS[kind]))
    assert made is not None
    assert is_same(made, cos, sin) is (kind == "default")


def test_tables_that_do_not_fit_are_not_the_same():
    model = llama()
    cos, sin = _tables(model)
    narrow, short = _rope(model, width=8), _rope(model, positions=32)
    assert narrow is not None and not is_same(narrow, cos, sin)
    assert short is not None and not is_same(short, cos, sin)
    assert is_same(short, cos[:32], sin[:32])


@pytest.mark.parametrize("kind", ["dynamic", "yarn", "longrope", "mrope"])
def test_other_kinds_stay_with_the_model(kind):
    assert plugin_rope(10000.0, {"type": kind, "factor": 2.0}, 16, POSITIONS) is None
