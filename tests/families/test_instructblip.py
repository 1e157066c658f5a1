"""InstructBLIP's vision engine reads the prompt, or refuses it by name."""

from __future__ import annotations

import pytest
import torch

from ditto.errors import CheckpointError, PromptError
from ditto.families.registry import find_family
from tests.support.families import FAMILIES
from tests.support.models import TRANSFORMERS_5

pytestmark = pytest.mark.skipif(not TRANSFORMERS_5, reason="the family follows transformers 5")


def _inputs(*ids):
    tokens = torch.tensor([ids])
    named = {"qformer_input_ids": tokens, "qformer_attention_mask": torch.ones_like(tokens)}
    return {"pixel_values": torch.randn(1, 3, 28, 28, generator=torch.Generator().manual_seed(0)), **named}


@torch.no_grad()
def test_another_prompt_is_another_embedding():
    family, model = find_family("instructblip"), FAMILIES["instructblip"].model(4)
    module = family.encoder(model.config).module(model)
    found = []
    for inputs in (_inputs(5, 6, 7), _inputs(5, 6), _inputs(8, 9, 10)):
        (item,) = family.preprocessor.items(inputs)
        found.append(module(item.inputs["input"][None], item.inputs["prompt_ids"][None])[0])
        torch.testing.assert_close(found[-1], family.features(model, inputs), rtol=1e-4, atol=1e-5)
    for other in found[1:]:
        assert (found[0] - other).abs().max() > 1e-3, "the prompt has no effect"


def test_what_the_q_former_cannot_read_is_refused():
    family, config = find_family("instructblip"), FAMILIES["instructblip"].model(4).config
    with pytest.raises(PromptError, match="the prompt has 513 tokens of the Q-Former, which reads at most 512"):
        family.preprocessor.items(_inputs(*[5] * 513))
    config.qformer_config.max_position_embeddings = 128
    with pytest.raises(CheckpointError, match="the Q-Former reads prompts of 128 tokens"):
        family.encoder(config)
    config.use_decoder_only_language_model = False
    with pytest.raises(CheckpointError, match="is an encoder-decoder"):
        family.encoder(config)
