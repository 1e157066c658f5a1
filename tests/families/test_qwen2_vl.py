"""Which prompts Qwen2.5-Omni's own positions are for, and that they are Hugging Face's."""

from __future__ import annotations

import pytest
import torch

from ditto.errors import PromptError
from ditto.families.preprocessor import Preprocessor
from ditto.families.qwen2_vl import Qwen25OmniModel
from tests.support.families import FAMILIES
from tests.support.models import TRANSFORMERS_5

pytestmark = pytest.mark.skipif(not TRANSFORMERS_5, reason="the family follows transformers 5")

GRIDS = torch.tensor([[1, 4, 6], [1, 8, 4]])


@pytest.fixture(scope="module")
def omni(tmp_path_factory):
    directory = tmp_path_factory.mktemp("omni")
    model = FAMILIES["qwen2_5_omni_thinker"].save(directory)
    return model, Qwen25OmniModel.preprocessor.configured(directory)


def prompt(config, *, start: tuple[bool, bool] = (True, True), more: tuple[int, ...] = (50, 51)) -> list[int]:
    """Two images, of 6 and 8 tokens, with or without the token before each."""
    spans = [[config.vision_start_token_id] * had + [config.image_token_id] * n for had, n in zip(start, (6, 8))]
    return [40, 41, *spans[0], config.vision_end_token_id, 42, *spans[1], *more]


@pytest.mark.parametrize("start", [(True, True), (False, False)], ids=["announced", "bare"])
def test_positions_are_hugging_faces(omni, start):
    """As the model itself computes them; images that no token announces have those of text."""
    model, preprocessor = omni
    ids = prompt(model.config, start=start)
    found = preprocessor.positions(ids, {"image_grid_thw": GRIDS})
    wanted, delta = model.get_rope_index(torch.tensor([ids]), GRIDS, attention_mask=torch.ones(1, len(ids)))
    assert found.ids.tolist() == wanted[:, 0].tolist()
    assert found.delta == int(delta)
    assert (found.ids[0].tolist() == list(range(len(ids)))) == (start == (False, False))


@pytest.mark.parametrize("start", [(True, False), (False, True)], ids=["first", "second"])
def test_images_that_only_some_tokens_announce_are_refused(omni, start):
    model, preprocessor = omni
    with pytest.raises(PromptError, match="an image stands without the tokens around it"):
        preprocessor.positions(prompt(model.config, start=start), {"image_grid_thw": GRIDS})


@pytest.mark.parametrize("name", [None, "vision_start_token_id"], ids=["image", "start"])
def test_a_prompt_that_ends_within_an_image_is_refused(omni, name):
    """Hugging Face's own model has an index or a shape that does not fit."""
    model, preprocessor = omni
    ids = prompt(model.config, more=() if name is None else (50, getattr(model.config, name)))
    with pytest.raises(PromptError, match="an image stands without the tokens around it"):
        preprocessor.positions(ids, {"image_grid_thw": GRIDS})
    with pytest.raises((IndexError, RuntimeError)):
        model.get_rope_index(torch.tensor([ids]), GRIDS)


def test_a_place_for_audio_is_refused(omni):
    model, preprocessor = omni
    ids = prompt(model.config, more=(model.config.audio_start_token_id, 50))
    with pytest.raises(PromptError, match="the prompt has a place for audio"):
        preprocessor.positions(ids, {"image_grid_thw": GRIDS})


def test_random_prompts_leave_out_what_announces_a_medium(omni):
    model, preprocessor = omni
    assert preprocessor.reserved() == {model.config.audio_start_token_id, model.config.vision_start_token_id}
    assert Preprocessor.reserved(preprocessor) == frozenset()
