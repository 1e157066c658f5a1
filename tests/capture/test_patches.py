"""Patches to a captured copy do what they say, where they are needed, and nowhere else."""

from __future__ import annotations

import copy

import pytest
import torch

from ditto.capture.patches import state_windows
from tests.support.models import TEXT_MODELS, TRANSFORMERS_5, llama


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
