"""A GGUF file is built as it is: configuration, tokenizer, weights and tokens are those of transformers."""

from __future__ import annotations

import importlib
import json

import pytest

from ditto import LlmBuilder
from ditto.errors import CheckpointError
from ditto.runtime import Request, generate, open_session
from tests.support import gguf
from tests.support.greedy import greedy
from tests.support.quantised import loaded_equals


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1"])
def test_weights_are_those_of_transformers(tmp_path, kind):
    file = gguf.write(tmp_path / "tiny.gguf", kind)
    loaded_equals(LlmBuilder.from_pretrained(str(file)).source, gguf.meaning(file))


@pytest.mark.parametrize("kind", ["Q4_1", "Q8_0"])
def test_tokens_and_files_of_a_tree_are_those_of_transformers(tmp_path, kind):
    file = gguf.write(tmp_path / "tiny.gguf", kind)
    builder = LlmBuilder.from_pretrained(str(file)).with_dtype("float32").with_max_seq_len(32)
    tree = builder.with_target("tensorrt-rtx").build(tmp_path / "tree")
    session = open_session(tree, "reference")
    (answer,) = generate(session, [Request((3, 9, 4, 17))], 12)
    assert tuple(answer.ids) == greedy(gguf.meaning(file).eval(), [3, 9, 4, 17], 12)
    assert "Dequantize" in next(tree.root.rglob("network.json")).read_text()
    stated = json.loads(next(tree.root.rglob("generation_config.json")).read_text())
    assert (stated["bos_token_id"], stated["eos_token_id"]) == (0, 1)


@pytest.mark.parametrize(
    ("architecture", "metadata", "message"),
    [
        ("qwen2", {}, "the architecture 'qwen2' is not supported; 'llama' is"),
        ("llama", {"llama__rope__scaling__type": "yarn"}, r"`llama.rope.scaling.type` is 'yarn'"),
        ("llama", {"llama__unheard__of": "x"}, r"`llama.unheard.of` is 'x'"),
    ],
    ids=["architecture", "scaling", "setting"],
)
def test_what_transformers_does_not_read_is_refused(tmp_path, architecture, metadata, message):
    file = gguf.write(tmp_path / "tiny.gguf", "F16", architecture, **metadata)
    with pytest.raises(CheckpointError, match=message):
        _ = LlmBuilder.from_pretrained(str(file)).source.config


def test_every_token_that_ends_an_answer_ends_it(tmp_path):
    file = gguf.write(tmp_path / "tiny.gguf", "F16", tokenizer__ggml__eot_token_id=5, tokenizer__ggml__eom_token_id=1)
    assert LlmBuilder.from_pretrained(str(file)).source.generation_config["eos_token_id"] == [1, 5]


def test_a_file_that_has_changed_is_read_again(tmp_path):
    file = gguf.write(tmp_path / "tiny.gguf", "F16")
    assert LlmBuilder.from_pretrained(str(file)).source.generation_config["eos_token_id"] == 1
    gguf.write(file, "F16", tokenizer__ggml__eot_token_id=5)
    assert LlmBuilder.from_pretrained(str(file)).source.generation_config["eos_token_id"] == [1, 5]


def test_a_missing_package_is_named_with_its_extra(tmp_path, monkeypatch):
    file = gguf.write(tmp_path / "tiny.gguf", "F16")
    reading = importlib.import_module("transformers.modeling_gguf_pytorch_utils")
    monkeypatch.setattr(reading, "is_gguf_available", lambda *_: False)
    with pytest.raises(CheckpointError, match=r"pip install 'ditto-trt\[gguf\]'"):
        _ = LlmBuilder.from_pretrained(str(file)).source.config
