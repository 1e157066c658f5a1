"""What the target writes keeps the contract, is taken by the stand-in for TensorRT 10.9, and, plugins cut out, by the
real TensorRT-RTX."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from attrs import frozen

from ditto import LlavaModel, LlmBuilder
from ditto.configs import TrtllmConfig
from ditto.network.plugin import Plugin
from tests.support.conformance import VERSIONS, Tree, cut, violations
from tests.support.layers import emitted
from tests.support.models import TEXT_MODELS, llama, llava
from tests.support.recorder import Zeros, compiled, recorded

LAYERS = 2  # of the tiny models


def text_tree(model, out: Path, version: str = "0.19.0", dtype: str = "float16", **options) -> Tree:
    config = TrtllmConfig(version=version, **options)
    builder = LlmBuilder.from_model(model).with_batch(2).with_dtype(dtype).with_target("trtllm")
    builder.with_trtllm(config).build(out)
    return Tree.open(out)


def said(tree: Tree, version: str = "0.19.0") -> list[str]:
    return [str(violation) for violation in violations(tree, version)]


@pytest.fixture(scope="session", params=list(TEXT_MODELS))
def text_model(request, tmp_path_factory) -> tuple[str, Tree]:
    """Every kind of text model, and its tree."""
    return request.param, text_tree(TEXT_MODELS[request.param](), tmp_path_factory.mktemp("trtllm") / "text")


def test_text_models_keep_the_contract(text_model):
    name, tree = text_model
    found = said(tree)
    if name == "qwen3":  # newer than the 2025 texts that the list of architectures comes from
        assert len(found) == 1 and "'Qwen3ForCausalLM', which no reader takes" in found[0]
    else:
        assert found == []


# All that the Python session binds: a network with more or fewer inputs is not run at all (contract, LLM 9).
TEXT_INPUTS = {
    "input_ids",
    "position_ids",
    "last_token_ids",
    "sequence_length",
    "host_request_types",
    "host_past_key_value_lengths",
    "context_lengths",
    "host_runtime_perf_knobs",
    "host_context_progress",
    "host_context_lengths",
    "host_max_attention_window_sizes",
    "host_sink_token_length",
    "cache_indirection",
    "kv_cache_block_offsets",
    "host_kv_cache_block_offsets",
    "host_kv_cache_pool_pointers",
    "host_kv_cache_pool_mapping",
}
TABLE_INPUTS = {"prompt_embedding_table", "tasks", "prompt_vocab_size"}


def test_text_models_have_the_seventeen_inputs_of_the_python_session(text_model):
    _, tree = text_model
    assert len(TEXT_INPUTS) == 17
    assert set(tree.parts["llm"].network.inputs) == TEXT_INPUTS


def test_a_llava_has_the_twenty_inputs_of_the_python_session(packed_shapes_tree):
    assert len(TEXT_INPUTS | TABLE_INPUTS) == 20
    assert set(Tree.open(packed_shapes_tree.root).parts["llm"].network.inputs) == TEXT_INPUTS | TABLE_INPUTS


def test_text_models_are_taken_by_the_recorder(text_model):
    _, tree = text_model
    network = tree.parts["llm"].network
    definition = recorded(network, "0.19.0")
    names = [layer.settings["plugin"].made.name for layer in definition.layers if layer.kind == "plugin_v2"]
    assert names.count("causal_attn") == LAYERS
    assert len(definition.layers) >= len(network.nodes)


def test_text_models_without_plugins_are_taken_by_tensorrt(text_model):
    _, tree = text_model
    network = tree.parts["llm"].network
    plugins = sum(isinstance(node.layer, Plugin) for node in network.nodes)
    rest = cut(network)
    assert len(rest.nodes) == len(network.nodes) - plugins
    emitted(rest, Zeros(rest))  # shapes and dtypes are compared at every layer


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_has_its_own_form(version, tmp_path):
    """Windows of two sizes, so that the runtime has to be told them."""
    tree = text_tree(TEXT_MODELS["gemma2 with soft-caps and windows"](), tmp_path / "out", version)
    assert tree.parts["llm"].config["pretrained_config"]["runtime_defaults"] == {"max_attention_window": [5, 64]}
    assert said(tree, version) == []
    recorded(tree.parts["llm"].network, version)


@pytest.mark.parametrize(
    "options", [{"gemm_plugin": False}, {"tokens_per_block": 64}, {"use_paged_context_fmha": False}], ids=str
)
def test_choices_keep_the_contract(options, tmp_path):
    assert said(text_tree(llama(), tmp_path / "out", **options)) == []


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_other_dtypes_keep_the_contract(dtype, tmp_path):
    tree = text_tree(llama(), tmp_path / "out", dtype=dtype)
    assert said(tree) == []
    recorded(tree.parts["llm"].network, "0.19.0")


@pytest.mark.parametrize("version", ["0.18.2", "0.19.0", "1.2.0"])
def test_a_llava_keeps_the_contract_of_a_version(version, tmp_path):
    model = LlavaModel.from_model(llava()).with_batch(2).with_dtype("float16").with_target("trtllm")
    model.with_trtllm(TrtllmConfig(version=version)).build_all(tmp_path / "out")
    tree = Tree.open(tmp_path / "out")
    assert said(tree, version) == []
    for part in tree.parts.values():
        recorded(part.network, version)


def test_shapes_llava_keeps_the_contract(packed_shapes_tree):
    assert said(Tree.open(packed_shapes_tree.root)) == []


@pytest.mark.parametrize("part", ["llm", "vision"])
def test_shapes_llava_is_compiled_by_the_recorder(packed_shapes_tree, tmp_path, part):
    made = Tree.open(packed_shapes_tree.root).parts[part]
    definition, config = compiled(made.network, made.profiles, "0.19.0", tmp_path / "engine")
    assert [tensor.name for tensor in definition.inputs] == list(made.network.inputs)
    assert len(config.profiles) == 1


@pytest.mark.parametrize("part", ["llm", "vision"])
def test_shapes_llava_without_plugins_is_taken_by_tensorrt(packed_shapes_tree, part):
    rest = cut(Tree.open(packed_shapes_tree.root).parts[part].network)
    emitted(rest, Zeros(rest))


@frozen
class Environment:
    """What a process may import: the standard library and these."""

    # The light core, and what its packages themselves need; numpy comes with every TensorRT.
    core = ("attr", "attrs", "cattrs", "loguru", "numpy", "safetensors", "torch", "torchgen", "typing_extensions")
    below = ("exceptiongroup", "filelock", "fsspec", "functorch", "jinja2", "markupsafe", "mpmath", "networkx", "sympy")
    ours = ("ditto", "tests")

    @property
    def code(self) -> str:
        allowed = {*self.core, *self.below, *self.ours}
        return f"""
