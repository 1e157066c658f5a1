"""Prompts and images go in as Hugging Face's processor has them; what does not fit is said in one message."""

from __future__ import annotations

import pytest
import torch
from attrs import evolve
from PIL import Image
from transformers import GenerationConfig

from ditto import EngineTree, LlavaModel, LlmBuilder
from ditto.errors import PromptError, TreeError
from ditto.runtime import GREEDY, Request, Sampling, generate, open_session
from ditto.text.pipeline import GenerationPipeline
from ditto.verify.inputs import Prompts
from ditto.verify.tree import requests_of
from tests.support.images import features
from tests.support.models import llama
from tests.support.shapes import HuggingFace

DESCRIBE = "USER: <image>\nDescribe this image. ASSISTANT:"


@pytest.fixture(scope="module")
def tree(shapes_checkpoint, tmp_path_factory):
    out = tmp_path_factory.mktemp("shapes") / "tree"
    made = LlavaModel.from_pretrained(str(shapes_checkpoint)).with_batch(2).with_target("tensorrt-rtx")
    return made.with_max_input_len(100).with_max_seq_len(140).build_all(out)


@pytest.fixture(scope="module")
def pipeline(tree):
    return GenerationPipeline(open_session(tree, "reference"))


def test_one_image_serves_several_prompts(pipeline, images):
    reply = pipeline.answer([DESCRIBE, "<image>\nHow many shapes are there?"], [images[0]])
    assert reply.answers == (
        "A small yellow cross at the bottom and a small blue ring at the bottom right.",
        "There are two shapes.",
    )
    assert reply.session == "reference"
    assert set(reply.seconds) == {"preprocess", "vision", "generate"}


def test_each_prompt_gets_its_own_image_in_order(pipeline, images):
    reply = pipeline.answer([DESCRIBE] * 2, [images[3], images[2]])
    assert reply.answers == (
        "A large green cross at the top.",
        "A large purple diamond at the top and a large purple circle at the bottom.",
    )


def test_answers_end_at_the_limit(pipeline, images):
    assert len(pipeline.answer([DESCRIBE], [images[0]], max_new_tokens=3).tokens[0]) == 3


def test_a_text_prompt_needs_no_image(pipeline):
    assert pipeline.answer(["USER: How many shapes are there? ASSISTANT:"], max_new_tokens=4).tokens[0]


def test_prompts_with_and_without_images_are_answered_in_one_batch(tree, hugging_face, images):
    """A session's requests; the answers are Hugging Face's for each alone."""
    session = open_session(tree, "reference")
    with_image, (text,) = (
        hugging_face.inputs(images[2], DESCRIBE),
        hugging_face.processor.tokenizer(["USER: How many shapes are there? ASSISTANT:"], return_tensors="pt")[
            "input_ids"
        ].tolist(),
    )
    (request,) = requests_of(
        session,
        Prompts(with_image["input_ids"]),
        features(session, with_image["pixel_values"]).flatten(0, 1),
    )
    wanted = hugging_face.model.generate(torch.tensor([text]), max_new_tokens=8, do_sample=False)[0, len(text) :]
    for batch in ([request, Request(tuple(text))], [Request(tuple(text)), request]):
        found = [answer.ids for answer in generate(session, batch, 8)]
        assert found[batch.index(request)] == hugging_face.tokens(images[2], DESCRIBE, 8)
        assert found[1 - batch.index(request)] == tuple(wanted.tolist())


@pytest.mark.parametrize("given", ["a.png", b"...", None])
def test_one_image_for_a_list_is_refused(pipeline, given):
    with pytest.raises(PromptError, match="not a list of images"):
        pipeline.answer([DESCRIBE], given)


def test_one_prompt_or_one_stop_string_for_a_list_is_refused(pipeline, images):
    """Their characters would be taken for prompts and for stop strings."""
    with pytest.raises(PromptError, match="the prompts are a str, not a list"):
        pipeline.answer(DESCRIBE, [images[0]])
    with pytest.raises(PromptError, match="the stop strings are a str, not a list"):
        pipeline.answer([DESCRIBE], [images[0]], stops="cross")


@pytest.mark.parametrize("stop", [5, None, b"cross", ""])
def test_a_stop_is_text(stop, pipeline, images):
    with pytest.raises(PromptError, match="a stop string is "):
        pipeline.answer([DESCRIBE], [images[0]], stops=["cross", stop])


def test_images_come_as_files_as_bytes_and_as_pil_images(pipeline, images):
    with Image.open(images[3]) as image:
        given = [images[3], str(images[3]), images[3].read_bytes(), image]
        found = {pipeline.answer([DESCRIBE], [one]).answers for one in given}
    assert found == {("A large green cross at the top.",)}


@pytest.mark.parametrize(
    ("prompts", "count", "message"),
    [
        (["Describe this."], 1, "prompt 1 has no <image> token"),
        ([DESCRIBE, "Describe this."], 1, "prompt 2 has no <image> token"),
        ([DESCRIBE], 0, "places for images in the prompts: 1; images given: 0"),
        ([DESCRIBE], 2, "places for images in the prompts: 1; images given: 2"),
        ([DESCRIBE] * 3, 1, "3 prompts are more than the engine's batch of 2"),
        ([DESCRIBE + " x" * 60], 1, r"prompt 1 has \d+ tokens, the engine accepts 100"),
        (["<image><image>"], 2, r"prompt 1 has \d+ tokens, the engine accepts 100"),
        ([], 0, "there is no prompt"),
    ],
)
def test_prompts_that_do_not_fit_are_refused(pipeline, images, prompts, count, message):
    with pytest.raises(PromptError, match=message) as caught:
        pipeline.answer(prompts, images[:count])
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(("count", "message"), [(0, "0 new tokens were asked for"), (500, "with 500 new ones")])
def test_new_tokens_that_do_not_fit_are_refused(pipeline, images, count, message):
    with pytest.raises(PromptError, match=message):
        pipeline.answer([DESCRIBE], [images[0]], max_new_tokens=count)


