"""The functional API is a thin door: the seed's script runs, and gives what the builders give."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from ditto import EngineTree, LlavaModel
from ditto.api import build_llm_engine, build_multimodal_engine
from ditto.arguments import DynamicDimension, TensorTypeHint
from ditto.errors import ConfigError, DittoError
from ditto.runtime import open_session
from ditto.text.pipeline import GenerationPipeline
from tests.support.models import TRANSFORMERS_5, llama, llava

SCRIPT = Path(__file__).parent.parent / "examples" / "llava" / "build_llava.py"


def run_script(checkpoint, out):
    """The example, as it stands: model id, directory and image size aside."""
    pytest.importorskip("accelerate", reason="the script loads with device_map='auto'")
    text = SCRIPT.read_text()
    for name, value in {
        "MODEL_ID": str(checkpoint),
        "OUTPUT_DIR": str(out),
        "VISION_FEATURE_SIZE": 64,
        "IMAGE_SIZE": 112,
    }.items():
        text, count = re.subn(rf"^{name} = .*$", f"{name} = {value!r}", text, flags=re.MULTILINE)
        assert count == 1
    scope = {"__name__": "__main__"}
    exec(compile(text, str(SCRIPT), "exec"), scope)
    return EngineTree.open(out)


@pytest.fixture(scope="module")
def script_tree(shapes_checkpoint, tmp_path_factory):
    return run_script(shapes_checkpoint, tmp_path_factory.mktemp("seed") / "engines")


def test_the_seed_script_builds_a_tree_that_answers(script_tree, shapes_checkpoint, images):
    pipeline = GenerationPipeline(open_session(script_tree, "reference"), shapes_checkpoint)
    reply = pipeline.answer(["USER: <image>\nDescribe this image. ASSISTANT:"], [images[3]])
    assert reply.answers == ("A large green cross at the top.",)


def test_the_builders_write_the_same_configuration(script_tree, shapes_checkpoint, tmp_path):
    tree = LlavaModel.from_pretrained(str(shapes_checkpoint)).with_batch(4).build_all(tmp_path / "tree")
    for name in ("vision", "llm"):
        assert tree.config(name) == script_tree.config(name)


def test_for_tensorrt_llm_script_and_builders_write_the_same_configuration(shapes_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("DITTO_TARGET", "trtllm")
    script = run_script(shapes_checkpoint, tmp_path / "script")
    model = LlavaModel.from_pretrained(str(shapes_checkpoint)).with_batch(4).with_target("trtllm")
    tree = model.build_all(tmp_path / "tree")
    for name in ("vision", "llm"):
        assert script.component(name).engines == []
        assert tree.config(name) == script.config(name)
        assert list(tree.component(name).inputs) == list(script.component(name).inputs)
        assert tree.component(name).layers == script.component(name).layers
    assert tree.config("llm")["build_config"]["plugin_config"]["gpt_attention_plugin"] == "auto"


def test_the_language_model_can_be_passed_as_the_installed_transformers_has_it(tmp_path):
    model = llava().half()
    out = tmp_path / "llm"
    if TRANSFORMERS_5:
        with pytest.raises(ConfigError, match="it is a bare decoder"):
            build_llm_engine(model.model.language_model, out)
        tree = build_llm_engine(model.model.language_model, out, lm_head=model.lm_head)
    else:
        tree = build_llm_engine(model.language_model, out)
    whole = build_llm_engine(model, tmp_path / "whole")
    assert tree.config("llm") == whole.config("llm")
    assert tree.component("llm").layers == whole.component("llm").layers


def test_the_environment_names_the_default_target(monkeypatch, tmp_path):
    monkeypatch.setenv("DITTO_TARGET", "no-such-target")
    with pytest.raises(DittoError, match="there is no target 'no-such-target'"):
        build_llm_engine(llama(), tmp_path / "tree")
    tree = build_llm_engine(llama(), tmp_path / "tree", target="tensorrt-rtx")
    assert tree.manifest.target == "tensorrt-rtx"


@pytest.mark.parametrize("function", [build_llm_engine, build_multimodal_engine])
def test_unknown_arguments_are_errors(function, tmp_path):
    with pytest.raises(TypeError, match="max_batchsize"):
        function(llama(), tmp_path / "tree", max_batchsize=4)


def vision(tmp_path, **changes):
    images = DynamicDimension("images", 1, 1, 2)
    arguments = {
        "max_batch_size": 2,
        "input_specs": [TensorTypeHint((images, 3, 4), torch.float32)],
        "input_names": ["input"],
        "output_names": ["encoder_output"],
        "model_type": "llava",
        "target": "tensorrt-rtx",
    }
    module = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.GELU()).eval()
    return build_multimodal_engine(module, tmp_path / "vision", **{**arguments, **changes})


def test_any_module_can_be_a_vision_engine(tmp_path):
    tree = vision(tmp_path)
    assert tree.config("vision")["builder_config"]["output_shape"] == [-1, 3, 6]
    assert tree.manifest.model_type == "llava"


def test_names_and_specs_must_match(tmp_path):
    with pytest.raises(ConfigError, match="1 input specs have 2 names"):
        vision(tmp_path, input_names=["input", "mask"])


def test_the_batch_must_be_what_the_input_says(tmp_path):
    with pytest.raises(ConfigError, match="input input goes up to 2 items, max_batch_size is 4"):
        vision(tmp_path, max_batch_size=4)


def test_the_number_of_outputs_must_match(tmp_path):
    with pytest.raises(DittoError, match="returns 1 tensors, 2 names were given"):
        vision(tmp_path, output_names=["a", "b"])
    assert not (tmp_path / "vision").exists()
