"""Only checkpoints of language models, and of supported vision-language models, become engines; others by name."""

from __future__ import annotations

import json

import pytest
import transformers
from transformers.models.auto import modeling_auto

from ditto import LlavaModel, LlmBuilder
from ditto.builders.classes import is_text_model
from ditto.cli.main import main
from ditto.errors import CheckpointError, ConfigError
from ditto.families.registry import family_of, supported_types
from tests.support.models import llama, llava

CAUSAL = modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES


def name_class(directory, *names):
    config = json.loads((directory / "config.json").read_text())
    config["architectures"] = list(names)
    (directory / "config.json").write_text(json.dumps(config))


@pytest.fixture
def directory(tmp_path):
    llama(tie_word_embeddings=True).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize(
    "name",
    [
        "LlamaModel",
        "LlamaForSequenceClassification",
        "LlamaForTokenClassification",
        "LlamaForQuestionAnswering",
        "LlamaForRewardModel",
        "LlamaForProcessRewardModel",
        "LlavaForConditionalGeneration",
        "BertForMaskedLM",
        "T5ForConditionalGeneration",
        "PreTrainedModel",
        "NoSuchClass",
    ],
)
@pytest.mark.parametrize("command", ["build", "plan"])
def test_another_class_is_refused_by_name(directory, tmp_path, capsys, name, command):
    name_class(directory, name)
    more = ["-o", str(tmp_path / "tree")] if command == "build" else []
    assert main(["-q", command, str(directory), "--target", "tensorrt-rtx", *more]) == 2
    told = capsys.readouterr().err
    assert f"of class {name}, which is not a language model" in told
    assert "LlamaForCausalLM" in told


@pytest.mark.parametrize(
    "names", [[], ["LlamaForCausalLM"], ["LLaMAForCausalLM"], ["LlamaForCausalLM", "OddForReward"]]
)
def test_a_language_model_passes(directory, names):
    name_class(directory, *names)
    source = LlmBuilder.from_pretrained(str(directory)).source
    assert type(source.skeleton(source.dtype)).__name__ == "LlamaForCausalLM"


@pytest.mark.parametrize("name", ["LlavaModel", "LlavaForSequenceClassification", "LlamaForCausalLM"])
def test_a_vision_language_model_of_another_class_is_refused(tmp_path, name):
    llava().save_pretrained(tmp_path / "model")
    name_class(tmp_path / "model", name)
    family = LlavaModel.from_pretrained(str(tmp_path / "model")).with_target("tensorrt-rtx")
    for builder in family.builders.values():
        with pytest.raises(CheckpointError, match=f"of class {name}, which is not a vision-language model"):
            builder.part(builder.resolved_target())


def configurations():
    """The default configuration of every model type that transformers has a causal language model for."""
    for model_type in sorted(CAUSAL):
        if model_type not in transformers.CONFIG_MAPPING:
            continue
        try:
            yield transformers.CONFIG_MAPPING[model_type]()
        except Exception:  # it has no default; it is made of others
            continue


def test_no_model_of_more_than_text_is_taken_for_a_text_model():
    texts = {config.model_type for config in configurations() if is_text_model(config)}
    others = set(modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES)
    others |= set(modeling_auto.MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES)
    others |= set(getattr(modeling_auto, "MODEL_FOR_VISION_2_SEQ_MAPPING_NAMES", {}))
    others |= set(getattr(modeling_auto, "MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES", {}))
    assert not texts & others
    assert not texts & {"bart", "emu3", "fuyu", "git", "llama4", "mllama", "moshi", "phi4_multimodal", "whisper"}
    assert {"llama", "qwen2", "qwen3", "gemma2", "gemma3_text", "phi3", "opt", "gpt2", "dbrx", "mpt"} <= texts


@pytest.mark.parametrize("model_type", sorted(modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES))
def test_every_other_vision_language_model_is_refused(tmp_path, model_type):
    if model_type in supported_types() or model_type not in transformers.CONFIG_MAPPING:
        return
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    with pytest.raises((ConfigError, CheckpointError)):
        family_of(str(tmp_path))


@pytest.mark.parametrize(
    ("model_type", "reason"),
    [
        ("t5", "it is an encoder-decoder"),
        ("bart", "it is an encoder-decoder"),
        ("whisper", "it is an encoder-decoder"),
        ("emu3", "images become tokens of a codebook"),
        ("fuyu", "it has no tower"),
    ],
)
def test_the_reason_is_given(tmp_path, model_type, reason):
    transformers.CONFIG_MAPPING[model_type]().save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=f"model type '{model_type}' is not supported: {reason}"):
        family_of(str(tmp_path))
