"""A configuration describes the model that it states, or none: never one of the class's default sizes."""

from __future__ import annotations

import json

import pytest
import transformers

from ditto.builders.stated import check_original_form, check_stated
from ditto.cli.main import main
from ditto.errors import CheckpointError
from tests.support.models import LLAVA_MODELS, TEXT, TEXT_MODELS, VISION

ORIGINAL = {
    "architectures": ["LlavaLlamaForCausalLM"],
    "model_type": "llava",
    "mm_vision_tower": "openai/clip-vit-large-patch14-336",
    "mm_projector_type": "mlp2x_gelu",
    "mm_hidden_size": 1024,
    "mm_vision_select_layer": -2,
    **TEXT,
}
GPT_STYLE = {"n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": 128}


def refused(directory, capsys, config, command="plan"):
    """What a command says of a directory with this config.json."""
    (directory / "config.json").write_text(json.dumps(config))
    more = ["-o", str(directory.parent / "tree")] if command == "build" else []
    assert main(["-q", command, str(directory), "--target", "tensorrt-rtx", *more]) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("model_type", ["llava", "llava_llama", "llava_qwen", "llava_mistral", "llama"])
@pytest.mark.parametrize("command", ["plan", "build"])
def test_the_original_form_of_llava_is_refused_with_the_way_to_convert_it(tmp_path, capsys, model_type, command):
    told = refused(tmp_path, capsys, {**ORIGINAL, "model_type": model_type}, command)
    assert "LLaVA's original form (`mm_vision_tower`)" in told
    assert "llava-hf/" in told
    assert "convert_llava_weights_to_hf.py" in told


@pytest.mark.parametrize("missing", ["text_config", "vision_config"])
@pytest.mark.parametrize("value", [None, {}, "left out"])
def test_a_part_that_is_not_stated_is_not_made_of_defaults(tmp_path, capsys, missing, value):
    config = {
        "model_type": "llava",
        "image_token_index": 127,
        "text_config": {"model_type": "llama", **TEXT},
        "vision_config": {"model_type": "clip_vision_model", **VISION},
        missing: value,
    }
    if value == "left out":
        del config[missing]
    assert f"The configuration has no `{missing}`" in refused(tmp_path, capsys, config)


@pytest.mark.parametrize(
    ("model_type", "stated", "missing"),
    [
        ("llama", [], "hidden_size"),
        ("qwen2", ["hidden_size"], "num_hidden_layers"),
        ("gemma2", ["num_hidden_layers"], "hidden_size"),
        ("gpt2", [], "hidden_size"),
        ("opt", [], "hidden_size"),
    ],
)
def test_a_configuration_without_sizes_is_refused(tmp_path, capsys, model_type, stated, missing):
    config = {"model_type": model_type, "vocab_size": 128, **{name: TEXT[name] for name in stated}}
    told = refused(tmp_path, capsys, config)
    assert f"has no `{missing}`" in told
    assert "would describe a model of its own default size" in told


@pytest.mark.parametrize(
    ("model_type", "values", "told"),
    [
        ("llama", GPT_STYLE, "`n_embd` is 64, but LlamaConfig does not know it"),
        ("llama", {"num_hidden_layers": 2, "dim": 64}, "`dim` is 64, but LlamaConfig does not know it"),
        ("qwen2", {**TEXT, "n_head": 8}, "`n_head` is 8, but Qwen2Config does not know it"),
        ("llama", {**TEXT, "n_kv_heads": 4}, "assumes that `num_key_value_heads` is 2"),
        ("gpt2", {**GPT_STYLE, "num_layers": 4}, "`num_layers` is 4, but GPT2Config does not know it"),
    ],
)
def test_a_size_under_a_name_that_nobody_reads_is_refused(tmp_path, capsys, model_type, values, told):
    assert told in refused(tmp_path, capsys, {"model_type": model_type, **values})


@pytest.mark.parametrize(
    ("place", "values", "told"),
    [
        (None, {"hidden_size": 4096}, "`hidden_size` is 4096, but LlavaConfig"),
        ("text_config", {"n_layers": 3}, "`text_config.n_layers` is 3"),
        ("vision_config", {"width": 96}, "`vision_config.width` is 96"),
    ],
)
def test_so_is_one_in_or_beside_a_part(tmp_path, capsys, place, values, told):
    config = {
        "model_type": "llava",
        "image_token_index": 127,
        "text_config": {"model_type": "llama", **TEXT},
        "vision_config": {"model_type": "clip_vision_model", **VISION},
    }
    (config if place is None else config[place]).update(values)
    assert told in refused(tmp_path, capsys, config)


@pytest.mark.parametrize("make", [*TEXT_MODELS.values(), *LLAVA_MODELS.values()])
def test_what_transformers_saves_passes(make, tmp_path):
    make().config.save_pretrained(tmp_path)
    raw = json.loads((tmp_path / "config.json").read_text())
    check_original_form(raw, "config.json")
    check_stated(raw, transformers.AutoConfig.from_pretrained(tmp_path), "config.json")


@pytest.mark.parametrize(
    "model_type", ["gpt2", "opt", "gptj", "bloom", "falcon", "mpt", "gpt_bigcode", "dbrx", "codegen", "xlm"]
)
def test_so_do_models_with_names_of_their_own_for_sizes(model_type, tmp_path):
    transformers.CONFIG_MAPPING[model_type]().save_pretrained(tmp_path)
    raw = json.loads((tmp_path / "config.json").read_text())
    check_stated(raw, transformers.AutoConfig.from_pretrained(tmp_path), "config.json")


def test_sizes_that_are_repeated_pass():
    """Converted LLaVAs of the hub leave the text part's defaults out, and state its vocabulary again at the top."""
    raw = {
        "model_type": "llava",
        "vocab_size": 32064,
        "hidden_size": 4096,
        "text_config": {"model_type": "llama", "max_position_embeddings": 4096, "vocab_size": 32064},
        "vision_config": {"model_type": "clip_vision_model", "num_hidden_layers": 24, "vocab_size": 32000},
    }
    check_stated(raw, transformers.LlavaConfig.from_dict(dict(raw)), "config.json")


def test_the_message_names_the_file(tmp_path):
    with pytest.raises(CheckpointError) as caught:
        check_original_form(ORIGINAL, "here/config.json")
    assert caught.value.where == "here/config.json"
