"""Every family gives Hugging Face's image embeddings and tokens, for images of any size and number."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from attrs import frozen

from ditto import EngineTree, MultimodalModel
from ditto.errors import ConfigError, PromptError
from ditto.families.native import NativeSizeModel
from ditto.families.registry import find_family
from ditto.reference import RELATIVE_ERROR, relative_error
from ditto.runtime import Session, open_session
from ditto.runtime.weights import network_of, weights_of
from ditto.targets.tensorrt.target import NativeTarget
from ditto.text.pipeline import GenerationPipeline
from ditto.text.processing import Processor
from ditto.verify.check import verify
from ditto.verify.inputs import mixed
from tests.support.families import FAMILIES, SIZES, WITH_TORCHVISION, Family, images
from tests.support.layers import emitted
from tests.support.models import TRANSFORMERS_5

NEW_TOKENS = 5


@frozen
class Case:
    """A family's tiny model and its tree."""

    family: Family
    model: Any
    tree: EngineTree
    checkpoint: Path
    session: Session

    def prompt(self, count: int) -> str:
        if self.family.before_prompt:
            return self.family.placeholder * count + "Is it new?"
        return "Is " + " or ".join([self.family.placeholder] * count) + " new?"

    def hugging_face(self, text: str, pixels: list[Any]) -> dict[str, Any]:
        """The model's inputs, as its own processor makes them."""
        text = text.replace(self.family.placeholder, "") if self.family.before_prompt else text
        text = text.replace(self.family.placeholder, self.family.placeholder * self.family.written)
        nested = [pixels] if self.family.nests_images and pixels else pixels
        asked = {"return_mm_token_type_ids": True} if self.family.asks_kinds else {}
        processor = self.family.load_processor(self.checkpoint)
        given = processor(text=[text], images=nested or None, return_tensors="pt", **asked)
        taken = inspect.signature(type(self.model).forward).parameters
        return {name: tensor for name, tensor in given.items() if name != "token_type_ids" or name in taken}

    @torch.no_grad()
    def tokens(self, text: str, pixels: list[Any]) -> tuple[int, ...]:
        """Hugging Face's greedy tokens."""
        given = self.hugging_face(text, pixels)
        found = self.model.generate(**given, max_new_tokens=NEW_TOKENS, do_sample=False)
        return tuple(found[0, given["input_ids"].shape[1] :].tolist())


@pytest.fixture(scope="module", params=FAMILIES if TRANSFORMERS_5 else ["llava"])
def case(request, tmp_path_factory):
    family, directory = FAMILIES[request.param], tmp_path_factory.mktemp(request.param)
    model = family.save(directory / "checkpoint")
    builders = MultimodalModel.from_pretrained(str(directory / "checkpoint"))
    assert builders.model_type == model.config.model_type
    with patch.object(NativeTarget, "cannot_compile", "it takes longer than all else"):
        tree = builders.with_batch(3).with_max_images(2).with_target("tensorrt-rtx").build_all(directory / "tree")
    return Case(family, model, tree, directory / "checkpoint", open_session(tree, "reference"))


@torch.no_grad()
@pytest.mark.parametrize("size", SIZES)
def test_embeddings_are_hugging_faces(case, size):
    if size == "tiny" and not case.family.takes_tiny:
        pytest.skip("Hugging Face's own model does not take an image of a single token")
    pixels = images(size)
    (encoded,) = Processor.of(case.tree).encode([case.prompt(1)], pixels)
    given = case.hugging_face(case.prompt(1), pixels)
    assert list(encoded.token_ids) == given["input_ids"][0].tolist()
    found = torch.cat(case.session.embeddings(encoded.items))
    wanted = find_family(case.model.config.model_type).features(case.model, encoded.inputs)
    assert len(found) == encoded.token_ids.count(case.tree.manifest.tokens.image)
    assert relative_error(found, wanted) < RELATIVE_ERROR[torch.float32]
    if case.family.tiled and len(encoded.items) > 1:
        shuffled = torch.cat(case.session.embeddings(encoded.items[::-1]))
        assert relative_error(shuffled, wanted) > 100 * RELATIVE_ERROR[torch.float32]


