"""A spec is plain data: comparable, the same after a round trip through a manifest, and with a digest of all of it."""

from __future__ import annotations

import pytest
from attrs import evolve, fields

from ditto.arguments import DynamicDimension
from ditto.configs import TensorRTBuilderConfig, TensorRTConfig
from ditto.engine import EngineSpec, PassSpec, Phase, Profile, spec_digest
from ditto.engine.manifest import read_manifest

SPEC = EngineSpec(
    name="llm-decode",
    part="llm",
    dtype="float16",
    profiles=(Profile(Phase.DECODE, {"batch": DynamicDimension("batch", 1, 2, 4)}),),
    weights="external",
    passes=(PassSpec("SplitK", {"shortest_part": 512}),),
    kv_length_step=256,
    decode_attention="products",
    tensorrt=TensorRTConfig(),
    compute_capabilities=("9.0",),
)
CHANGES = {
    "name": "llm",
    "part": "vision",
    "dtype": "float32",
    "profiles": (Profile(Phase.PREFILL, SPEC.profiles[0].ranges),),
    "weights": "embedded",
    "tuning": "9.0",
    "passes": (PassSpec("SplitK", {"shortest_part": 256}),),
    "kv_length_step": None,
    "decode_attention": "sums",
    "tensorrt": TensorRTConfig(builder_config=TensorRTBuilderConfig(tf32=True)),
    "compute_capabilities": (),
}


@pytest.mark.parametrize("name", [field.name for field in fields(EngineSpec)])
def test_every_field_is_in_the_digest(name):
    assert spec_digest(evolve(SPEC, **{name: CHANGES[name]})) != spec_digest(SPEC) == spec_digest(evolve(SPEC))


def test_a_spec_in_a_manifest_is_the_targets_own(llava_tree):
    for name, component in read_manifest(llava_tree.root).components.items():
        assert component.spec == llava_tree.component(name).spec
        assert component.cache_key == {} or component.cache_key["spec"] == spec_digest(component.spec)
        assert isinstance(component.spec.profiles, tuple)


def test_the_first_engine_of_a_part_has_its_name():
    assert not SPEC.is_first and evolve(SPEC, name="llm").is_first
    assert SPEC.phases == {Phase.DECODE}
