"""The conformance checker passes a good tree and names each planted violation, no more and no less."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from attrs import evolve

from ditto.network import Network, Node, Spec, symbol
from ditto.network.layers import Cast, Constant, Identity
from tests.support.conformance import VERSIONS, Tree, load_tables, violations
from tests.support.conformance.sample import BATCH, BLOCK, LAYERS, ROWS, SEQUENCE, Stated, good_tree, llm_inputs

VERSION = "0.19.0"
Plant = Callable[[Tree], Any]
PLANTED: dict[str, tuple[Plant, tuple[str, ...]]] = {}


def planted(name: str, messages: str | tuple[str, ...], plant: Plant) -> None:
    """What a planting function does to a good tree, and all that is to be said of it."""
    assert name not in PLANTED
    PLANTED[name] = plant, (messages,) if isinstance(messages, str) else messages


@pytest.mark.parametrize("version", VERSIONS)
def test_a_good_tree_has_no_violations(version):
    assert violations(good_tree(version), version) == []


@pytest.mark.parametrize("version", VERSIONS)
def test_tables_are_whole(version):
    data = load_tables(version).data
    rows = [*data["ranges"], *data["checks"], *data["files"], *data["plugins"]]
    rows += [row for part in ("llm", "vision") for key in ("config", "inputs", "outputs") for row in data[part][key]]
    rows += [row for plugin in data["plugins"] for key in ("fields", "inputs", "outputs") for row in plugin[key]]
    assert all(row["source"] for row in rows)
    attention = next(row for row in data["plugins"] if row["creator"] == "GPTAttention")
    assert len(attention["fields"]) == (57 if version == "0.18.2" else 58)
    keys = [row["path"] for row in data["llm"]["config"] if "plugin_config." in row["path"]]
    assert len(keys) == (41 if version == "0.18.2" else 42)


def test_versions_differ_where_the_contract_says():
    fields = {
        version: [row["name"] for row in load_tables(version).plugin("AllReduce")["fields"]] for version in VERSIONS
    }
    assert [version for version in VERSIONS if "config" in fields[version]] == ["0.18.2", "0.19.0"]
    strategies = {version: load_tables(version).data["sets"]["all_reduce_strategies"] for version in VERSIONS}
    assert {version: (known["UB"], known["AUTO"]) for version, known in strategies.items()} == {
        version: (3, 4) if version in ("0.18.2", "0.19.0") else (2, 3) for version in VERSIONS
    }
    outputs = {version: load_tables(version).data["vision"]["outputs"][0]["name"] for version in VERSIONS}
    assert [version for version in VERSIONS if outputs[version] == "output"] == ["0.18.2"]


# config.json


def config(part: str, path: str, value: Any) -> Plant:
    def plant(tree: Tree) -> None:
        *above, last = path.split(".")
        holder = tree.parts[part].config
        for key in above:
            holder = holder.setdefault(key, {})
        holder[last] = value

    return plant


def without(part: str, path: str) -> Plant:
    def plant(tree: Tree) -> None:
        *above, last = path.split(".")
        holder = tree.parts[part].config
        for key in above:
            holder = holder[key]
        del holder[last]

    return plant


def llm(path: str, value: Any) -> Plant:
    return config("llm", path, value)


def vision(path: str, value: Any) -> Plant:
    return config("vision", f"builder_config.{path}", value)


PRETRAINED, BUILD, PLUGIN = "pretrained_config.", "build_config.", "build_config.plugin_config."
for key in (
    "version",
    "pretrained_config.architecture",
    "pretrained_config.dtype",
    "pretrained_config.mapping.tp_size",
    "pretrained_config.quantization",
    "build_config.max_num_tokens",
    "build_config.opt_num_tokens",
    "build_config.kv_cache_type",
    "build_config.lora_config",
    "build_config.plugin_config.gpt_attention_plugin",
    "build_config.plugin_config.tokens_per_block",
    "build_config.plugin_config.lora_plugin",
):
    planted(f"no {key}", rf"llm/config.json: {key} is missing", without("llm", key))
for key in ("model_type", "precision", "output_shape", "model_name", "tensor_parallel", "max_batch_size"):
    key = f"builder_config.{key}"
    planted(f"no {key}", rf"vision/config.json: {key} is missing", without("vision", key))
for key, value, kind in (
    (PRETRAINED + "vocab_size", "40", "int"),
    (PRETRAINED + "num_hidden_layers", True, "int"),
    (PRETRAINED + "moe", None, "object"),
    (PRETRAINED + "mapping", None, "object"),
    (PRETRAINED + "quantization.group_size", 0.5, "int or null"),
    (BUILD + "max_seq_len", None, "int"),
    (BUILD + "gather_context_logits", 0, "bool"),
    (BUILD + "lora_config.lora_dir", "here", "list.str."),
    (PLUGIN + "paged_kv_cache", None, "bool"),
    (PLUGIN + "use_fused_mlp", "true", "bool"),
    (BUILD + "output_timing_cache", None, "str"),
    (PLUGIN + "gpt_attention_plugin", None, "str"),
):
    planted(f"{key} of a wrong type", rf"{key} is .* which is no {kind} \[LLM 1", llm(key, value))
for key, value in (("max_batch_size", "4"), ("tensor_parallel", 1.0), ("output_shape", [-1, "6", 32])):
    planted(f"vision {key} of a wrong type", rf"builder_config.{key} is .* which is no", vision(key, value))
for key, value in (
    (PRETRAINED + "architecture", "LlavaForConditionalGeneration"),
    (PRETRAINED + "logits_dtype", "bfloat16"),
    (PRETRAINED + "position_embedding_type", "rope"),
    (BUILD + "speculative_decoding_mode", 0),
    (PLUGIN + "gemm_plugin", "int8"),
    (PLUGIN + "low_latency_gemm_plugin", "float16"),
    (BUILD + "output_timing_cache", "other.cache"),
):
    planted(f"{key} of no legal value", rf"{key} is .* which no reader takes", llm(key, value))
planted(
    "a dtype that no reader knows",
    ("pretrained_config.dtype is 'fp16', which no reader takes", "plugin_config.dtype is", "gpt_attention_plugin is"),
    llm(PRETRAINED + "dtype", "fp16"),
)
planted(
    "a cache of an unknown kind",
    ("kv_cache_type is 'paged cache', which no reader takes", "paged_kv_cache is True, which breaks"),
    llm(BUILD + "kv_cache_type", "paged cache"),
)
planted(
    "a world of two for one engine",
    ("mapping.world_size is 2, which breaks `value == tp", "nccl_plugin is None, which breaks"),
    llm(PRETRAINED + "mapping.world_size", 2),
)
for key, value in (("model_name", "multimodal"), ("precision", "int8"), ("model_type", "llama")):
    planted(f"vision {key} of no legal value", rf"builder_config.{key} is .* no reader takes", vision(key, value))
for key, value in (
    (BUILD + "logits_dtype", "float32"),
    (BUILD + "dry_run", False),
    (PRETRAINED + "mapping.rank", 0),
    (PRETRAINED + "quantization.bits", 4),
    ("plugin_config", {}),
):
    planted(f"{key} where it must not be", rf"{key} is there and must not be", llm(key, value))
planted("a versioned vision file", "vision/config.json: version is there", config("vision", "version", VERSION))
planted("a vision file of the new form", "pretrained_config is there", config("vision", "pretrained_config", {}))
planted("a stranger in the vision file", "ditto is there", config("vision", "ditto", 1))
planted("vision max_input_len", "builder_config.max_input_len is there", vision("max_input_len", 4))
planted("another version", r"version is '0.20.0', which breaks .value != 'none'", llm("version", "0.20.0"))
for key, value, test in (
    (PRETRAINED + "num_key_value_heads", 3, "num_attention_heads % value"),
    (BUILD + "opt_batch_size", BATCH + 1, "1 <= value <= batch"),
    (BUILD + "opt_num_tokens", 4096, "build.max_num_tokens"),
    (PLUGIN + "dtype", "bfloat16", "value == pretrained.dtype"),
    (PLUGIN + "paged_state", True, "not value"),
    (PLUGIN + "nccl_plugin", "auto", "world_size == 1"),
    (PLUGIN + "use_fp8_context_fmha", True, "quant_algo"),
    (PLUGIN + "context_fmha", False, "use_paged_context_fmha|plugin.context_fmha"),
    (PLUGIN + "tokens_per_block", 48, "value & "),
    (PLUGIN + "reduce_fusion", True, "tp > 1"),
    (BUILD + "max_num_tokens", BATCH * SEQUENCE + 1, "build.max_seq_len . batch"),
    (BUILD + "max_num_tokens", BLOCK - 1, "fewest_tokens <= value"),
):
    planted(f"{key} {value} that contradicts another", rf"is {value!r}, which breaks .*{test}", llm(key, value))
planted(
    "a Gemma 2 without its scale and its soft-caps",
    (
        "query_pre_attn_scalar is missing",
        r"attn_logit_softcapping is missing \[LLM 9\]",
        r"final_logit_softcapping is missing \[LLM 9\]",
    ),
    llm(PRETRAINED + "architecture", "Gemma2ForCausalLM"),
)
planted(
    "a Qwen without its type and its length",
    ("qwen_type is missing", r"seq_length is missing \[LLM 9\]"),
    llm(PRETRAINED + "architecture", "Qwen2ForCausalLM"),
)
for windows in ([8], [8, 0], [8, SEQUENCE + 1]):
    planted(
        f"windows {windows} that are not one for each layer",
        r"max_attention_window is .* which breaks `len.value. == layers",
        llm(PRETRAINED + "runtime_defaults", {"max_attention_window": windows}),
    )
planted(
    "a window that is not a number",
    "max_attention_window is .* which is no list.int.",
    llm(PRETRAINED + "runtime_defaults", {"max_attention_window": [8, 8.0]}),
)
planted(
    "a runtime default that no version reads",
    "runtime_defaults.windows is there and must not be",
    llm(PRETRAINED + "runtime_defaults", {"max_attention_window": [8, 64], "sink_token_length": 4, "windows": [8]}),
)
planted("experts without a number", "moe.num_experts is missing", llm(PRETRAINED + "moe", {}))


# Checks over the whole tree


def rows_of_table(tree: Tree, rows: int) -> None:
    tree.parts["llm"].config["build_config"]["max_prompt_embedding_table_size"] = rows
    tree.parts["llm"].profiles["llm"]["prompt_rows"] = [1, rows // 2, rows]


def precision(tree: Tree, name: str) -> None:
    tree.parts["vision"].config["builder_config"]["precision"] = name


planted(
    "a prompt table too small for the batch",
    "max_prompt_embedding_table_size // max_batch_size is less than one image's rows",
    lambda tree: rows_of_table(tree, ROWS),
)


def limits(tree: Tree, **changed: Any) -> None:
    tree.parts["llm"].config["build_config"].update(changed)


planted(
    "a tower of another width",
    ("output encoder_output, axis 2, is 32, not 64", "the vision tower's width is not the language model's"),
    vision("output_shape", [-1, ROWS, 64]),
)
planted(
    "a tower of another dtype",
    ("input input is float16, not float32", "output encoder_output is float16", "vision precision differs"),
    vision("precision", "float32"),
)
planted(
    "images that fill the whole prompt",
    ("max_context_length, is 48",) * LAYERS + ("max_input_len has no room for an image and a word",),
    lambda tree: limits(tree, max_input_len=ROWS),
)
planted(
    "an engine whose weights stream", "weight streaming cannot run", lambda tree: limits(tree, weight_streaming=True)
)
planted(
    "drafts without a mode",
    "max_draft_len and speculative_decoding_mode contradict",
    llm(BUILD + "speculative_decoding_mode", 4),
)
planted(
    "GEMM plugins both on and off", "both asked for and disabled", llm(PLUGIN + "explicitly_disable_gemm_plugin", True)
)


def test_a_directory_that_lacks_an_engine_or_has_a_file_for_one(tmp_path):
    tree = good_tree(VERSION)
    tree.directory = tmp_path
    for name in ("llm", "vision"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").touch()
    assert violations(tree, VERSION) == []  # still to be compiled
    (tmp_path / "llm" / "rank0.engine").touch()
    assert [str(found) for found in violations(tree, VERSION)] == [
        "vision/model.engine is no engine [multimodal 1.1, 6.1]"
    ]


# Inputs, outputs, profiles


def respecified(part: str, name: str, spec: Spec) -> Plant:
    def plant(tree: Tree) -> None:
        network = tree.parts[part].network
        network.inputs[name] = network._specs[name] = spec

    return plant


def added(part: str, name: str, spec: Spec) -> Plant:
    return lambda tree: tree.parts[part].network.input(name, spec)


def removed(part: str, name: str) -> Plant:
    return lambda tree: tree.parts[part].network.inputs.pop(name)


def profile(part: str, title: str, name: str, range_: list[int] | None) -> Plant:
    def plant(tree: Tree) -> None:
        ranges = tree.parts[part].profiles.setdefault(title, {})
        if range_ is None:
            del ranges[name]
        else:
            ranges[name] = range_

    return plant


INT, LONG, HALF, FULL = torch.int32, torch.int64, torch.float16, torch.float32
SEQUENCES, TOKENS = symbol("batch_size_beam_width"), symbol("num_tokens")
planted(
    "an input of one's own",
    r"input attention_mask is known to no runtime \[LLM 2.4\]",
    added("llm", "attention_mask", Spec((TOKENS,), INT)),
)
planted(
    "an unasked-for mrope",
    "is bound only when `build.use_mrope`",
    added("llm", "mrope_position_deltas", Spec((SEQUENCES, 1), INT)),
)
planted("no last_token_ids", "input last_token_ids is missing", removed("llm", "last_token_ids"))
planted("no position_ids", r"input position_ids is missing \[LLM 2.1, 2.4, 9\]", removed("llm", "position_ids"))
planted("no tasks", "input tasks is missing", removed("llm", "tasks"))
planted(
    "64-bit token ids", "input input_ids is int64, not int32", respecified("llm", "input_ids", Spec((TOKENS,), LONG))
)
planted(
    "32-bit positions of rank 2",
    "input position_ids has rank 2, not 1",
    respecified("llm", "position_ids", Spec((2, TOKENS), INT)),
)
planted(
    "a float32 prompt table",
    "prompt_embedding_table is float32, not float16",
    respecified("llm", "prompt_embedding_table", Spec((symbol("prompt_rows"), 32), FULL)),
)
planted(
    "a narrow prompt table",
    "prompt_embedding_table, axis 1, is 16, not 32",
    respecified("llm", "prompt_embedding_table", Spec((symbol("prompt_rows"), 16), HALF)),
)
planted(
    "knobs of another number",
    "host_runtime_perf_knobs, axis 0, is 8, not 16",
    respecified("llm", "host_runtime_perf_knobs", Spec((8,), LONG)),
)
planted(
    "a window too many",
    "window_sizes, axis 0, is 3, not 2",
    respecified("llm", "host_max_attention_window_sizes", Spec((3,), INT)),
)
for name, spec in (
    ("kv_cache_block_offsets", Spec((1, SEQUENCES, 2, symbol("max_blocks_per_seq")), INT)),
    ("host_kv_cache_block_offsets", Spec((1, SEQUENCES, 2, symbol("max_blocks_per_seq")), INT)),
    ("host_kv_cache_pool_pointers", Spec((1, 2), LONG)),
):
    planted(
        f"a static number of pools in {name}",
        rf"input {name}, axis 0, is 1, not a named dimension \[LLM 2.1",
        respecified("llm", name, spec),
    )
planted(
    "a pool mapping as 0.18 has it",
    "host_kv_cache_pool_mapping has rank 1, not 2",
    respecified("llm", "host_kv_cache_pool_mapping", Spec((LAYERS,), INT)),
)
planted(
    "more pools than layers",
    r"dimension num_kv_cache_pools is \[1, 1, 3\], not \[1, 1, 2\]",
    profile("llm", "llm", "num_kv_cache_pools", [1, 1, 3]),
)
planted(
    "a static batch",
    "context_lengths, axis 0, is 4, not a named",
    respecified("llm", "context_lengths", Spec((4,), INT)),
)
planted(
    "a foreign name of a dimension",
    "sequence_length, axis 0, is called num_tokens, not batch_size_beam_width",
    respecified("llm", "sequence_length", Spec((TOKENS,), INT)),
)
planted(
    "one name for two ranges",
    (
        "prompt_embedding_table, axis 0, is called beam_width, which stands for another",
        "dimension prompt_rows is no input's",
    ),
    respecified("llm", "prompt_embedding_table", Spec((symbol("beam_width"), 32), HALF)),
)
planted(
    "float32 pixels",
    "vision network: input input is float32, not float16",
    respecified("vision", "input", Spec((symbol("batch"), 3, 6, 6), FULL)),
)
planted(
    "a second vision input",
    r"vision network: input mask is known to no runtime \[multimodal",
    added("vision", "mask", Spec((symbol("batch"),), HALF)),
)


def output(part: str, old: str, new: str | None = None, dtype: torch.dtype | None = None) -> Plant:
    def plant(tree: Tree) -> None:
        network = tree.parts[part].network
        value = network.value(network.outputs.pop(old))
        if dtype is not None:
            value = network.add(Cast(dtype), value)
        network.output(new or old, value)

    return plant


def extra_output(tree: Tree) -> None:
    network = tree.parts["llm"].network
    network.output("hidden_states", network.value(network.outputs["logits"]))


planted("half logits", "output logits is float16, not float32", output("llm", "logits", dtype=HALF))
planted("an output too many", "output hidden_states is known to no runtime", extra_output)
planted(
    "float32 features", "output encoder_output is float32, not float16", output("vision", "encoder_output", dtype=FULL)
)
planted(
    "a second profile",
    "2 optimisation profiles where the runtime wants 1",
    lambda tree: tree.parts["llm"].profiles.update(decode=dict(tree.parts["llm"].profiles["llm"])),
)
planted(
    "no profile",
    "0 optimisation profiles where the runtime wants 1",
    lambda tree: tree.parts["vision"].profiles.clear(),
)
planted(
    "a wrong range",
    r"dimension num_tokens is \[1, 64, 128\], not \[1, 4, 128\]",
    profile("llm", "llm", "num_tokens", [1, 64, 128]),
)
planted(
    "blocks that do not hold a sequence",
    r"max_blocks_per_seq is \[1, 1, 1\], not \[1, 1, 2\]",
    profile("llm", "llm", "max_blocks_per_seq", [1, 1, 1]),
)
planted("a dimension without range", "dimension beam_width has no range", profile("llm", "llm", "beam_width", None))
planted("a range of nothing", "dimension sequence is no input's", profile("llm", "llm", "sequence", [1, 1, 1]))
planted(
    "a vision batch of another size",
    r"dimension batch is \[1, 1, 2\], not \[1, 2, 4\]",
    profile("vision", "vision", "batch", [1, 1, 2]),
)


# Layers and plugins


def rewired(creator: str, change: Callable[[Network, Node], Node]) -> Plant:
    """The first plugin of a creator, otherwise."""

    def plant(tree: Tree) -> None:
        network = tree.parts["llm"].network
        for place, node in enumerate(network.nodes):
            if isinstance(node.layer, Stated) and node.layer.creator == creator:
                network.nodes[place] = change(network, node)
                return

    return plant


def stated(creator: str, change: Callable[[Stated], Stated]) -> Plant:
    return rewired(creator, lambda _, node: evolve(node, layer=change(node.layer)))


def fields(change: Callable[[tuple], tuple]) -> Callable[[Stated], Stated]:
    return lambda layer: evolve(layer, stated=tuple(change(layer.stated)))


def inputs(change: Callable[[tuple[str, ...]], tuple[str, ...]]) -> Callable[[Network, Node], Node]:
    return lambda _, node: evolve(node, inputs=change(node.inputs))


def swapped(items: tuple, one: int, other: int) -> tuple:
    changed = list(items)
    changed[one], changed[other] = changed[other], changed[one]
    return tuple(changed)


def host_read(tree: Tree) -> None:
    network = tree.parts["llm"].network
    sizes = network.value("host_max_attention_window_sizes")
    network.add(Cast(torch.int64), sizes)


def wrong_table(tree: Tree, name: str, scale: float) -> None:
    """The rotary table, of the right shape and with other numbers."""
    network = tree.parts["llm"].network
    node = next(
        node for node in network.nodes if isinstance(node.layer, Stated) and node.layer.creator == "GPTAttention"
    )
    made = node.inputs[12 if name == "rotary_inv_freq" else 13]
    place = next(place for place, other in enumerate(network.nodes) if other.outputs == (made,))
    literal = network.nodes[place].layer.weight
    changed = network.literals.keep(network.literals.tensors[literal.digest] * scale)
    network.nodes[place] = network._producers[made] = evolve(network.nodes[place], layer=Constant(changed))


def through(name: str) -> Callable[[Network, Node], Node]:
    """An input of the plugin by way of a layer."""

    def change(network: Network, node: Node) -> Node:
        passed = network.add(Identity(), network.value(name)).name
        return evolve(node, inputs=tuple(passed if other == name else other for other in node.inputs))

    return change


ATTENTION = "GPTAttention"
planted(
    "an unknown creator",
    "has no creator FlashAttention",
    stated("Gemm", lambda layer: evolve(layer, creator="FlashAttention")),
)
planted(
    "a creator of another version", "has version '2', not '1'", stated("Gemm", lambda layer: evolve(layer, version="2"))
)
planted(
    "a creator of another namespace",
    "has namespace '', not 'tensorrt_llm'",
    stated("Gemm", lambda layer: evolve(layer, namespace="")),
)
planted(
    "another layer name",
    "has layer_name 'matmul', not 'gemm'",
    stated("Gemm", lambda layer: evolve(layer, layer_name="matmul")),
)
planted(
    "a field left out",
    r"field cp_group, is missing \[LLM 3.1\]",
    stated(ATTENTION, fields(lambda known: [f for f in known if f.name != "cp_group"])),
)
planted(
    "a field too many",
    "field causal, is no field of the creator",
    stated(ATTENTION, fields(lambda known: (*known, evolve(known[0], name="causal")))),
)
planted(
    "fields in another order",
    "fields come in another order: num_heads where layer_idx is due",
    stated(ATTENTION, fields(lambda known: swapped(known, 0, 1))),
)
planted(
    "a field of another width",
    "field q_scaling, is int32, not float32",
    stated(ATTENTION, lambda layer: layer.with_field("q_scaling", type="int32")),
)
planted(
    "a field of another length",
    "field cp_group, has 2 values, not 1",
    stated(ATTENTION, lambda layer: layer.with_field("cp_group", values=(0, 0))),
)
for name, value in (
    ("num_heads", 8),
    ("num_kv_heads", 4),
    ("head_size", 16),
    ("rotary_embedding_dim", 4),
    ("context_fmha_type", 0),
    ("mask_type", 0),
    ("tokens_per_block", 64),
    ("max_context_length", 8),
    ("use_paged_context_fmha", 0),
    ("unfuse_qkv_gemm", 1),
    ("qkv_bias_enabled", 1),
    ("remove_input_padding", 0),
    ("rotary_embedding_max_positions", 32),
    ("kv_cache_quant_mode", 128),
    ("rotary_embedding_original_max_positions", 64),
    ("spec_decoding_max_generation_length", 0),
    ("attn_logit_softcapping_scale", 30.0),
):
    planted(
        f"{name} of another value",
        rf"field {name}, is {value}, which breaks",
        stated(ATTENTION, lambda layer, name=name, value=value: layer.with_field(name, values=(value,))),
    )
planted(
    "an unknown kind of position embedding",
    ("field position_embedding_type, is 11, which breaks", "field rotary_embedding_dim, is 8, which breaks"),
    stated(ATTENTION, lambda layer: layer.with_field("position_embedding_type", values=(11,))),
)
planted(
    "type_id of another dtype",
    r"field type_id, is 7, which breaks .* \[LLM 3.1, 9\]",
    stated(ATTENTION, lambda layer: layer.with_field("type_id", values=(7,))),
)
planted(
    "an untransposed weight",
    "Gemm .* field transb, is 0, which breaks",
    stated("Gemm", lambda layer: layer.with_field("transb", values=(0,))),
)
planted(
    "an input left out",
    "has 16 inputs, not 17: qkv, sequence_length",
    rewired(ATTENTION, inputs(lambda names: names[:-1])),
)
planted("an input too many", "has 18 inputs, not 17", rewired(ATTENTION, inputs(lambda names: (*names, "tasks"))))
planted(
    "an attention input by way of a layer",
    "input 5 context_lengths, is given llm.",
    rewired(ATTENTION, through("context_lengths")),
)
planted(
    "a rotary table that is no constant",
    "input 13 rotary_cos_sin, is given prompt_embedding_table, which is no constant",
    rewired(ATTENTION, inputs(lambda names: (*names[:13], "prompt_embedding_table", *names[14:]))),
)
planted(
    "a weight of another dtype",
    "Gemm .* input 1 weight, is float32, not float16",
    rewired(
        "Gemm",
        lambda network, node: evolve(
            node, inputs=(node.inputs[0], network.add(Constant(network.literals.keep(torch.zeros(64, 32)))).name)
        ),
    ),
)
planted(
    "a weight of another width",
    r"input 0 x, is \[num_tokens, 32\], not \[any, 16\]",
    rewired(
        "Gemm",
        lambda network, node: evolve(
            node, inputs=(node.inputs[0], network.add(Constant(network.literals.keep(torch.zeros(64, 16).half()))).name)
        ),
    ),
)
planted(
    "rotary frequencies of another base",
    ("rotary_inv_freq, differs from the contract's frequencies by 1.0e-02",) * 2,
    lambda tree: wrong_table(tree, "rotary_inv_freq", 1.01),
)
planted(
    "rotary frequencies off by one bit",
    ("rotary_inv_freq, differs from the contract's frequencies by 1.5e-07",) * 2,
    lambda tree: wrong_table(tree, "rotary_inv_freq", 1 + 2**-23),
)
planted(
    "rotary cosines scaled",
    ("rotary_cos_sin, differs from the contract's cosines and sines by 1.0e-02",) * 2,
    lambda tree: wrong_table(tree, "rotary_cos_sin", 1.01),
)
planted(
    "a host input in a layer of TensorRT",
    r"host_max_attention_window_sizes is in host memory and goes into Cast, a layer of TensorRT \[LLM 2.0\]",
    host_read,
)
planted(
    "plugins although they are off",
    "Gemm is used and plugin_config.gemm_plugin is null",
    llm(PLUGIN + "gemm_plugin", None),
)
planted("a layer twice", r"has layer_idx \[0, 0\], not each once", lambda tree: last_layer_is(tree, 0))


def last_layer_is(tree: Tree, index: int) -> None:
    nodes = tree.parts["llm"].network.nodes
    place = max(
        place for place, node in enumerate(nodes) if isinstance(node.layer, Stated) and node.layer.creator == ATTENTION
    )
    nodes[place] = evolve(nodes[place], layer=nodes[place].layer.with_field("layer_idx", values=(index,)))


def test_0_18_has_one_pool_and_the_place_in_it_in_a_field():
    tree = good_tree("0.18.2")
    profile("llm", "llm", "num_kv_cache_pools", [1, 1, LAYERS])(tree)
    for name, spec in llm_inputs().items():
        if "pool" in name or "offsets" in name:
            respecified("llm", name, spec)(tree)
    found = [str(violation) for violation in violations(tree, "0.18.2")]
    assert [line.removeprefix("llm network: ").partition(" [")[0] for line in found] == [
        "input kv_cache_block_offsets, axis 0, is num_kv_cache_pools, not 1",
        "input host_kv_cache_block_offsets, axis 0, is num_kv_cache_pools, not 1",
        "input host_kv_cache_pool_pointers, axis 0, is num_kv_cache_pools, not 1",
        "input host_kv_cache_pool_mapping has rank 2, not 1",
        "profile llm, dimension num_kv_cache_pools is no input's",
    ]


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_violation_is_named_and_nothing_else(name):
    plant, messages = PLANTED[name]
    tree = good_tree(VERSION)
    plant(tree)
    found = [str(violation) for violation in violations(tree, VERSION)]
    assert len(found) == len(messages) and all(map(re.search, messages, found)), found
