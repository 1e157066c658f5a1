"""What differs between versions of TensorRT-LLM (contract, LLM 3.1, 3.13; multimodal 7)."""

from __future__ import annotations

import pytest

from ditto.errors import ConfigError
from ditto.targets.trtllm.versions import DEFAULT, NAMES, version


def _fields(name):
    return dict(version(name).gpt_attention)


def test_the_attention_plugins_fields():
    assert DEFAULT == "0.19.0"
    assert len(version("0.19.0").gpt_attention) == 58
    for name in NAMES[1:]:
        assert version(name).gpt_attention == version("0.19.0").gpt_attention
    old, new = _fields("0.18.2"), _fields("0.19.0")
    assert old.keys() - new.keys() == {"layer_idx_in_cache_pool"}
    assert new.keys() - old.keys() == {"num_kv_heads_origin", "fuse_fp4_quant"}


def test_the_vision_engines_output():
    assert {name: version(name).vision_output for name in NAMES} == {
        name: "output" if name == "0.18.2" else "encoder_output" for name in NAMES
    }


@pytest.mark.parametrize(
    ("asked", "found"), [("0.19", "0.19.0"), ("0.18.0", "0.18.2"), ("1.2.1", "1.2.0"), ("0.20.0", "0.20.0")]
)
def test_a_line_stands_for_its_releases(asked, found):
    assert version(asked).name == found


@pytest.mark.parametrize("name", ["0.17.0", "2.0", "newest", ""])
def test_other_versions_are_named(name):
    with pytest.raises(ConfigError, match="is not known") as caught:
        version(name)
    assert "choose from 0.18.2, 0.19.0" in str(caught.value)
