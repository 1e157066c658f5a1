"""The language model's wrapper gives the model's own logits, with images by way of the prompt table."""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace

import pytest
import torch

from benchmarks.tiny_models import tiny_model
from ditto.builders.llm import LlmBuilder
from ditto.capture import export
from ditto.errors import UnsupportedFeature
from ditto.families.gemma4 import Gemma4Model
from ditto.families.llava import LlavaModel
from ditto.passes import run_passes
from ditto.passes.spec import passes_of
from ditto.program import evaluate
from ditto.reference import RELATIVE_ERROR, Constants, relative_error, run
from ditto.rewrite import rewrite
from ditto.targets.registry import target
from ditto.wrappers.llm import DecoderWithHead, LlmWrapper, StandIn
from tests.support.families import FAMILIES, TEXT
from tests.support.layers import emitted
from tests.support.models import TRANSFORMERS_5, image_features, llama, llava
from tests.support.stages import empty_caches, last_token_logits, prompt_inputs

VOCABULARY, WIDTH, IMAGE = 128, 64, 127
FLOAT32 = RELATIVE_ERROR[torch.float32]


def _wrapper(model):
    return LlmWrapper(model, model.get_input_embeddings(), VOCABULARY).eval()


def test_a_text_models_wrapper_gives_each_rows_last_logits():
    model, given = llama(), prompt_inputs(3, 7)
    with torch.no_grad():
        found = _wrapper(model)(**given)
    assert found.shape == (3, VOCABULARY) and found.dtype == torch.float32
    assert relative_error(found, last_token_logits(model, given)) < FLOAT32


def test_logits_are_float32_whatever_the_model_computes_in():
    with torch.no_grad():
        assert _wrapper(llama().half())(**prompt_inputs(1, 3)).dtype == torch.float32


def test_ids_beyond_the_vocabulary_take_rows_of_the_table_and_others_do_not():
    model, given = llama(), prompt_inputs(2, 6)
    table = torch.randn(5, WIDTH, generator=torch.Generator().manual_seed(0))
    plain = model.get_input_embeddings()(given["input_ids"].long())
    rows = {(0, 1): 0, (0, 2): 4, (1, 0): 2, (1, 5): 2}
    wanted = plain.clone()
    for (b, s), row in rows.items():
        given["input_ids"][b, s] = VOCABULARY + row
        wanted[b, s] = table[row]
    with torch.no_grad():
        logits = model(inputs_embeds=wanted).logits
        found = _wrapper(model)(**given, prompt_embedding_table=table)
    assert relative_error(found, logits[torch.arange(2), given["last_token_ids"].long()]) < FLOAT32


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_table_that_no_id_asks_for_changes_nothing(dtype):
    wrapper, given = _wrapper(llama().to(dtype)), prompt_inputs(2, 6)
    with torch.no_grad():
        found = wrapper(**given, prompt_embedding_table=torch.full((1, WIDTH), 9.0, dtype=dtype))
        assert torch.equal(found, wrapper(**given))


@pytest.mark.skipif(not TRANSFORMERS_5, reason="transformers 4.51 lacks the class")
def test_embeddings_of_each_layer_are_looked_up_by_id_and_images_have_none():
    model, given = tiny_model("gemma3n_text"), prompt_inputs(2, 6)
    wrapper = LlmWrapper(model, model.get_input_embeddings(), model.config.vocab_size)
    with torch.no_grad():
        wanted = model(input_ids=given["input_ids"].long(), position_ids=given["position_ids"]).logits
        found = wrapper(**given)
        assert relative_error(found, wanted[torch.arange(2), given["last_token_ids"].long()]) < FLOAT32
        with pytest.raises(UnsupportedFeature, match="has embeddings of its own for each layer"):
            wrapper(**given, prompt_embedding_table=torch.zeros(1, model.config.hidden_size))


def test_a_bare_decoder_and_its_head_are_the_whole_model():
    model, given = llama(), prompt_inputs(2, 6)
    whole = DecoderWithHead(model.model, model.lm_head)
    wrapper = LlmWrapper(whole, model.get_input_embeddings(), VOCABULARY)
    with torch.no_grad():
        assert torch.equal(wrapper(**given), _wrapper(model)(**given))


@cache
def _llava_story():
    """A LLaVA's language side, on its way to a network."""
    model = llava()
    builder = LlavaModel.from_model(model).with_batch(3).with_max_seq_len(40).with_max_input_len(32).llm
    part = builder.part(target("tensorrt-rtx"))
    program = export(part.wrapper, part.inputs, part.output_names, part.prefix, part.dtype)
    return SimpleNamespace(model=model, builder=builder, part=part, program=program)


