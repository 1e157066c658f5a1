"""Limits of a language model's engine follow from the model, or are refused."""

from __future__ import annotations

import json

import pytest
import torch
from attrs import evolve
from loguru import logger

from ditto import LlmBuilder
from ditto.engine import Phase
from ditto.errors import ConfigError, ModelError, PromptError, UnsupportedFeature
from ditto.reference import RELATIVE_ERROR, Constants, relative_error, run
from ditto.runtime import Request, generate, open_session
from ditto.targets import target
from tests.support.decoding import continued, in_dtype
from tests.support.describing import engine_of
from tests.support.models import TEXT_MODELS, TRANSFORMERS_5, llama, llava


def builder(model):
    return LlmBuilder.from_model(model).with_target("tensorrt-rtx")


def test_limits_follow_from_the_model():
    limits = builder(llama()).with_batch(3).limits
    assert (limits.max_batch_size, limits.max_seq_len, limits.max_input_len) == (3, 64, 32)
    assert limits.max_prompt_embedding_table_size == 0


def test_long_models_are_not_built_for_all_their_positions_unless_asked():
    assert builder(llama(max_position_embeddings=100_000)).limits.max_seq_len == 4096
    assert builder(llama(max_position_embeddings=100_000)).with_max_seq_len(50_000).limits.max_seq_len == 50_000


@pytest.mark.parametrize(("rows", "wanted"), [(0, 0), (576, 640), (577, 704), (1500, 1564)])
def test_a_usual_prompt_is_one_with_images(rows, wanted):
    made = evolve(builder(llama(max_position_embeddings=4096)), prompt_rows=rows).with_max_seq_len(2048)
    assert made.limits.opt_input_len == wanted
    assert made.with_opt_input_len(100).limits.opt_input_len == 100
    assert made.with_opt_input_len(0).limits.opt_input_len == 0


def test_more_positions_than_the_model_has_are_refused():
    with pytest.raises(ConfigError, match="max_seq_len 65 is more than the model's 64 positions"):
        _ = builder(llama()).with_max_seq_len(65).limits


def test_a_bare_decoder_needs_its_head():
    model = llama()
    with pytest.raises(ConfigError, match="LlamaModel has no output embedding: it is a bare decoder"):
        LlmBuilder.from_model(model.model)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_decoder_with_its_head_is_the_whole_model(dtype):
    model = llama()
    texts = []
    for made in (LlmBuilder.from_model(model), LlmBuilder.from_model(model.model, lm_head=model.lm_head)):
        made = made.with_target("tensorrt-rtx").with_dtype(dtype)
        engine = engine_of(made)
        network = engine.network
        ids = torch.tensor([[5, 9, 17]], dtype=torch.int32)
        caches = {
            name: torch.zeros([1 if str(dim) == "batch" else dim for dim in spec.shape], dtype=spec.dtype)
            for name, spec in network.inputs.items()
            if name.startswith("past_")
        }
        given = {
            "input_ids": ids,
            "position_ids": torch.arange(3, dtype=torch.int32)[None],
            "last_token_ids": torch.tensor([2], dtype=torch.int32),
            "write_indices": torch.tensor([0], dtype=torch.int32),
        }
        texts.append(run(network, {**given, **caches}, Constants(network, engine.part.tensors))["logits"])
    assert torch.equal(*texts)
    assert (
        relative_error(texts[0][0], model(input_ids=ids.long()).logits[0, -1]) < RELATIVE_ERROR[getattr(torch, dtype)]
    )


@pytest.mark.drawn(9)
@pytest.mark.parametrize("name", TEXT_MODELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, pytest.param(torch.bfloat16, marks=pytest.mark.slow)])
def test_prefill_and_decode_are_those_of_hugging_face(name, dtype):
    """No farther from Hugging Face in float32 than Hugging Face in the same dtype is, times 1.5."""
    model = TEXT_MODELS[name]()
    made = builder(model).with_batch(2).with_max_seq_len(48).with_max_input_len(24).with_dtype(dtype)
    engine = engine_of(made)
    network = engine.network
    for found, exact, rounded in continued(
        network, Constants(network, engine.part.tensors), model, in_dtype(model, dtype)
    ):
        assert relative_error(found, exact) <= max(RELATIVE_ERROR[torch.float32], 1.5 * relative_error(rounded, exact))


def test_a_vision_language_model_in_memory_gives_its_language_model():
    made = builder(llava()).with_prompt_table(16)
    network = engine_of(made).network
    assert "prompt_embedding_table" in network.inputs
    assert not any("vision_tower" in node.place.module for node in network.nodes)


def test_an_engine_alone_is_a_tree_with_its_config_at_the_top(llama_tree):
    config = json.loads((llama_tree.root / "config.json").read_text())
    assert config["pretrained_config"]["architecture"] == "LlamaForCausalLM"
    assert llama_tree.manifest.components["llm"].directory == "."
    _, decode = llama_tree.manifest.components["llm"].spec.profiles
    assert (decode.phase, decode.size("sequence")) == (Phase.DECODE, 1)


