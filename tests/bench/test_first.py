"""First tokens are those that the models choose."""

from __future__ import annotations

import pytest
import torch

from ditto import MultimodalModel
from ditto.bench.first import first_token, open_model, open_system
from ditto.verify import inputs
from tests.support.families import FAMILIES
from tests.support.models import TRANSFORMERS_5

needs_5 = pytest.mark.skipif(not TRANSFORMERS_5, reason="the families follow transformers 5")


def test_a_first_token_of_a_model(saved_llava, saved_tree, eager):
    given = inputs.prompts(saved_tree, 1, 16)
    with torch.no_grad():
        logits = eager.model(given.ids).logits[0, -1]
    assert first_token(open_model(str(saved_llava), "float32", saved_tree), saved_tree) == int(logits.argmax())


def test_a_first_token_of_a_tree(saved_tree, eager):
    wanted = eager.answer(inputs.prompts(saved_tree, 1, 16), 1)[0][0]
    assert first_token(open_system(saved_tree, "reference"), saved_tree) == wanted


@needs_5
def test_a_model_and_a_tree_of_images_of_any_size_encode_the_same(tmp_path):
    FAMILIES["qwen2_5_vl"].save(tmp_path / "checkpoint")
    builder = MultimodalModel.from_pretrained(str(tmp_path / "checkpoint")).with_target("tensorrt-rtx")
    tree = builder.with_max_image_size(112, 112).build_all(tmp_path / "tree")
    model, built = open_model(str(tmp_path / "checkpoint"), "float32", tree), open_system(tree, "reference")
    assert first_token(model, tree) == first_token(built, tree)
    (found,) = built.features(inputs.sample_items(tree, 1))
    torch.testing.assert_close(found, model.features(inputs.sample_items(tree, 1)), rtol=1e-4, atol=1e-4)


@needs_5
def test_a_model_that_takes_no_prompt_without_an_image_gets_one(tmp_path):
    FAMILIES["blip-2"].save(tmp_path / "checkpoint")
    tree = MultimodalModel.from_pretrained(str(tmp_path / "checkpoint")).with_target("tensorrt-rtx")
    tree = tree.with_dtype("float32").build_all(tmp_path / "tree")
    model, built = open_model(str(tmp_path / "checkpoint"), "float32", tree), open_system(tree, "reference")
    assert first_token(model, tree) == first_token(built, tree)
