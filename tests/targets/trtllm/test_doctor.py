"""The doctor names every difference between a plugin library and our tables."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from ditto.bindings import TensorRT
from ditto.targets.trtllm.doctor import differences
from ditto.targets.trtllm.versions import GEMM_FIELDS, version

TYPES = {"int8": "INT8", "int32": "INT32", "float32": "FLOAT32"}


def library(change=lambda creators: None, half=1):
    """A TensorRT with the plugin creators of 0.19.0, as its registry shows them."""
    tables = {"GPTAttention": version("0.19.0").gpt_attention, "Gemm": GEMM_FIELDS}
    creators = {name: {field: TYPES[kind] for field, kind in fields} for name, fields in tables.items()}
    change(creators)

    def creator(name, number, namespace):
        assert (number, namespace) == ("1", "tensorrt_llm")
        fields = creators.get(name)
        if fields is None:
            return None
        return SimpleNamespace(field_names=[SimpleNamespace(name=key, type=kind) for key, kind in fields.items()])

    module = SimpleNamespace(
        get_plugin_registry=lambda: SimpleNamespace(get_plugin_creator=creator),
        PluginFieldType=SimpleNamespace(INT8="INT8", INT32="INT32", FLOAT32="FLOAT32"),
        DataType=SimpleNamespace(FLOAT=0, HALF=half, BF16=7),
    )
    return TensorRT("tensorrt", module, "10.9.0")


def test_a_library_as_our_tables_say_differs_in_nothing():
    assert differences(library(), "0.19.0") == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c["GPTAttention"].pop("mask_type"), "GPTAttention: Ditto gives `mask_type`, the creator has no"),
        (lambda c: c["Gemm"].update(beta="INT32"), "Gemm: the creator has `beta`, Ditto does not give it"),
        (lambda c: c["Gemm"].update(alpha="INT32"), "Gemm: `alpha` is INT32, Ditto gives float32"),
        (lambda c: c.pop("Gemm"), "Gemm: the library has no such creator, version 1"),
    ],
)
def test_each_difference_is_a_line(change, said):
    (line,) = differences(library(change), "0.19.0")
    assert line.startswith(said)


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["GPTAttention"].update(block_sparse_homo_head_pattern="INT32"),
        lambda c: c["GPTAttention"].update(layer_idx_in_cache_pool="INT32"),
    ],
    ids=["declared as INT32 and read as INT8", "declared and never read"],
)
def test_what_creators_declare_and_do_not_keep_to_is_no_difference(change):
    """Contract, LLM 9: so in 1.3."""
    assert differences(library(change), "0.19.0") == []


def test_a_field_of_a_third_type_is_a_difference():
    def change(creators):
        creators["GPTAttention"]["block_sparse_homo_head_pattern"] = "FLOAT32"

    assert differences(library(change), "0.19.0") == [
        "GPTAttention: `block_sparse_homo_head_pattern` is FLOAT32, Ditto gives int8"
    ]


def test_numbers_of_dtypes_are_compared():
    assert differences(library(half=5), "0.19.0") == ["DataType.HALF is 5, Ditto says 1"]


def test_the_tables_are_those_of_the_installed_version():
    lines = differences(library(), "0.18.2")
    assert [line.split("`")[1] for line in lines] == [
        "layer_idx_in_cache_pool",
        "num_kv_heads_origin",
        "fuse_fp4_quant",
    ]


def test_an_unknown_version_is_said():
    (line,) = differences(library(), "3.0.0")
    assert line.startswith("TensorRT-LLM 3.0.0 is in no table")