def test_caches_share_memory_with_their_inputs(llama_tree):
    shared = llama_tree.manifest.components["llm"].shared
    assert shared == {
        f"present_{kind}_{layer}": f"past_{kind}_{layer}" for layer in (0, 1) for kind in ("key", "value")
    }


@pytest.fixture
def said():
    """What is logged as a warning."""
    lines: list[str] = []
    logger.enable("ditto")
    sink = logger.add(lines.append, level="WARNING", format="{message}")
    yield lines
    logger.remove(sink)
    logger.disable("ditto")


@pytest.mark.parametrize(
    ("change", "warning"),
    [
        (lambda made: made, None),
        (
            lambda made: made.with_max_input_len(16),
            "an image is 16 tokens and 16 rows of the prompt table, the engine ",
        ),
        (lambda made: made.with_prompt_table(3), "the engine accepts 63 and 3"),
        (
            lambda made: made.with_opt_input_len(20),
            "opt_input_len is for specialized profiles: here it changes nothing",
        ),
        (lambda made: made.with_opt_input_len(20).with_optimize("latency").with_tuning("9.0"), None),
        (lambda made: made.with_opt_input_len(0), None),
        (lambda made: made.with_max_num_tokens(7), None),
        (
            lambda made: made.with_max_num_tokens(7).with_target("trtllm"),
            "max_num_tokens is 63, not 7: as trtllm-build would adjust it",
        ),
        (lambda made: made.with_max_num_tokens(64).with_target("trtllm"), None),
    ],
)
def test_what_comes_to_nothing_is_said(said, change, warning):
    made = change(evolve(builder(llama()), prompt_rows=16))
    made.part(made.resolved_target())
    assert [warning in line for line in said] == [True] if warning else said == []


@pytest.mark.parametrize("embeddings", [torch.nn.ModuleList([torch.nn.Embedding(128, 64)]), None])
def test_a_model_of_several_tables_or_none_is_refused(embeddings):
    model = llama()
    made = builder(model)
    model.get_input_embeddings = lambda: embeddings
    with pytest.raises(UnsupportedFeature, match="LlamaForCausalLM has no single table of token embeddings"):
        made.part(made.resolved_target())


def test_a_model_that_does_not_know_its_table_is_refused():
    model = llama()

    def unknown():
        raise NotImplementedError("`get_input_embeddings` not auto-handled")

    made = builder(model)
    model.get_input_embeddings = unknown
    with pytest.raises(UnsupportedFeature, match="LlamaForCausalLM has no single table of token embeddings"):
        made.part(made.resolved_target())


@pytest.mark.parametrize("name", ["tensorrt-rtx", "trtllm"])
def test_a_token_without_an_embedding_is_refused(name):
    """Its id would select a row of the image table."""
    fewer = llama()
    fewer.config.vocab_size = 100
    head = llama()
    head.lm_head = torch.nn.Linear(64, 130, bias=False)
    for model, message in (
        (fewer, "the embedding has 128 rows, the output 128, and vocab_size is 100"),
        (head, "the embedding has 128 rows, the output 130, and vocab_size is 128"),
    ):
        with pytest.raises(ModelError, match=message):
            LlmBuilder.from_model(model).with_target(name).part(target(name))


@pytest.mark.parametrize("name", ["tensorrt-rtx", "trtllm"])
def test_rows_behind_the_vocabulary_are_for_models_without_images(name, tmp_path):
    """As in the text models of Mllama and Moshi."""
    model = llama()
    model.model.embed_tokens = torch.nn.Embedding(131, 64)
    made = LlmBuilder.from_model(model).with_target(name)
    with pytest.raises(ModelError, match="the embedding has 131 rows, the output 128, and vocab_size is 128"):
        made.with_prompt_table(8).part(target(name))
    session = open_session(made.build(tmp_path / "tree"), "reference")
    ids = [5, 9, 33, 71, 127]
    given = torch.tensor([ids])
    wanted = model.generate(given, attention_mask=torch.ones_like(given), max_new_tokens=6, do_sample=False)
    assert list(generate(session, [Request(tuple(ids))], 6)[0].ids) == wanted[0, len(ids) :].tolist()
    with pytest.raises(PromptError):
        generate(session, [Request((5, 128))], 1)


def test_a_model_that_is_not_told_positions_counts_them_from_the_start_of_each_row(tmp_path):
    class Counting(type(llama())):
        def forward(self, inputs_embeds=None, attention_mask=None, use_cache=False):
            return super().forward(inputs_embeds=inputs_embeds, attention_mask=attention_mask, use_cache=use_cache)

    model = llama()
    ids = [5, 9, 33, 71, 127]
    wanted = model.generate(torch.tensor([ids]), max_new_tokens=6, do_sample=False, pad_token_id=0)
    model.__class__ = Counting
    if not TRANSFORMERS_5:  # it counts in a form that is not followed
        with pytest.raises(UnsupportedFeature, match="counts them"):
            builder(model).build(tmp_path / "tree")
        return
    session = open_session(builder(model).build(tmp_path / "tree"), "reference")
    assert list(generate(session, [Request(tuple(ids))], 6)[0].ids) == wanted[0, len(ids) :].tolist()
