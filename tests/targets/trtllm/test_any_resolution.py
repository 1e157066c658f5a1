"""Trees of models that assemble images from tiles: what TensorRT-LLM's multimodal runner wants of them."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from ditto import MultimodalModel
from ditto.errors import ConfigError
from ditto.runtime import open_session
from ditto.text.pipeline import GenerationPipeline
from tests.support.conformance import Tree, violations
from tests.support.families import (
    Family,
    clip,
    images,
    llama,
    llava_next,
    llava_next_processor,
    llava_onevision,
    llava_onevision_processor,
    qwen2,
    siglip,
)
from tests.support.models import TRANSFORMERS_5

# As the runner has them (contract, multimodal 3.2).
SIZES = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
NEW_TOKENS, TEXT = 4, "Is <image> new?"


def of_the_runner(sizes=SIZES):
    """A tiny LLaVA-NeXT with the tiles that the runner assembles."""
    text = llama(max_position_embeddings=4096, num_hidden_layers=1)
    vision = clip(image_size=336, patch_size=14, num_hidden_layers=1)
    return Family(
        lambda: llava_next_processor(336, 14, image_grid_pinpoints=sizes),
        lambda image: llava_next(image, vision, text, image_grid_pinpoints=sizes),
    )


def tree_of(family, directory):
    model = family.save(directory / "checkpoint")
    builders = MultimodalModel.from_pretrained(str(directory / "checkpoint")).with_target("trtllm")
    return model, builders.with_dtype("float32").build_all(directory / "tree")


def greedy(family, model, directory, pixels):
    """Hugging Face's greedy tokens."""
    given = family.load_processor(directory / "checkpoint")(text=[TEXT], images=pixels, return_tensors="pt")
    found = model.generate(**given, max_new_tokens=NEW_TOKENS, do_sample=False)[0, given["input_ids"].shape[1] :]
    return (tuple(found.tolist()),)


def answered(tree):
    return GenerationPipeline(open_session(tree, "reference")).answer([TEXT], images("strip"), NEW_TOKENS).tokens


@pytest.mark.skipif(not TRANSFORMERS_5, reason="the family follows transformers 5")
def test_a_llava_next_keeps_the_contract(tmp_path):
    family = of_the_runner()
    model, tree = tree_of(family, tmp_path)
    newlines = tree.root / "vision" / "image_newlines.safetensors"
    assert list(load_file(newlines)) == ["image_newline"]
    assert torch.equal(load_file(newlines)["image_newline"], model.model.image_newline)
    assert tree.component("vision").inputs == {"input": "float32[batch, 3, 336, 336]"}
    assert tree.component("vision").outputs == {"encoder_output": "float32[batch, 576, 48]"}
    assert tree.max_images == 5  # views and tiles, all of which the runner passes in one call
    assert tree.limits.max_prompt_embedding_table_size == 576 + 48 * 49
    opened = Tree.open(tree.root)
    assert violations(opened, "0.19.0") == []

    assert answered(tree) == greedy(family, model, tmp_path, images("strip"))

    newlines.unlink()
    (found,) = violations(opened, "0.19.0")
    assert str(found) == "vision/image_newlines.safetensors is no file [multimodal 1.1, 6.10]"


@pytest.mark.skipif(not TRANSFORMERS_5, reason="the family follows transformers 5")
def test_so_does_a_llava_onevision(tmp_path):
    vision = siglip(image_size=384, patch_size=14, num_hidden_layers=1, vision_use_head=False)
    text = qwen2(max_position_embeddings=4096, num_hidden_layers=1)
    family = Family(
        lambda: llava_onevision_processor(384, 14), lambda image: llava_onevision(image, vision, text_config=text)
    )
    model = family.save(tmp_path / "checkpoint")
    builders = MultimodalModel.from_pretrained(str(tmp_path / "checkpoint")).with_max_tiles(2).with_target("trtllm")
    tree = builders.with_dtype("float32").build_all(tmp_path / "tree")
    newlines = load_file(tree.root / "vision" / "image_newlines.safetensors")
    assert torch.equal(newlines["image_newline"], model.model.image_newline)
    assert tree.component("vision").outputs == {"encoder_output": "float32[batch, 729, 48]"}
    assert tree.limits.max_prompt_embedding_table_size == 729 + 27 * 28
    assert violations(Tree.open(tree.root), "0.19.0") == []
    assert answered(tree) == greedy(family, model, tmp_path, [images("strip")])


@pytest.mark.skipif(not TRANSFORMERS_5, reason="the family follows transformers 5")
def test_other_sizes_than_the_runners_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="does not know 'llava_next' models that assemble their images as this one"):
        tree_of(of_the_runner(SIZES[::-1]), tmp_path)
