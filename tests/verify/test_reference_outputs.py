"""The reference_outputs is Hugging Face's own word."""

from __future__ import annotations

import pytest
import torch

from ditto.verify.inputs import Prompts
from ditto.verify.reference_outputs import greedy, look, modules
from tests.support.images import prompts
from tests.support.models import image_features, llama, llava

TEXT = Prompts(torch.tensor([[5, 9, 31, 7]]))


@pytest.fixture(scope="module")
def model():
    made = llama()
    made.generation_config.eos_token_id = None
    return made


def test_greedy_tokens_follow_the_logits(model):
    tokens = greedy(model, TEXT, 4)
    ids = TEXT.ids
    for token in tokens:
        with torch.no_grad():
            logits = model(ids).logits[0, -1]
        assert token == int(logits.argmax())
        ids = torch.cat([ids, logits.argmax()[None, None]], 1)
    assert len(tokens) == 4


def test_a_models_own_penalties_do_not_change_its_greedy_tokens(model):
    wanted = greedy(model, TEXT, 6)
    own = model.generation_config
    model.generation_config = type(own)(repetition_penalty=9.0, num_beams=3, eos_token_id=None)
    try:
        assert greedy(model, TEXT, 6) == wanted
        assert model.generation_config.num_beams == 3  # as it was
    finally:
        model.generation_config = own


def test_an_end_token_of_the_model_ends_its_answer(model):
    first, second, *_ = greedy(model, TEXT, 4)
    assert first != second
    model.generation_config.eos_token_id = second
    try:
        assert greedy(model, TEXT, 4) == (first, second)
    finally:
        model.generation_config.eos_token_id = None


def test_logits_of_each_new_position(model):
    tokens = (11, 12, 13)
    found = look(model, TEXT, tokens)
    assert found.features is None
    for count in range(3):
        ids = torch.cat([TEXT.ids, torch.tensor([list(tokens[:count])], dtype=torch.int64)], 1)
        with torch.no_grad():
            assert torch.allclose(found.logits[count], model(ids).logits[0, -1], atol=1e-5)


def test_features_are_hugging_faces():
    model = llava()
    ids = torch.tensor([[5, *[model.config.image_token_index] * 16, 6]])
    pixels = torch.randn(1, 3, 28, 28)
    found = look(model, prompts(ids, pixels), (4,))
    assert torch.equal(found.features, image_features(model, pixels).flatten(0, 1))
    seen = modules(model, prompts(ids, pixels))
    assert any("multi_modal_projector" in path for path in seen)


class Forced:
    """A processor for `generate` that gives these tokens."""

    def __init__(self, start, tokens):
        self.start, self.tokens = start, tokens

    def __call__(self, ids, scores):
        forced = torch.full_like(scores, -1e9)
        forced[:, self.tokens[ids.shape[1] - self.start]] = 0
        return forced


@pytest.mark.parametrize("image_token", [127, 40])
@pytest.mark.parametrize("answer", [(11, 12, 13), (11, -1, 12, -1, -1, 13), (-1, 5), (5, -1)])
def test_an_image_token_in_an_answer_is_a_token_like_any_other(image_token, answer):
    """As `generate` has it, which decodes behind a cache, without pixels."""
    model = llava(image_token_index=image_token)
    model.generation_config.eos_token_id = None
    ids = torch.tensor([[5, *[image_token] * 16, 6]])
    prompt = prompts(ids, torch.randn(1, 3, 28, 28))
    tokens = tuple(image_token if token < 0 else token for token in answer)
    with torch.no_grad():
        made = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            **prompt.inputs,
            max_new_tokens=len(tokens),
            logits_processor=[Forced(ids.shape[1], tokens)],
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
    assert tuple(made.sequences[0, ids.shape[1] :].tolist()) == tokens
    assert torch.allclose(look(model, prompt, tokens).logits, torch.cat(made.logits), atol=1e-4)


def test_modules_are_seen_from_both_sides(model):
    seen = modules(model, TEXT)
    block = model.model.layers[1]
    assert torch.equal(
        seen["model.layers.1.mlp.act_fn"].output, torch.nn.functional.silu(seen["model.layers.1.mlp.act_fn"].input)
    )
    with torch.no_grad():
        taken = seen["model.layers.1.input_layernorm"].input
        assert torch.equal(seen["model.layers.1.input_layernorm"].output, block.input_layernorm(taken))
        assert torch.equal(seen["lm_head"].output, model(TEXT.ids).logits)