def test_tokens_are_hugging_faces(case):
    """Rows with one image, with two of other sizes, and without, in one batch."""
    sizes = [("landscape",), ("strip", "portrait"), ("square",)]
    pixels = [images(*names[:count]) for names, count in zip(sizes, case.family.images)]
    prompts = [case.prompt(count) for count in case.family.images]
    wanted = tuple(case.tokens(text, given) for text, given in zip(prompts, pixels))
    given = [image for each in pixels for image in each]
    assert GenerationPipeline(case.session).answer(prompts, given, NEW_TOKENS).tokens == wanted
    other = images("square", "strip")[: case.family.images[1]]
    alone = GenerationPipeline(case.session).answer([prompts[1]], other, NEW_TOKENS)
    assert alone.tokens == (case.tokens(prompts[1], other),)


def test_verification_passes(case):
    prompts = mixed(case.tree, NEW_TOKENS)
    assert [bool(prompt.items) for prompt in prompts] == [True, True, True, 0 not in case.family.images]
    assert verify(case.tree, prompts, session="reference", new_tokens=NEW_TOKENS).passed


def test_tensorrt_llm_gets_the_types_that_its_runner_knows(case, tmp_path):
    builders = MultimodalModel.from_pretrained(str(case.checkpoint)).with_target("trtllm")
    if case.model.config.model_type not in ("internvl", "llava") or isinstance(builders, NativeSizeModel):
        with pytest.raises(ConfigError, match="TensorRT-LLM's multimodal runner"):
            builders.build_all(tmp_path / "tree")
        return
    session = open_session(builders.build_all(tmp_path / "tree"), "reference")
    text, pixels = case.prompt(1), images("landscape")
    assert GenerationPipeline(session).answer([text], pixels, NEW_TOKENS).tokens == (case.tokens(text, pixels),)


def test_tensorrt_takes_every_layer(case):
    for name in case.tree.manifest.components:
        emitted(network_of(case.tree, name), weights_of(case.tree, name))


@pytest.mark.parametrize("dtype", ["float16", pytest.param("bfloat16", marks=pytest.mark.slow)])
def test_verification_passes_in_other_dtypes(case, dtype, tmp_path):
    """With external weights, so that prefill and decode are engines of their own."""
    builders = MultimodalModel.from_pretrained(str(case.checkpoint)).with_target("tensorrt-rtx").with_dtype(dtype)
    with patch.object(NativeTarget, "cannot_compile", "it takes longer than all else"):
        tree = builders.with_optimize("latency").build_all(tmp_path / "tree")
    assert verify(tree, mixed(tree, NEW_TOKENS), session="reference", new_tokens=NEW_TOKENS).passed


@pytest.mark.parametrize("medium", ["video", "audio"])
def test_videos_and_audio_are_refused(case, medium):
    processor = Processor.of(case.tree)
    setattr(processor.inner, f"{medium}_token", "<other>")
    with pytest.raises(PromptError, match=f"prompt 1 has a place for {medium}, <other>"):
        processor.encode(["What is <other>?"], [])


def test_tiles_are_cut_where_the_family_cuts_them(case):
    (encoded,) = Processor.of(case.tree).encode([case.prompt(1)], images("strip"))
    assert (len(encoded.items) > 1) == case.family.tiled


@pytest.mark.drawn(3)
@pytest.mark.parametrize("name", WITH_TORCHVISION if TRANSFORMERS_5 else [])
def test_models_whose_processors_need_torchvision_are_hugging_faces(name, tmp_path):
    """With random pixels in place of images."""
    WITH_TORCHVISION[name].model(150).save_pretrained(tmp_path / "checkpoint")
    with patch.object(NativeTarget, "cannot_compile", "it takes longer than all else"):
        model = MultimodalModel.from_pretrained(str(tmp_path / "checkpoint")).with_batch(2)
        if getattr(type(model), "with_max_image_size", None) is NativeSizeModel.with_max_image_size:
            model = model.with_max_image_size(42, 42)  # other processors limit images themselves
        tree = model.with_target("tensorrt-rtx").build_all(tmp_path / "tree")
    prompts = mixed(tree, NEW_TOKENS)
    assert sum(bool(prompt.items) for prompt in prompts) == 3
    assert verify(tree, prompts, session="reference", new_tokens=NEW_TOKENS).passed