def test_a_tree_without_tokenizer_asks_for_one(llava_tree):
    with pytest.raises(TreeError, match="the tree has no tokenizer files") as caught:
        GenerationPipeline(open_session(llava_tree, "reference"))
    assert "--hf-model" in str(caught.value)


def test_a_processor_that_cannot_be_loaded_is_named(llava_tree, tmp_path):
    with pytest.raises(TreeError, match="transformers cannot load the processor"):
        GenerationPipeline(open_session(llava_tree, "reference"), tmp_path)


def test_a_text_model_takes_no_images(shapes_checkpoint, tmp_path, images):
    model = llama(vocab_size=512)
    tree = LlmBuilder.from_model(model).with_target("tensorrt-rtx").build(tmp_path / "tree")
    pipeline = GenerationPipeline(open_session(EngineTree.open(tree.root), "reference"), shapes_checkpoint)
    assert len(pipeline.answer(["Hello"], max_new_tokens=5).tokens[0]) <= 5
    with pytest.raises(PromptError, match="the tree has no vision engine"):
        pipeline.answer(["<image>"], [images[0]])


def test_pieces_are_told_as_they_come_and_make_up_the_answer(pipeline, images):
    told: list[tuple[int, str]] = []
    reply = pipeline.answer(
        [DESCRIBE] * 2, [images[3], images[2]], tell=lambda number, piece: told.append((number, piece))
    )
    for number, answer in enumerate(reply.answers):
        pieces = [piece for of, piece in told if of == number]
        assert "".join(pieces).strip() == answer
        assert len(pieces) > 5
    assert [number for number, _ in told[:4]] == [0, 1, 0, 1]


def test_an_answer_ends_before_a_stop_string(pipeline, images):
    told: list[str] = []
    reply = pipeline.answer(
        [DESCRIBE, "<image>\nHow many shapes are there?"],
        [images[0]],
        stops=["cross at", "ring"],
        tell=lambda number, piece: told.append(piece) if number == 0 else None,
    )
    assert reply.answers == ("A small yellow", "There are two shapes.")
    assert "".join(told).strip() == "A small yellow"


@pytest.fixture(scope="module")
def hugging_face(shapes_checkpoint):
    return HuggingFace(shapes_checkpoint)


@pytest.mark.parametrize(
    "settings",
    [
        {"max_new_tokens": 7},
        {"max_length": 90},
        {"repetition_penalty": 9.0, "max_new_tokens": 20},
        {"no_repeat_ngram_size": 2, "min_new_tokens": 20, "max_new_tokens": 30},
        {"encoder_no_repeat_ngram_size": 1, "suppress_tokens": [449], "max_new_tokens": 12},
        {"stop_strings": [" cross", "two"]},
    ],
    ids=str,
)
def test_the_models_generation_defaults_are_honoured(settings, tree, hugging_face, images):
    model, tokenizer = hugging_face.model, hugging_face.processor.tokenizer
    prompts = [DESCRIBE, "<image>\nHow many shapes are there?"]
    model.generation_config = GenerationConfig(eos_token_id=2, pad_token_id=3, **{"max_length": 140, **settings})
    wanted: list[tuple[int, ...]] = []
    for prompt in prompts:
        given = hugging_face.inputs(images[0], prompt)
        made = model.generate(**given, tokenizer=tokenizer)[0, given["input_ids"].shape[1] :]
        wanted.append(tuple(made.tolist()))
    changed = EngineTree(tree.root, evolve(tree.manifest, generation=settings))
    session = open_session(changed, "reference")
    assert list(GenerationPipeline(session).answer(prompts, [images[0]]).tokens) == wanted
    plain = GenerationPipeline(session, with_defaults=False).answer(prompts, [images[0]])
    assert list(plain.tokens) != wanted
    assert plain.answers[1] == "There are two shapes."


def test_a_model_that_samples_does_so_by_seed(tree, images):
    generation = {"do_sample": True, "temperature": 8.0, "max_new_tokens": 6}
    pipeline = GenerationPipeline(
        open_session(EngineTree(tree.root, evolve(tree.manifest, generation=generation)), "reference")
    )
    own = pipeline.answer([DESCRIBE], [images[0]]).tokens
    assert own == pipeline.answer([DESCRIBE], [images[0]]).tokens
    assert own == pipeline.answer([DESCRIBE], [images[0]], sampling=Sampling(temperature=8.0, top_k=50)).tokens
    greedy = pipeline.answer([DESCRIBE], [images[0]], sampling=GREEDY)
    assert greedy.tokens != own
    assert greedy.answers == ("A small yellow cross at the",)


def test_sampling_repeats_by_seed(pipeline, images):
    def answers(seed):
        sampling = Sampling(temperature=8.0, top_k=50, seed=seed)
        return pipeline.answer([DESCRIBE], [images[0]], 8, sampling).tokens

    assert answers(3) == answers(3) != answers(4)
