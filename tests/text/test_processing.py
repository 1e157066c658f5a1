"""Prompts and images go through Hugging Face's processor; what it lacks, cannot take or does not mean is said."""

from __future__ import annotations

import json
import shutil

import pytest
from attrs import evolve
from PIL import Image
from transformers import AutoProcessor

from ditto.engine import EngineTree, Tokens
from ditto.errors import PromptError, TreeError
from ditto.families.llava import LlavaPreprocessor
from ditto.text.processing import Processor, assign, check_prompts, foreign, load_processor
from tests.support.hostile import change

DESCRIBE = "USER: <image>\nDescribe this image. ASSISTANT:"
TOKENS = Tokens(vocab_size=512, end=[2], pad=0, image=4)


@pytest.fixture
def directory(shapes_checkpoint, tmp_path):
    """The bundled LLaVA's files, weights left out."""
    return shutil.copytree(shapes_checkpoint, tmp_path / "hf", ignore=shutil.ignore_patterns("*.safetensors"))


@pytest.fixture
def image():
    return Image.new("RGB", (80, 50), "red")


def processor(directory, sees=True, **tokens):
    family = LlavaPreprocessor() if sees else None
    inner = load_processor(directory, family)
    token = inner.tokenizer.convert_tokens_to_ids("<image>") if sees else None
    return Processor(inner, evolve(TOKENS, image=token, **tokens), str(directory), family)


def test_prompts_become_what_hugging_face_makes_of_them(directory, image):
    wanted = AutoProcessor.from_pretrained(directory)(text=[DESCRIBE], images=[image], return_tensors="pt")
    (encoded, _) = processor(directory).encode([DESCRIBE] * 2, [image])
    assert list(encoded.token_ids) == wanted["input_ids"][0].tolist()
    assert encoded.inputs["pixel_values"].equal(wanted["pixel_values"])
    assert encoded.items[0].inputs["input"].equal(wanted["pixel_values"][0])
    assert not processor(directory).encode(["Hello"], [])[0].items


@pytest.mark.parametrize(
    "missing",
    [
        ["patch_size"],
        ["vision_feature_select_strategy"],
        ["num_additional_image_tokens"],
        ["patch_size", "vision_feature_select_strategy", "num_additional_image_tokens"],
    ],
    ids="+".join,
)
@pytest.mark.parametrize("strategy", ["default", "full"])
def test_what_older_processors_leave_out_is_the_models_own(missing, strategy, directory, image):
    for name in ("config.json", "processor_config.json"):
        change(name, vision_feature_select_strategy=strategy)(directory)
    wanted = processor(directory).encode([DESCRIBE], [image])[0].token_ids
    change("processor_config.json", **dict.fromkeys(missing))(directory)
    assert processor(directory).encode([DESCRIBE], [image])[0].token_ids == wanted


def test_what_no_file_states_is_named(directory):
    change("processor_config.json", patch_size=None)(directory)
    (directory / "config.json").unlink()
    with pytest.raises(TreeError, match="it does not state patch_size, and neither does a config.json") as caught:
        load_processor(directory, LlavaPreprocessor())
    assert caught.value.where == str(directory)


def test_patches_that_are_not_square_are_refused(directory):
    change("processor_config.json", patch_size=None)(directory)
    config = json.loads((directory / "config.json").read_text())
    config["vision_config"]["patch_size"] = [14, 14]
    (directory / "config.json").write_text(json.dumps(config))
    assert load_processor(directory, LlavaPreprocessor()).patch_size == 14
    config["vision_config"]["patch_size"] = [14, 28]
    (directory / "config.json").write_text(json.dumps(config))
    with pytest.raises(TreeError, match=r"config.json states \[14, 28\], which is not square"):
        load_processor(directory, LlavaPreprocessor())


@pytest.mark.parametrize("sees", [True, False])
def test_a_token_without_an_embedding_is_named_by_its_text(sees, directory, image):
    path = directory / "tokenizer.json"
    data, size = json.loads(path.read_text()), len(load_processor(directory, None))
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    data["added_tokens"].append({"id": size, "content": "<|im_start|>", "special": True, **flags})
    path.write_text(json.dumps(data))
    given = processor(directory, sees, vocab_size=size)
    images = [image] if sees else []
    given.encode([DESCRIBE], images)
    with pytest.raises(PromptError, match=rf"prompt 2 holds '<\|im_start\|>', token {size}; .* has {size}") as caught:
        given.encode([DESCRIBE, "<|im_start|>" + DESCRIBE], images)
    assert caught.value.exit_code == 2
    evolve(given, tokens=evolve(given.tokens, vocab_size=size + 1)).encode(["<|im_start|>" + DESCRIBE], images)


