"""Prompts are random, of the wanted sizes, and free of special tokens."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from transformers import AutoProcessor

from ditto import LlavaModel
from ditto.errors import PromptError, TreeError
from ditto.runtime.session import RequestLimits
from ditto.verify.inputs import Prompts, about_images, check, mixed, prompts, rows_per_image, sample_items
from tests.support.images import prompts as about
from tests.support.models import llava


def test_prompts_have_no_special_token(llava_tree):
    tokens = llava_tree.manifest.tokens
    made = prompts(llava_tree, 3, 2000)
    assert made.ids.shape == (3, 2000)
    assert not made.items
    assert not set(made.ids.flatten().tolist()) & {*tokens.end, tokens.pad, tokens.image}
    assert made.ids.max() < tokens.vocab_size


def test_each_prompt_has_a_image_and_its_places(llava_tree):
    rows = rows_per_image(llava_tree)
    made = prompts(llava_tree, 2, rows + 6, with_images=True)
    assert (made.ids == llava_tree.manifest.tokens.image).sum(1).tolist() == [rows, rows]
    assert made.inputs["pixel_values"].shape == (2, 3, 28, 28)
    wanted = [item.inputs["input"] for item in sample_items(llava_tree, 2)]
    assert torch.equal(made.inputs["pixel_values"], torch.stack(wanted))


def test_mixed_prompts_differ_in_length_and_in_images(llava_tree, llama_tree):
    limits = RequestLimits.of(llava_tree)
    made = mixed(llava_tree, 6)
    assert [len(prompt.items) for prompt in made] == [1, 1, 1, 0]
    assert len({prompt.ids.shape[1] for prompt in made}) > 1
    assert all(prompt.ids.shape[1] + 6 <= limits.max_seq_len for prompt in made)
    assert not any(prompt.items for prompt in mixed(llama_tree, 6))


def test_a_persons_images_go_through_the_processor(shapes_checkpoint, images, shapes_tree, llama_tree, llava_tree):
    prompt = "USER: <image>\nWhat? ASSISTANT:"
    first, second = about_images(shapes_tree, [str(path) for path in images[:2]], [prompt])
    processor = AutoProcessor.from_pretrained(shapes_checkpoint)
    with Image.open(images[1]) as image:
        wanted = processor(text=["USER: <image>\nWhat? ASSISTANT:"], images=[image.convert("RGB")], return_tensors="pt")
    assert torch.equal(second.ids, wanted["input_ids"])
    assert torch.equal(second.inputs["pixel_values"], wanted["pixel_values"])
    assert not torch.equal(first.inputs["pixel_values"], second.inputs["pixel_values"])
    with pytest.raises(PromptError, match="no vision engine"):
        about_images(llama_tree, ["x"], ["y"])
    with pytest.raises(TreeError, match="no processor"):
        about_images(llava_tree, ["x"], ["y"])


def test_a_tree_whose_prompts_have_no_room_for_a_image_is_asked_without(tmp_path):
    model = LlavaModel.from_model(llava()).with_target("tensorrt-rtx").with_max_input_len(10)
    tree = model.build_all(tmp_path / "tree")
    made = mixed(tree, 4)
    assert rows_per_image(tree) > 10
    assert [prompt.items for prompt in made] == [()] * 4
    check(tree, made, 4)


def test_what_a_tree_does_not_take_is_told_before_anything_runs(llava_tree):
    limits, image = RequestLimits.of(llava_tree), llava_tree.manifest.tokens.image
    rows, pixels = rows_per_image(llava_tree), sample_items(llava_tree, 1)[0].inputs["input"][None]
    text, whole = torch.tensor([[5, 6, 7]]), torch.tensor([[5, *[image] * rows, 7]])
    check(llava_tree, [Prompts(text), about(whole, pixels)], 4)
    for given, count, message in (
        (
            [Prompts(text), about(text, pixels)],
            4,
            f"prompt 2 has 0 image tokens, its images become {rows} rows",
        ),
        ([about(whole[:, :-2], pixels)], 4, f"prompt 1 has {rows - 1} image tokens"),
        ([Prompts(text)], limits.max_seq_len, "that is more than the engine's"),
        ([Prompts(torch.full((1, limits.max_input_len + 1), 5))], 1, "the engine accepts"),
    ):
        with pytest.raises(PromptError, match=message):
            check(llava_tree, given, count)


def test_a_prompt_without_room_for_its_image_is_refused(llava_tree):
    rows = rows_per_image(llava_tree)
    assert (prompts(llava_tree, 1, rows + 5, with_images=True).ids == llava_tree.manifest.tokens.image).sum() == rows
    with pytest.raises(PromptError, match=f"a prompt of {rows + 4} tokens has no room for an image of {rows}"):
        prompts(llava_tree, 1, rows + 4, with_images=True)