def _images_in_the_prompt(model):
    """Ids with an image each, as Hugging Face and as an engine wants them, and the features of the images."""
    pixels = torch.randn(2, 3, 28, 28, generator=torch.Generator().manual_seed(1))
    features = image_features(model, pixels)
    rows = features.shape[1]
    words = torch.randint(3, 100, (2, 6), generator=torch.Generator().manual_seed(2))
    theirs = torch.cat((words[:, :2], torch.full((2, rows), IMAGE), words[:, 2:]), 1)
    ours = theirs.clone()
    ours[:, 2 : 2 + rows] = VOCABULARY + torch.arange(2 * rows).reshape(2, rows)
    length = theirs.shape[1]
    given = {
        "input_ids": ours.int(),
        "position_ids": torch.arange(length, dtype=torch.int32).repeat(2, 1),
        "last_token_ids": torch.full((2,), length - 1, dtype=torch.int32),
        "prompt_embedding_table": features.flatten(0, 1),
    }
    with torch.no_grad():
        wanted = model(input_ids=theirs, pixel_values=pixels, attention_mask=torch.ones_like(theirs)).logits[:, -1]
    return given, wanted


def test_images_by_way_of_the_table_give_hugging_faces_logits_at_every_wall():
    told = _llava_story()
    given, wanted = _images_in_the_prompt(told.model)
    parameter = dict(told.part.wrapper.named_parameters(remove_duplicate=False)).__getitem__
    with torch.no_grad():
        found = {"wrapper": told.part.wrapper(**given)}
    (found["captured"],) = evaluate(told.program, given, parameter)
    reports = rewrite(told.program, told.part.sizes, told.part.positions)
    (found["rewritten"],) = evaluate(told.program, given, parameter)
    chosen = target("tensorrt-rtx")
    (spec,) = chosen.specs(told.part, told.builder.build_settings)
    network = run_passes(chosen.lower(told.part, told.program, spec), passes_of(spec.passes))
    constants = Constants(network, told.part.tensors)
    found["network"] = run(network, {**given, **empty_caches(network, 2)}, constants)["logits"]
    emitted(network, told.part.tensors)
    for wall, logits in found.items():
        assert relative_error(logits, wanted) < FLOAT32, wall
    assert reports["rope of halves"].applied == 4 and reports["RMS norm, rounded first"].applied == 5
    assert "prompt_embedding_table" in network.inputs


def test_only_the_language_side_of_a_llava_is_captured():
    program = _llava_story().program
    used = [program.parameters.get(str(node.target), "") for node in program.graph.nodes if node.op == "get_attr"]
    assert not [name for name in used if "vision" in name or "projector" in name]


@pytest.mark.skipif(not TRANSFORMERS_5, reason="LLaVA's decoder has its head in transformers 4")
def test_a_llavas_decoder_and_head_may_be_given_apart():
    model, given = llava(), prompt_inputs(2, 6)
    builder = LlmBuilder.from_model(model.model.language_model, lm_head=model.lm_head).with_max_seq_len(16)
    with torch.no_grad():
        found = builder.part(target("tensorrt-rtx")).wrapper(**given)
        wanted = model(input_ids=given["input_ids"].long()).logits
    assert relative_error(found, wanted[torch.arange(2), given["last_token_ids"].long()]) < FLOAT32


@torch.no_grad()
@pytest.mark.skipif(not TRANSFORMERS_5, reason="transformers 4.51 does not know the model")
def test_tokens_of_other_modalities_get_the_embeddings_of_the_stand_in():
    """Also those for each layer; an image token, the model's own answer may hold one, is like them."""
    model = FAMILIES["gemma4"].model(150)
    embedding, stand_in = model.get_input_embeddings(), Gemma4Model.stand_in(model.config)
    assert stand_in == StandIn((150, 85, 153), TEXT["pad_token_id"])
    ids = torch.tensor([[20, 150, 85, 21, 153, 22]])
    given = {"input_ids": ids.int(), "position_ids": torch.arange(6)[None].int(), "last_token_ids": torch.tensor([5])}
    wanted = model(input_ids=ids, position_ids=given["position_ids"].long()).logits[:, -1]
    found = LlmWrapper(model, embedding, len(embedding.weight), stand_in=stand_in)(**given)
    assert relative_error(found, wanted) < FLOAT32
    unknown = LlmWrapper(model, embedding, len(embedding.weight))(**given)
    assert relative_error(unknown, wanted) > 100 * FLOAT32
    with pytest.raises(UnsupportedFeature, match="which image tokens lack"):
        LlmWrapper(model, embedding, len(embedding.weight))(**given, prompt_embedding_table=torch.zeros(1, 48))
