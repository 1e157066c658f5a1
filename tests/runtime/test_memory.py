"""The memory plan counts what the engines' own files and inputs say, and a message says what to lower."""

from __future__ import annotations

import pytest

from ditto import LlmBuilder
from ditto.errors import DeviceError
from ditto.runtime.memory import MemoryPlan, cache_row_bytes, external_bytes
from tests.support.models import llama

GIB = 2**30


def test_a_row_of_cache_is_keys_and_values_of_every_layer(llama_tree):
    config = llama().config
    positions = llama_tree.config("llm")["build_config"]["max_seq_len"]
    width = config.hidden_size // config.num_attention_heads * config.num_key_value_heads
    assert cache_row_bytes(llama_tree) == 2 * config.num_hidden_layers * positions * width * 4


def test_a_plan_counts_the_engine_files(llava_tree):
    files = [path.stat().st_size for path in llava_tree.root.rglob("*.engine")]
    assert len(files) == sum(len(component.engine_files) for component in llava_tree.manifest.components.values()) == 5
    plan = MemoryPlan.of(llava_tree)
    assert plan.weights == sum(files)
    assert plan.with_scratch(7).loaded == sum(files) + 7
    assert plan.batches == (1, 2)  # one engine, whose profile for single tokens begins at one row
    assert plan.with_rows(3).needed - plan.needed == 2 * cache_row_bytes(llava_tree)


def test_weights_outside_count_as_much_as_inside(tmp_path):
    model = llama(vocab_size=1024, hidden_size=128, num_hidden_layers=3)
    builder = LlmBuilder.from_model(model).with_target("tensorrt-rtx").with_optimize("latency").with_tuning("9.0")
    tree = builder.build(tmp_path / "tree")
    large = sum(p.numel() * 4 for p in model.parameters() if p.numel() * 4 >= 64 * 1024)
    assert large > 0
    assert external_bytes(tree) >= large
    engines = list(tree.root.rglob("*.engine"))
    assert len(engines) == 5 + 3
    assert MemoryPlan.of(tree).weights == external_bytes(tree) + sum(path.stat().st_size for path in engines)


PLAN = MemoryPlan(weights=13 * GIB, scratch=GIB, cache_row=2 * GIB, rows=8, batches=(1, 2, 4, 8))


def test_what_fits_is_accepted():
    PLAN.check(int(30.5 * GIB), 32 * GIB)


@pytest.mark.parametrize(
    ("free", "hint"),
    [
        (23.5, "send at most 4 prompts at once, or build with a smaller --max-seq-len"),
        (21.5, "send at most 2 prompts at once, or build with a smaller --max-seq-len"),
        (14, "build with a smaller --max-seq-len or --max-input-len, or run on a GPU with more memory"),
    ],
)
def test_too_little_memory_says_how_much_is_needed_and_what_to_lower(free, hint):
    with pytest.raises(DeviceError) as caught:
        PLAN.check(int(free * GIB), 24 * GIB)
    assert caught.value.cause == (
        "too little GPU memory: 32.7 GB needed (14.0 GB engines and weights, 17.2 GB KV cache for 8 rows, 1.1 GB "
        f"to work in), {free * GIB / 1e9:.1f} GB of 25.8 GB free"
    )
    assert caught.value.remedy == hint
    assert caught.value.exit_code == 2
