"""What is measured on a GPU is compiled and given inputs that it can run on."""

from __future__ import annotations

import pytest
import torch
from attrs import evolve

from benchmarks.gpu_limits import (
    Drawn,
    Found,
    Task,
    cold_bytes,
    compiled,
    in_torch,
    operands,
    tasks,
    told,
)
from benchmarks.pieces import cut, kinds
from ditto.bindings import load_native
from ditto.reference import Constants, run
from ditto.runtime.weights import network_of
from tests.support.forms import with_input_sizes
from tests.support.trees import LlavaModel, llava

CONTEXT = 12


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A LLaVA's tree as it is for speed: external weights, profiles for usual prompts."""
    model = LlavaModel.from_model(llava(text={"num_hidden_layers": 3, "max_position_embeddings": 1024}))
    model = model.with_batch(2).with_max_seq_len(1024).with_max_input_len(600).with_opt_input_len(CONTEXT)
    return (
        model.with_target("tensorrt-rtx")
        .with_optimize("latency")
        .with_tuning("9.0")
        .build_all(tmp_path_factory.mktemp("limits") / "t")
    )


def kind(tree, name):
    return next(task for task in tasks(tree, [2], CONTEXT) if task.kind == name)


def test_tasks_are_run_at_the_sessions_sizes(tree):
    asked = tasks(tree, [1, 2], CONTEXT)
    assert [(task.kind, task.batch) for task in asked] == [
        (kind, batch) for kind in ("vision", "prefill", "decode") for batch in (1, 2)
    ]
    for task in asked:
        ranges = tree.component(task.component).spec.profiles[task.profile].ranges
        for name, accepted in ranges.items():
            assert accepted.min <= task.sizes[name] <= accepted.max
    step = kind(tree, "decode")
    assert tree.component("llm-decode").spec.profiles[step.profile].label() == "decode batch=2 kv_length=256"
    assert (step.sizes["kv_length"], step.cached, step.sizes["prompt_rows"]) == (256, CONTEXT, 1)
    assert (
        tree.component("llm").spec.profiles[kind(tree, "prefill").profile].label()
        == f"prefill batch=2 sequence={CONTEXT}"
    )


def test_a_tree_of_one_engine_looks_at_its_whole_cache(llama_tree):
    step = tasks(llama_tree, [2], CONTEXT)[-1]
    capacity = llama_tree.config("llm")["build_config"]["max_seq_len"]
    assert (step.component, step.sizes["kv_length"]) == ("llm", capacity)
    for piece in cut(network_of(llama_tree, "llm")):
        assert operands(piece, step, torch.device("cpu")).keys() == piece.network.inputs.keys()


@pytest.mark.parametrize("name", ["vision", "prefill", "decode"])
def test_every_piece_runs_on_what_is_drawn_for_it(tree, name):
    task = kind(tree, name)
    network = network_of(tree, task.component)
    for piece, _ in kinds(cut(network)):
        given = operands(piece, task, torch.device("cpu"))
        made = run(with_input_sizes(piece.network, task.sizes), given, Constants(piece.network, Drawn(piece.network)))
        for output, value in piece.network.outputs.items():
            spec = piece.network.value(value).spec
            assert made[output].dtype == spec.dtype
            assert made[output].isfinite().all() if spec.dtype.is_floating_point else True


@pytest.mark.parametrize("name", ["vision", "prefill", "decode"])
def test_pytorch_computes_the_same_products_and_attention(tree, name):
    task = kind(tree, name)
    for piece, _ in kinds(cut(network_of(tree, task.component))):
        if piece.is_kernel:
            torch.manual_seed(0)
            given = operands(piece, task, torch.device("cpu"))
            (made,) = run(
                with_input_sizes(piece.network, task.sizes), given, Constants(piece.network, Drawn(piece.network))
            ).values()
            torch.testing.assert_close(in_torch(piece, given)(), made)


@pytest.mark.parametrize("name", ["vision", "prefill", "decode"])
def test_every_piece_compiles(tree, name, tmp_path):
    task = kind(tree, name)
    profile = tree.component(task.component).spec.profiles[task.profile]
    for index, (piece, _) in enumerate(kinds(cut(network_of(tree, task.component)))):
        path = tmp_path / f"{index}.engine"
        size = compiled(piece.network, Drawn(piece.network), profile, load_native("tensorrt_rtx"), path)
        assert size == path.stat().st_size > 0


def test_weights_and_the_slots_looked_at_come_from_memory(tree):
    task = kind(tree, "decode")
    pieces = cut(network_of(tree, task.component))
    product = next(piece for piece in pieces if piece.is_kernel)
    (weight,) = product.fixed
    assert cold_bytes(product, task.sizes) == operands(product, task, torch.device("cpu"))[weight].nbytes
    attention = next(piece for piece in pieces if piece.network.shared)
    own = operands(attention, task, torch.device("cpu"), [*attention.network.shared.values()])
    assert own.keys() == {"past_key_0", "past_value_0"}
    assert cold_bytes(attention, task.sizes) == sum(cache[:, :, :256].nbytes for cache in own.values())


def test_titles_name_shapes_of_kernels_and_kinds_and_place_of_the_rest(tree):
    task = kind(tree, "prefill")
    pieces = cut(network_of(tree, "llm"))
    for piece in pieces:
        title = piece.title(task.sizes)
        if piece.is_kernel:
            assert title.startswith(("MatrixMultiply ", "Attention ")) and "x" in title
    writes = next(piece for piece in pieces if piece.network.shared).title(task.sizes)
    # Rope of queries and keys: of each three layers of elements, and a slice for the other half.
    for told_of in ("2 KVCacheUpdate", "7 ElementWise", "5 Slice", "layers.0.self_attn"):
        assert told_of in writes


def test_a_row_adds_up_what_was_found():
    task = Task("decode", 1, "decode", 0, {})
    product = Found("product", True, 3, 2.0, 1.0)
    rest = evolve(product, part="rest", is_kernel=False, times=2, tensorrt_ms=0.25, torch_ms=None)
    row, record = told(task, [product, rest], 7.0)
    assert row == "| decode, batch 1 | 6.00 ms | 3.00 ms | 0.50 ms | 6.50 ms | 7.00 ms | 4.00 ms | 4.5 |"
    assert (record["kernels_ms"], record["rest_ms"], record["all_ms"], len(record["parts"])) == (6.0, 0.5, 6.5, 2)
    assert record["like_torch_ms"] == 4.0
    row, record = told(task, [product, rest], None)
    assert row == "| decode, batch 1 | 6.00 ms | 3.00 ms | 0.50 ms | 6.50 ms |  |  | 4.5 |"
    assert record["like_torch_ms"] is None
