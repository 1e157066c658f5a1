"""Towers of images in native size give Hugging Face's image embeddings for the patches of one image."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from attrs import evolve

from ditto import MultimodalModel
from ditto.capture.attention import register, use_semantic_attention
from ditto.errors import CheckpointError, PromptError
from ditto.families.native import NativeSizeModel, merge_size
from ditto.families.registry import find_family
from ditto.reference import RELATIVE_ERROR, relative_error
from tests.support.families import FAMILIES, WITH_TORCHVISION, clip
from tests.support.models import TRANSFORMERS_5

EVERY = {**FAMILIES, **WITH_TORCHVISION}
NATIVE = sorted(name for name in EVERY if issubclass(find_family(name) or object, NativeSizeModel))
IMAGE = 10
needs_5 = pytest.mark.skipif(not TRANSFORMERS_5, reason="the families follow transformers 5")


@needs_5
@torch.no_grad()
@pytest.mark.parametrize("name", NATIVE)
@pytest.mark.parametrize("grid", [(4, 6), (2, 10), (6, 2)])
def test_wrappers_give_the_models_own_embeddings(name, grid):
    family, model = find_family(name), EVERY[name].model(IMAGE)
    grid = tuple(side * max(merge_size(model.config) // 2, 1) for side in grid)
    preprocessor = evolve(family.preprocessor, model=SimpleNamespace(config=model.config))
    encoder = family.encoder(model.config)
    values = encoder.inputs["pixel_values"].shape[2:]
    patches = torch.randn(grid[0] * grid[1], *values, generator=torch.Generator().manual_seed(0))
    item = preprocessor.item(patches, torch.tensor([[1, *grid]]))
    inputs = [item.inputs[name] for name in encoder.inputs]
    given = preprocessor.model_inputs([item])
    found, size = preprocessor.patches(item)
    assert torch.equal(found, patches) and size.tolist() == [[1, *grid]]
    (again,) = preprocessor.items(given)
    assert all(torch.equal(again.inputs[name], tensor) for name, tensor in item.inputs.items())
    wanted = family.features(model, given)
    wrapper = encoder.module(model)
    register()
    use_semantic_attention(wrapper)
    embeddings = wrapper(*inputs)
    assert embeddings.shape == wanted.shape
    assert relative_error(embeddings, wanted) < RELATIVE_ERROR[torch.float32]
    transposed = preprocessor.item(patches, torch.tensor([[1, *grid[::-1]]]))
    other = wrapper(*(transposed.inputs[name] for name in encoder.inputs))
    assert other.shape != wanted.shape or relative_error(other, wanted) > 100 * RELATIVE_ERROR[torch.float32]


@needs_5
def test_an_image_of_half_a_token_is_refused():
    """Pixtral's tower attends to patches that become no token, which the engine does not get."""
    family, model = find_family("mistral3"), WITH_TORCHVISION["mistral3"].model(IMAGE)
    preprocessor = evolve(family.preprocessor, model=SimpleNamespace(config=model.config))
    with pytest.raises(PromptError, match="an image becomes 28 by 35 pixels; the engine takes multiples of 14"):
        preprocessor.items({"pixel_values": torch.zeros(1, 3, 28, 35), "image_sizes": torch.tensor([[28, 35]])})


@needs_5
@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"vision_feature_layer": [-1, -2]}, r"`vision_feature_layer` is \[-1, -2\]"),
        ({"vision_feature_layer": 9}, "`vision_feature_layer` is 9, the tower has 2 layers"),
        ({"spatial_merge_size": 0}, "`spatial_merge_size` is 0"),
        ({"vision_config": clip()}, "its tower is 'clip_vision_model', not 'pixtral'"),
    ],
)
def test_configurations_that_are_not_handled_are_refused(settings, reason):
    config = WITH_TORCHVISION["mistral3"].model(IMAGE).config
    for name, value in settings.items():
        setattr(config, name, value)
    with pytest.raises(CheckpointError, match=reason):
        find_family("mistral3").encoder(config)


@needs_5
@pytest.mark.parametrize("name", ["video_llama_3", "llava_pixtral"])
def test_a_merge_size_that_the_model_ignores_is_refused(name):
    config = EVERY[name].model(IMAGE).config
    config.vision_config.spatial_merge_size = 2
    family = find_family(config.model_type)
    with pytest.raises(CheckpointError, match="2 by 2 patches become an image token, and the model merges none"):
        family.variant(config).encoder(config)


@needs_5
def test_merged_patches_of_videollama_are_refused():
    family = find_family("video_llama_3")
    with pytest.raises(CheckpointError, match="`merge_size` of the image processor is 2"):
        family.most_tiles(None, {"merge_size": 2})
    with pytest.raises(PromptError, match="the processor merges 2 patches along each side"):
        family.preprocessor.items({"image_merge_sizes": torch.tensor([2])})


@needs_5
def test_other_interpolations_and_tables_are_refused():
    config = FAMILIES["hunyuan_vl"].model(IMAGE).config
    config.vision_config.interpolate_mode = "bicubic"
    with pytest.raises(CheckpointError, match="`vision_config.interpolate_mode` is 'bicubic'"):
        find_family("hunyuan_vl").encoder(config)
    for name, reason in {"kimi_k25": "which is not square", "muse_glimmer": "its table of positions is 4 by 6"}.items():
        config = WITH_TORCHVISION[name].model(IMAGE).config
        config.vision_config.pos_emb_width = 6
        with pytest.raises(CheckpointError, match=reason):
            find_family(name).encoder(config)


@needs_5
def test_tables_of_prompts_have_room_for_the_ends_of_rows(tmp_path):
    """An image of a single column has one after each token."""
    FAMILIES["hunyuan_vl"].save(tmp_path)
    model = MultimodalModel.from_pretrained(str(tmp_path)).with_max_image_size(28, 42).with_max_images(2)
    assert model.max_image_tokens == 6 and model.llm.prompt_rows == 2 * (2 * 6 + 2)
    assert model.vision.inputs["order"].shape[0].max == 14
