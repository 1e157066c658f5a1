"""Towers of timm are made by timm, and refused by name where it is missing."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from ditto.errors import CheckpointError
from ditto.families.timm_tower import timm_tower

TOWER = SimpleNamespace(model_type="timm_wrapper", architecture="fastvit_mci3", model_args=None)


def test_a_missing_timm_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(
        CheckpointError, match="'fastvit_mci3' is of the package timm, which cannot be imported"
    ) as found:
        timm_tower(TOWER)
    assert "pip install 'ditto-trt[timm]'" in str(found.value)


def test_a_tower_of_another_kind_is_refused():
    with pytest.raises(CheckpointError, match="its tower is a 'clip_vision_model' model"):
        timm_tower(SimpleNamespace(model_type="clip_vision_model"))


def test_an_architecture_that_timm_does_not_know_is_refused():
    pytest.importorskip("timm", exc_type=ImportError)
    unknown = SimpleNamespace(model_type="timm_wrapper", architecture="fastvit_of_nobody", model_args={})
    with pytest.raises(CheckpointError, match="cannot make the tower 'fastvit_of_nobody'"):
        timm_tower(unknown)
    with pytest.raises(CheckpointError, match="cannot make the tower 'fastvit_mci3'"):
        timm_tower(SimpleNamespace(**{**vars(TOWER), "model_args": {"layers": "many"}}))