import sys
class Only:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in sys.stdlib_module_names and top not in {allowed!r} and not top.startswith("_"):
            raise ModuleNotFoundError(f"{{name}} is not part of the light core", name=name)
sys.meta_path.insert(0, Only())
"""


COMPILE = """
import json
from pathlib import Path
from safetensors import safe_open
from tests.support.conformance import Tree
from tests.support.recorder import compiled
root = Path(sys.argv[1])
class Weights:
    def __init__(self, path):
        self.file = safe_open(path, "pt")
    def tensor(self, name):
        return self.file.get_tensor(name)
    def release(self):
        pass
found = {}
for name, part in Tree.open(root).parts.items():
    source = Weights(root / name / "weights.safetensors")
    definition, _ = compiled(part.network, part.profiles, "0.19.0", root.parent / f"{name}.engine", source)
    found[name] = [len(part.network.nodes), len(definition.layers)]
heavy = [name for name in ("transformers", "tensorrt_rtx", "huggingface_hub", "PIL") if name in sys.modules]
print(json.dumps({"layers": found, "heavy": heavy}))
"""


def test_a_tree_is_compiled_where_there_is_only_the_light_core(tmp_path):
    model = LlavaModel.from_model(llava()).with_batch(2).with_dtype("float16").with_target("trtllm")
    model.build_all(tmp_path / "out")
    root = Path(__file__).parents[3]
    run = [sys.executable, "-c", Environment().code + COMPILE, str(tmp_path / "out")]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    made = subprocess.run(run, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert made.returncode == 0, made.stderr[-2000:]
    told = json.loads(made.stdout)
    assert told["heavy"] == []
    assert all(layers >= nodes > 0 for nodes, layers in told["layers"].values())


def test_the_light_core_really_lacks_transformers():
    run = [sys.executable, "-c", Environment().code + "import transformers"]
    made = subprocess.run(run, capture_output=True, text=True)
    assert made.returncode == 1 and "transformers is not part of the light core" in made.stderr