def test_the_image_token_may_be_outside_of_the_vocabulary_where_images_are(directory, image):
    """As in LLaVA 1.5: images replace it, and a text model has no use for it."""
    token = processor(directory).tokens.image
    beside = [other for other in processor(directory).encode(["<image>"], [image])[0].token_ids if other != token]
    assert max(beside) < token
    assert token in processor(directory, vocab_size=token).encode(["<image>"], [image])[0].token_ids
    with pytest.raises(PromptError, match=f"prompt 1 holds '<image>', token {token}"):
        processor(directory, sees=False, vocab_size=token).encode(["<image>"], [])


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ("Hello", "the prompts are a str, not a list"),
        (b"Hello", "the prompts are a bytes, not a list"),
        (None, "the prompts are a NoneType, not a list"),
        ([b"Hello"], "prompt 1 is a bytes, not a str"),
        (["Hello", None], "prompt 2 is a NoneType, not a str"),
        (["Hello", "caf\udce9"], "prompt 2 is not valid Unicode at character 4"),
    ],
)
def test_prompts_that_are_not_texts_are_named(prompts, message):
    with pytest.raises(PromptError, match=message) as caught:
        check_prompts(prompts)
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("prompts", "count", "wanted"),
    [
        (["<image> a", "b", "<image> c"], 2, [[0], [], [1]]),
        (["a", "<image><image> b"], 2, [[], [0, 1]]),
        (["<image>", "<image>"], 1, [[0], [0]]),
        (["a", "b"], 0, [[], []]),
        (["<image>", "b"], 1, "prompt 2 has no <image> token"),  # was the image meant for both?
        (["<image>", "b"], 2, "prompt 2 has no <image> token"),
        (["<image>", "<image><image>"], 1, "places for images in the prompts: 3; images given: 1"),
        (["<image>", "b"], 0, "places for images in the prompts: 1; images given: 0"),
    ],
)
def test_images_go_where_their_places_are(prompts, count, wanted):
    if isinstance(wanted, list):
        assert assign(prompts, range(count), "<image>") == wanted
        return
    with pytest.raises(PromptError, match=wanted):
        assign(prompts, range(count), "<image>")


class _Panic(BaseException):
    """As Rust's are."""


@pytest.mark.parametrize("raised", [ValueError("bad\nlong story"), KeyError("x"), RecursionError(), _Panic("bad")])
def test_what_libraries_raise_is_one_sentence(raised):
    with pytest.raises(PromptError, match="^it fails: ") as caught, foreign(PromptError, "it fails", "here", "mend it"):
        raise raised
    assert len(str(caught.value).splitlines()) == 3
    assert caught.value.__cause__ is raised


@pytest.mark.parametrize("raised", [KeyboardInterrupt(), SystemExit(3), TreeError("known")])
def test_what_is_not_a_librarys_passes(raised):
    with pytest.raises(type(raised)), foreign(PromptError, "it fails", "here", "mend it"):
        raise raised


class TestAnotherTokenizer:
    """`--hf-model` must mean by an id what the tree means."""

    def renamed(self, directory):
        path = directory / "tokenizer.json"
        data = json.loads(path.read_text())
        vocabulary = data["model"]["vocab"]
        first, second = list(vocabulary)[-2:]
        vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
        path.write_text(json.dumps(data))

    def test_the_trees_own_is_accepted_and_one_with_other_ids_is_not(self, shapes_checkpoint, directory):
        given = processor(shapes_checkpoint)
        given.check_tokens(given.tokenizer)
        self.renamed(directory)
        with pytest.raises(TreeError, match="not of the model that the tree was built from: '.*' is token") as caught:
            processor(directory).check_tokens(given.tokenizer)
        assert caught.value.where == str(directory)

    def test_a_tree_without_one_knows_its_size_and_its_image_token(self, shapes_checkpoint):
        given = processor(shapes_checkpoint)
        given.check_tokens(None)
        for tokens, message in (
            (evolve(given.tokens, vocab_size=100), r"it has \d+ tokens, the model 100"),
            (evolve(given.tokens, image=77), "<image> is token .*, of the model 77"),
        ):
            with pytest.raises(TreeError, match=message):
                evolve(given, tokens=tokens).check_tokens(None)


def test_a_tree_that_knows_no_tokens_is_refused(llava_tree, shapes_checkpoint):
    with pytest.raises(TreeError, match="the tree has no tokenizer files"):
        Processor.of(llava_tree)
    with pytest.raises(TreeError, match="has no language model"):
        Processor.of(EngineTree(llava_tree.root, evolve(llava_tree.manifest, tokens=None)), shapes_checkpoint)
