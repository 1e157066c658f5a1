"""Patches to a captured copy do what they say, where they are needed, and nowhere else."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from benchmarks.tiny_models import tiny_model
from ditto.capture.patches import freeze_rope_scaling, select_mrope_columns, state_windows
from ditto.errors import UnsupportedFeature
from tests.support.models import LONGROPE, TEXT_MODELS, TRANSFORMERS_5, llama, rope


@pytest.mark.skipif(TRANSFORMERS_5, reason="transformers from 4.53 on makes masks through a registry")
def test_gemma2_on_old_transformers_states_its_windows_instead_of_cutting_masks():
    model = TEXT_MODELS["gemma2 with soft-caps and windows"]()
    twin = copy.deepcopy(model)
    state_windows(twin)
    assert twin.model._update_causal_mask(torch.ones(1, 3), None, None, None, False) is None
    assert "_update_causal_mask" not in vars(model.model)
    assert model.model._update_causal_mask.__func__ is type(model.model)._update_causal_mask
    windows = [layer.self_attn.sliding_window for layer in twin.model.layers]
    assert windows == [5, None]


def test_other_models_are_left_alone():
    model = llama()
    before = [dict(vars(part)) for part in model.modules()]
    state_windows(model)
    assert [dict(vars(part)) for part in model.modules()] == before


@pytest.mark.skipif(not TRANSFORMERS_5, reason="transformers before 4.53 cuts windows out of masks")
def test_new_transformers_needs_no_patch():
    model = TEXT_MODELS["gemma2 with soft-caps and windows"]()
    state_windows(model)
    assert not any("_update_causal_mask" in vars(part) for part in model.modules())


# A kind of scaling, and the length up to which its frequencies stay.
KINDS = {"dynamic": (rope(rope_type="dynamic", factor=2.0), 64), "longrope": (rope(**LONGROPE), 32)}


@pytest.mark.parametrize("kind", KINDS)
def test_rope_keeps_the_frequencies_of_sequences_that_do_not_reach_their_change(kind):
    settings, length = KINDS[kind]
    model = llama(**settings, **({"original_max_position_embeddings": 32} if kind == "longrope" else {}))
    twin = copy.deepcopy(model)
    freeze_rope_scaling(twin, length)
    x, positions = torch.zeros(1, 1), torch.arange(length)[None]
    for found, wanted in zip(twin.model.rotary_emb(x, positions), model.model.rotary_emb(x, positions), strict=True):
        assert torch.equal(found, wanted)
    assert model.model.rotary_emb.rope_type == kind
    with pytest.raises(
        UnsupportedFeature, match=f"{kind} rope changes its frequencies in sequences of more than {length}"
    ):
        freeze_rope_scaling(copy.deepcopy(model), length + 1)


@pytest.mark.skipif(not TRANSFORMERS_5, reason="transformers 4.51 computes Phimoe's rope from the sequence's length")
def test_phimoe_keeps_the_factor_of_short_sequences():
    factors = {"short_factor": [1.0 + index / 10 for index in range(16)], "long_factor": [3.0] * 16}
    scales = {"short_mscale": 1.243, "long_mscale": 1.5, "original_max_position_embeddings": 32, "factor": 4.0}
    stated = {"rope_type": "longrope", "rope_theta": 10000.0, **factors, **scales}
    model = tiny_model("phimoe", edit=lambda config: (setattr(config, "rope_parameters", stated), config)[1])
    twin = copy.deepcopy(model)
    freeze_rope_scaling(twin, 32)
    assert twin.model.rotary_emb.config.rope_parameters["rope_type"] == "default"
    x, positions = torch.zeros(1, 1), torch.arange(32)[None]
    for found, wanted in zip(twin.model.rotary_emb(x, positions), model.model.rotary_emb(x, positions), strict=True):
        assert torch.equal(found, wanted)


class _Rotary(nn.Module):
    """Multimodal rope as transformers writes it, over 3 columns of each axis."""

    def __init__(self, compose):
        super().__init__()
        self.inv_freq, self.mrope_section, self.compose = torch.ones(3), [1, 1, 1], compose

    def recomposition_frequencies(self, freq):
        return self.compose(freq)


def _sections(freq):
    parts = torch.cat([part[axis] for axis, part in enumerate(freq.split([1, 1, 1], dim=-1))], dim=-1)
    return torch.cat((parts, parts), dim=-1)


def _interleaved(freq):
    first = freq[0]
    for axis in (1, 2):
        first[..., axis:3:3] = freq[axis, ..., axis:3:3]
    return torch.cat((first, first), dim=-1)


def _repeated(freq):
    return _sections(freq)[..., :3].repeat_interleave(2, dim=-1)


@pytest.mark.parametrize("compose", [_sections, _interleaved, _repeated])
def test_columns_of_multimodal_rope_are_selected(compose):
    freq, rotary = torch.randn(3, 2, 5, 3), _Rotary(compose)
    select_mrope_columns(nn.ModuleList([rotary]))
    assert torch.equal(rotary.recomposition_frequencies(freq), compose(freq.clone()))
    assert "recomposition_frequencies" in vars(rotary)


def test_columns_of_each_kind_of_layers_are_selected():
    rotary = _Rotary(None)
    rotary.mrope_section = {"full": [1, 1, 1], "sliding": [1, 1, 1]}
    rotary.full_inv_freq = rotary.sliding_inv_freq = torch.ones(3)
    composes = {"full": _interleaved, "sliding": _sections}
    rotary.recomposition_frequencies = lambda freq, layer_type: composes[layer_type](freq)
    before = rotary.recomposition_frequencies
    select_mrope_columns(rotary)
    assert rotary.recomposition_frequencies is not before
    for kind, compose in composes.items():
        freq = torch.randn(3, 2, 5, 3)
        assert torch.equal(rotary.recomposition_frequencies(freq, kind), compose(freq.clone()))


def test_other_compositions_are_left_alone():
    rotary = _Rotary(lambda freq: freq[0] + freq[1])
    select_mrope_columns(rotary)
    assert "recomposition_frequencies" not in vars(rotary)
